"""The router's tables in PostgreSQL: one transaction per poll, heads first, promises as constraints.

It writes what it is given and decides nothing. Every statement here is one of protocol.md's rules 1 to 8, 16 and 17.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from psycopg.rows import TupleRow

from services.bus.ports import Stopped
from services.contract.times import DAY_MS
from services.router.database import Database, PgConnection
from services.router.ports import (
    Behind,
    Head,
    LogRow,
    Mark,
    Overtaken,
    PartitionCommit,
    Snapshot,
    UndeliveredRow,
)
from services.router.state_bytes import state_bytes, state_of

LOG_RANGE = 1_000_000
KEPT_IN_TABLE_MS = 7 * DAY_MS

_HEAD_COLUMNS = (
    "partition, version, next_qualified, next_command, next_timer, seq, hash, decided_at_ms, market_version, "
    "published_seq, log_topic_id"
)
_READ_HEADS = f"select {_HEAD_COLUMNS} from router.heads where partition = any(%s) order by partition"
_READ_CLOCK = (
    "select (extract(epoch from clock_timestamp()) * 1000)::bigint, "
    "(select coalesce(max(version), 0) from market.versions)"
)
_READ_LEADS = "select lead_id::text, state from router.leads where lead_id = any(%s::uuid[])"
# One statement that locks in the order of partitions and then compares and sets (rules 1 and 5): an UPDATE alone locks
# in any order.
_MOVE_HEADS = """
with given as (
    select * from unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
                         %s::bytea[], %s::bigint[], %s::bigint[], %s::bigint[])
        as given (partition, version, published_before, published_after, next_qualified, next_command, next_timer,
                  hash, seq, decided_at_ms, market_version)
), locked as (
    select partition from router.heads where partition = any(%s) order by partition for update
)
update router.heads h
set version = h.version + 1, published_seq = g.published_after, next_qualified = g.next_qualified,
    next_command = g.next_command, next_timer = g.next_timer, hash = g.hash, seq = g.seq,
    decided_at_ms = g.decided_at_ms, market_version = g.market_version
