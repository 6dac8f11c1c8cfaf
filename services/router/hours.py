"""When orders are open: hours of days in their buyers' own time, as clocks show it.

Pure: the moment is an argument. What was found is kept for the minute it holds in, because clocks and hours change on
whole minutes only, and a lead is not to pay for finding it again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias
from zoneinfo import ZoneInfo

from services.contract.market import OpenHours
from services.contract.times import MINUTE_MS
from services.router.prices import OrderSet

Opening: TypeAlias = tuple[str, tuple[OpenHours, ...]]
"""A time zone, and the hours in it; no hours at all is always open."""


def is_open(opening: Opening, now_ms: int) -> bool:
    """Tell whether it is open: an hour that clocks skip never comes, one that they show twice is open twice."""
    timezone, hours = opening
    if not hours:
        return True
    local = datetime.fromtimestamp(now_ms // 1_000, tz=ZoneInfo(timezone))
    weekday, minute = local.weekday(), local.hour * 60 + local.minute
    return any(weekday in part.days and part.from_minute <= minute < part.to_minute for part in hours)


class OpeningTimes:
    """The orders that keep hours, and which of them are closed in a given minute."""

    __slots__ = ("_closed_in", "_groups")

    def __init__(self, openings: Iterable[tuple[Opening, OrderSet]]) -> None:
        """Group orders by their hours; those that are always open cost nothing from here on."""
        groups: dict[Opening, OrderSet] = defaultdict(int)
        for opening, order in openings:
            if opening[1]:
                groups[opening] |= order
        self._groups = tuple(groups.items())
        self._closed_in: tuple[int, OrderSet] = (-1, 0)

    def closed(self, now_ms: int) -> OrderSet:
        """Find the orders that are closed now."""
        if not self._groups:
            return 0
        minute = now_ms // MINUTE_MS
        kept_minute, found = self._closed_in
        if kept_minute != minute:
            found = 0
            for opening, orders in self._groups:
                if not is_open(opening, minute * MINUTE_MS):
                    found |= orders
            self._closed_in = (minute, found)
        return found
