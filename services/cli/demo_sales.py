"""Sales as the demo's buyers and its finance know them: what the guarantees are checked by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.contract.market import Mode
from services.contract.times import time_in_ms

NO_FEE = "0.00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A lead as one buyer got it, with the terms that it was told; `content` is what must not differ in a repeat.

    `fee` is what the buyer was told to pay for having it alone, by then or afterwards (`is_upgraded`).
    """

    buyer_id: str
    lead_id: str
    sale_id: str
    order_id: str
    mode: Mode
    sale_number: int
    sales_max: int
    sold_at: str
    exclusive_until: str | None
    price: str
    content: bytes
    has_contact: bool
    is_test: bool = False
    fee: str = NO_FEE
    is_upgraded: bool = False

    @property
    def sold_at_ms(self) -> int:
        """When it was sold, in milliseconds since 1970."""
        return time_in_ms(self.sold_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A sale as billing has it, with the fee for an upgrade."""

    sale_id: str
    lead_id: str
    buyer_id: str
    price: str
    fee: str = NO_FEE


def delivery_of(buyer_id: str, body: Mapping[str, Any], value: bytes, later_fee: str | None) -> Delivery:
    """Read a record of a buyer's topic that is a lead; `later_fee`, where an upgrade followed."""
    terms = body["terms"]
    return Delivery(
        buyer_id=buyer_id,
        lead_id=body["lead_id"],
        sale_id=body["sale_id"],
        order_id=body["order"],
        mode=Mode(terms["mode"]),
        sale_number=terms["sale_number"],
        sales_max=terms["sales_max"],
        sold_at=body["sold_at"],
        exclusive_until=terms["exclusive_until"],
        price=body["price"],
        content=value,
        has_contact=bool(body.get("lead", {}).get("contact")),
        is_test=body["is_test"],
        fee=later_fee or body.get("upgrade_fee") or NO_FEE,
        is_upgraded=later_fee is not None or bool(body.get("upgrade_fee")),
    )
