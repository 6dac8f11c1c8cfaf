"""What a market may say though hardly anybody means it: its author is warned, and may apply it all the same.

Pure, like `checks`, and only asked of a market that `checks` has nothing against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.contract.fields import QUALITY_MAX
from services.contract.market import (
    BidPrice,
    LeadType,
    Market,
    Mode,
    Order,
    Period,
    PerLead,
    Plan,
    Selection,
    Sell,
    Source,
    Stage,
    Unit,
)
from services.contract.times import decimal_amount
from services.market.checks import order_path
from services.market.errors import Breach
from services.market.fields import duration_text
from services.market.purchases import asks_for_bids, bids, may_buy, most_cents, orders_of

_WIDER = {
    Period.HOUR: frozenset({Period.DAY, Period.WEEK, Period.MONTH, Period.TOTAL}),
    Period.DAY: frozenset({Period.WEEK, Period.MONTH, Period.TOTAL}),
    # A week may lie in two months, and use what both of them allow.
    Period.WEEK: frozenset({Period.TOTAL}),
    Period.MONTH: frozenset({Period.TOTAL}),
    Period.TOTAL: frozenset[Period](),
}
"""The periods that each period lies wholly in."""


def warnings(market: Market) -> Iterator[Breach]:
    """Find what is allowed and probably not meant."""
    for lead_type in market.lead_types.values():
        yield from _lead_type_warnings(market, lead_type)
    for source in market.sources.values():
        yield from _payout_warnings(market, source)
    for order in orders_of(market):
        yield from _order_warnings(market, order)


def _lead_type_warnings(market: Market, lead_type: LeadType) -> Iterator[Breach]:
    path = f"lead_types.{lead_type.name}"
    points = sum(rule.points for rule in lead_type.score)
    if points > QUALITY_MAX:
        reason = f"points add up to more than {QUALITY_MAX}, where quality stops"
        yield Breach(f"{path}.score", str(points), reason)
    if lead_type.duplicate_within_ms and not {"email", "phone"} & set(lead_type.contact):
        reason = "a person is known again by email or phone, and this lead type has neither"
        yield Breach(f"{path}.duplicate_within", duration_text(lead_type.duplicate_within_ms), reason)
    yield from _reach_warnings(path, lead_type.plans)
    for plan in lead_type.plans:
        yield from _plan_warnings(f"{path}.plans.{plan.name}", plan)
        yield from _unbought(f"{path}.plans.{plan.name}", plan, lead_type, market)


def _takes_all(plan: Plan) -> bool:
    return not plan.when and plan.share_basis_points == 10_000


def _reach_warnings(path: str, plans: Sequence[Plan]) -> Iterator[Breach]:
    last = next((number for number, plan in enumerate(plans) if _takes_all(plan)), None)
    if last is None:
        reason = "no plan takes every lead: one that none of them takes closes unsold"
        yield Breach(f"{path}.plans", "", reason)
        return
    for plan in plans[last + 1 :]:
        reason = f"no lead gets as far: plan {plans[last].name} before it takes them all"
        yield Breach(f"{path}.plans.{plan.name}", plan.name, reason)


def _plan_warnings(path: str, plan: Plan) -> Iterator[Breach]:
    waited_ms = 0
    sold_shared = False
    for number, stage in enumerate(plan.stages, start=1):
        at = f"{path}.stages.{number}"
        waited_ms += stage.wait_ms or 0
        if plan.expires_after_ms is not None and waited_ms >= plan.expires_after_ms:
            yield Breach(
                at, stage.sell, f"it never starts: the plan expires {_after(plan)}, before its wait is over"
            )
        # A warning and no error, because the stage isn't dead: it sells what the stages before it left wholly
        # unsold. Most people who write this expect it to sell what is left after a shared sale, which rule 3
        # forbids.
        if stage.sell is Sell.EXCLUSIVE and sold_shared:
            yield Breach(at, stage.sell, "it sells only what the shared stages before it left wholly unsold")
        sold_shared = sold_shared or stage.sell is not Sell.EXCLUSIVE
        yield from _stage_warnings(at, plan, stage, is_last=number == len(plan.stages))


def _after(plan: Plan) -> str:
    return f"after {duration_text(plan.expires_after_ms or 0)}"


def _stage_warnings(path: str, plan: Plan, stage: Stage, *, is_last: bool) -> Iterator[Breach]:
    if stage.exclusive_for_ms is not None and (is_last or plan.sales_max == 1):
        reason = "nothing can follow when it ends, so the lead stays exclusive for good"
        yield Breach(f"{path}.exclusive_for", duration_text(stage.exclusive_for_ms), reason)
    if stage.keep_trying and 0 < stage.keep_trying.for_ms < stage.keep_trying.every_ms:
        every = duration_text(stage.keep_trying.every_ms)
        yield Breach(f"{path}.keep_trying", every, "the first repetition would come after the time to try in")
    if len(stage.prices.shared or ()) > plan.sales_max:
        reason = f"the list is longer than the plan's {plan.sales_max} buyers"
        yield Breach(f"{path}.price", str(len(stage.prices.shared or ())), reason)


def _unbought(path: str, plan: Plan, lead_type: LeadType, market: Market) -> Iterator[Breach]:
    orders = [order for order in orders_of(market) if order.lead_type == lead_type.name]
    for number, stage in enumerate(plan.stages, start=1):
        buying = [order for order in orders if may_buy(order, plan, stage, market)]
        if not buying:
            yield Breach(
                f"{path}.stages.{number}", stage.sell, "no order of this market can ever buy in this stage"
            )
        elif stage.selection is not Selection.DIRECT and not any(_bids_in(order, stage) for order in buying):
            reason = "no order that may buy here bids: standing orders decide at once, and nobody is asked"
            yield Breach(f"{path}.stages.{number}.selection", stage.selection, reason)


def _bids_in(order: Order, stage: Stage) -> bool:
    return any(bids(order, mode) and asks_for_bids(stage, mode) for mode in Mode)


def _order_warnings(market: Market, order: Order) -> Iterator[Breach]:
    lead_type = market.lead_types.get(order.lead_type)
    if lead_type is None:
        return
    path = order_path(order)
    unasked = list(_unasked(path, order, lead_type))
    yield from unasked
    if not unasked and not any(
        may_buy(order, plan, stage, market) for plan in lead_type.plans for stage in plan.stages
    ):
        reason = "no plan can serve it: no stage open to it sells its mode, at its price, to so few holders"
        yield Breach(path, order.lead_type, reason)
    yield from _upgrade_warnings(f"{path}.upgrade", order, lead_type)
    yield from _cap_warnings(f"{path}.caps", order)


def _unasked(path: str, order: Order, lead_type: LeadType) -> Iterator[Breach]:
    stages = [stage for plan in lead_type.plans for stage in plan.stages]
    for mode in Mode:
        if bids(order, mode) and not any(asks_for_bids(stage, mode) for stage in stages):
            reason = (
                f"no stage of {lead_type.name} that sells {mode} asks for bids, so it never buys that way"
            )
            yield Breach(f"{path}.takes.{mode}", "bid", reason)


def _upgrade_warnings(path: str, order: Order, lead_type: LeadType) -> Iterator[Breach]:
    if not order.upgrade_always:
        return
    if order.takes.shared is None:
        yield Breach(path, "always", "it takes no shared lead, and only a shared lead is upgraded")
    elif isinstance(order.takes.shared, BidPrice):
        reason = "it bids for shared leads, and an auction sells all slots at once: it never buys shared"
        yield Breach(path, "always", reason)
    elif not any(stage.upgrade for plan in lead_type.plans for stage in plan.stages):
        reason = f"no stage of {lead_type.name} has an upgrade, so it never buys shared"
        yield Breach(path, "always", reason)


def _cap_warnings(path: str, order: Order) -> Iterator[Breach]:
    for cap in order.caps:
        for wider in order.caps:
            if wider.unit is cap.unit and wider.period in _WIDER[cap.period] and wider.most <= cap.most:
                most = str(cap.most) if cap.unit is Unit.LEADS else decimal_amount(cap.most)
                yield Breach(f"{path}.{cap.name}", most, f"{wider.name} is no more, so this one never holds")
                break


def _payout_warnings(market: Market, source: Source) -> Iterator[Breach]:
    if source.paid is None or not isinstance(source.paid.by, PerLead):
        return
    cents = source.paid.by.cents
    for name in source.lead_types:
        lead_type = market.lead_types[name]
        most = most_cents(lead_type, source, market)
        if lead_type.plans and most is not None and cents > most:
            reason = f"more than any lead of {name} can bring, which is {decimal_amount(most)} at most"
            yield Breach(f"sources.{source.id}.paid.per_lead", decimal_amount(cents), reason)
