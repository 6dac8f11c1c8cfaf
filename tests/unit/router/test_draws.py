"""What a sale draws on: the limits of the market that it is decided under, and none for test leads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.events import LeadSold
from services.contract.inputs import AcceptOffer
from services.contract.limits import limits_of, returns_counter
from services.contract.market import Cap, Market, Order, Period, Unit
from tests.support.deciding import NOW_MS, Story, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.terms import CAPS, RETURNS, WITH_QUOTA, on_terms

LEAD_ID = lead().lead_id
ORDERS = (order("a", shared=5_000, caps=CAPS), order("b", shared="list"))


def _market(orders: tuple[Order, ...] = ORDERS, **stage: int) -> Market:
    plans = plan(shared_stage(4_500, 4_000, **stage), sales_max=2)
    return on_terms(market(plans, orders=orders), accounts={"a": 100_000})


def _amounts(sold: LeadSold) -> dict[str, int]:
    return {draw.counter: draw.amount for draw in sold.draws}


def test_sale_draws_its_price_and_one_lead_on_the_limits_of_its_order() -> None:
    story = Story(_market())
    story.when(lead())
    limits = limits_of(story.market, ORDERS[0], NOW_MS)
    assert len(limits) == 3
    assert _amounts(story.all(LeadSold)[0]) == {
        counter: 1 if limit.name == "leads_per_day" else 5_000 for counter, limit in limits.items()
    }


def test_sale_to_an_order_without_limits_draws_nothing() -> None:
    story = Story(_market())
    story.when(lead())
    assert story.all(LeadSold)[1].draws == ()


def test_sale_keeps_what_it_drew() -> None:
    story = Story(_market())
    story.when(lead())
    assert [sale.draws for sale in story.lead.sales] == [sold.draws for sold in story.all(LeadSold)]


def test_accepted_offer_draws_in_the_period_of_its_acceptance() -> None:
    story = Story(_market(accept_within_ms=86_400_000))
    story.when(lead())
    answer = AcceptOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, answered_at_ms=NOW_MS)
    story.when(answer, after_ms=86_400_000)
    assert set(_amounts(story.all(LeadSold)[0])) == set(limits_of(story.market, ORDERS[0], story.now_ms))


def test_limits_are_those_of_the_market_that_the_sale_is_decided_under() -> None:
    stages = (exclusive_stage(9_000), shared_stage(4_500, wait_ms=1_000))
    before = market(plan(*stages), orders=(order("a", shared="list"),))
    story = Story(before)
    story.when(lead())
    hourly = Cap(unit=Unit.LEADS, period=Period.HOUR, most=1)
    story.accepted_market = before
    story.market = replace(market(orders=(order("a", shared="list", caps=(hourly,)),)), version=2)
    story.fire_next_window()
    (draw,) = story.all(LeadSold)[0].draws
    assert draw.counter.startswith("order:a/all:leads_per_hour:")


def test_sale_earns_a_part_of_a_return_by_the_version_that_the_lead_was_accepted_under() -> None:
    accepted = on_terms(_market(), returns=WITH_QUOTA)
    story = Story(on_terms(_market(), returns=RETURNS), accepted_market=accepted)
    story.when(lead())
    counter = returns_counter(accepted.buyers["b"], "solar", NOW_MS)
    assert [(draw.counter, draw.granted) for draw in story.all(LeadSold)[1].draws] == [(counter, 1_000)]


@pytest.mark.parametrize("is_test", [True, False])
def test_test_lead_draws_nothing(*, is_test: bool) -> None:
    story = Story(on_terms(_market(), returns=WITH_QUOTA, accounts={"a": 0, "b": 0}))
    story.when(lead(is_test=is_test))
    assert all(bool(sold.draws) is not is_test for sold in story.all(LeadSold))
