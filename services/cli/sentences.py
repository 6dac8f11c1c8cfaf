"""Sentences of a lead's story that need no memory and no clock: one for an event, one for what happened to others.

Pure: events come in, text goes out. Amounts are decimals of their currency; where an event has none, of the market's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidOutcome,
    BidPlaced,
    BidResult,
    DeliveryFailed,
    ErasureReason,
    LeadClosed,
    LeadErased,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    OfferMade,
    Outcome,
    ReturnApproved,
)
from services.contract.market import Mode, Selection
from services.contract.times import decimal_amount, duration_for_people, iso_time

ENDED: Mapping[Outcome, str] = {
    Outcome.SOLD_OUT: "sold out",
    Outcome.PARTLY_SOLD: "partly sold",
    Outcome.UNSOLD: "unsold",
    Outcome.DEAL: "a holder made the deal",
    Outcome.WITHDRAWN: "withdrawn",
    Outcome.FAILED: "failed, because a promise would have been broken",
}

_AUCTION_ENDED: Mapping[AuctionEnd, str] = {
    AuctionEnd.ALL_ANSWERED: "all had answered",
    AuctionEnd.TIME_UP: "the time was up",
    AuctionEnd.FIRST_BID: "a bid took the lead",
    AuctionEnd.LEAD_CLOSED: "the selling ended",
}

_BID_ENDED: Mapping[BidOutcome, str] = {
    BidOutcome.WON: "won",
    BidOutcome.OUTBID: "was outbid",
    BidOutcome.OTHER_MODE: "bid for the other mode",
    BidOutcome.BELOW_FLOOR: "bid below the floor",
    BidOutcome.NO_ROOM: "had no room",
    BidOutcome.VOID: "had bid in vain",
}


def listed(event: LeadListed) -> str:
    """Tell what is for sale, how, and what its source earns by that."""
    test = "test " if event.is_test else ""
    what = f"a {test}lead of type {event.lead_type} from {event.source_id}, quality {event.quality}"
    earned = "" if event.currency is None else _earned(event.payout_cents, event.currency)
    if event.plan is None:
        return f"Listed: {what}. No plan fits it{earned}."
    buyers = "one buyer" if event.sales_max == 1 else f"at most {event.sales_max} buyers"
    never = f", never to {names(event.never_to)}" if event.never_to else ""
    only = f", only to {names(event.consented_buyers)}, by its consent" if event.consented_buyers else ""
    return f"Listed: {what}, for sale by plan {event.plan} to {buyers}{never}{only}{earned}."


def sold(event: LeadSold, terms: str) -> str:
    """Tell of a sale, with its terms as the reader's clock says them."""
    by = ""
    if event.offer_number is not None:
        by = ", who accepted its offer"
    elif event.auction_number is not None:
        by = f", who won auction {event.auction_number}"
    price = money(event.price_cents, event.currency)
    earned = _earned(event.payout_cents, event.currency)
    return f"Sold to {event.buyer_id} (order {event.order_id}){by}, for {price}: {terms}{earned}."


def offered_mode(offer: OfferMade) -> str:
    """Say how an offer would be sold."""
    if offer.mode is Mode.SHARED:
        return f"shared, number {offer.sale_number} of at most {offer.sales_max}"
    if offer.exclusive_for_ms is None:
        return "exclusive, for good"
    return f"exclusive for {duration_for_people(offer.exclusive_for_ms)}"


def closed(event: LeadClosed) -> str:
    """Tell how the selling ended, and who holds the lead."""
    holders = f"held by {names(event.holders)}" if event.holders else "held by nobody"
    return f"Closed: {ENDED[event.outcome]}; {holders}."


def erased(event: LeadErased) -> str:
    """Tell why the person is forgotten here, and who has to follow by when."""
    why = "its person asked for it" if event.reason is ErasureReason.ERASED else "its consent was revoked"
    asked = f"{names(event.holders)} to follow by {iso_time(event.acknowledge_by_ms)[:10]}"
    return f"Contact and other details erased, as {why}" + (f"; asked {asked}." if event.holders else ".")


def delivery_failed(event: DeliveryFailed) -> str:
    """Tell what is credited, and that the disclosure counts all the same."""
    credited = money(event.price_cents, event.currency)
    back = _taken_back(event.payout_cents, event.currency)
    return (
        f"The delivery to {event.buyer_id} can never succeed ({words(event.reason)}): {credited} credited{back}; "
        f"sale {event.sale_number} stays used."
    )


