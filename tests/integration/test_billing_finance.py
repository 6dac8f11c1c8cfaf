"""What finance reads: views in decimals and in the market's time, by a role that can read nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row

from services.billing.cli import FINANCE_READER
from services.bus.database import connect
from services.contract.events import Outcome
from services.contract.market import Market, Mode
from services.market import store as market_store
from tests.support.billing_database import bill
from tests.support.log_builder import LogBuilder, closed, delivery_failed, lead_id, listed, sold

pytest_plugins = ["tests.support.billing_fixtures"]

MONTHS_END_MS = int(datetime(2026, 3, 1, 3, 30, tzinfo=UTC).timestamp()) * 1_000
"""The last evening of February, in New York."""

VIEWS = (
    "sales", "leads", "revenue_by_plan", "revenue_by_day", "sources", "balances", "buyers", "ledger",
    "margin", "payouts", "returns", "return_rate", "close_rate",
)  # fmt: skip


def tell_insurance(log: LogBuilder) -> None:
    """The worked example, eight leads split evenly: 1 x 90 sells three of four, 3 x 40 eight slots of twelve."""
    for name in range(4):
        lead = lead_id(f"once-{name}")
        sale = sold(lead, mode=Mode.EXCLUSIVE, price_cents=9_000, plan="once-at-90", sales_max=1)
        events = (sale,) if name < 3 else ()
        outcome = Outcome.SOLD_OUT if name < 3 else Outcome.UNSOLD
        log.add(lead, listed(plan="once-at-90", sales_max=1), *events, closed(outcome, plan="once-at-90"))
    for name, sales in enumerate((3, 3, 2)):
        log.sell_out(lead_id(f"three-{name}"), sales)
    log.add(lead_id("three-3"), listed())


def tell_others(log: LogBuilder) -> None:
    """What must not disturb the example: a test lead, a lead that no plan fits, a failed delivery, a month's end."""
    log.decided_at_ms = MONTHS_END_MS - 1_000
    solar, roof, test = lead_id("solar"), lead_id("roof"), lead_id("test")
    sale = sold(
        solar, buyer_id="sunpeak", price_cents=9_550, lead_type="solar", plan="premium", source_id="sunform",
        mode=Mode.EXCLUSIVE, exclusive_until_ms=log.decided_at_ms + 72 * 3_600_000,
    )  # fmt: skip
    log.add(solar, listed(lead_type="solar", plan="premium", source_id="sunform"), sale)
    log.add(solar, delivery_failed(sale))
    log.add(
        roof, listed(lead_type="roofing", plan=None, source_id="sunform"), closed(Outcome.UNSOLD, plan=None)
    )
    log.add(test, listed(is_test=True), sold(test, is_test=True), closed(is_test=True))


@pytest.fixture(scope="module")
def finance(billed: str) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
    """A cursor of finance's, on a database that has billed both logs."""
    log = LogBuilder()
    tell_others(log)
    tell_insurance(log)
    bill(billed, log)
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


