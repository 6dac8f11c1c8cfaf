"""Counters, auctions, money and upgrades in the router's tables: one suite, on the real ones and on their twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from services.bus.ports import Stopped
from services.contract.times import DAY_MS
from services.router.database import Database
from services.router.memory_store import MemoryRouterTables, _drawn
from services.router.ports import (
    AS_STORED,
    NEVER_CLOSED,
    NOTHING_TAKEN,
    AuctionRow,
    CounterDraw,
    CounterRow,
    Draws,
    LimitsShort,
    MoneyRow,
    Overtaken,
    PartitionCommit,
    PromiseBroken,
    RouterStore,
)
from services.router.store import COUNTERS_KEPT_MS
from tests.support.deciding import NOW_MS
from tests.support.router_tables import (
    LEAD_ID,
    Subject,
    commit_of,
    head_of,
    memory_subject,
    postgres_subject,
    sale_of,
)

CAP = "order:a/all:leads_per_day:1789948800000"
ACCOUNT = "account:a"


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        yield memory_subject()
    else:
        opened: list[Database] = []
        yield postgres_subject(request.getfixturevalue("database"), opened)
        for database in opened:
            database.close()


def _takes(amount: int, *, most: int = 5, counter: str = CAP, **changes: Any) -> CounterDraw:
    draw = CounterDraw(
        counter=counter,
        peak=amount,
        amount=amount,
        granted=0,
        withdrawn=0,
        most=most,
        ends_at_ms=NOW_MS,
        tells=False,
    )
    return draw._replace(**changes)


def _gives(amount: int, *, counter: str = CAP, **changes: Any) -> CounterDraw:
    """What a return gives back."""
    return _takes(-amount, counter=counter, **{"peak": NOTHING_TAKEN, "most": AS_STORED, **changes})


def _grants(amount: int, *, most: int = 0) -> CounterDraw:
    """A deposit, or a negative adjustment."""
    return _takes(
        0, most=most, counter=ACCOUNT, peak=NOTHING_TAKEN, granted=amount, withdrawn=max(0, -amount)
    )


def _draw(
    store: RouterStore, *rows: CounterDraw, partition: int = 0, version: int = 1
) -> Sequence[CounterRow]:
    return store.commit([commit_of(head_of(store, partition))], Draws(market_version=version, rows=rows))


def _counter(store: RouterStore, counter: str = CAP) -> CounterRow:
    return store.counters([counter])[0]


def test_draws_add_up_and_the_counters_are_returned_as_they_are_afterwards(subject: Subject) -> None:
    store = subject.store
    assert _draw(store, _takes(2)) == [CounterRow(CAP, used=2, most=5, market_version=1)]
    both = _draw(store, _takes(3), _takes(700, most=1_000, counter=ACCOUNT, ends_at_ms=None))
    assert sorted(both) == [
        CounterRow(ACCOUNT, used=700, most=1_000, market_version=1),
        CounterRow(CAP, used=5, most=5, market_version=1),
    ]
    assert sorted(store.read([0], [], counters=[CAP, ACCOUNT]).counters) == sorted(both)


def test_limit_is_usable_to_the_last_unit_and_no_further(subject: Subject) -> None:
    store = subject.store
    _draw(store, _takes(5))
    with pytest.raises(LimitsShort) as caught:
        _draw(store, _takes(1))
    assert caught.value.rows == [CounterRow(CAP, used=5, most=5, market_version=1)]
    assert head_of(store).version == 1, "nothing was committed"


def test_limit_that_does_not_fit_tells_all_counters_that_the_batch_drew_on(subject: Subject) -> None:
    store = subject.store
    _draw(store, _takes(5), _takes(10, most=100, counter=ACCOUNT))
    with pytest.raises(LimitsShort) as caught:
        _draw(store, _takes(1), _takes(1, most=100, counter=ACCOUNT))
    assert sorted(row.used for row in caught.value.rows) == [5, 10]


def test_batch_that_was_overtaken_hears_of_that_and_not_of_limits(subject: Subject) -> None:
    store, other = subject.store, subject.another()
    zombie = head_of(store)
    _draw(other, _takes(5))
    with pytest.raises(Overtaken):
        store.commit([commit_of(zombie)], Draws(market_version=1, rows=[_takes(1)]))


def test_every_step_of_a_batch_must_fit_and_not_only_its_end(subject: Subject) -> None:
    """It takes one and gives one back: the end is where it began, and still it took what was not there."""
    store = subject.store
    _draw(store, _takes(5))
    with pytest.raises(LimitsShort):
        _draw(store, _takes(0, peak=1))
    _draw(store, _takes(0, peak=0))


def test_limit_that_fell_below_what_is_used_is_stored_as_used_with_the_shortfall_beside(
    subject: Subject,
) -> None:
    store = subject.store
    _draw(store, _takes(5))
    _draw(store, _gives(1, most=2), version=2)
    assert _counter(store) == CounterRow(CAP, used=4, most=2, shortfall=2, market_version=2)
    with pytest.raises(LimitsShort):
        _draw(store, _takes(1, most=2), version=2)
    _draw(store, _gives(3), version=2)
    assert _counter(store) == CounterRow(CAP, used=1, most=2, market_version=2)
    _draw(store, _takes(1, most=2), version=2)


def test_worker_under_an_earlier_market_version_is_held_to_the_later_limit(subject: Subject) -> None:
    store = subject.store
    _draw(store, _takes(2, most=3), version=2)
    with pytest.raises(LimitsShort) as caught:
        _draw(store, _takes(2, most=10), version=1)
    assert caught.value.rows[0].most == 3
    _draw(store, _takes(1, most=10), version=1)
    assert _counter(store) == CounterRow(CAP, used=3, most=3, market_version=2)


def test_prepaid_account_buys_what_was_paid_in(subject: Subject) -> None:
    store = subject.store
    with pytest.raises(LimitsShort):
        _draw(store, _takes(1, most=0, counter=ACCOUNT))
    _draw(store, _grants(1_000))
    _draw(store, _takes(1_000, most=0, counter=ACCOUNT))
    with pytest.raises(LimitsShort):
        _draw(store, _takes(1, most=0, counter=ACCOUNT))


def test_adjustment_may_take_an_account_below_what_is_used_and_deposits_fill_that_first(
    subject: Subject,
) -> None:
    store = subject.store
    _draw(store, _grants(1_000))
    _draw(store, _takes(900, most=0, counter=ACCOUNT))
    _draw(store, _grants(-300))
    assert _counter(store, ACCOUNT)[1:5] == (900, 700, 0, 200)
    _draw(store, _grants(200))
    assert _counter(store, ACCOUNT)[1:5] == (900, 900, 0, 0)
    with pytest.raises(LimitsShort):
        _draw(store, _takes(1, most=0, counter=ACCOUNT))


def test_unit_goes_back_to_its_own_period_and_one_whose_counter_is_gone_stays_gone(subject: Subject) -> None:
    store = subject.store
    _draw(store, _takes(5))
    assert _draw(store, _gives(2), _gives(1, counter="order:a/all:leads_per_day:1")) == [
        CounterRow(CAP, used=3, most=5, market_version=1)
    ]
    assert _counter(store, "order:a/all:leads_per_day:1") == CounterRow("order:a/all:leads_per_day:1")


def test_limit_is_told_to_be_used_up_once_until_it_has_room_again(subject: Subject) -> None:
    store = subject.store
    _draw(store, _takes(5, tells=True))
    assert _counter(store).told
    with pytest.raises(LimitsShort):
        _draw(store, _takes(0, peak=NOTHING_TAKEN, tells=True))
    _draw(store, _gives(1))
    assert not _counter(store).told
    _draw(store, _takes(1, tells=True))


def test_constraint_refuses_a_batch_that_takes_too_much_where_the_comparison_lets_it_pass(
    subject: Subject,
) -> None:
    """The planted bug: a batch that says it needs nothing free."""
    store = subject.store
    _draw(store, _takes(5))
    with pytest.raises(Stopped, match="never_over_the_limit"):
        _draw(store, _takes(1, peak=NOTHING_TAKEN))
    subject.drop("never_over_the_limit")
    _draw(store, _takes(1, peak=NOTHING_TAKEN))
    assert _counter(store).used == 6


def test_locked_batch_is_decided_on_what_it_has_locked_and_commits_at_once(subject: Subject) -> None:
    store = subject.store
    _draw(store, _takes(3))
    seen: list[CounterRow] = []

    def decide(rows: Sequence[CounterRow]) -> tuple[Sequence[PartitionCommit], Draws]:
        seen.extend(rows)
        return [commit_of(head_of(store, 1))], Draws(market_version=1, rows=[_takes(2)])

    after = store.commit_locked([1], [CAP], decide)
    assert seen == [CounterRow(CAP, used=3, most=5, market_version=1)]
    assert after == [CounterRow(CAP, used=5, most=5, market_version=1)]


def test_what_a_locked_decision_raises_leaves_nothing_behind(subject: Subject) -> None:
    store = subject.store

    def decide(_: Sequence[CounterRow]) -> tuple[Sequence[PartitionCommit], Draws]:
        raise KeyError("more")

    with pytest.raises(KeyError):
        store.commit_locked([0], [CAP], decide)
    assert _draw(store, _takes(5)) == [CounterRow(CAP, used=5, most=5, market_version=1)]


def test_open_auctions_are_found_by_partition_until_they_end(subject: Subject) -> None:
    store = subject.store
    row = AuctionRow(LEAD_ID, 0, 1, NOW_MS + 550)
    store.commit([commit_of(head_of(store), auctions_opened=[row])])
    assert store.auctions([0, 1]) == [row]
    assert store.auctions([1]) == []
    again = AuctionRow(LEAD_ID, 0, 2, NOW_MS + 900)
    store.commit([commit_of(head_of(store), auctions_ended=[LEAD_ID], auctions_opened=[again])])
    assert store.auctions([0]) == [again]
    store.commit([commit_of(head_of(store), auctions_ended=[LEAD_ID])])
    assert store.auctions([0]) == []


def test_references_that_have_moved_money_are_known(subject: Subject) -> None:
    store = subject.store
    known, new = MoneyRow(LEAD_ID, "wire 1"), MoneyRow(LEAD_ID, "wire 2")
    store.commit([commit_of(head_of(store), money=[known])])
    assert store.read([0], [], money=[known, new]).money == {known}


def test_only_holder_s_sale_is_upgraded_and_nobody_follows(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), sales=[sale_of(1)])])
    store.commit([commit_of(head_of(store), upgrades=[LEAD_ID])])
    for closed_until_ms in (NEVER_CLOSED, 2**63 - 1):
        with pytest.raises(PromiseBroken):
            store.commit(
                [commit_of(head_of(store), sales=[sale_of(2, "b", closed_until_ms=closed_until_ms)])]
            )


def test_sale_booked_with_its_upgrade_is_one_commit(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), sales=[sale_of(1)], upgrades=[LEAD_ID])])
    with pytest.raises(PromiseBroken) as caught:
        store.commit([commit_of(head_of(store), upgrades=[LEAD_ID])])
    assert (caught.value.lead_id, caught.value.constraint) == (LEAD_ID, "only_a_shared_sale_is_upgraded")


def test_lead_that_others_hold_is_not_upgraded(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), sales=[sale_of(1), sale_of(2, "b")])])
    with pytest.raises(PromiseBroken) as caught:
        store.commit([commit_of(head_of(store), upgrades=[LEAD_ID])])
    assert (caught.value.lead_id, caught.value.constraint) == (LEAD_ID, "follows_the_first_sale")


@pytest.mark.integration
def test_old_counters_go_long_after_their_period_ended(database: str) -> None:
    opened: list[Database] = []
    store = postgres_subject(database, opened).store
    now_ms = store.read([0], []).now_ms
    old = _takes(1, counter="order:a/all:leads_per_day:1", ends_at_ms=now_ms - COUNTERS_KEPT_MS - 1_000)
    recent = _takes(1, ends_at_ms=now_ms - COUNTERS_KEPT_MS + DAY_MS)
    _draw(store, old, recent, _takes(1, counter=ACCOUNT, ends_at_ms=None))
    assert store.drop_old_counters() == 1
    assert store.drop_old_counters() == 0
    assert [row.used for row in store.counters([old.counter, CAP, ACCOUNT])] == [0, 1, 1]
    opened[0].close()


@pytest.mark.integration
def test_counter_that_was_made_to_be_locked_goes_like_all_others(database: str) -> None:
    opened: list[Database] = []
    store = postgres_subject(database, opened).store
    ended_ms = store.read([0], []).now_ms - COUNTERS_KEPT_MS - 1_000

    def decide(_: Sequence[CounterRow]) -> tuple[Sequence[PartitionCommit], Draws]:
        return [commit_of(head_of(store))], Draws(market_version=1, rows=[_takes(1, ends_at_ms=ended_ms)])

    store.commit_locked([0], [CAP], decide)
    assert store.drop_old_counters() == 1
    opened[0].close()


@pytest.mark.integration
def test_router_s_role_can_change_a_sale_by_an_upgrade_alone(database: str) -> None:
    opened: list[Database] = []
    store = postgres_subject(database, opened).store
    store.commit([commit_of(head_of(store), sales=[sale_of(1)])])
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("set role gavel_router")
        for statement in (
            "update router.sales set closed_until_ms = 0",
            "update router.sales set price_cents = 0",
            "delete from router.sales",
            "delete from router.counters",
            "delete from router.money",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                admin.execute(statement)
    opened[0].close()


def test_twin_that_forgets_the_limit_would_be_seen() -> None:
    """The twin's arithmetic, against the planted bug of a shortfall that covers whatever was taken."""
    tables = MemoryRouterTables()
    tables.draw(Draws(market_version=1, rows=[_takes(5)]))
    after = _drawn(tables.counters[CAP], _takes(1), 1)
    assert after.used > after.most + after.granted + after.shortfall
