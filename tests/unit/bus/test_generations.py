"""Records of an earlier generation never count."""

from __future__ import annotations

from services.bus.generations import Generations
from services.bus.ports import Record, TopicPartition

LEADS = TopicPartition("leads", 0)
OTHER = TopicPartition("leads", 1)


def record(where: TopicPartition, offset: int = 0) -> Record:
    return Record(where.topic, where.partition, offset, None, b"", (), 0)


def test_records_read_since_the_start_are_live() -> None:
    generations = Generations()
    generations.start([LEADS])
    assert generations.live([record(LEADS)], generations.epoch) == [record(LEADS)]


def test_records_read_before_a_restart_are_void() -> None:
    generations = Generations()
    generations.start([LEADS, OTHER])
    read_at = generations.epoch
    generations.start([LEADS])
    assert generations.live([record(LEADS), record(OTHER)], read_at) == [record(OTHER)]


def test_records_of_a_dropped_partition_are_void() -> None:
    generations = Generations()
    generations.start([LEADS, OTHER])
    read_at = generations.epoch
    generations.drop([LEADS])
    assert generations.live([record(LEADS), record(OTHER)], read_at) == [record(OTHER)]


def test_records_read_while_their_partition_is_void_never_count() -> None:
    """The step has asked to begin again, the pump has not yet done so and goes on reading."""
    generations = Generations()
    generations.start([LEADS, OTHER])
    generations.void([LEADS])
    read_at = generations.epoch
    assert generations.live([record(LEADS), record(OTHER)], read_at) == [record(OTHER)]
    generations.start([LEADS])
    assert generations.live([record(LEADS), record(OTHER)], read_at) == [record(OTHER)]


def test_records_of_a_partition_that_was_never_ours_are_void() -> None:
    generations = Generations()
    read_at = generations.epoch
    generations.start([OTHER])
    assert generations.live([record(LEADS)], read_at) == []


def test_positions_of_a_void_partition_may_be_committed_until_it_is_dropped() -> None:
    """A batch in progress when its partition is revoked still commits: nobody else has the partition yet."""
    generations = Generations()
    generations.start([LEADS])
    handled_at = generations.epoch
    generations.void([LEADS])
    assert generations.committable(LEADS, handled_at)
    generations.drop([LEADS])
    assert not generations.committable(LEADS, handled_at)


def test_positions_of_an_earlier_ownership_are_not_committed() -> None:
    generations = Generations()
    generations.start([LEADS])
    handled_at = generations.epoch
    generations.drop([LEADS])
    generations.start([LEADS])
    assert not generations.committable(LEADS, handled_at)
