"""Explains an attempt to sell: what decided for or against each standing order, in the words of its market.

Pure, and a reader of decisions only. The rules are those of `orders`, `selling` and `auctions`, looked at here one by
one and in their order, so that the first that keeps an order out is what decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.contract.events import (
    AuctionOpened,
    BidOutcome,
    BidResult,
    LeadSold,
    LeadUpgraded,
    OfferMade,
    WindowKind,
    WindowOpened,
)
from services.contract.market import (
    BidPrice,
    FixedPrice,
    ListPrice,
    Market,
    Mode,
    Order,
    Ranking,
    Sell,
    Stage,
)
from services.contract.times import decimal_amount
from services.router.attempts import Attempt
from services.router.bidding import modes_for_sale
from services.router.hindrances import Decisive, Reason, Terms, hindrance
from services.router.orders import price_in
from services.router.selling import floor_cents, list_price


def orders_of(market: Market, buyer_id: str, lead_type: str) -> Sequence[Order]:
    """List a buyer's orders for a lead type, paused ones too, by their ids."""
    buyer = market.buyers.get(buyer_id)
    orders = buyer.orders if buyer is not None else ()
    return sorted((order for order in orders if order.lead_type == lead_type), key=lambda order: order.id)


def explain(attempt: Attempt, order: Order, terms: Terms) -> Reason:
    """Say what decided for or against an order in one attempt."""
    stage = terms.stage(attempt)
    return (
        _gain(attempt, order)
        or _declined(attempt, order)
        or hindrance(attempt, order, stage, terms)
        or _unfit_price(attempt, order, stage)
        or _fate_of_bid(attempt, order)
        or _outranked(attempt, order, stage, terms)
        or _not_yet(attempt)
        or Reason(Decisive.UNEXPLAINED, "nothing in the market kept it from buying")
    )


# What an order got.


def _gain(attempt: Attempt, order: Order) -> Reason | None:
    for event in attempt.followed:
        match event:
            case LeadSold(order_id=order.id):
                return Reason(Decisive.SOLD, f"bought it {_terms_of(event)}{_upgrade_of(attempt, event)}")
            case OfferMade(order_id=order.id):
                price = decimal_amount(event.price_cents)
                return Reason(
                    Decisive.OFFERED, f"was the first in rank, and was offered it {event.mode} at {price}"
                )
            case AuctionOpened():
                if asked := next((each for each in event.invited if each.order_id == order.id), None):
                    modes = " or ".join(asked.modes)
                    return Reason(
                        Decisive.ASKED, f"was asked for a bid, {modes}, in auction {event.auction_number}"
                    )
            case _:
                pass
    return None


def _terms_of(sold: LeadSold) -> str:
    how = (
        "exclusive"
        if sold.mode is Mode.EXCLUSIVE
        else f"shared, number {sold.sale_number} of at most {sold.sales_max},"
    )
    return f"{how} at {decimal_amount(sold.price_cents)}"


def _upgrade_of(attempt: Attempt, sold: LeadSold) -> str:
    for event in attempt.followed:
        if isinstance(event, LeadUpgraded) and event.sale_id == sold.sale_id:
            return f", and closed the other slots for {decimal_amount(event.fee_cents)}"
    return ""


# What kept a candidate from being able to pay in a mode that was for sale.


def _unfit_price(attempt: Attempt, order: Order, stage: Stage) -> Reason | None:
    """Say why an order could buy in no mode that was for sale; None where it could in one."""
    modes = modes_for_sale(stage, attempt.lead)
    if not modes:
        return Reason(
            Decisive.MODE, "the lead was disclosed before, and is sold exclusive to nobody any more"
        )
    reasons = [_unfit_in(attempt, order, stage, mode) for mode in modes]
    if any(reason is None for reason in reasons):
        return None
    # That it does not take one mode says less than why it can't have the other.
    return next((each for each in reasons if each and each.decisive is not Decisive.MODE), reasons[0])


