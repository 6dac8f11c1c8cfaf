"""The router's tables in PostgreSQL: one transaction per poll, heads first, promises as constraints.

It writes what it is given and decides nothing. Every statement here is one of protocol.md's rules 1 to 8, 16 and 17.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

from psycopg.rows import TupleRow

from services.bus.arrays import Bigints, Byteas, Texts, Uuids, uuids
from services.bus.ports import Stopped
from services.contract.times import DAY_MS
from services.router.database import Database, PgConnection
from services.router.lead import State
from services.router.ports import (
    NO_DRAWS,
    AuctionRow,
    Behind,
    CounterRow,
    Draws,
    Head,
    LogRow,
    Mark,
    MoneyRow,
    PartitionCommit,
    Snapshot,
    UndeliveredRow,
)
from services.router.state_bytes import state_bytes, state_of
from services.vault import table

Column: TypeAlias = Bigints | Byteas | Texts | Uuids
_MARK = (Bigints, Bigints, Bigints)
_LOG = (Bigints, Bigints, uuids, Bigints, Byteas)
_SALE = (uuids, Bigints, Texts, Texts, Texts, Bigints, Bigints, Bigints, Bigints)
_CLOSE = (uuids, Texts, Bigints)
_AUCTION = (uuids, Bigints, Bigints, Bigints)
_MONEY = (uuids, Texts)
_DRAW = (Texts, Bigints, Bigints, Bigints, Bigints, Bigints, Bigints, Bigints)
_UNDELIVERED_ROW = (Bigints, Bigints, Bigints, Texts)

LOG_RANGE = 1_000_000
LOCKED_ENTRIES_MAX = 50_000
"""A batch that is decided under locks has fewer entries: no range of the log may be made then."""

KEPT_IN_TABLE_MS = 7 * DAY_MS
COUNTERS_KEPT_MS = 100 * DAY_MS
COUNTERS_DROPPED_AT_ONCE_MAX = 10_000

_HEAD_COLUMNS = (
    "partition, version, next_qualified, next_command, next_timer, seq, hash, decided_at_ms, market_version, "
    "published_seq, log_topic_id"
)
_READ_HEADS = f"select {_HEAD_COLUMNS} from router.heads where partition = any(%s) order by partition"
_READ_CLOCK = (
    "select (extract(epoch from clock_timestamp()) * 1000)::bigint, "
    "(select coalesce(max(version), 0) from market.versions)"
)
# One statement, and so one view of both tables: a lead that is being archived is in one of them.
_READ_LEADS = """
select lead_id::text, state from router.leads where lead_id = any(%s)
union all
select lead_id::text, state from router.archived_leads where lead_id = any(%s)
"""
_COUNTER_COLUMNS = "counter_id, used, granted, most, shortfall, market_version, told"
_READ_COUNTERS = f"select {_COUNTER_COLUMNS} from router.counters where counter_id = any(%s)"
_READ_MONEY = """
select m.account_id::text, m.reference from router.money m
join unnest(%s::uuid[], %s::text[]) as g (account_id, reference) using (account_id, reference)
"""
_READ_AUCTIONS = """
select lead_id::text, partition, auction_number, closes_at_ms from router.auctions where partition = any(%s)
"""
_DROP_OLD_COUNTERS = """
select router.drop_old_counters((extract(epoch from clock_timestamp()) * 1000)::bigint - %s, %s)
"""
# Each is one statement, one round trip and one transaction; what it does, in which order, is in the migration.
_COMMIT = f"select {_COUNTER_COLUMNS} from router.commit_batch({', '.join(['%s'] * 54)})"
_LOCK_COUNTERS = f"select {_COUNTER_COLUMNS} from router.lock_counters(%s, %s)"
# What erasing adds to a commit is rare: so it is in the same transaction, and not in the statement that all others run.
_ASK_TO_ERASE = """
insert into router.erasures (lead_id, buyer_id, reason, asked_at_ms, acknowledge_by_ms) values (%s, %s, %s, %s, %s)
on conflict (lead_id, buyer_id) do update
set reason = excluded.reason, asked_at_ms = excluded.asked_at_ms, acknowledge_by_ms = excluded.acknowledge_by_ms,
    acknowledged_at_ms = null, by_operator = null
