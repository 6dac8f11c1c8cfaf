"""What a market may not promise, and what it says though hardly anybody means it: rules over the typed
market.

Pure: it knows the market alone, neither files nor lines. A path here is that of the file, with a plan by its
name and a stage by its number from 1; `needs` names a further entry whose reading must have succeeded for the
rule to say anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

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
from services.contract.times import decimal_amount
from services.market.errors import did_you_mean, one_of
from services.market.fields import duration_text

SALES_MAX_MAX = 10
PLANS_MAX = 100
STAGES_MAX = 20
TRIES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that an entry breaks."""

    path: str
    value: str
    reason: str
    needs: str = ""


def errors(market: Market) -> Iterator[Breach]:
    """Find every promise that this market could not keep."""
    for lead_type in market.lead_types.values():
        yield from _lead_type_errors(market, lead_type)
    for source in market.sources.values():
        yield from _source_errors(market, source)
    for order in orders_of(market):
        yield from _order_errors(market, order)


def orders_of(market: Market) -> Iterator[Order]:
    """List the orders of all buyers."""
    for buyer in market.buyers.values():
        yield from buyer.orders


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
            yield from _stage_errors(f"{plan_path}.stages.{number}", stage, market)


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
    tried = sum(stage.keep_trying.for_ms for stage in plan.stages if stage.keep_trying)
    longest = held + tried + sum(stage.wait_ms or 0 for stage in plan.stages)
    return longest if plan.expires_after_ms is None else min(longest, plan.expires_after_ms)


def _stage_errors(path: str, stage: Stage, market: Market) -> Iterator[Breach]:
    prices = stage.prices.shared or ()
    if any(later > earlier for earlier, later in pairwise(prices)):
        shown = f"[{', '.join(map(decimal_amount, prices))}]"
        at = f"{path}.price.shared" if stage.sell is Sell.EITHER else f"{path}.price"
        yield Breach(
            at, shown, "expected prices that never rise: who buys later holds an older, wider known lead"
        )
    if stage.sell is Sell.SHARED and stage.exclusive_for_ms is not None:
        reason = "expected it only where the stage sells exclusive: a shared lead is nobody's alone"
        yield Breach(f"{path}.exclusive_for", duration_text(stage.exclusive_for_ms), reason)
    yield from _unknown(f"{path}.only", stage.only, market.buyers, "buyer")
    yield from _keep_trying_errors(f"{path}.keep_trying", stage)


def _keep_trying_errors(path: str, stage: Stage) -> Iterator[Breach]:
    trying = stage.keep_trying
    if trying is None:
        return
    if trying.every_ms == 0:
        yield Breach(f"{path}.every", "0s", "expected a pause between two tries")
    elif trying.for_ms // trying.every_ms > TRIES_MAX:
        yield Breach(f"{path}.for", duration_text(trying.for_ms), f"expected at most {TRIES_MAX} tries")
    if trying.for_ms == 0:
        yield Breach(f"{path}.for", "0s", "expected some time to try in")


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


def _order_errors(market: Market, order: Order) -> Iterator[Breach]:
    path = order_path(order)
    yield from _unknown(f"{path}.lead_type", [order.lead_type], market.lead_types, "lead type")
    lead_type = market.lead_types.get(order.lead_type)
    if lead_type is not None:
        yield from _undeclared(f"{path}.where", order.where, lead_type)
    if order.holders_max is not None and order.holders_max < 1:
        reason = "expected at least 1: the buyer itself holds the lead"
        yield Breach(f"{path}.holders_max", str(order.holders_max), reason)