def _unfit_in(attempt: Attempt, order: Order, stage: Stage, mode: Mode) -> Reason | None:
    price, floor = price_in(order, mode), floor_cents(stage, mode) or 0
    if price is None:
        return Reason(Decisive.MODE, f"does not take leads {mode}, and {mode} was for sale")
    if mode is Mode.SHARED and order.upgrade_always and not _can_upgrade(attempt, stage):
        return Reason(Decisive.MODE, "takes a shared lead only where it can close the other slots at once")
    if isinstance(price, BidPrice):
        return None if attempt.auction is not None else _unasked(attempt, stage)
    cents = _pays(order, stage, mode, _sold_before(attempt))
    if cents is None:
        return Reason(Decisive.PRICE, f"pays the list price, and the stage has none for {mode}")
    if cents < floor:
        return Reason(
            Decisive.PRICE, f"pays {decimal_amount(cents)} {mode}, below the floor of {decimal_amount(floor)}"
        )
    return None


def _can_upgrade(attempt: Attempt, stage: Stage) -> bool:
    lead = attempt.lead
    return stage.upgrade is not None and lead.sales_max > 1 and not lead.sales


def _unasked(attempt: Attempt, stage: Stage) -> Reason:
    opened = next((event for event in attempt.followed if isinstance(event, AuctionOpened)), None)
    if opened is not None:
        return Reason(Decisive.BID, "was not asked: its buyer was, for another of its orders")
    return Reason(
        Decisive.BID, f"pays what it bids, and the stage asked nobody ({stage.selection.replace('_', ' ')})"
    )


# What became of a bid.


_BIDS: dict[BidOutcome, tuple[Decisive, str]] = {
    BidOutcome.OUTBID: (Decisive.RANK, "was outbid"),
    BidOutcome.OTHER_MODE: (Decisive.MODE, "bid for what was not sold: the other mode brought more"),
    BidOutcome.BELOW_FLOOR: (Decisive.PRICE, "bid less than the floor"),
    BidOutcome.NO_ROOM: (
        Decisive.NO_ROOM,
        "bid, and had no room for it, or no longer stood, when the auction closed",
    ),
    BidOutcome.VOID: (Decisive.BID, "bid in vain: the lead was taken off the market"),
}


def _declined(attempt: Attempt, order: Order) -> Reason | None:
    """A buyer that does not bid has passed on the lead; for the order that it was asked for, this is why."""
    auction = attempt.auction
    if auction is None or order.buyer_id not in auction.declined:
        return None
    asked = auction.invitation_of(order.buyer_id)
    if asked is None or asked.order_id != order.id:
        return None
    return Reason(Decisive.BID, "answered that it does not bid")


def _fate_of_bid(attempt: Attempt, order: Order) -> Reason | None:
    """Say what became of the bid that an order's buyer was asked for; None for an order that bids nothing."""
    auction = attempt.auction
    if auction is None or not _bids(order):
        return None
    asked = auction.invitation_of(order.buyer_id)
    if asked is None:
        return Reason(Decisive.BID, "was not asked when the auction opened")
    if asked.order_id != order.id:
        return Reason(Decisive.BID, f"was not asked: its buyer was, for order {asked.order_id}")
    if attempt.ended is None:
        return (
            None if auction.has_answered(order.buyer_id) else Reason(Decisive.WAITS, "had not answered yet")
        )
    result = next((each for each in attempt.ended.results if each.buyer_id == order.buyer_id), None)
    return Reason(Decisive.BID, "did not answer in time") if result is None else _lost(result)


def _lost(result: BidResult) -> Reason | None:
    if result.outcome is BidOutcome.WON:
        return None
    decisive, sentence = _BIDS[result.outcome]
    if result.minimum_to_win_cents is None or result.mode is None:
        return Reason(decisive, sentence)
    enough = decimal_amount(result.minimum_to_win_cents)
    return Reason(decisive, f"{sentence}; {enough} {result.mode} would have won")


def _bids(order: Order) -> bool:
    return any(isinstance(price_in(order, mode), BidPrice) for mode in Mode)


# Who came first.


def _outranked(attempt: Attempt, order: Order, stage: Stage, terms: Terms) -> Reason | None:
    """Say who took what an order could have had: the last of those that came before it."""
    own = next((sold for sold in attempt.sold if sold.buyer_id == order.buyer_id), None)
    if own is not None:
        return Reason(Decisive.HOLDS, f"its buyer got it by order {own.order_id}")
    winners = _winners(attempt)
    return _beaten(order, stage, terms, winners[-1]) if winners else None


