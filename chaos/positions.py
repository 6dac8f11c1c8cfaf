"""How far every step has come, read from outside: from the groups' positions, the topics' ends and the tables.

What it reads is progress, which alone tells a worker that works from one that merely runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

_ANSWER_S = 3.0
_LOOK_EVERY_S = 0.25


class Unreachable(Exception):
    """A server did not answer, so nothing can be said just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All positions at one moment.

    `at`: where each step stands in each partition, under a name. `waiting`: how many records lie before the steps.
    """

    began_s: float
    at: Mapping[str, int]
    waiting: int


Read = Callable[[], tuple[Mapping[str, int], int]]
"""Gives `at` and `waiting`, or raises `Unreachable`."""


class Offsets:
    """Ends of topics, and positions of groups, by consumers that read nothing.

    An `AdminClient` would do; but asked for a group's positions while the group's coordinator is away, that of
    confluent-kafka 2.16 takes the whole process down with it.
    """

    def __init__(self, kafka: str) -> None:
        """Connect in the background."""
        self._kafka = kafka
        self._consumers: dict[str, Consumer] = {}

    def ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Read where each partition ends; raise `Unreachable`."""
        asked = [TopicPartition(topic, partition, OFFSET_END) for topic, partition in partitions]
        return self._answers(
            "chaos-ends", lambda consumer: consumer.offsets_for_times(asked, timeout=_ANSWER_S)
        )

    def committed(self, group: str, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Read where a group stands, 0 where it has no position yet; raise `Unreachable`."""
        asked = [TopicPartition(*where) for where in partitions]
        found = self._answers(group, lambda consumer: consumer.committed(asked, timeout=_ANSWER_S))
        return {where: max(offset, 0) for where, offset in found.items()}

    def _answers(
        self, group: str, ask: Callable[[Consumer], Sequence[TopicPartition]]
    ) -> dict[tuple[str, int], int]:
        try:
            found = ask(self._consumer(group))
        except KafkaException as error:
            raise self._unreachable(group, error) from error
        failed = next((where.error for where in found if where.error is not None), None)
        if failed is not None:
            raise self._unreachable(group, failed)
        return {(where.topic, where.partition): where.offset for where in found}

    def _unreachable(self, group: str, reason: object) -> Unreachable:
        """Ask by another client the next time: one has been seen not to find a broker again that was back for long."""
        self._consumers.pop(group, None)
        return Unreachable(f"{group}: {reason}")

    def _consumer(self, group: str) -> Consumer:
        """Make the consumer that asks in a group's name: it never joins it."""
        if group not in self._consumers:
            settings = {"group.id": group, "enable.auto.commit": False, "log_level": 0}
            self._consumers[group] = Consumer({"bootstrap.servers": self._kafka, **settings})
        return self._consumers[group]


@dataclass(slots=True)
class Watch:
    """Reads the positions again and again, in a thread of its own, and keeps the latest."""

    read: Read
    latest: Reading | None = None
    unreachable: str = ""
    readings: int = 0
    failed: BaseException | None = None
    _over: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """Read until `stop`."""
        try:
            while not self._over.wait(_LOOK_EVERY_S):
                self._look()
        except BaseException as error:  # raised again by whoever waits
            self.failed = error
            with self._changed:
                self._changed.notify_all()
            raise

    def stop(self) -> None:
        """Read no more."""
        self._over.set()

    def next_after(self, moment_s: float, within_s: float) -> Reading | None:
        """Wait for a reading that began after a moment; None where there is none in time."""
        ends_at_s = time.monotonic() + within_s
        with self._changed:
            while self.latest is None or self.latest.began_s <= moment_s:
                if self.failed is not None:
                    raise RuntimeError("the watch over the positions has failed") from self.failed
                if time.monotonic() >= ends_at_s or self._over.is_set():
                    return None
                self._changed.wait(min(0.5, max(0.01, ends_at_s - time.monotonic())))
            return self.latest

    def _look(self) -> None:
        began_s = time.monotonic()
        try:
            at, waiting = self.read()
        except Unreachable as error:
            self.unreachable = str(error)
            return
        with self._changed:
            self.latest = Reading(began_s=began_s, at=at, waiting=waiting)
            self.readings += 1
            self._changed.notify_all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How long it took until every step went on in every partition; `standing` are those that did not."""

    seconds: float | None
    standing: tuple[str, ...] = ()


def await_progress(watch: Watch, since_s: float, within_s: float) -> Recovery:
    """Wait until every position is beyond where the first reading after `since_s` found it."""
    ends_at_s = time.monotonic() + within_s
    first = watch.next_after(since_s, within_s)
    if first is None:
        return Recovery(seconds=None, standing=(f"nothing can be read: {watch.unreachable}",))
    reading = first
    standing = tuple(first.at)
    while standing:
        later = watch.next_after(reading.began_s, ends_at_s - time.monotonic())
        if later is None or time.monotonic() >= ends_at_s:
            return Recovery(seconds=None, standing=standing)
        reading = later
        standing = tuple(name for name in first.at if reading.at.get(name, -1) <= first.at[name])
    return Recovery(seconds=reading.began_s - since_s)
