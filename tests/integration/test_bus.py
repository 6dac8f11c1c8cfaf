"""The suite of the bus on real Kafka, and what only a real one does."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from deploy.local.stack import Stack
from services.bus.kafka import Connection, LogProducer, OutsiderProducer, last_record, topic_id
from services.bus.liveness import Liveness
from services.bus.metrics import HostMetrics
from services.bus.place import Subscription
from services.bus.ports import BusFailed, Message, Producer, TopicPartition
from services.bus.pump import Pump, PumpSettings
from services.bus.step_thread import StepThread
from tests.support.bus_suite import BATCH_MAX, BusSuite, Hosting, Ledger, Taker, messages
from tests.support.hosting import ROOT, SESSION_TIMEOUT_MS, Cluster, wait_until


@dataclass(slots=True)
class Running:
    """A pump in a thread of the test's process, and how it ended."""

    failure: list[BaseException] = field(default_factory=list)

    def until(self, what: str, done: Callable[[], bool]) -> None:
        """See `Hosting`."""
        wait_until(what, lambda: done() or bool(self.failure))
        if self.failure:
            raise self.failure[0]


class RealBus:
    """A `BusUnderTest` on Kafka."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.keeps_all: Producer = LogProducer(cluster.connection)
        self.gives_up: Producer = OutsiderProducer(cluster.connection)

    def create(self, name: str, partitions: int) -> str:
        """See `BusUnderTest`."""
        return self._cluster.create(name, partitions)

    @contextmanager
    def host(self, step: Taker, topic: str) -> Iterator[Hosting]:
        """See `BusUnderTest`: the pump and a step's thread, without the Faust worker around them."""
        running = Running()
        step_thread = StepThread()
        pump = Pump(
            PumpSettings(
                connection=self._cluster.connection,
                client_id="test",
                session_timeout_ms=SESSION_TIMEOUT_MS,
                batch_max=BATCH_MAX,
                batch_wait_ms=2,
            ),
            Subscription(
                group=f"{self._cluster.namespace}test", topics=lambda: [topic], partners=tuple(step.partners)
            ),
            step_thread=step_thread,
            hand_over=lambda batch: step_thread.submit(lambda: pump.work(batch)).add_done_callback(
                lambda done: fail(done.exception())
            ),
            liveness=Liveness(SESSION_TIMEOUT_MS),
            metrics=HostMetrics("test"),
        )

        def fail(error: BaseException | None) -> None:
            if error is not None:
                running.failure.append(error)
                pump.failing.set()
                pump.leaving.set()

        def run() -> None:
            try:
                pump.run(lambda: step)
            except BaseException as error:  # noqa: BLE001  # the test raises it again
                fail(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield running
        finally:
            pump.leaving.set()
            thread.join(20)
            step_thread.end()
            assert not thread.is_alive()


@pytest.fixture
def cluster(stack: Stack, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(stack.kafka, tmp_path)
    yield cluster
    cluster.delete()


class TestRealBus(BusSuite):
    """All of it."""

    @pytest.fixture
    def bus(self, cluster: Cluster) -> RealBus:
        return RealBus(cluster)


@pytest.fixture
def silent_broker() -> Iterator[Connection]:
    """A port that accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield Connection(bootstrap=f"127.0.0.1:{listening.getsockname()[1]}")


def test_a_broker_that_does_not_answer_delays_outsiders_no_longer_than_the_timeout(
    silent_broker: Connection,
) -> None:
    """After it, every message is reported, and none is left in the client to be sent late."""
    producer = OutsiderProducer(silent_broker, timeout_s=0.5)
    began_s = time.monotonic()
    failed = producer.publish(messages("buyers.acme.leads", 100))
    assert time.monotonic() - began_s < 3.0
    assert [each.index for each in failed] == list(range(100))
    assert {each.permanent for each in failed} == {None}
    assert len(producer.publish(messages("buyers.acme.leads", 5), timeout_s=0.1)) == 5


def test_a_producer_that_keeps_all_fails_when_its_limit_has_passed(silent_broker: Connection) -> None:
    with pytest.raises(BusFailed, match="5 records were not acknowledged"):
        LogProducer(silent_broker).publish(messages("leads.log", 5), timeout_s=0.2)


def test_a_producer_that_keeps_all_fails_on_what_it_cannot_write(cluster: Cluster) -> None:
    topic = cluster.create("leads.log", 1)
    large = Message(topic, 0, None, b"x" * 2_000_000)
    with pytest.raises(BusFailed, match="MSG_SIZE_TOO_LARGE"):
        LogProducer(cluster.connection).publish([*messages(topic, 3), large])
    with pytest.raises(BusFailed, match="_UNKNOWN_PARTITION"):
        LogProducer(cluster.connection).publish([*messages(topic, 3), *messages(topic, 1, partition=7)])


def test_a_topic_that_was_missing_is_found_once_it_exists(cluster: Cluster) -> None:
    """A buyer's topic may come after the first try; the worker is not started again for it."""
    producer = OutsiderProducer(cluster.connection)
    message = Message(f"{cluster.namespace}buyers.late.leads", 0, None, b"1")
    assert producer.publish([message])
    cluster.create("buyers.late.leads", 1)
    wait_until("it is found", lambda: not producer.publish([message]), within_s=30)


def test_a_small_record_is_not_refused_for_good_because_of_its_neighbours(cluster: Cluster) -> None:
    """Where a topic allows less than the client packs into one request."""
    topic = cluster.create("buyers.acme.leads", 1, max_message_bytes="20000")
    many = [Message(topic, 0, None, b"%05d" % number * 400) for number in range(100)]
    failed = OutsiderProducer(cluster.connection).publish(many)
    assert {each.permanent for each in failed} <= {None}
    [one] = OutsiderProducer(cluster.connection).publish([Message(topic, 0, None, b"x" * 30_000)])
    assert one.permanent is not None


def test_many_more_records_than_the_queue_holds_are_written_in_order(cluster: Cluster) -> None:
    topic = cluster.create("leads.log", 1)
    LogProducer(cluster.connection).publish(messages(topic, 25_000))
    last = last_record(cluster.connection, TopicPartition(topic, 0))
    assert last is not None
    assert (last.offset, last.value) == (24_999, b"24999")


def test_reads_the_last_record_of_a_partition_and_none_of_an_empty_one(cluster: Cluster) -> None:
    topic = cluster.create("leads.log", 2)
    LogProducer(cluster.connection).publish(messages(topic, 3))
    last = last_record(cluster.connection, TopicPartition(topic, 0))
    assert last is not None
    assert last.value == b"2"
    assert last_record(cluster.connection, TopicPartition(topic, 1)) is None


def test_a_topic_that_is_made_again_has_another_id(cluster: Cluster) -> None:
    topic = cluster.create("leads.log", 1)
    first = topic_id(cluster.connection, topic)
    assert topic_id(cluster.connection, topic) == first
    cluster.delete()
    cluster.topics.clear()
    wait_until("it is gone", lambda: is_made_again(cluster))
    wait_until("the brokers know the new one", lambda: new_id_of(cluster, topic) not in (None, first))


def is_made_again(cluster: Cluster) -> bool:
    try:
        cluster.create("leads.log", 1)
    except KafkaException:
        return False
    return True


def new_id_of(cluster: Cluster, topic: str) -> str | None:
    try:
        return topic_id(cluster.connection, topic)
    except BusFailed:
        return None


PAUSES = 3
RECORD_BYTES = 10_000
RECORDS_A_REQUEST = 1_000_000 // RECORD_BYTES
"""librdkafka's `batch.size` allows no more."""

PUBLISHER = """
import sys, time
from services.bus.kafka import Connection, OutsiderProducer
from services.bus.liveness import Liveness, monotonic_s
from services.bus.ports import Message
bootstrap, topic, record_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
liveness = Liveness(1_000)
producer = OutsiderProducer(Connection(bootstrap=bootstrap), may_send=liveness.alive)
while True:
    liveness.prove(monotonic_s())
    created = (b"%d" % (time.time_ns() // 1_000_000) for _ in range(2_000))
    failed = producer.publish([Message(topic, 0, None, at.ljust(record_bytes)) for at in created])
    print("failed", len(failed), flush=True)
"""


def test_a_worker_that_may_not_send_sends_nothing(cluster: Cluster) -> None:
    topic = cluster.create("buyers.acme.leads", 1)
    answers = iter([True, False, True])
    producer = OutsiderProducer(cluster.connection, may_send=lambda: next(answers))
    assert [(each.index, each.permanent) for each in producer.publish(messages(topic, 3))] == [(1, None)]
    last = last_record(cluster.connection, TopicPartition(topic, 0))
    assert last is not None
    assert (last.offset, last.value) == (1, b"2")


def test_a_producer_that_was_paused_sends_nothing_late_when_it_wakes(cluster: Cluster) -> None:
    """What it had queued is reported and retried from the database, by whoever owns the partition then.

    Twenty requests' worth is queued at a time, since what librdkafka was just writing when it was paused goes out: one
    request and no more (its `queue.buffering.backpressure.threshold`).
    """
    topic = cluster.create("buyers.acme.leads", 1, message_timestamp_type="LogAppendTime")
    command = [sys.executable, "-c", PUBLISHER, cluster.kafka, topic, str(RECORD_BYTES)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines, reader = published(process)
        try:
            wait_until("it publishes", lambda: len(lines) > 3)
            for _ in range(PAUSES):
                process.send_signal(signal.SIGSTOP)
                paused_until_s = time.monotonic() + 2.5
                wait_until("the pause is over", lambda until_s=paused_until_s: time.monotonic() > until_s)  # type: ignore[misc]
                process.send_signal(signal.SIGCONT)
                seen = len(lines)
                wait_until("it goes on", lambda seen=seen: len(lines) > seen + 1)  # type: ignore[misc]
        finally:
            process.kill()
            reader.join()
    ledger = Ledger()
    with RealBus(cluster).host(Taker(ledger), topic) as host:
        last = last_record(cluster.connection, TopicPartition(topic, 0))
        assert last is not None
        host.until("all are read", lambda: bool(ledger.taken) and ledger.taken[-1].offset >= last.offset)
    late = [record for record in ledger.taken if record.timestamp_ms - int(record.value or b"0") > 2_000]
    # One more can have been between the question whether it may be sent and librdkafka's queue, at each pause.
    assert len(late) <= PAUSES * (RECORDS_A_REQUEST + 1)


def published(process: subprocess.Popen[str]) -> tuple[list[str], threading.Thread]:
    """Collect a process's lines as they come, in a thread that ends with the process."""
    lines: list[str] = []
    assert process.stdout is not None
    out = process.stdout

    def read() -> None:
        for line in out:
            lines.append(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return lines, reader
