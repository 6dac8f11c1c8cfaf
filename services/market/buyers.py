"""Reads buyers with their accounts, and their orders with what they pay, how much of it, and when."""

from __future__ import annotations

from collections.abc import Mapping

from services.contract.fields import FieldError
from services.contract.market import (
    Account,
    BidPrice,
    Buyer,
    Cap,
    Deliver,
    Encoding,
    FixedPrice,
    ListPrice,
    Order,
    Period,
    Price,
    Takes,
    Unit,
)
from services.market.fields import identifier, price_cents, timezone_name, webhook_url, whole, word, yes_no
from services.market.filters import Fields, where
from services.market.hours import open_hours
from services.market.names import named
from services.market.tree import At, Keys

BUYER_KEYS = ("timezone", "account", "deliver", "pings_per_minute", "paused", "orders")
ACCOUNT_KEYS = ("prepaid", "credit_limit")
DELIVER_KEYS = ("kafka", "webhook")
ORDER_KEYS = (
    "lead_type",
    "where",
    "takes",
    "upgrade",
    "caps",
    "open",
    "priority",
    "weight",
    "holders_max",
    "paused",
)

PREPAID = Account(credit_limit_cents=0)

_CAPS: Mapping[str, tuple[Unit, Period]] = {
    Cap(unit=unit, period=period, most=1).name: (unit, period) for unit in Unit for period in Period
}
CAP_KEYS = tuple(_CAPS)

_ENCODINGS = {encoding.value: encoding for encoding in Encoding}
_UPGRADE = {"always": True}


def buyer(at: At, name: str, fields: Mapping[str, Fields]) -> Buyer:
    """Read one buyer; `fields` are those of each lead type that filters may name."""
    keys = at.keys(BUYER_KEYS)
    orders = named(keys, "orders", lambda order, order_name: _order(order, name, order_name, fields))
    account, deliver = keys.node("account"), keys.node("deliver")
    return Buyer(
        id=name,
        timezone=keys.required("timezone", timezone_name, ""),
        # Sorted, so that moving an order about in the file makes no other market.
        orders=tuple(order for _, order in sorted(orders.items())),
        paused=keys.optional("paused", yes_no, False),
        account=_account(account) if account else None,
        deliver=_deliver(deliver) if deliver else Deliver(),
        pings_per_minute=keys.optional("pings_per_minute", whole(1), None),
    )


def _account(at: At) -> Account:
    keys = at.keys(ACCOUNT_KEYS)
    if keys.one_of(*ACCOUNT_KEYS) == "credit_limit":
        return Account(credit_limit_cents=keys.required("credit_limit", price_cents, 1))
    if not keys.optional("prepaid", yes_no, True):
        at.wrong("expected prepaid: yes, or a credit_limit; owing any amount is to have no account here")
    return PREPAID


def _deliver(at: At) -> Deliver:
    keys = at.keys(DELIVER_KEYS)
    if keys.one_of(*DELIVER_KEYS) == "webhook":
        return Deliver(webhook=keys.required("webhook", webhook_url, None))
    return Deliver(encoding=keys.optional("kafka", word(_ENCODINGS), Encoding.JSON))


def _order(at: At, buyer_id: str, name: str, fields: Mapping[str, Fields]) -> Order:
    keys = at.keys(ORDER_KEYS)
    type_name = keys.required("lead_type", identifier, "")
    filters, takes = keys.node("where"), keys.required_node("takes")
    caps, hours = keys.node("caps"), keys.node("open")
    known = fields.get(type_name)
    return Order(
        id=f"{buyer_id}/{name}",
        buyer_id=buyer_id,
        lead_type=type_name,
        takes=_takes(takes) if takes else Takes(),
        # Without the lead type, which `checks` misses, no field has a kind to be read by.
        where=where(filters, known) if filters and known else (),
        priority=keys.optional("priority", whole(0), 100),
        weight=keys.optional("weight", whole(1), 1),
        holders_max=keys.optional("holders_max", whole(0), None),
        paused=keys.optional("paused", yes_no, False),
        caps=_caps(caps) if caps else (),
        open=open_hours(hours) if hours else (),
        upgrade_always=keys.optional("upgrade", word(_UPGRADE), False),
    )


def _caps(at: At) -> tuple[Cap, ...]:
    keys = at.keys(CAP_KEYS)
    if keys.is_mapping and not keys.found:
        at.wrong("expected a cap, as in {leads_per_day: 25}; for none leave out `caps`")
    return tuple(
        Cap(unit=unit, period=period, most=_most(keys, name, unit))
        for name, (unit, period) in _CAPS.items()
        if name in keys
    )


def _most(keys: Keys, name: str, unit: Unit) -> int:
    return keys.required(name, whole(1) if unit is Unit.LEADS else price_cents, 1)


def _takes(at: At) -> Takes:
    keys = at.keys(("exclusive", "shared"))
    if keys.is_mapping and not keys.found:
        at.wrong("expected exclusive, shared or both, as in {exclusive: 95.00, shared: list}")
    return Takes(
        exclusive=keys.optional("exclusive", _price, None), shared=keys.optional("shared", _price, None)
    )


def _price(text: str) -> Price:
    if text == "list":
        return ListPrice()
    if text == "bid":
        return BidPrice()
    try:
        return FixedPrice(cents=price_cents(text))
    except FieldError as error:
        raise FieldError(f"{error}, list for the stage's price, or bid for answers to pings") from error
