"""Caps and accounts with whole routers: never exceeded, usable to the last unit, whoever works and whoever dies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from services.bus.memory import Faults, MemoryHost
from services.bus.ports import Stopped
from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Draw,
    LeadClosed,
    LeadSold,
    LimitReached,
    MoneyKind,
    MoneyMoved,
    Outcome,
    RefusalReason,
    ReturnApproved,
    ReturnReason,
    ReturnRefusal,
    ReturnRefused,
)
from services.contract.ids import account_id_of, partition_of
from services.contract.inputs import MoveMoney, QualifiedLead, ReturnLead
from services.contract.market import (
    Account,
    AnyOf,
    Between,
    Cap,
    Market,
    Mode,
    Order,
    Period,
    Returns,
    Unit,
    Where,
)
from services.contract.times import DAY_MS
from services.router import chain as router_chain
from services.router import memory_store
from services.router.domain import decide
from services.router.faults import StartAgain, TryAgain
from services.router.memory_store import MemoryRouterStore, MemoryRouterTables
from services.router.ports import NEVER_CLOSED, CounterRow, Draws, LimitsShort, PartitionCommit, SaleRow
from tests.support.deciding import exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import PARTITIONS, World, crashes_at, world

pytestmark = pytest.mark.stream

FIVE_A_DAY = Cap(unit=Unit.LEADS, period=Period.DAY, most=5)


def _capped(*caps: Cap, others: tuple[Order, ...] = (), **options: Any) -> Market:
    """Buyer `a` pays most, as long as its caps last."""
    orders = (order("a", exclusive=9500, caps=caps, **options), *others)
    return market(plan(exclusive_stage(9000), sales_max=1), orders=orders)


def _with_account(given: Market, buyer_id: str, credit_limit_cents: int) -> Market:
    buyer = replace(given.buyers[buyer_id], account=Account(credit_limit_cents=credit_limit_cents))
    return replace(given, buyers={**given.buyers, buyer_id: buyer})


def _returnable(given: Market, quota_basis_points: int | None = None) -> Market:
    solar = replace(
        given.lead_types["solar"],
        returns=Returns(
            within_ms=7 * DAY_MS, reasons=("wrong_person",), quota_basis_points=quota_basis_points
        ),
    )
    return replace(given, lead_types={"solar": solar})


CAPPED = _capped(FIVE_A_DAY)


def _leads(count: int, name: str = "lead") -> list[QualifiedLead]:
    return [lead(f"{name}-{n}") for n in range(count)]


def _leads_in(partition: int, count: int, name: str = "lead") -> list[QualifiedLead]:
    found = (lead(f"{name}-{n}") for n in range(100 * count))
    return [item for item in found if partition_of(item.lead_id, PARTITIONS) == partition][:count]


def _sold_to(given: World, buyer_id: str = "a") -> list[str]:
    return [
        lead_id
        for lead_id, event in given.events()
        if isinstance(event, LeadSold) and event.buyer_id == buyer_id
    ]


def _all(given: World, kind: type[Any]) -> list[Any]:
    return [event for _, event in given.events() if isinstance(event, kind)]


def _counter(given: World, start: str) -> CounterRow:
    return next(row for name, row in given.tables.counters.items() if name.startswith(start))


def _return(lead_id: str, buyer_id: str = "a") -> ReturnLead:
    return ReturnLead(
        lead_id=lead_id,
        buyer_id=buyer_id,
        reason=ReturnReason.WRONG_PERSON,
        answered_at_ms=lead().received_at_ms,
    )


def _deposit(reference: str, amount_cents: int, buyer_id: str = "a") -> MoveMoney:
    return MoveMoney(
        lead_id=account_id_of(buyer_id),
        buyer_id=buyer_id,
        kind=MoneyKind.DEPOSIT,
        reference=reference,
        amount_cents=amount_cents,
        currency="USD",
    )


def check_limits(given: World) -> None:
    """Recompute every counter from the log: it is what the table says, and no limit was ever exceeded."""
    used: Counter[str] = Counter()
    granted: Counter[str] = Counter()
    for _, event in given.events():
        draws: Sequence[Draw] = getattr(event, "draws", ())
        for draw in draws:
            used[draw.counter] += draw.amount
            granted[draw.counter] += draw.granted
    table = given.tables.counters
    assert {at: row.used for at, row in table.items() if row.used} == {at: n for at, n in used.items() if n}
    assert {at: row.granted for at, row in table.items() if row.granted} == {
        at: n for at, n in granted.items() if n
    }
    for row in table.values():
        assert row.used <= row.most + row.granted + row.shortfall, row


@dataclass(slots=True)
class _Meanwhile(Faults):
    """Lets others act at the moment before a commit is compared, as often as there is something for them to do."""

    acts: list[Callable[[], object]] = field(default_factory=list)

    def edge(self, name: str) -> None:
        """See `Faults`."""
        Faults.edge(self, name)
        if name in ("commit", "lock") and self.acts:
            self.acts.pop(0)()


# What a cap holds and what it lets through


def test_cap_is_used_to_the_last_unit_and_what_is_left_goes_to_the_next_in_rank() -> None:
    given = world(_capped(FIVE_A_DAY, others=(order("b", exclusive="list"),)))
    given.send(*_leads(12))
    given.worker().drain()
    assert (len(_sold_to(given)), len(_sold_to(given, "b"))) == (5, 7)
    check_limits(given)


def test_entry_names_the_orders_that_had_no_room_and_no_others() -> None:
    given = world(_capped(FIVE_A_DAY, others=(order("b", exclusive="list"), order("c", exclusive="list"))))
    given.send(*_leads(12))
    given.worker().drain()
    passed = [entry.no_room for entries in given.log().values() for entry in entries]
    assert Counter(passed) == {(): 5, ("a/all",): 7}


def test_used_up_cap_is_told_once_and_again_when_the_next_period_is_used_up() -> None:
    given = world(CAPPED)
    host = given.worker()
    given.send(*_leads(8))
    host.drain()
    given.send(*_leads(4, "more"))
    given.worker().drain()
    (told,) = _all(given, LimitReached)
    assert (told.buyer_id, told.order_id, told.limit) == ("a", "a/all", "leads_per_day")
    assert given.clock.now_ms < told.resumes_at_ms <= given.clock.now_ms + DAY_MS
    given.clock.advance(DAY_MS)
    given.send(*(lead(f"next-{n}", received_at_ms=given.clock.now_ms) for n in range(7)))
    given.worker().drain()
    assert len(_sold_to(given)) == 10
    assert len(_all(given, LimitReached)) == 2
    check_limits(given)


def test_order_with_several_limits_is_held_to_the_tightest() -> None:
    caps = (FIVE_A_DAY, Cap(unit=Unit.SPEND, period=Period.MONTH, most=3 * 9500))
    given = world(_with_account(_capped(*caps), "a", 100_000))
    given.send(*_leads(8))
    given.worker().drain()
    assert len(_sold_to(given)) == 3
    assert [event.limit for event in _all(given, LimitReached)] == ["spend_per_month"]
    check_limits(given)


def test_account_is_shared_by_all_orders_of_its_buyer() -> None:
    orders = (order("a", exclusive=9500), order("a", exclusive=9400, name="more"))
    given = world(_with_account(market(plan(exclusive_stage(9000), sales_max=1), orders=orders), "a", 20_000))
    given.send(*_leads(6))
    given.worker().drain()
    assert len(_sold_to(given)) == 2
    check_limits(given)


def test_test_leads_draw_nothing() -> None:
    given = world(CAPPED)
    given.send(*(lead(f"test-{n}", is_test=True) for n in range(9)))
    given.worker().drain()
    assert len(_sold_to(given)) == 9
    assert not any(row.used for row in given.tables.counters.values())


def test_many_full_orders_are_passed_over_in_few_decisions() -> None:
    orders = tuple(
        order(f"b{n}", exclusive=9900 - n, caps=(Cap(unit=Unit.LEADS, period=Period.TOTAL, most=1),))
        for n in range(40)
    )
    given = world(market(plan(exclusive_stage(9000), sales_max=1), orders=orders))
    given.send(*_leads(50))
    given.worker().drain()
    assert Counter(event.buyer_id for event in _all(given, LeadSold)) == {f"b{n}": 1 for n in range(40)}
    assert len(_all(given, LimitReached)) == 40
    check_limits(given)


def _with_many_orders(most: Cap, count: int = 40) -> Market:
    """All pay another price, and the last in rank has no limit."""
    orders = tuple(order(f"b{n}", exclusive=9900 - n, caps=(most,)) for n in range(count))
    return market(plan(exclusive_stage(9000), sales_max=1), orders=(*orders, order("z", exclusive="list")))


ONE_IN_ALL = Cap(unit=Unit.LEADS, period=Period.TOTAL, most=1)


def test_new_worker_learns_at_once_that_very_many_orders_are_full() -> None:
    given = world(_with_many_orders(ONE_IN_ALL))
    given.send(*_leads(40))
    given.worker().drain()
    given.send(*_leads(2, "after"))
    given.worker().drain()
    assert len(_sold_to(given, "z")) == 2
    check_limits(given)


def test_worker_that_knew_very_many_orders_as_empty_finds_out_that_others_have_filled_them() -> None:
    given = world(_with_many_orders(ONE_IN_ALL))
    quiet, other = given.worker(partitions=[0]), given.worker(partitions=[1])
    given.send(*_leads_in(0, 1, "first"))
    quiet.drain()
    given.send(*_leads_in(1, 39, "others"))
    other.drain()
    given.clock.advance(60_000)
    given.send(*_leads_in(0, 2, "after"))
    quiet.drain()
    assert len(_sold_to(given, "z")) == 2
    check_limits(given)


def test_order_with_a_remainder_too_small_for_any_price_costs_no_decision_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decided = Counter[str]()

    def counted(*asked: Any) -> Any:
        decided["times"] += 1
        return decide(*asked)

    monkeypatch.setattr(router_chain, "decide", counted)
    given = world(_with_many_orders(Cap(unit=Unit.SPEND, period=Period.TOTAL, most=8_999)))
    given.send(*_leads_in(0, 30))
    given.worker().drain()
    assert len(_sold_to(given, "z")) == 30
    assert decided["times"] <= 2 * 30 + 3
    assert len(_all(given, LimitReached)) == 40
    check_limits(given)


def test_order_that_cannot_pay_for_leads_of_one_plan_buys_those_of_a_cheaper_one_in_the_same_batch() -> None:
    most = Cap(unit=Unit.SPEND, period=Period.TOTAL, most=4_500)
    orders = tuple(order(f"b{n}", exclusive="list", shared="list", caps=(most,)) for n in range(8))
    good = (("quality", Between(low=80, high=None)),)
    plans = (
        plan(exclusive_stage(5_000), sales_max=1, name="good", when=good),
        plan(shared_stage(4_000), sales_max=4),
    )
    given = world(market(*plans, orders=orders))
    given.send(*(replace(item, quality=90) for item in _leads(2, "good")), *_leads(2))
    given.worker().drain()
    assert sorted(event.buyer_id for event in _all(given, LeadSold)) == [f"b{n}" for n in range(8)]
    check_limits(given)


def test_limits_that_come_into_question_only_after_others_were_read_are_read_too() -> None:
    """What the first worker knows is old: `a` has one left (it has none), `b` is full (it is not)."""
    orders = (
        order("a", exclusive=9_500, caps=(replace(FIVE_A_DAY, most=3),), where=_in_states("AZ", "NM")),
        order("b", exclusive=9_400, caps=(replace(FIVE_A_DAY, most=1),), where=_in_states("AZ")),
    )
    given = world(_returnable(market(plan(exclusive_stage(9000), sales_max=1), orders=orders)))
    first, second = given.worker(partitions=[0]), given.worker(partitions=[1])
    given.send(*_leads_in(1, 4))
    second.drain()
    given.send(_return(_sold_to(given, "a")[0]))
    second.drain()
    given.send(*_from_state("NV", _leads_in(0, 1)))
    first.drain()
    given.clock.advance(60_000)
    given.send(_return(_sold_to(given, "b")[0], "b"), *_leads_in(1, 1, "more"))
    second.drain()
    assert (_counter(given, "order:a").used, _counter(given, "order:b").used) == (3, 0)
    given.send(*_leads_in(0, 1, "after"), *_from_state("NM", _leads_in(0, 1, "last")))
    first.drain()
    assert len(_sold_to(given, "b")) == 2
    check_limits(given)


def _in_states(*states: str) -> Where:
    return (("state", AnyOf(values=frozenset(states))),)


def _from_state(state: str, leads: list[QualifiedLead]) -> list[QualifiedLead]:
    return [replace(item, fields={**item.fields, "state": state}) for item in leads]


def test_market_without_limits_writes_no_counters() -> None:
    given = world(market(plan(shared_stage(4000)), orders=(order("a", shared="list"),)))
    given.send(*_leads(4))
    given.worker().drain()
    assert given.tables.counters == {}


# Several workers


@settings(max_examples=60)
@examples(
    turns=st.lists(st.integers(0, PARTITIONS - 1), max_size=30),
    meanwhile=st.lists(st.integers(0, PARTITIONS - 1), max_size=8),
    most=st.integers(0, 12),
    batch_max=st.integers(1, 6),
)
def test_cap_is_exact_with_two_workers_in_any_order(
    turns: list[int], meanwhile: list[int], most: int, batch_max: int
) -> None:
    """Never over, and used to the last unit, whichever worker comes first, also between a decision and its commit."""
    given = world(_capped(Cap(unit=Unit.LEADS, period=Period.DAY, most=most)))
    given.send(*_leads_in(0, 8), *_leads_in(1, 8))
    hosts: list[MemoryHost] = []
    busy: set[int] = set()

    def act(at: int) -> None:
        if at not in busy:
            busy.add(at)
            hosts[at].turn()
            busy.discard(at)

    for at in range(PARTITIONS):
        faults = _Meanwhile(acts=[lambda other=other: act(other) for other in meanwhile])  # type: ignore[misc]
        hosts.append(given.worker(faults, partitions=[at]))
        hosts[at].batch_max = batch_max
    for at in turns:
        act(at)
    for host in hosts:
        host.drain()
    assert len(_sold_to(given)) == most
    check_limits(given)


def test_batch_that_finds_a_limit_short_again_and_again_is_decided_under_locks() -> None:
    """Each time before it commits, another worker has taken a unit."""
    given = world(CAPPED)
    given.send(*_leads_in(0, 6), *_leads_in(1, 4))
    other = given.worker(partitions=[1])
    other.batch_max = 1
    faults = _Meanwhile(acts=[other.turn] * 4)
    given.worker(faults, partitions=[0]).drain()
    other.drain()
    assert faults.names.count("lock") == 1
    assert faults.names.count("commit") >= 2
    assert len(_sold_to(given)) == 5
    check_limits(given)


def test_overtaken_worker_decides_the_rest_again_without_what_the_overtaken_part_drew() -> None:
    """Its part of partition 0 would have used up the cap; the other owner of it sells nothing to this buyer."""
    given = world(CAPPED)
    given.send(*_leads_in(0, 5), *_leads_in(1, 5))

    def successor() -> None:
        uncapped = market(plan(exclusive_stage(9000), sales_max=1), orders=(order("b", exclusive="list"),))
        given.earlier[1], before = given.market, given.market
        given.market = replace(uncapped, version=2, buyers={**before.buyers, **uncapped.buyers})
        given.market = replace(given.market, buyers={"b": given.market.buyers["b"]})
        given.kafka.partitions |= {"buyers.b.leads": 1, "buyers.b.pings": 1}
        given.worker(partitions=[0]).drain()
        given.market = before
        given.earlier.clear()

    host = given.worker(_Meanwhile(acts=[successor]))
    host.turn()
    assert len(_sold_to(given)) == 5
    assert {partition_of(lead_id, PARTITIONS) for lead_id in _sold_to(given)} == {1}


# What dies in the middle


@pytest.mark.parametrize("deposits", [0, 2])
def test_crash_between_any_two_effects_leaves_limits_exact(deposits: int) -> None:
    for edge in range(1, 200):
        given = world(_with_account(CAPPED, "a", 2 * 9500))
        given.send(*(_deposit(f"wire {n}", 9500) for n in range(deposits)), *_leads(7))
        crashed = crashes_at(lambda faults, given=given: given.worker(faults).drain(), edge)  # type: ignore[misc]
        given.worker().drain()
        assert len(_sold_to(given)) == 2 + deposits
        assert len(_all(given, MoneyMoved)) == deposits
        check_limits(given)
        if not crashed:
            return
    raise AssertionError("the run never got to its end")


@pytest.mark.parametrize("error", [StartAgain, TryAgain])
def test_lost_commit_draws_once(error: type[Exception]) -> None:
    @dataclass(slots=True)
    class Losing(Faults):
        def edge(self, name: str) -> None:
            Faults.edge(self, name)
            if name == ("committed" if error is StartAgain else "commit") and self.names.count(name) == 1:
                raise error

    given = world(CAPPED)
    given.send(*_leads(8))
    given.worker(Losing()).drain()
    assert len(_sold_to(given)) == 5
    check_limits(given)


def test_zombie_draws_nothing() -> None:
    given = world(CAPPED)
    given.send(*_leads(8))
    given.worker(_Meanwhile(acts=[lambda: given.worker().drain()])).drain()
    assert len(_sold_to(given)) == 5
    assert _counter(given, "order:").used == 5
    check_limits(given)


def test_lead_that_is_failed_draws_nothing_and_the_others_use_its_unit() -> None:
    given, leads = world(CAPPED), _leads(6)
    given.tables.sales[leads[0].lead_id, 1] = SaleRow(
        leads[0].lead_id, 1, "planted", "planted/all", Mode.SHARED, 1, 1, given.clock.now_ms, NEVER_CLOSED
    )
    given.send(*leads)
    given.worker().drain()
    outcomes = {lead_id: event.outcome for lead_id, event in given.events() if isinstance(event, LeadClosed)}
    assert [lead_id for lead_id, outcome in outcomes.items() if outcome is Outcome.FAILED] == [
        leads[0].lead_id
    ]
    assert sorted(_sold_to(given)) == sorted(item.lead_id for item in leads[1:])
    check_limits(given)


# Units that come back, limits that change


def test_returned_unit_is_usable_by_any_worker_within_a_tenth_of_a_second() -> None:
    given = world(_returnable(CAPPED))
    first, second = given.worker(partitions=[0]), given.worker(partitions=[1])
    given.send(*_leads_in(0, 6), *_leads_in(1, 6))
    first.drain()
    second.drain()
    sold = _sold_to(given)
    assert len(sold) == 5
    given.send(_return(sold[0]))
    (first if partition_of(sold[0], PARTITIONS) == 0 else second).drain()
    assert len(_all(given, ReturnApproved)) == 1
    given.clock.advance(101)
    other = 1 - partition_of(sold[0], PARTITIONS)
    given.send(*_leads_in(other, 3, "after"))
    (first, second)[other].drain()
    assert len(_sold_to(given)) == 6
    check_limits(given)


def test_unit_that_came_back_long_ago_is_found_by_a_worker_that_knew_the_cap_as_full() -> None:
    """It has not looked at the cap for minutes, and looks before it passes a lead over."""
    given = world(_returnable(CAPPED))
    first, second = given.worker(partitions=[0]), given.worker(partitions=[1])
    given.send(*_leads_in(0, 5))
    first.drain()
    given.send(*_leads_in(1, 1))
    second.drain()
    given.clock.advance(60_000)
    given.send(_return(_sold_to(given)[0]))
    first.drain()
    given.clock.advance(60_000)
    given.send(*_leads_in(1, 2, "after"))
    second.drain()
    assert len(_sold_to(given)) == 6
    check_limits(given)


def test_cap_lowered_below_what_is_used_sells_no_more_and_raised_again_sells_on() -> None:
    given = world(CAPPED)
    given.send(*_leads(4))
    given.worker().drain()
    given.earlier[1] = given.market
    given.market = replace(_capped(replace(FIVE_A_DAY, most=2)), version=2)
    given.send(*(replace(item, market_version=2) for item in _leads(3, "lowered")))
    given.worker().drain()
    assert len(_sold_to(given)) == 4
    given.earlier[2] = given.market
    given.market = replace(_capped(replace(FIVE_A_DAY, most=6)), version=3)
    given.send(*(replace(item, market_version=3) for item in _leads(4, "raised")))
    given.worker().drain()
    assert len(_sold_to(given)) == 6
    check_limits(given)


def test_deposit_is_booked_once_however_often_it_is_sent_and_buys_to_the_cent() -> None:
    given = world(_with_account(_capped(), "a", 0))
    host = given.worker()
    given.send(*_leads(2, "before"))
    host.drain()
    assert _sold_to(given) == []
    given.send(_deposit("wire 1", 2 * 9500 + 100), _deposit("wire 1", 2 * 9500 + 100))
    host.drain()
    given.send(_deposit("wire 1", 2 * 9500 + 100), _deposit("wire 2", 9400))
    given.worker().drain()
    given.clock.advance(101)
    given.send(*_leads(5, "after"))
    given.worker().drain()
    assert len(_sold_to(given)) == 3
    assert [event.reference for event in _all(given, MoneyMoved)] == ["wire 1", "wire 2"]
    assert (_counter(given, "account:").used, _counter(given, "account:").granted) == (28_500, 28_500)
    check_limits(given)


def test_deposit_is_usable_by_leads_of_the_same_batch() -> None:
    given = world(_with_account(_capped(), "a", 0))
    given.send(_deposit("wire 1", 9500), *_leads(3))
    given.worker().drain()
    assert len(_sold_to(given)) == 1


def test_refused_deposit_may_be_sent_again_rightly() -> None:
    given = world(_with_account(_capped(), "a", 0))
    given.send(replace(_deposit("wire 1", 100), currency="EUR"))
    given.worker().drain()
    given.send(_deposit("wire 1", 100))
    given.worker().drain()
    assert [event.reason for event in _all(given, CommandRefused)] == [RefusalReason.WRONG_CURRENCY]
    assert len(_all(given, MoneyMoved)) == 1


def test_returns_beyond_the_quota_that_purchases_earn_are_refused() -> None:
    given = world(_returnable(_capped(), quota_basis_points=2_000))
    leads = _leads(12)
    given.send(*leads)
    given.worker().drain()
    given.send(*(_return(item.lead_id) for item in leads[:5]))
    given.worker().drain()
    assert len(_all(given, ReturnApproved)) == 2, "twelve purchases earn 2.4 returns"
    assert {event.reason for event in _all(given, ReturnRefused)} == {ReturnRefusal.QUOTA_USED_UP}
    check_limits(given)


def test_delivery_that_can_never_be_made_gives_its_unit_back() -> None:
    given = world(CAPPED)
    host = given.worker()
    given.send(*_leads(5))
    given.vault.rows.pop(_leads(5)[0].lead_id)
    host.drain()
    assert len(_all(given, DeliveryFailed)) == 1
    given.clock.advance(101)
    given.send(*_leads(2, "after"))
    host.drain()
    assert len(_sold_to(given)) == 6
    check_limits(given)


# Planted bugs


def _update_counters_in_a_transaction_of_their_own(patch: pytest.MonkeyPatch) -> None:
    original = MemoryRouterStore._commit

    def commit(
        self: MemoryRouterStore, commits: Sequence[PartitionCommit], draws: Draws
    ) -> Sequence[CounterRow]:
        rows = self.tables.draw(draws)
        self.faults.edge("counters")
        original(self, commits, replace(draws, rows=()))
        return rows

    patch.setattr(MemoryRouterStore, "_commit", commit)


def _commit_over_the_limit(patch: pytest.MonkeyPatch) -> None:
    """The comparison is forgotten, and with it the constraint."""
    patch.setattr(memory_store, "_is_short", lambda *_: False)
    patch.setattr(MemoryRouterTables, "_refuse_limit", lambda *_: None)


def _believe_what_was_known(patch: pytest.MonkeyPatch) -> None:
    """A worker that goes on selling by what it knew of a limit, and draws what it has not taken."""
    original = MemoryRouterStore.commit

    def commit(
        self: MemoryRouterStore, commits: Sequence[PartitionCommit], draws: Draws
    ) -> Sequence[CounterRow]:
        try:
            return original(self, commits, draws)
        except LimitsShort:
            return original(self, commits, Draws(market_version=draws.market_version))

    patch.setattr(MemoryRouterStore, "commit", commit)


def _with_two_workers(given: World) -> None:
    given.send(*_leads_in(0, 4), *_leads_in(1, 4))
    other = given.worker(partitions=[1])
    given.worker(_Meanwhile(acts=[other.turn]), partitions=[0]).drain()
    other.drain()


def _with_crashes(given: World) -> None:
    given.send(*_leads(4))
    for edge in range(1, 6):
        crashes_at(lambda faults: given.worker(faults).drain(), edge)
    given.worker().drain()


BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[World], None]]] = {
    "counters outside of the transaction": (_update_counters_in_a_transaction_of_their_own, _with_crashes),
    "no comparison and no constraint": (_commit_over_the_limit, _with_two_workers),
    "a shortage ignored": (_believe_what_was_known, _with_two_workers),
}


@pytest.mark.parametrize("name", sorted(BUGS))
def test_check_of_limits_sees_the_planted_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, run = BUGS[name]
    given = world(CAPPED)
    plant(monkeypatch)
    run(given)
    with pytest.raises(AssertionError):
        check_limits(given)


@pytest.mark.parametrize("name", sorted(BUGS))
def test_check_of_limits_is_silent_without_the_bug(name: str) -> None:
    given = world(CAPPED)
    BUGS[name][1](given)
    check_limits(given)


def test_constraint_stops_a_worker_that_does_not_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    given = world(CAPPED)
    monkeypatch.setattr(memory_store, "_is_short", lambda *_: False)
    with pytest.raises(Stopped, match="never_over_the_limit"):
        _with_two_workers(given)


def test_leads_passed_over_are_closed_like_all_others() -> None:
    given = world(CAPPED)
    leads = _leads(9)
    given.send(*leads)
    given.worker().drain()
    closes: dict[str, int] = defaultdict(int)
    for lead_id, event in given.events():
        closes[lead_id] += isinstance(event, LeadClosed)
    assert closes == dict.fromkeys((item.lead_id for item in leads), 1)
