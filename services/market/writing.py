"""Writes a market as people write one: the same keys and units as the file, with every default said.

What is written here, read again, is the same market. The tree of text that it makes of a market on the way is also
what two markets are compared by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import yaml

from services.contract.fields import AGE, QUALITY
from services.contract.market import (
    Account,
    AnyOf,
    BidPrice,
    Buyer,
    Cap,
    Condition,
    Deliver,
    FieldKind,
    FieldType,
    FixedPrice,
    LeadType,
    ListPrice,
    Market,
    OpenHours,
    Order,
    Paid,
    PerLead,
    Plan,
    Price,
    Returns,
    Sell,
    ShareOfRevenue,
    Source,
    Stage,
    Unit,
    Where,
)
from services.contract.times import decimal_amount
from services.market.buyers import PREPAID
from services.market.fields import duration_text, number_text, share_text
from services.market.hours import days_text, range_text

Plain: TypeAlias = "str | Sequence[Plain] | Mapping[str, Plain]"
"""A market file's content, each scalar as text."""

_Kinds: TypeAlias = Mapping[str, FieldKind]

LINE_MAX = 110

# It resolves nothing, so it sees no reason to put quotes around NO or 01234, nor do our readers.
_DUMPER = getattr(yaml, "CBaseDumper", yaml.BaseDumper)


def plain(market: Market) -> dict[str, Plain]:
    """Give the content of the one file that would say all of this market."""
    return {
        "market": {"currency": market.currency, "timezone": market.timezone},
        "lead_types": {name: _lead_type(lead_type) for name, lead_type in sorted(market.lead_types.items())},
        "sources": {name: _source(source) for name, source in sorted(market.sources.items())},
        "buyers": {name: _buyer(buyer, market) for name, buyer in sorted(market.buyers.items())},
    }


def market_text(market: Market) -> str:
    """Write a market as YAML."""
    node = _node(plain(market), depth=0)
    return str(yaml.serialize(node, Dumper=_DUMPER, allow_unicode=True, width=LINE_MAX))


