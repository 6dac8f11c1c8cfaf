"""`gavel market`: check files, apply them, show what is in force and what was.

It speaks to people (results on stdout, everything else on stderr) and wires reading, review, difference and store; it
holds no rule. What else must follow an apply (topics for new sources and buyers, the announcement) is for whoever
registers it in `after_apply`.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import psycopg
import typer

from services.bus.database import connect
from services.contract.market import Market
from services.market import store
from services.market.difference import Change, difference
from services.market.documents import MarketFile
from services.market.errors import MarketRefused, MarketWarning
from services.market.reading import open_files
from services.market.review import Reviewed, review
from services.market.writing import market_text, plain

Announce: TypeAlias = Callable[[Market], None]

REFUSED = 1
MISUSED = 2

after_apply: list[Announce] = []
"""What follows an apply, in this order; each must be safe to repeat, because an apply that was cut off is repeated."""

app = typer.Typer(
    help="What is sold, how, and to whom: check, apply and show the market.", no_args_is_help=True
)

Files = Annotated[
    list[Path], typer.Argument(help="The files that together are the whole market.", metavar="FILE")
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database", envvar="GAVEL_DATABASE", help="URL of the PostgreSQL database.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an apply did, or, in a dry run, would do. `market` has the version that is in force then."""

    market: Market
    base_version: int
    changes: tuple[Change, ...]
    warnings: tuple[MarketWarning, ...]
    dry_run: bool


class NotAnnounced(Exception):
    """The version is applied, and not everybody was told; applying the same files again tells them."""

    def __init__(self, version: int, cause: Exception) -> None:
        super().__init__(
            f"version {version} is in force, but what follows failed ({cause}): apply it once more"
        )


def apply_files(
    database_url: str,
    files: Sequence[MarketFile],
    *,
    dry_run: bool,
    base_version: int | None,
    announce: Announce,
    applied_by: str = "",
    note: str = "",
) -> Applied:
    """Make the files the market in force, then announce it, also when it was in force already.

    `base_version` is the version that the files were made from; None is the one in force now. Raises
    MarketRefused, store.StaleBase, psycopg.Error, NotAnnounced.
    """
    reviewed = review(files)
    with connect(database_url, role=store.ROLE, application_name="gavel market") as connection:
        old = store.load_current(connection)
        reviewed = reviewed.after(old)
        current = old.version if old else 0
        base = current if base_version is None else base_version
        changes = difference(old, reviewed.market)
        if dry_run:
            version = _would_be(old, reviewed.market, base)
        else:
            version = store.apply(
                connection, reviewed.market, base, files=files, applied_by=applied_by or _user(), note=note
            )
    market = replace(reviewed.market, version=version)
    if not dry_run:
        _announced(announce, market)
    return Applied(
        market=market, base_version=base, changes=changes, warnings=reviewed.warnings, dry_run=dry_run
    )


def _announced(announce: Announce, market: Market) -> None:
    try:
        announce(market)
    except Exception as error:
        raise NotAnnounced(market.version, error) from error


def _would_be(old: Market | None, new: Market, base: int) -> int:
    current = old.version if old else 0
    if old is not None and store.canonical_json(old) == store.canonical_json(new):
        return current
    if base != current:
        raise store.StaleBase(base, current)
    return current + 1


@app.command("apply")
def apply_command(
    files: Files,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference and apply nothing.")
    ] = False,
    base: Annotated[
        int | None,
        typer.Option(
            "--base", min=0, help="The version that the files were made from; refused if it has passed."
        ),
    ] = None,
    as_json: AsJson = False,
    note: Annotated[str, typer.Option("--note", help="Why, for the history.")] = "",
    database: DatabaseUrl = None,
) -> None:
    """Make these files the whole market, from the next lead on; what they leave out is retired."""
    url = _database_url(database)
    with _told(as_json=as_json):
        applied = apply_files(
            url, open_files(files), dry_run=dry_run, base_version=base, announce=_announce, note=note
        )
    _warn(applied.warnings)
    typer.echo(_applied_json(applied) if as_json else _applied_text(applied))


@app.command()
def check(files: Files, as_json: AsJson = False) -> None:
    """Say what is wrong with these files; needs no database."""
    with _told(as_json=as_json):
        reviewed = review(open_files(files))
    _warn(reviewed.warnings)
    typer.echo(_json({"warnings": reviewed.warnings, "errors": ()}) if as_json else _summary(reviewed))


