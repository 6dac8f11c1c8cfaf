"""What finance reads of upgrades, returns, payouts and deposits, and of what became of the leads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from services.billing.cli import FINANCE_READER
from services.bus.database import connect
from services.contract.events import (
    Disposition,
    LeadSold,
    MoneyKind,
    Outcome,
    ReturnReason,
    ReturnRefusal,
)
from services.contract.ids import account_id_of
from services.contract.market import Market, Mode
from services.market import store as market_store
from tests.support.billing_database import bill, contents_of
from tests.support.ledger_checks import assert_billed_as_told
from tests.support.log_builder import (
    LogBuilder,
    closed,
    delivery_failed,
    lead_id,
    listed,
    money_moved,
    reported,
    return_approved,
    return_refused,
    return_requested,
    sold,
    upgraded,
)

pytest_plugins = ["tests.support.billing_fixtures"]

MONTHS_END_MS = int(datetime(2026, 3, 1, 4, 30, tzinfo=UTC).timestamp()) * 1_000
"""Half an hour before February ends in New York."""

HOUR_MS = 3_600_000
UPGRADED, RETURNED, TWICE, WAITING, TEST = map(lead_id, ("upgraded", "returned", "twice", "waiting", "test"))
SUNFORM: dict[str, Any] = {"lead_type": "solar", "plan": "standard", "source_id": "sunform"}


def solar(lead: str, number: int = 1, **terms: Any) -> LeadSold:
    """Sell a solar lead of a source that gets 60 % of what each sale brings."""
    price_cents = terms.pop("price_cents", 4_500)
    return sold(lead, number, price_cents=price_cents, payout_cents=price_cents * 6 // 10, **SUNFORM, **terms)


def tell_upgrade(log: LogBuilder) -> None:
    """A shared sale at 45 is upgraded for 75, and its delivery cannot be made for another lead."""
    sale = solar(UPGRADED)
    log.add(UPGRADED, listed(**SUNFORM), sale)
    log.add(UPGRADED, upgraded(sale, payout_cents=4_500), closed(**SUNFORM))
    log.add(UPGRADED, reported(sale, Disposition.CONTACTED))
    log.add(UPGRADED, reported(sale, Disposition.DEAL))


def tell_returns(log: LogBuilder) -> None:
    """Of a share of revenue, one return in the month after the sale; per lead, one of two sales, then the other."""
    sale = solar(RETURNED, buyer_id="oak")
    log.add(RETURNED, listed(**SUNFORM), sale)
    first, second = sold(TWICE, 1), sold(TWICE, 2)
    log.add(TWICE, listed(payout_cents=1_201), first, second, closed(Outcome.PARTLY_SOLD))
    log.decided_at_ms += HOUR_MS
    log.add(RETURNED, return_requested(sale, reason=ReturnReason.WRONG_PERSON))
    log.add(RETURNED, return_approved(sale, payout_cents=2_700, automatic=False))
    log.add(TWICE, return_requested(first), return_approved(first))
    log.add(TWICE, return_requested(second), return_refused(second, reason=ReturnRefusal.OPERATOR))
    log.add(TWICE, return_requested(second), return_approved(second, payout_cents=1_201))
    log.add(TWICE, reported(second, Disposition.NO_DEAL))


def tell_others(log: LogBuilder) -> None:
    """A return that waits, an exclusive sale without report, a test lead with everything, and money."""
    sale = solar(WAITING, mode=Mode.EXCLUSIVE, price_cents=9_000)
    log.add(WAITING, listed(**SUNFORM), sale)
    log.add(WAITING, return_requested(sale))
    test = sold(TEST, is_test=True, payout_cents=1)
    log.add(TEST, listed(is_test=True, payout_cents=1), test, upgraded(test, payout_cents=1))
    log.add(TEST, reported(test))
    log.add(TEST, return_requested(test), return_approved(test, price_cents=11_500, payout_cents=1))
    log.add(account_id_of("oak"), money_moved(50_000, buyer_id="oak"))
    log.add(
        account_id_of("oak"),
        money_moved(-500, buyer_id="oak", kind=MoneyKind.ADJUSTMENT, reference="goodwill"),
    )
    log.add(account_id_of("new"), money_moved(10_050, buyer_id="new"))


@pytest.fixture(scope="module")
def told() -> LogBuilder:
    """The log of it all."""
    log = LogBuilder(decided_at_ms=MONTHS_END_MS)
    tell_upgrade(log)
    tell_returns(log)
    tell_others(log)
    return log


@pytest.fixture(scope="module")
def finance(billed: str, told: LogBuilder) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
    """A cursor of finance's, on a database that has billed the log."""
    bill(billed, told)
    with connect(billed, role=market_store.ROLE, application_name="finance test") as connection:
        market = Market(version=0, currency="USD", timezone="America/New_York")
        market_store.apply(connection, market, 0, files=(), applied_by="test")
    with (
        connect(billed, role=FINANCE_READER, application_name="finance test") as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        yield cursor


def rows(finance: psycopg.Cursor[dict[str, Any]], query: str) -> list[dict[str, Any]]:
    return finance.execute(query.encode()).fetchall()


def some(row: dict[str, Any], *columns: str) -> tuple[Any, ...]:
    """Give these columns, amounts as text."""
    return tuple(str(row[name]) if isinstance(row[name], Decimal) else row[name] for name in columns)


@pytest.mark.usefixtures("finance")
def test_ledger_is_what_the_log_tells_and_agrees_with_itself(
    billing_owner: psycopg.Connection, told: LogBuilder
) -> None:
    assert_billed_as_told(contents_of(billing_owner), told)
    assert billing_owner.execute("select * from billing.discrepancies").fetchall() == []


def test_an_upgraded_sale_says_its_fee_and_is_exclusive_for_good(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    (row,) = rows(
        finance,
        "select mode, price, upgrade_fee, revenue, payout, returned, disposition, sold_at, upgraded_at, "
        f"exclusive_until::text as until from finance.sales where lead_id = '{UPGRADED}'",
    )
    assert some(row, "mode", "price", "upgrade_fee", "revenue", "payout") == (
        "shared",
        "45.00",
        "75.00",
        "120.00",
        "72.00",
    )
    assert some(row, "until", "returned", "disposition") == ("infinity", False, "deal")
    assert row["upgraded_at"] > row["sold_at"]


def test_a_returned_sale_says_so_and_brings_nothing(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    (row,) = rows(finance, f"select * from finance.sales where lead_id = '{RETURNED}'")
    assert some(row, "returned", "price", "credited", "revenue", "payout") == (
        True,
        "45.00",
        "45.00",
        "0.00",
        "0.00",
    )


def test_returns_are_told_with_their_decisions(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    found = rows(finance, "select * from finance.returns order by requested_at")
    columns = ("buyer", "source", "plan", "reason", "decision", "refusal", "automatic", "refund")
    assert [some(row, *columns) for row in found] == [
        ("oak", "sunform", "standard", "wrong_person", "approved", None, False, "45.00"),
        ("harbor", "quotehub", "three-at-40", "invalid_contact", "approved", None, True, "40.00"),
        ("oak", "quotehub", "three-at-40", "invalid_contact", "refused", "operator", False, "0.00"),
        ("oak", "quotehub", "three-at-40", "invalid_contact", "approved", None, True, "40.00"),
        ("harbor", "sunform", "standard", "invalid_contact", "pending", None, None, "0.00"),
    ]
    assert [row["decided_at"] is None for row in found] == [False] * 4 + [True]


def test_payouts_are_told_by_the_day_they_were_earned_or_taken_back(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    columns = ("source", "paid_day", "paid_month", "earned", "taken_back", "payable")
    found = rows(finance, "select * from finance.payouts order by source, paid_day")
    february, march = (date(2026, 2, 28), date(2026, 2, 1)), (date(2026, 3, 1), date(2026, 3, 1))
    assert [some(row, *columns) for row in found] == [
        ("quotehub", *february, "12.01", "0.00", "12.01"),
        ("quotehub", *march, "0.00", "12.01", "-12.01"),
        ("sunform", *february, "99.00", "0.00", "99.00"),
        ("sunform", *march, "54.00", "27.00", "27.00"),
    ]


def test_margin_is_what_payouts_leave_of_the_revenue(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    columns = ("plan", "source", "revenue", "payouts", "margin", "margin_percent")
    found = rows(finance, "select * from finance.margin order by source")
    assert [some(row, *columns) for row in found] == [
        ("three-at-40", "quotehub", "0.00", "0.00", "0.00", None),
        ("standard", "sunform", "210.00", "126.00", "84.00", "40.00"),
    ]


def test_what_a_source_is_owed_is_its_balance_in_the_ledger(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    found = rows(
        finance,
        "select source, payouts, margin, -balance as owed, "
        "(select sum(payable) from finance.payouts where payouts.source = sources.source) as payable "
        "from finance.sources join finance.balances on account = 'source:' || source order by source",
    )
    assert [some(row, "source", "payouts", "owed", "payable") for row in found] == [
        ("quotehub", "0.00", "0.00", "0.00"),
        ("sunform", "126.00", "126.00", "126.00"),
    ]


def test_close_rate_is_told_by_mode_and_number(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    columns = (
        "lead_type", "mode", "sale_number", "sales", "deals", "no_deals", "not_reported",
        "close_percent", "close_percent_of_reported",
    )  # fmt: skip
    found = rows(finance, "select * from finance.close_rate order by lead_type, mode, sale_number")
    assert [some(row, *columns) for row in found] == [
        ("insurance", "shared", 1, 1, 0, 0, 1, "0.00", None),
        ("insurance", "shared", 2, 1, 0, 1, 0, "0.00", "0.00"),
        ("solar", "exclusive", 1, 2, 1, 0, 1, "50.00", "100.00"),
        ("solar", "shared", 1, 1, 0, 0, 1, "0.00", None),
    ]


def test_return_rate_is_told_of_each_buyer_and_each_source(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    columns = (
        "of_a", "name", "sales", "requested", "pending", "returned", "refused", "return_percent", "refunded",
    )  # fmt: skip
    found = rows(finance, "select * from finance.return_rate order by of_a, name")
    assert [some(row, *columns) for row in found] == [
        ("buyer", "harbor", 3, 2, 1, 1, 0, "33.33", "40.00"),
        ("buyer", "oak", 2, 3, 0, 2, 1, "100.00", "85.00"),
        ("source", "quotehub", 2, 3, 0, 2, 1, "100.00", "80.00"),
        ("source", "sunform", 3, 2, 1, 1, 0, "33.33", "45.00"),
    ]


def test_buyers_are_told_what_they_paid_in_and_what_is_left_of_it(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    columns = ("buyer", "leads", "charged", "credited", "deposited", "adjusted", "owes", "prepaid_left")
    found = rows(finance, "select * from finance.buyers order by buyer")
    assert [some(row, *columns) for row in found] == [
        ("harbor", 3, "250.00", "40.00", "0.00", "0.00", "210.00", "0.00"),
        ("new", 0, "0.00", "0.00", "100.50", "0.00", "-100.50", "100.50"),
        ("oak", 2, "85.00", "85.00", "500.00", "-5.00", "-495.00", "495.00"),
    ]


def test_ledger_shows_the_operators_reference(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    found = rows(finance, "select * from finance.ledger where reference = 'goodwill'")
    assert [some(row, "kind", "debit_account", "credit_account", "amount") for row in found] == [
        ("adjustment", "buyer:oak", "allowance:adjustment", "5.00")
    ]


def test_test_leads_are_in_no_view(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    for view in ("sales", "leads", "returns"):
        assert rows(finance, f"select from finance.{view} where lead_id = '{TEST}'") == []


def test_an_undeliverable_upgrade_is_credited_whole(billed: str, billing_owner: psycopg.Connection) -> None:
    lead, log = lead_id("undeliverable"), LogBuilder(partitions=9)
    sale = solar(lead)
    log.add(
        lead,
        listed(**SUNFORM),
        sale,
        upgraded(sale, payout_cents=4_500),
        delivery_failed(sale, price_cents=12_000, payout_cents=7_200),
    )
    assert log.records[0].partition > 3, "the other log has the first four"
    bill(billed, log)
    assert billing_owner.execute("select * from billing.discrepancies").fetchall() == []
    found = billing_owner.execute(
        "select credited_cents, payout_cents - payout_back_cents from billing.sales where sale_id = %s",
        (sale.sale_id,),
    )
    assert found.fetchall() == [(12_000, 0)]