def one_line(value: Plain) -> str:
    """Write a part of a market on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return f"[{', '.join(map(one_line, value))}]"
    return "{" + ", ".join(f"{key}: {one_line(item)}" for key, item in value.items()) + "}"


def _node(value: Plain, depth: int) -> yaml.Node:
    if isinstance(value, str):
        return yaml.ScalarNode("tag:yaml.org,2002:str", value)
    # Sections and their entries stand below each other; what is smaller stands on one line where it fits.
    flow = not value or (depth > 1 and len(one_line(value)) + 4 * depth < LINE_MAX - 20)
    if isinstance(value, Sequence):
        items = [_node(item, depth + 1) for item in value]
        return yaml.SequenceNode("tag:yaml.org,2002:seq", items, flow_style=flow)
    pairs = [(_node(key, depth), _node(item, depth + 1)) for key, item in value.items()]
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=flow)


def _said(**values: Plain | None) -> dict[str, Plain]:
    """Leave out what isn't there; a trailing underscore is for keys that are Python's words."""
    return {key.rstrip("_"): value for key, value in values.items() if value is not None}


def _lead_type(lead_type: LeadType) -> Plain:
    kinds = lead_type.details
    return _said(
        contact=list(lead_type.contact),
        details={name: _kind(kind) for name, kind in sorted(kinds.items())},
        ping=list(lead_type.ping),
        score=[{"points": str(rule.points), "when": _where(rule.when, kinds)} for rule in lead_type.score]
        or None,
        duplicate_within=duration_text(lead_type.duplicate_within_ms),
        contact_kept=duration_text(lead_type.contact_kept_ms),
        one_to_one_consent=_yes_no(lead_type.one_to_one_consent),
        returns=None if lead_type.returns is None else _returns(lead_type.returns),
        plans=[_plan(plan, kinds) for plan in lead_type.plans],
    )


def _kind(kind: FieldKind) -> Plain:
    return list(kind.choices) if kind.type is FieldType.CHOICE else kind.type.value


def _returns(returns: Returns) -> Plain:
    return _said(
        within=duration_text(returns.within_ms),
        reasons=list(returns.reasons),
        quota=None if returns.quota_basis_points is None else share_text(returns.quota_basis_points),
        approve="automatic" if returns.automatic else "operator",
    )


def _plan(plan: Plan, kinds: _Kinds) -> Plain:
    return _said(
        name=plan.name,
        when=_where(plan.when, kinds) or None,
        share=share_text(plan.share_basis_points),
        sales_max=str(plan.sales_max),
        expires_after=_duration(plan.expires_after_ms),
        stages=[_stage(stage) for stage in plan.stages],
    )


def _stage(stage: Stage) -> Plain:
    trying, upgrade = stage.keep_trying, stage.upgrade
    return _said(
        sell=stage.sell.value,
        only=list(stage.only) or None,
        selection=stage.selection.value,
        bid_window=_duration(stage.bid_window_ms),
        price=_by_mode(stage, _amount(stage.prices.exclusive), _list(stage.prices.shared)),
        floor=_by_mode(stage, _amount(stage.floor.exclusive), _amount(stage.floor.shared)),
        by=stage.by.value,
        wait=_duration(stage.wait_ms),
        accept_within=_duration(stage.accept_within_ms),
        exclusive_for=_duration(stage.exclusive_for_ms),
        upgrade=_said(per_slot=_amount(upgrade.per_slot_cents), within=_duration(upgrade.within_ms))
        if upgrade
        else None,
        keep_trying=_said(every=_duration(trying.every_ms), for_=_duration(trying.for_ms))
        if trying
        else None,
    )


def _by_mode(stage: Stage, exclusive: Plain | None, shared: Plain | None) -> Plain | None:
    """Name the modes only where the stage sells both of them."""
    if stage.sell is Sell.EITHER:
        return _said(exclusive=exclusive, shared=shared) or None
    return exclusive if stage.sell is Sell.EXCLUSIVE else shared


def _list(prices: tuple[int, ...] | None) -> Plain | None:
    if prices is None:
        return None
    amounts: list[Plain] = [decimal_amount(cents) for cents in prices]
    return amounts[0] if len(amounts) == 1 else amounts


def _amount(cents: int | None) -> str | None:
    return None if cents is None else decimal_amount(cents)


def _source(source: Source) -> Plain:
    return _said(
        lead_types=list(source.lead_types),
        paid=None if source.paid is None else _paid(source.paid),
        sales_max=None if source.sales_max is None else str(source.sales_max),
        never_to=list(source.never_to) or None,
        paused=_yes_no(source.paused),
    )


def _paid(paid: Paid) -> Plain:
    back_on_return = _yes_no(paid.back_on_return)
    match paid.by:
        case PerLead(cents=cents):
            return {"per_lead": decimal_amount(cents), "back_on_return": back_on_return}
        case ShareOfRevenue(basis_points=basis_points):
            return {"share_of_revenue": share_text(basis_points), "back_on_return": back_on_return}


def _buyer(buyer: Buyer, market: Market) -> Plain:
    return _said(
        timezone=buyer.timezone,
        account=None if buyer.account is None else _account(buyer.account),
        deliver=_deliver(buyer.deliver),
        pings_per_minute=None if buyer.pings_per_minute is None else str(buyer.pings_per_minute),
        paused=_yes_no(buyer.paused),
        orders={order.id.partition("/")[2]: _order(order, market) for order in buyer.orders},
    )


def _account(account: Account) -> Plain:
    if account == PREPAID:
        return {"prepaid": "yes"}
    return {"credit_limit": decimal_amount(account.credit_limit_cents)}


def _deliver(deliver: Deliver) -> Plain:
    return {"kafka": deliver.encoding.value} if deliver.webhook is None else {"webhook": deliver.webhook}


def _order(order: Order, market: Market) -> Plain:
    kinds = market.lead_types[order.lead_type].details
    return _said(
        lead_type=order.lead_type,
        where=_where(order.where, kinds) or None,
        takes=_said(exclusive=_price(order.takes.exclusive), shared=_price(order.takes.shared)),
        upgrade="always" if order.upgrade_always else None,
        caps={cap.name: _most(cap) for cap in order.caps} or None,
        open=_open(order.open) or None,
        priority=str(order.priority),
        weight=str(order.weight),
        holders_max=None if order.holders_max is None else str(order.holders_max),
        paused=_yes_no(order.paused),
    )


def _most(cap: Cap) -> str:
    return str(cap.most) if cap.unit is Unit.LEADS else decimal_amount(cap.most)


def _open(hours: tuple[OpenHours, ...]) -> dict[str, Plain]:
    ranges: dict[str, list[Plain]] = {}
    for span in hours:
        ranges.setdefault(days_text(span.days), []).append(range_text(span))
    return {days: found[0] if len(found) == 1 else found for days, found in ranges.items()}


def _price(price: Price | None) -> str | None:
    match price:
        case None:
            return None
        case FixedPrice(cents=cents):
            return decimal_amount(cents)
        case ListPrice():
            return "list"
        case BidPrice():
            return "bid"


def _where(where: Where, kinds: _Kinds) -> dict[str, Plain]:
    return {name: _condition(name, condition, kinds) for name, condition in where}


def _condition(name: str, condition: Condition, kinds: _Kinds) -> Plain:
    if isinstance(condition, AnyOf):
        values = sorted(condition.values)
        return values[0] if len(values) == 1 else values
    return _said(from_=_bound(name, condition.low, kinds), to=_bound(name, condition.high, kinds))


def _bound(name: str, value: int | None, kinds: _Kinds) -> str | None:
    if value is None:
        return None
    if name == AGE:
        return duration_text(value)
    if name == QUALITY:
        return str(value)
    return decimal_amount(value) if kinds[name].type is FieldType.AMOUNT else number_text(value)


def _duration(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else duration_text(milliseconds)


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