def _winners(attempt: Attempt) -> Sequence[_Winner]:
    """List who came first, slot by slot."""
    before = _sold_before(attempt)
    return [
        *(
            _Winner(sold.order_id, sold.mode, sold.price_cents, slot)
            for slot, sold in enumerate(attempt.sold, start=before)
        ),
        *(
            _Winner(event.order_id, event.mode, event.price_cents, before)
            for event in attempt.followed
            if isinstance(event, OfferMade)
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Winner:
    """Who came first for a slot of the stage."""

    order_id: str
    mode: Mode
    price_cents: int
    slot: int

    def __str__(self) -> str:
        return f"{self.order_id}, {self.mode} at {decimal_amount(self.price_cents)}"


def _beaten(order: Order, stage: Stage, terms: Terms, winner: _Winner) -> Reason:
    """Compare an order with who came before it, as the stage ranks."""
    if winner.order_id.partition("/")[0] == order.buyer_id:
        return Reason(Decisive.RANK, f"its buyer was offered it by order {winner.order_id}")
    own = _pays(order, stage, winner.mode, winner.slot)
    if stage.by is Ranking.WEIGHT or stage.by is Ranking.ROUND_ROBIN:
        return _dealt(order, stage, terms, winner)
    if stage.by is Ranking.PRIORITY:
        theirs = _priority_of(terms.market, winner.order_id)
        if theirs is not None and theirs < order.priority:
            return Reason(
                Decisive.RANK, f"{winner} came first by priority ({theirs} before {order.priority})"
            )
        if stage.sell is Sell.EITHER and winner.slot == 0:
            return _dealt(order, stage, terms, winner)
    if own is None or own < (floor_cents(stage, winner.mode) or 0):
        return Reason(
            Decisive.MODE, f"it was sold {winner.mode} ({winner}), which brought more than this order's way"
        )
    if own < winner.price_cents:
        return Reason(Decisive.RANK, f"{winner}, paid more than its {decimal_amount(own)}")
    return _dealt(order, stage, terms, winner)


def _dealt(order: Order, stage: Stage, terms: Terms, winner: _Winner) -> Reason:
    if stage.by is Ranking.WEIGHT:
        theirs = next((each.weight for each in _all_orders(terms.market) if each.id == winner.order_id), None)
        weights = "" if theirs is None else f" (weights {theirs} and {order.weight})"
        return Reason(Decisive.DEALT, f"dealt by weight and lead id to {winner}{weights}")
    return Reason(Decisive.DEALT, f"equal in rank, and dealt by lead id to {winner}")


def _not_yet(attempt: Attempt) -> Reason | None:
    """Say what selling waits for, though the order could buy."""
    for event in attempt.followed:
        if isinstance(event, AuctionOpened):
            return Reason(Decisive.WAITS, f"competes when auction {event.auction_number} closes")
        if isinstance(event, WindowOpened) and event.kind is WindowKind.UPGRADE:
            return Reason(Decisive.WAITS, "waited for whether the first buyer closes the other slots")
    if attempt.auction is not None and attempt.ended is None:
        return Reason(Decisive.WAITS, f"auction {attempt.auction.number} went on")
    return None


# Prices and orders.


def _sold_before(attempt: Attempt) -> int:
    """Count the stage's sales before this attempt: what list prices go by."""
    return sum(sale.stage == attempt.lead.stage for sale in attempt.lead.sales)


def _pays(order: Order, stage: Stage, mode: Mode, slot: int) -> int | None:
    """Say what a standing order pays for the stage's sale `slot` (from 0), in minor units; None: nothing, or a bid."""
    match price_in(order, mode):
        case FixedPrice(cents=cents):
            return cents
        case ListPrice():
            return list_price(stage, mode, slot)
        case _:
            return None


def _priority_of(market: Market, order_id: str) -> int | None:
    return next((order.priority for order in _all_orders(market) if order.id == order_id), None)


def _all_orders(market: Market) -> Sequence[Order]:
    return [order for buyer in market.buyers.values() for order in buyer.orders]
