"""`gavel lead show --why` and `gavel lead replay`: a lead's decisions explained, and executed again.

They read the log, the router's input topics and the versions of the market, and print; the rest is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import typer

from services.bus.settings import StepSettings
from services.cli.complaints import WENT_WRONG, Complaint
from services.cli.lead_reading import LeadEntries, read_lead
from services.cli.printing import answers, say, say_json
from services.cli.replaying import InputTopics, Replayed, Verdict, counts, replay
from services.cli.story import LocalClock
from services.cli.surroundings import connect_as_auditor, settings
from services.cli.why_telling import Remark, Tried, Why, why_json, why_of
from services.contract.times import iso_time
from services.market import store
from services.router.execution import DoesNotFollow
from services.router.markets import IndexedMarkets

LeadId = Annotated[
    UUID,
    typer.Argument(
        metavar="LEAD_ID", help="The lead, as receipts and deliveries name it; or an account's id."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def replay_command(lead_id: LeadId, as_json: AsJson = False) -> None:
    """Execute every decision about a lead again, and show each identical, byte for byte; else exit with 1."""
    found = settings()
    read = read_lead(found, str(lead_id))
    with (
        markets_of(found) as markets,
        InputTopics(found.connection(), found.topics) as inputs,
        _told_if_broken(),
    ):
        replayed = list(replay(read, inputs.read, markets))
    if as_json:
        say_json(_replay_json(read, replayed))
    else:
        _say_replay(read, replayed)
    if any(each.verdict is not Verdict.IDENTICAL for each in replayed):
        raise typer.Exit(WENT_WRONG)


def show_why(found: StepSettings, lead_id: str, buyer_id: str, clock: LocalClock, *, as_json: bool) -> None:
    """Tell what decided for or against each order of a buyer."""
    read = read_lead(found, lead_id)
    with markets_of(found) as markets, _told_if_broken():
        why = why_of(read, buyer_id, markets)
    if as_json:
        say_json(why_json(why))
    else:
        _say_why(why, clock)


@contextmanager
def markets_of(found: StepSettings) -> Iterator[IndexedMarkets]:
    """Read versions of the market as they are asked for."""
    with connect_as_auditor(found.database) as connection:
        yield IndexedMarkets(lambda version: store.load(connection, version))


@contextmanager
def _told_if_broken() -> Iterator[None]:
    try:
        yield
    except DoesNotFollow as error:
        raise Complaint(
            f"The log contradicts itself: {error}.", "`gavel log verify` says whether history was changed."
        ) from error
    except store.UnknownVersion as error:
        raise Complaint(
            f"An entry cites a market that the database does not have: {error}.",
            "Was the database restored from before it?",
        ) from error


def _say_why(why: Why, clock: LocalClock) -> None:
    if not why.tried:
        say(f"Nothing was decided about selling lead {why.lead_id}: nobody was asked.")
    elif not why.has_orders:
        say(
            f"{why.buyer_id} had no order for {why.lead_type} in any version of the market that lead {why.lead_id} was "
            "sold under: no decision was about it."
        )
    else:
        say(f"Why lead {why.lead_id} ({why.lead_type}) was or was not sold to {why.buyer_id}:")
    for answer in why.answers:
        if isinstance(answer, Remark):
            _say_at(answer.step.entry.decided_at_ms, clock, f"{answer.sentence}.")
        elif answer.reasons:
            _say_tried(answer, clock)


def _say_tried(tried: Tried, clock: LocalClock) -> None:
    attempt = tried.attempt
    entry = attempt.step.entry
    auction = "" if attempt.auction is None else f", auction {attempt.auction.number}"
    _say_at(
        entry.decided_at_ms,
        clock,
        f"stage {attempt.lead.stage + 1}{auction} (entry {entry.seq}, market version {entry.market_version}):",
    )
    for order_id, reason in tried.reasons.items():
        _say_text(f"    {order_id} [{str(reason.decisive).replace('_', ' ')}] {reason.sentence}.")


def _say_at(at_ms: int, clock: LocalClock, text: str) -> None:
    _say_text(f"{clock.moment(at_ms)}  {text}")


def _say_text(text: str) -> None:
    answers().print(text, soft_wrap=True)


def _say_replay(read: LeadEntries, replayed: Sequence[Replayed]) -> None:
    say(f"Lead {read.lead_id}, partition {read.partition}, entries from {read.read_from}:")
    for each in replayed:
        entry = each.step.entry
        origin = "its input is nowhere any more" if each.given is None else f"input from {each.given.origin}"
        kinds = ", ".join(type(event).__name__ for event in each.step.told)
        say(f"  entry {entry.seq}: {each.verdict} ({kinds}; {origin})")
        if each.difference is not None:
            say(f"    event {each.difference.number}, in the log:   {each.difference.logged}")
            say(f"    event {each.difference.number}, decided now:  {each.difference.decided}")
    counted = counts(replayed)
    say(
        f"{counted['identical']} of {len(replayed)} decisions are identical, byte for byte; "
        f"{counted['different']} are different, {counted['forgotten']} could not be executed again."
    )


def _replay_json(read: LeadEntries, replayed: Sequence[Replayed]) -> dict[str, Any]:
    return {
        "lead_id": read.lead_id,
        "partition": read.partition,
        "read_from": read.read_from,
        "identical": all(each.verdict is Verdict.IDENTICAL for each in replayed),
        "counts": counts(replayed),
        "entries": [
            {
                "seq": each.step.entry.seq,
                "at": iso_time(each.step.entry.decided_at_ms),
                "verdict": each.verdict,
                "cause": each.step.entry.cause.kind,
                "input": None if each.given is None else each.given.origin,
                "market_version": each.step.entry.market_version,
                "no_room": list(each.step.entry.no_room),
                "events": [type(event).__name__ for event in each.step.told],
                "difference": None
                if each.difference is None
                else {
                    "event": each.difference.number,
                    "logged": str(each.difference.logged),
                    "decided": str(each.difference.decided),
                },
            }
            for each in replayed
        ],
    }
