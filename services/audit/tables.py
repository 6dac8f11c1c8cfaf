"""Reads the tables as of one moment: one read-only snapshot, by the role that may read everything and change nothing.

What grows with history comes through cursors of the server, so that memory stays bounded. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import IsolationLevel

from services.audit.evidence import CloseRow, HeadRow, SaleRow, TransferRow
from services.bus.database import connect

ROLE: Final = "gavel_audit"
ROWS_AT_ONCE: Final = 5_000

_HEADS: Final = (
    "select partition, seq, hash, published_seq, next_qualified, next_command, next_timer from router.heads"
)
_COUNTERS: Final = "select counter_id, used, granted from router.counters"
_SALES: Final = (
    "select lead_id::text, sale_number::int, buyer_id, order_id, mode, sales_max::int, price_cents, "
    "case when sale_number = 1 then closed_until_ms end from {} order by lead_id, sale_number"
)
_CLOSES: Final = "select lead_id::text, outcome from {}"
_TRANSFERS: Final = (
    "select transfer_id::text, kind, debit_account, credit_account, amount_cents, currency, "
    "coalesce(sale_id::text, ''), coalesce(lead_id::text, '') from billing.transfers"
)
_ACCEPTED: Final = "select lead_id::text, received_at_ms from {}"
_UNDELIVERED: Final = "select partition, seq, n, recipient from router.undelivered"
_READERS: Final = (
    "select 'billing', partition, seq from billing.positions union all "
    "select 'resale', partition, seq from resale.positions union all "
    "select 'the feed', partition, seq from feed.positions"
)
_OVERDUE: Final = (
    "select (select count(*) from resale.windows where due_at_ms <= clock.now_ms) + "
    "(select count(*) from router.auctions where closes_at_ms <= clock.now_ms) "
    "from (select (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms) as clock"
)


class Inputs(NamedTuple):
    """How far the router has decided a partition's inputs: the offset that comes next in each topic."""

    qualified: int
    commands: int
    timers: int


class Snapshot:
    """The tables as of the moment of the snapshot. Any of the streams may be read beside another."""

    def __init__(self, connection: psycopg.Connection) -> None:
        """Take a connection in whose transaction everything is read."""
        self.connection = connection
        self._cursors = 0
        rows = connection.execute(_HEADS).fetchall()
        self._heads = {row[0]: HeadRow(row[0], row[1], bytes(row[2]), row[3]) for row in rows}
        self.inputs: Mapping[int, Inputs] = {row[0]: Inputs(*row[4:]) for row in rows}
        self.readers: Mapping[str, dict[int, int]] = {"billing": {}, "resale": {}, "the feed": {}}
        """By reader of the log and partition, the last entry that it has taken."""
        for reader, partition, seq in connection.execute(_READERS):
            self.readers[reader][partition] = seq

    def heads(self) -> Mapping[int, HeadRow]:
        """Give each partition's head."""
        return self._heads

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Give what is used of, and granted to, each limit that the router still keeps."""
        return {counter: (used, granted) for counter, used, granted in self._stream(_COUNTERS)}

    def sales(self) -> Iterator[SaleRow]:
        """Give the router's sales by lead and number, archived ones included."""
        return map(SaleRow._make, self._stream(_SALES.replace("{}", self._whole("router", "sales"))))

    def closes(self) -> Iterator[CloseRow]:
        """Give the router's closes, archived ones included."""
        return map(CloseRow._make, self._stream(_CLOSES.replace("{}", self._whole("router", "closes"))))

    def transfers(self) -> Iterator[TransferRow]:
        """Give the ledger as it lies in its table, to which rows are only ever added."""
        return map(TransferRow._make, self._stream(_TRANSFERS))

    def accepted(self) -> Iterator[tuple[str, int]]:
        """Give each lead that intake accepted, and when, in milliseconds."""
        return self._stream(_ACCEPTED.replace("{}", self._whole("intake", "leads")))

    def undelivered(self) -> Iterator[tuple[int, int, int, str]]:
        """Give what the router has not been able to deliver."""
        return self._stream(_UNDELIVERED)

    def owes_nothing(self) -> bool:
        """Tell whether nothing is undelivered."""
        return next(self.undelivered(), None) is None

    def overdue(self) -> int:
        """Count windows and auctions whose time is up, by the database's clock, and which are not closed yet."""
        row = self.connection.execute(_OVERDUE).fetchone()
        return int(row[0]) if row else 0

    def _whole(self, schema: LiteralString, table: LiteralString) -> LiteralString:
        """Name the view that has what is archived too, or the table before there is one."""
        view: LiteralString = f"{schema}.all_{table}"
        row = self.connection.execute("select to_regclass(%s) is not null", [view]).fetchone()
        return view if row is not None and row[0] else f"{schema}.{table}"

    def _stream(self, query: LiteralString) -> Iterator[Any]:
        self._cursors += 1
        with self.connection.cursor(f"audit_{self._cursors}") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            cursor.execute(query)
            yield from cursor


@contextmanager
def snapshot(url: str) -> Iterator[Snapshot]:
    """Open a snapshot; raise psycopg.OperationalError where there is no database, UndefinedTable before its setup."""
    with open_audited(url) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            yield Snapshot(connection)


@contextmanager
def open_audited(url: str) -> Iterator[psycopg.Connection]:
    """Connect as the auditor, without limits on how long a reading takes: it locks nothing that a step waits for."""
    with connect(
        url,
        role=ROLE,
        application_name="gavel audit",
        transaction_timeout_ms=0,
        idle_in_transaction_timeout_ms=0,
    ) as connection:
        # All rows are wanted, not the first ones soon; and each table from its beginning.
        connection.execute("set cursor_tuple_fraction = 1.0")
        connection.execute("set synchronize_seqscans = off")
        yield connection
