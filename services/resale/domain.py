"""What a batch of the log changes in the table of windows, when a due one is sent again, and how often to look.

Pure: nothing here knows the table, a clock or Kafka, and nothing here judges whether a window is really due; that is
the router's affair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from services.contract.events import WindowKind
from services.contract.times import HOUR_MS, MINUTE_MS

RESEND_FIRST_MS = MINUTE_MS
"""A due window that the log does not close is sent again after this time, then after twice as long, and so on."""

RESEND_AT_MOST_MS = HOUR_MS
"""The longest time between two sends."""

OUTSTANDING_MAX = 10_000
"""So many windows of a partition may have been sent and not closed; further ones wait (protocol.md, rule 29)."""

WindowKey: TypeAlias = tuple[str, int]
"""A window's lead id and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window that the log opened, and the partition of the log (and of `leads.timers`) that it belongs to."""

    partition: int
    lead_id: str
    window_number: int
    kind: WindowKind
    due_at_ms: int


class DueWindow(NamedTuple):
    """A window that is due since `due_at_ms`, and how often it was sent already."""

    partition: int
    lead_id: str
    window_number: int
    sends: int
    due_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What the table says is due at `now_ms` by its own clock; `next_at_ms`: when, at the earliest, more will be."""

    now_ms: int
    windows: tuple[DueWindow, ...]
    next_at_ms: int | None


@dataclass(slots=True)
class Changes:
    """What a batch changes in the table, gathered event by event in the order of the log.

    To be applied in this order: the windows of `ended` leads go, those in `closed` go, those in `opened` come. A
    window that is opened and closed in one batch, and the close of a lead that was listed in it, change nothing.
    """

    opened: dict[WindowKey, Window] = field(default_factory=dict)
    closed: set[WindowKey] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    _listed: set[str] = field(default_factory=set)
    _numbers: dict[str, set[int]] = field(default_factory=dict)

    def list_lead(self, lead_id: str) -> None:
        """Note that the lead is new: the table holds no window of it, and nothing need be looked for."""
        self._listed.add(lead_id)

    def open_window(self, window: Window) -> None:
        """Note a window that was opened."""
        self.opened[window.lead_id, window.window_number] = window
        self._numbers.setdefault(window.lead_id, set()).add(window.window_number)

    def close_window(self, lead_id: str, window_number: int) -> None:
        """Note that a window was closed."""
        if self.opened.pop((lead_id, window_number), None) is not None:
            self._numbers[lead_id].discard(window_number)
        elif lead_id not in self._listed:
            self.closed.add((lead_id, window_number))

    def end_lead(self, lead_id: str) -> None:
        """Note that the lead was closed, and all its windows with it."""
        for window_number in self._numbers.pop(lead_id, ()):
            del self.opened[lead_id, window_number]
        if lead_id not in self._listed:
            self.ended.add(lead_id)


@dataclass(slots=True)
class Pace:
    """Lets at most one look in `interval_s` pass on average, and `burst` of them at once after a pause."""

    interval_s: float
    burst: int
    _used_up_to_s: float = float("-inf")

    def allows(self, now_s: float) -> bool:
        """Tell whether a look may be taken now, and count it if so."""
        start_s = max(self._used_up_to_s, now_s - self.interval_s * self.burst)
        if start_s + self.interval_s > now_s:
            return False
        self._used_up_to_s = start_s + self.interval_s
        return True


def resend_after_ms(sends: int) -> int:
    """Give the time until a window is sent again that was sent `sends` times: 60 s, doubling, an hour at most."""
    return min(RESEND_FIRST_MS << min(sends - 1, 16), RESEND_AT_MOST_MS)
