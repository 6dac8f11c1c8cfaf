"""For every order of a buyer, the reason that is told is the one that decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.events import NoBidReason, RejectionReason
from services.contract.fields import AGE, QUALITY
from services.contract.ids import lead_id_of
from services.contract.inputs import AcceptOffer, DeclineToBid, PlaceBid, RejectOffer
from services.contract.market import (
    AnyOf,
    Between,
    Floor,
    KeepTrying,
    Market,
    OpenHours,
    Order,
    Plan,
    Ranking,
    Selection,
    Sell,
    Upgrade,
)
from services.router.hindrances import Decisive, Reason, condition_text, hindrance
from services.router.orders import order_books
from services.router.selling import candidates
from services.router.why import explain, orders_of
from tests.support.deciding import (
    DETAILS,
    NOW_MS,
    bid_stage,
    either_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)
from tests.support.retelling import Chronicle

LEAD = lead_id_of("sunform", "lead-1")
RIVAL = order("rival", exclusive="list", shared="list")
EXCLUSIVE = plan(exclusive_stage(), sales_max=1)
SHARED = plan(shared_stage(4500, 4000), sales_max=2)


def told_of(found: Market, *, no_room: tuple[str, ...] = (), **options: Any) -> Chronicle:
    """One lead, listed."""
    told = Chronicle({found.version: found})
    told.when(lead(market_version=found.version, **options), no_room=no_room)
    return told


def why(told: Chronicle, order_id: str, attempt: int = 0) -> Reason:
    """The reason told of an order, in one of the attempts to sell."""
    found = told.attempts()[attempt]
    terms = told.terms(found)
    (each,) = [
        each for each in orders_of(terms.market, order_id.partition("/")[0], "solar") if each.id == order_id
    ]
    return explain(found, each, terms)


def why_of(each: Order, *plans: Plan, others: tuple[Order, ...] = (RIVAL,), **options: Any) -> Reason:
    """The reason told of one order beside its rivals."""
    return why(told_of(market(*(plans or (EXCLUSIVE,)), orders=(each, *others)), **options), each.id)


# What kept an order from being a candidate.


@pytest.mark.parametrize(
    ("each", "options", "decisive", "words"),
    [
        (order("oak", exclusive=9900, paused=True), {}, Decisive.PAUSED, "was paused"),
        (
            order("oak", exclusive=9900, where=(("state", AnyOf(values=frozenset({"NM", "NV"}))),)),
            {},
            Decisive.FILTER,
            "filter state: it wants NM or NV, and the lead has AZ",
        ),
        (
            order("oak", exclusive=9900, where=(("bill", Between(low=20_000, high=None)),)),
            {},
            Decisive.FILTER,
            "filter bill: it wants from 200.00, and the lead has 150.00",
        ),
        (
            order("oak", exclusive=9900, where=((QUALITY, Between(low=80, high=100)),)),
            {},
            Decisive.FILTER,
            "filter quality: it wants from 80 up to 100, and the lead has 50",
        ),
        (
            order("oak", exclusive=9900, where=((AGE, Between(low=86_400_000, high=None)),)),
            {},
            Decisive.FILTER,
            "filter age: it wants from 1 day, and the lead has an age of 0 days",
        ),
        (order("oak", exclusive=9900), {"never_to": ("oak",)}, Decisive.EXCLUDED, "never sells to oak"),
        (
            order("oak", exclusive=9900),
            {"consented_buyers": ("elm", "rival")},
            Decisive.NOT_CONSENTED,
            "the person consented to elm, rival only",
        ),
        (
            order("oak", exclusive=9900, open=(OpenHours(days=(6,), from_minute=0, to_minute=60),)),
            {},
            Decisive.HOURS,
            "America/New_York",
        ),
        (order("oak", exclusive=9900), {"no_room": ("oak/all",)}, Decisive.NO_ROOM, "had no room"),
    ],
    ids=lambda value: value.name if isinstance(value, Decisive) else "",
)
def test_what_keeps_an_order_out_is_named(
    each: Order, options: dict[str, Any], decisive: Decisive, words: str
) -> None:
    reason = why_of(each, **options)
    assert reason.decisive is decisive
    assert words in reason.sentence


def test_the_first_of_several_filters_that_does_not_fit_is_named() -> None:
    where = (
        ("owner", AnyOf(values=frozenset({"yes"}))),
        ("state", AnyOf(values=frozenset({"NM"}))),
        ("bill", Between(low=20_000, high=None)),
    )
    assert "filter state" in why_of(order("oak", exclusive=9900, where=where)).sentence


def test_an_order_with_few_co_holders_is_kept_out_by_what_may_come() -> None:
    reason = why_of(order("oak", shared="list", holders_max=1), SHARED)
    assert reason == Reason(
        Decisive.HOLDERS_MAX, "takes no lead that more than 1 may get, and this one up to 2 may"
    )


def test_a_stage_for_others_only_is_named() -> None:
    reason = why_of(order("oak", exclusive=9900), plan(exclusive_stage(only=("rival",)), sales_max=1))
    assert reason == Reason(Decisive.STAGE, "the stage sells to rival only")


def test_a_paused_buyer_is_named() -> None:
    found = market(EXCLUSIVE, orders=(order("oak", exclusive=9900), RIVAL))
    found = replace(found, buyers={**found.buyers, "oak": replace(found.buyers["oak"], paused=True)})
    assert why(told_of(found), "oak/all").sentence == "oak was paused, and all of its orders with it"


# What kept a candidate from paying.


@pytest.mark.parametrize(
    ("each", "plans", "decisive", "words"),
    [
        (order("oak", shared=9900), (EXCLUSIVE,), Decisive.MODE, "does not take leads exclusive"),
        (
            order("oak", exclusive=8999),
            (EXCLUSIVE,),
            Decisive.PRICE,
            "pays 89.99 exclusive, below the floor of 90.00",
        ),
        (
            order("oak", exclusive=9500),
            (plan(exclusive_stage(floor=Floor(exclusive=9600)), sales_max=1),),
            Decisive.PRICE,
            "below the floor of 96.00",
        ),
        (order("oak", exclusive="bid"), (EXCLUSIVE,), Decisive.BID, "the stage asked nobody (direct)"),
        (
            order("oak", shared="list", upgrade_always=True),
            (SHARED,),
            Decisive.MODE,
            "only where it can close the other slots at once",
        ),
    ],
)
def test_what_an_order_pays_in_no_mode_for_sale_is_named(
    each: Order, plans: tuple[Plan, ...], decisive: Decisive, words: str
) -> None:
    reason = why_of(each, *plans)
    assert reason.decisive is decisive
    assert words in reason.sentence


# Who came first.


@pytest.mark.parametrize(
    ("each", "rival", "stage", "decisive", "words"),
    [
        (
            order("oak", exclusive=9100),
            order("rival", exclusive=9200),
            exclusive_stage(),
            Decisive.RANK,
            "rival/all, exclusive at 92.00, paid more than its 91.00",
        ),
        (
            order("oak", exclusive="list", priority=2),
            order("rival", exclusive="list", priority=1),
            exclusive_stage(by=Ranking.PRIORITY),
            Decisive.RANK,
            "by priority (1 before 2)",
        ),
        (
            order("oak", shared="list"),
            order("rival", exclusive=9000),
            either_stage(9000, 3000),
            Decisive.MODE,
            "which brought more than this order's way",
        ),
    ],
)
def test_who_came_first_is_named_with_what_made_it_first(
    each: Order, rival: Order, stage: Any, decisive: Decisive, words: str
) -> None:
    reason = why_of(each, plan(stage, sales_max=2), others=(rival,))
    assert reason.decisive is decisive
    assert words in reason.sentence


@pytest.mark.parametrize("by", [Ranking.PRICE, Ranking.PRIORITY, Ranking.ROUND_ROBIN, Ranking.WEIGHT])
def test_of_equal_rank_one_is_dealt_the_lead_and_the_other_is_told_so(by: Ranking) -> None:
    equals = (order("oak", exclusive="list"), order("rival", exclusive="list"))
    told = told_of(market(plan(exclusive_stage(by=by), sales_max=1), orders=equals))
    reasons = [why(told, each.id) for each in equals]
    assert {reason.decisive for reason in reasons} == {Decisive.SOLD, Decisive.DEALT}
    assert any("lead id" in reason.sentence for reason in reasons)


def test_the_other_order_of_a_buyer_that_got_it_is_told_by_which() -> None:
    told = told_of(
        market(EXCLUSIVE, orders=(order("oak", exclusive=9900), order("oak", exclusive=9100, name="cheap")))
    )
    assert why(told, "oak/cheap") == Reason(Decisive.HOLDS, "its buyer got it by order oak/all")


def test_what_was_bought_is_told_with_its_terms() -> None:
    assert why_of(order("oak", shared=9900), SHARED) == Reason(
        Decisive.SOLD, "bought it shared, number 1 of at most 2, at 99.00"
    )


# Stage after stage, try after try.


def test_each_stage_and_each_try_has_its_own_reason() -> None:
    trying = exclusive_stage(keep_trying=KeepTrying(every_ms=60_000, for_ms=60_000))
    told = told_of(
        market(plan(trying, shared_stage(4000)), orders=(order("oak", exclusive="list", shared="list"),)),
        no_room=("oak/all",),
    )
    told.timer(no_room=("oak/all",))
    stages = [attempt.lead.stage for attempt in told.attempts()]
    assert stages == [0, 0, 1]
    assert [why(told, "oak/all", number).decisive for number in range(3)] == [Decisive.NO_ROOM] * 3


def test_who_holds_it_or_passed_on_it_is_told_so_later() -> None:
    offered = exclusive_stage(accept_within_ms=60_000, exclusive_for_ms=3_600_000)
    told = told_of(
        market(
            plan(offered, shared_stage(4000), sales_max=3),
            orders=(
                order("oak", exclusive=9900, shared="list"),
                order("elm", exclusive=9500, shared="list"),
            ),
        )
    )
    assert why(told, "oak/all").decisive is Decisive.OFFERED
    assert "elm/all" not in why(told, "elm/all").sentence
    assert why(told, "elm/all").decisive is Decisive.RANK
    told.when(RejectOffer(lead_id=LEAD, buyer_id="oak", offer_number=1, reason=RejectionReason.PRICE))
    assert why(told, "oak/all", 1).decisive is Decisive.PASSED
    told.when(AcceptOffer(lead_id=LEAD, buyer_id="elm", offer_number=2, answered_at_ms=told.now_ms))
    told.timer()
    assert why(told, "elm/all", 2) == Reason(Decisive.HOLDS, "elm held it already, by order elm/all")
    assert why(told, "oak/all", 2).decisive is Decisive.PASSED


def test_selling_that_waits_for_an_upgrade_is_told() -> None:
    upgrade = Upgrade(per_slot_cents=3750, within_ms=120_000)
    orders = (order("oak", shared=5000), order("elm", shared=4900))
    told = told_of(market(plan(shared_stage(4500, 4000, upgrade=upgrade)), orders=orders))
    assert why(told, "oak/all").decisive is Decisive.SOLD
    assert why(told, "elm/all").decisive is Decisive.RANK
    told.timer()
    assert why(told, "elm/all", 1) == Reason(
        Decisive.SOLD, "bought it shared, number 2 of at most 3, at 49.00"
    )


# Auctions.


def bid(told: Chronicle, buyer_id: str, exclusive: int | None, shared: int | None = None) -> None:
    told.when(
        PlaceBid(
            lead_id=LEAD,
            buyer_id=buyer_id,
            auction_number=1,
            exclusive_cents=exclusive,
            shared_cents=shared,
            answered_at_ms=told.now_ms,
        )
    )


def an_auction() -> Chronicle:
    """From 50.00: oak wins, elm is outbid, ash bids too little, fir declines, yew is silent, ivy has no room."""
    buyers = ("oak", "elm", "ash", "fir", "yew", "ivy")
    told = told_of(
        market(
            plan(bid_stage(Sell.EXCLUSIVE, exclusive=5000), sales_max=1),
            orders=(
                *(order(buyer_id, exclusive="bid") for buyer_id in buyers),
                order("oak", exclusive="bid", name="second", priority=200),
                order("standing", exclusive=6500),
            ),
        )
    )
    bid(told, "oak", 8000)
    bid(told, "elm", 7000)
    bid(told, "ash", 4000)
    bid(told, "ivy", 9000)
    told.when(
        DeclineToBid(
            lead_id=LEAD,
            buyer_id="fir",
            auction_number=1,
            reason=NoBidReason.PRICE,
            answered_at_ms=told.now_ms,
        )
    )
    told.close_auction(no_room=("ivy/all",))
    return told


@pytest.mark.parametrize(
    ("order_id", "decisive", "words"),
    [
        ("oak/all", Decisive.SOLD, "bought it exclusive at 80.00"),
        ("oak/second", Decisive.BID, "was not asked: its buyer was, for order oak/all"),
        ("elm/all", Decisive.RANK, "was outbid; 80.01 exclusive would have won"),
        ("ash/all", Decisive.PRICE, "less than the floor"),
        ("fir/all", Decisive.BID, "answered that it does not bid"),
        ("yew/all", Decisive.BID, "did not answer in time"),
        ("ivy/all", Decisive.NO_ROOM, "had no room"),
        ("standing/all", Decisive.RANK, "oak/all, exclusive at 80.00, paid more than its 65.00"),
    ],
)
def test_the_fate_of_each_bid_and_standing_order_is_told_when_the_auction_closes(
    order_id: str, decisive: Decisive, words: str
) -> None:
    reason = why(an_auction(), order_id, 1)
    assert reason.decisive is decisive
    assert words in reason.sentence


@pytest.mark.parametrize(
    ("order_id", "decisive"),
    [("oak/all", Decisive.ASKED), ("oak/second", Decisive.BID), ("standing/all", Decisive.WAITS)],
)
def test_who_is_asked_and_who_competes_at_the_close_is_told_when_it_opens(
    order_id: str, decisive: Decisive
) -> None:
    assert why(an_auction(), order_id).decisive is decisive


def test_a_first_bid_that_sold_nothing_is_no_attempt_and_the_end_tells_of_it() -> None:
    told = told_of(
        market(
            plan(bid_stage(Sell.EXCLUSIVE, exclusive=2000, selection=Selection.FIRST_BID), sales_max=1),
            orders=tuple(order(buyer_id, exclusive="bid") for buyer_id in ("oak", "elm", "ash")),
        )
    )
    bid(told, "oak", 1000)
    bid(told, "elm", 2500)
    opened, closed = told.attempts()
    assert (opened.ended, closed.ended is not None) == (None, True)
    assert why(told, "elm/all", 1).decisive is Decisive.SOLD
    assert why(told, "oak/all", 1).decisive is Decisive.PRICE
    assert why(told, "ash/all", 1).decisive is Decisive.BID


# The reasons are the rules: what is told agrees with what decides, on any market.

CONDITIONS: tuple[Any, ...] = (
    (),
    (("state", AnyOf(values=frozenset({"AZ", "NM"}))),),
    (("state", AnyOf(values=frozenset({"NM"}))),),
    (("bill", Between(low=10_000, high=20_000)),),
    (("bill", Between(low=15_001, high=None)),),
    ((QUALITY, Between(low=51, high=None)), ("state", AnyOf(values=frozenset({"AZ"})))),
    ((AGE, Between(low=None, high=60_000)),),
    (("missing", AnyOf(values=frozenset({"x"}))),),
)
HOURS: tuple[tuple[OpenHours, ...], ...] = (
    (),
    (OpenHours(days=tuple(range(7)), from_minute=0, to_minute=24 * 60),),
    (OpenHours(days=(2,), from_minute=0, to_minute=60),),
)
PRICES = st.sampled_from([None, "list", "bid", 3000, 4000, 4500, 9000, 9500])
STAGES: tuple[Callable[[Ranking], Any], ...] = (
    lambda by: exclusive_stage(by=by),
    lambda by: exclusive_stage(by=by, only=("b1", "b2")),
    lambda by: exclusive_stage(by=by, accept_within_ms=60_000),
    lambda by: shared_stage(4500, 4000, by=by),
    lambda by: shared_stage(4500, 4000, by=by, upgrade=Upgrade(per_slot_cents=100)),
    lambda by: shared_stage(4500, 4000, by=by, upgrade=Upgrade(per_slot_cents=100, within_ms=60_000)),
    lambda by: either_stage(9000, 4500, 4000, by=by),
    lambda _: bid_stage(exclusive=5000, shared=2000),
    lambda _: bid_stage(Sell.SHARED, shared=2000, selection=Selection.FIRST_BID),
)


@st.composite
def orders(draw: st.DrawFn) -> tuple[Order, ...]:
    """Up to eight orders of four buyers."""
    found = []
    for number in range(draw(st.integers(1, 8))):
        exclusive, shared = draw(PRICES), draw(PRICES)
        found.append(
            order(
                f"b{draw(st.integers(1, 4))}",
                exclusive=exclusive if (exclusive, shared) != (None, None) else "list",
                shared=shared,
                name=f"o{number}",
                where=draw(st.sampled_from([where for where in CONDITIONS if "missing" not in dict(where)])),
                open=draw(st.sampled_from(HOURS)),
                paused=draw(st.sampled_from([False, False, False, True])),
                priority=draw(st.integers(1, 2)),
                weight=draw(st.integers(1, 3)),
                holders_max=draw(st.sampled_from([None, None, 1, 3])),
                upgrade_always=draw(st.sampled_from([False, False, True])),
            )
        )
    return tuple(found)


@given(data=st.data())
def test_the_reason_told_is_the_one_that_decided(data: st.DataObject) -> None:
    """Hindered is exactly who is no candidate; sold is exactly who bought; and nobody is left without a reason."""
    by = data.draw(st.sampled_from(Ranking))
    stages = [each(by) for each in data.draw(st.lists(st.sampled_from(STAGES), min_size=1, max_size=3))]
    made = data.draw(orders())
    found = market(plan(*stages), orders=made)
    no_room = data.draw(st.sets(st.sampled_from([each.id for each in made])))
    never_to = data.draw(st.sampled_from([(), ("b1",)]))
    told = told_of(
        found,
        no_room=tuple(no_room),
        never_to=never_to,
        consented_buyers=data.draw(st.sampled_from([(), (), ("b1", "b2")])),
        created_at_ms=NOW_MS - data.draw(st.sampled_from([0, 120_000])),
        lead_id=lead_id_of("sunform", data.draw(st.sampled_from(["a", "b", "c"]))),
    )
    for _ in range(3):
        state: Any = told.state
        if state.auction is not None:
            for asked in state.auction.invited:
                if told.state.auction is not None and data.draw(st.booleans()):  # type: ignore[union-attr]  # a lead
                    told.when(
                        PlaceBid(
                            lead_id=state.lead_id,
                            buyer_id=asked.buyer_id,
                            auction_number=state.auction.number,
                            exclusive_cents=data.draw(st.sampled_from([4000, 6000, 9000])),
                            shared_cents=data.draw(st.sampled_from([None, 1000, 4000, 9000])),
                            answered_at_ms=told.now_ms,
                        )
                    )
            if told.state.auction is not None:  # type: ignore[union-attr]  # a lead
                told.close_auction()
        elif state.windows:
            told.timer()
    for attempt in told.attempts():
        check(told, attempt)


def check(told: Chronicle, attempt: Any) -> None:
    terms = told.terms(attempt)
    stage = terms.stage(attempt)
    book = order_books(terms.market)["solar"]
    fitting = candidates(
        book,
        attempt.lead,
        stage,
        no_room=frozenset(attempt.step.entry.no_room),
        now_ms=attempt.judged_at_ms,
    )
    bought = {sold.order_id for sold in attempt.sold}
    for buyer in terms.market.buyers.values():
        for each in orders_of(terms.market, buyer.id, "solar"):
            is_candidate = bool(book.of_ids((each.id,)) & fitting)
            assert (hindrance(attempt, each, stage, terms) is None) == is_candidate, each.id
            reason = explain(attempt, each, terms)
            assert (reason.decisive is Decisive.SOLD) == (each.id in bought)
            assert reason.decisive is not Decisive.UNEXPLAINED, each.id


@pytest.mark.parametrize(
    ("name", "condition", "text"),
    [
        ("state", AnyOf(values=frozenset({"NV", "AZ"})), "AZ or NV"),
        ("bill", Between(low=None, high=15_000), "up to 150.00"),
        (AGE, Between(low=3_600_000, high=7_200_000), "from 1 hour up to 2 hours"),
        (QUALITY, Between(low=80, high=None), "from 80"),
    ],
)
def test_conditions_are_written_in_the_units_of_their_fields(name: str, condition: Any, text: str) -> None:
    assert condition_text(name, condition, DETAILS.get(name)) == text


def test_a_buyers_orders_are_those_for_the_lead_type() -> None:
    found = market(EXCLUSIVE, orders=(order("oak", exclusive="list"), RIVAL))
    assert [each.id for each in orders_of(found, "oak", "solar")] == ["oak/all"]
    assert orders_of(found, "oak", "roofing") == []
    assert orders_of(found, "nobody", "solar") == []
