"""Auctions with whole routers: closed once and in time by the router's own clock, whoever works and whoever dies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from services.bus.memory import Faults, MemoryHost
from services.contract.entries import Cause, CauseKind
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidVoided,
    Disposition,
    LeadClosed,
    LeadSold,
    LimitReached,
    Outcome,
    VoidReason,
    WithdrawalReason,
)
from services.contract.ids import partition_of
from services.contract.inputs import (
    PlaceBid,
    QualifiedLead,
    ReportDisposition,
    TimerDue,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import Cap, Market, Mode, Period, Sell, Unit, Upgrade
from services.router import auction_clock, bidders
from services.router.bidders import BROKEN_FOR_S, SILENT_IN_A_ROW_MAX
from services.router.step import Router
from tests.support.deciding import (
    BID_WINDOW_MS,
    bid_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)
from tests.support.routing import PARTITIONS, World, crashes_at, world

pytestmark = pytest.mark.stream

CLOSES_AFTER_MS = BID_WINDOW_MS + 50
ORDERS = (order("a", exclusive="bid"), order("b", exclusive="bid"))
AUCTIONED = market(plan(bid_stage(Sell.EXCLUSIVE, exclusive=5000), sales_max=1), orders=ORDERS)


def _leads(count: int, name: str = "lead", *, at_ms: int | None = None) -> list[QualifiedLead]:
    options = {} if at_ms is None else {"received_at_ms": at_ms}
    return [lead(f"{name}-{n}", **options) for n in range(count)]


def _bid(item: QualifiedLead, buyer_id: str, cents: int, at_ms: int, number: int = 1) -> PlaceBid:
    return PlaceBid(
        lead_id=item.lead_id,
        buyer_id=buyer_id,
        auction_number=number,
        exclusive_cents=cents,
        shared_cents=None,
        answered_at_ms=at_ms,
    )


def _all(given: World, kind: type[Any]) -> list[Any]:
    return [event for _, event in given.events() if isinstance(event, kind)]


def _router(host: MemoryHost) -> Router:
    assert isinstance(host.step, Router)
    return host.step


def check_auctions(given: World, leads: list[QualifiedLead]) -> None:
    """Each auction was closed once, no earlier than it was due, and none is left."""
    opened: dict[tuple[str, int], int] = {}
    closed: dict[tuple[str, int], int] = {}
    for entries in given.log().values():
        for entry in entries:
            for event in given_events(entry):
                if isinstance(event, AuctionOpened):
                    opened[entry.lead_id, event.auction_number] = event.closes_at_ms
                elif isinstance(event, AuctionClosed):
                    key = (entry.lead_id, event.auction_number)
                    assert key not in closed, "an auction is closed once"
                    closed[key] = entry.decided_at_ms
                    if event.reason is AuctionEnd.TIME_UP:
                        assert entry.decided_at_ms >= opened[key]
                        assert entry.cause == Cause(kind=CauseKind.ROUTER, offset=-1)
    assert opened.keys() == closed.keys()
    assert {lead_id for lead_id, _ in opened} == {item.lead_id for item in leads}
    assert given.tables.auctions == {}
    assert len(_all(given, LeadClosed)) == len(leads)


def given_events(entry: Any) -> list[Any]:
    """Decode an entry's events."""
    from services.contract.codec import codec

    return list(codec().events_of(entry))


# The clock


def test_auction_that_nobody_answers_is_closed_by_the_router_s_own_clock_when_its_time_is_up() -> None:
    given, leads = world(AUCTIONED), _leads(3)
    given.send(*leads)
    host = given.worker()
    host.drain()
    assert len(given.tables.auctions) == 3
    assert _router(host).due_in_s() == CLOSES_AFTER_MS / 1_000
    given.clock.advance(CLOSES_AFTER_MS - 1)
    host.turn()
    assert _all(given, AuctionClosed) == []
    given.clock.advance(1)
    assert _router(host).due_in_s() == 0.0
    host.turn()
    host.turn()
    assert {event.reason for event in _all(given, AuctionClosed)} == {AuctionEnd.TIME_UP}
    assert _router(host).due_in_s() is None
    check_auctions(given, leads)