def test_one_at_90_and_three_at_40_are_compared_by_revenue_per_accepted_lead(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    once, three = rows(
        finance, "select * from finance.revenue_by_plan where lead_type = 'insurance' order by plan"
    )
    assert once == {
        "lead_type": "insurance",
        "plan": "once-at-90",
        "currency": "USD",
        "leads_accepted": 4,
        "leads_sold": 3,
        "leads_unsold": 1,
        "leads_selling": 0,
        "sales": 3,
        "revenue": Decimal("270.00"),
        "revenue_per_accepted_lead": Decimal("67.50"),
        "revenue_per_sold_lead": Decimal("90.00"),
        "payouts": Decimal("0.00"),
        "margin": Decimal("270.00"),
        "margin_per_accepted_lead": Decimal("67.50"),
    }
    assert (three["leads_accepted"], three["leads_sold"], three["leads_selling"]) == (4, 3, 1)
    assert (three["sales"], three["revenue"]) == (8, Decimal("320.00"))
    assert three["revenue_per_accepted_lead"] == Decimal("80.00")


def test_a_lead_that_no_plan_fits_counts_as_accepted_and_unsold(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    (row,) = rows(finance, "select * from finance.revenue_by_plan where plan is null")
    assert (row["lead_type"], row["leads_accepted"], row["leads_unsold"]) == ("roofing", 1, 1)
    assert (row["revenue_per_accepted_lead"], row["revenue_per_sold_lead"]) == (Decimal("0.00"), None)


def test_days_and_months_are_those_of_the_market(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    (row,) = rows(finance, "select * from finance.sales where buyer = 'sunpeak'")
    assert row["sold_at"] == datetime(2026, 3, 1, 3, 30, tzinfo=UTC)
    assert row["sold_at_local"] == datetime(2026, 2, 28, 22, 30)  # noqa: DTZ001  # local, as people read it
    assert (row["sold_day"], row["sold_month"]) == (date(2026, 2, 28), date(2026, 2, 1))


def test_a_sale_says_its_terms_and_what_was_credited(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    (row,) = rows(finance, "select * from finance.sales where buyer = 'sunpeak'")
    assert (row["mode"], row["sale_number"], row["sales_max"]) == ("exclusive", 1, 3)
    assert (row["price"], row["credited"], row["revenue"]) == (
        Decimal("95.50"),
        Decimal("95.50"),
        Decimal("0.00"),
    )
    assert row["delivery_failed_at"] is not None


def test_exclusive_for_good_is_until_infinity_and_shared_until_nothing(
    finance: psycopg.Cursor[dict[str, Any]],
) -> None:
    found = rows(
        finance,
        "select distinct plan, exclusive_until::text as until from finance.sales order by plan",
    )
    assert {row["plan"]: row["until"] for row in found} == {
        "once-at-90": "infinity",
        "premium": "2026-03-04 03:29:59+00",
        "three-at-40": None,
    }


def test_buyers_are_told_by_mode_and_spend(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    harbor, _, _, sunpeak = rows(finance, "select * from finance.buyers order by buyer")
    assert (harbor["buyer"], harbor["leads"], harbor["exclusive_leads"], harbor["shared_leads"]) == (
        "harbor",
        6,
        3,
        3,
    )
    assert (harbor["spend"], harbor["owes"], harbor["average_price"]) == (
        Decimal(390),
        Decimal(390),
        Decimal(65),
    )
    assert (sunpeak["charged"], sunpeak["credited"], sunpeak["owes"]) == (
        Decimal("95.50"),
        Decimal("95.50"),
        0,
    )


def test_balances_of_a_currency_add_up_to_nothing(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    balances = {row["account"]: row["balance"] for row in rows(finance, "select * from finance.balances")}
    assert balances["buyer:harbor"] == Decimal("390.00")
    assert balances["revenue:quotehub"] == Decimal("-590.00")
    assert balances["allowance:failed_delivery"] == Decimal("95.50")
    assert sum(balances.values()) == 0


def test_sources_are_told_what_their_leads_bring(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    quotehub, sunform = rows(finance, "select * from finance.sources order by source")
    assert (quotehub["leads_accepted"], quotehub["revenue"]) == (8, Decimal("590.00"))
    assert quotehub["revenue_per_accepted_lead"] == Decimal("73.75")
    assert (sunform["leads_accepted"], sunform["leads_sold"], sunform["revenue"]) == (2, 1, Decimal("0.00"))


def test_leads_are_followed_by_the_day_they_were_accepted(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    found = rows(finance, "select * from finance.revenue_by_day where lead_type = 'solar'")
    assert [(row["accepted_day"], row["leads_accepted"], row["sales"]) for row in found] == [
        (date(2026, 2, 28), 1, 1)
    ]


def test_test_leads_are_in_no_view(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    test = lead_id("test")
    assert rows(finance, f"select from finance.leads where lead_id = '{test}'") == []
    assert rows(finance, f"select from finance.sales where lead_id = '{test}'") == []


@pytest.mark.parametrize(
    "statement",
    [
        "select from billing.transfers",
        "select from market.versions",
        "select from intake.leads",
        "update finance.sales set sales_max = 9",
        "delete from finance.ledger",
        "create table finance.mine ()",
    ],
)
def test_finance_reads_its_views_and_nothing_else(billed: str, statement: str) -> None:
    with (
        connect(billed, role=FINANCE_READER, application_name="finance test") as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_every_view_and_column_says_what_it_is(finance: psycopg.Cursor[dict[str, Any]]) -> None:
    found = rows(
        finance,
        "select relname, attname, col_description(pg_class.oid, attnum) as comment from pg_class "
        "join pg_attribute on attrelid = pg_class.oid where relnamespace = 'finance'::regnamespace and attnum > 0 "
        "union all select relname, '', obj_description(oid, 'pg_class') from pg_class "
        "where relnamespace = 'finance'::regnamespace",
    )
    assert {row["relname"] for row in found} == set(VIEWS)
    assert [f"{row['relname']}.{row['attname']}" for row in found if not row["comment"]] == []