"""
_ACKNOWLEDGE = """
update router.erasures set acknowledged_at_ms = %s, by_operator = %s where lead_id = %s and buyer_id = %s
"""
_MOVE_MARKS = f"select router.move_marks({', '.join(['%s'] * 7)})"
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

    def read(
        self,
        partitions: Collection[int],
        lead_ids: Collection[str],
        *,
        counters: Collection[str] = (),
        money: Collection[MoneyRow] = (),
    ) -> Snapshot:
        """See `RouterStore`: one statement for each, one round trip, the heads first."""

        def read(connection: PgConnection) -> Snapshot:
            with connection.pipeline():
                heads = connection.execute(_READ_HEADS, [list(partitions)], binary=True)
                clock = connection.execute(_READ_CLOCK, binary=True)
                asked = uuids(lead_ids)
                leads = connection.execute(_READ_LEADS, [asked, asked], binary=True)
                rows = (
                    connection.execute(_READ_COUNTERS, [Texts(counters)], binary=True) if counters else None
                )
                known = connection.execute(_READ_MONEY, _columns([*money], _MONEY)) if money else None
            now = clock.fetchone()
            assert now is not None
            return Snapshot(
                heads=_checked_heads(heads.fetchall(), partitions),
                now_ms=now[0],
                market_version=now[1],
                leads={lead_id: state_of(state) for lead_id, state in leads.fetchall()},
                counters=_counter_rows(rows.fetchall(), counters) if rows else (),
                money=frozenset(MoneyRow(*row) for row in known.fetchall()) if known else frozenset(),
            )

        return self._do(read)

    def counters(self, counters: Collection[str]) -> Sequence[CounterRow]:
        """See `RouterStore`."""
        rows = self._do(lambda connection: connection.execute(_READ_COUNTERS, [Texts(counters)]).fetchall())
        return _counter_rows(rows, counters)

    def auctions(self, partitions: Collection[int]) -> Sequence[AuctionRow]:
        """See `RouterStore`."""
        rows = self._do(lambda connection: connection.execute(_READ_AUCTIONS, [list(partitions)]).fetchall())
        return [AuctionRow(*row) for row in rows]

    def commit(self, commits: Sequence[PartitionCommit], draws: Draws = NO_DRAWS) -> Sequence[CounterRow]:
        """See `RouterStore`."""
        self._add_log_range(max(commit.after.seq for commit in commits))
        columns = _commit_columns(commits, draws)
        erases = any(map(_erases, commits))

        def commit(connection: PgConnection) -> Sequence[TupleRow]:
            if not erases:
                return connection.execute(_COMMIT, columns).fetchall()
            with connection.transaction():
                rows = connection.execute(_COMMIT, columns).fetchall()
                _erase(connection, commits)
                return rows

        return [CounterRow(*row) for row in self._do(commit)]

    def commit_locked(
        self,
        partitions: Collection[int],
        counters: Collection[str],
        decide: Callable[[Sequence[CounterRow]], tuple[Sequence[PartitionCommit], Draws]],
    ) -> Sequence[CounterRow]:
        """See `RouterStore`."""
        heads = self.heads(partitions)
        self._add_log_range(max(head.seq for head in heads.values()) + LOCKED_ENTRIES_MAX)

        def commit(connection: PgConnection) -> Sequence[TupleRow]:
            with connection.transaction():
                asked = [Bigints(partitions), Texts(counters)]
                locked = connection.execute(_LOCK_COUNTERS, asked).fetchall()
                commits, draws = decide([CounterRow(*row) for row in locked])
                rows = connection.execute(_COMMIT, _commit_columns(commits, draws)).fetchall()
                _erase(connection, commits)
                return rows

        return [CounterRow(*row) for row in self._do(commit)]

    def move_marks(self, marks: Sequence[Mark]) -> None:
        """See `RouterStore`."""
        moves = _columns([(mark.partition, mark.before_seq, mark.after_seq) for mark in marks], _MARK)
        columns = [*moves, *_undelivered_columns(marks)]
        erased = [lead_id for mark in marks for lead_id in mark.erased]

        def move(connection: PgConnection) -> None:
            with connection.transaction() if erased else nullcontext():
                connection.execute(_MOVE_MARKS, columns)
                table.erase(connection, erased)

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

    def drop_old_counters(self) -> int:
        """See `RouterStore`."""
        asked = [COUNTERS_KEPT_MS, COUNTERS_DROPPED_AT_ONCE_MAX]
        rows = self._do(lambda connection: connection.execute(_DROP_OLD_COUNTERS, asked).fetchall())
        return sum(count for (count,) in rows)

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


def _counter_rows(rows: Iterable[TupleRow], asked: Collection[str]) -> Sequence[CounterRow]:
    """Say of counters that are not there that nothing is used of them."""
    found = {row[0]: CounterRow(*row) for row in rows}
    return [found.get(counter) or CounterRow(counter) for counter in asked]


def _erases(commit: PartitionCommit) -> bool:
    return bool(commit.erasures or commit.acknowledged or (commit.mark is not None and commit.mark.erased))


def _erase(connection: PgConnection, commits: Sequence[PartitionCommit]) -> None:
    """Write who is asked to erase what and who has, and delete the details whose erasure is published (rule 26)."""
    with connection.cursor() as cursor:
        for commit in filter(_erases, commits):
            cursor.executemany(_ASK_TO_ERASE, commit.erasures)
            cursor.executemany(
                _ACKNOWLEDGE,
                [
                    (row.acknowledged_at_ms, row.by_operator, row.lead_id, row.buyer_id)
                    for row in commit.acknowledged
                ],
            )
            table.erase(connection, () if commit.mark is None else commit.mark.erased)


def _commit_columns(commits: Sequence[PartitionCommit], draws: Draws) -> list[Column | int]:
    marks = [commit.mark for commit in commits if commit.mark is not None]
    new = [(lead_id, commit) for commit in commits for lead_id in commit.new_leads]
    changed = [item for commit in commits for item in commit.changed_leads.items()]
    return [
        *_head_columns(commits),
        *_columns([row for commit in commits for row in commit.log], _LOG),
        uuids(lead_id for lead_id, _ in new),
        Bigints(commit.before.partition for _, commit in new),
        Byteas(_bytes_of(commit.new_leads[lead_id]) for lead_id, commit in new),
        *_columns([row for commit in commits for row in commit.sales], _SALE),
        *_columns([row for commit in commits for row in commit.closes], _CLOSE),
        uuids(lead_id for lead_id, _ in changed),
        Byteas(_bytes_of(state) for _, state in changed),
        *_undelivered_columns(marks),
        uuids(lead_id for commit in commits for lead_id in commit.upgrades),
        *_columns([row for commit in commits for row in commit.auctions_opened], _AUCTION),
        uuids(lead_id for commit in commits for lead_id in commit.auctions_ended),
        *_columns([row for commit in commits for row in commit.money], _MONEY),
        *_columns([row._replace(ends_at_ms=row.ends_at_ms or 0) for row in draws.rows], _DRAW),
        draws.market_version,
    ]


def _head_columns(commits: Sequence[PartitionCommit]) -> list[Column]:
    afters = [commit.after for commit in commits]
    return [
        Bigints(commit.before.partition for commit in commits),
        Bigints(commit.before.version for commit in commits),
        Bigints(commit.before.published_seq for commit in commits),
        Bigints(after.published_seq for after in afters),
        Bigints(after.next_qualified for after in afters),
        Bigints(after.next_command for after in afters),
        Bigints(after.next_timer for after in afters),
        Byteas(after.hash for after in afters),
        Bigints(after.seq for after in afters),
        Bigints(after.decided_at_ms for after in afters),
        Bigints(after.market_version for after in afters),
    ]


def _undelivered_columns(marks: Sequence[Mark]) -> list[Column]:
    return _columns([row for mark in marks for row in mark.undelivered], _UNDELIVERED_ROW)


def _columns(
    rows: Sequence[tuple[Any, ...]], kinds: Sequence[Callable[[Iterable[Any]], Column]]
) -> list[Column]:
    """Turn rows into columns, each of its kind."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(kinds)
    return [kind(column) for kind, column in zip(kinds, columns, strict=True)]


def _bytes_of(state: State) -> bytes:
    assert state is not None, "a lead that has a row has a state"
    return state_bytes(state)
