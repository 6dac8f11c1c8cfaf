"""Real ledgers in a test's own database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

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
    return Contents(
        leads=_rows(owner, schema, "leads", "lead_id"),
        sales=_rows(owner, schema, "sales", "sale_id"),
        returns=_rows(owner, schema, "returns", "sale_id, seq"),
        transfers=_rows(owner, schema, "transfers", "transfer_id"),
        totals=_rows(owner, schema, "account_totals", 'account collate "C", currency, partition'),
        positions={
            row["partition"]: Position(offset=row["next_offset"], seq=row["seq"], hash=row["hash"])
            for row in _rows(owner, schema, "positions", "partition")
            if row["seq"]
        },
    )


def _rows(owner: psycopg.Connection, schema: str, table: str, order: str) -> tuple[dict[str, Any], ...]:
    with owner.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(f"select * from {schema}.{table} order by {order}".encode())
        return tuple(dict(_told(name, value) for name, value in row.items()) for row in found)


def _told(name: str, value: Any) -> tuple[str, Any]:
    """Say a value as the events do."""
    if name.endswith(("_at", "_until")):
        return f"{name}_ms", value and round(value.timestamp() * 1_000)
    return name, str(value) if isinstance(value, UUID) else value
