"""Which records still count: each start of a partition is a generation, and a record belongs to the one it was read in.

Pure bookkeeping, called by two threads: the pump starts and drops partitions, the step's thread voids them and asks.
It does no IO and never waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock

from services.bus.ports import Record, TopicPartition

_NEVER = 1 << 62


class Generations:
    """Counts starts. `epoch` is the count now; a batch carries the epoch at which it was complete."""

    def __init__(self) -> None:
        """Begin with no partition."""
        self.epoch = 0
        self._started: dict[TopicPartition, int] = {}
        self._owned: dict[TopicPartition, int] = {}
        self._lock = Lock()

    def start(self, partitions: Iterable[TopicPartition]) -> None:
        """Begin a generation of these partitions: what was read of them before is void."""
        with self._lock:
            self.epoch += 1
            for where in partitions:
                self._started[where] = self._owned[where] = self.epoch

    def void(self, partitions: Iterable[TopicPartition]) -> None:
        """Let no record of these partitions count; their positions may still be committed."""
        with self._lock:
            self.epoch += 1
            for where in partitions:
                self._started.pop(where, None)

    def drop(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget these partitions: they are another's."""
        self.void(partitions)
        with self._lock:
            for where in partitions:
                self._owned.pop(where, None)

    def live(self, records: Sequence[Record], epoch: int) -> Sequence[Record]:
        """Keep the records, all read by `epoch`, whose partition was not started again or taken away since."""
        started = self._started
        if epoch == self.epoch and len(started) == len(self._owned):
            return records
        return [
            record for record in records if started.get(TopicPartition(record[0], record[1]), _NEVER) <= epoch
        ]

    def reads(self, where: TopicPartition) -> bool:
        """Say whether records of this partition count at all."""
        return where in self._started

    def committable(self, where: TopicPartition, epoch: int) -> bool:
        """Say whether a position found in a batch of `epoch` may be committed: the partition was ours all along."""
        return self._owned.get(where, _NEVER) <= epoch
