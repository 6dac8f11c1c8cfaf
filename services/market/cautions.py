"""What a market may say though hardly anybody means it: its author is warned, and may apply it all the same.

Pure, like `checks`, and only asked of a market that `checks` has nothing against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.contract.fields import QUALITY_MAX
from services.contract.market import FixedPrice, LeadType, Market, Order, Plan, Price, Sell, Stage
from services.market.checks import Breach, order_path, orders_of
from services.market.fields import duration_text


def warnings(market: Market) -> Iterator[Breach]:
    """Find what is allowed and probably not meant."""
    for lead_type in market.lead_types.values():
        yield from _lead_type_warnings(market, lead_type)
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
    least = _least_sales_max(plan, lead_type.name, market)
    orders = [order for order in orders_of(market) if order.lead_type == lead_type.name]
    for number, stage in enumerate(plan.stages, start=1):
        if not any(_may_buy(order, stage, least) for order in orders):
            yield Breach(
                f"{path}.stages.{number}", stage.sell, "no order of this market can ever buy in this stage"
            )


def _order_warnings(market: Market, order: Order) -> Iterator[Breach]:
    lead_type = market.lead_types.get(order.lead_type)
    if lead_type is None or any(
        _may_buy(order, stage, _least_sales_max(plan, lead_type.name, market))
        for plan in lead_type.plans
        for stage in plan.stages
    ):
        return
    reason = "no plan can serve it: no stage open to it sells its mode, at its price, to so few holders"
    yield Breach(order_path(order), order.lead_type, reason)


def _may_buy(order: Order, stage: Stage, least_sales_max: int) -> bool:
    """Tell whether a stage could sell to an order at all, filters aside."""
    if stage.only and order.buyer_id not in stage.only:
        return False
    if order.holders_max is not None and order.holders_max < least_sales_max:
        return False
    exclusive, shared = stage.prices.exclusive, stage.prices.shared
    return _pays(order.takes.exclusive, exclusive) or _pays(
        order.takes.shared, shared[-1] if shared else None
    )


def _pays(price: Price | None, floor_cents: int | None) -> bool:
    if price is None or floor_cents is None:
        return False
    return not isinstance(price, FixedPrice) or price.cents >= floor_cents


def _least_sales_max(plan: Plan, lead_type: str, market: Market) -> int:
    """The lowest cap that a lead of this plan can have by its source; a submission may lower it further."""
    lowered = [
        source.sales_max
        for source in market.sources.values()
        if source.sales_max is not None and lead_type in source.lead_types
    ]
    return min([plan.sales_max, *lowered])
