"""What buyers read on `buyers.<id>.pings`: offers, pings, and what became of their answers, returns and limits.

Nothing here has contact details: a lead is shown by the fields that its type declares for pings. A buyer hears of its
own bids alone, and of another's price no more than what would have won. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    BidOutcome,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    Event,
    Invitation,
    LimitReached,
    MoneyMoved,
    OfferExpired,
    OfferMade,
    OfferWithdrawn,
    ReturnApproved,
    ReturnRefused,
    ReturnRequested,
)
from services.contract.market import Mode
from services.contract.times import decimal_amount, iso_time
from services.router.promises import offered_promise, ping_promise

Body = dict[str, Any]

PINGED = frozenset(
    {
        AuctionClosed,
        AuctionOpened,
        BidVoided,
        CommandRefused,
        DeliveryFailed,
        LimitReached,
        MoneyMoved,
        OfferExpired,
        OfferMade,
        OfferWithdrawn,
        ReturnApproved,
        ReturnRefused,
        ReturnRequested,
    }
)
"""The events that are told there."""

_TO_BE_ANSWERED = ("offer", "ping")
_OF_OPERATORS = ("withdraw_lead", "decide_return", "move_money")
"""Who asked for these is told by the log."""


def pinged(events: Sequence[Event]) -> dict[str, list[Body]]:
    """Say what each buyer is told, by buyer; what it should answer stands first, the rest in the order of the log."""
    told: dict[str, list[Body]] = {}
    for event in events:
        if not _is_told_otherwise(event, events):
            for buyer_id, body in _addressed(event):
                told.setdefault(buyer_id, []).append(body)
    for bodies in told.values():
        bodies.sort(key=lambda body: body["type"] not in _TO_BE_ANSWERED)
    return told


def _is_told_otherwise(event: Event, events: Sequence[Event]) -> bool:
    """Tell whether the entry itself says more: why an offer ended, or what was decided on a return."""
    match event:
        case OfferExpired():
            return any(isinstance(e, CommandRefused) and e.buyer_id == event.buyer_id for e in events)
        case ReturnRequested():
            return any(
                isinstance(e, ReturnApproved | ReturnRefused) and e.sale_id == event.sale_id for e in events
            )
        case _:
            return False


def _addressed(event: Event) -> Iterator[tuple[str, Body]]:
    match event:
        case OfferMade():
            yield event.buyer_id, _offer(event)
        case OfferExpired():
            yield event.buyer_id, _offer_ended(event.offer_number, "no_answer_in_time")
        case OfferWithdrawn():
            yield event.buyer_id, _offer_ended(event.offer_number, "lead_closed")
        case CommandRefused(buyer_id=str()) if event.command not in _OF_OPERATORS:
            assert event.buyer_id is not None
            yield event.buyer_id, {"type": "refused", "command": event.command, "reason": event.reason}
        case DeliveryFailed():
            yield (
                event.buyer_id,
                {"type": "delivery_failed", "sale_id": event.sale_id, "reason": event.reason},
            )
        case AuctionOpened():
            for invitation in event.invited:
                yield invitation.buyer_id, _ping(event, invitation)
        case AuctionClosed():
            yield from _results(event)
        case BidVoided():
            body = {"type": "bid_void", "auction_number": event.auction_number, "reason": event.reason}
            yield event.buyer_id, body
        case ReturnRequested():
            yield event.buyer_id, {"type": "return_pending", "sale_id": event.sale_id, "reason": event.reason}
        case ReturnApproved():
            yield event.buyer_id, _return_approved(event)
        case ReturnRefused():
            yield event.buyer_id, {"type": "return_refused", "sale_id": event.sale_id, "reason": event.reason}
        case LimitReached():
            yield event.buyer_id, _limit_reached(event)
        case MoneyMoved():
            yield event.buyer_id, _account(event)
        case _:
            return


def _offer(offer: OfferMade) -> Body:
    return {
        "type": "offer",
        "offer_number": offer.offer_number,
        "answer_by": iso_time(offer.answer_by_ms),
        "lead_type": offer.lead_type,
        "order": offer.order_id,
        "mode": offer.mode,
        "price": decimal_amount(offer.price_cents),
        "currency": offer.currency,
        "sale_number": offer.sale_number,
        "sales_max": offer.sales_max,
        "exclusive_for_ms": offer.exclusive_for_ms,
        "holders": len(offer.holders),
        "quality": offer.quality,
        "fields": dict(offer.fields),
        "is_test": offer.is_test,
        "promise": offered_promise(offer),
    }


def _offer_ended(offer_number: int, reason: str) -> Body:
    return {"type": "offer_ended", "offer_number": offer_number, "reason": reason}


def _ping(auction: AuctionOpened, invitation: Invitation) -> Body:
    """Show what is for sale, as far as this buyer may bid for it."""
    modes = invitation.modes
    alone = Mode.EXCLUSIVE in modes
    return {
        "type": "ping",
        "auction_number": auction.auction_number,
        "answer_by": iso_time(auction.bids_until_ms),
        "lead_type": auction.lead_type,
        "order": invitation.order_id,
        "selection": auction.selection,
        "modes": list(modes),
        "floor": {
            "exclusive": _amount_or_none(auction.floor_exclusive_cents) if alone else None,
            "shared": _amount_or_none(auction.floor_shared_cents) if Mode.SHARED in modes else None,
        },
        "currency": auction.currency,
        "sale_number": auction.sale_number,
        "sales_max": auction.sales_max,
        "exclusive_for_ms": auction.exclusive_for_ms if alone else None,
        "holders": len(auction.holders),
        "quality": auction.quality,
        "fields": dict(auction.fields),
        "is_test": auction.is_test,
        "promise": ping_promise(auction, modes),
    }


def _results(closed: AuctionClosed) -> Iterator[tuple[str, Body]]:
    """Tell those that did not win; who won has its delivery."""
    for result in closed.results:
        if result.outcome is not BidOutcome.WON:
            yield (
                result.buyer_id,
                _result(closed, result.outcome, result.mode, result.minimum_to_win_cents),
            )
    for buyer_id in closed.silent:
        yield buyer_id, _result(closed, "no_answer", None, None)


def _result(closed: AuctionClosed, outcome: str, mode: Mode | None, minimum_cents: int | None) -> Body:
    return {
        "type": "auction_result",
        "auction_number": closed.auction_number,
        "ended_by": closed.reason,
        "outcome": outcome,
        "mode": mode,
        "minimum_to_win": _amount_or_none(minimum_cents),
    }


def _return_approved(approved: ReturnApproved) -> Body:
    return {
        "type": "return_approved",
        "sale_id": approved.sale_id,
        "credited": decimal_amount(approved.price_cents),
        "currency": approved.currency,
        "automatic": approved.automatic,
        "is_test": approved.is_test,
    }


def _limit_reached(reached: LimitReached) -> Body:
    resumes_at = None if reached.resumes_at_ms is None else iso_time(reached.resumes_at_ms)
    return {
        "type": "limit_reached",
        "order": reached.order_id,
        "limit": reached.limit,
        "resumes_at": resumes_at,
    }


def _account(moved: MoneyMoved) -> Body:
    return {
        "type": "account",
        "kind": moved.kind,
        "reference": moved.reference,
        "amount": decimal_amount(moved.amount_cents),
        "currency": moved.currency,
    }


def _amount_or_none(cents: int | None) -> str | None:
    return None if cents is None else decimal_amount(cents)
