"""The feed's positions: one suite on the in-memory twin and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from deploy.local.stack import Stack
from services.bus.database import connect
from services.bus.log_reader import Move, Overtaken
from services.bus.migrations import migrate
from services.contract.entries import Position
from services.feed.store import FeedPositions, MemoryPositions, PostgresPositions
from tests.support.stack import fresh_database


@pytest.fixture(scope="module")
def migrated(stack: Stack) -> Iterator[str]:
    with fresh_database(stack.database) as url:
        migrate(url)
        yield url


@pytest.fixture
def connection(migrated: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(migrated, autocommit=True) as owner:
        owner.execute("truncate feed.positions")
    with connect(migrated, role="gavel_feed", application_name="test") as opened:
        yield opened


@pytest.fixture(params=["memory", "postgres"])
def positions(request: pytest.FixtureRequest) -> FeedPositions:
    if request.param == "memory":
        return MemoryPositions()
    connection = request.getfixturevalue("connection")
    return PostgresPositions(lambda: connection)


def _position(seq: int) -> Position:
    return Position(offset=seq + 3, seq=seq, hash=bytes([seq]) * 32) if seq else Position()


def test_begins_at_the_first_entry(positions: FeedPositions) -> None:
    assert positions.read([0, 3]) == {0: Position(), 3: Position()}


def test_keeps_what_was_moved(positions: FeedPositions) -> None:
    positions.read([0, 1])
    positions.move({0: Move(before=_position(0), after=_position(7))})
    assert positions.read([0, 1]) == {0: _position(7), 1: Position()}


def test_refuses_a_move_from_elsewhere_and_moves_none_of_the_batch(positions: FeedPositions) -> None:
    positions.read([0, 1])
    positions.move({0: Move(before=_position(0), after=_position(2))})
    moves = {
        0: Move(before=_position(1), after=_position(3)),
        1: Move(before=_position(0), after=_position(1)),
    }
    with pytest.raises(Overtaken) as overtaken:
        positions.move(moves)
    assert overtaken.value.partitions == {0}
    assert positions.read([0, 1]) == {0: _position(2), 1: Position()}


def test_refuses_a_move_that_differs_in_hash_alone(positions: FeedPositions) -> None:
    positions.read([0])
    positions.move({0: Move(before=_position(0), after=_position(2))})
    other = Position(offset=5, seq=2, hash=bytes(32))
    with pytest.raises(Overtaken):
        positions.move({0: Move(before=other, after=_position(3))})


def test_refuses_to_move_a_partition_never_taken_over(positions: FeedPositions) -> None:
    with pytest.raises(Overtaken):
        positions.move({5: Move(before=_position(0), after=_position(1))})


def test_other_steps_may_not_move_the_feed(migrated: str, connection: Connection[Any]) -> None:
    PostgresPositions(lambda: connection).read([0])
    with (
        connect(migrated, role="gavel_audit", application_name="test") as stranger,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        stranger.execute("update feed.positions set seq = 1")
