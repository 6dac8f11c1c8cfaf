"""Positions on their way to the group, and the proof in their acknowledgement that the group knows this worker.

It commits what it is given and decides nothing about positions. A commit that is lost repeats records, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from services.bus.faults import FENCED, Warnings
from services.bus.liveness import Liveness
from services.bus.ports import TopicPartition

COMMITS_APART_S = 0.05
"""However often a step asks, commits are at least so far apart."""

_ANSWERED_WITHIN_S = 5.0


class Commits:
    """Commits positions when asked to, and from time to time as a proof of life. Positions are the next to read."""

    def __init__(
        self,
        *,
        prove_every_s: float,
        liveness: Liveness,
        warnings: Warnings,
        clock_s: Callable[[], float],
        asks_again: bool,
    ) -> None:
        """`asks_again`: a commit that failed is tried again soon, not only with the next proof."""
        self._prove_every_s = prove_every_s
        self._liveness = liveness
        self._warnings = warnings
        self._clock_s = clock_s
        self._asks_again = asks_again
        self._lock = Lock()
        self._next: dict[TopicPartition, int] = {}
        self._asked = False
        self._sent_at_s: float | None = None
        self._proof_due_at_s = 0.0
        self._last_at_s = 0.0

    def positions(self) -> dict[TopicPartition, int]:
        """Copy what would be committed now."""
        with self._lock:
            return dict(self._next)

    def begin(self, starts: Mapping[TopicPartition, int | None]) -> None:
        """Take the positions at which partitions are begun, and prove at once that they are ours."""
        with self._lock:
            for where, offset in starts.items():
                self._next.pop(where, None)
                if offset is not None:
                    self._next[where] = offset
        self._proof_due_at_s = 0.0

    def move(self, positions: Mapping[TopicPartition, int], *, asked: bool) -> None:
        """Take positions that were reached; `asked`: to be committed soon. Called by the step's thread."""
        with self._lock:
            self._next |= positions
            self._asked = self._asked or asked

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop the positions of partitions that are not ours any more."""
        with self._lock:
            for where in partitions:
                self._next.pop(where, None)

    def turn(self, consumer: Consumer) -> None:
        """Send what is due, one commit at a time."""
        now_s = self._clock_s()
        if self._sent_at_s is not None and now_s - self._sent_at_s < _ANSWERED_WITHIN_S:
            return
        asked_is_due = self._asked and now_s >= self._last_at_s + COMMITS_APART_S
        if not asked_is_due and now_s < self._proof_due_at_s:
            return
        self._last_at_s, self._proof_due_at_s = now_s, now_s + self._prove_every_s
        offsets = self._take(None)
        if offsets:
            self._send(consumer, offsets, now_s)
        else:
            # Left alone, librdkafka's thread sleeps for a second, whatever the heartbeat's interval: any call wakes it.
            consumer.memberid()

    def now(self, consumer: Consumer, partitions: Collection[TopicPartition]) -> None:
        """Commit the positions of partitions that are about to be given up."""
        offsets = self._take(partitions)
        if not offsets:
            return
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._warnings.warn(
                "commit", "positions were not committed before they were given up", error=str(error)
            )

    def on_commit(self, error: KafkaError | None, partitions: list[KafkaTopicPartition]) -> None:
        """Take the group's answer."""
        sent_at_s, self._sent_at_s = self._sent_at_s, None
        failed = error or next((at.error for at in partitions if at.error is not None), None)
        if failed is None:
            if sent_at_s is not None:
                self._liveness.prove(sent_at_s)
            return
        if failed.code() in FENCED:
            self._liveness.lose()
        self.move({}, asked=self._asks_again)
        self._warnings.warn("commit", "positions were not committed", error=failed.name())

    def _take(self, partitions: Collection[TopicPartition] | None) -> list[KafkaTopicPartition]:
        with self._lock:
            if partitions is None:
                self._asked = False
            return [
                KafkaTopicPartition(where.topic, where.partition, offset)
                for where, offset in self._next.items()
                if partitions is None or where in partitions
            ]

    def _send(self, consumer: Consumer, offsets: list[KafkaTopicPartition], now_s: float) -> None:
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
            self._sent_at_s = now_s
        except KafkaException as error:
            self._warnings.warn("commit", "positions can't be committed", error=str(error))
