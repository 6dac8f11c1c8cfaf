"""Auctions: who is asked, what counts as a bid, when one closes, who wins at which price, and what comes next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidDeclined,
    BidOutcome,
    BidPlaced,
    BidResult,
    BidVoided,
    CommandRefused,
    Disposition,
    LeadClosed,
    LeadListed,
    LeadSold,
    LimitReached,
    Outcome,
    RefusalReason,
    StageStarted,
    VoidReason,
    WindowKind,
    WindowOpened,
    WithdrawalReason,
)
from services.contract.inputs import (
    CloseAuction,
    FailLead,
    PlaceBid,
    ReportDisposition,
    TimerDue,
    WithdrawLead,
)
from services.contract.market import (
    KeepTrying,
    Market,
    Mode,
    OpenHours,
    Order,
    Prices,
    Selection,
    Sell,
    Stage,
)
from services.router.auctions import BID_GRACE_MS
from services.router.domain import fail
from tests.support.deciding import (
    BID_WINDOW_MS,
    NOW_MS,
    Story,
    bid_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)

LEAD_ID = lead().lead_id
FLOORS: dict[str, Any] = {"exclusive": 5_000, "shared": 1_800}


def bidder(buyer_id: str, **options: Any) -> Order:
    """An order that bids in both modes."""
    return order(buyer_id, **{"exclusive": "bid", "shared": "bid", **options})


def _market(stage: Stage | None = None, *more: Stage, orders: tuple[Order, ...], **options: Any) -> Market:
    return market(plan(stage or bid_stage(**FLOORS), *more, **options), orders=orders)


def _listed(given: Market, reference: str = "lead-1", **options: Any) -> Story:
    story = Story(given)
    story.when(lead(reference, **options))
    return story


def _exclusive_claim(*orders: Order, **options: Any) -> Story:
    stage = bid_stage(Sell.EXCLUSIVE, selection=Selection.FIRST_BID, exclusive=2_000)
    return _listed(_market(stage, orders=orders, sales_max=1, **options))


def _shared_claim(*orders: Order, sales_max: int = 2) -> Story:
    stage = bid_stage(Sell.SHARED, selection=Selection.FIRST_BID, shared=2_000)
    return _listed(_market(stage, orders=orders, sales_max=sales_max))


def _sold(story: Story) -> list[tuple[str, str, int]]:
    return [(sale.buyer_id, sale.mode.value, sale.price_cents) for sale in story.all(LeadSold)]


def _outcomes(story: Story) -> dict[str, tuple[BidOutcome, Mode | None, int | None]]:
    closed = story.all(AuctionClosed)[-1]
    return {it.buyer_id: (it.outcome, it.mode, it.minimum_to_win_cents) for it in closed.results}


# Opening


def test_stage_with_ping_post_asks_its_bidders_and_sells_nothing_yet() -> None:
    story = Story(_market(orders=(bidder("a"), order("b", exclusive="bid"), order("c", exclusive=9_000))))
    events = story.when(lead())
    listed, opened = events
    assert isinstance(listed, LeadListed)
    assert isinstance(opened, AuctionOpened)
    assert [(asked.buyer_id, asked.order_id, asked.modes) for asked in opened.invited] == [
        ("a", "a/all", (Mode.EXCLUSIVE, Mode.SHARED)),
        ("b", "b/all", (Mode.EXCLUSIVE,)),
    ]
    assert (opened.auction_number, opened.sell, opened.selection) == (1, Sell.EITHER, Selection.PING_POST)
    assert (opened.floor_exclusive_cents, opened.floor_shared_cents) == (5_000, 1_800)
    assert opened.bids_until_ms == NOW_MS + BID_WINDOW_MS
    assert opened.closes_at_ms == opened.bids_until_ms + BID_GRACE_MS
    assert (opened.sale_number, opened.sales_max, opened.holders) == (1, 3, ())
    assert story.lead.windows == ()


def test_each_buyer_is_asked_once_for_the_order_that_it_puts_first() -> None:
    orders = (
        bidder("a", name="later", priority=5),
        order("a", name="first", shared="bid", priority=1),
        order("b", name="one-mode", shared="bid"),
        bidder("b", name="two-modes"),
    )
    story = _listed(_market(orders=orders))
    assert [asked.order_id for asked in story.auction.invited] == ["a/first", "b/two-modes"]


def test_nobody_is_asked_who_has_no_room_or_does_not_fit() -> None:
    story = Story(_market(orders=(bidder("a"), bidder("b"), bidder("c"))), no_room=frozenset({"b/all"}))
    story.when(lead(never_to=("c",)))
    assert [asked.buyer_id for asked in story.auction.invited] == ["a"]


def test_where_nobody_can_be_asked_the_standing_orders_decide_at_once() -> None:
    story = _listed(_market(orders=(order("a", exclusive=8_500), order("b", exclusive=8_000))))
    assert story.all(AuctionOpened) == []
    assert _sold(story) == [("a", "exclusive", 8_500)]
    assert story.all(LeadSold)[0].auction_number is None


def test_disclosed_lead_is_asked_for_in_shared_only() -> None:
    stages = (shared_stage(4_000, only=("z",)), bid_stage(**FLOORS))
    orders = (order("z", shared="list"), bidder("a"), order("b", exclusive="bid"))
    story = _listed(_market(*stages, orders=orders))
    (opened,) = story.all(AuctionOpened)
    assert [(asked.buyer_id, asked.modes) for asked in opened.invited] == [("a", (Mode.SHARED,))]
    assert (opened.floor_exclusive_cents, opened.floor_shared_cents) == (None, 1_800)
    assert (opened.sale_number, opened.holders, opened.exclusive_for_ms) == (2, ("z",), None)


def test_ping_says_for_how_long_an_exclusive_sale_would_be() -> None:
    stage = bid_stage(Sell.EXCLUSIVE, exclusive=5_000, exclusive_for_ms=7_000)
    story = _listed(_market(stage, shared_stage(1_500), orders=(bidder("a"),)))
    assert story.all(AuctionOpened)[0].exclusive_for_ms == 7_000


def test_order_that_always_upgrades_bids_for_exclusive_alone() -> None:
    story = _listed(_market(orders=(bidder("a", upgrade_always=True),)))
    assert story.auction.invited[0].modes == (Mode.EXCLUSIVE,)


# Bids


def test_bid_reserves_nothing_and_sells_nothing_before_the_close() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    (placed,) = story.bid("a", exclusive=9_000)
    assert isinstance(placed, BidPlaced)
    assert (placed.order_id, placed.exclusive_cents, placed.shared_cents) == ("a/all", 9_000, None)
    assert story.lead.sales == ()


def test_auction_closes_at_once_when_all_have_answered() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    story.bid("a", exclusive=8_500)
    events = story.no_bid("b")
    declined, closed, sold, ended = events
    assert isinstance(declined, BidDeclined)
    assert isinstance(closed, AuctionClosed)
    assert (closed.reason, closed.silent) == (AuctionEnd.ALL_ANSWERED, ())
    assert isinstance(sold, LeadSold)
    assert (sold.buyer_id, sold.price_cents, sold.auction_number) == ("a", 8_500, 1)
    assert isinstance(ended, LeadClosed)


def test_auction_closes_when_its_time_is_up_and_not_before() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    story.bid("a", exclusive=8_500)
    early = CloseAuction(lead_id=LEAD_ID, auction_number=1)
    story.now_ms = story.auction.closes_at_ms - 1
    assert story.when(early) == []
    story.now_ms += 1
    closed = story.when(early)[0]
    assert isinstance(closed, AuctionClosed)
    assert (closed.reason, closed.silent) == (AuctionEnd.TIME_UP, ("b",))
    assert story.when(early) == []


def test_clock_of_another_auction_closes_nothing() -> None:
    story = _listed(_market(orders=(bidder("a"),)))
    assert story.when(CloseAuction(lead_id=LEAD_ID, auction_number=2), after_ms=60_000) == []
    assert Story(_market(orders=())).when(CloseAuction(lead_id=LEAD_ID, auction_number=1)) == []


def test_bid_for_an_unknown_lead_is_refused() -> None:
    story = Story(_market(orders=(bidder("a"),)))
    bid = PlaceBid(
        lead_id=LEAD_ID,
        buyer_id="a",
        auction_number=1,
        exclusive_cents=1,
        shared_cents=None,
        answered_at_ms=NOW_MS,
    )
    assert story.when(bid) == [
        CommandRefused(command="place_bid", buyer_id="a", reason=RefusalReason.UNKNOWN_LEAD)
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"buyer_id": "stranger", "exclusive": 9_000}, VoidReason.NOT_INVITED),
        ({"buyer_id": "a", "exclusive": 9_000, "auction_number": 2}, VoidReason.NOT_INVITED),
        (
            {"buyer_id": "a", "exclusive": 9_000, "answered_at_ms": NOW_MS + BID_WINDOW_MS + 1},
            VoidReason.LATE,
        ),
        ({"buyer_id": "a"}, VoidReason.NO_PRICE),
        ({"buyer_id": "a", "exclusive": 0}, VoidReason.NO_PRICE),
        ({"buyer_id": "c", "shared": 4_000}, VoidReason.NO_PRICE),
    ],
)
def test_bid_that_does_not_count_is_on_record_and_void(given: dict[str, Any], reason: VoidReason) -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"), order("c", exclusive="bid"))))
    (voided,) = story.bid(**given)
    assert isinstance(voided, BidVoided)
    assert (voided.reason, voided.exclusive_cents) == (reason, given.get("exclusive"))
    assert story.auction.bids == ()


def test_bid_at_its_deadline_counts() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    (placed,) = story.bid("a", exclusive=9_000, answered_at_ms=NOW_MS + BID_WINDOW_MS)
    assert isinstance(placed, BidPlaced)


def test_second_answer_is_void_and_the_first_stays() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"), bidder("c"))))
    story.bid("a", exclusive=6_000)
    story.no_bid("b")
    for voided in (story.bid("a", exclusive=9_000), story.bid("b", exclusive=9_000), story.no_bid("a")):
        (event,) = voided
        assert isinstance(event, BidVoided)
        assert event.reason is VoidReason.ANSWERED_BEFORE
    story.close_auction()
    assert _sold(story) == [("a", "exclusive", 6_000)]


def test_bid_without_a_usable_price_may_be_followed_by_one_with() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    story.bid("a")
    assert isinstance(story.bid("a", shared=3_000)[0], BidPlaced)


def test_bid_after_the_close_is_void_and_changes_nothing() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    story.bid("a", exclusive=6_000)
    story.close_auction()
    before = story.lead
    (voided,) = story.bid("b", exclusive=90_000, auction_number=1, answered_at_ms=NOW_MS)
    assert isinstance(voided, BidVoided)
    assert voided.reason is VoidReason.LATE
    assert story.lead == before


# Who wins


def test_winner_pays_its_own_bid() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    story.bid("a", exclusive=9_100)
    story.bid("b", exclusive=5_000)
    assert _sold(story) == [("a", "exclusive", 9_100)]
    assert _outcomes(story) == {
        "a": (BidOutcome.WON, Mode.EXCLUSIVE, None),
        "b": (BidOutcome.OUTBID, Mode.EXCLUSIVE, 9_101),
    }


def test_standing_orders_and_live_bids_compete_in_one_ranking() -> None:
    story = _listed(_market(orders=(bidder("a"), order("home", exclusive=8_500, shared=3_400))))
    story.bid("a", exclusive=8_400)
    assert _sold(story) == [("home", "exclusive", 8_500)]
    assert _outcomes(story) == {"a": (BidOutcome.OUTBID, Mode.EXCLUSIVE, 8_501)}
    assert story.all(LeadSold)[0].auction_number == 1


def test_best_exclusive_bid_beats_a_smaller_sum_of_shared_ones() -> None:
    story = _listed(_market(orders=tuple(bidder(name) for name in "abcd")))
    story.bid("a", exclusive=9_000)
    story.bid("b", shared=3_000)
    story.bid("c", shared=3_000)
    story.bid("d", shared=3_000)
    (closed,) = story.all(AuctionClosed)
    assert (closed.mode, closed.exclusive_cents, closed.shared_cents) == (Mode.EXCLUSIVE, 9_000, 9_000)
    assert _sold(story) == [("a", "exclusive", 9_000)]
    # With b at 3001 the sum of the best three is more than 9000.
    assert _outcomes(story)["b"] == (BidOutcome.OTHER_MODE, Mode.SHARED, 3_001)


def test_sum_of_the_best_shared_bids_beats_a_smaller_exclusive_one() -> None:
    story = _listed(_market(orders=tuple(bidder(name) for name in "abcde")))
    story.bid("a", exclusive=9_000)
    for name, cents in (("b", 3_001), ("c", 3_000), ("d", 3_000), ("e", 2_000)):
        story.bid(name, shared=cents)
    (closed,) = story.all(AuctionClosed)
    assert (closed.mode, closed.exclusive_cents, closed.shared_cents) == (Mode.SHARED, 9_000, 9_001)
    assert [price for _, _, price in _sold(story)] == [3_001, 3_000, 3_000]
    assert _outcomes(story)["a"] == (BidOutcome.OTHER_MODE, Mode.EXCLUSIVE, 9_001)
    assert _outcomes(story)["e"] == (BidOutcome.OUTBID, Mode.SHARED, 3_001)
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_shared_auction_never_sells_more_than_the_slots_left() -> None:
    stages = (shared_stage(4_000, only=("z",)), bid_stage(Sell.SHARED, shared=1_800))
    orders = (order("z", shared="list"), *(bidder(name) for name in "abc"))
    story = _listed(_market(*stages, orders=orders))
    for name, cents in (("a", 2_000), ("b", 2_100), ("c", 2_200)):
        story.bid(name, shared=cents)
    assert _sold(story) == [("z", "shared", 4_000), ("c", "shared", 2_200), ("b", "shared", 2_100)]
    assert _outcomes(story)["a"] == (BidOutcome.OUTBID, Mode.SHARED, 2_101)


def test_bid_below_the_floor_wins_nothing_and_is_told_the_floor() -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b"))))
    story.bid("a", exclusive=4_999)
    story.bid("b", shared=1_799)
    assert _sold(story) == []
    assert _outcomes(story) == {
        "a": (BidOutcome.BELOW_FLOOR, Mode.EXCLUSIVE, 5_000),
        "b": (BidOutcome.BELOW_FLOOR, Mode.SHARED, 1_800),
    }
    assert story.all(AuctionClosed)[0].mode is None
    assert story.lead.outcome is Outcome.UNSOLD


def test_floor_is_the_last_list_price_where_the_stage_says_no_other() -> None:
    stage = bid_stage(Sell.SHARED, prices=Prices(shared=(4_000, 3_000)))
    story = _listed(_market(stage, orders=(bidder("a"), bidder("b"), order("c", shared="list"))))
    story.bid("a", shared=2_999)
    story.bid("b", shared=3_000)
    assert _sold(story) == [("c", "shared", 4_000), ("b", "shared", 3_000)]


def test_list_price_order_buys_nothing_where_there_is_no_list() -> None:
    story = _listed(_market(orders=(order("a", exclusive="list", shared="list"),)))
    assert _sold(story) == []


def test_explicit_floor_lets_own_amounts_below_the_list_price_in_direct_stages_too() -> None:
    stage = replace(shared_stage(4_000), floor=bid_stage(shared=2_000).floor)
    story = _listed(_market(stage, orders=(order("a", shared=2_000), order("b", shared=1_999))))
    assert _sold(story) == [("a", "shared", 2_000)]


@pytest.mark.parametrize("standing", ["full", "paused", "other price"])
def test_bid_of_an_order_that_is_full_or_stands_no_longer_is_passed_over(standing: str) -> None:
    orders = (bidder("a"), bidder("b"))
    story = _listed(_market(orders=orders))
    story.bid("a", exclusive=9_000)
    changed = {
        "full": orders[0],
        "paused": replace(orders[0], paused=True),
        "other price": order("a", exclusive="list", shared="list"),
    }
    story.market = _market(orders=(changed[standing], orders[1]))
    story.no_room = frozenset({"a/all"} if standing == "full" else ())
    story.bid("b", exclusive=6_000)
    assert _sold(story) == [("b", "exclusive", 6_000)]
    assert _outcomes(story)["a"] == (BidOutcome.NO_ROOM, None, None)


def test_market_of_another_currency_buys_nothing_at_the_close() -> None:
    story = _listed(_market(orders=(bidder("a"),)))
    story.accepted_market = story.market
    story.market = replace(story.market, currency="EUR")
    story.bid("a", exclusive=9_000)
    assert _sold(story) == []
    assert _outcomes(story)["a"] == (BidOutcome.NO_ROOM, None, None)


def test_hours_that_end_between_ping_and_close_do_not_matter() -> None:
    # The ping goes out at 10:13:20 of a Monday in New York.
    until_1014 = (OpenHours(days=(0,), from_minute=0, to_minute=10 * 60 + 14),)
    stage = replace(bid_stage(**FLOORS), bid_window_ms=120_000)
    story = _listed(_market(stage, orders=(bidder("a", open=until_1014),)))
    story.now_ms += 90_000
    story.bid("a", exclusive=9_000)
    assert _sold(story) == [("a", "exclusive", 9_000)]


def test_buyer_wins_once_even_where_its_standing_order_and_its_bid_are_both_good_enough() -> None:
    stage = bid_stage(Sell.SHARED, shared=1_800)
    orders = (bidder("a"), order("a", name="standing", shared=3_000), bidder("b"))
    story = _listed(_market(stage, orders=orders, sales_max=2))
    story.bid("a", shared=2_500)
    story.bid("b", shared=2_000)
    assert _sold(story) == [("a", "shared", 3_000), ("b", "shared", 2_000)]


# What comes next


def test_slots_the_auction_left_go_to_the_next_stage() -> None:
    story = _listed(_market(None, shared_stage(1_500), orders=(bidder("a"), order("b", shared="list"))))
    events = story.bid("a", shared=3_000)
    assert [type(event).__name__ for event in events] == [
        "BidPlaced",
        "AuctionClosed",
        "LeadSold",
        "StageStarted",
        "LeadSold",
        "LeadClosed",
    ]
    assert _sold(story) == [("a", "shared", 3_000), ("b", "shared", 1_500)]
    assert [sale.auction_number for sale in story.all(LeadSold)] == [1, None]
    assert story.lead.outcome is Outcome.PARTLY_SOLD


def test_exclusive_winner_holds_the_lead_for_its_time_and_then_the_next_stage_follows() -> None:
    stage = bid_stage(Sell.EXCLUSIVE, exclusive=5_000, exclusive_for_ms=3_600_000)
    orders = (bidder("a"), order("b", shared="list"))
    story = _listed(_market(stage, shared_stage(1_500), orders=orders, sales_max=2))
    story.bid("a", exclusive=6_000)
    assert story.all(LeadSold)[0].exclusive_until_ms == story.now_ms + 3_600_000
    assert [event.kind for event in story.all(WindowOpened)] == [WindowKind.EXCLUSIVITY]
    story.fire_next_window()
    assert [buyer for buyer, _, _ in _sold(story)] == ["a", "b"]


def test_buyers_that_were_silent_or_declined_have_passed_on_the_lead() -> None:
    orders = tuple(
        replace(item, takes=replace(item.takes, shared=order("x", shared="list").takes.shared))
        for item in (bidder("a"), bidder("b"), bidder("c"))
    )
    story = _listed(_market(None, shared_stage(1_500), orders=orders))
    story.no_bid("a")
    story.bid("b", exclusive=4_000)
    story.close_auction()
    assert story.lead.passed == ("a", "c")
    assert _sold(story) == [("b", "shared", 1_500)]


def test_keep_trying_opens_a_new_auction_and_asks_only_who_has_not_passed() -> None:
    stage = replace(bid_stage(**FLOORS), keep_trying=KeepTrying(every_ms=60_000, for_ms=90_000))
    story = _listed(_market(stage, orders=(bidder("a"), bidder("b"))))
    story.bid("a", exclusive=4_000)
    closed = story.close_auction()[-1]
    assert isinstance(closed, WindowOpened)
    assert closed.kind is WindowKind.RETRY
    story.fire_next_window()
    assert story.auction.number == 2
    assert [asked.buyer_id for asked in story.auction.invited] == ["a"]
    late = story.bid("b", exclusive=9_000, auction_number=1)
    assert isinstance(late[0], BidVoided)
    story.bid("a", exclusive=5_000)
    assert _sold(story) == [("a", "exclusive", 5_000)]


def test_stage_whose_auction_is_open_has_no_window_of_its_own() -> None:
    story = _listed(_market(orders=(bidder("a"),), expires_after_ms=60_000))
    assert [window.kind for window in story.lead.windows] == [WindowKind.EXPIRY]


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("withdrawn", Outcome.WITHDRAWN),
        ("expired", Outcome.UNSOLD),
        ("failed", Outcome.FAILED),
        ("refused by the database", Outcome.FAILED),
    ],
)
def test_closing_the_lead_ends_its_auction_and_voids_the_bids(how: str, outcome: Outcome) -> None:
    story = _listed(_market(orders=(bidder("a"), bidder("b")), expires_after_ms=100))
    story.bid("a", exclusive=9_000)
    match how:
        case "withdrawn":
            story.when(WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.REVOKED))
        case "expired":
            story.when(TimerDue(lead_id=LEAD_ID, window_number=1), after_ms=100)
        case "failed":
            story.when(FailLead(lead_id=LEAD_ID))
        case _:
            failed = fail(story.state, CloseAuction(lead_id=LEAD_ID, auction_number=1), story.conditions())
            story.events += failed.events
            story.state = failed.state
    (closed,) = story.all(AuctionClosed)
    assert (closed.reason, closed.mode, closed.silent) == (AuctionEnd.LEAD_CLOSED, None, ())
    assert closed.results == (
        BidResult(buyer_id="a", outcome=BidOutcome.VOID, mode=None, minimum_to_win_cents=None),
    )
    assert story.lead.outcome is outcome
    assert story.lead.auction is None
    assert story.lead.passed == ()


# The first bid wins


def test_first_bid_at_the_floor_wins_at_once_and_the_others_are_not_waited_for() -> None:
    story = _exclusive_claim(*(bidder(name) for name in "abc"))
    story.bid("a", exclusive=1_999)
    events = story.bid("b", exclusive=2_000)
    assert [type(event).__name__ for event in events] == [
        "BidPlaced",
        "AuctionClosed",
        "LeadSold",
        "LeadClosed",
    ]
    (closed,) = story.all(AuctionClosed)
    assert (closed.reason, closed.mode, closed.silent) == (AuctionEnd.FIRST_BID, Mode.EXCLUSIVE, ())
    assert _outcomes(story) == {
        "a": (BidOutcome.BELOW_FLOOR, Mode.EXCLUSIVE, 2_000),
        "b": (BidOutcome.WON, Mode.EXCLUSIVE, None),
    }
    (late,) = story.bid("c", exclusive=9_000, auction_number=1)
    assert isinstance(late, BidVoided)
    assert late.reason is VoidReason.LATE


@pytest.mark.parametrize("in_order", ["ab", "ba"])
def test_bids_win_in_the_order_of_the_lead_s_commands_whatever_their_times_and_prices(in_order: str) -> None:
    story = _exclusive_claim(bidder("a"), bidder("b"))
    for back, name in enumerate(in_order):
        number = None if back == 0 else 1
        story.bid(name, exclusive=3_000 + back, auction_number=number, answered_at_ms=NOW_MS + 9 - back)
    assert _sold(story) == [(in_order[0], "exclusive", 3_000)]


def test_standing_order_at_the_floor_takes_a_first_bid_stage_before_anybody_is_asked() -> None:
    story = _exclusive_claim(bidder("a"), order("b", exclusive=2_000))
    assert story.all(AuctionOpened) == []
    assert _sold(story) == [("b", "exclusive", 2_000)]


def test_shared_slots_fill_one_bid_after_the_other_until_none_is_left() -> None:
    story = _shared_claim(*(bidder(name) for name in "abc"))
    _, sold = story.bid("a", shared=2_500)
    assert isinstance(sold, LeadSold)
    assert (sold.sale_number, sold.auction_number) == (1, 1)
    assert story.auction.number == 1
    story.bid("b", shared=1_000)
    story.bid("c", shared=2_000)
    assert _sold(story) == [("a", "shared", 2_500), ("c", "shared", 2_000)]
    (closed,) = story.all(AuctionClosed)
    assert (closed.reason, closed.mode) == (AuctionEnd.FIRST_BID, Mode.SHARED)
    assert {buyer: found[0] for buyer, found in _outcomes(story).items()} == {
        "a": BidOutcome.WON,
        "b": BidOutcome.BELOW_FLOOR,
        "c": BidOutcome.WON,
    }
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_standing_orders_take_slots_first_and_bidders_are_asked_for_the_rest() -> None:
    story = _shared_claim(order("s", shared=2_200), bidder("a"), bidder("s", name="bids"))
    assert _sold(story) == [("s", "shared", 2_200)]
    assert [asked.buyer_id for asked in story.auction.invited] == ["a"]
    assert story.all(AuctionOpened)[0].sale_number == 2


def test_first_bid_auction_whose_time_is_up_leaves_its_slots() -> None:
    story = _shared_claim(*(bidder(name) for name in "abc"), sales_max=3)
    story.bid("a", shared=2_500)
    story.close_auction()
    (closed,) = story.all(AuctionClosed)
    assert (closed.reason, closed.mode, closed.silent) == (AuctionEnd.TIME_UP, Mode.SHARED, ("b", "c"))
    assert story.lead.outcome is Outcome.PARTLY_SOLD


def test_last_answer_of_a_first_bid_auction_ends_it_with_slots_left() -> None:
    story = _shared_claim(*(bidder(name) for name in "ab"), sales_max=3)
    story.no_bid("a")
    story.bid("b", shared=2_500)
    assert story.all(AuctionClosed)[0].reason is AuctionEnd.ALL_ANSWERED
    assert _sold(story) == [("b", "shared", 2_500)]
    assert story.lead.outcome is Outcome.PARTLY_SOLD


def test_first_bid_without_room_is_passed_over_and_the_next_wins() -> None:
    story = _exclusive_claim(bidder("a"), bidder("b"))
    story.no_room = frozenset({"a/all"})
    story.bid("a", exclusive=5_000)
    assert _sold(story) == []
    story.no_room = frozenset()
    story.bid("b", exclusive=2_500)
    assert _sold(story) == [("b", "exclusive", 2_500)]
    assert _outcomes(story)["a"] == (BidOutcome.NO_ROOM, None, None)


def test_deal_closes_a_first_bid_auction_and_who_won_before_has_won() -> None:
    story = _shared_claim(*(bidder(name) for name in "abc"), sales_max=3)
    story.bid("a", shared=2_500)
    story.bid("b", shared=1_000)
    story.when(ReportDisposition(lead_id=LEAD_ID, buyer_id="a", disposition=Disposition.DEAL))
    assert {buyer: found[0] for buyer, found in _outcomes(story).items()} == {
        "a": BidOutcome.WON,
        "b": BidOutcome.VOID,
    }
    assert story.lead.outcome is Outcome.DEAL


def test_first_bid_that_names_both_modes_takes_the_lead_alone_and_shared_once_it_is_disclosed() -> None:
    stage = bid_stage(Sell.EITHER, selection=Selection.FIRST_BID, exclusive=5_000, shared=1_800)
    orders = (bidder("a"), bidder("b"), bidder("c"))
    alone = _listed(_market(stage, orders=orders))
    alone.bid("a", exclusive=5_000, shared=4_000)
    assert _sold(alone) == [("a", "exclusive", 5_000)]
    shared = _listed(_market(stage, orders=orders))
    shared.bid("a", shared=2_000)
    shared.bid("b", exclusive=9_000, shared=1_900)
    shared.bid("c", exclusive=9_000)
    assert _sold(shared) == [("a", "shared", 2_000), ("b", "shared", 1_900)]
    assert _outcomes(shared)["c"] == (BidOutcome.OTHER_MODE, Mode.EXCLUSIVE, None)


# Limits


def test_limit_found_used_up_is_told_with_the_decision_that_passes_over_its_order() -> None:
    reached = tuple(
        LimitReached(buyer_id=name, order_id=f"{name}/all", limit="leads_per_day", resumes_at_ms=None)
        for name in "ab"
    )
    orders = (order("a", exclusive=9_000), order("c", exclusive=8_000))
    story = Story(_market(orders=orders), no_room=frozenset({"a/all"}), limits_reached=reached)
    events = story.when(lead())
    assert _sold(story) == [("c", "exclusive", 8_000)]
    assert events[-1] == reached[0]
    assert story.all(LimitReached) == [reached[0]]


def test_limit_is_not_told_where_nothing_was_decided() -> None:
    reached = LimitReached(buyer_id="a", order_id="a/all", limit="leads_per_day", resumes_at_ms=None)
    story = Story(_market(orders=()), no_room=frozenset({"a/all"}), limits_reached=(reached,))
    story.when(lead())
    assert story.when(lead()) == []


def test_stage_after_an_auction_says_so_in_the_log() -> None:
    story = _listed(_market(None, shared_stage(1_500), orders=(bidder("a"),)))
    story.no_bid("a")
    assert [event.stage for event in story.all(StageStarted)] == [1]
    assert story.lead.outcome is Outcome.UNSOLD