def test_auction_that_all_have_answered_needs_no_clock() -> None:
    given, leads = world(AUCTIONED), _leads(1)
    given.send(*leads)
    host = given.worker()
    host.drain()
    now_ms = given.clock.now_ms
    given.send(_bid(leads[0], "a", 6000, now_ms), _bid(leads[0], "b", 7000, now_ms))
    host.drain()
    assert [(event.buyer_id, event.price_cents) for event in _all(given, LeadSold)] == [("b", 7000)]
    assert _router(host).due_in_s() is None
    check_auctions(given, leads)


def test_bid_in_time_that_is_read_with_the_due_clock_is_taken_before_the_close() -> None:
    given, leads = world(AUCTIONED), _leads(1)
    given.send(*leads)
    host = given.worker()
    host.drain()
    in_time_ms = given.clock.now_ms + BID_WINDOW_MS
    given.clock.advance(CLOSES_AFTER_MS + 5)
    given.send(_bid(leads[0], "a", 6000, in_time_ms))
    host.drain()
    assert [event.buyer_id for event in _all(given, LeadSold)] == ["a"]
    check_auctions(given, leads)


def test_bid_that_comes_after_the_close_is_recorded_and_void() -> None:
    given, leads = world(AUCTIONED), _leads(1)
    given.send(*leads)
    host = given.worker()
    host.drain()
    given.clock.advance(CLOSES_AFTER_MS)
    host.turn()
    given.send(_bid(leads[0], "a", 6000, given.clock.now_ms))
    host.drain()
    assert [event.reason for event in _all(given, BidVoided)] == [VoidReason.LATE]
    assert _all(given, LeadSold) == []


def test_due_auctions_close_in_bounded_turns_the_earliest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auction_clock, "DUE_AT_ONCE_MAX", 2)
    given, leads = world(AUCTIONED), _leads(9)
    given.send(*leads)
    host = given.worker()
    host.drain()
    given.clock.advance(CLOSES_AFTER_MS)
    host.turn()
    assert len(_all(given, AuctionClosed)) == 2 * PARTITIONS
    assert _router(host).due_in_s() == 0.0
    for _ in range(4):
        host.turn()
    check_auctions(given, leads)


def test_auction_that_ended_with_its_lead_is_not_closed_again() -> None:
    given, leads = world(AUCTIONED), _leads(2)
    given.send(*leads)
    host = given.worker()
    host.drain()
    given.send(WithdrawLead(lead_id=leads[0].lead_id, reason=WithdrawalReason.ERASED))
    host.drain()
    assert len(given.tables.auctions) == 1
    given.clock.advance(CLOSES_AFTER_MS)
    host.drain()
    check_auctions(given, leads)


def test_row_of_an_auction_that_is_over_is_dropped_and_does_not_come_again_for_ever() -> None:
    """It cannot be there; if it were, the clock would find it due at every turn."""
    given, leads = world(AUCTIONED), _leads(1)
    given.send(*leads)
    given.worker().drain()
    (row,) = given.tables.auctions.values()
    given.clock.advance(CLOSES_AFTER_MS)
    given.worker().drain()
    given.tables.auctions[row.lead_id] = row
    host = given.worker()
    host.drain()
    assert given.tables.auctions == {}
    assert _router(host).due_in_s() is None
    check_auctions(given, leads)


# Taking over


def test_successor_takes_the_answers_of_the_meantime_before_it_closes_overdue_auctions() -> None:
    """Rule 27, with answers that take several batches to read."""
    given, leads = world(AUCTIONED), _leads(8)
    given.send(*leads)
    given.worker().drain()
    in_time_ms = given.clock.now_ms + BID_WINDOW_MS
    given.send(*(_bid(item, "a", 6000, in_time_ms) for item in leads))
    given.clock.advance(60_000)
    host = given.worker()
    host.batch_max = 1
    host.step.idle()
    assert _all(given, AuctionClosed) == []
    host.drain()
    assert sorted(event.buyer_id for event in _all(given, LeadSold)) == ["a"] * 8
    check_auctions(given, leads)


