"""Which orders could ever buy in which stage, filters aside, and what a lead can bring at most.

Pure. It tells what is possible and not what happens: that is for the router.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.contract.market import (
    BidPrice,
    FixedPrice,
    LeadType,
    ListPrice,
    Market,
    Mode,
    Order,
    Plan,
    Price,
    Selection,
    Source,
    Stage,
    Unit,
)
from services.market.stage_checks import list_price
from services.market.stages import MODES


def orders_of(market: Market) -> Iterator[Order]:
    """List the orders of all buyers."""
    for buyer in market.buyers.values():
        yield from buyer.orders


def price_of(order: Order, mode: Mode) -> Price | None:
    """Give what an order pays in a mode; None: it takes no lead that way."""
    return order.takes.exclusive if mode is Mode.EXCLUSIVE else order.takes.shared


def bids(order: Order, mode: Mode) -> bool:
    """Tell whether an order answers pings for a mode; who always upgrades can't, as an auction sells slots at once."""
    is_bid = isinstance(price_of(order, mode), BidPrice)
    return is_bid and not (mode is Mode.SHARED and order.upgrade_always)


def asks_for_bids(stage: Stage, mode: Mode) -> bool:
    """Tell whether a stage sends pings to those who bid in a mode."""
    return stage.selection is not Selection.DIRECT and mode in MODES[stage.sell]


def may_buy(order: Order, plan: Plan, stage: Stage, market: Market) -> bool:
    """Tell whether a stage could sell to an order at all."""
    if stage.only and order.buyer_id not in stage.only:
        return False
    if order.holders_max is not None and order.holders_max < _least_sales_max(plan, order.lead_type, market):
        return False
    return any(_may_buy_as(mode, order, plan, stage) for mode in MODES[stage.sell])


def most_cents(lead_type: LeadType, source: Source, market: Market) -> int | None:
    """Give more than all sales of one such lead can bring, in minor units; None: who bids may pay any price."""
    orders = [order for order in orders_of(market) if order.lead_type == lead_type.name]
    own = [
        price.cents
        for order in orders
        for mode in Mode
        if isinstance(price := price_of(order, mode), FixedPrice)
    ]
    most = 0
    for plan in lead_type.plans:
        if any(_is_bid_for(stage, orders) for stage in plan.stages):
            return None
        sales = plan.sales_max if source.sales_max is None else min(plan.sales_max, source.sales_max)
        most = max(
            most, sales * max([*own, *(price for stage in plan.stages for price in _asked(stage))], default=0)
        )
    return most


def _may_buy_as(mode: Mode, order: Order, plan: Plan, stage: Stage) -> bool:
    if mode is Mode.SHARED and order.upgrade_always and (stage.upgrade is None or plan.sales_max == 1):
        # It takes a shared lead only where it can have the other slots with it.
        return False
    match price_of(order, mode):
        case None:
            return False
        case BidPrice():
            return asks_for_bids(stage, mode)
        case FixedPrice(cents=cents):
            return cents >= _floor(stage, mode) and cents <= _spend_max(order)
        case ListPrice():
            listed = list_price(stage, mode)
            return listed is not None and listed <= _spend_max(order)


def _floor(stage: Stage, mode: Mode) -> int:
    floor = stage.floor.exclusive if mode is Mode.EXCLUSIVE else stage.floor.shared
    return floor if floor is not None else list_price(stage, mode) or 0


def _spend_max(order: Order) -> float:
    return min((cap.most for cap in order.caps if cap.unit is Unit.SPEND), default=float("inf"))


def _is_bid_for(stage: Stage, orders: list[Order]) -> bool:
    return any(bids(order, mode) and asks_for_bids(stage, mode) for order in orders for mode in Mode)


def _asked(stage: Stage) -> Iterator[int]:
    if stage.prices.exclusive is not None:
        yield stage.prices.exclusive
    yield from stage.prices.shared or ()
    if stage.upgrade is not None:
        yield stage.upgrade.per_slot_cents


def _least_sales_max(plan: Plan, lead_type: str, market: Market) -> int:
    """The lowest cap that a lead of this plan can have by its source; a submission may lower it further."""
    lowered = [
        source.sales_max
        for source in market.sources.values()
        if source.sales_max is not None and lead_type in source.lead_types
    ]
    return min([plan.sales_max, *lowered])
