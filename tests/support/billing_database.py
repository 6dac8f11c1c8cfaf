"""Real ledgers in a test's own database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import sql

from services.billing.rebuild import make_tables
from services.billing.store import ROLE, PostgresLedger
from services.bus.database import connect
from services.contract.entries import Position
from tests.support.ledger_suite import Contents, Reading
from tests.support.log_builder import LogBuilder


def as_billing(url: str) -> Callable[[], psycopg.Connection]:
    """Say how billing connects."""
    return lambda: connect(url, role=ROLE, application_name="gavel billing test")


@contextmanager
def ledger_of(url: str) -> Iterator[PostgresLedger]:
    """Open the ledger that the migrations made."""
    with closing(PostgresLedger(as_billing(url))) as ledger:
        yield ledger


def bill(url: str, log: LogBuilder) -> None:
    """Fold the whole log into the database, in one batch, from wherever it is."""
    with ledger_of(url) as ledger:
        Reading(ledger, log).read()


class PostgresWorld:
    """Ledgers in PostgreSQL, each in a schema of its own that is made like the migration's."""

    def __init__(self, url: str, owner: psycopg.Connection) -> None:
        """Use `owner` for what billing may not do."""
        self.url, self.owner = url, owner
        self.schema = ""
        self.opened: list[PostgresLedger] = []

    def fresh(self, kind: type[PostgresLedger] = PostgresLedger) -> PostgresLedger:
        """Make an empty ledger."""
        (made,) = self.owner.execute(
            "select count(*) from pg_namespace where nspname ~ '^ledger_'"
        ).fetchone() or (0,)
        self.schema = f"ledger_{made}"
        name = sql.Identifier(self.schema)
        self.owner.execute(sql.SQL("create schema {} authorization {}").format(name, sql.Identifier(ROLE)))
        with as_billing(self.url)() as connection:
            make_tables(connection, self.schema)
        return self.another(kind)

    def another(self, kind: type[PostgresLedger] = PostgresLedger) -> PostgresLedger:
        """Open it once more, by another connection."""
        self.opened.append(kind(as_billing(self.url), schema=self.schema))
        return self.opened[-1]

    def close(self) -> None:
        """Close all connections."""
        for ledger in self.opened:
            ledger.close()

    def contents(self) -> Contents:
        """Read all of it."""
        return contents_of(self.owner, self.schema)


def contents_of(owner: psycopg.Connection, schema: str = "billing") -> Contents:
    """Read all that a ledger holds."""

    def rows(statement: str, times: Sequence[str] = ()) -> tuple[Any, ...]:
        for time in times:
            statement = statement.replace("{ms}", f"(extract(epoch from {time}) * 1000)::bigint", 1)
        return tuple(owner.execute(statement.replace("{}", schema).encode()).fetchall())

    positions = rows("select partition, next_offset, seq, hash from {}.positions where seq > 0")
    return Contents(
        leads=rows(
            "select lead_id::text, lead_type, plan, source_id, is_test, {ms}, outcome, {ms}, partition "
            "from {}.leads order by lead_id",
            ("listed_at", "closed_at"),
        ),
        sales=rows(
            "select sale_id::text, lead_id::text, sale_number, sales_max, mode, price_cents, currency, buyer_id, "
            "order_id, source_id, lead_type, plan, stage, {ms}, {ms}, is_test, partition, seq, credited_cents, {ms} "
            "from {}.sales order by sale_id",
            ("sold_at", "exclusive_until", "delivery_failed_at"),
        ),
        transfers=rows(
            "select transfer_id::text, kind, debit_account, credit_account, amount_cents, currency, sale_id::text, "
            "{ms}, partition, seq from {}.transfers order by transfer_id",
            ("posted_at",),
        ),
        totals=rows('select * from {}.account_totals order by account collate "C", currency, partition'),
        positions={
            at: Position(offset=offset, seq=seq, hash=digest) for at, offset, seq, digest in positions
        },
    )
