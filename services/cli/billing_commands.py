"""`gavel billing`, with deposits and adjustments: commands for the router, which a reference makes happen once.

The other commands are `services.billing.cli`'s. Nothing is booked here: the router grants it, the log tells it, and
billing folds that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import psycopg
import typer

from services.billing import cli
from services.bus.settings import StepSettings
from services.cli.accounts import Standing, standing_json, standing_of, standing_text
from services.cli.asking import DECIDED_WITHIN_S, Decided, WaitS, last_seq, place, require, wait_for
from services.cli.complaints import MISUSED, Complaint
from services.cli.lead_reading import read_about
from services.cli.markets import buyer_of, current_market
from services.cli.printing import say, say_json
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.events import CommandRefused, MoneyKind, MoneyMoved
from services.contract.ids import account_id_of
from services.contract.inputs import MoveMoney
from services.contract.market import Market
from services.contract.times import amount_in_cents, decimal_amount, iso_time

REFERENCE_MAX = 100
_REFERENCE = re.compile(r"[!-~](?:[ -~]{0,98}[!-~])?")

app = typer.Typer(help=cli.app.info.help, no_args_is_help=True)
app.registered_commands = list(cli.app.registered_commands)

Buyer = Annotated[str, typer.Argument(metavar="BUYER", help="The buyer's id in the market.")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In the market's currency, as in 250.00.")]
Reference = Annotated[
    str,
    typer.Option(
        "--reference",
        help="Your own name for it, such as a bank statement's: the same is booked once, however often.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A movement of money that the log tells, and what the account stands at now."""

    moved: MoneyMoved
    booked_at_ms: int
    is_repeat: bool
    standing: Standing


# So that an amount below nothing is an amount, and no option.
_AMOUNTS = {"ignore_unknown_options": True}


@app.command(
    epilog="Example: gavel billing deposit brightroof 500.00 --reference bank-2026-11-22-17",
    context_settings=_AMOUNTS,
)
def deposit(
    buyer: Buyer,
    amount: Amount,
    reference: Reference,
    wait_s: WaitS = DECIDED_WITHIN_S,
    as_json: AsJson = False,
) -> None:
    """Book what a buyer paid in: it may buy for so much more."""
    cents = _cents(amount)
    if cents < 0:
        raise Complaint(
            "A deposit is more than nothing.", "`gavel billing adjust` takes back.", exit_code=MISUSED
        )
    _tell(_move(buyer, MoneyKind.DEPOSIT, cents, reference, wait_s), as_json=as_json)


@app.command(
    epilog="Example: gavel billing adjust brightroof -20.00 --reference correction-4",
    context_settings=_AMOUNTS,
)
def adjust(
    buyer: Buyer,
    amount: Amount,
    reference: Reference,
    wait_s: WaitS = DECIDED_WITHIN_S,
    as_json: AsJson = False,
) -> None:
    """Correct a buyer's account: above nothing in its favour, below nothing against it."""
    _tell(_move(buyer, MoneyKind.ADJUSTMENT, _cents(amount), reference, wait_s), as_json=as_json)


def _cents(amount: str) -> int:
    try:
        cents = amount_in_cents(amount)
    except ValueError as error:
        raise Complaint(f"{amount!r} is no amount: {error}.", exit_code=MISUSED) from error
    if cents == 0:
        raise Complaint("An amount of nothing moves no money.", exit_code=MISUSED)
    return cents


