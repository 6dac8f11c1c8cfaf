"""Makes the ledger again from the log's first entry, beside the one that bills, and proves the two identical.

It must not change the ledger, nor make it wait: the two are compared as of the positions that one snapshot shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Protocol

import psycopg
from psycopg import IsolationLevel, sql

from services.billing.step import Billing
from services.billing.store import SCHEMA, PostgresLedger
from services.bus.log_reader import LogReader
from services.bus.ports import Record, Stopped, TopicPartition
from services.contract.codec import Codec
from services.contract.entries import Position

REBUILT = "billing_rebuilt"
TABLES = ("leads", "sales", "returns", "transfers", "account_totals", "positions")
NOT_COMPARED: Mapping[str, tuple[str, ...]] = {"positions": ("next_offset",)}
"""Where an entry stands in the topic is no part of what it says; its number and its hash are."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "leads": ("lead_id",),
    "sales": ("sale_id",),
    "returns": ("sale_id", "seq"),
    "transfers": ("transfer_id",),
    "account_totals": ("account", "currency", "partition"),
    "positions": ("partition",),
}
"""By what a row of each table is named."""

NAMED_MAX = 5
"""So many differing rows of a table are named."""

CATCH_UP_ENTRIES_MAX = 5_000
"""So many entries may be left for the snapshot, which holds back vacuum as long as it is open."""

CATCH_UPS_MAX = 5
_LOCK_KEY = 0x6269_6C6C_696E_67  # "billing"

Progress = Callable[[int, int], None]
"""Told of entries folded, and of entries to fold in all."""


def _in_silence(_done: int, _total: int) -> None:
    pass


class LogSource(Protocol):
    """The log, read without a group, from offset to offset."""

    def read(self, spans: Mapping[int, range]) -> Iterator[Sequence[Record]]:
        """Read these offsets of these partitions, batch by batch; raise `Stopped` where the log does not have them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row that only one of the two has."""

    table: str
    only_in: str
    row: Mapping[str, Any]

    @property
    def key(self) -> str:
        """By what the row is found."""
        return " ".join(str(self.row[column]) for column in KEYS[self.table])


