"""The pump: the one thread that polls Kafka for a hosted step.

It reads ahead of the step within bounds, hands over batches, and keeps polling for the group's sake when it may not
read. It never handles a record: what a batch means is the step's affair, in the step's own thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition

from services.bus.backlog import UNDER_WAY_AT_MOST, Backlog, Batch
from services.bus.commits import Commits
from services.bus.faults import Warnings, answer_to, judge
from services.bus.generations import Generations
from services.bus.kafka import Connection, open_consumer, record_of
from services.bus.liveness import Liveness, Silence, monotonic_s
from services.bus.metrics import HostMetrics
from services.bus.place import Place, Subscription
from services.bus.ports import BusFailed, Record, Step, Timed, TopicPartition
from services.bus.step_thread import StepThread

IDLE_EVERY_S = 0.05
TAKEN_WITHIN_S = 10.0
"""A batch that an idle step has not got by then was swallowed on the way to it."""

UNANSWERED_FOR_AT_MOST_S = 120.0
"""Longer than any rebalance, for which the group may wait for another worker as long as its poll interval."""

MAX_POLL_INTERVAL_MS = 90_000
LAG_EVERY_S = 5.0
_POLL_S = 0.02
_POLL_AT_LEAST_S = 0.001
_HOLD_AT_MOST_S = 0.25
_RESTS_FOR_SHARE = 0.5
"""A step rests for this share of what its last batch took: longer where batches are dear, as on a busy machine."""

_COMMITTED_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpSettings:
    """The bounds of one pump. Without the topics that it `needs`, besides those that it reads, it does not start."""

    connection: Connection
    client_id: str
    session_timeout_ms: int
    batch_max: int
    batch_wait_ms: int
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a worker is doing: seconds since it last polled and since the step last finished, and its positions."""

    polled_s_ago: float
    finished_s_ago: float
    batches_under_way: int
    paused: bool
    alive: bool
    positions: Mapping[TopicPartition, int]


