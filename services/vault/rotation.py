"""Wraps every data key again under the master key that seals, beside steps at work.

A batch is one statement, which leaves alone what was erased or wrapped again since it was read: so to stop anywhere is
safe, and so is to begin again. What the data keys seal is neither read nor changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import Connection, sql

from services.vault.sealing import Vault, Wrapped

TABLES = ("leads", "consents")
_FIRST = "00000000-0000-0000-0000-000000000000"
_COUNTS = "select key_id, count(*) from vault.{table} group by key_id order by key_id"
_READ = """
select lead_id::text, key_id, wrapped_key from vault.{table} where lead_id > %s::uuid order by lead_id limit %s
"""
_WRITE = """
update vault.{table} as row set key_id = %s, wrapped_key = again.wrapped_key
from unnest(%s::uuid[], %s::text[], %s::bytea[]) as again (lead_id, before, wrapped_key)
where row.lead_id = again.lead_id and row.key_id = again.before
"""


class Progress(NamedTuple):
    """One batch: rows walked, and how many of these were wrapped again."""

    table: str
    walked: int
    rewrapped: int


class _Row(NamedTuple):
    lead_id: str
    wrapped: Wrapped


def rewrap_all(connection: Connection[Any], vault: Vault, *, batch: int) -> Iterator[Progress]:
    """Walk both tables once, as `gavel_vault` with autocommit; tell each batch. Raise `VaultError` for a missing key.

    A missing key stops it before anything of its batch is written.
    """
    for table in TABLES:
        last = _FIRST
        while rows := _read(connection, table, last, batch):
            last = rows[-1].lead_id
            yield Progress(table, len(rows), _write(connection, table, rows, vault))


def rows_by_key(connection: Connection[Any]) -> Mapping[str, Mapping[str, int]]:
    """Count the rows of each table under each master key."""
    return {table: dict(connection.execute(_of(_COUNTS, table)).fetchall()) for table in TABLES}


def _read(connection: Connection[Any], table: str, after: str, limit: int) -> list[_Row]:
    rows = connection.execute(_of(_READ, table), [after, limit]).fetchall()
    return [_Row(lead_id, Wrapped(key_id, wrapped_key)) for lead_id, key_id, wrapped_key in rows]


def _write(connection: Connection[Any], table: str, rows: Sequence[_Row], vault: Vault) -> int:
    old = [row for row in rows if row.wrapped.key_id != vault.key_id]
    if not old:
        return 0
    again = [vault.rewrap(row.lead_id, row.wrapped).wrapped_key for row in old]
    before = [row.wrapped.key_id for row in old]
    values = [vault.key_id, [row.lead_id for row in old], before, again]
    return connection.execute(_of(_WRITE, table), values).rowcount


def _of(statement: str, table: str) -> sql.Composed:
    return sql.SQL(statement).format(table=sql.Identifier(table))
