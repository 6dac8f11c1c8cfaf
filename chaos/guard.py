"""Ends what a campaign started, where the campaign itself was killed and could not: `python -m chaos.guard FOLDER`.

A process of its own that does nothing but read its standard input: `+<pid>` and `-<pid>` say what has been started and
has ended. When the input ends without a word that all is well, its writer is gone: then those still there are killed,
each only if it is still the process that was named, and the servers of the folder are stopped and the folder removed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from deploy.local import stack

_REPOSITORY = Path(__file__).parents[1]
_ALL_IS_WELL = "."
_ENDS_WITHIN_S = 10.0


@dataclass(slots=True)
class Guard:
    """The campaign's side of it."""

    process: subprocess.Popen[str]

    @classmethod
    def over(cls, folder: Path) -> Self:
        """Start a guard over the servers of a folder, in a session that no signal at the terminal reaches."""
        return cls(
            subprocess.Popen(
                [sys.executable, "-m", "chaos.guard", str(folder)],
                cwd=_REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        )

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that all is well: whatever was started has been seen to."""
        self._say(_ALL_IS_WELL)
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process.wait(_ENDS_WITHIN_S)

    def started(self, pid: int) -> None:
        """Name a process that was started."""
        self._say(f"+{pid}")

    def ended(self, pid: int) -> None:
        """Name one that has ended."""
        self._say(f"-{pid}")

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # without a guard a campaign is as good, unless it is killed
            assert self.process.stdin is not None, "it was started with a pipe"
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()


def main() -> int:
    """Read until the end, and end what is left."""
    known: dict[int, psutil.Process] = {}
    for line in sys.stdin:
        word = line.strip()
        if word == _ALL_IS_WELL:
            return 0
        pid = int(word[1:])
        if word.startswith("+"):
            with suppress(psutil.NoSuchProcess):
                known[pid] = psutil.Process(
                    pid
                )  # remembers when it began, so that no other with its id is taken for it
        else:
            known.pop(pid, None)
    for process in known.values():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    folder = Path(sys.argv[1])
    stack.down(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
