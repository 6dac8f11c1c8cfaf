"""Guarantee 6 in the tables and in files of worker logs: searches them as text, by the same traces as the topics.

What was found is never shown: a row is told by where it lies, a line of a file by its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import psycopg
from psycopg import sql

from services.audit.secrecy import GUARANTEE, SecrecyRule
from services.audit.traces import SQL_PATTERN, Traces
from services.audit.violations import Report, Violation, Where

NEEDLES_MAX: Final = 64
ROWS_AT_ONCE: Final = 500
LINE_MAX: Final = 1_048_576

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
    needles = tuple(traces.few(NEEDLES_MAX))
    number = 0
    while line := file.readline(LINE_MAX):
        number += 1
        if traces.are_in(line) or any(needle in line for needle in needles):
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
    """Let the database look first, and then here, since bytes may look so by chance."""
    by_operators = (table.schema, table.name) in _OF_OPERATORS
    needles = tuple(traces.canaries if by_operators else traces.few(NEEDLES_MAX))
    patterns = [] if by_operators else [SQL_PATTERN]
    patterns += [_quoted(needle) for needle in needles]
    if not patterns:
        return
    place = "'ctid ' || ctid::text" if table.is_open else "'a row'"
    query = sql.SQL(
        "select {place}, {columns} from {table} where concat_ws(' ', {texts}) ~ {pattern}"
    ).format(
        place=sql.SQL(place),
        columns=sql.SQL(", ").join(_value(column, is_bytes) for column, is_bytes in table.columns),
        table=sql.Identifier(table.schema, table.name),
        texts=sql.SQL(", ").join(_text(column, is_bytes) for column, is_bytes in table.columns),
        pattern=sql.Literal("|".join(patterns)),
    )
    with connection.cursor("audit_search") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        cursor.execute(query)
        for at, *values in cursor:
            if any(_holds(value, traces, needles, by_operators=by_operators) for value in values):
                yield at


def _holds(value: Any, traces: Traces, needles: Sequence[bytes], *, by_operators: bool) -> bool:
    if value is None:
        return False
    text = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
    if any(needle in text for needle in needles):
        return True
    return not by_operators and traces.are_in_record(text)


def _value(column: str, is_bytes: bool) -> sql.Composable:
    name = sql.Identifier(column)
    return name if is_bytes else sql.SQL("{}::text").format(name)


def _text(column: str, is_bytes: bool) -> sql.Composable:
    """Write bytes with their letters as they are, so that a text in them is found."""
    name = sql.Identifier(column)
    return sql.SQL("encode({}, 'escape')" if is_bytes else "{}::text").format(name)


def _quoted(needle: bytes) -> str:
    """Write a text as a pattern for itself; what is no ASCII letter or digit matches any one to four characters."""
    return "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else ".{1,4}" for byte in needle)
