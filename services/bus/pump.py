"""The pump: the one thread that polls Kafka for a hosted step, and that keeps its place in the group.

It reads ahead of the step within bounds, collects small polls into one batch while the step is busy, takes part in
rebalances, and never handles a record: what a batch means is the step's affair, in the step's own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition

from services.bus.generations import Generations
from services.bus.kafka import Connection, open_consumer, record_of, start_of
from services.bus.liveness import Liveness, monotonic_s
from services.bus.metrics import HostMetrics
from services.bus.ports import BusFailed, Record, Step, TopicPartition

IDLE_EVERY_S = 0.05
TOPICS_EVERY_S = 5.0
TOPICS_WITHIN_S = 10.0
"""So long a worker waits at its start for topics that are just being created."""

TAKEN_WITHIN_S = 10.0
"""A batch that nobody took by then was swallowed on the way to the step."""

MAX_POLL_INTERVAL_MS = 60_000
STEP_ANSWERS_WITHIN_S = 50.0
"""How long a rebalance waits for the step; less than the poll interval after which the group gives up on us."""

_POLL_S = 0.02
_HOLD_AT_MOST_S = 0.25
_COMMIT_EVERY_S = 0.05
_COMMIT_ANSWERED_WITHIN_S = 5.0
_WARN_EVERY_S = 60.0

_FENCED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._PARTITION_EOF,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
    | _FENCED
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a step reads.

    `topics` is asked again and again, in the step's thread, because the answer may change with the market. Of each
    partition of them that the group gives us, the same partition of every partner topic is read as well.
    `step_commits`: the step keeps its positions in Kafka and commits them itself; otherwise they are in its database
    and the group's offsets only tell people how far it is.
    """

    group: str
    topics: Callable[[], Collection[str]]
    partners: tuple[str, ...] = ()
    step_commits: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order of their partitions, all read by `epoch`; an empty batch is a call to `idle`."""

    records: Sequence[Record]
    epoch: int
    read_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a worker is doing: seconds since it last polled and since the step last finished, and its positions."""

    polled_s_ago: float
    finished_s_ago: float
    batches_in_flight: int
    paused: bool
    alive: bool
    positions: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpSettings:
    """The bounds of one pump."""

    connection: Connection
    client_id: str
    session_timeout_ms: int
    batch_max: int
    batch_wait_ms: int


class StepThread:
    """The one thread in which every method of a step is called."""

    def __init__(self) -> None:
        """Start it with its first call."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="step")

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call."""
        return self._executor.submit(call)

    def call(self, call: Callable[[], T], *, within_s: float = STEP_ANSWERS_WITHIN_S) -> T:
        """Wait for a call, behind those queued before it; raise what it raises, or `BusFailed` if it takes long."""
        future = self.submit(call)
        try:
            return future.result(within_s)
        except FutureTimeout:
            if future.done():
                raise
            raise BusFailed(f"the step did not answer within {within_s:.0f} s") from None

    def end(self) -> None:
        """Take no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Positions:
    """What to commit: the next offset of each partition. Written by the step's thread, sent by the pump."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    next: dict[TopicPartition, int] = field(default_factory=dict)
    asked: bool = False

    def move(self, positions: Mapping[TopicPartition, int], *, asked: bool) -> None:
        with self.lock:
            self.next.update(positions)
            self.asked = self.asked or asked

    def begin(self, starts: Mapping[TopicPartition, int | None]) -> None:
        with self.lock:
            for where, offset in starts.items():
                self.next.pop(where, None)
                if offset is not None:
                    self.next[where] = offset

    def take(self, partitions: Collection[TopicPartition] | None = None) -> list[KafkaTopicPartition]:
        with self.lock:
            if partitions is None:
                self.asked = False
            return [
                KafkaTopicPartition(where.topic, where.partition, offset)
                for where, offset in self.next.items()
                if partitions is None or where in partitions
            ]

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        with self.lock:
            for where in partitions:
                self.next.pop(where, None)


