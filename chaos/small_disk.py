"""A disk of a few megabytes under a server's data, which can be filled without harm to anybody else.

It is a tmpfs in a mount namespace that this process makes for itself and what it starts from then on: nobody else sees
it, and it goes with the last of them, however they end. It needs root, and Linux.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_BLOCK = bytes(64 * 1024)
_BALLAST = "ballast"


def is_possible() -> bool:
    """Tell whether this process may mount."""
    return sys.platform.startswith("linux") and os.geteuid() == 0


def put_under(folder: Path, mib: int) -> None:
    """Mount a disk of so many MiB under a folder whose server does not run, with what is in it; raise `OSError`.

    To be called by the thread that starts the server again: a namespace is a thread's own.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "a mount namespace of its own was refused")
    kept = folder.with_name(f"{folder.name}.kept")
    folder.rename(kept)
    folder.mkdir(mode=kept.stat().st_mode)
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "gavel-small-disk", str(folder))
    shutil.copytree(kept, folder, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(kept)


def fill(folder: Path) -> int:
    """Fill the disk to its last byte; return how many bytes that took."""
    written = 0
    with (folder / _BALLAST).open("ab", 0) as file:
        for block in (_BLOCK, _BLOCK[:512]):
            try:
                while True:
                    written += file.write(block)
            except OSError:
                continue
    return written


def make_room(folder: Path) -> None:
    """Take away what filled it, and let it grow: whatever comes later is not to meet its end again."""
    (folder / _BALLAST).unlink()
    _run("mount", "-o", "remount,size=50%", str(folder))


def take_away(folder: Path) -> None:
    """Unmount it, with all that it has; nothing where it is no such disk."""
    if folder.is_mount():
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