class Pump:
    """Polls for one step. `hand_over` is given batches and must not block."""

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
        self.leaving = threading.Event()
        self.failing = threading.Event()
        self._settings = settings
        self._subscription = subscription
        self._step_thread = step_thread
        self._hand_over = hand_over
        self._liveness = liveness
        self._metrics = metrics
        self._clock_s = clock_s
        self._warnings = Warnings(clock_s)
        self._silence = Silence(clock_s=clock_s)
        self._generations = Generations()
        self._backlog = Backlog(settings.batch_max, idle_every_s=IDLE_EVERY_S)
        self._commits = Commits(
            prove_every_s=settings.session_timeout_ms / 8_000,
            liveness=liveness,
            warnings=self._warnings,
            clock_s=clock_s,
            asks_again=subscription.step_commits,
        )
        self._consumer: Consumer | None = None
        self._step: Step | None = None
        self._place: Place | None = None
        self._fatal: KafkaError | None = None
        self._voided: set[TopicPartition] = set()
        self._again: set[TopicPartition] = set()
        self._again_lock = threading.Lock()
        self._epoch_at_work = 0
        self._commit_asked: dict[TopicPartition, int] = {}
        self._polled_at_s = self._finished_at_s = clock_s()
        self._lag_at_s = 0.0

    # Called by the step's thread.

    def work(self, batch: Batch) -> None:
        """Let the step handle a batch; what it raises ends the worker, and nothing of the batch is committed."""
        assert self._step is not None
        self._backlog.begin()
        began_at_s = self._clock_s()
        self._epoch_at_work, self._commit_asked = batch.epoch, {}
        records = self._generations.live(batch.records, batch.epoch)
        if records:
            again = self._step.handle(records)
            self._count(batch, records, began_at_s)
        else:
            again = self._step.idle()
        self._note(records, again)
        self._finished_at_s = self._clock_s()
        if records:
            took_s = self._finished_at_s - began_at_s
            rests_s = min(self._settings.batch_wait_ms / 1_000, took_s * _RESTS_FOR_SHARE)
            self._backlog.rest_until(self._finished_at_s + rests_s)
        if isinstance(self._step, Timed):
            due_in_s = self._step.due_in_s()
            self._backlog.wake_at(None if due_in_s is None else self._clock_s() + due_in_s)
        self._backlog.finish()

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Ask for positions (the next offset to read) to be committed soon after `handle` or `idle` has returned.

        Called by the step in these two. Positions of partitions that are not ours any more are left out.
        """
        ours = self._generations.committable
        self._commit_asked |= {at: next for at, next in positions.items() if ours(at, self._epoch_at_work)}

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Read the group's committed positions; None where there is none. Raise `PassingFault` or `BusFailed`."""
        consumer = self._consumer
        assert consumer is not None
        return self._step_thread.ask(
            lambda: _committed(consumer, partitions), within_s=2 * _COMMITTED_WITHIN_S
        )

    # Called by any thread.

    def ask_topics(self) -> None:
        """Have the subscription's topics asked for at the next turn."""
        if self._place is not None:
            self._place.ask_soon()

    def oldest_ms(self) -> int | None:
        """Give the time of the oldest record that was read and is not handled."""
        return self._backlog.oldest_ms()

    def progress(self) -> Progress:
        """Say how it goes."""
        now_s = self._clock_s()
        return Progress(
            polled_s_ago=now_s - self._polled_at_s,
            finished_s_ago=now_s - self._finished_at_s,
            batches_under_way=self._backlog.under_way,
            paused=self._place is not None and self._place.paused,
            alive=self._liveness.alive(),
            positions=self._commits.positions(),
        )

    # The pump's own thread.

    def run(self, make_step: Callable[[], Step]) -> None:
        """Poll until told to leave; then leave the group. Raises what ends the worker."""
        consumer = self._consumer = self._open()
        try:
            self._step = self._step_thread.call(make_step)
            place = self._place = self._take_place(consumer, self._step)
            place.join(self._settings.needs)
            while not self.leaving.is_set():
                self._turn(consumer, place)
        finally:
            consumer.close()
            self._liveness.lose()

    def _open(self) -> Consumer:
        return open_consumer(
            self._settings.connection,
            group=self._subscription.group,
            client_id=self._settings.client_id,
            session_timeout_ms=self._settings.session_timeout_ms,
            max_poll_interval_ms=max(MAX_POLL_INTERVAL_MS, self._settings.session_timeout_ms),
            gathers_ms=self._subscription.gathers_ms,
            on_commit=self._commits.on_commit,
            error_cb=self._on_error,
        )

    def _take_place(self, consumer: Consumer, step: Step) -> Place:
        return Place(
            consumer,
            self._subscription,
            step,
            self._step_thread,
            generations=self._generations,
            commits=self._commits,
            liveness=self._liveness,
            metrics=self._metrics,
            warnings=self._warnings,
            on_void=self._on_void,
            leaving=self.leaving,
            failing=self.failing,
            clock_s=self._clock_s,
        )

    def _turn(self, consumer: Consumer, place: Place) -> None:
        if self._fatal is not None:
            raise BusFailed(f"Kafka's client gave up: {self._fatal.name()}: {self._fatal.str()}")
        self._step_thread.run_errands()
        place.turn()
        self._begin_again(place)
        self._commits.turn(consumer)
        self._require_answer()
        self._metrics.alive.set(self._liveness.alive())
        self._note_lag(consumer)
        if self._backlog.has_room():
            place.resume()
            self._read(consumer, place)
        else:
            self._hold(consumer, place)
        self._send()

    def _note_lag(self, consumer: Consumer) -> None:
        """Compare the positions with the ends that the brokers told with the last records, from time to time."""
        if self._clock_s() < self._lag_at_s:
            return
        self._lag_at_s = self._clock_s() + LAG_EVERY_S
        positions = self._commits.positions().items()
        self._metrics.lag_records.set(sum(_behind(consumer, where, offset) for where, offset in positions))

    def _require_answer(self) -> None:
        is_answered = self._liveness.alive() or not self._commits.positions()
        if self._silence.lasts_s(is_answered=is_answered) > UNANSWERED_FOR_AT_MOST_S:
            raise BusFailed(
                f"the group has not answered for {UNANSWERED_FOR_AT_MOST_S:.0f} s, though this worker has partitions: "
                "look whether the brokers answer, and start it again"
            )

    def _begin_again(self, place: Place) -> None:
        with self._again_lock:
            asked, self._again = self._again, set()
        if asked:
            self._metrics.restarts.inc(len(asked))
            place.begin_again(asked)

    def _read(self, consumer: Consumer, place: Place) -> None:
        """Take what is there; wait for more only as long as there is nothing to do, or the step rests."""
        if self._backlog.is_empty:
            messages = self._first(consumer)
            if messages and messages[0].error() is None:
                self._voided.clear()
                messages += consumer.consume(self._settings.batch_max - 1, self._rests_for_s())
        elif not self._backlog.under_way:
            self._voided.clear()
            messages = consumer.consume(self._settings.batch_max, self._rests_for_s())
        else:
            # The step is busy, and needs this interpreter for itself; the client reads on in threads of its own.
            self._backlog.await_finished(_POLL_S)
            self._voided.clear()
            messages = consumer.consume(self._settings.batch_max, 0)
        self._polled_at_s = self._clock_s()
        if messages:
            self._accept(messages, place)

    def _rests_for_s(self) -> float:
        return self._backlog.rests_for_s(self._clock_s())

    def _first(self, consumer: Consumer) -> list[KafkaMessage]:
        due_s = self._step_due_in_s()
        message = consumer.poll(min(_POLL_S, due_s))
        # A rebalance within this poll came before its one message.
        self._voided.clear()
        return [] if message is None else [message]

    def _step_due_in_s(self) -> float:
        """Say how long to poll at most: a step that is busy and waits for something may be done at any moment."""
        now_s = self._clock_s()
        if not self._backlog.under_way:
            return self._backlog.idle_due_in_s(now_s)
        wakes_in_s = self._backlog.wakes_in_s(now_s)
        return _POLL_S if wakes_in_s is None else max(_POLL_AT_LEAST_S, wakes_in_s)

    def _accept(self, messages: list[KafkaMessage], place: Place) -> None:
        lost = {
            message.partition()
            for message in messages
            if message.error() is not None and judge(message, self._warnings)
        }
        if lost:
            place.begin_again(place.subscribed(number for number in lost if number is not None))
        records = [record_of(message) for message in messages if message.error() is None]
        if self._voided:
            records = self._unambiguous(records, place)
        self._backlog.add(records, self._polled_at_s)

    def _unambiguous(self, records: list[Record], place: Place) -> list[Record]:
        """Drop what was read while its partition changed hands; begin those that are ours again.

        A single poll may collect records from before and from after a rebalance without telling which is which.
        """
        voided = frozenset(self._voided)
        mixed = {TopicPartition(record.topic, record.partition) for record in records} & voided
        place.begin_again(place.subscribed(where.partition for where in mixed & place.reading))
        return [record for record in records if TopicPartition(record.topic, record.partition) not in voided]

    def _hold(self, consumer: Consumer, place: Place) -> None:
        """Wait for the step without polling, but not for long: then pause, and go on polling for the group's sake."""
        if not place.paused:
            hold_s = min(self._settings.session_timeout_ms / 8_000, _HOLD_AT_MOST_S)
            if self._backlog.await_finished(hold_s, left=UNDER_WAY_AT_MOST - 1):
                return
            place.pause()
        self._voided.clear()
        message = consumer.poll(_POLL_S)
        self._polled_at_s = self._clock_s()
        if message is not None:
            self._voided.clear()
            self._accept([message], place)

    def _send(self) -> None:
        now_s, free_s = self._clock_s(), self._step_thread.free_s()
        while (batch := self._backlog.take(self._generations.epoch, now_s, free_s=free_s)) is not None:
            self._hand_over(batch)
        # Only the thread's free time counts: it may be busy with a call that asks a database which is not there.
        if self._backlog.swallowed_s(free_s) > TAKEN_WITHIN_S:
            raise BusFailed(
                f"a batch did not reach the step within {TAKEN_WITHIN_S:.0f} s: Faust has swallowed it"
            )

    def _on_void(self, partitions: Collection[TopicPartition]) -> None:
        self._voided.update(partitions)
        self._backlog.drop(partitions)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        self._warnings.warn(error.name(), "Kafka has a passing fault", error=error.name(), reason=error.str())

    # What is noted of a batch, in the step's thread.

    def _note(self, records: Sequence[Record], again: Collection[TopicPartition]) -> None:
        """Void what must begin again before a batch that is already on its way is looked at; then take positions."""
        if again:
            assert self._place is not None
            self._place.check_subscribed(again)
            self._generations.void(self._place.with_partners(again))
            with self._again_lock:
                self._again.update(again)
        if self._subscription.step_commits:
            if self._commit_asked:
                self._commits.move(self._commit_asked, asked=True)
        elif records:
            after = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in records}
            reads = self._generations.reads
            self._commits.move({at: offset for at, offset in after.items() if reads(at)}, asked=False)

    def _count(self, batch: Batch, records: Sequence[Record], began_at_s: float) -> None:
        self._metrics.queue_seconds.observe(began_at_s - batch.read_at_s)
        self._metrics.handle_seconds.observe(self._clock_s() - began_at_s)
        self._metrics.batches.observe(len(records))
        self._metrics.records.inc(len(records))
        self._metrics.void_records.inc(len(batch.records) - len(records))


def _behind(consumer: Consumer, where: TopicPartition, offset: int) -> int:
    _, end = consumer.get_watermark_offsets(KafkaTopicPartition(*where), cached=True)
    return max(0, int(end) - offset)


def _committed(
    consumer: Consumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int | None]:
    asked = [KafkaTopicPartition(where.topic, where.partition) for where in partitions]
    try:
        found = consumer.committed(asked, timeout=_COMMITTED_WITHIN_S) if asked else []
    except KafkaException as error:
        raise answer_to("the group's positions", error) from error
    for position in found:
        if position.error is not None:
            raise answer_to(
                f"the group's position in {position.topic} partition {position.partition}", position.error
            )
    return {TopicPartition(at.topic, at.partition): at.offset if at.offset >= 0 else None for at in found}
