"""What follows from an entry for its readers: events made by hand, records held against their schemas, leaks found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from services.contract.codec import SCHEMAS, codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidOutcome,
    BidResult,
    Event,
    Invitation,
    LeadClosed,
    LeadSold,
    LeadUpgraded,
    Outcome,
)
from services.contract.ids import sale_id_of
from services.contract.market import Mode, Selection, Sell
from services.contract.times import decimal_amount
from services.router.messages import Channel, Outgoing, react

LEAD_ID = "7e57ab1e-0000-5000-8000-000000000001"
AT_MS = 1_790_000_000_000
MINUTE_MS = 60_000
SOURCE_ID = "sunform"
BUYERS = ("acme", "zenith", "quartz", "walnut")


def sold(number: int = 1, *, earlier: int | None = None, **changes: Any) -> LeadSold:
    """A shared sale to the k-th of `BUYERS`; those before it hold the lead, `earlier` of them since a day ago."""
    before = number - 1 if earlier is None else earlier
    values: dict[str, Any] = {
        "sale_number": number,
        "sale_id": sale_id_of(LEAD_ID, number),
        "buyer_id": BUYERS[number - 1],
        "order_id": f"{BUYERS[number - 1]}/all",
        "source_id": SOURCE_ID,
        "lead_type": "solar",
        "plan": "standard",
        "stage": 0,
        "mode": Mode.SHARED,
        "price_cents": 4_751 - 250 * number,
        "currency": "USD",
        "sales_max": 3,
        "exclusive_until_ms": None,
        "others_may_follow": number < 3,
        "others_from_ms": None,
        "holders": BUYERS[: number - 1],
        "held_since_ms": AT_MS - 86_400_000 if before else None,
        "offer_number": None,
        "quality": 80,
        "created_at_ms": AT_MS - MINUTE_MS,
        "is_test": False,
        **changes,
    }
    return LeadSold(**values)


def sold_exclusive(**changes: Any) -> LeadSold:
    """A first sale that is exclusive, for good unless a time is given."""
    until_ms = changes.get("exclusive_until_ms")
    follow = {"others_may_follow": until_ms is not None, "others_from_ms": until_ms}
    return sold(mode=Mode.EXCLUSIVE, **{**follow, **changes})


def upgraded(**changes: Any) -> LeadUpgraded:
    """The first buyer closes two slots, for 75.02."""
    values: dict[str, Any] = {
        "sale_number": 1,
        "sale_id": sale_id_of(LEAD_ID, 1),
        "buyer_id": BUYERS[0],
        "order_id": f"{BUYERS[0]}/all",
        "source_id": SOURCE_ID,
        "slots_closed": 2,
        "fee_cents": 7_502,
        "currency": "USD",
        "payout_cents": 0,
        "draws": (),
        "is_test": False,
        **changes,
    }
    return LeadUpgraded(**values)


def closed(*holders: str, outcome: Outcome = Outcome.SOLD_OUT) -> LeadClosed:
    """The end of the selling."""
    return LeadClosed(
        outcome=outcome,
        source_id=SOURCE_ID,
        lead_type="solar",
        plan="standard",
        holders=holders,
        is_test=False,
    )


def opened(*invited: Invitation, **changes: Any) -> AuctionOpened:
    """An auction of a lead, exclusive or shared by up to 3."""
    values: dict[str, Any] = {
        "auction_number": 1,
        "stage": 0,
        "selection": Selection.PING_POST,
        "sell": Sell.EITHER,
        "bids_until_ms": AT_MS + 500,
        "closes_at_ms": AT_MS + 550,
        "floor_exclusive_cents": 5_000,
        "floor_shared_cents": 1_800,
        "currency": "USD",
        "invited": invited or (invitation(),),
        "sale_number": 1,
        "sales_max": 3,
        "exclusive_for_ms": None,
        "lead_type": "solar",
        "quality": 60,
        "fields": {"state": "NY"},
        "holders": (),
        "is_test": False,
        **changes,
    }
    return AuctionOpened(**values)


def invitation(buyer_id: str = BUYERS[0], *modes: Mode) -> Invitation:
    """An invitation to bid in these modes, by default in both."""
    return Invitation(
        buyer_id=buyer_id, order_id=f"{buyer_id}/all", modes=modes or (Mode.EXCLUSIVE, Mode.SHARED)
    )


def result(
    buyer_id: str, outcome: BidOutcome, minimum_cents: int | None = None, mode: Mode | None = Mode.EXCLUSIVE
) -> BidResult:
    """What became of a bid."""
    return BidResult(buyer_id=buyer_id, outcome=outcome, mode=mode, minimum_to_win_cents=minimum_cents)


def auction_closed(*results: BidResult, **changes: Any) -> AuctionClosed:
    """The end of an auction."""
    values: dict[str, Any] = {
        "auction_number": 1,
        "reason": AuctionEnd.TIME_UP,
        "mode": Mode.EXCLUSIVE,
        "exclusive_cents": 8_503,
        "shared_cents": 6_804,
        "results": results,
        "silent": (),
        **changes,
    }
    return AuctionClosed(**values)


def entry_of(events: Sequence[Event]) -> Entry:
    """The entry that these events stand in."""
    return Entry(
        seq=7,
        prev_hash=GENESIS_HASH,
        cause=Cause(kind=CauseKind.COMMAND, offset=0),
        market_version=1,
        no_room=(),
        lead_id=LEAD_ID,
        decided_at_ms=AT_MS,
        events=tuple(codec().encode_body(event) for event in events),
    )


def told(*events: Event) -> Sequence[Outgoing]:
    """Say who is told what, after a way through bytes; it must be numbered, be once for each topic, fit its schema."""
    entry = entry_of(events)
    found = react(entry, codec().events_of(entry), 3)
    assert complaints(found) == []
    assert leaks(found, events) == []
    return found


def to_buyer(found: Sequence[Outgoing], buyer_id: str, channel: Channel = Channel.BUYER_PINGS) -> Any:
    """The body of the one record that a buyer gets on a topic."""
    (only,) = [item for item in found if (item.channel, item.recipient) == (channel, buyer_id)]
    return only.body


def to_source(found: Sequence[Outgoing]) -> Any:
    """What happened, as the one receipt says."""
    (only,) = [item for item in found if item.channel is Channel.SOURCE_RECEIPTS]
    assert only.recipient == SOURCE_ID
    return only.body["happened"]


def complaints(found: Sequence[Outgoing]) -> list[str]:
    """List what is wrong with the form of an entry's records."""
    wrong = [f"{item.type} is number {item.n}" for at, item in enumerate(found) if item.n != at]
    recipients = [(item.channel, item.recipient) for item in found]
    wrong += [f"{one} gets two records" for one in {*recipients} if recipients.count(one) > 1]
    for item in found:
        body = orjson.loads(orjson.dumps(item.body))
        if item.sale_number is not None:
            body["lead"] = {"contact": {}, "details": {}}
        wrong += [] if item.type == f"gavel.{body['type']}.v1" else [f"{item.type} of {body['type']}"]
        wrong += schema_errors(body)
    return wrong


