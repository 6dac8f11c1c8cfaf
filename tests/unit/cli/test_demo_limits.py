"""The demo's check of caps and credit can fail: it counts anew what was sold."""

from __future__ import annotations

from dataclasses import replace

from services.cli.demo_limits import over_limits
from services.cli.demo_sales import Delivery
from services.contract.market import Account, Buyer, Cap, FixedPrice, Market, Mode, Order, Period, Takes, Unit

ORDER = Order(
    id="oak/all",
    buyer_id="oak",
    lead_type="solar",
    takes=Takes(shared=FixedPrice(cents=4_000)),
    caps=(Cap(unit=Unit.LEADS, period=Period.DAY, most=2),),
)
OAK = Buyer(id="oak", timezone="America/Chicago", orders=(ORDER,), account=Account(credit_limit_cents=100_00))
MARKET = Market(version=1, currency="USD", timezone="UTC", buyers={"oak": OAK})


def sale(number: int, sold_at: str = "2026-11-22T10:00:00.000Z") -> Delivery:
    return Delivery(
        buyer_id="oak",
        lead_id=f"lead-{number}",
        sale_id=f"sale-{number}",
        order_id="oak/all",
        mode=Mode.SHARED,
        sale_number=1,
        sales_max=3,
        sold_at=sold_at,
        exclusive_until=None,
        price="40.00",
        content=b"",
        has_contact=True,
    )


def over(*sales: Delivery, returned: tuple[str, ...] = (), paid_in_cents: int = 0) -> list[str]:
    return list(over_limits(MARKET, sales, returned=returned, paid_in_cents={"oak": paid_in_cents}))


def test_a_cap_that_is_used_up_is_not_passed() -> None:
    assert over(sale(1), sale(2)) == []


def test_one_lead_more_than_a_cap_is_found() -> None:
    assert over(sale(1), sale(2), sale(3), paid_in_cents=20_00) == [
        "order:oak/all:leads_per_day:1795327200000: 3 of 2"
    ]


def test_the_next_day_counts_for_itself_where_the_buyer_is() -> None:
    assert over(sale(1), sale(2), sale(3, "2026-11-23T06:00:00.000Z"), paid_in_cents=20_00) == []
    assert over(sale(1), sale(2), sale(3, "2026-11-23T05:59:59.999Z"), paid_in_cents=20_00) != []


def test_more_than_the_credit_is_found_and_what_was_paid_in_counts() -> None:
    sales = (sale(1), sale(2, "2026-11-24T10:00:00.000Z"), sale(3, "2026-11-25T10:00:00.000Z"))
    assert over(*sales) == ["account:oak: 120.00 of 100.00"]
    assert over(*sales, paid_in_cents=20_00) == []


def test_fees_count_and_leads_given_back_and_tests_do_not() -> None:
    upgraded = replace(sale(1), fee="75.00")
    assert over(upgraded) == ["account:oak: 115.00 of 100.00"]
    assert over(upgraded, returned=("sale-1",)) == []
    assert over(replace(upgraded, is_test=True)) == []
