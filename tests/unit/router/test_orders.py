"""The index of orders finds exactly the orders that a plain look at each would find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.fields import canonical, matches
from services.contract.market import AnyOf, Between, Condition, Mode, Where
from services.router.orders import OrderBook, members_of, nth_of, order_books
from services.router.prices import Bid, PricesWithBids, RankedPrices
from tests.support.deciding import DETAILS, market, order, plan, shared_stage

_BOUND = st.none() | st.integers(0, 40)
_RANGES = st.tuples(_BOUND, _BOUND).map(lambda ends: Between(low=_scaled(ends[0]), high=_scaled(ends[1])))
_CONDITIONS: dict[str, st.SearchStrategy[Condition]] = {
    "state": st.sets(st.sampled_from(["AZ", "NM", "NV"]), min_size=1).map(
        lambda found: AnyOf(values=frozenset(found))
    ),
    "owner": st.sampled_from(["yes", "no"]).map(lambda found: AnyOf(values=frozenset({found}))),
    "bill": st.one_of(_RANGES, st.just(AnyOf(values=frozenset({"10.00"})))),
    "quality": st.tuples(_BOUND, _BOUND).map(lambda ends: Between(low=ends[0], high=ends[1])),
    "age": st.tuples(_BOUND, _BOUND).map(lambda ends: Between(low=ends[0], high=ends[1])),
}
_WHERE = st.lists(st.sampled_from(sorted(_CONDITIONS)), unique=True, max_size=4).flatmap(
    lambda names: st.tuples(*(st.tuples(st.just(name), _CONDITIONS[name]) for name in names))
)
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["AZ", "NM", "CA"]),
        "owner": st.sampled_from(["yes", "no"]),
        "bill": st.integers(0, 40).map(lambda amount: canonical(DETAILS["bill"], str(amount))),
    },
)


def _scaled(bound: int | None) -> int | None:
    return None if bound is None else bound * 100


@given(
    wheres=st.lists(st.tuples(_WHERE, st.none() | st.integers(1, 4)), max_size=8),
    fields=_FIELDS,
    quality=st.integers(0, 40),
    age_ms=st.integers(0, 40),
    sales_max=st.integers(1, 4),
)
def test_index_agrees_with_looking_at_each_order(
    wheres: list[tuple[Where, int | None]], fields: dict[str, str], quality: int, age_ms: int, sales_max: int
) -> None:
    orders = [
        order(f"b{n}", shared="list", where=where, holders_max=holders_max)
        for n, (where, holders_max) in enumerate(wheres)
    ]
    book = OrderBook(market(plan(shared_stage())).lead_types["solar"], orders)
    found = book.fitting(fields, quality=quality, age_ms=age_ms, sales_max=sales_max)
    expected = {
        item.id
        for item in orders
        if matches(item.where, fields, DETAILS, quality, age_ms)
        and (item.holders_max is None or item.holders_max >= sales_max)
    }
    assert {book.orders[bit].id for bit in members_of(found)} == expected


@given(members=st.sets(st.integers(0, 2_000), min_size=1, max_size=60))
def test_nth_member_of_a_set_is_the_nth_smallest(members: set[int]) -> None:
    as_set = sum(1 << bit for bit in members)
    for n, bit in enumerate(sorted(members)):
        assert nth_of(as_set, n) == 1 << bit
    assert list(members_of(as_set)) == sorted(members)


def test_paused_orders_and_buyers_are_not_in_the_book() -> None:
    given_market = market(
        plan(shared_stage()), orders=(order("a", shared="list"), order("b", shared="list", paused=True))
    )
    (book,) = order_books(given_market).values()
    assert [item.id for item in book.orders] == ["a/all"]


@pytest.mark.parametrize(
    ("floor_cents", "expected"), [(4_000, {"a", "b", "c"}), (4_001, {"a", "c"}), (5_000, {"a", "c"})]
)
def test_own_amount_counts_from_the_floor_up_and_the_list_always(
    floor_cents: int, expected: set[str]
) -> None:
    orders = (
        order("a", shared=5_000),
        order("b", shared=4_000),
        order("c", shared="list"),
        order("d", exclusive=9_000),
    )
    book = OrderBook(market(plan(shared_stage())).lead_types["solar"], orders)
    prices = book.prices(Mode.SHARED, list_cents=6_000, floor_cents=floor_cents)
    assert {book.orders[bit].buyer_id for bit in members_of(prices.orders)} == expected


def test_prices_go_from_the_highest_down_and_the_list_price_is_one_of_them() -> None:
    orders = (
        order("a", shared=4_000),
        order("b", shared="list"),
        order("c", shared=5_000),
        order("d", shared=4_000),
    )
    book = OrderBook(market(plan(shared_stage())).lead_types["solar"], orders)
    prices = book.prices(Mode.SHARED, list_cents=4_000, floor_cents=3_000)
    assert [cents for cents, _ in prices.classes] == [5_000, 4_000]
    assert prices.best_of(book.of_ids(["a/all", "b/all", "d/all"])) == book.of_ids(
        ["a/all", "b/all", "d/all"]
    )
    assert prices.price_of(book.of_ids(["b/all"])) == 4_000
    assert prices.best_of(0) == 0


def test_order_that_bids_has_no_standing_price_in_that_mode() -> None:
    orders = (order("a", exclusive="bid", shared=4_000), order("b", exclusive=9_000, shared="bid"))
    (book,) = order_books(market(plan(shared_stage()), orders=orders)).values()
    assert [cents for cents, _ in book.prices(Mode.EXCLUSIVE, list_cents=None, floor_cents=0).classes] == [
        9_000
    ]
    assert [book.orders[bit].id for bit in members_of(book.bidders(Mode.EXCLUSIVE))] == ["a/all"]
    assert [book.orders[bit].id for bit in members_of(book.bidders(Mode.SHARED))] == ["b/all"]


@given(
    standing=st.lists(st.integers(1, 6), max_size=5),
    bids=st.lists(st.integers(1, 6), max_size=5),
    out=st.sets(st.integers(0, 9)),
)
def test_bids_and_standing_prices_are_one_ranking(
    standing: list[int], bids: list[int], out: set[int]
) -> None:
    paid = {1 << bit: cents for bit, cents in enumerate([*standing, *bids])}
    live = sorted((Bid(paid[1 << bit], 1 << bit) for bit in range(len(standing), len(paid))), reverse=True)
    classes = [
        (cents, sum(1 << bit for bit, other in enumerate(standing) if other == cents))
        for cents in sorted(set(standing), reverse=True)
    ]
    ranked = RankedPrices(classes=classes, orders=(1 << len(standing)) - 1)
    prices = PricesWithBids(ranked, live)
    able = sum(single for single in paid if single.bit_length() - 1 not in out)
    best = max((cents for single, cents in paid.items() if single & able), default=None)
    assert prices.orders == sum(paid)
    assert prices.best_of(able) == sum(
        single for single, cents in paid.items() if single & able and cents == best
    )
    assert {single: prices.price_of(single) for single in paid} == paid
