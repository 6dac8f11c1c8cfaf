"""What Gavel relies on of a bus, as one suite: it runs on the in-memory twin and on real Kafka.

A bus under test hosts a `Taker`, whose `Ledger` is what a database would be: it survives the step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import pytest

from services.bus.ports import Message, Producer, Record, TopicPartition
from services.contract.events import FailureReason

BATCH_MAX = 10
TOO_LARGE = 2_000_000


class Killed(Exception):
    """The step dies here, with nothing stored."""


@dataclass(slots=True)
class Ledger:
    """What the step has stored: positions, and the records that it took in the same transaction."""

    positions: dict[TopicPartition, int] = field(default_factory=dict)
    taken: list[Record] = field(default_factory=list)
    handled: list[Record] = field(default_factory=list)

    def offsets(self, where: TopicPartition) -> list[int]:
        """Name the offsets taken of one partition, in order."""
        return [record.offset for record in self.taken if (record.topic, record.partition) == where]


@dataclass(slots=True)
class Taker:
    """A step that takes what follows on its positions, as the router does."""

    ledger: Ledger
    partners: Sequence[str] = ()
    dies_at: int | None = None
    overtake: Callable[[Ledger], None] | None = None
    take_overs: list[frozenset[TopicPartition]] = field(default_factory=list)
    handled_before: int = 0
    idled: int = 0

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin at the stored positions, or said explicitly at the beginning."""
        self.take_overs.append(frozenset(assigned))
        wanted = [
            TopicPartition(topic, at.partition) for at in assigned for topic in (at.topic, *self.partners)
        ]
        return {where: self.ledger.positions.get(where) for where in wanted}

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing is kept in memory."""

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Store records and positions at once; a group that doesn't follow has to begin again."""
        assert 0 < len(records) <= BATCH_MAX
        self.ledger.handled += records
        if self.dies_at is not None and len(self.ledger.handled) >= self.dies_at:
            raise Killed
        if self.overtake is not None:
            self.overtake(self.ledger)
        by_partition = sorted(records, key=lambda record: (record.topic, record.partition))
        groups = groupby(by_partition, key=lambda record: TopicPartition(record.topic, record.partition))
        again = [where for where, group in groups if not self._follows(where, list(group))]
        if again and not self.handled_before:
            self.handled_before = len(self.ledger.handled)
        return again

    def idle(self) -> Collection[TopicPartition]:
        """Count."""
        self.idled += 1
        return ()

    def _follows(self, where: TopicPartition, group: list[Record]) -> bool:
        if group[0].offset != self.ledger.positions.get(where, 0):
            return False
        self.ledger.taken += group
        self.ledger.positions[where] = group[-1].offset + 1
        return True


class Hosting(Protocol):
    """A running host."""

    def until(self, what: str, done: Callable[[], bool]) -> None:
        """Let it work until something is so; raise what the step raised."""
        ...


class BusUnderTest(Protocol):
    """A bus of the test's own."""

    keeps_all: Producer
    gives_up: Producer

    def create(self, name: str, partitions: int) -> str:
        """Create a topic and return its whole name."""
        ...

    def host(self, step: Taker, topic: str) -> AbstractContextManager[Hosting]:
        """Run a step on all partitions of a topic, and its partners'."""
        ...


def messages(topic: str, count: int, partition: int = 0) -> list[Message]:
    """Make numbered messages for one partition."""
    return [Message(topic, partition, b"key", b"%d" % number) for number in range(count)]


