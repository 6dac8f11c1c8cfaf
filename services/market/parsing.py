"""Makes the typed market of a tree of text, and tells everything that is wrong with it at once.

It reads each key by its kind; what two entries promise each other is for `checks`. Keys and words that a
later release adds are refused by name. Pure: no file, no database, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from services.contract.fields import FieldError
from services.contract.market import (
    Buyer,
    FixedPrice,
    ListPrice,
    Market,
    Order,
    Price,
    Source,
    Takes,
)
from services.market.errors import NOT_YET, MarketError, Place
from services.market.fields import currency_code, identifier, price_cents, timezone_name, whole, word, yes_no
from services.market.filters import Fields, where
from services.market.plans import lead_type
from services.market.tree import At, Entries, Findings, Keys

T = TypeVar("T")

SECTIONS = ("market", "lead_types", "sources", "buyers")
SOURCE_KEYS = ("lead_types", "sales_max", "never_to", "paused")
SOURCE_KEYS_LATER = ("paid",)
BUYER_KEYS = ("timezone", "orders", "deliver", "paused")
BUYER_KEYS_LATER = ("account",)
ORDER_KEYS = ("lead_type", "where", "takes", "priority", "weight", "holders_max", "paused")
ORDER_KEYS_LATER = ("caps", "open", "upgrade")


@dataclass(frozen=True, slots=True)
class Draft:
    """A market as far as it could be read, in which stand-ins fill what is wrong; where each path stands."""

    market: Market
    errors: tuple[MarketError, ...]
    places: Mapping[str, Place]

    def place_of(self, path: str) -> Place:
        """Find the line of a path, or of the nearest entry around it when the file leaves it out."""
        while path not in self.places and path:
            path = path.rpartition(".")[0]
        return self.places[path]


def parse(root: Entries) -> Draft:
    """Read the whole market from its tree."""
    findings = Findings(places={"": root.place})
    keys = At(root, "", root.place, findings).keys(SECTIONS)
    types = _named(keys, "lead_types", lead_type)
    fields = {name: known for name, (_, known) in types.items()}
    head = keys.required_node("market")
    settings = head.keys(("currency", "timezone")) if head else None
    market = Market(
        version=0,
        currency=settings.required("currency", currency_code, "") if settings else "",
        timezone=settings.required("timezone", timezone_name, "") if settings else "",
        lead_types={name: read for name, (read, _) in types.items()},
        sources=_named(keys, "sources", _source),
        buyers=_named(keys, "buyers", lambda at, name: _buyer(at, name, fields)),
    )
    return Draft(market, tuple(findings.errors), findings.places)


def _named(keys: Keys, section: str, read: Callable[[At, str], T]) -> dict[str, T]:
    at = keys.node(section)
    if at is None:
        return {}
    found: dict[str, T] = {}
    for name, entry in at.named():
        _check_name(entry, name)
        found[name] = read(entry, name)
    return found


def _check_name(at: At, name: str) -> None:
    try:
        identifier(name)
    except FieldError as error:
        at.wrong(f"unfit name: {error}")


def _source(at: At, name: str) -> Source:
    keys = at.keys(SOURCE_KEYS, SOURCE_KEYS_LATER)
    types, never_to = keys.required_node("lead_types"), keys.node("never_to")
    return Source(
        id=name,
        lead_types=types.texts(identifier) if types else (),
        sales_max=keys.optional("sales_max", whole(0), None),
        never_to=tuple(sorted(never_to.texts(identifier))) if never_to else (),
        paused=keys.optional("paused", yes_no, False),
    )


def _buyer(at: At, name: str, fields: Mapping[str, Fields]) -> Buyer:
    keys = at.keys(BUYER_KEYS, BUYER_KEYS_LATER)
    orders = _named(keys, "orders", lambda order, order_name: _order(order, name, order_name, fields))
    deliver = keys.node("deliver")
    if deliver is not None:
        _check_delivery(deliver)
    return Buyer(
        id=name,
        timezone=keys.required("timezone", timezone_name, ""),
        # Sorted, so that moving an order about in the file makes no other market.
        orders=tuple(order for _, order in sorted(orders.items())),
        paused=keys.optional("paused", yes_no, False),
    )


def _check_delivery(at: At) -> None:
    keys = at.keys(("kafka",), later=("webhook",))
    if "webhook" not in keys:
        keys.required("kafka", word({"json": True}, later=("avro",)), None)


def _order(at: At, buyer: str, name: str, fields: Mapping[str, Fields]) -> Order:
    keys = at.keys(ORDER_KEYS, ORDER_KEYS_LATER)
    type_name = keys.required("lead_type", identifier, "")
    filters, takes = keys.node("where"), keys.required_node("takes")
    known = fields.get(type_name)
    return Order(
        id=f"{buyer}/{name}",
        buyer_id=buyer,
        lead_type=type_name,
        takes=_takes(takes) if takes else Takes(),
        # Without the lead type, which `checks` misses, no field has a kind to be read by.
        where=where(filters, known) if filters and known else (),
        priority=keys.optional("priority", whole(0), 100),
        weight=keys.optional("weight", whole(1), 1),
        holders_max=keys.optional("holders_max", whole(0), None),
        paused=keys.optional("paused", yes_no, False),
    )


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
        raise FieldError(NOT_YET)
    try:
        return FixedPrice(cents=price_cents(text))
    except FieldError as error:
        raise FieldError(f"{error}, or list for the stage's price") from error
