"""Markets of `tests.support.deciding` with terms of money: accounts, returns, what the source is paid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.contract.events import DeliveryFailed, Draw, LeadSold, LeadUpgraded, MoneyMoved, ReturnApproved
from services.contract.market import (
    Account,
    Cap,
    Market,
    Paid,
    Period,
    PerLead,
    Returns,
    ShareOfRevenue,
    Unit,
)
from services.contract.times import DAY_MS

PER_LEAD = Paid(by=PerLead(cents=1_200))
PER_LEAD_BACK = replace(PER_LEAD, back_on_return=True)
SHARE = Paid(by=ShareOfRevenue(basis_points=6_000))
SHARE_BACK = replace(SHARE, back_on_return=True)
RETURNS = Returns(within_ms=7 * DAY_MS, reasons=("invalid_contact", "wrong_person"))
WITH_QUOTA = replace(RETURNS, quota_basis_points=1_000)
BY_OPERATOR = replace(RETURNS, automatic=False)
CAPS = (
    Cap(unit=Unit.LEADS, period=Period.DAY, most=10),
    Cap(unit=Unit.SPEND, period=Period.MONTH, most=4_000_000),
)


def on_terms(
    market: Market,
    *,
    accounts: Mapping[str, int] | None = None,
    returns: Returns | None = None,
    paid: Paid | None = None,
) -> Market:
    """Give a market these terms; `accounts`: the credit limit of each buyer that has an account, in minor units."""
    limits = accounts or {}
    return replace(
        market,
        lead_types={
            name: replace(lead_type, returns=returns) for name, lead_type in market.lead_types.items()
        },
        sources={name: replace(source, paid=paid) for name, source in market.sources.items()},
        buyers={
            name: replace(buyer, account=Account(credit_limit_cents=limits[name]) if name in limits else None)
            for name, buyer in market.buyers.items()
        },
    )


def drawn(events: Iterable[object]) -> tuple[Draw, ...]:
    """All that events draw on limits."""
    telling = (LeadSold, LeadUpgraded, ReturnApproved, DeliveryFailed, MoneyMoved)
    return tuple(draw for event in events if isinstance(event, telling) for draw in event.draws)


def used(events: Iterable[object]) -> Counter[str]:
    """What events leave used of each counter."""
    counters: Counter[str] = Counter()
    for draw in drawn(events):
        counters[draw.counter] += draw.amount
    return counters