class Pump:
    """Polls for one step. `hand_over` is given batches and must not block; at most two are under way at a time."""

    def __init__(
        self,
        settings: PumpSettings,
        subscription: Subscription,
        *,
        step_thread: StepThread,
        hand_over: Callable[[Batch], None],
        liveness: Liveness,
        metrics: HostMetrics,
        clock_s: Callable[[], float] = monotonic_s,
    ) -> None:
        """Wire it; nothing connects before `run`."""
        self._settings = settings
        self._subscription = subscription
        self._step_thread = step_thread
        self._hand_over_batch = hand_over
        self._liveness = liveness
        self._metrics = metrics
        self._clock_s = clock_s
        self._log = structlog.get_logger(__name__)

        self.leaving = threading.Event()
        self.failing = threading.Event()
        self._step: Step | None = None
        self._consumer: Consumer | None = None
        self._generations = Generations()
        self._positions = _Positions()
        self._committed: Mapping[TopicPartition, int | None] = {}

        self._subscribed: tuple[str, ...] = ()
        self._topics_asked: Future[Collection[str]] | None = None
        self._topics_due_at_s = 0.0
        self._owned: set[TopicPartition] = set()
        self._reading: set[TopicPartition] = set()
        self._dropped_while_polling: set[TopicPartition] = set()

        self._pending: list[Record] = []
        self._pending_since_s = 0.0
        self._paused = False
        self._flight = threading.Lock()
        self._in_flight = 0
        self._handed_at_s: list[float] = []
        self._finished = threading.Event()
        self._idle_due_at_s = 0.0
        self._restarts: set[TopicPartition] = set()
        self._working_epoch = 0
        self._asked: dict[TopicPartition, int] = {}

        self._committing_since_s: float | None = None
        self._commit_due_at_s = 0.0
        self._prove_every_s = settings.session_timeout_ms / 8_000
        self._polled_at_s = self._finished_at_s = clock_s()
        self._fatal: KafkaError | None = None
        self._warned_at_s: dict[str, float] = {}

    # What other threads call.

    def work(self, batch: Batch) -> None:
        """Let the step handle a batch, in the step's thread; what it raises ends the worker."""
        assert self._step is not None
        began_at_s = self._clock_s()
        with self._flight:
            self._handed_at_s.pop(0)
        records = self._generations.live(batch.records, batch.epoch)
        self._working_epoch = batch.epoch
        if records:
            self._metrics.queue_seconds.observe(began_at_s - batch.read_at_s)
            again = self._step.handle(records)
            self._count(batch, records, began_at_s)
        else:
            again = self._step.idle()
        self._note_positions(records, again)
        self._finish(again)

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Ask for positions (the next offset to read) to be committed soon after `handle` or `idle` has returned.

        Called by the step in these two. Positions of partitions that are not ours any more are left out. A commit that
        is lost repeats records after a restart, no more.
        """
        epoch = self._working_epoch
        self._asked |= {
            at: next for at, next in positions.items() if self._generations.committable(at, epoch)
        }

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Give the group's positions as they were when the partitions were assigned; None where there was none."""
        return {where: self._committed.get(where) for where in partitions}

    def ask_topics(self) -> None:
        """Have the subscription's topics asked for at the next turn."""
        self._topics_due_at_s = 0.0

    def progress(self) -> Progress:
        """Say how it goes."""
        now_s = self._clock_s()
        with self._positions.lock:
            positions = dict(self._positions.next)
        return Progress(
            polled_s_ago=now_s - self._polled_at_s,
            finished_s_ago=now_s - self._finished_at_s,
            batches_in_flight=self._in_flight,
            paused=self._paused,
            alive=self._liveness.alive(),
            positions=positions,
        )

    # The pump's thread.

    def run(self, make_step: Callable[[], Step]) -> None:
        """Poll until told to leave; then leave the group. Raises what ends the worker."""
        self._consumer = self._open()
        try:
            self._step = self._step_thread.call(make_step)
            self._subscribe(self._step_thread.call(lambda: list(self._subscription.topics())), first=True)
            while not self.leaving.is_set():
                self._turn()
        finally:
            self._consumer.close()
            self._liveness.lose()

    def _open(self) -> Consumer:
        return open_consumer(
            self._settings.connection,
            group=self._subscription.group,
            client_id=self._settings.client_id,
            session_timeout_ms=self._settings.session_timeout_ms,
            max_poll_interval_ms=max(MAX_POLL_INTERVAL_MS, self._settings.session_timeout_ms),
            on_commit=self._on_commit,
            error_cb=self._on_error,
        )

    def _turn(self) -> None:
        if self._fatal is not None:
            raise BusFailed(f"Kafka's client gave up: {self._fatal.name()}: {self._fatal.str()}")
        self._ask_for_topics()
        self._begin_again()
        self._commit()
        if self._has_room():
            self._resume()
            self._read()
        else:
            self._hold()
        self._hand_over()
        self._check_taken()

    # Reading, and handing over.

    def _has_room(self) -> bool:
        return len(self._pending) < self._settings.batch_max or self._in_flight < 2

    def _read(self) -> None:
        """Take what is there, and wait only a little for more."""
        assert self._consumer is not None
        wait_s = self._settings.batch_wait_ms / 1_000
        self._dropped_while_polling.clear()
        if self._pending:
            messages = self._consumer.consume(self._settings.batch_max, max(wait_s, 0.001))
        else:
            first = self._consumer.poll(self._poll_s())
            self._dropped_while_polling.clear()
            messages = [] if first is None else [first]
            if first is not None and first.error() is None:
                messages += self._consumer.consume(self._settings.batch_max - 1, wait_s)
        self._polled_at_s = self._clock_s()
        if messages:
            self._accept(messages)

    def _poll_s(self) -> float:
        if self._in_flight:
            return _POLL_S
        return min(_POLL_S, max(0.0, self._idle_due_at_s - self._clock_s()))

    def _accept(self, messages: list[KafkaMessage]) -> None:
        for message in messages:
            error = message.error()
            if error is not None:
                self._judge(error, message)
        records = [record_of(message) for message in messages if message.error() is None]
        if self._dropped_while_polling:
            records = self._unambiguous(records)
        if records and not self._pending:
            self._pending_since_s = self._polled_at_s
        self._pending += records

    def _unambiguous(self, records: list[Record]) -> list[Record]:
        """Drop what was read while its partition changed hands; begin those that are ours again.

        A single poll may collect records from before and from after a rebalance without telling which is which.
        """
        mixed = {TopicPartition(record[0], record[1]) for record in records} & self._dropped_while_polling
        self._restart(TopicPartition(topic, at.partition) for at in mixed for topic in self._subscribed)
        reads = self._generations.reads
        return [
            record
            for record in records
            if (where := TopicPartition(record[0], record[1])) not in mixed and reads(where)
        ]

    def _hold(self) -> None:
        """Wait for the step without polling, but not for long: then pause, and go on polling for the group's sake."""
        assert self._consumer is not None
        if not self._paused:
            self._finished.clear()
            if not self._has_room() and self._finished.wait(min(self._prove_every_s, _HOLD_AT_MOST_S)):
                return
            self._pause()
        message = self._consumer.poll(_POLL_S)
        self._polled_at_s = self._clock_s()
        if message is not None:
            self._accept([message])

    def _pause(self) -> None:
        assert self._consumer is not None
        self._paused = True
        self._metrics.pauses.inc()
        self._consumer.pause([KafkaTopicPartition(*where) for where in self._reading])

    def _resume(self) -> None:
        if not self._paused:
            return
        assert self._consumer is not None
        self._paused = False
        self._consumer.resume([KafkaTopicPartition(*where) for where in self._reading])

    def _hand_over(self) -> None:
        """Give an idle step what there is, and a busy one a full batch to go on with."""
        now_s = self._clock_s()
        batch_max = self._settings.batch_max
        while len(self._pending) >= batch_max and self._in_flight < 2:
            self._send(now_s)
        if self._in_flight == 0 and (self._pending or now_s >= self._idle_due_at_s):
            self._send(now_s)

    def _send(self, now_s: float) -> None:
        records = self._pending[: self._settings.batch_max]
        del self._pending[: self._settings.batch_max]
        self._idle_due_at_s = now_s + IDLE_EVERY_S
        with self._flight:
            self._in_flight += 1
            self._handed_at_s.append(now_s)
        self._hand_over_batch(Batch(records, self._generations.epoch, self._pending_since_s))
        self._pending_since_s = now_s

    def _check_taken(self) -> None:
        """Faust drops a `put` without subscriber, and clears its queues, in silence: notice it here."""
        with self._flight:
            waiting_since_s = self._handed_at_s[0] if len(self._handed_at_s) == self._in_flight > 0 else None
        if waiting_since_s is not None and self._clock_s() - waiting_since_s > TAKEN_WITHIN_S:
            raise BusFailed(
                f"a batch did not reach the step within {TAKEN_WITHIN_S:.0f} s: Faust has swallowed it"
            )

    def _count(self, batch: Batch, records: Sequence[Record], began_at_s: float) -> None:
        self._metrics.handle_seconds.observe(self._clock_s() - began_at_s)
        self._metrics.batches.observe(len(records))
        self._metrics.records.inc(len(records))
        self._metrics.void_records.inc(len(batch.records) - len(records))

    def _note_positions(self, records: Sequence[Record], again: Collection[TopicPartition]) -> None:
        if again:
            self._void_asked(again)
        asked, self._asked = self._asked, {}
        if asked:
            self._positions.move(asked, asked=True)
        if records and not self._subscription.step_commits:
            after = {TopicPartition(record[0], record[1]): record[2] + 1 for record in records}
            self._positions.move(
                {where: offset for where, offset in after.items() if self._generations.reads(where)},
                asked=False,
            )

    def _void_asked(self, again: Collection[TopicPartition]) -> None:
        foreign = [where for where in again if where.topic not in self._subscribed]
        if foreign:
            raise BusFailed(
                f"the step wants to begin again with what it did not subscribe to: {_named(foreign)}"
            )
        self._generations.void(self._with_partners(again))

    def _finish(self, again: Collection[TopicPartition]) -> None:
        self._finished_at_s = self._clock_s()
        with self._flight:
            self._in_flight -= 1
            self._restarts.update(again)
        self._finished.set()

    # The group.

    def _ask_for_topics(self) -> None:
        if self._topics_asked is not None:
            if self._topics_asked.done():
                topics = self._topics_asked.result()
                self._topics_asked = None
                self._subscribe(topics)
        elif self._clock_s() >= self._topics_due_at_s:
            self._topics_due_at_s = self._clock_s() + TOPICS_EVERY_S
            self._topics_asked = self._step_thread.submit(lambda: list(self._subscription.topics()))

    def _subscribe(self, topics: Collection[str], *, first: bool = False) -> None:
        wanted = tuple(sorted(set(topics)))
        if wanted == self._subscribed:
            return
        assert self._consumer is not None
        if first:
            self._await_topics(wanted)
        self._subscribed = wanted
        self._log.info("subscribing", topics=len(wanted), group=self._subscription.group)
        if wanted:
            self._consumer.subscribe(
                list(wanted), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        else:
            self._consumer.unsubscribe()

    def _await_topics(self, wanted: Collection[str]) -> None:
        """See that every partner and at least one subscribed topic exists; the others may come later."""
        ends_at_s = self._clock_s() + TOPICS_WITHIN_S
        while not self.leaving.is_set():
            missing = [topic for topic in (*wanted, *self._subscription.partners) if not self._exists(topic)]
            if not missing or (set(missing) < set(wanted)):
                for topic in missing:
                    self._log.warning("topic is missing", topic=topic)
                return
            if self._clock_s() >= ends_at_s:
                raise BusFailed(
                    f"missing at {self._settings.connection.bootstrap}: {', '.join(missing)}. "
                    "Topics are created by `gavel market apply`"
                )
            self.leaving.wait(0.2)

    def _exists(self, topic: str) -> bool:
        assert self._consumer is not None
        try:
            found = self._consumer.list_topics(topic, timeout=2.0).topics.get(topic)
        except KafkaException as error:
            self._warn("metadata", "Kafka does not answer", error=str(error))
            return False
        return found is not None and found.error is None and bool(found.partitions)

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaTopicPartition]) -> None:
        assigned = [TopicPartition(at.topic, at.partition) for at in partitions]
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
        revoked = [TopicPartition(at.topic, at.partition) for at in partitions]
        everything = self._with_partners(revoked)
        self._log.info("lost" if lost else "revoked", partitions=_named(revoked))
        self._metrics.rebalances.inc(len(revoked))
        self._void(everything)
        if not self.failing.is_set() and self._step is not None:
            step = self._step
            self._step_thread.call(lambda: step.release(revoked))
            if not lost:
                self._commit_now(everything)
        self._owned.difference_update(revoked)
        self._stop_reading(everything)

    def _begin_again(self) -> None:
        with self._flight:
            asked, self._restarts = self._restarts, set()
        if asked:
            self._metrics.restarts.inc(len(asked))
            self._restart(asked)

    def _restart(self, asked: Iterable[TopicPartition]) -> None:
        """Begin partitions again at the step's positions; those that are another's by now are no affair of ours."""
        mine = sorted(self._owned.intersection(asked))
        if not mine:
            return
        everything = self._with_partners(mine)
        self._void(everything)
        self._stop_reading(everything)
        self._start_reading(mine)

    def _start_reading(self, assigned: list[TopicPartition]) -> None:
        assert self._consumer is not None
        assert self._step is not None
        step = self._step
        if self._subscription.step_commits:
            self._committed = self._read_committed(assigned)
        starts = self._step_thread.call(lambda: dict(step.take_over(assigned)))
        unknown = starts.keys() - self._with_partners(assigned)
        if unknown:
            raise BusFailed(f"the step begins with partitions that were not given to it: {_named(unknown)}")
        self._generations.start(starts)
        self._positions.begin(starts)
        self._reading.update(starts)
        self._metrics.partitions.set(len(self._reading))
        self._consumer.incremental_assign([start_of(where, offset) for where, offset in starts.items()])
        if self._paused:
            self._consumer.pause([KafkaTopicPartition(*where) for where in starts])
        self._commit_due_at_s = 0.0

    def _read_committed(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Read the group's positions, in the pump's thread: in a rebalance the client answers no other."""
        assert self._consumer is not None
        asked = [KafkaTopicPartition(where.topic, where.partition) for where in assigned]
        try:
            found = self._consumer.committed(asked, timeout=TOPICS_WITHIN_S) if asked else []
        except KafkaException as error:
            raise BusFailed(f"the group's positions can't be read: {error}") from error
        for position in found:
            if position.error is not None:
                raise BusFailed(f"{position.topic} partition {position.partition}: {position.error}")
        return {TopicPartition(at.topic, at.partition): at.offset if at.offset >= 0 else None for at in found}

    def _void(self, partitions: Collection[TopicPartition]) -> None:
        self._generations.void(partitions)
        self._dropped_while_polling.update(self._reading.intersection(partitions))
        if self._pending:
            gone = frozenset(partitions)
            self._pending = [
                record for record in self._pending if TopicPartition(record[0], record[1]) not in gone
            ]

    def _stop_reading(self, partitions: Collection[TopicPartition]) -> None:
        assert self._consumer is not None
        stopped = self._reading.intersection(partitions)
        self._generations.drop(partitions)
        self._positions.forget(partitions)
        self._reading -= stopped
        self._metrics.partitions.set(len(self._reading))
        self._consumer.incremental_unassign([KafkaTopicPartition(*where) for where in stopped])

    def _with_partners(self, subscribed: Iterable[TopicPartition]) -> set[TopicPartition]:
        subscribed = list(subscribed)
        partners = (
            TopicPartition(topic, at.partition) for topic in self._subscription.partners for at in subscribed
        )
        return {*subscribed, *partners}

    # Commits, which are also the proof that the group knows us.

    def _commit(self) -> None:
        now_s = self._clock_s()
        if self._committing_since_s is not None:
            if now_s - self._committing_since_s < _COMMIT_ANSWERED_WITHIN_S:
                return
            self._committing_since_s = None
        due_at_s = self._commit_due_at_s
        if now_s < (
            min(due_at_s, self._last_commit_s() + _COMMIT_EVERY_S) if self._positions.asked else due_at_s
        ):
            return
        offsets = self._positions.take()
        self._commit_due_at_s = now_s + self._prove_every_s
        self._metrics.alive.set(self._liveness.alive())
        if offsets:
            self._send_commit(offsets, now_s)
        else:
            self._wake_client()

    def _wake_client(self) -> None:
        """Have librdkafka look after the group: left alone, its thread sleeps for a second, whatever the heartbeat."""
        assert self._consumer is not None
        self._consumer.memberid()

    def _last_commit_s(self) -> float:
        return self._commit_due_at_s - self._prove_every_s

    def _send_commit(self, offsets: list[KafkaTopicPartition], now_s: float) -> None:
        assert self._consumer is not None
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
            self._committing_since_s = now_s
        except KafkaException as error:
            self._warn("commit", "positions can't be committed", error=str(error))

    def _on_commit(self, error: KafkaError | None, partitions: list[KafkaTopicPartition]) -> None:
        asked_at_s, self._committing_since_s = self._committing_since_s, None
        failed = error or next((at.error for at in partitions if at.error is not None), None)
        if failed is None:
            if asked_at_s is not None:
                self._liveness.prove(asked_at_s)
            return
        if failed.code() in _FENCED:
            self._liveness.lose()
        self._positions.move({}, asked=self._subscription.step_commits)
        self._warn("commit", "positions were not committed", error=failed.name())

    def _commit_now(self, partitions: Collection[TopicPartition]) -> None:
        assert self._consumer is not None
        offsets = self._positions.take(partitions)
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._warn(
                "commit", "positions were not committed before partitions were given up", error=str(error)
            )

    # Errors.

    def _judge(self, error: KafkaError, message: KafkaMessage) -> None:
        """Wait out what passes; anything else ends the worker."""
        where = f"{message.topic()} partition {message.partition()}"
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise BusFailed(
                f"{where}: the position to read from is not in the topic any more ({error.str()}). "
                "Records were deleted, or the topic was made again: find out which before you go on"
            )
        if error.fatal() or error.code() not in _PASSING:
            raise BusFailed(f"{where}: {error.name()}: {error.str()}")
        self._warn(
            f"{error.name()} {message.topic()}", "Kafka has a passing fault", error=error.name(), at=where
        )

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        self._warn(error.name(), "Kafka has a passing fault", error=error.name(), reason=error.str())

    def _warn(self, kind: str, text: str, **more: Any) -> None:
        """Say it, and the same not again for a minute."""
        now_s = self._clock_s()
        if now_s - self._warned_at_s.get(kind, float("-inf")) >= _WARN_EVERY_S:
            self._warned_at_s[kind] = now_s
            self._log.warning(text, **more)


def _named(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        named.setdefault(topic, []).append(partition)
    return named
