"""The example markets are right, show every key between them, and sell alike, one of them in a hurry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.contract.market import (
    BidPrice,
    FieldType,
    FixedPrice,
    LeadType,
    ListPrice,
    Market,
    PerLead,
    Plan,
    Ranking,
    Selection,
    Sell,
    ShareOfRevenue,
    Stage,
)
from services.market import buyers, parsing, plans, stages
from services.market.reading import open_files
from services.market.review import Reviewed, review
from services.market.writing import market_text

EXAMPLES = Path(__file__).parents[2] / "examples"
REAL = EXAMPLES / "market.yaml"
DEMO = EXAMPLES / "market-demo.yaml"


def reviewed(path: Path) -> Reviewed:
    return review(open_files([path]))


def stages_of(market: Market) -> list[Stage]:
    return [stage for kind in market.lead_types.values() for plan in kind.plans for stage in plan.stages]


@pytest.mark.parametrize("path", [REAL, DEMO], ids=lambda path: path.name)
def test_an_example_is_applied_without_a_warning(path: Path) -> None:
    assert reviewed(path).warnings == ()


@pytest.mark.parametrize("path", [REAL, DEMO], ids=lambda path: path.name)
def test_an_example_reads_back_as_it_is_written(path: Path, tmp_path: Path) -> None:
    market = reviewed(path).market
    written = tmp_path / "written.yaml"
    written.write_text(market_text(market))
    assert reviewed(written).market == market


def sold_as(lead_type: LeadType) -> list[tuple[str, int, list[tuple[Sell, Selection]]]]:
    return [
        (plan.name, plan.sales_max, [(stage.sell, stage.selection) for stage in plan.stages])
        for plan in lead_type.plans
    ]


def test_the_demo_sells_as_the_example_does_and_to_the_same_buyers() -> None:
    real, demo = reviewed(REAL).market, reviewed(DEMO).market
    assert {name: sold_as(lead_type) for name, lead_type in demo.lead_types.items()} == {
        name: sold_as(lead_type) for name, lead_type in real.lead_types.items()
    }
    assert {source.id: source.lead_types for source in demo.sources.values()} == {
        source.id: source.lead_types for source in real.sources.values()
    }
    assert demo.buyers.keys() - real.buyers.keys() == {"swiftloan", "slowbank", "quietcredit"}, "bidders"
    assert real.buyers.keys() <= demo.buyers.keys()


def longest_ms(plan: Plan) -> int:
    trying = [stage.keep_trying.for_ms for stage in plan.stages if stage.keep_trying]
    waits = [(stage.wait_ms or 0) + (stage.bid_window_ms or 0) for stage in plan.stages]
    held = [(stage.accept_within_ms or 0) + (stage.exclusive_for_ms or 0) for stage in plan.stages]
    upgrades = [stage.upgrade.within_ms or 0 for stage in plan.stages if stage.upgrade]
    return sum([*trying, *waits, *held, *upgrades])


def test_the_demo_is_over_in_a_minute_and_the_example_is_not() -> None:
    for name, lead_type in reviewed(DEMO).market.lead_types.items():
        for plan in lead_type.plans:
            assert longest_ms(plan) < (plan.expires_after_ms or 60_000) <= 60_000, f"{name}.{plan.name}"
    real = [plan for lead_type in reviewed(REAL).market.lead_types.values() for plan in lead_type.plans]
    assert max(map(longest_ms, real)) > 60_000


def test_the_demo_resells_the_staggered_lead_to_the_buyer_of_aged_leads() -> None:
    market = reviewed(DEMO).market
    first, second, third = market.lead_types["roofing"].plans[0].stages
    (_, aged), *_ = next(
        order.where for order in market.buyers["rooftop-coop"].orders if order.id.endswith("aged")
    )
    low_ms = getattr(aged, "low", None)
    assert low_ms is not None
    shared_at_latest = (first.accept_within_ms or 0) + (first.exclusive_for_ms or 0)
    aged_at_earliest = (first.exclusive_for_ms or 0) + (third.wait_ms or 0)
    assert second.wait_ms is None
    assert shared_at_latest <= low_ms < aged_at_earliest


KEYS = {
    *parsing.SECTIONS,
    *parsing.MARKET_KEYS,
    *parsing.SOURCE_KEYS,
    *parsing.PAID_KEYS,
    *buyers.BUYER_KEYS,
    *buyers.ACCOUNT_KEYS,
    *buyers.DELIVER_KEYS,
    *buyers.ORDER_KEYS,
    *plans.LEAD_TYPE_KEYS,
    *plans.RETURNS_KEYS,
    *plans.PLAN_KEYS,
    *stages.STAGE_KEYS,
    *stages.UPGRADE_KEYS,
}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_examples_show_every_key(key: str) -> None:
    written = f"{REAL.read_text()}\n{DEMO.read_text()}\n"
    assert re.search(rf"(^|[{{,\s]){key}:\s", written, re.MULTILINE), f"no example has {key}"


def test_the_example_shows_every_way_to_sell_to_pay_and_to_be_paid() -> None:
    market = reviewed(REAL).market
    fields = [field.type for kind in market.lead_types.values() for field in kind.details.values()]
    takes = [order.takes for buyer in market.buyers.values() for order in buyer.orders]
    prices = {type(price) for pair in takes for price in (pair.exclusive, pair.shared) if price}
    assert {stage.sell for stage in stages_of(market)} == set(Sell)
    assert {stage.selection for stage in stages_of(market)} == set(Selection)
    assert {stage.by for stage in stages_of(market)} >= {Ranking.PRICE, Ranking.PRIORITY, Ranking.WEIGHT}
    assert set(fields) == set(FieldType)
    assert prices == {ListPrice, FixedPrice, BidPrice}
    paid = [source.paid.by for source in market.sources.values() if source.paid]
    assert any(isinstance(by, PerLead) for by in paid)
    assert any(isinstance(by, ShareOfRevenue) for by in paid)


@pytest.mark.parametrize("path", [REAL, DEMO], ids=lambda path: path.name)
def test_an_example_has_an_upgrade_of_both_kinds_and_accounts_of_both_kinds(path: Path) -> None:
    market = reviewed(path).market
    orders = [order for buyer in market.buyers.values() for order in buyer.orders]
    limits = [buyer.account.credit_limit_cents for buyer in market.buyers.values() if buyer.account]
    assert any(stage.upgrade for stage in stages_of(market))
    assert any(order.upgrade_always for order in orders)
    assert any(order.caps for order in orders)
    assert any(order.open for order in orders)
    assert min(limits) == 0 < max(limits)


def test_the_demo_takes_leads_back() -> None:
    assert reviewed(DEMO).market.lead_types["solar"].returns is not None


def test_the_demo_is_open_whenever_it_is_run() -> None:
    orders = [order for buyer in reviewed(DEMO).market.buyers.values() for order in buyer.orders]
    for hours in (hours for order in orders for hours in order.open):
        assert (hours.days, hours.from_minute, hours.to_minute) == (tuple(range(7)), 0, 1_440)
