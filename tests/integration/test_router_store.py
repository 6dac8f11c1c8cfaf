"""The router's tables, real and in memory: one suite for both, and each constraint against a planted wrong decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from services.bus.ports import Stopped
from services.contract.events import Outcome
from services.contract.ids import lead_id_of
from services.contract.market import Mode
from services.router.database import Database
from services.router.lead import Lead, WithdrawnEarly
from services.router.memory_store import CONSTRAINTS, MemoryRouterStore
from services.router.ports import (
    FOR_GOOD,
    NEVER_CLOSED,
    AuctionRow,
    Behind,
    CloseRow,
    Mark,
    MoneyRow,
    Overtaken,
    PromiseBroken,
    RouterStore,
    UndeliveredRow,
)
from services.router.store import LOG_RANGE
from tests.support.deciding import NOW_MS, Story, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.router_tables import (
    LEAD_ID,
    Subject,
    commit_of,
    entry_of,
    head_of,
    memory_subject,
    postgres_subject,
    sale_of,
)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        yield memory_subject()
    else:
        opened: list[Database] = []
        yield postgres_subject(request.getfixturevalue("database"), opened)
        for database in opened:
            database.close()


def _lead_state() -> Lead:
    story = Story(market(plan(shared_stage(4000)), orders=(order("a", shared="list"),)))
    story.when(lead("store", never_to=("zzz",)))
    return story.lead


def _offered_state() -> Lead:
    stages = (exclusive_stage(7000, accept_within_ms=1_000, exclusive_for_ms=1_000), shared_stage(100))
    story = Story(market(plan(*stages), orders=(order("a", exclusive="list"),)))
    story.when(lead("store"))
    return story.lead


def _undelivered(store: RouterStore, partition: int = 0) -> Sequence[UndeliveredRow]:
    behind = [Behind(partition, recipient) for recipient in store.behind(partition)]
    return store.undelivered(behind, each=10, limit=10)


def test_commit_moves_the_head_and_keeps_every_row(subject: Subject) -> None:
    store, state = subject.store, _lead_state()
    head = head_of(store)
    store.commit(
        [
            commit_of(
                head,
                log=[entry_of(1)],
                new_leads={state.lead_id: state},
                sales=[sale_of(1), sale_of(2, "b")],
                closes=[CloseRow(LEAD_ID, Outcome.SOLD_OUT, NOW_MS)],
            )
        ]
    )
    after = head_of(store)
    assert (after.version, after.seq, after.next_qualified) == (head.version + 1, 1, 1)
    assert store.entries(0, after_seq=0, limit=10) == [entry_of(1)]
    assert store.read([0], [state.lead_id, lead_id_of("x", "unknown")]).leads == {state.lead_id: state}


@pytest.mark.parametrize("state", [_lead_state(), _offered_state(), WithdrawnEarly(reason="erased")])  # type: ignore[arg-type]
def test_state_is_read_as_it_was_written(subject: Subject, state: Lead | WithdrawnEarly) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), new_leads={LEAD_ID: state})])
    assert store.read([0], [LEAD_ID]).leads == {LEAD_ID: state}


def test_changed_lead_replaces_its_row(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), new_leads={LEAD_ID: _lead_state()})])
    store.commit([commit_of(head_of(store), changed_leads={LEAD_ID: _offered_state()})])
    assert store.read([0], [LEAD_ID]).leads == {LEAD_ID: _offered_state()}


def test_overtaken_owner_cannot_commit_and_leaves_nothing_behind(subject: Subject) -> None:
    store, other = subject.store, subject.another()
    head = head_of(store)
    other.commit([commit_of(head, log=[entry_of(1)])])
    with pytest.raises(Overtaken) as caught:
        store.commit([commit_of(head, log=[entry_of(1)]), commit_of(head_of(store, 1), log=[entry_of(1, 1)])])
    assert caught.value.partitions == {0}
    assert store.entries(1, after_seq=0, limit=10) == []


def test_commit_needs_the_mark_where_it_was(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), log=[entry_of(1)])])
    head = head_of(store)
    store.move_marks([Mark(partition=0, before_seq=0, after_seq=1)])
    with pytest.raises(Overtaken):
        store.commit([commit_of(head, log=[entry_of(2)])])


def test_mark_moves_once_and_keeps_what_is_undelivered(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), log=[entry_of(1), entry_of(2)])])
    rows = (UndeliveredRow(0, 1, 0, "buyers.a.leads"), UndeliveredRow(0, 2, 1, "buyers.b.leads"))
    mark = Mark(partition=0, before_seq=0, after_seq=2, undelivered=rows)
    store.move_marks([mark])
    with pytest.raises(Overtaken):
        store.move_marks([mark])
    assert tuple(_undelivered(store)) == rows
    assert store.entry_values(rows) == {(0, 1): b"entry 1", (0, 2): b"entry 2"}
    store.delivered(rows[:1])
    assert tuple(_undelivered(store)) == rows[1:]


def test_undelivered_records_are_read_for_each_recipient_and_no_recipient_hides_another(
    subject: Subject,
) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), log=[entry_of(seq) for seq in range(1, 7)])])
    dead = tuple(UndeliveredRow(0, seq, 0, "buyers.a.leads") for seq in range(1, 7))
    late = (UndeliveredRow(0, 6, 1, "buyers.b.leads"),)
    store.move_marks([Mark(partition=0, before_seq=0, after_seq=6, undelivered=(*dead, *late))])
    behind = [Behind(0, "buyers.a.leads"), Behind(0, "buyers.b.leads"), Behind(1, "buyers.a.leads")]
    assert sorted(store.behind(0)) == ["buyers.a.leads", "buyers.b.leads"]
    assert list(store.behind(1)) == []
    assert store.undelivered(behind, each=1, limit=10) == [dead[0], *late]
    assert store.undelivered(behind, each=10, limit=3) == [*dead[:3]]
    assert store.undelivered(behind[1:2], each=10, limit=10) == [*late]
    assert store.undelivered([], each=10, limit=10) == []


def test_mark_that_rides_on_a_commit_moves_with_it(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), log=[entry_of(1)])])
    head = head_of(store)
    mark = Mark(
        partition=0, before_seq=0, after_seq=1, undelivered=(UndeliveredRow(0, 1, 0, "buyers.a.leads"),)
    )
    store.commit([commit_of(head, after=replace(head, published_seq=1), mark=mark)])
    assert head_of(store).published_seq == 1
    assert len(_undelivered(store)) == 1


def test_missing_head_is_an_error(subject: Subject) -> None:
    with pytest.raises(Stopped):
        subject.store.heads([99])


WRONG_DECISIONS: dict[str, list[dict[str, Any]]] = {
    "no_more_than_sales_max": [{"sales": [sale_of(1), sale_of(2, "b"), sale_of(3, "c")]}],
    "never_the_same_buyer_twice": [{"sales": [sale_of(1), sale_of(2, "a")]}],
    "one_sale_per_number": [{"sales": [sale_of(1)]}, {"sales": [sale_of(1, "b", sales_max=3)]}],
    "exclusive_is_the_first": [
        {"sales": [sale_of(1, mode=Mode.EXCLUSIVE, closed_until_ms=NOW_MS + 1)]},
        {"sales": [sale_of(2, "b", Mode.EXCLUSIVE, sold_at_ms=NOW_MS + 1, closed_until_ms=NOW_MS + 1)]},
    ],
    "nothing_beside_an_exclusive_sale": [
        {"sales": [sale_of(1, mode=Mode.EXCLUSIVE)]},
        {"sales": [sale_of(2, "b", closed_until_ms=FOR_GOOD)]},
    ],
    "follows_the_first_sale": [
        {"sales": [sale_of(1, mode=Mode.EXCLUSIVE)]},
        {"sales": [sale_of(2, "b", closed_until_ms=NEVER_CLOSED)]},
    ],
    "shared_closes_nothing": [{"sales": [sale_of(1, closed_until_ms=NOW_MS)]}],
    "exclusive_closes": [{"sales": [sale_of(1, mode=Mode.EXCLUSIVE, closed_until_ms=NEVER_CLOSED)]}],
    "one_close_per_lead": [
        {"closes": [CloseRow(LEAD_ID, Outcome.UNSOLD, NOW_MS)]},
        {"closes": [CloseRow(LEAD_ID, Outcome.SOLD_OUT, NOW_MS)]},
    ],
    "one_auction_per_lead": [
        {"auctions_opened": [AuctionRow(LEAD_ID, 0, 1, NOW_MS)]},
        {"auctions_opened": [AuctionRow(LEAD_ID, 0, 2, NOW_MS)]},
    ],
    "one_move_per_reference": [
        {"money": [MoneyRow(LEAD_ID, "wire 1"), MoneyRow(LEAD_ID, "wire 2")]},
        {"money": [MoneyRow(LEAD_ID, "wire 1")]},
    ],
    "listed_once": [{"new_leads": {LEAD_ID: _lead_state()}}, {"new_leads": {LEAD_ID: _lead_state()}}],
}


@pytest.mark.parametrize("constraint", sorted(WRONG_DECISIONS))
def test_constraint_refuses_a_wrong_decision_and_names_the_lead(subject: Subject, constraint: str) -> None:
    *allowed, wrong = WRONG_DECISIONS[constraint]
    for rows in allowed:
        subject.store.commit([commit_of(head_of(subject.store), **rows)])
    refused = commit_of(head_of(subject.store), **wrong)
    with pytest.raises(PromiseBroken) as caught:
        subject.store.commit([refused])
    assert caught.value.lead_id == LEAD_ID
    assert caught.value.constraint == constraint


@pytest.mark.parametrize("constraint", sorted(WRONG_DECISIONS))
def test_without_its_constraint_the_wrong_decision_is_committed(subject: Subject, constraint: str) -> None:
    """The constraint is what stopped it: without it (and what it alone supports) the same rows go in."""
    if constraint == "listed_once" and isinstance(subject.store, MemoryRouterStore):
        pytest.skip("a dict cannot hold a lead twice")
    subject.drop(constraint)
    for rows in WRONG_DECISIONS[constraint]:
        subject.store.commit([commit_of(head_of(subject.store), **rows)])


def test_sale_after_exclusivity_is_no_breach(subject: Subject) -> None:
    store, until_ms = subject.store, NOW_MS + 1_000
    store.commit(
        [commit_of(head_of(store), sales=[sale_of(1, mode=Mode.EXCLUSIVE, closed_until_ms=until_ms)])]
    )
    later = sale_of(2, "b", sold_at_ms=until_ms, closed_until_ms=until_ms)
    with pytest.raises(PromiseBroken):
        store.commit([commit_of(head_of(store), sales=[later._replace(sold_at_ms=until_ms - 1)])])
    store.commit([commit_of(head_of(store), sales=[later])])


def test_every_constraint_has_its_wrong_decision() -> None:
    """Those on limits, which belong to no lead, have theirs in test_router_limits, the archive in test_data_archive."""
    elsewhere = {"never_over_the_limit", "nothing_beside_the_archive"}
    assert set(CONSTRAINTS) - elsewhere == WRONG_DECISIONS.keys()


def test_entry_s_seq_is_taken_once(subject: Subject) -> None:
    store = subject.store
    store.commit([commit_of(head_of(store), log=[entry_of(1)])])
    with pytest.raises(Stopped):
        store.commit([commit_of(head_of(store), log=[entry_of(1)])])


@pytest.mark.integration
def test_old_ranges_of_the_log_go_once_they_are_published_and_delivered(database: str) -> None:
    opened: list[Database] = []
    subject = postgres_subject(database, opened)
    store, limit = subject.store, LOG_RANGE
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.heads set seq = %s, published_seq = %s", [limit - 2, limit - 2])
    head = head_of(store)
    rows = [entry_of(limit - 1), entry_of(limit), entry_of(limit + 1)]
    store.commit([commit_of(head, log=[row._replace(decided_at_ms=1) for row in rows])])
    assert store.drop_old_log_ranges() == [], "nothing goes that is not published"
    waiting = (UndeliveredRow(0, limit - 1, 0, "buyers.a.leads"),)
    store.move_marks([Mark(partition=0, before_seq=limit - 2, after_seq=limit + 1, undelivered=waiting)])
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            "update router.heads set seq = %s, published_seq = %s where partition > 0", [limit, limit]
        )
    assert store.drop_old_log_ranges() == [], "nothing goes that is not delivered"
    store.delivered(waiting)
    assert store.drop_old_log_ranges() == ["log_0"]
    assert [row.seq for row in store.entries(0, after_seq=0, limit=10)] == [limit, limit + 1]
    opened[0].close()


@pytest.mark.integration
def test_range_of_the_log_stays_while_its_last_entry_in_any_partition_is_recent(database: str) -> None:
    opened: list[Database] = []
    store, limit = postgres_subject(database, opened).store, LOG_RANGE
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.heads set seq = %s, published_seq = %s", [limit - 2, limit - 2])
    store.commit([commit_of(head_of(store), log=[entry_of(limit - 1)._replace(decided_at_ms=1)])])
    recent_ms = store.read([1], []).now_ms
    store.commit([commit_of(head_of(store, 1), log=[entry_of(limit - 1, 1)])])
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.heads set seq = %s, published_seq = %s", [limit, limit])
        admin.execute("update router.log set decided_at_ms = %s where partition = 1", [recent_ms])
    assert store.drop_old_log_ranges() == []
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.log set decided_at_ms = 1")
    assert store.drop_old_log_ranges() == ["log_0"]
    opened[0].close()
