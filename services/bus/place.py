"""A worker's place in its group: what it subscribes to, which partitions it reads, and their positions from the step.

Everything here happens in the pump's thread, much of it in librdkafka's rebalance callbacks; the step is asked in its
own thread while these wait. No record is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import structlog
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from services.bus.commits import Commits
from services.bus.faults import Warnings
from services.bus.generations import Generations
from services.bus.kafka import start_of
from services.bus.liveness import Liveness
from services.bus.metrics import HostMetrics
from services.bus.ports import BusFailed, Step, TopicPartition
from services.bus.step_thread import StepThread

T = TypeVar("T")

TOPICS_EVERY_S = 5.0
TOPICS_WITHIN_S = 10.0
"""So long a worker waits at its start for topics that are just being created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a step reads.

    `topics` is asked again and again, in the step's thread, because the answer may change with the market. Of each
    partition of them that the group gives us, the same partition of every partner topic is read as well.
    `partitions`: so many each of these topics must have, as a record's partition is computed from that (None: as many
    as there are). With fewer a worker does not start; what was added is told and left unread.
    `step_commits`: the step keeps its positions in Kafka and commits them itself; otherwise they are in its database
    and the group's offsets only tell people how far it is.
    `gathers_ms`: so long records may gather at the broker before they are handed out (0: not at all), which spares
    broker and step many small batches. For readers that nobody waits for.
    """

    group: str
    topics: Callable[[], Collection[str]]
    partners: tuple[str, ...] = ()
    partitions: int | None = None
    step_commits: bool = False
    gathers_ms: int = 0


class Place:
    """What the group has given this worker, begun at the step's positions."""

    def __init__(
        self,
        consumer: Consumer,
        subscription: Subscription,
        step: Step,
        step_thread: StepThread,
        *,
        generations: Generations,
        commits: Commits,
        liveness: Liveness,
        metrics: HostMetrics,
        warnings: Warnings,
        on_void: Callable[[Collection[TopicPartition]], None],
        leaving: threading.Event,
        failing: threading.Event,
        clock_s: Callable[[], float],
    ) -> None:
        """`on_void` hears of partitions whose records don't count any more."""
        self.reading: set[TopicPartition] = set()
        self.paused = False
        self._consumer = consumer
        self._subscription = subscription
        self._step = step
        self._step_thread = step_thread
        self._generations = generations
        self._commits = commits
        self._liveness = liveness
        self._metrics = metrics
        self._warnings = warnings
        self._on_void = on_void
        self._leaving = leaving
        self._failing = failing
        self._clock_s = clock_s
        self._log = structlog.get_logger(__name__)
        self._owned: set[TopicPartition] = set()
        self._subscribed: tuple[str, ...] = ()
        self._asked: Future[Collection[str]] | None = None
        self._ask_at_s = 0.0

    def join(self, needs: Collection[str]) -> None:
        """Subscribe for the first time; raise `BusFailed` where topics are missing, those of `needs` included."""
        topics = self._call_step(self._subscription.topics)
        self._await_topics(topics, {*needs, *self._subscription.partners})
        if self._subscription.partitions is not None:
            for topic in sorted({*topics, *self._subscription.partners}):
                self._require_partitions(topic, self._subscription.partitions)
        self._subscribe(topics)

    def ask_soon(self) -> None:
        """Have the topics asked for at the next turn. Called by any thread."""
        self._ask_at_s = 0.0

    def turn(self) -> None:
        """Follow what the step says it subscribes to, without waiting for it."""
        if self._asked is not None:
            if self._asked.done():
                topics, self._asked = self._asked.result(), None
                self._subscribe(topics)
        elif self._clock_s() >= self._ask_at_s:
            self._ask_at_s = self._clock_s() + TOPICS_EVERY_S
            self._asked = self._step_thread.submit(self._subscription.topics)

    def begin_again(self, asked: Iterable[TopicPartition]) -> None:
        """Begin partitions again at the step's positions; those that are another's by now are no affair of ours."""
        mine = sorted(self._owned.intersection(asked))
        if mine:
            everything = self.with_partners(mine)
            self._void(everything)
            self._stop_reading(everything)
            self._start_reading(mine)

    def subscribed(self, numbers: Iterable[int]) -> set[TopicPartition]:
        """Name the subscribed partitions of these numbers that are ours."""
        wanted = set(numbers)
        return {where for where in self._owned if where.partition in wanted}

    def check_subscribed(self, partitions: Collection[TopicPartition]) -> None:
        """Raise `BusFailed` if one of them is not of a subscribed topic. Called by the step's thread."""
        foreign = [where for where in partitions if where.topic not in self._subscribed]
        if foreign:
            raise BusFailed(
                f"the step wants to begin again with what it did not subscribe to: {_named(foreign)}"
            )

    def with_partners(self, subscribed: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Add the same partitions of the partner topics."""
        partners = self._subscription.partners
        return {
            TopicPartition(topic, where.partition)
            for where in subscribed
            for topic in (where.topic, *partners)
        }

    def pause(self) -> None:
        """Read no more until `resume`, and stay in the group."""
        self.paused = True
        self._metrics.pauses.inc()
        self._consumer.pause(_plain(self.reading))

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            self._consumer.resume(_plain(self.reading))

    def _subscribe(self, topics: Collection[str]) -> None:
        wanted = tuple(sorted(set(topics)))
        if wanted == self._subscribed:
            return
        self._subscribed = wanted
        self._log.info("subscribing", topics=len(wanted), group=self._subscription.group)
        if wanted:
            self._consumer.subscribe(
                list(wanted), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        else:
            self._consumer.unsubscribe()

    def _await_topics(self, wanted: Collection[str], needed: Collection[str]) -> None:
        """See that what is needed and at least one subscribed topic exists; the others may come later."""
        ends_at_s = self._clock_s() + TOPICS_WITHIN_S
        while not self._leaving.is_set():
            missing = {topic for topic in {*wanted, *needed} if not self._exists(topic)}
            if missing < set(wanted) or not missing:
                for topic in sorted(missing):
                    self._log.warning("topic is missing", topic=topic)
                return
            if self._clock_s() >= ends_at_s:
                raise BusFailed(
                    f"missing at the brokers: {', '.join(sorted(missing))}. Topics are created by `gavel market apply`"
                )
            self._leaving.wait(0.2)

    def _exists(self, topic: str) -> bool:
        return self._partitions_of(topic) > 0

    def _partitions_of(self, topic: str) -> int:
        """Count a topic's partitions, 0 where it is missing or nobody answers."""
        try:
            found = self._consumer.list_topics(topic, timeout=2.0).topics.get(topic)
        except KafkaException as error:
            self._warnings.warn("metadata", "Kafka does not answer", error=str(error))
            return 0
        return len(found.partitions) if found is not None and found.error is None else 0

    def _require_partitions(self, topic: str, declared: int) -> None:
        """See at the start that a topic is as declared: records would be looked for where they are not."""
        found = self._partitions_of(topic)
        if 0 < found < declared:
            raise BusFailed(
                f"{topic} has {found} partitions, and {declared} are declared: records could not be written where they "
                "belong. Was it made by hand? Add the missing ones with Kafka's own tools, then start the worker again"
            )
        if found > declared:
            self._tell_surplus(topic, declared, range(declared, found))

    def _tell_surplus(self, topic: str, declared: int, surplus: Collection[int]) -> None:
        self._log.error(
            "a topic has more partitions than are declared: they are left unread",
            topic=topic,
            declared=declared,
            partitions=sorted(surplus),
            to_do="find out who added them, and write nothing there: Kafka can't take them away again",
        )

    def _wanted(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        """Leave out partitions that were added to topics whose number is fixed."""
        declared = self._subscription.partitions
        if declared is None:
            return list(partitions)
        surplus = [where for where in partitions if where.partition >= declared]
        for topic in sorted({where.topic for where in surplus}):
            self._tell_surplus(topic, declared, {at.partition for at in surplus if at.topic == topic})
        return [where for where in partitions if where.partition < declared]

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaTopicPartition]) -> None:
        assigned = self._wanted([TopicPartition(at.topic, at.partition) for at in partitions])
        self._metrics.rebalances.inc(len(assigned))
        self._owned.update(assigned)
        if assigned:
            self._log.info("assigned", partitions=_named(assigned))
            self._start_reading(assigned)
        else:
            consumer.incremental_assign([])

    def _on_revoke(self, _consumer: Consumer, partitions: list[KafkaTopicPartition]) -> None:
        self._give_up(partitions, lost=False)

    def _on_lost(self, _consumer: Consumer, partitions: list[KafkaTopicPartition]) -> None:
        self._liveness.lose()
        self._give_up(partitions, lost=True)

    def _give_up(self, partitions: list[KafkaTopicPartition], *, lost: bool) -> None:
        """Void what was read, wait for the batch in progress, let the step forget, and only then let go."""
        revoked = [
            where for at in partitions if (where := TopicPartition(at.topic, at.partition)) in self._owned
        ]
        everything = self.with_partners(revoked)
        self._log.info("lost" if lost else "revoked", partitions=_named(revoked))
        self._metrics.rebalances.inc(len(revoked))
        self._void(everything)
        if not self._failing.is_set():
            self._call_step(lambda: self._step.release(revoked))
            if not lost:
                self._commits.now(self._consumer, everything)
        self._owned.difference_update(revoked)
        self._stop_reading(everything)

    def _start_reading(self, assigned: list[TopicPartition]) -> None:
        starts = self._call_step(lambda: dict(self._step.take_over(assigned)))
        unknown = starts.keys() - self.with_partners(assigned)
        if unknown:
            raise BusFailed(f"the step begins with partitions that were not given to it: {_named(unknown)}")
        self._generations.start(starts)
        self._commits.begin(starts)
        self.reading.update(starts)
        self._metrics.partitions.set(len(self.reading))
        self._consumer.incremental_assign([start_of(where, offset) for where, offset in starts.items()])
        if self.paused:
            self._consumer.pause(_plain(starts))

    def _call_step(self, call: Callable[[], T]) -> T:
        """Wait for the step; the heartbeats of librdkafka's thread need waking while we do (`Commits.turn`)."""
        return self._step_thread.call(call, meanwhile=self._consumer.memberid)

    def _void(self, partitions: Collection[TopicPartition]) -> None:
        self._generations.void(partitions)
        self._on_void(self.reading.intersection(partitions))

    def _stop_reading(self, partitions: Collection[TopicPartition]) -> None:
        stopped = self.reading.intersection(partitions)
        self._generations.drop(partitions)
        self._commits.forget(partitions)
        self.reading -= stopped
        self._metrics.partitions.set(len(self.reading))
        self._consumer.incremental_unassign(_plain(stopped))


def _plain(partitions: Iterable[TopicPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(where.topic, where.partition) for where in partitions]


def _named(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        named.setdefault(topic, []).append(partition)
    return named
