"""What was read and not yet handled: collected into batches while the step is busy, and bounded.

Two batches at most are on their way to the step; behind them, records wait until they fill one more. A step rests after
each batch, so that records gather, unless one is full: a batch has a price, whatever is in it. No IO, no clock: the
pump adds and takes, the step's thread says what it has begun and finished, and how long it rests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf
from threading import Event, Lock

from services.bus.ports import Record, TopicPartition

UNDER_WAY_AT_MOST = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order of their partitions, all read by `epoch`; an empty batch is a call to `idle`."""

    records: Sequence[Record]
    epoch: int
    read_at_s: float


class Backlog:
    """Holds what waits for the step."""

    def __init__(self, batch_max: int, *, idle_every_s: float) -> None:
        """Make batches of at most `batch_max` records, and an empty one when nothing came for `idle_every_s`."""
        self._finished = Event()
        self._batch_max = batch_max
        self._idle_every_s = idle_every_s
        self._idle_due_at_s = 0.0
        self._wake_at_s: float | None = None
        self._rests_until_s = -inf
        self._waiting: list[Record] = []
        self._waiting_since_s = 0.0
        self._lock = Lock()
        self._under_way: deque[Batch] = deque()
        self._not_begun_at_free_s: deque[float] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether no record waits (some may be under way)."""
        return not self._waiting

    @property
    def under_way(self) -> int:
        """How many batches are on their way to the step or with it."""
        return len(self._under_way)

    def has_room(self) -> bool:
        """Say whether more may be read."""
        return len(self._waiting) < self._batch_max or self.under_way < UNDER_WAY_AT_MOST

    def idle_due_in_s(self, now_s: float) -> float:
        """Say how long the step may go without a call."""
        return max(0.0, min(self._idle_due_at_s, self._wakes_at_s()) - now_s)

    def wakes_in_s(self, now_s: float) -> float | None:
        """Say when the step is to be woken, whether it is busy or not; None where it did not ask for it."""
        wake_at_s = self._wake_at_s
        return None if wake_at_s is None else max(0.0, wake_at_s - now_s)

    def wake_at(self, at_s: float | None) -> None:
        """Take note of when the step wants to be called. Called by the step's thread."""
        self._wake_at_s = at_s

    def rest_until(self, at_s: float) -> None:
        """Take note of until when the step rests, unless a batch is full before. Called by the step's thread."""
        self._rests_until_s = at_s

    def rests_for_s(self, now_s: float) -> float:
        """Say for how long records go on gathering though the step is idle: until it has rested, or is to be woken."""
        return max(0.0, min(self._rests_until_s, self._wakes_at_s()) - now_s)

    def add(self, records: Sequence[Record], read_at_s: float) -> None:
        """Put records behind those that wait."""
        if not self._waiting:
            self._waiting_since_s = read_at_s
        self._waiting += records

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Drop the waiting records of these partitions."""
        gone = frozenset(partitions)
        self._waiting = [
            record for record in self._waiting if TopicPartition(record.topic, record.partition) not in gone
        ]

    def take(self, epoch: int, now_s: float, *, free_s: float = 0.0) -> Batch | None:
        """Take a batch to send: what there is for an idle step that has rested, a full one in any case, else None.

        `free_s` is for how long the step's thread has had nothing to do so far, see `swallowed_s`.
        """
        full = len(self._waiting) >= self._batch_max and self.under_way < UNDER_WAY_AT_MOST
        due_in_s = self.rests_for_s(now_s) if self._waiting else self.idle_due_in_s(now_s)
        if not full and (self.under_way or due_in_s > 0.0):
            return None
        batch = Batch(self._waiting[: self._batch_max], epoch, self._waiting_since_s)
        self._waiting = self._waiting[self._batch_max :]
        self._waiting_since_s = now_s
        self._idle_due_at_s = now_s + self._idle_every_s
        with self._lock:
            self._under_way.append(batch)
            self._not_begun_at_free_s.append(free_s)
        return batch

    def _wakes_at_s(self) -> float:
        wake_at_s = self._wake_at_s
        return inf if wake_at_s is None else wake_at_s

    def begin(self) -> None:
        """Take note that the step begins with the oldest batch under way."""
        with self._lock:
            self._not_begun_at_free_s.popleft()

    def finish(self) -> None:
        """Take note that the step is done with the oldest batch under way."""
        with self._lock:
            self._under_way.popleft()
        self._finished.set()

    def await_finished(self, within_s: float, *, left: int = 0) -> bool:
        """Wait until the step is done with a batch, or at most `left` are under way; tell whether it was in time."""
        self._finished.clear()
        return self.under_way <= left or self._finished.wait(within_s)

    def swallowed_s(self, free_s: float) -> float:
        """Say for how long the step has had nothing to do since the oldest batch was sent that it has not begun.

        What else the thread is asked to do meanwhile, however often, takes time and nothing more: a batch that it
        could have begun in all that time is not on its way any more.
        """
        with self._lock:
            return free_s - self._not_begun_at_free_s[0] if self._not_begun_at_free_s else 0.0

    def oldest_ms(self) -> int | None:
        """Give the time of the oldest record that was read and is not handled. For people, now and then; any thread."""
        with self._lock:
            under_way = [batch.records for batch in self._under_way]
        return min((record.timestamp_ms for record in chain(*under_way, self._waiting)), default=None)