def test_successor_closes_overdue_auctions_at_once_where_nobody_answered() -> None:
    given, leads = world(AUCTIONED), _leads(4)
    given.send(*leads)
    given.worker().drain()
    given.clock.advance(60_000)
    host = given.worker()
    assert _router(host).due_in_s() == 0.0
    host.turn()
    check_auctions(given, leads)


def test_upgrade_asked_for_while_no_router_ran_counts_though_its_window_s_timer_is_read_first() -> None:
    stage = shared_stage(4500, upgrade=Upgrade(per_slot_cents=3750, within_ms=120_000))
    orders = (order("a", shared=5000), order("b", shared="list"))
    given, item = world(market(plan(stage), orders=orders)), lead("upgraded")
    given.send(item)
    given.worker().drain()
    answered_ms = given.clock.now_ms + 1_000
    given.send(UpgradeSale(lead_id=item.lead_id, buyer_id="a", answered_at_ms=answered_ms))
    given.clock.advance(600_000)
    given.send(TimerDue(lead_id=item.lead_id, window_number=1))
    host = given.worker()
    _read_timers_first(given, host, item)
    host.drain()
    assert [event.buyer_id for event in _all(given, LeadSold)] == ["a"]
    (row,) = given.tables.sales.values()
    assert row.mode is Mode.EXCLUSIVE


def test_deal_reported_while_no_router_ran_counts_though_the_end_of_exclusivity_is_read_first() -> None:
    """Its buyer was told: without a deal by then, others may get it."""
    stages = (exclusive_stage(9000, exclusive_for_ms=60_000), shared_stage(4500))
    orders = (order("a", exclusive="list"), order("b", shared="list"))
    given, item = world(market(plan(*stages), orders=orders)), lead("dealt")
    given.send(item)
    given.worker().drain()
    given.send(ReportDisposition(lead_id=item.lead_id, buyer_id="a", disposition=Disposition.DEAL))
    given.clock.advance(600_000)
    given.send(TimerDue(lead_id=item.lead_id, window_number=1))
    host = given.worker()
    _read_timers_first(given, host, item)
    host.drain()
    assert [event.buyer_id for event in _all(given, LeadSold)] == ["a"]
    assert [event.outcome for event in _all(given, LeadClosed)] == [Outcome.DEAL]


def _read_timers_first(given: World, host: MemoryHost, item: QualifiedLead) -> None:
    where = next(
        at
        for at in host.positions
        if at.topic.endswith("timers") and at.partition == partition_of(item.lead_id, PARTITIONS)
    )
    assert not host.step.handle(given.kafka.records[where])
    host.positions[where] += 1


@dataclass(slots=True)
class _Meanwhile(Faults):
    acts: list[Any] = field(default_factory=list)

    def edge(self, name: str) -> None:
        Faults.edge(self, name)
        if name == "commit" and self.acts:
            self.acts.pop(0)()


def test_zombie_closes_no_auction_again() -> None:
    given, leads = world(AUCTIONED), _leads(4)
    given.send(*leads)
    zombie = given.worker(faults := _Meanwhile())
    zombie.drain()
    given.clock.advance(CLOSES_AFTER_MS)
    faults.acts = [lambda: given.worker().turn()]
    zombie.drain()
    check_auctions(given, leads)


def test_crash_between_any_two_effects_loses_no_auction_and_closes_none_twice() -> None:
    leads = _leads(3)
    for edge in range(1, 200):
        given = world(AUCTIONED)
        given.send(*leads)

        def run(faults: Faults, given: World = given) -> None:
            host = given.worker(faults)
            host.drain()
            given.send(_bid(leads[0], "a", 6000, given.clock.now_ms))
            host.drain()
            given.clock.advance(CLOSES_AFTER_MS)
            host.drain()

        crashed = crashes_at(run, edge)
        given.worker().drain()
        given.clock.advance(CLOSES_AFTER_MS)
        given.worker().drain()
        check_auctions(given, leads)
        if not crashed:
            assert len(_all(given, LeadSold)) == 1
            return
    raise AssertionError("the run never got to its end")


def test_check_of_auctions_sees_one_that_is_never_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auction_clock.AuctionClock, "due", lambda *_: [])
    given, leads = world(AUCTIONED), _leads(2)
    given.send(*leads)
    host = given.worker()
    host.drain()
    given.clock.advance(CLOSES_AFTER_MS)
    host.drain()
    with pytest.raises(AssertionError):
        check_auctions(given, leads)