class BusSuite:
    """The suite. A subclass brings the fixture `bus`."""

    def test_keeps_the_order_within_a_partition(self, bus: BusUnderTest) -> None:
        topic = bus.create("leads", 2)
        interleaved = [
            each for pair in zip(messages(topic, 60, 0), messages(topic, 60, 1), strict=True) for each in pair
        ]
        bus.keeps_all.publish(interleaved)
        ledger = Ledger()
        with bus.host(Taker(ledger), topic) as host:
            host.until("all are taken", lambda: len(ledger.taken) == 120)
        for partition in (0, 1):
            values = [record.value for record in ledger.taken if record.partition == partition]
            assert values == [b"%d" % number for number in range(60)]

    def test_writes_to_the_partition_that_a_message_names(self, bus: BusUnderTest) -> None:
        """Whatever its key: clients hash keys differently."""
        topic = bus.create("leads", 3)
        for producer in (bus.keeps_all, bus.gives_up):
            producer.publish(
                [Message(topic, partition, b"one key", b"to %d" % partition) for partition in (2, 0, 1, 2)]
            )
        ledger = Ledger()
        with bus.host(Taker(ledger), topic) as host:
            host.until("all are taken", lambda: len(ledger.taken) == 8)
        assert all(record.value == b"to %d" % record.partition for record in ledger.taken)

    def test_hands_over_key_value_headers_and_time_as_they_were_written(self, bus: BusUnderTest) -> None:
        topic = bus.create("leads", 1)
        headers = (("ce_id", b"1:2:3"), ("trace", b"\x00\xff"), ("trace", b""))
        for producer in (bus.keeps_all, bus.gives_up):
            producer.publish([Message(topic, 0, None, b"\x00body", headers, 1_790_000_000_000)])
        ledger = Ledger()
        with bus.host(Taker(ledger), topic) as host:
            host.until("both are taken", lambda: len(ledger.taken) == 2)
        for offset, record in enumerate(ledger.taken):
            assert record == Record(topic, 0, offset, None, b"\x00body", headers, 1_790_000_000_000)

    def test_reads_the_same_partition_of_each_partner(self, bus: BusUnderTest) -> None:
        leads, commands = bus.create("leads", 2), bus.create("commands", 2)
        bus.keeps_all.publish(
            [*messages(leads, 20, 1), *messages(commands, 20, 0), *messages(commands, 20, 1)]
        )
        ledger = Ledger()
        with bus.host(Taker(ledger, partners=[commands]), leads) as host:
            host.until("all are taken", lambda: len(ledger.taken) == 60)
        assert ledger.positions == {
            TopicPartition(leads, 1): 20,
            TopicPartition(commands, 0): 20,
            TopicPartition(commands, 1): 20,
        }

    def test_begins_where_the_step_says(self, bus: BusUnderTest) -> None:
        topic = bus.create("leads", 1)
        where = TopicPartition(topic, 0)
        bus.keeps_all.publish(messages(topic, 30))
        ledger = Ledger(positions={where: 25})
        with bus.host(Taker(ledger), topic) as host:
            host.until("the rest is taken", lambda: ledger.positions[where] == 30)
        assert ledger.offsets(where) == list(range(25, 30))

    @pytest.mark.parametrize("dies_at", [1, 15, 30])
    def test_a_step_that_died_before_storing_is_given_its_records_again(
        self, bus: BusUnderTest, dies_at: int
    ) -> None:
        topic = bus.create("leads", 1)
        where = TopicPartition(topic, 0)
        bus.keeps_all.publish(messages(topic, 30))
        ledger = Ledger()
        with pytest.raises(Killed), bus.host(Taker(ledger, dies_at=dies_at), topic) as host:
            host.until("it dies", lambda: False)
        assert ledger.positions.get(where, 0) < 30
        with bus.host(Taker(ledger), topic) as host:
            host.until("all are taken", lambda: ledger.positions.get(where) == 30)
        assert ledger.offsets(where) == list(range(30))

    def test_a_partition_that_must_begin_again_does_so_at_the_stored_position(
        self, bus: BusUnderTest
    ) -> None:
        """Another owner has moved it on: what was already read behind that is not handled."""
        topic = bus.create("leads", 2)
        overtaken, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
        bus.keeps_all.publish([*messages(topic, 100, 0), *messages(topic, 100, 1)])
        ledger = Ledger()

        def overtake(ledger: Ledger) -> None:
            if 20 <= ledger.positions.get(overtaken, 0) < 60:
                ledger.positions[overtaken] = 60

        step = Taker(ledger, overtake=overtake)
        with bus.host(step, topic) as host:
            host.until("all are taken", lambda: ledger.positions == {overtaken: 100, other: 100})
        assert step.take_overs == [{overtaken, other}, {overtaken}]
        since = ledger.handled[step.handled_before :]
        assert min(record.offset for record in since if record.partition == overtaken.partition) == 60
        assert ledger.offsets(overtaken)[-40:] == list(range(60, 100))
        assert ledger.offsets(other) == list(range(100))

    def test_calls_the_step_when_nothing_comes_in(self, bus: BusUnderTest) -> None:
        step = Taker(Ledger())
        with bus.host(step, bus.create("leads", 1)) as host:
            host.until("it was called", lambda: step.idled >= 3)

    def test_what_is_too_large_is_refused_for_good_and_the_rest_arrives(self, bus: BusUnderTest) -> None:
        topic = bus.create("buyers.acme.leads", 1)
        large = Message(topic, 0, None, b"x" * TOO_LARGE)
        [refused] = bus.gives_up.publish(
            [Message(topic, 0, None, b"1"), large, Message(topic, 0, None, b"2")]
        )
        assert (refused.index, refused.permanent) == (1, FailureReason.RECORD_TOO_LARGE)
        ledger = Ledger()
        with bus.host(Taker(ledger), topic) as host:
            host.until("the rest is taken", lambda: len(ledger.taken) == 2)
        assert [record.value for record in ledger.taken] == [b"1", b"2"]

    def test_what_goes_to_a_missing_topic_is_unacknowledged_but_not_for_good(self, bus: BusUnderTest) -> None:
        """The router decides what a missing topic means; the other recipients get theirs."""
        topic = bus.create("buyers.acme.leads", 1)
        missing = Message(topic.replace("acme", "nobody"), 0, None, b"1")
        for _ in range(2):
            [refused] = bus.gives_up.publish([missing, Message(topic, 0, None, b"2")])
            assert (refused.index, refused.permanent) == (0, None)
        ledger = Ledger()
        with bus.host(Taker(ledger), topic) as host:
            host.until("the others are taken", lambda: len(ledger.taken) == 2)

    def test_publishing_nothing_is_done_at_once(self, bus: BusUnderTest) -> None:
        assert not bus.keeps_all.publish([])
        assert not bus.gives_up.publish([], timeout_s=0.0)
