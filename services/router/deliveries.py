"""What buyers read on `buyers.<id>.leads`: the leads that they bought, upgrades, and notices of what happened since.

Bodies as JSON has them, without what only the vault knows. A buyer is told how many hold the lead, and never who, nor
what another paid. Pure.
"""

from __future__ import annotations

from typing import Any

from services.contract.events import LeadErased, LeadSold, LeadUpgraded
from services.contract.market import Mode
from services.contract.times import decimal_amount, iso_time
from services.router.promises import FOR_GOOD, Standing, may_upgrade, promise

Body = dict[str, Any]


def delivery(
    lead_id: str, at_ms: int, sold: LeadSold, standing: Standing, upgraded: LeadUpgraded | None
) -> Body:
    """Write a sale to its buyer; `upgraded`, where the same entry made it the buyer's alone, for a fee."""
    body = {
        "type": "lead",
        "sale_id": sold.sale_id,
        "lead_id": lead_id,
        "lead_type": sold.lead_type,
        "order": sold.order_id,
        "sold_at": iso_time(at_ms),
        "created_at": iso_time(sold.created_at_ms),
        "price": decimal_amount(sold.price_cents),
        "currency": sold.currency,
        "quality": sold.quality,
        "is_test": sold.is_test,
    }
    if upgraded is None:
        body["terms"] = _terms(sold, standing)
        body["promise"] = promise(sold, standing)
        return body
    body["upgrade_fee"] = decimal_amount(upgraded.fee_cents)
    body["total"] = decimal_amount(sold.price_cents + upgraded.fee_cents)
    body["terms"] = _alone_for_good(upgraded)
    body["promise"] = FOR_GOOD
    return body


def upgrade(lead_id: str, at_ms: int, upgraded: LeadUpgraded) -> Body:
    """Tell the only holder that it has closed the remaining slots, and what holds from here on."""
    return {
        "type": "upgraded",
        "sale_id": upgraded.sale_id,
        "lead_id": lead_id,
        "order": upgraded.order_id,
        "at": iso_time(at_ms),
        "fee": decimal_amount(upgraded.fee_cents),
        "currency": upgraded.currency,
        "is_test": upgraded.is_test,
        "terms": _alone_for_good(upgraded),
        "promise": FOR_GOOD,
    }


def notice(lead_id: str, at_ms: int, holders: int, happened: list[Body]) -> Body:
    """Tell a holder what happened since its delivery: that others hold the lead too, or that no more will."""
    return {
        "type": "notice",
        "lead_id": lead_id,
        "at": iso_time(at_ms),
        "holders": holders,
        "happened": happened,
    }


def sold_briefly(sold: LeadSold) -> Body:
    """Tell of a sale to those who did not buy: never to whom, nor at which price."""
    return {
        "type": "sold",
        "sale_number": sold.sale_number,
        "sales_max": sold.sales_max,
        "mode": sold.mode,
    }


def erasure_briefly(erased: LeadErased) -> Body:
    """Ask a holder to erase the lead and to say so in time."""
    return {
        "type": "erasure",
        "reason": erased.reason,
        "acknowledge_by": iso_time(erased.acknowledge_by_ms),
    }


def _terms(sold: LeadSold, standing: Standing) -> Body:
    may_follow = sold.others_may_follow and not standing.is_closed and standing.holders < sold.sales_max
    from_ms = standing.next_try_ms if sold.others_from_ms is None else sold.others_from_ms
    upgrade = None
    if may_upgrade(sold, standing):
        assert sold.upgrade_fee_cents is not None
        upgrade = {
            "fee": decimal_amount(sold.upgrade_fee_cents),
            "until": _time_or_none(sold.upgrade_until_ms),
        }
    return {
        "mode": sold.mode,
        "sale_number": sold.sale_number,
        "sales_max": sold.sales_max,
        "exclusive": sold.mode is Mode.EXCLUSIVE,
        "exclusive_until": None if standing.is_closed else _time_or_none(sold.exclusive_until_ms),
        "holders": standing.holders,
        "held_since": _time_or_none(sold.held_since_ms),
        "others_may_follow": may_follow,
        "others_from": _time_or_none(from_ms) if may_follow else None,
        "upgrade": upgrade,
    }


def _alone_for_good(upgraded: LeadUpgraded) -> Body:
    """Only the first buyer can ever be the only holder, so the slots closed are all but its own."""
    return {
        "mode": Mode.EXCLUSIVE,
        "sale_number": upgraded.sale_number,
        "sales_max": upgraded.sale_number + upgraded.slots_closed,
        "exclusive": True,
        "exclusive_until": None,
        "holders": 1,
        "held_since": None,
        "others_may_follow": False,
        "others_from": None,
        "upgrade": None,
    }


def _time_or_none(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso_time(at_ms)
