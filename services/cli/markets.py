"""The market in force, as commands look things up in it."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from services.cli.complaints import Complaint
from services.contract.market import Buyer, Market, Order, Source
from services.market import store
from services.market.errors import did_you_mean


def current_market(connection: psycopg.Connection) -> Market:
    """Load the market in force; raise `Complaint` where there is none."""
    market = store.load_current(connection)
    if market is None:
        raise Complaint("No market was applied yet.", "`gavel market apply FILE` does it.")
    return market


def source_of(market: Market, source_id: str) -> Source:
    """Find a source; raise `Complaint`."""
    if source_id not in market.sources:
        raise _unknown("source", source_id, market.sources)
    return market.sources[source_id]


def buyer_of(market: Market, buyer_id: str) -> Buyer:
    """Find a buyer; raise `Complaint`."""
    if buyer_id not in market.buyers:
        raise _unknown("buyer", buyer_id, market.buyers)
    return market.buyers[buyer_id]


def order_of(market: Market, order_id: str) -> Order:
    """Find an order by `<buyer>/<name>`; raise `Complaint`."""
    orders = {order.id: order for buyer in market.buyers.values() for order in buyer.orders}
    if order_id not in orders:
        raise _unknown("order", order_id, orders)
    return orders[order_id]


def _unknown(what: str, id: str, known: Iterable[str]) -> Complaint:
    return Complaint(
        f"The market has no {what} {id!r}{did_you_mean(id, known) or '.'}",
        "`gavel market show` has all of them" + (", as BUYER/NAME." if what == "order" else "."),
    )
