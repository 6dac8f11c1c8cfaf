"""The control's decision on one lead: three shared sales under caps, and what each buyer is sent.

Pure; how it is committed is for `__main__`. It leaves out what intake does (checks, duplicates, the vault), windows,
withdrawals, receipts, an append-only log, and billing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bench.leads import SOURCE_ID
from services.contract.ids import draw, lead_id_of, sale_id_of
from services.contract.times import decimal_amount

SALES_MAX = 3
_LIST_CENTS = (45_00, 40_00, 35_00)
_STATES = frozenset({"AZ", "NM", "NV", "CA", "CO"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a buyer takes. `price_cents`: None pays the list price."""

    id: str
    buyer_id: str
    price_cents: int | None


ORDERS = (
    Order(id="bench-a/solar", buyer_id="bench-a", price_cents=48_00),
    Order(id="bench-b/solar", buyer_id="bench-b", price_cents=46_00),
    Order(id="bench-c/solar", buyer_id="bench-c", price_cents=None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """A submission, read and not checked."""

    lead_id: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """One sale of a lead."""

    sale_number: int
    sale_id: str
    order: Order
    price_cents: int


def read_lead(value: bytes) -> Lead:
    """Read a record of submissions."""
    document = orjson.loads(value)
    return Lead(lead_id=lead_id_of(SOURCE_ID, document["reference"]), document=document)


def decide(lead: Lead, room: Mapping[str, int]) -> list[Sale]:
    """Sell to the best three orders with room under their caps, equal prices dealt by lead id."""
    state = lead.document["details"]["state"]
    wanting = [order for order in ORDERS if state in _STATES and room[order.id] > 0]
    ranked = sorted(
        wanting, key=lambda order: (-(order.price_cents or 0), draw(lead.lead_id, order.buyer_id))
    )
    return [
        Sale(
            sale_number=number,
            sale_id=sale_id_of(lead.lead_id, number),
            order=order,
            price_cents=order.price_cents or _LIST_CENTS[number - 1],
        )
        for number, order in enumerate(ranked[:SALES_MAX], start=1)
    ]


def outcome_of(sales: Sequence[Sale]) -> str:
    """Say how the lead's selling ended."""
    if not sales:
        return "unsold"
    return "sold_out" if len(sales) == SALES_MAX else "partly_sold"


def delivery(lead: Lead, sale: Sale) -> bytes:
    """Write what a buyer is sent."""
    document = lead.document
    return orjson.dumps(
        {
            "lead_id": lead.lead_id,
            "sale_id": sale.sale_id,
            "lead_type": document["lead_type"],
            "mode": "shared",
            "sale_number": sale.sale_number,
            "sales_max": SALES_MAX,
            "price": decimal_amount(sale.price_cents),
            "currency": "USD",
            "held_already_by": sale.sale_number - 1,
            "promise": f"Shared: you are number {sale.sale_number} of at most {SALES_MAX}.",
            "contact": document["contact"],
            "details": document["details"],
            "created_at": document["created_at"],
        }
    )
