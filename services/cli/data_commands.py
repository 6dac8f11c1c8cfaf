"""`gavel data`: what lies in the database, and moving what is long over out of the way.

It decides nothing about a lead: which may go, and how they go, the steps say that own the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, TypeVar

import psycopg
import typer
from psycopg import errors, sql

from services.bus.database import connect
from services.cli.complaints import INTERRUPTED, MISUSED, Complaint
from services.cli.printing import onlookers, remark, say, say_json
from services.cli.surroundings import settings
from services.contract.market import Returns
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from services.intake.archive import archive_received
from services.market.store import Markets, load
from services.router.archive import Limits, Moved, PostgresArchive, archive_closed
from services.router.lead import Lead

_Step = TypeVar("_Step", bound=tuple[int, int, Moved | int])

app = typer.Typer(help="What lies in the database.", no_args_is_help=True)

_UNITS_MS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_HOT_TABLES = (
    *(("router", "leads"), ("router", "closes"), ("router", "sales")),
    ("intake", "leads"),
)
_WORTH_IT = 0.1
"""Indexes are made again once this part of a table's rows has gone: its pages stay, however few rows point there."""


@dataclass(slots=True, kw_only=True)
class Archived:
    """What went so far; leads of the router that were old enough, and stayed, are `kept`."""

    dry_run: bool
    router_leads: int = 0
    kept: int = 0
    intake_leads: int = 0
    reindexed: bool = False


@app.callback()
def group() -> None:
    """Keep `archive` a command of a group, as there will be others."""


@app.command(
    epilog="Examples: gavel data archive --dry-run, gavel data archive --older-than 90d. "
    "Safe beside running steps, to interrupt, and to repeat."
)
def archive(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            help="Only leads that were closed so long ago, as in 12h or 30d, and whose last window is over.",
        ),
    ] = "30d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go, and move nothing.")
    ] = False,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=100_000, help="Leads moved in one transaction, at most.")
    ] = 5_000,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Move closed leads past their last window to the archive: the tables that are written to stay small and fast.

    Nothing is lost or changed by it: archived leads are found as before, and come back when a command changes them.
    """
    older_than_ms = duration_ms(older_than)
    url = settings().database
    done = Archived(dry_run=dry_run)
    try:
        _archive_router(url, Limits(older_than_ms=older_than_ms, batch=batch, dry_run=dry_run), done)
        _archive_intake(url, older_than_ms, batch, done)
        if not dry_run:
            done.reindexed = _reindex(url, done)
    except KeyboardInterrupt:
        remark(f"Interrupted: {done.router_leads} closed leads moved. Run it again, and it goes on.")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        say_json(asdict(done))
        return
    verb = "would go" if dry_run else "moved"
    say(
        f"Router: {done.router_leads} closed leads {verb}; {done.kept} as old stay, as a window of theirs is not over."
    )
    say(f"Intake: {done.intake_leads} leads {verb}.")
    if done.reindexed:
        say("Indexes made again, as much has gone.")


def duration_ms(text: str) -> int:
    """Read a duration as in 90s, 12h or 30d; raise `Complaint`."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS_MS or not number.isascii() or not number.isdigit():
        raise Complaint(
            f"--older-than {text!r}: expected a duration.", "As in 12h or 30d.", exit_code=MISUSED
        )
    return int(number) * _UNITS_MS[unit]


def _archive_router(url: str, limits: Limits, done: Archived) -> None:
    open_connection = partial(connect, url, role="gavel_router", application_name="gavel data archive")
    tables = PostgresArchive(open_connection)
    with open_connection() as connection:
        markets = Markets(partial(load, connection))

        def returns_of(lead: Lead) -> Returns | None:
            return markets.get(lead.market_version).lead_types[lead.lead_type].returns

        try:
            steps = archive_closed(tables, returns_of, limits)
            for _, _, moved in _shown("Closed leads", steps):
                done.router_leads += moved.archived
                done.kept += moved.looked_at - moved.archived
        finally:
            tables.close()


def _archive_intake(url: str, older_than_ms: int, batch: int, done: Archived) -> None:
    open_connection = partial(connect, url, role="gavel_intake", application_name="gavel data archive")
    steps = archive_received(open_connection, older_than_ms=older_than_ms, batch=batch, dry_run=done.dry_run)
    for _, _, moved in _shown("Accepted leads", steps):
        done.intake_leads += moved


def _shown(what: str, steps: Iterable[_Step]) -> Iterator[_Step]:
    """Show how many pages are done, to those who watch; steps begin with pages done and pages in all."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TextColumn("pages"))
    with Progress(*columns, TimeElapsedColumn(), console=onlookers(), transient=True) as progress:
        task = progress.add_task(what, total=None)
        for step in steps:
            progress.update(task, completed=step[0], total=step[1])
            yield step


def _reindex(url: str, done: Archived) -> bool:
    """Make the indexes of tables that much has gone from again, beside whoever writes to them."""
    gone = {"router": done.router_leads, "intake": done.intake_leads}
    with psycopg.connect(url, autocommit=True, application_name="gavel data archive") as connection:
        worth_it = [
            sql.Identifier(schema, table)
            for schema, table in _HOT_TABLES
            if gone[schema] > _WORTH_IT * _rows(connection, f"{schema}.{table}")
        ]
        for table in worth_it:
            _drop_remains(connection, table)
            connection.execute(sql.SQL("vacuum {}").format(table))
            connection.execute(sql.SQL("reindex table concurrently {}").format(table))
    return bool(worth_it)


def _rows(connection: psycopg.Connection, table: str) -> int:
    """Read how many rows the table had when it was last looked at."""
    row = connection.execute(
        "select reltuples::bigint from pg_class where oid = %s::regclass", [table]
    ).fetchone()
    return max(0, int(row[0])) if row else 0


def _drop_remains(connection: psycopg.Connection, table: sql.Identifier) -> None:
    """Drop the unfinished indexes that an interrupted run left: they cost each write, and serve nobody."""
    rows = connection.execute(
        "select indexrelid::regclass::text from pg_index where indrelid = %s::regclass and not indisvalid "
        r"and indexrelid::regclass::text ~ '_ccnew\d*$'",
        [table.as_string(connection)],
    ).fetchall()
    for (name,) in rows:
        try:
            connection.execute(f"drop index concurrently {name}".encode())
        except errors.InsufficientPrivilege:
            remark(f"warning: an interrupted run left an index. As the owner: drop index concurrently {name}")
