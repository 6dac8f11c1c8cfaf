"""`gavel billing`: what buyers owe, what was sold, and the proof that the ledger is what the log says.

It speaks to people (results on stdout, everything else on stderr) and wires readers and rebuild; it holds no rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, LiteralString

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from services.billing.kafka_log import KafkaLog
from services.billing.rebuild import REBUILT, Rebuild, RebuildRunning, Verdict, drop_tables, only_one
from services.billing.store import ROLE
from services.bus.database import connect
from services.bus.kafka import Connection, read_properties
from services.bus.ports import BusFailed, Stopped
from services.bus.settings import user_file
from services.contract.access import insider
from services.contract.codec import NotReadable, codec
from services.contract.times import decimal_amount
from services.contract.topics import Topics

FINANCE_READER = "gavel_finance_reader"
REBUILD_TRANSACTION_MS = 3_600_000
"""A comparison of years of sales takes minutes; nothing waits for it."""

FAILED = 1
MISUSED = 2

app = typer.Typer(help="Money: balances, sales, and the ledger's proof.", no_args_is_help=True)

DatabaseUrl = Annotated[
    str | None, typer.Option("--database", envvar="GAVEL_DATABASE", help="URL of the PostgreSQL database.")
]
Brokers = Annotated[
    str | None, typer.Option("--kafka", envvar="GAVEL_KAFKA", help="Kafka brokers to begin with.")
]
KafkaConfig = Annotated[
    Path | None,
    typer.Option("--kafka-config", envvar="GAVEL_KAFKA_CONFIG", help="A file of librdkafka properties."),
]
Namespace = Annotated[
    str, typer.Option("--namespace", envvar="GAVEL_NAMESPACE", help="What stands before every topic.")
]
Buyer = Annotated[str | None, typer.Option("--buyer", help="Of this buyer only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def balance(buyer: Buyer = None, as_json: AsJson = False, database: DatabaseUrl = None) -> None:
    """List the ledger's accounts; above nothing is what a buyer owes."""
    rows = _read(
        database,
        "select account, currency, debits, credits, balance from finance.balances "
        "where %(buyer)s::text is null or account = 'buyer:' || %(buyer)s order by account, currency",
        {"buyer": buyer},
    )
    _show(rows, ("account", "currency", "debits", "credits", "balance"), as_json=as_json)


@app.command()
def sales(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 20,
    buyer: Buyer = None,
    as_json: AsJson = False,
    database: DatabaseUrl = None,
) -> None:
    """List the latest sales, the newest first, in the market's time."""
    rows = _read(
        database,
        "select sold_at_local, buyer, lead_type, plan, mode, sale_number, sales_max, price, credited, currency, "
        "lead_id, sale_id from finance.sales where %(buyer)s::text is null or buyer = %(buyer)s "
        "order by sold_at desc, lead_id, sale_number desc limit %(limit)s",
        {"buyer": buyer, "limit": limit},
    )
    shown = (
        "sold_at_local",
        "buyer",
        "plan",
        "mode",
        "sale_number",
        "sales_max",
        "price",
        "credited",
        "lead_id",
    )
    _show(rows, shown, as_json=as_json)


