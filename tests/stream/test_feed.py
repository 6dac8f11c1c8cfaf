"""The feed as a whole step on the in-memory bus: every event once and in order, repeated at most by a crash."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.bus.log_reader import LogReader
from services.bus.memory import Crash, Faults, MemoryHost, MemoryKafka, MemoryProducer, VirtualClock
from services.bus.ports import BusFailed, Record, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.events import Event, StageStarted, WindowClosed
from services.contract.topics import Topics
from services.feed.publishing import EventFeed
from services.feed.store import MemoryPositions
from tests.support.written_log import WrittenLog

TOPICS = Topics()
PARTITIONS = 4
ALL = [TopicPartition(TOPICS.log, at) for at in range(PARTITIONS)]


def _kafka() -> MemoryKafka:
    return MemoryKafka({TOPICS.log: PARTITIONS, TOPICS.events: PARTITIONS}, clock=VirtualClock())


def _host(kafka: MemoryKafka, positions: MemoryPositions, batch_max: int = 500) -> MemoryHost:
    feed = EventFeed(positions, MemoryProducer(kafka, positions.faults), TOPICS)
    reader = LogReader(feed, codec(), topic=TOPICS.log, monotonic_s=kafka.clock.monotonic_s)
    host = MemoryHost(kafka, reader, batch_max=batch_max)
    host.assign(ALL)
    return host


def _write(kafka: MemoryKafka, log: WrittenLog, leads: int = 9) -> list[tuple[str, Event]]:
    written: list[tuple[str, Event]] = []
    for number in range(leads):
        lead_id = f"lead-{number % 5}"
        events = (StageStarted(stage=number), WindowClosed(window_number=number))
        log.append(kafka, TOPICS.log, lead_id, *events)
        kafka.clock.advance(7)
        written += [(lead_id, event) for event in events]
    return written


def _read(records: Sequence[Record]) -> list[tuple[str, Event]]:
    return [((record.key or b"").decode(), codec().decode(record.value)) for record in records]


def _of_lead(events: Sequence[tuple[str, Event]], lead_id: str) -> list[Event]:
    return [event for of, event in events if of == lead_id]


def test_publishes_each_event_once_in_the_order_of_its_lead() -> None:
    kafka, log = _kafka(), WrittenLog(PARTITIONS)
    written = _write(kafka, log)
    _host(kafka, MemoryPositions()).drain()
    published = _read(kafka.topic(TOPICS.events))
    for lead_id in {lead_id for lead_id, _ in written}:
        assert _of_lead(published, lead_id) == _of_lead(written, lead_id)


def test_publishes_in_the_partition_of_the_log_with_the_time_of_the_decision() -> None:
    kafka, log = _kafka(), WrittenLog(PARTITIONS)
    _write(kafka, log)
    _host(kafka, MemoryPositions()).drain()
    decided = {codec().decode_entry(record.value).decided_at_ms for record in kafka.topic(TOPICS.log)}
    records = kafka.topic(TOPICS.events)
    assert {record.timestamp_ms for record in records} == decided
    assert all(record.partition == log.partition_of((record.key or b"").decode()) for record in records)
    assert all(record.headers == () for record in records)


def test_drops_repeats_of_the_log() -> None:
    kafka, log = _kafka(), WrittenLog(PARTITIONS)
    written = _write(kafka, log)
    for record in kafka.topic(TOPICS.log):
        kafka.records[TopicPartition(TOPICS.log, record.partition)].append(
            record._replace(offset=len(kafka.records[TopicPartition(TOPICS.log, record.partition)]))
        )
    _host(kafka, MemoryPositions()).drain()
    assert len(kafka.topic(TOPICS.events)) == len(written)


def test_moves_no_position_before_kafka_has_acknowledged() -> None:
    kafka, log, positions = _kafka(), WrittenLog(PARTITIONS), MemoryPositions()
    _write(kafka, log)
    refused = Unacknowledged(0, None, "queue full")
    feed = EventFeed(positions, MemoryProducer(kafka, refuses=lambda _: refused), TOPICS)
    host = MemoryHost(kafka, LogReader(feed, codec(), topic=TOPICS.log, monotonic_s=kafka.clock.monotonic_s))
    host.assign(ALL)
    with pytest.raises(BusFailed, match=r"leads\.events did not take"):
        host.drain()
    assert {position.seq for position in positions.stored.values()} == {0}


def test_zombie_owner_moves_no_position() -> None:
    kafka, log, positions = _kafka(), WrittenLog(PARTITIONS), MemoryPositions()
    zombie = _host(kafka, positions)
    _write(kafka, log)
    _host(kafka, positions).drain()
    stored = dict(positions.stored)
    zombie.turn()
    assert positions.stored == stored
    zombie.drain()
    assert positions.stored == stored


def _until_done(kafka: MemoryKafka, positions: MemoryPositions) -> None:
    while True:
        try:
            _host(kafka, positions, batch_max=3).drain()
            return
        except Crash:
            continue


def test_crash_at_any_edge_skips_no_event_and_repeats_at_most_a_batch() -> None:
    whole = Faults()
    kafka = _kafka()
    written = _write(kafka, WrittenLog(PARTITIONS))
    _until_done(kafka, MemoryPositions(whole))
    assert len(kafka.topic(TOPICS.events)) == len(written)
    for edge in range(1, whole.edges + 1):
        kafka = _kafka()
        written = _write(kafka, WrittenLog(PARTITIONS))
        _until_done(kafka, MemoryPositions(Faults(crash_at=edge)))
        published = _read(kafka.topic(TOPICS.events))
        assert len(published) <= len(written) + 6
        for lead_id in {lead_id for lead_id, _ in written}:
            first_times = list(dict.fromkeys(_of_lead(published, lead_id)))
            assert first_times == _of_lead(written, lead_id)
