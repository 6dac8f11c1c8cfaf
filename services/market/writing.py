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
    AnyOf,
    Buyer,
    Condition,
    FieldKind,
    FieldType,
    FixedPrice,
    LeadType,
    Market,
    Order,
    Plan,
    Price,
    Prices,
    Source,
    Stage,
    Where,
)
from services.contract.times import decimal_amount
from services.market.fields import duration_text, number_text, share_text

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
        plans=[_plan(plan, kinds) for plan in lead_type.plans],
    )


def _kind(kind: FieldKind) -> Plain:
    return list(kind.choices) if kind.type is FieldType.CHOICE else kind.type.value


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
    trying = stage.keep_trying
    return _said(
        sell=stage.sell.value,
        only=list(stage.only) or None,
        price=_prices(stage.prices),
        by=stage.by.value,
        wait=_duration(stage.wait_ms),
        accept_within=_duration(stage.accept_within_ms),
        exclusive_for=_duration(stage.exclusive_for_ms),
        keep_trying=_said(every=_duration(trying.every_ms), for_=_duration(trying.for_ms))
        if trying
        else None,
    )


def _prices(prices: Prices) -> Plain:
    exclusive = None if prices.exclusive is None else decimal_amount(prices.exclusive)
    shared = None if prices.shared is None else _list(prices.shared)
    if exclusive is not None and shared is not None:
        return {"exclusive": exclusive, "shared": shared}
    return exclusive or shared or {}


def _list(prices: tuple[int, ...]) -> Plain:
    amounts: list[Plain] = [decimal_amount(cents) for cents in prices]
    return amounts[0] if len(amounts) == 1 else amounts


def _source(source: Source) -> Plain:
    return _said(
        lead_types=list(source.lead_types),
        sales_max=None if source.sales_max is None else str(source.sales_max),
        never_to=list(source.never_to) or None,
        paused=_yes_no(source.paused),
    )


def _buyer(buyer: Buyer, market: Market) -> Plain:
    return _said(
        timezone=buyer.timezone,
        deliver={"kafka": "json"},
        paused=_yes_no(buyer.paused),
        orders={order.id.partition("/")[2]: _order(order, market) for order in buyer.orders},
    )


def _order(order: Order, market: Market) -> Plain:
    kinds = market.lead_types[order.lead_type].details
    return _said(
        lead_type=order.lead_type,
        where=_where(order.where, kinds) or None,
        takes=_said(exclusive=_price(order.takes.exclusive), shared=_price(order.takes.shared)),
        priority=str(order.priority),
        weight=str(order.weight),
        holders_max=None if order.holders_max is None else str(order.holders_max),
        paused=_yes_no(order.paused),
    )


def _price(price: Price | None) -> str | None:
    if price is None:
        return None
    return decimal_amount(price.cents) if isinstance(price, FixedPrice) else "list"


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
