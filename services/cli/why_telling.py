"""Puts together why a lead's decisions went as they did for one buyer: attempt by attempt, order by order.

Pure: entries and versions of the market come in, answers go out. What decided is for `services.router.why`; here it is
joined with what the log says of the buyer besides, such as a bid that was void.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.cli.lead_reading import LeadEntries
from services.contract.events import (
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    BidVoided,
    CommandRefused,
    Event,
    LeadListed,
    LimitReached,
    OfferExpired,
    OfferRejected,
    VoidReason,
)
from services.contract.times import decimal_amount, iso_time
from services.router.attempts import Attempt, attempts_of
from services.router.execution import Markets, Step, steps_of
from services.router.hindrances import Reason, Terms
from services.router.why import explain, orders_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attempt to sell, and what decided for or against each of the buyer's orders, by their ids."""

    attempt: Attempt
    reasons: Mapping[str, Reason]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What the log says of the buyer besides."""

    step: Step
    kind: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Everything that decided whether a buyer got a lead, in the order of the log."""

    lead_id: str
    buyer_id: str
    lead_type: str | None
    answers: Sequence[Tried | Remark]

    @property
    def tried(self) -> Sequence[Tried]:
        """The attempts to sell alone."""
        return [answer for answer in self.answers if isinstance(answer, Tried)]

    @property
    def has_orders(self) -> bool:
        """Tell whether the buyer had an order for such leads in any of the versions."""
        return any(tried.reasons for tried in self.tried)


def why_of(read: LeadEntries, buyer_id: str, markets: Markets) -> Why:
    """Explain a lead's decisions to sell for one buyer; raise `DoesNotFollow` where the log contradicts itself."""
    steps = list(steps_of(read.entries))
    deadlines = _deadlines(steps)
    answers = [answer for step in steps for answer in _answers(step, buyer_id, deadlines, markets)]
    return Why(
        lead_id=read.lead_id,
        buyer_id=buyer_id,
        lead_type=_lead_type(steps),
        answers=answers,
    )


def why_json(why: Why) -> dict[str, Any]:
    """Write it for machines."""
    return {
        "lead_id": why.lead_id,
        "buyer": why.buyer_id,
        "lead_type": why.lead_type,
        "has_orders": why.has_orders,
        "answers": [
            _tried_json(answer) if isinstance(answer, Tried) else _remark_json(answer)
            for answer in why.answers
        ],
    }


def _answers(
    step: Step, buyer_id: str, deadlines: Mapping[int, int], markets: Markets
) -> Iterator[Tried | Remark]:
    for event in step.told:
        sentence = _sentence(event, buyer_id, deadlines)
        if sentence is not None:
            yield Remark(step=step, kind=type(event).__name__, sentence=sentence)
    for attempt in attempts_of(step):
        terms = Terms(
            market=markets.market(step.entry.market_version),
            accepted_market=markets.market(attempt.lead.market_version),
        )
        orders = orders_of(terms.market, buyer_id, attempt.lead.lead_type)
        yield Tried(attempt=attempt, reasons={order.id: explain(attempt, order, terms) for order in orders})


def _sentence(event: Event, buyer_id: str, deadlines: Mapping[int, int]) -> str | None:
    """Say what an event means to the buyer, if it is about it; what attempts say is not said twice."""
    if getattr(event, "buyer_id", None) != buyer_id:
        return None
    match event:
        case BidPlaced():
            prices = {"exclusive": event.exclusive_cents, "shared": event.shared_cents}
            named = [f"{decimal_amount(cents)} {mode}" for mode, cents in prices.items() if cents is not None]
            return f"{event.order_id} bid {' and '.join(named)}"
        case BidDeclined(reason=reason):
            return f"{buyer_id} answered that it does not bid (reason: {_words(reason)})"
        case BidVoided():
            return _void(event, deadlines)
        case OfferExpired():
            return f"{buyer_id} did not take its offer in time, and is not asked again"
        case OfferRejected(reason=reason):
            return f"{buyer_id} rejected its offer (reason: {_words(reason)}), and is not asked again"
        case LimitReached(order_id=order_id, limit=limit):
            until = "" if event.resumes_at_ms is None else f" until {iso_time(event.resumes_at_ms)}"
            return f"{order_id} was passed over for the first time since its {limit} is used up{until}"
        case CommandRefused(command=command, reason=reason):
            return f"{buyer_id} was refused: {_words(command)} (reason: {_words(reason)})"
        case _:
            return None


def _void(event: BidVoided, deadlines: Mapping[int, int]) -> str:
    deadline_ms = deadlines.get(event.auction_number)
    reason = _words(event.reason)
    if event.reason is VoidReason.LATE and deadline_ms is not None and event.answered_at_ms > deadline_ms:
        reason = f"late, by {event.answered_at_ms - deadline_ms} ms"
    return f"{event.buyer_id}'s answer in auction {event.auction_number} counted for nothing ({reason})"


def _deadlines(steps: Iterable[Step]) -> Mapping[int, int]:
    """Say by when bids were asked for, by auction."""
    return {
        event.auction_number: event.bids_until_ms
        for step in steps
        for event in step.told
        if isinstance(event, AuctionOpened)
    }


def _lead_type(steps: Iterable[Step]) -> str | None:
    return next(
        (event.lead_type for step in steps for event in step.told if isinstance(event, LeadListed)), None
    )


def _tried_json(tried: Tried) -> dict[str, Any]:
    attempt = tried.attempt
    entry = attempt.step.entry
    return {
        "kind": "attempt",
        "seq": entry.seq,
        "at": iso_time(entry.decided_at_ms),
        "stage": attempt.lead.stage + 1,
        "auction": None if attempt.auction is None else attempt.auction.number,
        "market_version": entry.market_version,
        "no_room": list(entry.no_room),
        "orders": [
            {"order": order_id, "decisive": reason.decisive, "sentence": reason.sentence}
            for order_id, reason in tried.reasons.items()
        ],
    }


def _remark_json(remark: Remark) -> dict[str, Any]:
    entry = remark.step.entry
    return {
        "kind": remark.kind,
        "seq": entry.seq,
        "at": iso_time(entry.decided_at_ms),
        "sentence": remark.sentence,
    }


def _words(code: str) -> str:
    return code.replace("_", " ")
