"""What sources read on `sources.<id>.receipts` of their leads: sales, payouts, returns and the close.

A source is told what it earns, and never who bought, nor at which price. Pure.
"""

from __future__ import annotations

from typing import Any

from services.contract.events import (
    DeliveryFailed,
    Event,
    LeadClosed,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    ReturnApproved,
)
from services.contract.times import decimal_amount
from services.router.deliveries import sold_briefly

RECEIPTED = frozenset({DeliveryFailed, LeadClosed, LeadListed, LeadSold, LeadUpgraded, ReturnApproved})
"""The events that a source may hear of."""


def receipted(event: Event) -> tuple[str, dict[str, Any]] | None:
    """Name the source that hears of an event, and what it is told; None where it is told nothing."""
    match event:
        case LeadSold():
            told = sold_briefly(event)
            if event.payout_cents:
                told |= _payout(event.payout_cents, event.currency)
            return event.source_id, told
        case LeadClosed():
            return event.source_id, {
                "type": "closed",
                "outcome": event.outcome,
                "sales": len(event.holders),
            }
        case LeadListed(currency=str()) if event.payout_cents:
            assert event.currency is not None
            return event.source_id, {"type": "earned", **_payout(event.payout_cents, event.currency)}
        case LeadUpgraded():
            told = {"type": "upgraded", "sale_number": event.sale_number}
            if event.payout_cents:
                told |= _payout(event.payout_cents, event.currency)
            return event.source_id, told
        case ReturnApproved():
            told = {"type": "returned", "sale_number": event.sale_number}
            if event.payout_cents:
                told |= _taken_back(event.payout_cents, event.currency)
            return event.source_id, told
        case DeliveryFailed(source_id=str()) if event.payout_cents:
            assert event.source_id is not None
            told = {"type": "delivery_failed", "sale_number": event.sale_number}
            return event.source_id, told | _taken_back(event.payout_cents, event.currency)
        case _:
            return None


def _payout(cents: int, currency: str) -> dict[str, Any]:
    return {"payout": decimal_amount(cents), "currency": currency}


def _taken_back(cents: int, currency: str) -> dict[str, Any]:
    return {"taken_back": decimal_amount(cents), "currency": currency}
