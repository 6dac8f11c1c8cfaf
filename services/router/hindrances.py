"""Says what keeps a standing order from being a candidate for a lead: all that `selling.candidates` asks, one by one.

Pure, and of no effect on any decision. What an order pays and who came before it is for `why`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.contract.fields import AGE, QUALITY, matches
from services.contract.market import (
    AnyOf,
    Buyer,
    Condition,
    FieldKind,
    FieldType,
    LeadType,
    Market,
    Order,
    Stage,
)
from services.contract.times import decimal_amount, duration_for_people
from services.router.attempts import Attempt
from services.router.hours import is_open


class Decisive(StrEnum):
    """What decided for or against an order."""

    SOLD = "sold"
    OFFERED = "offered"
    ASKED = "asked"
    PAUSED = "paused"
    CURRENCY = "currency"
    HOLDS = "holds"
    PASSED = "passed"
    EXCLUDED = "excluded"
    NOT_CONSENTED = "not_consented"
    FILTER = "filter"
    HOLDERS_MAX = "holders_max"
    STAGE = "stage"
    HOURS = "hours"
    NO_ROOM = "no_room"
    MODE = "mode"
    PRICE = "price"
    BID = "bid"
    RANK = "rank"
    DEALT = "dealt"
    WAITS = "waits"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Reason:
    """What decided, and how it is told to people."""

    decisive: Decisive
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The versions of the market that an attempt was made under: the one in force, and the one that the lead keeps."""

    market: Market
    accepted_market: Market

    def stage(self, attempt: Attempt) -> Stage:
        """Find the stage that tried."""
        lead = attempt.lead
        plans = self.accepted_market.lead_types[lead.lead_type].plans
        return next(plan for plan in plans if plan.name == lead.plan).stages[lead.stage]


def hindrance(attempt: Attempt, order: Order, stage: Stage, terms: Terms) -> Reason | None:
    """Say what kept an order from being a candidate; None: it was one."""
    buyer = terms.market.buyers[order.buyer_id]
    return (
        _not_standing(order, buyer, terms)
        or _knows_it(attempt, order)
        or _filtered(attempt, order, terms.market.lead_types[order.lead_type])
        or _kept_out(attempt, order, buyer, stage)
    )


def _not_standing(order: Order, buyer: Buyer, terms: Terms) -> Reason | None:
    if order.paused:
        return Reason(Decisive.PAUSED, "was paused")
    if buyer.paused:
        return Reason(Decisive.PAUSED, f"{buyer.id} was paused, and all of its orders with it")
    if terms.market.currency != terms.accepted_market.currency:
        was = terms.accepted_market.currency
        return Reason(Decisive.CURRENCY, f"pays in {terms.market.currency}; the lead was accepted for {was}")
    return None


def _knows_it(attempt: Attempt, order: Order) -> Reason | None:
    lead, buyer_id = attempt.lead, order.buyer_id
    sale = lead.sale_of(buyer_id)
    if sale is not None:
        return Reason(Decisive.HOLDS, f"{buyer_id} held it already, by order {sale.order_id}")
    if buyer_id in lead.passed:
        return Reason(Decisive.PASSED, f"{buyer_id} had passed on it before")
    if buyer_id in lead.never_to:
        return Reason(Decisive.EXCLUDED, f"{lead.source_id}, its source, never sells to {buyer_id}")
    if lead.consented_buyers and buyer_id not in lead.consented_buyers:
        named = ", ".join(lead.consented_buyers)
        return Reason(Decisive.NOT_CONSENTED, f"the person consented to {named} only")
    return None


def _filtered(attempt: Attempt, order: Order, lead_type: LeadType) -> Reason | None:
    lead = attempt.lead
    age_ms = attempt.judged_at_ms - lead.created_at_ms
    for name, condition in order.where:
        if not _meets(name, condition, attempt, lead_type, age_ms):
            found = _found(name, attempt, age_ms)
            wanted = condition_text(name, condition, lead_type.details.get(name))
            return Reason(Decisive.FILTER, f"filter {name}: it wants {wanted}, and the lead has {found}")
    if order.holders_max is not None and order.holders_max < lead.sales_max:
        return Reason(
            Decisive.HOLDERS_MAX,
            f"takes no lead that more than {order.holders_max} may get, and this one up to {lead.sales_max} may",
        )
    return None


def _meets(name: str, condition: Condition, attempt: Attempt, lead_type: LeadType, age_ms: int) -> bool:
    lead = attempt.lead
    try:
        return matches(((name, condition),), lead.fields, lead_type.details, lead.quality, age_ms)
    except (ValueError, LookupError):
        # The field was of another kind when the lead was accepted: it meets no condition on the new one.
        return False


def _found(name: str, attempt: Attempt, age_ms: int) -> str:
    if name == QUALITY:
        return str(attempt.lead.quality)
    if name == AGE:
        return f"an age of {duration_for_people(age_ms - age_ms % 1_000)}"
    return attempt.lead.fields.get(name, "none")


def condition_text(name: str, condition: Condition, kind: FieldKind | None) -> str:
    """Write a condition for people, in its field's own unit."""
    if isinstance(condition, AnyOf):
        return " or ".join(sorted(condition.values))
    bounds = [
        f"{word} {_bound_text(name, bound, kind)}"
        for word, bound in (("from", condition.low), ("up to", condition.high))
        if bound is not None
    ]
    return " ".join(bounds) or "any"


def _bound_text(name: str, bound: int, kind: FieldKind | None) -> str:
    if name == AGE:
        return duration_for_people(bound)
    if name == QUALITY or kind is None:
        return str(bound)
    return decimal_amount(bound) if kind.type is FieldType.AMOUNT else f"{bound / 1_000:g}"


def _kept_out(attempt: Attempt, order: Order, buyer: Buyer, stage: Stage) -> Reason | None:
    if stage.only and order.buyer_id not in stage.only:
        return Reason(Decisive.STAGE, f"the stage sells to {', '.join(stage.only)} only")
    if not is_open((buyer.timezone, order.open), attempt.judged_at_ms):
        return Reason(Decisive.HOURS, f"was outside its hours, by {buyer.timezone}'s clocks")
    if order.id in attempt.step.entry.no_room:
        return Reason(
            Decisive.NO_ROOM,
            "had no room: a cap or its buyer's account was used up, or its buyer could not be asked for bids now",
        )
    return None
