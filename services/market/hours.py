"""Reads and writes when an order is open: days of the week, and hours of the buyer's day.

The same hours give the same value, however the file groups its days. Pure: which day it is, is for the router.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

from services.contract.fields import FieldError
from services.contract.market import OpenHours
from services.market.errors import did_you_mean
from services.market.tree import At, Entries, Items

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60

_Range: TypeAlias = tuple[int, int]
"""From a minute of the day until before another."""

_RANGE = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_DAYS_EXPECTED = "expected days, as in mon, mon-fri or 'mon,wed,fri' (a list in quotes)"
_HOURS_EXPECTED = "expected hours from 00:00 to 24:00, as in 08:00-18:00"


def open_hours(at: At) -> tuple[OpenHours, ...]:
    """Read a mapping of days to hours, as in `{mon-fri: 08:00-18:00, sat: [09:00-12:00, 13:00-15:00]}`."""
    by_day: dict[int, list[_Range]] = {}
    if isinstance(at.node, Entries) and not at.node.values:
        at.wrong("expected a day with its hours, as in {mon-fri: 08:00-18:00}; always open: leave out `open`")
    for name, value in at.named():
        ranges = _ranges(value)
        for day in _days_of(value, name):
            _add(value, day, by_day.setdefault(day, []), ranges)
    return grouped((day, *span) for day, spans in by_day.items() for span in spans)


def grouped(spans: Iterable[tuple[int, int, int]]) -> tuple[OpenHours, ...]:
    """Make of (day, from, to) the one tuple of hours that says it: equal hours of several days are one."""
    days: dict[_Range, set[int]] = {}
    for day, from_minute, to_minute in spans:
        days.setdefault((from_minute, to_minute), set()).add(day)
    found = sorted(
        (tuple(sorted(of)), from_minute, to_minute) for (from_minute, to_minute), of in days.items()
    )
    return tuple(OpenHours(days=of, from_minute=start, to_minute=end) for of, start, end in found)


def days_text(days: Sequence[int]) -> str:
    """Write days in the week's order: Monday to Wednesday and Friday are `mon-wed,fri`."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)


def range_text(hours: OpenHours) -> str:
    """Write the hours of a day, as in `08:00-18:00`."""
    return f"{_time_text(hours.from_minute)}-{_time_text(hours.to_minute)}"


def _ranges(at: At) -> tuple[_Range, ...]:
    if isinstance(at.node, Items):
        return at.texts(_range)
    found = at.text(_range, None)
    return () if found is None else (found,)


def _range(text: str) -> _Range:
    found = _RANGE.fullmatch(text)
    if not found:
        raise FieldError(_HOURS_EXPECTED)
    start, end = _minute(found[1], found[2]), _minute(found[3], found[4])
    if start == end:
        raise FieldError("expected hours that end after they begin; a whole day is 00:00-24:00")
    if start > end:
        raise FieldError(
            "expected hours of one day: over midnight is two entries, as in {fri: 22:00-24:00, sat: 00:00-02:00}"
        )
    return start, end


def _minute(hour: str, minute: str) -> int:
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > DAY_MINUTES:
        raise FieldError(_HOURS_EXPECTED)
    return minutes


def _days_of(at: At, name: str) -> tuple[int, ...]:
    try:
        return _days(name)
    except FieldError as error:
        at.wrong(str(error))
        return ()


def _days(name: str) -> tuple[int, ...]:
    days = [day for part in name.split(",") for day in _run(part.strip())]
    if len(days) != len(set(days)):
        raise FieldError("expected each day once")
    return tuple(days)


def _run(text: str) -> Iterator[int]:
    first, is_run, last = text.partition("-")
    ends = (first, last if is_run else first)
    for day in ends:
        if day not in DAYS:
            raise FieldError(f"{_DAYS_EXPECTED}{did_you_mean(day, DAYS)}")
    start, end = map(DAYS.index, ends)
    if start > end:
        raise FieldError(
            f"expected days in the week's order: {text} is '{days_text(range(start, 7))},{days_text(range(end + 1))}'"
        )
    yield from range(start, end + 1)


def _add(at: At, day: int, taken: list[_Range], ranges: Sequence[_Range]) -> None:
    found = sorted({*taken, *ranges})
    if len(found) < len(taken) + len(ranges) or any(
        later[0] < earlier[1] for earlier, later in pairwise(found)
    ):
        at.wrong(f"expected hours that don't overlap: two of these are open at once on {DAYS[day]}")
        return
    taken[:] = found


def _time_text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
