"""What changes from one market to another, path by path, in the words and units of the file.

Pure, and for people and scripts that look before they apply; nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.contract.market import Market
from services.market.writing import Plain, one_line, plain

SHOWN_MAX = 160


class ChangeKind(StrEnum):
    """What happens to a path."""

    ADDED = "added"
    CHANGED = "changed"
    RETIRED = "retired"


_SIGNS = {ChangeKind.ADDED: "+", ChangeKind.CHANGED: "~", ChangeKind.RETIRED: "-"}


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs; `old` and `new` are as the file would say it."""

    kind: ChangeKind
    path: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        values = " -> ".join(_shown(value) for value in (self.old, self.new) if value is not None)
        return f"{_SIGNS[self.kind]} {self.path}: {values}"


def difference(old: Market | None, new: Market) -> tuple[Change, ...]:
    """List what was added, changed and retired, in the order of the file; without an old market, all is new."""
    before: Mapping[str, Plain] = {} if old is None else plain(old)
    return tuple(_compared("", before, plain(new)))


def _compared(path: str, old: Plain, new: Plain) -> Iterator[Change]:
    was, now = _keyed(old), _keyed(new)
    if was is None or now is None:
        if old != new:
            yield Change(ChangeKind.CHANGED, path, one_line(old), one_line(new))
        return
    for key in [*was, *(key for key in now if key not in was)]:
        yield from _entry(f"{path}.{key}" if path else key, was.get(key), now.get(key))
    yield from _moved(path, old, new, was, now)


def _entry(path: str, old: Plain | None, new: Plain | None) -> Iterator[Change]:
    if old is None and new is not None:
        yield from _whole(ChangeKind.ADDED, path, new)
    elif old is not None and new is None:
        yield from _whole(ChangeKind.RETIRED, path, old)
    elif old is not None and new is not None:
        yield from _compared(path, old, new)


def _whole(kind: ChangeKind, path: str, value: Plain) -> Iterator[Change]:
    # Of a whole section each entry is named, of a whole entry its text on one line.
    if "." not in path and isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _whole(kind, f"{path}.{key}", entry)
        return
    text = one_line(value)
    is_new = kind is ChangeKind.ADDED
    yield Change(kind, path, None if is_new else text, text if is_new else None)


def _keyed(value: Plain) -> Mapping[str, Plain] | None:
    """Give the named parts of a value: a plan by its name, stages and score rules by number; None for a leaf."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str) or not any(isinstance(item, Mapping) for item in value):
        return None
    return {_key(number, item): item for number, item in enumerate(value, start=1)}


def _key(number: int, item: Plain) -> str:
    name = item.get("name") if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else str(number)


def _moved(
    path: str, old: Plain, new: Plain, was: Mapping[str, Plain], now: Mapping[str, Plain]
) -> Iterator[Change]:
    # The first plan that fits sells the lead, so their order is part of what is promised.
    if isinstance(old, Mapping) or isinstance(new, Mapping):
        return
    kept_before, kept_now = [key for key in was if key in now], [key for key in now if key in was]
    if kept_before != kept_now:
        yield Change(ChangeKind.CHANGED, path, _order(was), _order(now))


def _order(keys: Sequence[str] | Mapping[str, Plain]) -> str:
    return "in this order: " + ", ".join(keys)


def _shown(value: str) -> str:
    return value if len(value) <= SHOWN_MAX else value[:SHOWN_MAX] + "..."