def _move(buyer_id: str, kind: MoneyKind, cents: int, reference: str, wait_s: float) -> Booking:
    if not _REFERENCE.fullmatch(reference):
        raise Complaint(
            f"A reference has 1 to {REFERENCE_MAX} printable ASCII characters, and no space at its ends.",
            exit_code=MISUSED,
        )
    found = settings()
    with connect_as_auditor(found.database) as connection:
        market = current_market(connection)
        buyer_of(market, buyer_id)
        asked = MoveMoney(
            lead_id=account_id_of(buyer_id),
            buyer_id=buyer_id,
            kind=kind,
            reference=reference,
            amount_cents=cents,
            currency=market.currency,
        )
        if _is_booked(connection, asked):
            return _booked_before(found, connection, market, asked)
        from_seq = last_seq(connection, asked.lead_id)
        placed = place(found, asked)
        decided = require(wait_for(connection, placed, from_seq=from_seq, wait_s=wait_s), wait_s)
        moved = _moved(decided)
        if moved is None or decided.entry is None:
            # Somebody else has booked the same reference since it was looked for.
            return _booked_before(found, connection, market, asked)
        return Booking(
            moved=moved,
            booked_at_ms=decided.entry.decided_at_ms,
            is_repeat=False,
            standing=standing_of(connection, market, buyer_of(market, buyer_id)),
        )


def _moved(decided: Decided) -> MoneyMoved | None:
    """Find the movement among what was decided; raise `Complaint` where it was refused."""
    for event in decided.events:
        if isinstance(event, CommandRefused):
            raise Complaint(f"The router refused it (reason: {str(event.reason).replace('_', ' ')}).")
        if isinstance(event, MoneyMoved):
            return event
    return None


def _is_booked(connection: psycopg.Connection, asked: MoveMoney) -> bool:
    row = connection.execute(
        "select from router.money where account_id = %s and reference = %s", [asked.lead_id, asked.reference]
    ).fetchone()
    return row is not None


def _booked_before(
    found: StepSettings, connection: psycopg.Connection, market: Market, asked: MoveMoney
) -> Booking:
    """Find what a reference has moved already; raise `Complaint` where that is not what is asked for now."""
    entries = read_about(found, asked.lead_id).entries
    booked = _with_reference(
        [(entry.decided_at_ms, event) for entry, events in entries for event in events], asked.reference
    )
    if booked is None:
        raise Complaint(
            f"Reference {asked.reference!r} of {asked.buyer_id} is booked already, and the log does not tell how.",
            "`gavel log verify` says whether the log is whole.",
        )
    at_ms, moved = booked
    if (moved.kind, moved.amount_cents, moved.currency) != (asked.kind, asked.amount_cents, asked.currency):
        raise Complaint(
            f"Reference {asked.reference!r} of {asked.buyer_id} is booked already, as another {moved.kind}: "
            f"{decimal_amount(moved.amount_cents)} {moved.currency} at {iso_time(at_ms)}. Nothing was booked now.",
            "Each movement of money has a reference of its own.",
        )
    return Booking(
        moved=moved,
        booked_at_ms=at_ms,
        is_repeat=True,
        standing=standing_of(connection, market, buyer_of(market, asked.buyer_id)),
    )


def _with_reference(told: Sequence[tuple[int, object]], reference: str) -> tuple[int, MoneyMoved] | None:
    return next(
        (
            (at_ms, event)
            for at_ms, event in told
            if isinstance(event, MoneyMoved) and event.reference == reference
        ),
        None,
    )


def _tell(booking: Booking, *, as_json: bool) -> None:
    moved = booking.moved
    if as_json:
        say_json(
            {
                "buyer": moved.buyer_id,
                "kind": moved.kind,
                "amount": decimal_amount(moved.amount_cents),
                "currency": moved.currency,
                "reference": moved.reference,
                "booked_at": iso_time(booking.booked_at_ms),
                "booked_before": booking.is_repeat,
                "account": standing_json(booking.standing),
            }
        )
        return
    amount = f"{decimal_amount(moved.amount_cents)} {moved.currency}"
    if booking.is_repeat:
        say(
            f"Booked before, at {iso_time(booking.booked_at_ms)}, and not again: {moved.kind} of {amount} "
            f"under reference {moved.reference}."
        )
    else:
        say(f"Booked: {moved.kind} of {amount} for {moved.buyer_id}, under reference {moved.reference}.")
    say(f"Its account: {standing_text(booking.standing)}.")
