"""Puts the wall clock of a process off, for everything in it: Python, librdkafka, a server's own code.

A library of a few lines is compiled and preloaded; the machine's clock is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILED_WITHIN_S = 60.0


def is_possible() -> bool:
    """Tell whether there is a compiler."""
    return shutil.which("cc") is not None


@contextmanager
def library() -> Iterator[Path]:
    """Compile the library into a folder that any user can read, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="gavel-clock-") as folder:
        Path(folder).chmod(0o755)
        made = Path(folder) / "skewed_clock.so"
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(made), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=_COMPILED_WITHIN_S)
        yield made


def environment(library: Path, skew_s: int) -> Mapping[str, str]:
    """Say what a process must be started with, so that its clock is so many seconds ahead (or behind)."""
    return {"LD_PRELOAD": str(library), "SKEW_S": str(skew_s)}


@contextmanager
def put_off(library: Path, skew_s: int) -> Iterator[None]:
    """Start what is started meanwhile with such a clock."""
    own = environment(library, skew_s)
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
