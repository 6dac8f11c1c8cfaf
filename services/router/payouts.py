"""What a source earns by a lead, and what of that is taken back: by the terms that the lead was accepted under.

A source is paid either for each lead or a share of what its sales bring, never both, so a lead's own payout and those
of its sales never stand side by side. Test leads earn nothing.
"""

from __future__ import annotations

from typing import assert_never

from services.contract.market import Market, Paid, PerLead, ShareOfRevenue
from services.contract.money import share_of
from services.router.lead import Lead, Returning, Sale


def paid_of(accepted_market: Market, source_id: str) -> Paid | None:
    """Find what a source is paid; None: nothing."""
    source = accepted_market.sources.get(source_id)
    return source.paid if source is not None else None


def listing_payout_cents(paid: Paid | None, *, is_test: bool) -> int:
    """Say what a source earns by an accepted lead alone, in minor units."""
    return paid.by.cents if paid is not None and isinstance(paid.by, PerLead) and not is_test else 0


def share_cents(paid: Paid | None, cents: int, *, is_test: bool) -> int:
    """Say what a source earns by what a buyer pays, in minor units: the price of a sale, or an upgrade's fee."""
    if paid is None or is_test or not isinstance(paid.by, ShareOfRevenue):
        return 0
    return share_of(cents, paid.by.basis_points)


def taken_back_cents(paid: Paid | None, lead: Lead, sale: Sale) -> int:
    """Say what a source loses, in minor units, when `sale` is returned.

    What it was paid for the lead itself is taken back with the last of the lead's sales, and once.
    """
    if paid is None or not paid.back_on_return:
        return 0
    match paid.by:
        case ShareOfRevenue():
            return sale.payout_cents
        case PerLead():
            others = (other for other in lead.sales if other.number != sale.number)
            return lead.payout_cents if all(other.returning is Returning.APPROVED for other in others) else 0
        case _:
            assert_never(paid.by)
