"""What a market may not promise: rules over the typed market.

Pure: it knows the market alone, neither files nor lines. A path here is that of the file, with a plan by its
name and a stage by its number from 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from services.contract.fields import DERIVED
from services.contract.market import (
    LeadType,
    Market,
    Order,
    Plan,
    Sell,
    Source,
    Stage,
    Where,
)
from services.market.errors import Breach, did_you_mean, one_of
from services.market.fields import duration_text
from services.market.purchases import orders_of
from services.market.stage_checks import stage_errors

SALES_MAX_MAX = 10
PLANS_MAX = 100
STAGES_MAX = 20

ORDERS_MAX = 2_000
"""Of one lead type. One entry of the log may name all of them, and a record of Kafka holds 1 MB."""


def errors(market: Market) -> Iterator[Breach]:
    """Find every promise that this market could not keep."""
    for lead_type in market.lead_types.values():
        yield from _lead_type_errors(market, lead_type)
    for source in market.sources.values():
        yield from _source_errors(market, source)
    yield from _too_many_orders(market)
    for order in orders_of(market):
        yield from _order_errors(market, order)


def order_path(order: Order) -> str:
    """Tell where an order stands in the file."""
    return f"buyers.{order.buyer_id}.orders.{order.id.removeprefix(order.buyer_id + '/')}"


def _lead_type_errors(market: Market, lead_type: LeadType) -> Iterator[Breach]:
    path = f"lead_types.{lead_type.name}"
    if len(lead_type.plans) > PLANS_MAX:
        yield Breach(f"{path}.plans", str(len(lead_type.plans)), f"expected at most {PLANS_MAX} plans")
    for plan in lead_type.plans:
        plan_path = f"{path}.plans.{plan.name}"
        yield from _undeclared(f"{plan_path}.when", plan.when, lead_type)
        yield from _plan_errors(plan_path, plan, lead_type)
        for number, stage in enumerate(plan.stages, start=1):
            stage_path = f"{plan_path}.stages.{number}"
            yield from stage_errors(stage_path, stage, plan)
            yield from _unknown(f"{stage_path}.only", stage.only, market.buyers, "buyer")
    yield from _returns_errors(path, lead_type)


def _undeclared(path: str, where: Where, lead_type: LeadType) -> Iterator[Breach]:
    """Find filters on what pings hide: being asked, or not, would tell a buyer what only a holder may know."""
    for name, _ in where:
        if name not in DERIVED and name not in lead_type.ping:
            reason = f"expected a field that pings show ({', '.join(lead_type.ping)}): add it to lead_types."
            yield Breach(
                f"{path}.{name}", name, f"{reason}{lead_type.name}.ping", f"lead_types.{lead_type.name}"
            )


def _plan_errors(path: str, plan: Plan, lead_type: LeadType) -> Iterator[Breach]:
    if not 1 <= plan.sales_max <= SALES_MAX_MAX:
        yield Breach(
            f"{path}.sales_max", str(plan.sales_max), f"expected 1 to {SALES_MAX_MAX} buyers at most"
        )
    elif plan.sales_max > 1 and all(stage.sell is Sell.EXCLUSIVE for stage in plan.stages):
        reason = "expected 1, or no sales_max: all stages sell exclusive, so nobody can be the second buyer"
        yield Breach(f"{path}.sales_max", str(plan.sales_max), reason)
    if len(plan.stages) > STAGES_MAX:
        yield Breach(f"{path}.stages", str(len(plan.stages)), f"expected at most {STAGES_MAX} stages")
    if lead_type.contact_kept_ms <= _longest_ms(plan):
        reason = (
            f"expected longer than plan {plan.name} may sell: a lead that the vault forgot can't be delivered"
        )
        kept = f"lead_types.{lead_type.name}.contact_kept"
        yield Breach(kept, duration_text(lead_type.contact_kept_ms), reason)


def _longest_ms(plan: Plan) -> int:
    """How long after acceptance a plan may still sell, offers aside: each stage takes all the time it may."""
    held = sum(stage.exclusive_for_ms or 0 for stage in plan.stages[:-1])
    longest = held + sum(map(_stage_ms, plan.stages))
    return longest if plan.expires_after_ms is None else min(longest, plan.expires_after_ms)


def _stage_ms(stage: Stage) -> int:
    tried = stage.keep_trying.for_ms if stage.keep_trying else 0
    upgrade = (stage.upgrade.within_ms or 0) if stage.upgrade else 0
    return (stage.wait_ms or 0) + tried + (stage.bid_window_ms or 0) + upgrade


def _returns_errors(path: str, lead_type: LeadType) -> Iterator[Breach]:
    if lead_type.returns is not None and lead_type.returns.within_ms > lead_type.contact_kept_ms:
        kept = duration_text(lead_type.contact_kept_ms)
        reason = f"expected at most contact_kept, {kept}: nobody can look into a lead that the vault forgot"
        yield Breach(f"{path}.returns.within", duration_text(lead_type.returns.within_ms), reason)


def _unknown(path: str, names: Iterable[str], known: Iterable[str], what: str) -> Iterator[Breach]:
    known = set(known)
    for name in names:
        if name not in known:
            yield Breach(
                path, name, f"expected a {what} of this market: {one_of(known)}{did_you_mean(name, known)}"
            )


def _source_errors(market: Market, source: Source) -> Iterator[Breach]:
    path = f"sources.{source.id}"
    yield from _unknown(f"{path}.lead_types", source.lead_types, market.lead_types, "lead type")
    yield from _unknown(f"{path}.never_to", source.never_to, market.buyers, "buyer")
    if source.sales_max is not None and not 1 <= source.sales_max <= SALES_MAX_MAX:
        yield Breach(
            f"{path}.sales_max", str(source.sales_max), f"expected 1 to {SALES_MAX_MAX} buyers at most"
        )


def _too_many_orders(market: Market) -> Iterator[Breach]:
    for name, count in Counter(order.lead_type for order in orders_of(market)).items():
        if count > ORDERS_MAX:
            reason = (
                f"expected at most {ORDERS_MAX} orders for it: all of them may have to fit into one record"
            )
            yield Breach(f"lead_types.{name}", str(count), reason)


def _order_errors(market: Market, order: Order) -> Iterator[Breach]:
    path = order_path(order)
    yield from _unknown(f"{path}.lead_type", [order.lead_type], market.lead_types, "lead type")
    lead_type = market.lead_types.get(order.lead_type)
    if lead_type is not None:
        yield from _undeclared(f"{path}.where", order.where, lead_type)
    if order.holders_max is not None and order.holders_max < 1:
        reason = "expected at least 1: the buyer itself holds the lead"
        yield Breach(f"{path}.holders_max", str(order.holders_max), reason)
