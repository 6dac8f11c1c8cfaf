"""The table of windows: one suite on the in-memory twin and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from deploy.local.stack import Stack
from services.bus.database import connect
from services.bus.log_reader import Move, Overtaken
from services.bus.memory import VirtualClock
from services.bus.migrations import migrate
from services.bus.ports import Stopped
from services.contract.entries import Position
from services.contract.events import WindowKind
from services.contract.ids import lead_id_of
from services.contract.times import MINUTE_MS
from services.resale.domain import Changes, Due, Window
from services.resale.memory import MemoryWindows
from services.resale.store import PostgresWindows, WindowStore
from tests.support.stack import fresh_database

OUTSTANDING_MAX = 3
LEAD = lead_id_of("sunform", "1")
OTHER = lead_id_of("sunform", "2")


@dataclass
class Table:
    """A store under test, and how time passes for it."""

    windows: WindowStore
    clock: VirtualClock | None

    def now_ms(self) -> int:
        """Read the store's clock."""
        return self.windows.due([0], at_most=1).now_ms

    def wait_until(self, at_ms: int) -> None:
        """Let time pass, virtual or real; asking the real clock is the wait."""
        if self.clock is not None:
            self.clock.now_ms = at_ms
        while self.now_ms() < at_ms:
            pass

    def opens(self, *windows: Window) -> None:
        """Open windows."""
        changes = Changes()
        for window in windows:
            changes.open_window(window)
        self.windows.apply(changes, {})

    def due(self, partitions: tuple[int, ...] = (0,), at_most: int = 100) -> list[tuple[str, int]]:
        """List what is due."""
        return [(one.lead_id, one.window_number) for one in self._due(partitions, at_most).windows]

    def sends(self, at_most: int = 100) -> list[tuple[str, int]]:
        """Mark what is due as sent."""
        due = self._due((0,), at_most)
        if due.windows:
            self.windows.mark_sent(due.windows)
        return [(one.lead_id, one.window_number) for one in due.windows]

    def _due(self, partitions: tuple[int, ...], at_most: int) -> Due:
        return self.windows.due(partitions, at_most=at_most)


@pytest.fixture(scope="module")
def migrated(stack: Stack) -> Iterator[str]:
    with fresh_database(stack.database) as url:
        migrate(url)
        yield url


