"""Who gets a lead, in which mode, at which price: rules 2 to 5 of the market file."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.events import (
    LeadClosed,
    LeadListed,
    LeadSold,
    Outcome,
    StageStarted,
    WindowKind,
    WindowOpened,
)
from services.contract.market import AnyOf, Between, KeepTrying, Mode, Ranking
from tests.support.deciding import (
    NOW_MS,
    Story,
    either_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)


def _sold(story: Story) -> list[tuple[str, str, int]]:
    return [(sale.buyer_id, sale.mode.value, sale.price_cents) for sale in story.all(LeadSold)]


def test_exclusive_lead_goes_to_one_buyer_and_closes_sold_out() -> None:
    story = Story(
        market(
            plan(exclusive_stage(9000), sales_max=1),
            orders=(order("a", exclusive="list"), order("b", exclusive="list")),
        )
    )
    story.when(lead())
    assert len(story.all(LeadSold)) == 1
    sold = story.all(LeadSold)[0]
    assert (sold.mode, sold.price_cents, sold.exclusive_until_ms, sold.others_may_follow) == (
        Mode.EXCLUSIVE,
        9000,
        None,
        False,
    )
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_own_amount_beats_the_list() -> None:
    orders = (order("a", exclusive="list"), order("b", exclusive=9500))
    story = Story(market(plan(exclusive_stage(9000), sales_max=1), orders=orders))
    story.when(lead())
    assert _sold(story) == [("b", "exclusive", 9500)]


def test_amount_below_the_floor_buys_nothing() -> None:
    story = Story(market(plan(exclusive_stage(9000), sales_max=1), orders=(order("a", exclusive=8999),)))
    story.when(lead())
    assert _sold(story) == []
    assert story.lead.outcome is Outcome.UNSOLD


def test_shared_price_falls_and_own_amount_ranks_against_the_current_list_price() -> None:
    orders = (order("a", shared="list"), order("b", shared=4200), order("c", shared="list"))
    story = Story(market(plan(shared_stage(4500, 4000, 3500)), orders=orders))
    story.when(lead())
    prices = [sale.price_cents for sale in story.all(LeadSold)]
    assert prices == [4500, 4200, 3500]
    assert [sale.sale_number for sale in story.all(LeadSold)] == [1, 2, 3]
    assert {sale.sales_max for sale in story.all(LeadSold)} == {3}


def test_shared_lead_stops_at_sales_max() -> None:
    story = Story(
        market(
            plan(shared_stage(), sales_max=2), orders=tuple(order(f"b{n}", shared="list") for n in range(5))
        )
    )
    story.when(lead())
    assert len(story.all(LeadSold)) == 2
    assert story.lead.outcome is Outcome.SOLD_OUT


@pytest.mark.parametrize(("plan_max", "lead_max", "sales"), [(3, 2, 2), (2, 3, 2), (3, None, 3)])
def test_submission_lowers_sales_max_and_never_raises_it(
    plan_max: int, lead_max: int | None, sales: int
) -> None:
    orders = tuple(order(f"b{n}", shared="list") for n in range(5))
    story = Story(market(plan(shared_stage(), sales_max=plan_max), orders=orders))
    story.when(lead(sales_max=lead_max))
    assert len(story.all(LeadSold)) == sales


def test_buyer_with_two_orders_buys_once() -> None:
    orders = (order("a", shared="list", name="one"), order("a", shared="list", name="two"))
    story = Story(market(plan(shared_stage()), orders=orders))
    story.when(lead())
    assert len(story.all(LeadSold)) == 1
    assert story.lead.outcome is Outcome.PARTLY_SOLD


def test_excluded_buyer_is_passed_over() -> None:
    story = Story(market(plan(shared_stage()), orders=(order("a", shared="list"), order("b", shared="list"))))
    story.when(lead(never_to=("a",)))
    assert [sale.buyer_id for sale in story.all(LeadSold)] == ["b"]


def test_paused_order_and_paused_buyer_are_passed_over() -> None:
    paused = order("a", shared="list", paused=True)
    story = Story(market(plan(shared_stage()), orders=(paused, order("b", shared="list"))))
    story.when(lead())
    assert [sale.buyer_id for sale in story.all(LeadSold)] == ["b"]


def test_order_without_room_is_passed_over() -> None:
    story = Story(market(plan(shared_stage()), orders=(order("a", shared="list"), order("b", shared="list"))))
    story.no_room = frozenset({"a/all"})
    story.when(lead())
    assert [sale.buyer_id for sale in story.all(LeadSold)] == ["b"]


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ((("state", AnyOf(values=frozenset({"AZ", "NM"}))),), True),
        ((("state", AnyOf(values=frozenset({"NV"}))),), False),
        ((("bill", Between(low=15000, high=None)),), True),
        ((("bill", Between(low=15001, high=None)),), False),
        ((("bill", Between(low=None, high=15000)),), True),
        ((("bill", Between(low=None, high=14999)),), False),
        ((("quality", Between(low=50, high=50)),), True),
        ((("quality", Between(low=51, high=None)),), False),
        ((("age", Between(low=None, high=0)),), True),
        ((("age", Between(low=1, high=None)),), False),
        ((("owner", AnyOf(values=frozenset({"yes"}))), ("state", AnyOf(values=frozenset({"NV"})))), False),
    ],
)
def test_filter_admits_both_ends_and_nothing_else(
    where: tuple[tuple[str, AnyOf | Between], ...], fits: bool
) -> None:
    story = Story(market(plan(shared_stage()), orders=(order("a", shared="list", where=where),)))
    story.when(lead())
    assert bool(story.all(LeadSold)) is fits


def test_missing_field_meets_no_filter() -> None:
    where = (("bill", Between(low=None, high=None)),)
    story = Story(market(plan(shared_stage()), orders=(order("a", shared="list", where=where),)))
    story.when(lead(fields={"state": "AZ"}))
    assert story.all(LeadSold) == []


@pytest.mark.parametrize(("holders_max", "sales"), [(1, 0), (2, 1), (3, 1)])
def test_holders_max_keeps_a_buyer_from_leads_that_may_have_more(holders_max: int, sales: int) -> None:
    orders = (order("a", shared="list", holders_max=holders_max),)
    story = Story(market(plan(shared_stage(), sales_max=2), orders=orders))
    story.when(lead())
    assert len(story.all(LeadSold)) == sales


def test_only_admits_the_named_buyers() -> None:
    stages = (exclusive_stage(8000, only=("a",)), exclusive_stage(7500))
    story = Story(market(plan(*stages, sales_max=1), orders=(order("b", exclusive=9900),)))
    story.when(lead())
    assert _sold(story) == [("b", "exclusive", 9900)]
    assert [event.stage for event in story.all(StageStarted)] == [1]


def test_disclosed_lead_is_never_again_sold_exclusive() -> None:
    stages = (shared_stage(4000), exclusive_stage(9000), shared_stage(3000))
    orders = (order("a", shared=4000), order("b", exclusive="list"))
    story = Story(market(plan(*stages), orders=orders))
    story.when(lead())
    assert _sold(story) == [("a", "shared", 4000)]
    assert story.lead.outcome is Outcome.PARTLY_SOLD


def test_either_by_price_takes_what_brings_more() -> None:
    shared = tuple(order(f"s{n}", shared="list") for n in range(3))
    alone = order("x", exclusive="list")
    for exclusive_cents, mode in ((12001, "exclusive"), (12000, "exclusive"), (11999, "shared")):
        story = Story(market(plan(either_stage(exclusive_cents, 4000)), orders=(*shared, alone)))
        story.when(lead())
        assert {sale.mode.value for sale in story.all(LeadSold)} == {mode}


def test_either_by_priority_sells_as_the_first_in_rank_says() -> None:
    first_shared = (
        order("a", shared="list", priority=1),
        order("b", exclusive=99900, priority=2),
        order("c", shared="list", priority=3),
    )
    story = Story(
        market(plan(either_stage(7500, 4200, by=Ranking.PRIORITY), sales_max=2), orders=first_shared)
    )
    story.when(lead())
    assert _sold(story) == [("a", "shared", 4200), ("c", "shared", 4200)]
    first_alone = (order("a", shared="list", priority=2), order("b", exclusive="list", priority=1))
    story = Story(
        market(plan(either_stage(7500, 4200, by=Ranking.PRIORITY), sales_max=2), orders=first_alone)
    )
    story.when(lead())
    assert _sold(story) == [("b", "exclusive", 7500)]


def test_equal_prices_are_dealt_evenly_by_lead_id() -> None:
    orders = tuple(order(f"b{n}", exclusive="list") for n in range(4))
    given_market = market(plan(exclusive_stage(), sales_max=1), orders=orders)
    winners: Counter[str] = Counter()
    for n in range(2_000):
        story = Story(given_market)
        story.when(lead(f"lead-{n}"))
        winners[story.all(LeadSold)[0].buyer_id] += 1
    # 500 each is expected; 3 sigma of a binomial with n = 2,000 and p = 1/4 is 58.
    assert all(abs(won - 500) <= 58 for won in winners.values()), winners


def test_weights_deal_in_their_proportion() -> None:
    orders = (order("a", shared="list", weight=3), order("b", shared="list", weight=1))
    given_market = market(plan(shared_stage(4000, by=Ranking.WEIGHT), sales_max=1), orders=orders)
    winners: Counter[str] = Counter()
    for n in range(2_000):
        story = Story(given_market)
        story.when(lead(f"lead-{n}"))
        winners[story.all(LeadSold)[0].buyer_id] += 1
    # 1,500 are expected for a; 3 sigma is 58.
    assert abs(winners["a"] - 1_500) <= 58, winners


def test_plan_is_chosen_by_quality_and_age_in_order() -> None:
    premium = plan(
        exclusive_stage(),
        sales_max=1,
        name="premium",
        when=(("quality", Between(low=80, high=None)), ("age", Between(low=None, high=3_600_000))),
    )
    standard = plan(shared_stage(), name="standard")
    for quality, age_ms, name in ((80, 0, "premium"), (79, 0, "standard"), (80, 3_600_001, "standard")):
        story = Story(market(premium, standard))
        story.when(lead(quality=quality, created_at_ms=NOW_MS - age_ms))
        assert story.all(LeadListed)[0].plan == name


def test_share_takes_its_part_of_the_leads_reproducibly() -> None:
    half = plan(exclusive_stage(), sales_max=1, name="half", share_basis_points=5_000)
    rest = plan(shared_stage(), name="rest")
    chosen: Counter[str | None] = Counter()
    for n in range(2_000):
        plans = []
        for _ in range(2):
            story = Story(market(half, rest))
            story.when(lead(f"lead-{n}"))
            plans.append(story.all(LeadListed)[0].plan)
        assert plans[0] == plans[1]
        chosen[plans[0]] += 1
    # 1,000 are expected; 3 sigma is 67.
    assert abs(chosen["half"] - 1_000) <= 67, chosen


def test_lead_that_no_plan_fits_is_listed_and_closed_unsold() -> None:
    never = plan(shared_stage(), when=(("quality", Between(low=90, high=None)),))
    story = Story(market(never, orders=(order("a", shared="list"),)))
    story.when(lead(quality=10))
    assert story.all(LeadListed)[0].plan is None
    assert [event.outcome for event in story.all(LeadClosed)] == [Outcome.UNSOLD]


def test_plan_is_kept_when_the_market_changes() -> None:
    accepted = market(
        plan(exclusive_stage(9000, keep_trying=KeepTrying(every_ms=1_000, for_ms=5_000)), sales_max=1)
    )
    story = Story(accepted, accepted_market=accepted)
    story.when(lead())
    story.market = market(
        plan(shared_stage(100), name="other"),
        orders=(order("a", exclusive="list", shared="list"),),
        version=2,
    )
    story.fire_next_window()
    assert _sold(story) == [("a", "exclusive", 9000)]


def test_keep_trying_repeats_until_its_time_and_then_goes_on() -> None:
    stage = exclusive_stage(9000, keep_trying=KeepTrying(every_ms=1_000, for_ms=3_000))
    story = Story(market(plan(stage, sales_max=1)))
    story.when(lead())
    tries = 0
    while story.lead.outcome is None:
        story.fire_next_window()
        tries += 1
    assert tries == 3
    assert story.now_ms == NOW_MS + 3_000
    assert {window.kind for window in story.all(WindowOpened)} == {WindowKind.RETRY}
    assert story.lead.outcome is Outcome.UNSOLD


def test_wait_delays_the_stage_and_ages_the_lead() -> None:
    stages = (shared_stage(4000), shared_stage(600, wait_ms=30_000))
    aged = order("old", shared="list", where=(("age", Between(low=30_000, high=None)),))
    story = Story(market(plan(*stages), orders=(order("a", shared=4000), aged)))
    story.when(lead())
    assert _sold(story) == [("a", "shared", 4000)]
    story.fire_next_window()
    assert _sold(story)[1:] == [("old", "shared", 600)]


_PRICES = st.integers(min_value=1, max_value=20_000)
_ORDERS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.none() | _PRICES | st.just("list"),
        st.none() | _PRICES | st.just("list"),
        st.integers(1, 3),
    ),
    max_size=12,
)
_STAGES = st.lists(
    st.one_of(
        st.builds(lambda cents: exclusive_stage(cents), _PRICES),
        st.builds(
            lambda cents: shared_stage(*sorted(cents, reverse=True)),
            st.lists(_PRICES, min_size=1, max_size=4),
        ),
        st.builds(
            lambda one, cents, by: either_stage(one, *sorted(cents, reverse=True), by=by),
            _PRICES,
            st.lists(_PRICES, min_size=1, max_size=4),
            st.sampled_from([Ranking.PRICE, Ranking.PRIORITY]),
        ),
        st.builds(lambda cents: shared_stage(cents, wait_ms=1_000), _PRICES),
        st.builds(lambda cents: exclusive_stage(cents, exclusive_for_ms=1_000), _PRICES),
    ),
    min_size=1,
    max_size=5,
)


@given(orders=_ORDERS, stages=_STAGES, sales_max=st.integers(1, 5), lead_number=st.integers(0, 50))
def test_no_plan_breaks_a_promise(
    orders: list[tuple[int, int | str | None, int | str | None, int]],
    stages: list[object],
    sales_max: int,
    lead_number: int,
) -> None:
    """Whatever is configured: at most sales_max buyers, none twice, nobody beside an exclusive holder, one close."""
    standing = tuple(
        order(f"b{buyer}", exclusive=exclusive, shared=shared, priority=priority, name=f"o{n}")
        for n, (buyer, exclusive, shared, priority) in enumerate(orders)
    )
    story = Story(market(plan(*stages, sales_max=sales_max), orders=standing))  # type: ignore[arg-type]
    story.when(lead(f"lead-{lead_number}"))
    for _ in range(20):
        if story.lead.outcome is not None:
            break
        story.fire_next_window()
    assert story.lead.outcome is not None
    sold = story.all(LeadSold)
    assert len(sold) <= sales_max
    assert len({sale.buyer_id for sale in sold}) == len(sold)
    assert [sale.sale_number for sale in sold] == list(range(1, len(sold) + 1))
    for before, after in zip(story.lead.sales, story.lead.sales[1:], strict=False):
        assert after.mode is Mode.SHARED
        if before.mode is Mode.EXCLUSIVE:
            assert before.exclusive_until_ms is not None
            assert after.sold_at_ms >= before.exclusive_until_ms
    assert len(story.all(LeadClosed)) == 1
