"""Checks caps and credit from outside: what buyers were sold, at which prices and when, against what the market allows.

It counts anew from the deliveries and shares with the router only how limits are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from services.cli.demo_sales import Delivery
from services.contract.limits import account_counter, fee_draws, limits_of, sale_draws
from services.contract.market import Market
from services.contract.times import amount_in_cents, decimal_amount


def over_limits(
    market: Market,
    sales: Iterable[Delivery],
    *,
    returned: Collection[str],
    paid_in_cents: Mapping[str, int],
) -> Iterable[str]:
    """Tell each limit that was passed; a lead that was given back (`returned`: sale ids) counts for none."""
    orders = {order.id: order for buyer in market.buyers.values() for order in buyer.orders}
    used: Counter[str] = Counter()
    most: dict[str, int] = {}
    for sale in sales:
        if sale.is_test or sale.sale_id in returned:
            continue
        order, at_ms = orders[sale.order_id], sale.sold_at_ms
        limits = limits_of(market, order, at_ms)
        most |= {counter: limit.most for counter, limit in limits.items()}
        price_cents, fee_cents = amount_in_cents(sale.price), amount_in_cents(sale.fee)
        draws = sale_draws(
            market, order, price_cents=price_cents, now_ms=at_ms, returns_quota_basis_points=None
        )
        for draw in (*draws, *fee_draws(market, order, fee_cents=fee_cents, now_ms=at_ms)):
            used[draw.counter] += draw.amount
    for buyer_id, cents in paid_in_cents.items():
        if (counter := account_counter(buyer_id)) in most:
            most[counter] += cents
    for counter, count in sorted(used.items()):
        if count > most[counter]:
            yield f"{counter}: {_shown(counter, count)} of {_shown(counter, most[counter])}"


def _shown(counter: str, count: int) -> str:
    return str(count) if ":leads_" in counter else decimal_amount(count)