from given g join locked l using (partition)
where h.partition = g.partition and h.version = g.version and h.published_seq = g.published_before
returning h.partition
"""
_MOVE_MARKS = """
with given as (
    select * from unnest(%s::int[], %s::bigint[], %s::bigint[]) as given (partition, before_seq, after_seq)
), locked as (
    select partition from router.heads where partition = any(%s) order by partition for update
)
update router.heads h set published_seq = g.after_seq
from given g join locked l using (partition)
where h.partition = g.partition and h.published_seq = g.before_seq
returning h.partition
"""
_CHANGE_LEADS = """
update router.leads l set state = g.state
from unnest(%s::uuid[], %s::bytea[]) as g (lead_id, state) where l.lead_id = g.lead_id
"""
_ENTRIES = """
select partition, seq, lead_id::text, decided_at_ms, value from router.log
where partition = %s and seq > %s order by seq limit %s
"""
_ENTRY_VALUES = """
select l.partition, l.seq, l.value from router.log l
join unnest(%s::int[], %s::bigint[]) as g (partition, seq) using (partition, seq)
"""
_DROP_OLD_RANGES = """
select router.drop_log_ranges((extract(epoch from clock_timestamp()) * 1000)::bigint - %s)
"""
_ADD_LOG_RANGES = "select router.add_log_range(holding_seq) from unnest(%s::bigint[]) as holding_seq"
_BEHIND = "select distinct recipient from router.undelivered where partition = %s"
_UNDELIVERED = """
select u.partition, u.seq, u.n, u.recipient
from unnest(%s::int[], %s::text[]) as g (partition, recipient)
cross join lateral (
    select partition, seq, n, recipient from router.undelivered
    where partition = g.partition and recipient = g.recipient order by seq, n limit %s
) u
order by u.partition, u.seq, u.n limit %s
"""
_DELIVERED = """
delete from router.undelivered u using unnest(%s::int[], %s::bigint[], %s::int[]) as g (partition, seq, n)
where u.partition = g.partition and u.seq = g.seq and u.n = g.n
"""


class PostgresRouterStore:
    """A `RouterStore` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        """Take the router's database."""
        self._do = database.do
        self._log_range_end = 0

    def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """See `RouterStore`."""
        return self._do(lambda connection: _heads(connection, partitions))

    def read(self, partitions: Collection[int], lead_ids: Collection[str]) -> Snapshot:
        """See `RouterStore`: three statements, one round trip, the heads first."""

        def read(connection: PgConnection) -> Snapshot:
            with connection.pipeline():
                heads = connection.execute(_READ_HEADS, [list(partitions)], binary=True)
                clock = connection.execute(_READ_CLOCK, binary=True)
                leads = connection.execute(_READ_LEADS, [list(lead_ids)], binary=True)
            now = clock.fetchone()
            assert now is not None
            return Snapshot(
                heads=_checked_heads(heads.fetchall(), partitions),
                now_ms=now[0],
                market_version=now[1],
                leads={lead_id: state_of(state) for lead_id, state in leads.fetchall()},
            )

        return self._do(read)

    def commit(self, commits: Sequence[PartitionCommit]) -> None:
        """See `RouterStore`."""

        def commit(connection: PgConnection) -> None:
            with connection.transaction():
                self._write(connection, commits)

        self._add_log_range(max(commit.after.seq for commit in commits))
        self._do(commit)

    def move_marks(self, marks: Sequence[Mark]) -> None:
        """See `RouterStore`."""

        def move(connection: PgConnection) -> None:
            with connection.transaction():
                partitions = [mark.partition for mark in marks]
                moved = connection.execute(
                    _MOVE_MARKS,
                    [partitions, [m.before_seq for m in marks], [m.after_seq for m in marks], partitions],
                ).fetchall()
                _require_all(partitions, moved)
                _add_undelivered(connection, marks)

        self._do(move)

    def entries(self, partition: int, *, after_seq: int, limit: int) -> Sequence[LogRow]:
        """See `RouterStore`."""
        rows = self._do(
            lambda connection: connection.execute(_ENTRIES, [partition, after_seq, limit]).fetchall()
        )
        return [LogRow(*row) for row in rows]

    def behind(self, partition: int) -> Collection[str]:
        """See `RouterStore`."""
        rows = self._do(lambda connection: connection.execute(_BEHIND, [partition]).fetchall())
        return [recipient for (recipient,) in rows]

    def undelivered(self, behind: Collection[Behind], *, each: int, limit: int) -> Sequence[UndeliveredRow]:
        """See `RouterStore`."""
        if not behind:
            return []
        asked = [[at for at, _ in behind], [recipient for _, recipient in behind], each, limit]
        rows = self._do(lambda connection: connection.execute(_UNDELIVERED, asked).fetchall())
        return [UndeliveredRow(*row) for row in rows]

    def entry_values(self, rows: Collection[UndeliveredRow]) -> Mapping[tuple[int, int], bytes]:
        """See `RouterStore`."""
        wanted = sorted({(row.partition, row.seq) for row in rows})
        found = self._do(
            lambda connection: connection.execute(
                _ENTRY_VALUES, [[partition for partition, _ in wanted], [seq for _, seq in wanted]]
            ).fetchall()
        )
        return {(partition, seq): value for partition, seq, value in found}

    def delivered(self, rows: Collection[UndeliveredRow]) -> None:
        """See `RouterStore`."""
        columns = [[row.partition for row in rows], [row.seq for row in rows], [row.n for row in rows]]
        self._do(lambda connection: connection.execute(_DELIVERED, columns))

    def adopt_log_topic(self, partition: int, topic_id: str) -> None:
        """See `RouterStore`."""
        query = "update router.heads set log_topic_id = %s where partition = %s and log_topic_id = ''"
        self._do(lambda connection: connection.execute(query, [topic_id, partition]))

    def drop_old_log_ranges(self) -> Sequence[str]:
        """See `RouterStore`."""
        rows = self._do(
            lambda connection: connection.execute(_DROP_OLD_RANGES, [KEPT_IN_TABLE_MS]).fetchall()
        )
        return [name for (name,) in rows]

    def _write(self, connection: PgConnection, commits: Sequence[PartitionCommit]) -> None:
        """The head rows first (rule 1), then the inserts; there is nothing else to lock."""
        partitions = [commit.before.partition for commit in commits]
        moved = connection.execute(_MOVE_HEADS, [*_head_columns(commits), partitions]).fetchall()
        _require_all(partitions, moved)
        _copy(connection, "router.log (partition, seq, lead_id, decided_at_ms, value)", _log_lines(commits))
        _copy(connection, "router.leads (lead_id, partition, state)", _lead_lines(commits))
        _copy(
            connection,
            "router.sales (lead_id, sale_number, buyer_id, order_id, mode, sales_max, price_cents, sold_at_ms, "
            "closed_until_ms)",
            (_line(row) for commit in commits for row in commit.sales),
        )
        _copy(
            connection,
            "router.closes (lead_id, outcome, closed_at_ms)",
            (_line(row) for commit in commits for row in commit.closes),
        )
        changed = [item for commit in commits for item in commit.changed_leads.items()]
        if changed:
            states = [state_bytes(state) for _, state in changed if state is not None]
            done = connection.execute(_CHANGE_LEADS, [[lead_id for lead_id, _ in changed], states])
            assert done.rowcount == len(changed), "every changed lead has its row"
        _add_undelivered(connection, [commit.mark for commit in commits if commit.mark is not None])

    def _add_log_range(self, seq: int) -> None:
        """Make the table's next range before it is needed, outside of the commit."""
        if seq + LOG_RANGE // 10 < self._log_range_end:
            return
        ahead = seq + LOG_RANGE // 10
        self._do(lambda connection: connection.execute(_ADD_LOG_RANGES, [[seq, ahead]]))
        self._log_range_end = (ahead // LOG_RANGE + 1) * LOG_RANGE


def initialise(connection: PgConnection, partitions: int) -> None:
    """Make the head rows of a new Gavel, once: a worker takes a missing row for an error."""
    connection.execute(
        "insert into router.heads (partition) select generate_series(0, %s - 1) on conflict do nothing",
        [partitions],
    )


def _heads(connection: PgConnection, partitions: Collection[int]) -> Mapping[int, Head]:
    rows = connection.execute(_READ_HEADS, [list(partitions)], binary=True).fetchall()
    return _checked_heads(rows, partitions)


def _checked_heads(rows: Iterable[TupleRow], partitions: Collection[int]) -> Mapping[int, Head]:
    names = _HEAD_COLUMNS.split(", ")
    heads = {row[0]: Head(**dict(zip(names, row, strict=True))) for row in rows}
    missing = sorted(set(partitions) - heads.keys())
    if missing:
        raise Stopped(
            f"router.heads has no row for partitions {missing}: either this database was never set up "
            "(gavel market apply does it), or it lost them"
        )
    return heads


def _head_columns(commits: Sequence[PartitionCommit]) -> list[list[Any]]:
    afters = [commit.after for commit in commits]
    return [
        [commit.before.partition for commit in commits],
        [commit.before.version for commit in commits],
        [commit.before.published_seq for commit in commits],
        [after.published_seq for after in afters],
        [after.next_qualified for after in afters],
        [after.next_command for after in afters],
        [after.next_timer for after in afters],
        [after.hash for after in afters],
        [after.seq for after in afters],
        [after.decided_at_ms for after in afters],
        [after.market_version for after in afters],
    ]


def _require_all(partitions: Collection[int], moved: Iterable[TupleRow]) -> None:
    overtaken = set(partitions) - {row[0] for row in moved}
    if overtaken:
        raise Overtaken(overtaken)


def _copy(connection: PgConnection, target: str, lines: Iterable[str]) -> None:
    data = "".join(lines)
    if data:
        with connection.cursor().copy(f"copy {target} from stdin") as copy:
            copy.write(data)


def _line(row: tuple[Any, ...]) -> str:
    """Write a row in COPY's text format; ids, enums and numbers hold nothing that needs escaping."""
    return "\t".join(map(str, row)) + "\n"


def _log_lines(commits: Sequence[PartitionCommit]) -> Iterable[str]:
    for row in chain.from_iterable(commit.log for commit in commits):
        yield f"{row.partition}\t{row.seq}\t{row.lead_id}\t{row.decided_at_ms}\t\\\\x{row.value.hex()}\n"


def _lead_lines(commits: Sequence[PartitionCommit]) -> Iterable[str]:
    for commit in commits:
        for lead_id, state in commit.new_leads.items():
            if state is not None:
                yield f"{lead_id}\t{commit.before.partition}\t\\\\x{state_bytes(state).hex()}\n"


def _add_undelivered(connection: PgConnection, marks: Sequence[Mark]) -> None:
    _copy(
        connection,
        "router.undelivered (partition, seq, n, recipient)",
        (_line(row) for mark in marks for row in mark.undelivered),
    )
