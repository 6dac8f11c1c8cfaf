"""`gavel buyer`: what a buyer does with any Kafka client, for trying things out: listen, and answer.

It speaks as the buyer and knows only the buyer's own topics; whether an answer counts is for the router.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from services.bus.settings import StepSettings
from services.cli.complaints import MISUSED, Complaint
from services.cli.door_commands import add_doors
from services.cli.outsiders import Outbox, Received, read
from services.cli.pausing import Subject, add_pausing
from services.cli.printing import remark, say, say_json, say_json_line
from services.cli.surroundings import outsider_settings
from services.contract.access import Family
from services.contract.events import Disposition, NoBidReason, RejectionReason, ReturnReason
from services.contract.outside_records import read_body

app = typer.Typer(help="Do as a buyer does; pause one, and let it go on.", no_args_is_help=True)
add_pausing(app, Subject.BUYER)
add_doors(app, Family.BUYERS)

BuyerId = Annotated[str, typer.Argument(metavar="BUYER", help="The buyer's id in the market.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
_Reason = TypeVar("_Reason", RejectionReason, NoBidReason, ReturnReason)


class Answer(StrEnum):
    """What a buyer may say of an offer, of a ping, or of a lead that it holds."""

    ACCEPT = "accept"
    REJECT = "reject"
    BID = "bid"
    NO_BID = "no-bid"
    CONTACTED = "contacted"
    DEAL = "deal"
    NO_DEAL = "no-deal"
    UPGRADE = "upgrade"
    RETURN = "return"


_DISPOSITIONS: Mapping[Answer, Disposition] = {
    Answer.CONTACTED: Disposition.CONTACTED,
    Answer.DEAL: Disposition.DEAL,
    Answer.NO_DEAL: Disposition.NO_DEAL,
}


@app.command(epilog="Example: gavel buyer listen sunpeak --from-beginning --limit 10")
def listen(
    buyer: BuyerId,
    pings: Annotated[
        bool, typer.Option("--pings", help="Pings, offers and answers, instead of the leads that it bought.")
    ] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="What came before, too; not only what comes from now on.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Listen to the buyer's leads and notices, or to its pings and offers, until Ctrl-C."""
    settings = outsider_settings(Family.BUYERS, buyer)
    topics = settings.topics
    topic = topics.buyer_pings(buyer) if pings else topics.buyer_leads(buyer)
    if limit is None:
        remark(f"Listening to {topic}; Ctrl-C ends it.")
    for record in islice(_records(settings, topic, from_beginning=from_beginning), limit):
        body = read_body(record.value)
        if as_json:
            say_json_line(body)
        else:
            say("\n".join(lines_of(body)))


@app.command(
    epilog="Example: gavel buyer answer lendfast bid 3f276050-d4f1-5f5c-bcc4-f72e1c5a5436 --shared 34.00"
)
def answer(
    buyer: BuyerId,
    what: Annotated[Answer, typer.Argument(metavar="ANSWER", help=" | ".join(Answer))],
    lead_id: Annotated[
        UUID, typer.Argument(metavar="LEAD_ID", help="The lead, as the offer or the delivery has it.")
    ],
    offer: Annotated[
        int | None, typer.Option("--offer", min=1, help="The offer's number; by default the lead's last one.")
    ] = None,
    auction: Annotated[
        int | None,
        typer.Option(
            "--auction", min=1, help="The auction's number; by default that of the lead's last ping."
        ),
    ] = None,
    exclusive: Annotated[
        str | None, typer.Option("--exclusive", help="What it bids for the lead alone, as in 85.00.")
    ] = None,
    shared: Annotated[
        str | None, typer.Option("--shared", help="What it bids for the lead shared, as in 34.00.")
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why it rejects, does not bid, or gives the lead back.")
    ] = "other",
    as_json: AsJson = False,
) -> None:
    """Answer an offer (accept, reject) or a ping (bid, no-bid), or tell of a lead that the buyer holds: what became of
    it (contacted, deal, no-deal), that it wants it alone (upgrade) or does not want it (return).
    """
    settings = outsider_settings(Family.BUYERS, buyer)
    topic = settings.topics.buyer_answers(buyer)
    lead = str(lead_id)
    body: dict[str, Any]
    match what:
        case Answer.ACCEPT:
            body = accept(lead, offer or _last_number(settings, buyer, lead, "offer"))
        case Answer.REJECT:
            why = _reason(RejectionReason, reason)
            body = reject(lead, offer or _last_number(settings, buyer, lead, "offer"), why)
        case Answer.BID:
            body = bid(lead, auction or _last_number(settings, buyer, lead, "ping"), exclusive, shared)
        case Answer.NO_BID:
            declined = _reason(NoBidReason, reason)
            body = no_bid(lead, auction or _last_number(settings, buyer, lead, "ping"), declined)
        case Answer.UPGRADE:
            body = {"type": "upgrade", "lead_id": lead}
        case Answer.RETURN:
            body = {"type": "return", "lead_id": lead, "reason": _reason(ReturnReason, reason).value}
        case _:
            body = disposition(lead, _DISPOSITIONS[what])
    with Outbox(settings.connection(), [topic]) as outbox:
        outbox.send(topic, encoded(body))
    if as_json:
        say_json({"topic": topic, "sent": body})
    else:
        say(f"Sent to {topic}: {encoded(body).decode()}")