@app.command()
def show(
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Which; by default the one in force.")
    ] = None,
    as_json: AsJson = False,
    database: DatabaseUrl = None,
) -> None:
    """Print a version of the market as one file, with every default said; it can be applied again."""
    url = _database_url(database)
    with _told(as_json=as_json), _connection(url) as connection:
        market = store.load(connection, version or store.current_version(connection))
    if as_json:
        typer.echo(_json({"version": market.version, **plain(market)}))
    else:
        typer.echo(f"# version {market.version}\n{market_text(market)}", nl=False)


@app.command()
def history(as_json: AsJson = False, database: DatabaseUrl = None) -> None:
    """List the versions of the market, the newest first."""
    url = _database_url(database)
    with _told(as_json=as_json), _connection(url) as connection:
        rows = store.history(connection)
    if as_json:
        typer.echo(_json({"versions": [asdict(row) for row in rows]}))
        return
    for row in rows:
        typer.echo(
            f"{row.version:>6}  {row.applied_at:%Y-%m-%d %H:%M:%S} UTC  {row.applied_by:<12}  {row.note}".rstrip()
        )


@contextmanager
def _connection(url: str) -> Iterator[psycopg.Connection]:
    with connect(url, role=store.ROLE, application_name="gavel market") as connection:
        yield connection


@contextmanager
def _told(*, as_json: bool) -> Iterator[None]:
    """Tell what went wrong, to people on stderr and to machines as JSON on stdout, and exit."""
    try:
        yield
    except MarketRefused as error:
        count = len(error.errors)
        lines = [*map(str, error.errors), f"{count} {'error' if count == 1 else 'errors'}, nothing applied"]
        raise _refusal(lines, error.errors if as_json else None) from error
    except (store.StaleBase, store.UnknownVersion, store.NewerMarket, NotAnnounced) as error:
        raise _refusal([str(error)], [str(error)] if as_json else None) from error
    except psycopg.Error as error:
        missing = isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName)
        text = "its migrations have not run yet" if missing else str(error).strip()
        raise _refusal([f"the database: {text}"], [text] if as_json else None) from error


def _refusal(lines: Sequence[str], errors: Sequence[object] | None) -> typer.Exit:
    for line in lines:
        _complain(line)
    if errors is not None:
        typer.echo(_json({"errors": errors}))
    return typer.Exit(REFUSED)


def _announce(market: Market) -> None:
    for follow in after_apply:
        follow(market)


def _database_url(given: str | None) -> str:
    if not given:
        _complain("GAVEL_DATABASE is not set: give the database's URL in it or with --database, as in")
        _complain("  export GAVEL_DATABASE=postgresql://gavel@127.0.0.1:5432/gavel")
        raise typer.Exit(MISUSED)
    return given


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return "unknown"


def _applied_text(applied: Applied) -> str:
    lines = [str(change) for change in applied.changes]
    version = applied.market.version
    if version == applied.base_version or not lines:
        return f"no change: version {version} is this market"
    last = f"version {version} would be applied" if applied.dry_run else f"version {version} is in force"
    return "\n".join([*lines, f"{last}, made from version {applied.base_version}"])


def _applied_json(applied: Applied) -> str:
    return _json(
        {
            "version": applied.market.version,
            "base_version": applied.base_version,
            "dry_run": applied.dry_run,
            "changes": applied.changes,
            "warnings": applied.warnings,
            "errors": (),
        }
    )


def _summary(reviewed: Reviewed) -> str:
    market = reviewed.market
    counts = {
        "lead type": len(market.lead_types),
        "source": len(market.sources),
        "buyer": len(market.buyers),
        "order": sum(len(buyer.orders) for buyer in market.buyers.values()),
    }
    return "a market of " + ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items())


def _json(value: object) -> str:
    return json.dumps(value, default=_plain_json, indent=2, ensure_ascii=False)


def _plain_json(value: object) -> object:
    # What these commands print holds dataclasses, of messages and changes, and times.
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _warn(warnings: Sequence[MarketWarning]) -> None:
    for warning in warnings:
        _complain(f"warning: {warning}")


def _complain(text: str) -> None:
    typer.echo(text, err=True)