def auction_opened(event: AuctionOpened, by: str) -> str:
    """Tell who is asked for what, and until when."""
    floors = [
        f"{money(cents, event.currency)} {mode}"
        for mode, cents in (
            (Mode.EXCLUSIVE, event.floor_exclusive_cents),
            (Mode.SHARED, event.floor_shared_cents),
        )
        if cents is not None
    ]
    floor = f", from {' or '.join(floors)}" if floors else ""
    first = ", the first of which wins" if event.selection is Selection.FIRST_BID else ""
    asked = names([each.buyer_id for each in event.invited])
    return f"Auction {event.auction_number}: asked {asked} for bids by {by}{floor}{first}."


def bid_placed(event: BidPlaced) -> str:
    """Tell a buyer's prices."""
    return f"{event.buyer_id} bid {_prices(event.exclusive_cents, event.shared_cents)}."


def auction_closed(event: AuctionClosed) -> str:
    """Tell why an auction ended, what was compared, and what became of each bid."""
    compared = ""
    if event.exclusive_cents is not None and event.shared_cents is not None:
        best = f"{decimal_amount(event.exclusive_cents)} exclusive"
        compared = f"; {best} against {decimal_amount(event.shared_cents)} shared in all"
    how = "nothing was sold" if event.mode is None else f"it went {event.mode}"
    results = "".join(f"; {_bid_result(result)}" for result in event.results)
    silent = f"; no answer from {names(event.silent)}" if event.silent else ""
    ended = _AUCTION_ENDED[event.reason]
    return f"Auction {event.auction_number} closed, because {ended}: {how}{compared}{results}{silent}."


def upgraded(event: LeadUpgraded) -> str:
    """Tell that the only holder has the lead to itself."""
    fee, earned = money(event.fee_cents, event.currency), _earned(event.payout_cents, event.currency)
    slots = "the last slot" if event.slots_closed == 1 else f"the remaining {event.slots_closed} slots"
    return f"{event.buyer_id} closed {slots} for {fee}: exclusive from here on, for good{earned}."


def return_approved(event: ReturnApproved) -> str:
    """Tell what is credited, and what is taken back."""
    by = "by the rules" if event.automatic else "by an operator"
    credited = money(event.price_cents, event.currency)
    back = _taken_back(event.payout_cents, event.currency)
    return (
        f"The return of sale {event.sale_number} was approved {by}: {credited} credited to {event.buyer_id}{back}; "
        "its disclosure stays counted."
    )


def happened(item: Mapping[str, Any]) -> str:
    """Tell one thing of a notice or a receipt."""
    match item["type"]:
        case "closed":
            told = f"closed ({ENDED[Outcome(item['outcome'])]})"
        case "sold":
            told = f"sold {item['mode']}, number {item['sale_number']} of at most {item['sales_max']}"
        case "accepted":
            told = "accepted"
        case "earned":
            told = "listed"
        case "erasure":
            told = f"to be erased ({item['reason']}), and to say so by {item['acknowledge_by'][:10]}"
        case other:
            told = f"{words(other)}, sale {item['sale_number']}"
    if "payout" in item:
        return f"{told}, which earns {item['payout']} {item['currency']}"
    if "taken_back" in item:
        return f"{told}, which takes back {item['taken_back']} {item['currency']}"
    return told


def money(cents: int, currency: str) -> str:
    """Write an amount with its currency."""
    return f"{decimal_amount(cents)} {currency}"


def names(ids: Sequence[str]) -> str:
    """List who it is; there is one at least."""
    return ids[0] if len(ids) == 1 else f"{', '.join(ids[:-1])} and {ids[-1]}"


def words(code: str) -> str:
    """Write a word of the code as people do."""
    return code.replace("_", " ")


def _bid_result(result: BidResult) -> str:
    told = f"{result.buyer_id} {_BID_ENDED[result.outcome]}"
    if result.minimum_to_win_cents is None:
        return told
    return f"{told} ({decimal_amount(result.minimum_to_win_cents)} {result.mode} would have won)"


def _prices(exclusive_cents: int | None, shared_cents: int | None) -> str:
    prices = ((Mode.EXCLUSIVE, exclusive_cents), (Mode.SHARED, shared_cents))
    told = [f"{decimal_amount(cents)} {mode}" for mode, cents in prices if cents is not None]
    return " or ".join(told) or "no price"


def _earned(cents: int, currency: str) -> str:
    return f"; its source earns {money(cents, currency)}" if cents else ""


def _taken_back(cents: int, currency: str) -> str:
    return f", {money(cents, currency)} taken back from its source" if cents else ""
