"""Visits all of the larger models, which takes minutes: `python -m tests.model`; exit code 1 where a promise breaks."""

from __future__ import annotations

import sys
import time

from tests.model.checking import check
from tests.model.protocol import Left, Settings, model

LARGE = {
    "an owner dies, and a COMMIT is not answered": Settings(left=Left(crashes=1, unknown=1)),
    "a COMMIT is not answered, and an outsider does not listen": Settings(left=Left(unknown=1, refusals=1)),
    "two readers, one dies, and a COMMIT is not answered": Settings(
        left=Left(crashes=1, unknown=1), readers=2, workers=1
    ),
}


def main() -> int:
    """Print how much was visited, and what was found."""
    broken = 0
    for name, settings in LARGE.items():
        began_s = time.monotonic()
        result = check(model(settings))
        seconds = time.monotonic() - began_s
        sys.stdout.write(f"{name}: {result.states:,} states, {result.steps:,} steps, {seconds:.0f} s\n")
        if result.found is not None:
            sys.stdout.write(f"{result.found}\n")
            broken += 1
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
