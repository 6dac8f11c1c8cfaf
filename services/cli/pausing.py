"""Pauses and resumes a source, a buyer or an order: the market in force with one flag changed, as its next version.

Every step reads a pause where it reads the rest of the market, so nothing here reaches into a worker. The files that
the market was applied from do not know of it, which whoever pauses is told.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Annotated

import typer

from services.bus.database import connect
from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.markets import buyer_of, current_market, order_of, source_of
from services.cli.printing import remark, say, say_json
from services.cli.surroundings import settings
from services.contract.market import Market
from services.market import store
from services.market.difference import Change, difference
from services.market.documents import MarketFile
from services.market.writing import market_text

ATTEMPTS_MAX = 5

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id in the market; of an order, BUYER/NAME.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference and change nothing.")]
Note = Annotated[str, typer.Option("--note", help="Why, for `gavel market history`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


class Subject(StrEnum):
    """What can be paused."""

    SOURCE = "source"
    BUYER = "buyer"
    ORDER = "order"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pausing:
    """What was changed, or, in a dry run, would be; with no `changes` it was so already."""

    subject: Subject
    id: str
    paused: bool
    base_version: int
    version: int
    changes: tuple[Change, ...]
    dry_run: bool


_EXAMPLES = {Subject.SOURCE: "sunform", Subject.BUYER: "gridwatt", Subject.ORDER: "gridwatt/solar-shared"}
_WITH_ARTICLE = {Subject.SOURCE: "a source", Subject.BUYER: "a buyer", Subject.ORDER: "an order"}
_PAUSED = {
    Subject.SOURCE: "Take no more leads from a source: what it sends is declined, as `source_paused`.",
    Subject.BUYER: "Sell nothing more to a buyer, by any of its orders; what it holds stays its own.",
    Subject.ORDER: "Sell nothing more by an order; the buyer's other orders go on.",
}


def add_pausing(app: typer.Typer, subject: Subject) -> None:
    """Give a group of commands its `pause` and `resume`."""

    @app.command(
        "pause", help=_PAUSED[subject], epilog=f"Example: gavel {subject} pause {_EXAMPLES[subject]}"
    )
    def pause(id: Id, dry_run: DryRun = False, note: Note = "", as_json: AsJson = False) -> None:
        change(subject, id, paused=True, dry_run=dry_run, note=note, as_json=as_json)

    @app.command(
        "resume",
        help=f"Let {_WITH_ARTICLE[subject]} go on that was paused.",
        epilog=f"Example: gavel {subject} resume {_EXAMPLES[subject]}",
    )
    def resume(id: Id, dry_run: DryRun = False, note: Note = "", as_json: AsJson = False) -> None:
        change(subject, id, paused=False, dry_run=dry_run, note=note, as_json=as_json)


def change(subject: Subject, id: str, *, paused: bool, dry_run: bool, note: str, as_json: bool) -> None:
    """Pause or resume, let everything follow that follows an apply, and tell what was done."""
    from services.cli.market_commands import follow_apply

    found = settings()
    market, pausing = _changed(found, subject, id, paused=paused, dry_run=dry_run, note=note)
    if not dry_run:
        # Also where nothing changed: an announcement that was cut off is made up for by asking again.
        follow_apply(market, found)
    if as_json:
        say_json(asdict(pausing))
        return
    for line in lines_of(pausing):
        say(line)
    for line in hints(market, pausing):
        remark(line)


def with_paused(market: Market, subject: Subject, id: str, *, paused: bool) -> Market:
    """Give the market with one flag set; raise `Complaint` where it has no such source, buyer or order."""
    match subject:
        case Subject.SOURCE:
            source = source_of(market, id)
            return replace(market, sources={**market.sources, id: replace(source, paused=paused)})
        case Subject.BUYER:
            buyer = buyer_of(market, id)
            return replace(market, buyers={**market.buyers, id: replace(buyer, paused=paused)})
        case Subject.ORDER:
            order = order_of(market, id)
            buyer = market.buyers[order.buyer_id]
            orders = tuple(
                replace(each, paused=paused) if each.id == order.id else each for each in buyer.orders
            )
            return replace(market, buyers={**market.buyers, buyer.id: replace(buyer, orders=orders)})


def lines_of(pausing: Pausing) -> Iterable[str]:
    """Tell people what was changed."""
    if not pausing.changes:
        yield f"no change: {pausing.subject} {pausing.id} is {_state(pausing.paused)} in version {pausing.version}"
        return
    yield from map(str, pausing.changes)
    done = "would be applied" if pausing.dry_run else "is in force"
    yield f"version {pausing.version} {done}, made from version {pausing.base_version}"


def hints(market: Market, pausing: Pausing) -> Iterable[str]:
    """Tell what whoever pauses should know besides."""
    says = "does not say `paused: yes`" if pausing.paused else "still says `paused: yes`"
    undone = "resumes" if pausing.paused else "pauses"
    yield f"note: to apply a market file that {says} for {pausing.subject} {pausing.id} {undone} it."
    if pausing.subject is Subject.ORDER and not pausing.paused:
        buyer_id = pausing.id.partition("/")[0]
        if market.buyers[buyer_id].paused:
            yield f"note: buyer {buyer_id} is paused, and all of its orders with it."


def _changed(
    found: StepSettings, subject: Subject, id: str, *, paused: bool, dry_run: bool, note: str
) -> tuple[Market, Pausing]:
    """Change what is in force; whoever applied in the meantime keeps what they applied."""
    with connect(found.database, role=store.ROLE, application_name="gavel pause") as connection:
        for _ in range(ATTEMPTS_MAX):
            old = current_market(connection)
            new = with_paused(old, subject, id, paused=paused)
            changes = difference(old, new)
            version = old.version + bool(changes)
            if changes and not dry_run:
                try:
                    version = store.apply(
                        connection,
                        new,
                        old.version,
                        files=[_file(subject, id, new, paused=paused)],
                        applied_by=_user(),
                        note=note or f"{subject} {id} {_state(paused)}",
                    )
                except store.StaleBase:
                    continue
            pausing = Pausing(
                subject=subject,
                id=id,
                paused=paused,
                base_version=old.version,
                version=version,
                changes=changes,
                dry_run=dry_run,
            )
            return replace(new, version=version), pausing
    raise Complaint(
        f"Others applied a market {ATTEMPTS_MAX} times while {subject} {id} was to be {_state(paused)}.",
        "Ask again; `gavel market history` says who applies.",
    )


def _file(subject: Subject, id: str, market: Market, *, paused: bool) -> MarketFile:
    """Keep what the version says as the one file that would apply it."""
    return MarketFile(f"gavel {subject} {'pause' if paused else 'resume'} {id}", market_text(market))


def _state(paused: bool) -> str:
    return "paused" if paused else "not paused"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return "unknown"
