"""The table of windows in PostgreSQL, with this reader's positions; it holds no window in memory.

What is due is read by the database's clock alone. Nothing here knows what a window is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from psycopg import Connection, errors

from services.bus.database import Session
from services.bus.log_positions import LogPositions
from services.bus.log_reader import Move
from services.bus.ports import Stopped
from services.contract.entries import Position
from services.resale.domain import OUTSTANDING_MAX, Changes, Due, DueWindow, resend_after_ms


class WindowStore(Protocol):
    """Where windows are held; one suite of tests runs on each implementation. Each call may raise `PassingFault`."""

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read how far each partition has been taken; `Position()` where it was never read."""
        ...

    def apply(self, changes: Changes, moves: Mapping[int, Move]) -> None:
        """Move the positions by compare-and-set and apply the changes, all or nothing.

        Raise `Overtaken` where a position is not the move's `before`, `Stopped` for a window that is there already.
        """
        ...

    def due(self, partitions: Collection[int], *, at_most: int) -> Due:
        """Read what is due in these partitions, at most so many of each and within the limit on outstanding ones."""
        ...

    def mark_sent(self, windows: Sequence[DueWindow]) -> None:
        """Note that these were sent once more; what was closed or sent by another owner since stays as it is."""
        ...


class PostgresWindows:
    """The windows in schema `resale`."""

    def __init__(
        self, connect: Callable[[], Connection[Any]], *, outstanding_max: int = OUTSTANDING_MAX
    ) -> None:
        """Take how to connect as `gavel_resale`, with autocommit."""
        self._session = Session(connect, on_opened=_set_up)
        self._positions = LogPositions("resale")
        self._outstanding_max = outstanding_max

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the positions, and make the rows that compare-and-set needs."""
        with self._session.connection() as connection:
            return self._positions.read(connection, partitions)

    def apply(self, changes: Changes, moves: Mapping[int, Move]) -> None:
        """Move and change in one transaction, the positions first."""
        with self._session.connection() as connection, connection.transaction():
            self._positions.move(connection, moves)
            if changes.ended:
                connection.execute(_END_LEADS, [list(changes.ended)])
            if changes.closed:
                connection.execute(_CLOSE, _columns(changes.closed))
            if changes.opened:
                _open(connection, changes)

    def due(self, partitions: Collection[int], *, at_most: int) -> Due:
        """Ask once for the time, what is due, and when more will be."""
        parameters = {
            "partitions": list(partitions),
            "at_most": at_most,
            "outstanding_max": self._outstanding_max,
        }
        with self._session.connection() as connection:
            # Never prepared: a plan made while the table was small would scan all of it.
            rows = connection.execute(_DUE, parameters, prepare=False).fetchall()
        windows = tuple(DueWindow(*row[2:]) for row in rows if row[2] is not None)
        return Due(now_ms=rows[0][0], windows=windows, next_at_ms=rows[0][1])

    def mark_sent(self, windows: Sequence[DueWindow]) -> None:
        """Count the send and put the next one off, by the database's clock after the send."""
        partitions, lead_ids, window_numbers, sends, _ = _columns(windows)
        after_ms = [resend_after_ms(count + 1) for count in sends]
        with self._session.connection() as connection, connection.transaction():
            # Rows of windows are changed under the positions' locks only, so that two owners never deadlock.
            self._positions.lock(connection, set(partitions))
            connection.execute(_MARK_SENT, [lead_ids, window_numbers, sends, after_ms])

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _set_up(connection: Connection[Any]) -> None:
    # Rows and positions move together and follow from the log: what a crash of the server takes back is folded
    # again. So this reader need not wait for the disk.
    # Compiling the look at what is due would take longer than many looks.
    connection.execute("set synchronous_commit = off; set jit = off")


def _open(connection: Connection[Any], changes: Changes) -> None:
    windows = changes.opened.values()
    columns = [
        [window.partition for window in windows],
        [window.lead_id for window in windows],
        [window.window_number for window in windows],
        [window.kind.value for window in windows],
        [window.due_at_ms for window in windows],
    ]
    try:
        connection.execute(_OPEN, columns)
    except errors.UniqueViolation as error:
        raise Stopped(f"the log opened a window twice: {error.diag.message_detail}") from error


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


_END_LEADS = "delete from resale.windows where lead_id = any(%s::uuid[])"
_CLOSE = """
delete from resale.windows as stored using unnest(%s::uuid[], %s::int[]) as closed (lead_id, window_number)
where (stored.lead_id, stored.window_number) = (closed.lead_id, closed.window_number)
"""
_OPEN = """
insert into resale.windows (partition, lead_id, window_number, kind, due_at_ms, next_send_at_ms)
select partition, lead_id, window_number, kind, due_at_ms, due_at_ms
from unnest(%s::int[], %s::uuid[], %s::int[], %s::text[], %s::bigint[])
    as opened (partition, lead_id, window_number, kind, due_at_ms)
"""
_MARK_SENT = """
update resale.windows as stored
set sends = stored.sends + 1, next_send_at_ms = floor(extract(epoch from clock_timestamp()) * 1000) + sent.after_ms
from unnest(%s::uuid[], %s::int[], %s::int[], %s::bigint[]) as sent (lead_id, window_number, sends, after_ms)
where (stored.lead_id, stored.window_number, stored.sends) = (sent.lead_id, sent.window_number, sent.sends)
"""
# The time is cut, not rounded: half a millisecond early would be early.
_DUE = """
with clock as materialized (
    select floor(extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms
), due as materialized (
    select window_due.*
    from clock, unnest(%(partitions)s::int[]) as owned (partition)
    cross join lateral (
        select count(*) as windows from (
            select from resale.windows as sent
            where sent.partition = owned.partition and sent.sends > 0 limit %(outstanding_max)s
        ) as counted
    ) as outstanding
    cross join lateral (
        (select partition, lead_id, window_number, sends, next_send_at_ms from resale.windows as sent
         where sent.partition = owned.partition and sent.sends > 0 and sent.next_send_at_ms <= clock.now_ms
         order by sent.next_send_at_ms limit %(at_most)s)
        union all
        (select partition, lead_id, window_number, sends, next_send_at_ms from resale.windows as waiting
         where waiting.partition = owned.partition and waiting.sends = 0 and waiting.next_send_at_ms <= clock.now_ms
         order by waiting.next_send_at_ms limit least(%(at_most)s, %(outstanding_max)s - outstanding.windows))
    ) as window_due
), upcoming as materialized (
    select min(least(sent_at_ms, waiting_at_ms)) as next_at_ms
    from clock, unnest(%(partitions)s::int[]) as owned (partition)
    cross join lateral (
        select
            (select min(sent.next_send_at_ms) from resale.windows as sent
             where sent.partition = owned.partition and sent.sends > 0 and sent.next_send_at_ms > clock.now_ms),
            (select min(waiting.next_send_at_ms) from resale.windows as waiting
             where waiting.partition = owned.partition and waiting.sends = 0
             and waiting.next_send_at_ms > clock.now_ms)
    ) as times (sent_at_ms, waiting_at_ms)
)
select clock.now_ms, upcoming.next_at_ms, due.partition, due.lead_id::text, due.window_number, due.sends,
    due.next_send_at_ms
from clock cross join upcoming left join due on true
"""