@app.command()
def rebuild(
    verify: Annotated[bool, typer.Option("--verify", help="Compare it with the ledger, row by row.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help=f"Leave the rebuilt tables in the schema {REBUILT}.")
    ] = False,
    as_json: AsJson = False,
    database: DatabaseUrl = None,
    kafka: Brokers = None,
    kafka_config: KafkaConfig = None,
    namespace: Namespace = "",
) -> None:
    """Make the ledger again from the log's first entry, beside the one that bills, while that goes on.

    Exit code 1 if the two differ. Without --verify the rebuilt tables are kept, to be looked at.
    """
    url = _given(database, "GAVEL_DATABASE", "the database's URL")
    brokers = _given(kafka, "GAVEL_KAFKA", "the brokers")
    with _told(), _billing(url) as connection, only_one(connection), _progress() as shown:
        topic = Topics(namespace).log
        properties = _properties(kafka_config, Topics(namespace))
        log = KafkaLog(Connection(bootstrap=brokers, properties=properties), topic)
        rebuilt = Rebuild(connection, log, codec(), topic=topic)
        try:
            entries = rebuilt.make(shown)
            verdict = rebuilt.compare(shown) if verify else None
        finally:
            if verify and not keep:
                drop_tables(connection, REBUILT)
    if verdict is None:
        typer.echo(
            json.dumps({"entries": entries}) if as_json else f"{entries} entries, rebuilt in {REBUILT}"
        )
        return
    typer.echo(_verdict_json(verdict) if as_json else _verdict_text(verdict))
    if not verdict.identical:
        raise typer.Exit(FAILED)


def _read(database: str | None, query: LiteralString, given: dict[str, Any]) -> list[dict[str, Any]]:
    url = _given(database, "GAVEL_DATABASE", "the database's URL")
    with (
        _told(),
        connect(url, role=FINANCE_READER, application_name="gavel billing") as connection,
        connection.cursor(row_factory=psycopg.rows.dict_row) as cursor,
    ):
        return cursor.execute(query, given).fetchall()


@contextmanager
def _billing(url: str) -> Iterator[psycopg.Connection]:
    with connect(
        url,
        role=ROLE,
        application_name="gavel billing rebuild",
        transaction_timeout_ms=REBUILD_TRANSACTION_MS,
        idle_in_transaction_timeout_ms=REBUILD_TRANSACTION_MS,
    ) as connection:
        yield connection


@contextmanager
def _told() -> Iterator[None]:
    """Tell on stderr what went wrong, and exit."""
    try:
        yield
    except (RebuildRunning, Stopped, BusFailed, NotReadable) as error:
        raise _failure(str(error)) from error
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidSchemaName,
        psycopg.errors.UndefinedObject,
    ) as error:
        raise _failure("the database: its migrations have not run yet") from error
    except psycopg.Error as error:
        raise _failure(f"the database: {str(error).strip()}") from error


def _failure(text: str) -> typer.Exit:
    typer.echo(text, err=True)
    return typer.Exit(FAILED)


def _given(value: str | None, variable: str, what: str) -> str:
    if not value:
        option = variable.removeprefix("GAVEL_").lower()
        typer.echo(f"{variable} is not set: give {what} in it or with --{option}", err=True)
        raise typer.Exit(MISUSED)
    return value


def _properties(file: Path | None, topics: Topics) -> tuple[tuple[str, str], ...]:
    if file is None:
        return ()
    if file.is_dir():
        file = user_file(file, insider(topics, "billing"))
    try:
        return read_properties(file.read_text())
    except (OSError, ValueError) as error:
        typer.echo(f"GAVEL_KAFKA_CONFIG={file}: {error}", err=True)
        raise typer.Exit(MISUSED) from error


@contextmanager
def _progress() -> Iterator[Any]:
    """Show on stderr how far it is, where a person watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("entries", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, default=str, indent=2))
        return
    table = Table(*(column.replace("_", " ") for column in columns), box=None)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    Console(width=None if Console().is_terminal else 200).print(table)


def _verdict_json(verdict: Verdict) -> str:
    return json.dumps({"identical": verdict.identical, **asdict(verdict)}, indent=2)


def _verdict_text(verdict: Verdict) -> str:
    lines = [
        f"{table.table:<15}{table.rows:>12} rows, {table.only_in_ledger} only in the ledger, "
        f"{table.only_in_rebuilt} only in the rebuilt one"
        for table in verdict.tables
    ]
    lines += [
        f"  only in {difference.only_in}: {json.dumps(difference.row)}"
        for table in verdict.tables
        for difference in table.differences
    ]
    lines += [
        f"{total.currency}: debits {decimal_amount(total.debits_cents)}, "
        f"credits {decimal_amount(total.credits_cents)}; "
        f"rebuilt {decimal_amount(total.rebuilt_debits_cents)}, {decimal_amount(total.rebuilt_credits_cents)}"
        for total in verdict.totals
    ]
    lines += [f"contradiction in the ledger: {text}" for text in verdict.discrepancies]
    outcome = "identical, row by row and to the cent" if verdict.identical else "DIFFERENT from the log"
    return "\n".join([*lines, f"the ledger is {outcome}, after {verdict.entries} entries"])
