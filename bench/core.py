"""Measures the router's decisions alone, without any server, encoding or database: `python -m bench.core`.

Three loads: leads sold among 1,000 standing orders, exclusive and to three buyers, one decision a lead; and auctions
that ten buyers bid in, each from the lead's listing to the sales that its close makes, eleven decisions. What counts is
the least CPU time of many short rounds, because on a busy machine the others measure its other work.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import orjson

from services.contract.ids import lead_id_of
from services.contract.inputs import PlaceBid, QualifiedLead
from services.contract.market import (
    BidPrice,
    Buyer,
    FieldKind,
    FieldType,
    FixedPrice,
    Floor,
    LeadType,
    ListPrice,
    Market,
    Order,
    Plan,
    Price,
    Prices,
    Selection,
    Sell,
    Source,
    Stage,
    Takes,
)
from services.router.domain import Conditions, decide
from services.router.orders import order_books

NOW_MS = 1_790_000_000_000
_STANDING_ORDERS = 1_000
_BIDDERS = 10
_ROUND = 20
_SECONDS = 3.0
EXCLUSIVE = Stage(sell=Sell.EXCLUSIVE, prices=Prices(exclusive=3_500))
SHARED = Stage(sell=Sell.SHARED, prices=Prices(shared=(4_500, 4_000, 3_500)))


def measure(seconds: float = _SECONDS) -> dict[str, float]:
    """Give the decisions on leads, and the auctions, of a second of one core."""
    leads = [_lead(number) for number in range(_ROUND)]
    return {
        "exclusive leads/s": _per_second(_direct_sales(leads, EXCLUSIVE), len(leads), seconds),
        "leads to three/s": _per_second(_direct_sales(leads, SHARED), len(leads), seconds),
        "auctions/s": _per_second(_auctions(leads), len(leads), seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.core", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(sys.argv[1:])
    found = measure()
    if arguments.json:
        print(orjson.dumps(found).decode())
        return
    for name, rate in found.items():
        print(f"{name:<18}{rate:>10,.0f}")


def _per_second(one_round: Callable[[], None], leads: int, seconds: float) -> float:
    best_s, until_s = float("inf"), time.monotonic() + seconds
    while time.monotonic() < until_s:
        start_s = time.process_time()
        one_round()
        best_s = min(best_s, time.process_time() - start_s)
    return leads / best_s


def _direct_sales(leads: Sequence[QualifiedLead], stage: Stage) -> Callable[[], None]:
    prices = [ListPrice() if n % 2 else FixedPrice(cents=3_500 + n) for n in range(_STANDING_ORDERS)]
    orders = [_order(f"b{n}", exclusive=price, shared=price) for n, price in enumerate(prices)]
    conditions = _conditions(stage, orders)

    def one_round() -> None:
        for lead in leads:
            decide(None, lead, conditions)

    return one_round


def _auctions(leads: Sequence[QualifiedLead]) -> Callable[[], None]:
    stage = Stage(
        sell=Sell.EITHER,
        prices=Prices(),
        selection=Selection.PING_POST,
        bid_window_ms=500,
        floor=Floor(exclusive=5_000, shared=1_800),
    )
    buyers = [f"b{n}" for n in range(_BIDDERS)]
    conditions = _conditions(
        stage, [_order(name, exclusive=BidPrice(), shared=BidPrice()) for name in buyers]
    )
    bids = {lead.lead_id: [_bid(lead.lead_id, name, n) for n, name in enumerate(buyers)] for lead in leads}

    def one_round() -> None:
        for lead in leads:
            decision = decide(None, lead, conditions)
            for bid in bids[lead.lead_id]:
                decision = decide(decision.state, bid, conditions)

    return one_round


def _bid(lead_id: str, buyer_id: str, number: int) -> PlaceBid:
    return PlaceBid(
        lead_id=lead_id,
        buyer_id=buyer_id,
        auction_number=1,
        exclusive_cents=6_000 + 100 * number,
        shared_cents=2_000 + 100 * number,
        answered_at_ms=NOW_MS,
    )


def _order(buyer_id: str, *, exclusive: Price | None = None, shared: Price | None = None) -> Order:
    takes = Takes(exclusive=exclusive, shared=shared)
    return Order(id=f"{buyer_id}/all", buyer_id=buyer_id, lead_type="solar", takes=takes)


def _conditions(stage: Stage, orders: Sequence[Order]) -> Conditions:
    market = Market(
        version=1,
        currency="USD",
        timezone="America/New_York",
        lead_types={
            "solar": LeadType(
                name="solar",
                contact=("email",),
                details={"state": FieldKind(type=FieldType.US_STATE)},
                ping=("state",),
                plans=(Plan(name="plan", stages=(stage,), sales_max=3),),
            )
        },
        sources={"sunform": Source(id="sunform", lead_types=("solar",))},
        buyers={
            order.buyer_id: Buyer(id=order.buyer_id, timezone="America/New_York", orders=(order,))
            for order in orders
        },
    )
    return Conditions(
        market=market,
        books=order_books(market),
        accepted_market=market,
        no_room=frozenset(),
        now_ms=NOW_MS,
    )


def _lead(number: int) -> QualifiedLead:
    return QualifiedLead(
        lead_id=lead_id_of("sunform", str(number)),
        source_id="sunform",
        lead_type="solar",
        fields={"state": "AZ"},
        quality=50,
        sales_max=None,
        never_to=(),
        created_at_ms=NOW_MS,
        received_at_ms=NOW_MS,
        market_version=1,
        is_test=False,
    )


if __name__ == "__main__":
    main()
