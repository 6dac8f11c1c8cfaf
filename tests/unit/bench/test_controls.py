"""The row-lock control and the bidders do what Gavel's market does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bench.bidders import BIDDERS, bid_for
from bench.gavel import owned_by
from bench.leads import SOURCE_ID, submission
from bench.pipeline import BUYERS
from bench.row_lock_router.selling import ORDERS, decide, delivery, outcome_of, read_lead
from services.contract.ids import lead_id_of

NOW_MS = 1_790_000_000_000
ROOM = {order.id: 1 for order in ORDERS}
LEAD = read_lead(submission(7, NOW_MS).value)


def test_sells_to_all_three_the_best_price_first() -> None:
    sales = decide(LEAD, ROOM)
    assert LEAD.lead_id == lead_id_of(SOURCE_ID, "bench-00000007")
    assert [(sale.sale_number, sale.order.buyer_id, sale.price_cents) for sale in sales] == [
        (1, BUYERS[0], 48_00),
        (2, BUYERS[1], 46_00),
        (3, BUYERS[2], 35_00),
    ]
    assert outcome_of(sales) == "sold_out"


@pytest.mark.parametrize("full", [order.id for order in ORDERS])
def test_order_whose_cap_is_used_up_buys_nothing(full: str) -> None:
    sales = decide(LEAD, {**ROOM, full: 0})
    assert full not in {sale.order.id for sale in sales}
    assert outcome_of(sales) == "partly_sold"


def test_delivery_tells_the_terms() -> None:
    sale = decide(LEAD, ROOM)[2]
    body = orjson.loads(delivery(LEAD, sale))
    assert (body["sale_number"], body["sales_max"], body["held_already_by"], body["price"]) == (
        3,
        3,
        2,
        "35.00",
    )
    assert body["contact"] == LEAD.document["contact"]


def test_bid_is_the_same_for_a_repeated_ping_and_over_the_floor() -> None:
    ping = {"type": "ping", "lead_id": LEAD.lead_id, "auction_number": 1}
    bids = {bidder: orjson.loads(bid_for(bidder, ping)) for bidder in BIDDERS}
    assert len({bid["shared"] for bid in bids.values()}) == len(BIDDERS)
    assert all(float(bid["shared"]) >= 20 for bid in bids.values())
    assert bids == {bidder: orjson.loads(bid_for(bidder, ping)) for bidder in BIDDERS}


def test_worker_owns_what_it_was_assigned_and_has_not_lost() -> None:
    events: list[dict[str, Any]] = [
        {"event": "starting"},
        {"event": "assigned", "partitions": {"leads.qualified": [0, 1, 2]}},
        {"event": "revoked", "partitions": {"leads.qualified": [1]}},
        {"event": "lost", "partitions": {"leads.qualified": [2]}},
    ]
    assert owned_by(events) == {("leads.qualified", 0)}