# Whom it asks


def test_order_whose_cap_is_used_up_is_not_asked_for_a_bid() -> None:
    cap = Cap(unit=Unit.LEADS, period=Period.DAY, most=0)
    orders = (order("a", exclusive="bid", caps=(cap,)), ORDERS[1])
    given, leads = world(replace(AUCTIONED, buyers=market(orders=orders).buyers)), _leads(2)
    given.send(*leads)
    given.worker().drain()
    assert [[asked.buyer_id for asked in event.invited] for event in _all(given, AuctionOpened)] == [
        ["b"]
    ] * 2
    assert [event.order_id for event in _all(given, LimitReached)] == ["a/all"]


def test_winner_whose_cap_was_used_up_since_its_bid_is_passed_over() -> None:
    cap = Cap(unit=Unit.LEADS, period=Period.DAY, most=1)
    orders = (order("a", exclusive="bid", caps=(cap,)), ORDERS[1])
    given, leads = world(replace(AUCTIONED, buyers=market(orders=orders).buyers)), _leads(2)
    given.send(*leads)
    host = given.worker()
    host.drain()
    now_ms = given.clock.now_ms
    given.send(*(_bid(item, buyer, 6000 + (buyer == "a"), now_ms) for item in leads for buyer in "ab"))
    host.drain()
    assert sorted(event.buyer_id for event in _all(given, LeadSold)) == ["a", "b"]
    check_auctions(given, leads)


def _silent_rounds(given: World, host: MemoryHost, count: int, name: str) -> None:
    for n in range(count):
        given.send(lead(f"{name}-{n}", received_at_ms=given.clock.now_ms))
        host.drain()
        given.clock.advance(CLOSES_AFTER_MS)
        host.drain()


def test_buyer_that_is_silent_too_often_is_not_asked_for_a_while_and_then_once() -> None:
    given = world(market(*AUCTIONED.lead_types["solar"].plans, orders=ORDERS[:1]))
    host = given.worker()
    _silent_rounds(given, host, SILENT_IN_A_ROW_MAX, "silent")
    assert len(_all(given, AuctionOpened)) == SILENT_IN_A_ROW_MAX
    given.send(lead("broken", received_at_ms=given.clock.now_ms))
    host.drain()
    assert len(_all(given, AuctionOpened)) == SILENT_IN_A_ROW_MAX
    assert [entry.no_room for entries in given.log().values() for entry in entries].count(("a/all",)) == 1
    given.clock.advance(int(BROKEN_FOR_S * 1_000))
    given.send(*_leads(3, "probe", at_ms=given.clock.now_ms))
    host.drain()
    assert len(_all(given, AuctionOpened)) == SILENT_IN_A_ROW_MAX + 1
    (row,) = given.tables.auctions.values()
    probe = next(item for item in _leads(3, "probe") if item.lead_id == row.lead_id)
    given.send(_bid(probe, "a", 6000, given.clock.now_ms))
    host.drain()
    given.send(*_leads(3, "after", at_ms=given.clock.now_ms))
    host.drain()
    assert len(_all(given, AuctionOpened)) == SILENT_IN_A_ROW_MAX + 4


def test_buyer_s_limit_of_pings_holds_within_a_batch_and_over_batches_of_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bidders, "SILENT_IN_A_ROW_MAX", 1_000)
    buyers = market(orders=ORDERS[:1]).buyers
    limited = {"a": replace(buyers["a"], pings_per_minute=6)}
    given: World = world(_with_buyers(AUCTIONED, limited))
    host = given.worker()
    given.send(*_leads(4))
    host.drain()
    given.send(*_leads(9, "more"))
    host.drain()
    assert len(_all(given, AuctionOpened)) == 6
    given.clock.advance(61_000)
    given.send(*_leads(9, "next", at_ms=given.clock.now_ms))
    host.drain()
    assert len(_all(given, AuctionOpened)) == 12


def _with_buyers(given: Market, buyers: Any) -> Market:
    return replace(given, buyers=buyers)
