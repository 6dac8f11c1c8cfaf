"""`gavel buyer`: what a buyer does with any Kafka client, for trying things out: listen, and answer.

It speaks as the buyer and knows only the buyer's own topics; whether an answer counts is for the router.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any
from uuid import UUID

import typer

from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.outsiders import Outbox, Received, read
from services.cli.printing import remark, say, say_json, say_json_line
from services.cli.surroundings import kafka_settings
from services.contract.events import Disposition, RejectionReason

app = typer.Typer(help="Do as a buyer does.", no_args_is_help=True)

BuyerId = Annotated[str, typer.Argument(metavar="BUYER", help="The buyer's id in the market.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


class Answer(StrEnum):
    """What a buyer may say of an offer, or of a lead that it holds."""

    ACCEPT = "accept"
    REJECT = "reject"
    CONTACTED = "contacted"
    DEAL = "deal"
    NO_DEAL = "no-deal"


_DISPOSITIONS: Mapping[Answer, Disposition] = {
    Answer.CONTACTED: Disposition.CONTACTED,
    Answer.DEAL: Disposition.DEAL,
    Answer.NO_DEAL: Disposition.NO_DEAL,
}


@app.command()
def listen(
    buyer: BuyerId,
    pings: Annotated[
        bool, typer.Option("--pings", help="Offers, instead of the leads that it bought.")
    ] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="What came before, too; not only what comes from now on.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Listen to the buyer's leads and notices, or to its offers, until Ctrl-C."""
    settings = kafka_settings()
    topics = settings.topics
    topic = topics.buyer_pings(buyer) if pings else topics.buyer_leads(buyer)
    if limit is None:
        remark(f"Listening to {topic}; Ctrl-C ends it.")
    for record in islice(_records(settings, topic, from_beginning=from_beginning), limit):
        body = json.loads(record.value)
        if as_json:
            say_json_line(body)
        else:
            say("\n".join(lines_of(body)))


@app.command()
def answer(
    buyer: BuyerId,
    what: Annotated[Answer, typer.Argument(metavar="ANSWER", help=" | ".join(Answer))],
    lead_id: Annotated[
        UUID, typer.Argument(metavar="LEAD_ID", help="The lead, as the offer or the delivery has it.")
    ],
    offer: Annotated[
        int | None, typer.Option("--offer", min=1, help="The offer's number; by default the lead's last one.")
    ] = None,
    reason: Annotated[
        RejectionReason, typer.Option("--reason", help="Why it rejects.")
    ] = RejectionReason.OTHER,
    as_json: AsJson = False,
) -> None:
    """Answer an offer (accept, reject), or report of a lead that the buyer holds (contacted, deal, no-deal)."""
    settings = kafka_settings()
    topic = settings.topics.buyer_answers(buyer)
    if what in _DISPOSITIONS:
        body = disposition(str(lead_id), _DISPOSITIONS[what])
    else:
        number = offer or _last_offer(settings, buyer, str(lead_id))
        body = accept(str(lead_id), number) if what is Answer.ACCEPT else reject(str(lead_id), number, reason)
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
        case kind:
            rest = {name: body[name] for name in body if name not in ("type", "lead_id", "at", "log")}
            yield f"{kind.upper().replace('_', ' ')}  {body['lead_id']}  {_pairs(rest)}"


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


def _last_offer(settings: StepSettings, buyer: str, lead_id: str) -> int:
    """Find the number of the last offer of this lead that the buyer was sent."""
    topic = settings.topics.buyer_pings(buyer)
    found = 0
    for batch in read(settings.connection(), [topic]):
        for record in batch:
            body = json.loads(record.value)
            if body["type"] == "offer" and body["lead_id"] == lead_id:
                found = max(found, body["offer_number"])
    if not found:
        raise Complaint(
            f"{topic} has no offer of lead {lead_id}.",
            f"`gavel buyer listen {buyer} --pings --from-beginning` shows the offers there were.",
        )
    return found