@dataclass(frozen=True, slots=True, kw_only=True)
class TableComparison:
    """One table of the ledger against the same table made again."""

    table: str
    rows: int
    only_in_ledger: int
    only_in_rebuilt: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrencyTotal:
    """All money of a currency in the ledger: what was debited is what was credited, here and in the rebuilt one."""

    currency: str
    debits_cents: int
    credits_cents: int
    rebuilt_debits_cents: int
    rebuilt_credits_cents: int

    @property
    def agrees(self) -> bool:
        """Tell whether all four are one number."""
        return (
            self.debits_cents == self.credits_cents == self.rebuilt_debits_cents == self.rebuilt_credits_cents
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison found. `discrepancies` contradict each other within the ledger itself."""

    entries: int
    tables: tuple[TableComparison, ...]
    totals: tuple[CurrencyTotal, ...]
    discrepancies: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Tell whether the ledger is what the log says, row by row and to the cent."""
        rows = all(table.only_in_ledger == table.only_in_rebuilt == 0 for table in self.tables)
        return rows and all(total.agrees for total in self.totals) and not self.discrepancies


class RebuildRunning(Exception):
    """Somebody else is rebuilding in this database."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("another rebuild is running in this database: wait for it")


class Rebuild:
    """A ledger made again, in `schema` (which exists), through one connection of billing's role without timeouts."""

    def __init__(
        self,
        connection: psycopg.Connection,
        log: LogSource,
        codec: Codec,
        *,
        topic: str,
        schema: str = REBUILT,
    ) -> None:
        """Write to nothing but `schema`."""
        self._connection = connection
        self._log = log
        self._schema = schema
        self._topic = topic
        # Entries ahead are no matter of waiting here: the log is what it is, and time need not pass.
        ledger = PostgresLedger(lambda: connection, schema=schema)
        self._reader = LogReader(
            Billing(ledger, codec), codec, topic=topic, monotonic_s=lambda: 0.0, follows_another=True
        )
        self._reached: dict[int, Position] = {}
        self._entries = 0

    def make(self, progress: Progress = _in_silence) -> int:
        """Fold the log into empty tables, as far as the ledger is; return how many entries that was."""
        self._begin()
        for _ in range(CATCH_UPS_MAX):
            self._fold(_positions(self._connection, SCHEMA), progress)
            if self._left(_positions(self._connection, SCHEMA)) <= CATCH_UP_ENTRIES_MAX:
                break
        return self._entries

    def compare(self, progress: Progress = _in_silence) -> Verdict:
        """Fold what came in since, and compare, all within one snapshot."""
        self._connection.isolation_level = IsolationLevel.REPEATABLE_READ
        try:
            with self._connection.transaction():
                self._fold(_positions(self._connection, SCHEMA), progress)
                return Verdict(
                    entries=self._entries,
                    tables=tuple(self._compare_table(table) for table in TABLES),
                    totals=self._totals(),
                    discrepancies=_discrepancies(self._connection),
                )
        finally:
            self._connection.isolation_level = None

    def _begin(self) -> None:
        drop_tables(self._connection, self._schema)
        make_tables(self._connection, self._schema)
        self._reached, self._entries = {}, 0

    def _left(self, target: Mapping[int, Position]) -> int:
        return sum(position.seq - self._reached.get(at, Position()).seq for at, position in target.items())

    def _fold(self, target: Mapping[int, Position], progress: Progress) -> None:
        """Read up to `target`, which is as far as the ledger is."""
        start = self._reader.take_over([TopicPartition(self._topic, at) for at in target])
        spans = {
            where.partition: range(offset or 0, target[where.partition].offset)
            for where, offset in start.items()
            if (offset or 0) < target[where.partition].offset
        }
        total = self._entries + self._left(target)
        for records in self._log.read(spans):
            if self._reader.handle(records):
                raise Stopped(
                    f"the database was lost, or somebody else writes to {self._schema}: begin again"
                )
            self._entries += len(records)
            progress(min(self._entries, total), total)
        self._reached = dict(_positions(self._connection, self._schema))

    def _compare_table(self, table: str) -> TableComparison:
        columns = _columns(self._connection, table)
        missing, missing_rows = self._except(table, columns, SCHEMA, self._schema)
        added, added_rows = self._except(table, columns, self._schema, SCHEMA)
        count = self._connection.execute(_named("select count(*) from {}.{}", SCHEMA, table)).fetchone()
        assert count is not None
        return TableComparison(
            table=table,
            rows=count[0],
            only_in_ledger=missing,
            only_in_rebuilt=added,
            differences=(
                *(Difference(table=table, only_in="ledger", row=row) for row in missing_rows),
                *(Difference(table=table, only_in="rebuilt", row=row) for row in added_rows),
            ),
        )

    def _except(
        self, table: str, columns: Sequence[str], one: str, other: str
    ) -> tuple[int, list[Mapping[str, Any]]]:
        """Count the rows that only `one` schema has, and give the first."""
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        found = self._connection.execute(
            sql.SQL(
                "select count(*) over (), to_jsonb(different) from "
                "(select {names} from {one} except select {names} from {other}) as different order by 2 limit {limit}"
            ).format(
                names=names,
                one=sql.Identifier(one, table),
                other=sql.Identifier(other, table),
                limit=NAMED_MAX,
            )
        ).fetchall()
        return (found[0][0] if found else 0), [row for _, row in found]

    def _totals(self) -> tuple[CurrencyTotal, ...]:
        found = self._connection.execute(
            sql.SQL(
                "select currency, sum(debits), sum(credits), sum(rebuilt_debits), sum(rebuilt_credits) from ("
                "select currency, debits_cents as debits, credits_cents as credits, 0 as rebuilt_debits, "
                "0 as rebuilt_credits from {live} "
                "union all select currency, 0, 0, debits_cents, credits_cents from {rebuilt}) as movements "
                "group by currency order by currency"
            ).format(
                live=sql.Identifier(SCHEMA, "account_totals"),
                rebuilt=sql.Identifier(self._schema, "account_totals"),
            )
        )
        return tuple(
            CurrencyTotal(
                currency=currency,
                debits_cents=int(debits),
                credits_cents=int(credited),
                rebuilt_debits_cents=int(rebuilt_debits),
                rebuilt_credits_cents=int(rebuilt_credits),
            )
            for currency, debits, credited, rebuilt_debits, rebuilt_credits in found
        )


@contextmanager
def only_one(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the right to rebuild in this database; raise `RebuildRunning`."""
    found = connection.execute("select pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
    if found is None or not found[0]:
        raise RebuildRunning
    try:
        yield
    finally:
        connection.execute("select pg_advisory_unlock(%s)", (_LOCK_KEY,))


def make_tables(connection: psycopg.Connection, schema: str) -> None:
    """Make the ledger's tables, as they are now, in another schema: columns, constraints and indexes, but no rows."""
    for table in TABLES:
        connection.execute(
            sql.SQL("create table {} (like {} including all)").format(
                sql.Identifier(schema, table), sql.Identifier(SCHEMA, table)
            )
        )


def drop_tables(connection: psycopg.Connection, schema: str) -> None:
    """Drop what `make_tables` made."""
    assert schema != SCHEMA, "the ledger itself is never dropped"
    for table in TABLES:
        connection.execute(_named("drop table if exists {}.{}", schema, table))


def _positions(connection: psycopg.Connection, schema: str) -> Mapping[int, Position]:
    rows = connection.execute(
        _named("select partition, next_offset, seq, hash from {}.{}", schema, "positions")
    )
    return {at: Position(offset=next_offset, seq=seq, hash=digest) for at, next_offset, seq, digest in rows}


def _columns(connection: psycopg.Connection, table: str) -> list[str]:
    """List the columns to compare: all, so that a new one can't be forgotten."""
    rows = connection.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped "
        "and attname <> all(%s) order by attnum",
        (f"{SCHEMA}.{table}", list(NOT_COMPARED.get(table, ()))),
    )
    return [name for (name,) in rows]


def _discrepancies(connection: psycopg.Connection) -> tuple[str, ...]:
    rows = connection.execute("select what || ': ' || which from billing.discrepancies order by 1 limit 100")
    return tuple(text for (text,) in rows)


def _named(statement: LiteralString, schema: str, table: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(schema), sql.Identifier(table))