def schema_errors(body: Mapping[str, Any]) -> list[str]:
    """Hold a record against the schema of its type, and what stands in it under `also` against theirs."""
    around = {name: body[name] for name in ("lead_id", "account_id", "at", "log") if name in body}
    errors = [error.message for error in validators()[body["type"]].iter_errors(body)]
    return [
        *errors,
        *(error for also in body.get("also", ()) for error in schema_errors({**around, **also})),
    ]


@lru_cache(maxsize=1)
def validators() -> Mapping[str, Draft202012Validator]:
    """Find the published schema of each type of record that outsiders read, by what it says that `type` is."""
    found = {}
    for path in (SCHEMAS / "json").iterdir():
        schema = json.loads(path.read_text())
        if path.name.startswith(("answer", "submission")):
            continue
        for one in schema.get("oneOf", [schema]):
            type = one["properties"]["type"]["const"]
            found[type] = Draft202012Validator(
                {**one, "$defs": schema.get("$defs", {})},
                format_checker=Draft202012Validator.FORMAT_CHECKER,
            )
    return found


def leaks(found: Sequence[Outgoing], events: Sequence[Event]) -> list[str]:
    """List whatever somebody is told that only others may know: who they are, and what they pay or bid."""
    return [leak for item in found for leak in _leaks(item, events)]


def _leaks(item: Outgoing, events: Sequence[Event]) -> Iterator[str]:
    text = json.dumps(item.body)
    is_source = item.channel is Channel.SOURCE_RECEIPTS
    for buyer_id in BUYERS:
        if (is_source or buyer_id != item.recipient) and re.search(rf"\b{buyer_id}\b", text):
            yield f"{item.recipient} is told of {buyer_id}"
    amounts = list(_amounts(events))
    own = {cents for owner, cents in amounts if owner == item.recipient and not is_source}
    for cents in {cents for _, cents in amounts} - own:
        if f'"{decimal_amount(cents)}"' in text:
            yield f"{item.recipient} is told the amount {cents}"


def _amounts(events: Sequence[Event]) -> Iterator[tuple[str | None, int]]:
    """List what was paid, and by whom; what an auction compared is nobody's to know."""
    for event in events:
        match event:
            case LeadSold():
                yield event.buyer_id, event.price_cents
            case LeadUpgraded():
                yield event.buyer_id, event.fee_cents
            case AuctionClosed():
                for cents in (event.exclusive_cents, event.shared_cents):
                    if cents is not None:
                        yield None, cents