def accept(lead_id: str, offer_number: int) -> dict[str, Any]:
    """Write the answer that takes an offer."""
    return {"type": "accept_offer", "lead_id": lead_id, "offer_number": offer_number}


def reject(lead_id: str, offer_number: int, reason: RejectionReason) -> dict[str, Any]:
    """Write the answer that passes on an offer."""
    return {"type": "reject_offer", "lead_id": lead_id, "offer_number": offer_number, "reason": reason.value}


def bid(lead_id: str, auction_number: int, exclusive: str | None, shared: str | None) -> dict[str, Any]:
    """Write the answer that names a price, in one mode or in both, as decimals of the currency."""
    prices = {
        mode: price for mode, price in (("exclusive", exclusive), ("shared", shared)) if price is not None
    }
    if not prices:
        raise Complaint(
            "A bid names a price.", "Give --exclusive, --shared, or both, as in 85.00.", exit_code=MISUSED
        )
    return {"type": "bid", "lead_id": lead_id, "auction_number": auction_number, **prices}


def no_bid(lead_id: str, auction_number: int, reason: NoBidReason) -> dict[str, Any]:
    """Write the answer that does not bid."""
    return {"type": "no_bid", "lead_id": lead_id, "auction_number": auction_number, "reason": reason.value}


def disposition(lead_id: str, found: Disposition) -> dict[str, Any]:
    """Write the report of what became of a lead."""
    return {"type": "disposition", "lead_id": lead_id, "disposition": found.value}


def encoded(body: Mapping[str, Any]) -> bytes:
    """Write an answer as its topic wants it."""
    return json.dumps(body, separators=(",", ":")).encode()


def lines_of(body: Mapping[str, Any]) -> Iterator[str]:
    """Write a record of a buyer's topics for people."""
    match body["type"]:
        case "lead":
            yield f"LEAD    {body['lead_id']}  {body['lead_type']}  {body['price']} {body['currency']}  {body['order']}"
            yield f"        {body['promise']}"
            yield from _sealed(body.get("lead", {}))
        case "notice":
            happened = "; ".join(_happened(item) for item in body["happened"])
            yield f"NOTICE  {body['lead_id']}  {happened}; held by {body['holders']}"
        case "offer":
            yield (
                f"OFFER   {body['lead_id']}  number {body['offer_number']}, {body['price']} {body['currency']}, "
                f"answer by {body['answer_by']}  {body['order']}"
            )
            yield f"        {body['promise']}"
            yield f"        {_pairs(body['fields'])}, quality {body['quality']}"
        case "ping":
            floors = ", ".join(f"{mode} from {body['floor'][mode] or 'any price'}" for mode in body["modes"])
            yield (
                f"PING    {body['lead_id']}  auction {body['auction_number']}, {floors} {body['currency']}, answer by "
                f"{body['answer_by']}  {body['order']}"
            )
            yield f"        {body['promise']}"
            yield f"        {_pairs(body['fields'])}, quality {body['quality']}"
        case kind:
            rest = {name: body[name] for name in body if name not in ("type", "lead_id", "at", "log")}
            about = f"  {body['lead_id']}" if "lead_id" in body else ""
            yield f"{kind.upper().replace('_', ' ')}{about}  {_pairs(rest)}"


def _sealed(lead: Mapping[str, Any]) -> Iterator[str]:
    for part in ("contact", "details"):
        if lead.get(part):
            yield f"        {_pairs(lead[part])}"


def _pairs(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _happened(item: Mapping[str, Any]) -> str:
    if item["type"] == "closed":
        return f"closed: {str(item['outcome']).replace('_', ' ')}"
    return f"sold {item['mode']}, number {item['sale_number']} of at most {item['sales_max']}"


def _records(settings: StepSettings, topic: str, *, from_beginning: bool) -> Iterator[Received]:
    for batch in read(settings.connection(), [topic], from_beginning=from_beginning, follow=True):
        yield from batch


def _reason(kind: type[_Reason], word: str) -> _Reason:
    try:
        return kind(word)
    except ValueError:
        raise Complaint(
            f"{word!r} is no reason for that.", f"Reasons are: {', '.join(kind)}.", exit_code=MISUSED
        ) from None


def _last_number(settings: StepSettings, buyer: str, lead_id: str, kind: str) -> int:
    """Find the number of the last offer, or of the last ping's auction, that the buyer was sent of this lead."""
    topic = settings.topics.buyer_pings(buyer)
    number = "offer_number" if kind == "offer" else "auction_number"
    found = 0
    for batch in read(settings.connection(), [topic]):
        for record in batch:
            body = json.loads(record.value)
            if body["type"] == kind and body["lead_id"] == lead_id:
                found = max(found, body[number])
    if not found:
        raise Complaint(
            f"{topic} has no {kind} of lead {lead_id}.",
            f"`gavel buyer listen {buyer} --pings --from-beginning` shows what there was.",
        )
    return found
