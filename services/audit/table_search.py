"""Guarantee 6 in the tables and in files of worker logs: searches them as text, by the same traces as the topics.

What was found is never shown: a row is told by where it lies, a line of a file by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import psycopg
from psycopg import sql

from services.audit.secrecy import GUARANTEE, SecrecyRule
from services.audit.traces import Traces
from services.audit.violations import Report, Violation, Where

ROWS_AT_ONCE: Final = 500
LINE_MAX: Final = 1_048_576
_HASH_SIZE: Final = 32

# All tables but the vault, and of the columns those that can hold a text.
_COLUMNS: Final = """
select n.nspname, c.relname, a.attname, a.atttypid = 'bytea'::regtype,
       has_column_privilege(c.oid, a.attnum, 'select') and has_schema_privilege(n.oid, 'usage'),
       has_table_privilege(c.oid, 'select')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
where c.relkind in ('r', 'm') and n.nspname not in ('information_schema', 'vault') and n.nspname !~ '^pg_'
  and (t.typcategory in ('S', 'A') or t.typname in ('json', 'jsonb', 'bytea', 'xml'))
order by 1, 2, a.attnum
"""

_OF_OPERATORS: Final = frozenset({("market", "versions"), ("gavel", "migrations")})
"""What operators write, and no lead's data comes to: addresses there are their own, and only given texts are sought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table, and those of its columns that can hold a text. `is_open`: all of it may be read, places included."""

    schema: str
    name: str
    columns: tuple[tuple[str, bool], ...]
    """Names, and whether it is of bytes."""
    is_open: bool


def search_tables(connection: psycopg.Connection, traces: Traces, report: Report) -> Sequence[str]:
    """Search every row of every table; return the columns that the auditor's role may not read."""
    closed: list[str] = []
    for table in _tables(connection, closed):
        for at in _rows_with(connection, table, traces):
            report(
                Violation(
                    guarantee=GUARANTEE,
                    rule=SecrecyRule.NO_DETAILS_IN_TABLES,
                    what="contact details in a row",
                    where=(Where(f"{table.schema}.{table.name}", at),),
                )
            )
    return closed


def search_logs(folder: Path, traces: Traces, report: Report) -> int:
    """Search every file below a folder, line by line; return how many files that was. Raise OSError."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as file:
            for number in _lines_with(file, traces):
                report(
                    Violation(
                        guarantee=GUARANTEE,
                        rule=SecrecyRule.NO_DETAILS_IN_LOGS,
                        what="contact details in a line",
                        where=(Where(str(path.relative_to(folder)), f"line {number}"),),
                    )
                )
    return len(files)


def _lines_with(file: BinaryIO, traces: Traces) -> Iterator[int]:
    holds = _holding(traces)
    number = 0
    while line := file.readline(LINE_MAX):
        number += 1
        if holds(line):
            yield number


def _tables(connection: psycopg.Connection, closed: list[str]) -> Iterator[Table]:
    columns: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    open_tables: set[tuple[str, str]] = set()
    for schema, name, column, is_bytes, may_read, is_open in connection.execute(_COLUMNS).fetchall():
        if is_open:
            open_tables.add((schema, name))
        if may_read:
            columns.setdefault((schema, name), []).append((column, is_bytes))
        else:
            closed.append(f"{schema}.{name}.{column}")
    for (schema, name), found in columns.items():
        yield Table(schema=schema, name=name, columns=tuple(found), is_open=(schema, name) in open_tables)


def _rows_with(connection: psycopg.Connection, table: Table, traces: Traces) -> Iterator[str]:
    """Read every row and look here: the database takes several times as long to look for some leads' details alone."""
    by_operators = (table.schema, table.name) in _OF_OPERATORS
    if by_operators and not traces.canaries:
        return
    holds = _holding_canaries(traces) if by_operators else _holding(traces)
    query = sql.SQL("select {place}, {columns} from {table}").format(
        place=sql.SQL("'ctid ' || ctid::text" if table.is_open else "'a row'"),
        columns=sql.SQL(", ").join(_value(column, is_bytes) for column, is_bytes in table.columns),
        table=sql.Identifier(table.schema, table.name),
    )
    with connection.cursor("audit_search", binary=True) as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query)
        for at, *values in cursor:
            if any(holds(_bytes(value)) for value in values if not _tells_nothing(value)):
                yield at


def _holding(traces: Traces) -> Callable[[bytes], bool]:
    """Make what tells whether a text holds anything that is looked for."""
    are_in_record, of_anybody = traces.are_in_record, traces.of_anybody()
    return lambda text: are_in_record(text) or of_anybody(text)


def _holding_canaries(traces: Traces) -> Callable[[bytes], bool]:
    return lambda text: any(canary in text for canary in traces.canaries)


def _tells_nothing(value: str | bytes | None) -> bool:
    """Tell what is no text: one hash in a million looks like an address by chance."""
    return value is None or (isinstance(value, bytes) and len(value) == _HASH_SIZE and not value.isascii())


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _value(column: str, is_bytes: bool) -> sql.Composable:
    name = sql.Identifier(column)
    return name if is_bytes else sql.SQL("{}::text").format(name)