@pytest.fixture
def connection(migrated: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(migrated, autocommit=True) as owner:
        owner.execute("truncate resale.windows, resale.positions")
    with connect(migrated, role="gavel_resale", application_name="test") as opened:
        yield opened


@pytest.fixture(params=["memory", "postgres"])
def table(request: pytest.FixtureRequest) -> Table:
    if request.param == "memory":
        clock = VirtualClock()
        return Table(MemoryWindows(clock, outstanding_max=OUTSTANDING_MAX), clock)
    connection: Connection[Any] = request.getfixturevalue("connection")
    return Table(PostgresWindows(lambda: connection, outstanding_max=OUTSTANDING_MAX), None)


def _window(number: int, due_at_ms: int, *, lead_id: str = LEAD, partition: int = 0) -> Window:
    return Window(
        partition=partition, lead_id=lead_id, window_number=number, kind=WindowKind.WAIT, due_at_ms=due_at_ms
    )


def _position(seq: int) -> Position:
    return Position(offset=seq, seq=seq, hash=bytes([seq]) * 32) if seq else Position()


def test_begins_at_the_first_entry(table: Table) -> None:
    assert table.windows.positions([0, 3]) == {0: Position(), 3: Position()}


def test_keeps_moved_positions(table: Table) -> None:
    table.windows.positions([0, 1])
    table.windows.apply(Changes(), {0: Move(before=_position(0), after=_position(7))})
    assert table.windows.positions([0, 1]) == {0: _position(7), 1: Position()}


def test_refuses_a_move_from_elsewhere_and_stores_nothing_of_the_batch(table: Table) -> None:
    table.windows.positions([0, 1])
    table.windows.apply(Changes(), {0: Move(before=_position(0), after=_position(2))})
    changes = Changes()
    changes.open_window(_window(1, 0))
    moves = {
        0: Move(before=_position(1), after=_position(3)),
        1: Move(before=_position(0), after=_position(1)),
    }
    with pytest.raises(Overtaken) as overtaken:
        table.windows.apply(changes, moves)
    assert overtaken.value.partitions == {0}
    assert table.windows.positions([0, 1]) == {0: _position(2), 1: Position()}
    assert table.due() == []


def test_refuses_a_move_that_differs_in_hash_alone(table: Table) -> None:
    table.windows.positions([0])
    table.windows.apply(Changes(), {0: Move(before=_position(0), after=_position(2))})
    other = Position(offset=2, seq=2, hash=bytes(32))
    with pytest.raises(Overtaken):
        table.windows.apply(Changes(), {0: Move(before=other, after=_position(3))})


def test_refuses_to_move_a_partition_never_taken_over(table: Table) -> None:
    with pytest.raises(Overtaken):
        table.windows.apply(Changes(), {5: Move(before=_position(0), after=_position(1))})


def test_window_is_due_at_its_time_and_not_before(table: Table) -> None:
    due_at_ms = table.now_ms() + 40
    table.opens(_window(1, due_at_ms))
    while (found := table.windows.due([0], at_most=1)).now_ms < due_at_ms:
        assert found.windows == ()
        assert found.next_at_ms == due_at_ms
        table.wait_until(found.now_ms + 1)
    assert found.windows[0].window_number == 1
    assert found.windows[0].due_at_ms == due_at_ms
    assert found.next_at_ms is None


def test_reads_only_the_partitions_asked_for(table: Table) -> None:
    table.opens(_window(1, 0, partition=0), _window(2, 0, partition=1))
    assert table.due((1,)) == [(LEAD, 2)]
    assert table.windows.due([2], at_most=1).next_at_ms is None


def test_reads_the_earliest_first_and_so_many_of_each_partition_at_most(table: Table) -> None:
    table.opens(*(_window(number, 10 - number, partition=number % 2) for number in range(1, 9)))
    assert table.due(at_most=2) == [(LEAD, 8), (LEAD, 6)]
    assert sorted(table.due((0, 1), at_most=1)) == [(LEAD, 7), (LEAD, 8)]


def test_closes_a_window_and_no_other(table: Table) -> None:
    table.opens(_window(1, 0), _window(2, 0), _window(1, 0, lead_id=OTHER))
    changes = Changes()
    changes.close_window(LEAD, 1)
    changes.close_window(OTHER, 2)
    table.windows.apply(changes, {})
    assert sorted(table.due()) == sorted([(LEAD, 2), (OTHER, 1)])


def test_ends_all_windows_of_a_lead(table: Table) -> None:
    table.opens(_window(1, 0), _window(2, 0), _window(1, 0, lead_id=OTHER))
    changes = Changes()
    changes.end_lead(LEAD)
    table.windows.apply(changes, {})
    assert table.due() == [(OTHER, 1)]


def test_window_closed_and_opened_again_in_one_batch_is_open(table: Table) -> None:
    table.opens(_window(1, table.now_ms() + MINUTE_MS))
    changes = Changes()
    changes.close_window(LEAD, 1)
    changes.open_window(_window(1, 0))
    table.windows.apply(changes, {})
    assert table.due() == [(LEAD, 1)]


def test_stops_at_a_window_opened_twice(table: Table) -> None:
    table.opens(_window(1, 0))
    with pytest.raises(Stopped, match="opened a window twice"):
        table.opens(_window(2, 0), _window(1, 5))
    assert table.due() == [(LEAD, 1)]


def test_window_sent_is_due_again_a_minute_later_and_then_two(table: Table) -> None:
    table.opens(_window(1, 0))
    assert table.sends() == [(LEAD, 1)]
    found = table.windows.due([0], at_most=1)
    assert found.windows == ()
    assert found.next_at_ms is not None
    assert MINUTE_MS - 5_000 < found.next_at_ms - found.now_ms <= MINUTE_MS


def test_send_noted_by_another_owner_is_not_counted_twice(table: Table) -> None:
    table.opens(_window(1, 0))
    due = table.windows.due([0], at_most=1)
    table.windows.mark_sent(due.windows)
    table.windows.mark_sent(due.windows)
    found = table.windows.due([0], at_most=1)
    assert found.next_at_ms is not None
    assert found.next_at_ms - found.now_ms <= MINUTE_MS


def test_window_closed_between_look_and_mark_stays_closed(table: Table) -> None:
    table.opens(_window(1, 0))
    due = table.windows.due([0], at_most=1)
    changes = Changes()
    changes.close_window(LEAD, 1)
    table.windows.apply(changes, {})
    table.windows.mark_sent(due.windows)
    found = table.windows.due([0], at_most=1)
    assert (found.windows, found.next_at_ms) == ((), None)


def test_waits_while_the_limit_is_outstanding_and_goes_on_as_windows_close(table: Table) -> None:
    table.opens(*(_window(number, number) for number in range(5)), _window(9, 0, partition=1))
    assert table.sends() == [(LEAD, 0), (LEAD, 1), (LEAD, 2)]
    assert table.sends() == []
    assert table.due((0, 1)) == [(LEAD, 9)]
    changes = Changes()
    changes.close_window(LEAD, 1)
    table.windows.apply(changes, {})
    assert table.sends() == [(LEAD, 3)]


def test_time_of_the_database_is_cut_to_the_millisecond_never_rounded_up(connection: Connection[Any]) -> None:
    windows = PostgresWindows(lambda: connection)
    for _ in range(200):
        now_ms = windows.due([0], at_most=1).now_ms
        after = connection.execute("select extract(epoch from clock_timestamp()) * 1000").fetchone()
        assert after is not None
        assert now_ms <= after[0]


def test_table_itself_refuses_to_send_early(connection: Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "insert into resale.windows (partition, lead_id, window_number, kind, due_at_ms, next_send_at_ms)"
            " values (0, %s, 1, 'wait', 1000, 999)",
            [LEAD],
        )


@pytest.mark.usefixtures("connection")
def test_other_steps_may_not_touch_the_table(migrated: str) -> None:
    with (
        connect(migrated, role="gavel_router", application_name="test") as stranger,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        stranger.execute("select from resale.windows")


def test_looks_by_index_among_many_windows(connection: Connection[Any]) -> None:
    """Whatever the table's size, a look reads no more rows than there are partitions and windows due."""
    connection.execute(
        "insert into resale.windows (partition, lead_id, window_number, kind, due_at_ms, next_send_at_ms)"
        " select n % 4, gen_random_uuid(), 1, 'wait', 9000000000000 + n, 9000000000000 + n"
        " from generate_series(1, 20000) as n"
    )
    windows = PostgresWindows(lambda: connection)
    before = _rows_fetched(connection)
    assert windows.due([0, 1, 2, 3], at_most=100).windows == ()
    assert _rows_fetched(connection) - before <= 100


def _rows_fetched(connection: Connection[Any]) -> int:
    connection.execute("select pg_stat_force_next_flush()")
    row = connection.execute(
        "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'windows'"
    ).fetchone()
    assert row is not None
    return int(row[0])
