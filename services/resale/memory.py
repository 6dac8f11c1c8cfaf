"""The in-memory twin of the table of windows, with the same constraints, for tests and simulation.

It is shared by all owners that a test makes, as the database would be; it never holds what the table would refuse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.bus.log_reader import Move, Overtaken
from services.bus.memory import Faults, VirtualClock
from services.bus.ports import Stopped
from services.contract.entries import Position
from services.resale.domain import (
    OUTSTANDING_MAX,
    Changes,
    Due,
    DueWindow,
    Window,
    WindowKey,
    resend_after_ms,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldWindow:
    """A row of the table."""

    window: Window
    next_send_at_ms: int
    sends: int = 0


@dataclass(slots=True)
class MemoryWindows:
    """Windows and positions, with the virtual clock as the database's."""

    clock: VirtualClock
    faults: Faults = field(default_factory=Faults)
    outstanding_max: int = OUTSTANDING_MAX
    rows: dict[WindowKey, HeldWindow] = field(default_factory=dict)
    stored_positions: dict[int, Position] = field(default_factory=dict)

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the positions."""
        return {at: self.stored_positions.setdefault(at, Position()) for at in partitions}

    def apply(self, changes: Changes, moves: Mapping[int, Move]) -> None:
        """Move and change, all or nothing."""
        self.faults.edge("commit of windows")
        if overtaken := [at for at, move in moves.items() if self.stored_positions.get(at) != move.before]:
            raise Overtaken(overtaken)
        gone = changes.closed | {key for key in self.rows if key[0] in changes.ended}
        if twice := (self.rows.keys() - gone) & changes.opened.keys():
            raise Stopped(f"the log opened a window twice: {sorted(twice)}")
        for key in gone:
            self.rows.pop(key, None)
        for key, window in changes.opened.items():
            self.rows[key] = HeldWindow(window=window, next_send_at_ms=window.due_at_ms)
        self.stored_positions.update({at: move.after for at, move in moves.items()})
        self.faults.edge("windows committed")

    def due(self, partitions: Collection[int], *, at_most: int) -> Due:
        """Read what is due by the virtual clock."""
        now_ms = self.clock.now_ms
        mine = sorted(
            (row for row in self.rows.values() if row.window.partition in partitions),
            key=lambda row: row.next_send_at_ms,
        )
        ready = [row for row in mine if row.next_send_at_ms <= now_ms]
        outstanding = Counter(row.window.partition for row in mine if row.sends)
        windows = [
            *_first((row for row in ready if row.sends), dict.fromkeys(partitions, at_most)),
            *_first(
                (row for row in ready if not row.sends),
                {at: min(at_most, self.outstanding_max - outstanding[at]) for at in partitions},
            ),
        ]
        later = (row.next_send_at_ms for row in mine if row.next_send_at_ms > now_ms)
        return Due(now_ms=now_ms, windows=tuple(windows), next_at_ms=min(later, default=None))

    def mark_sent(self, windows: Sequence[DueWindow]) -> None:
        """Count the send and put the next one off."""
        self.faults.edge("mark of sends")
        for sent in windows:
            row = self.rows.get((sent.lead_id, sent.window_number))
            if row is not None and row.sends == sent.sends:
                sends = sent.sends + 1
                self.rows[sent.lead_id, sent.window_number] = replace(
                    row, sends=sends, next_send_at_ms=self.clock.now_ms + resend_after_ms(sends)
                )
        self.faults.edge("sends marked")


def _first(rows: Iterable[HeldWindow], room: dict[int, int]) -> Iterable[DueWindow]:
    """Take rows while their partition has room."""
    for row in rows:
        window = row.window
        if room[window.partition] > 0:
            room[window.partition] -= 1
            yield DueWindow(
                window.partition, window.lead_id, window.window_number, row.sends, row.next_send_at_ms
            )
