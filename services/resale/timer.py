"""The step: folds the log into the table of windows, and sends what is due to `leads.timers`.

It decides nothing and keeps nothing that the table lacks: of the windows it knows only when to look next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry

from services.bus.log_reader import LogReader, Move, TakenEntry
from services.bus.ports import BusFailed, Message, Producer, Record, TopicPartition
from services.contract.codec import Codec
from services.contract.entries import EventBody, Position
from services.contract.events import LeadClosed, LeadListed, WindowClosed, WindowOpened
from services.contract.inputs import TimerDue
from services.contract.topics import Topics
from services.resale.domain import Changes, DueWindow, Pace, Window
from services.resale.metrics import ResaleMetrics
from services.resale.store import WindowStore

LOOK_AT_LEAST_EVERY_S = 1.0
"""However far off the next window is, the database's clock is compared again after this time."""

LOOK_INTERVAL_S = 0.05
LOOK_BURST = 4
"""Looks come 20 a second at most while windows fall due one after the other; single ones are looked for when due."""

WAITED_FOR_AT_MOST_S = 0.05
"""An idle step waits for a window that falls due before the host would call it again."""

SENT_AT_ONCE_MAX = 250
"""So many windows of a partition are sent at one look."""

WindowFact: TypeAlias = LeadListed | LeadClosed | WindowOpened | WindowClosed
"""The events that concern windows. That the first two happened is enough: they are not decoded."""


class WindowFold:
    """Makes rows of the events that open and close windows."""

    def __init__(self, windows: WindowStore, codec: Codec, on_opened: Callable[[int], None]) -> None:
        """Fold into `windows`; tell `on_opened` the earliest time at which a window of a batch will be due."""
        self._windows = windows
        self._codec = codec
        self._on_opened = on_opened
        kinds = (LeadListed, LeadClosed, WindowOpened, WindowClosed)
        self._kinds: dict[int, type[WindowFact]] = {id: kind for kind in kinds for id in codec.ids_of(kind)}

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions."""
        return self._windows.positions(partitions)

    def apply(self, taken: Sequence[TakenEntry], moves: Mapping[int, Move]) -> None:
        """Change the table and move the positions."""
        changes = self._changes_of(taken)
        self._windows.apply(changes, moves)
        if changes.opened:
            self._on_opened(min(window.due_at_ms for window in changes.opened.values()))

    def idle(self) -> None:
        """Do nothing: the step itself sends what is due."""

    def _changes_of(self, taken: Sequence[TakenEntry]) -> Changes:
        """Look at each event's schema id before decoding it: few events concern windows."""
        changes = Changes()
        for one in taken:
            for event in one.entry.events:
                kind = self._kinds.get(event.schema_id)
                if kind is not None:
                    self._note(changes, one, kind, event)
        return changes

    def _note(self, changes: Changes, taken: TakenEntry, kind: type[WindowFact], event: EventBody) -> None:
        lead_id = taken.entry.lead_id
        if kind is LeadListed:
            changes.list_lead(lead_id)
        elif kind is LeadClosed:
            changes.end_lead(lead_id)
        elif kind is WindowClosed:
            changes.close_window(lead_id, self._codec.decode_body(event).window_number)
        else:
            changes.open_window(_window(taken, self._codec.decode_body(event)))


def _window(taken: TakenEntry, opened: WindowOpened) -> Window:
    return Window(
        partition=taken.partition,
        lead_id=taken.entry.lead_id,
        window_number=opened.window_number,
        kind=opened.kind,
        due_at_ms=opened.due_at_ms,
    )


class ResaleTimer:
    """The `Step`: a reader of the log that also sends what is due in the partitions it owns."""

    def __init__(
        self,
        windows: WindowStore,
        producer: Producer,
        codec: Codec,
        topics: Topics,
        *,
        monotonic_s: Callable[[], float],
        wait_s: Callable[[float], None],
        registry: CollectorRegistry | None = None,
    ) -> None:
        """Fold `topics.log` into `windows` and send to `topics.timers`; `wait_s` lets so many seconds pass."""
        self._windows = windows
        self._producer = producer
        self._codec = codec
        self._topic = topics.timers
        self._monotonic_s = monotonic_s
        self._wait_s = wait_s
        registry = registry or CollectorRegistry()
        self._metrics = ResaleMetrics(registry)
        self._pace = Pace(LOOK_INTERVAL_S, LOOK_BURST)
        self._owned: set[int] = set()
        self._look_at_s = 0.0
        self._database_ahead_ms = 0.0
        fold = WindowFold(windows, codec, self._look_when_due)
        self._reader = LogReader(fold, codec, topic=topics.log, monotonic_s=monotonic_s, registry=registry)

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin at the stored positions, and look at once: windows fell due while nobody owned them."""
        start = self._reader.take_over(assigned)
        self._owned.update(where.partition for where in assigned)
        self._look_at_s = 0.0
        return start

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Forget the partitions; nothing more is sent for them."""
        self._owned.difference_update(where.partition for where in revoked)
        self._reader.release(revoked)

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Fold a batch, then send what is due."""
        again = self._reader.handle(records)
        self._send_due()
        return again

    def idle(self) -> Collection[TopicPartition]:
        """Send what is due, now or in a moment; stop where an entry of the log has been missing for long."""
        again = self._reader.idle()
        due_in_s = self._look_at_s - self._monotonic_s()
        if self._owned and 0 < due_in_s <= WAITED_FOR_AT_MOST_S:
            self._wait_s(due_in_s)
        self._send_due()
        return again

    def _send_due(self) -> None:
        if not self._owned or not self._may_look(self._monotonic_s()):
            return
        due = self._windows.due(self._owned, at_most=SENT_AT_ONCE_MAX)
        now_s = self._monotonic_s()
        self._database_ahead_ms = due.now_ms - now_s * 1_000
        self._look_at_s = now_s + LOOK_AT_LEAST_EVERY_S
        if due.next_at_ms is not None:
            self._look_when_due(due.next_at_ms)
        if due.windows:
            self._send(due.windows)
            self._metrics.count(due.windows, due.now_ms)

    def _may_look(self, now_s: float) -> bool:
        return now_s >= self._look_at_s and self._pace.allows(now_s)

    def _send(self, windows: Sequence[DueWindow]) -> None:
        """Send, then note that it was sent: a crash between the two sends twice, which changes nothing."""
        if unacknowledged := self._producer.publish([self._message_of(window) for window in windows]):
            raise BusFailed(f"{self._topic} did not take all that is due: {unacknowledged[0].error}")
        self._windows.mark_sent(windows)
        if len(windows) >= SENT_AT_ONCE_MAX:
            self._look_at_s = 0.0

    def _message_of(self, window: DueWindow) -> Message:
        due = TimerDue(lead_id=window.lead_id, window_number=window.window_number)
        return Message(self._topic, window.partition, window.lead_id.encode(), self._codec.encode(due))

    def _look_when_due(self, due_at_ms: int) -> None:
        """Look a millisecond after `due_at_ms`, by what is known of the database's clock, or earlier as planned."""
        self._look_at_s = min(self._look_at_s, (due_at_ms + 1 - self._database_ahead_ms) / 1_000)
