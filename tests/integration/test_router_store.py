"""The router's tables, real and in memory: one suite for both, and each constraint against a planted wrong decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from services.bus.database import connect
from services.bus.memory import VirtualClock
from services.bus.migrations import migrate
from services.bus.ports import Stopped
from services.contract.events import Outcome
from services.contract.ids import lead_id_of
from services.contract.market import Mode
from services.router.database import Database
from services.router.lead import Lead, WithdrawnEarly
from services.router.memory_store import CONSTRAINTS, MemoryRouterStore, MemoryRouterTables
from services.router.ports import (
    FOR_GOOD,
    NEVER_CLOSED,
    Behind,
    CloseRow,
    Head,
    LogRow,
    Mark,
    Overtaken,
    PartitionCommit,
    PromiseBroken,
    RouterStore,
    SaleRow,
    UndeliveredRow,
)
from services.router.store import LOG_RANGE, PostgresRouterStore, initialise
from tests.support.deciding import NOW_MS, Story, exclusive_stage, lead, market, order, plan, shared_stage

LEAD_ID = lead_id_of("sunform", "store")


@dataclass
class Subject:
    """A store, and how to take one of its constraints away."""

    store: RouterStore
    drop: Callable[[str], None]
    another: Callable[[], RouterStore]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        yield _memory()
    else:
        opened: list[Database] = []
        yield _postgres(request.getfixturevalue("database"), opened)
        for database in opened:
            database.close()


def _memory() -> Subject:
    tables = MemoryRouterTables(heads={partition: Head(partition=partition) for partition in range(4)})

    def drop(constraint: str) -> None:
        tables.without |= {constraint}

    clock = VirtualClock()
    return Subject(
        MemoryRouterStore(tables, clock, lambda: 1), drop, lambda: MemoryRouterStore(tables, clock, lambda: 1)
    )


def _postgres(url: str, opened: list[Database]) -> Subject:
    migrate(url)
    with psycopg.connect(url, autocommit=True) as admin:
        initialise(admin, 4)

    def drop(constraint: str) -> None:
        with psycopg.connect(url, autocommit=True) as admin:
            tables = {"one_close_per_lead": "closes", "listed_once": "leads", "one_entry_per_seq": "log"}
            table = tables.get(constraint, "sales")
            admin.execute(f"alter table router.{table} drop constraint {constraint} cascade")

    def open_store() -> RouterStore:
        opened.append(Database(lambda: connect(url, role="gavel_router", application_name="test")))
        return PostgresRouterStore(opened[-1])

    return Subject(open_store(), drop, open_store)


def _lead_state() -> Lead:
    story = Story(market(plan(shared_stage(4000)), orders=(order("a", shared="list"),)))
    story.when(lead("store", never_to=("zzz",)))
    return story.lead


def _offered_state() -> Lead:
    stages = (exclusive_stage(7000, accept_within_ms=1_000, exclusive_for_ms=1_000), shared_stage(100))
    story = Story(market(plan(*stages), orders=(order("a", exclusive="list"),)))
    story.when(lead("store"))
    return story.lead


def _commit(head: Head, **rows: Any) -> PartitionCommit:
    values: dict[str, Any] = {
        "mark": None,
        "log": (),
        "new_leads": {},
        "changed_leads": {},
        "sales": (),
        "closes": (),
        **rows,
    }
    after = values.pop(
        "after", replace(head, seq=head.seq + len(values["log"]), next_qualified=head.next_qualified + 1)
    )
    return PartitionCommit(before=head, after=after, **values)


def _sale(number: int = 1, buyer: str = "a", mode: Mode = Mode.SHARED, **changes: Any) -> SaleRow:
    row = SaleRow(
        lead_id=LEAD_ID,
        sale_number=number,
        buyer_id=buyer,
        order_id=f"{buyer}/all",
        mode=mode,
        sales_max=2,
        price_cents=4000,
        sold_at_ms=NOW_MS,
        closed_until_ms=NEVER_CLOSED if mode is Mode.SHARED else FOR_GOOD,
    )
    return row._replace(**changes)


def _head(store: RouterStore, partition: int = 0) -> Head:
    return store.heads([partition])[partition]


def _entry(seq: int, partition: int = 0) -> LogRow:
    return LogRow(partition, seq, LEAD_ID, NOW_MS, f"entry {seq}".encode())


def _undelivered(store: RouterStore, partition: int = 0) -> Sequence[UndeliveredRow]:
    behind = [Behind(partition, recipient) for recipient in store.behind(partition)]
    return store.undelivered(behind, each=10, limit=10)


def test_commit_moves_the_head_and_keeps_every_row(subject: Subject) -> None:
    store, state = subject.store, _lead_state()
    head = _head(store)
    store.commit(
        [
            _commit(
                head,
                log=[_entry(1)],
                new_leads={state.lead_id: state},
                sales=[_sale(1), _sale(2, "b")],
                closes=[CloseRow(LEAD_ID, Outcome.SOLD_OUT, NOW_MS)],
            )
        ]
    )
    after = _head(store)
    assert (after.version, after.seq, after.next_qualified) == (head.version + 1, 1, 1)
    assert store.entries(0, after_seq=0, limit=10) == [_entry(1)]
    assert store.read([0], [state.lead_id, lead_id_of("x", "unknown")]).leads == {state.lead_id: state}


@pytest.mark.parametrize("state", [_lead_state(), _offered_state(), WithdrawnEarly(reason="erased")])  # type: ignore[arg-type]
def test_state_is_read_as_it_was_written(subject: Subject, state: Lead | WithdrawnEarly) -> None:
    store = subject.store
    store.commit([_commit(_head(store), new_leads={LEAD_ID: state})])
    assert store.read([0], [LEAD_ID]).leads == {LEAD_ID: state}


def test_changed_lead_replaces_its_row(subject: Subject) -> None:
    store = subject.store
    store.commit([_commit(_head(store), new_leads={LEAD_ID: _lead_state()})])
    store.commit([_commit(_head(store), changed_leads={LEAD_ID: _offered_state()})])
    assert store.read([0], [LEAD_ID]).leads == {LEAD_ID: _offered_state()}


def test_overtaken_owner_cannot_commit_and_leaves_nothing_behind(subject: Subject) -> None:
    store, other = subject.store, subject.another()
    head = _head(store)
    other.commit([_commit(head, log=[_entry(1)])])
    with pytest.raises(Overtaken) as caught:
        store.commit([_commit(head, log=[_entry(1)]), _commit(_head(store, 1), log=[_entry(1, 1)])])
    assert caught.value.partitions == {0}
    assert store.entries(1, after_seq=0, limit=10) == []


def test_commit_needs_the_mark_where_it_was(subject: Subject) -> None:
    store = subject.store
    store.commit([_commit(_head(store), log=[_entry(1)])])
    head = _head(store)
    store.move_marks([Mark(partition=0, before_seq=0, after_seq=1)])
    with pytest.raises(Overtaken):
        store.commit([_commit(head, log=[_entry(2)])])


def test_mark_moves_once_and_keeps_what_is_undelivered(subject: Subject) -> None:
    store = subject.store
    store.commit([_commit(_head(store), log=[_entry(1), _entry(2)])])
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
    store.commit([_commit(_head(store), log=[_entry(seq) for seq in range(1, 7)])])
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
    store.commit([_commit(_head(store), log=[_entry(1)])])
    head = _head(store)
    mark = Mark(
        partition=0, before_seq=0, after_seq=1, undelivered=(UndeliveredRow(0, 1, 0, "buyers.a.leads"),)
    )
    store.commit([_commit(head, after=replace(head, published_seq=1), mark=mark)])
    assert _head(store).published_seq == 1
    assert len(_undelivered(store)) == 1


def test_missing_head_is_an_error(subject: Subject) -> None:
    with pytest.raises(Stopped):
        subject.store.heads([99])


WRONG_DECISIONS: dict[str, list[dict[str, Any]]] = {
    "no_more_than_sales_max": [{"sales": [_sale(1), _sale(2, "b"), _sale(3, "c")]}],
    "never_the_same_buyer_twice": [{"sales": [_sale(1), _sale(2, "a")]}],
    "one_sale_per_number": [{"sales": [_sale(1)]}, {"sales": [_sale(1, "b", sales_max=3)]}],
    "exclusive_is_the_first": [
        {"sales": [_sale(1, mode=Mode.EXCLUSIVE, closed_until_ms=NOW_MS + 1)]},
        {"sales": [_sale(2, "b", Mode.EXCLUSIVE, sold_at_ms=NOW_MS + 1, closed_until_ms=NOW_MS + 1)]},
    ],
    "nothing_beside_an_exclusive_sale": [
        {"sales": [_sale(1, mode=Mode.EXCLUSIVE)]},
        {"sales": [_sale(2, "b", closed_until_ms=FOR_GOOD)]},
    ],
    "follows_the_first_sale": [
        {"sales": [_sale(1, mode=Mode.EXCLUSIVE)]},
        {"sales": [_sale(2, "b", closed_until_ms=NEVER_CLOSED)]},
    ],
    "shared_closes_nothing": [{"sales": [_sale(1, closed_until_ms=NOW_MS)]}],
    "exclusive_closes": [{"sales": [_sale(1, mode=Mode.EXCLUSIVE, closed_until_ms=NEVER_CLOSED)]}],
    "one_close_per_lead": [
        {"closes": [CloseRow(LEAD_ID, Outcome.UNSOLD, NOW_MS)]},
        {"closes": [CloseRow(LEAD_ID, Outcome.SOLD_OUT, NOW_MS)]},
    ],
    "listed_once": [{"new_leads": {LEAD_ID: _lead_state()}}, {"new_leads": {LEAD_ID: _lead_state()}}],
}


@pytest.mark.parametrize("constraint", sorted(WRONG_DECISIONS))
def test_constraint_refuses_a_wrong_decision_and_names_the_lead(subject: Subject, constraint: str) -> None:
    *allowed, wrong = WRONG_DECISIONS[constraint]
    for rows in allowed:
        subject.store.commit([_commit(_head(subject.store), **rows)])
    refused = _commit(_head(subject.store), **wrong)
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
        subject.store.commit([_commit(_head(subject.store), **rows)])


def test_sale_after_exclusivity_is_no_breach(subject: Subject) -> None:
    store, until_ms = subject.store, NOW_MS + 1_000
    store.commit([_commit(_head(store), sales=[_sale(1, mode=Mode.EXCLUSIVE, closed_until_ms=until_ms)])])
    later = _sale(2, "b", sold_at_ms=until_ms, closed_until_ms=until_ms)
    with pytest.raises(PromiseBroken):
        store.commit([_commit(_head(store), sales=[later._replace(sold_at_ms=until_ms - 1)])])
    store.commit([_commit(_head(store), sales=[later])])


def test_every_constraint_has_its_wrong_decision() -> None:
    assert set(CONSTRAINTS) == WRONG_DECISIONS.keys()


def test_entry_s_seq_is_taken_once(subject: Subject) -> None:
    store = subject.store
    store.commit([_commit(_head(store), log=[_entry(1)])])
    with pytest.raises(Stopped):
        store.commit([_commit(_head(store), log=[_entry(1)])])


@pytest.mark.integration
def test_old_ranges_of_the_log_go_once_they_are_published_and_delivered(database: str) -> None:
    opened: list[Database] = []
    subject = _postgres(database, opened)
    store, limit = subject.store, LOG_RANGE
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.heads set seq = %s, published_seq = %s", [limit - 2, limit - 2])
    head = _head(store)
    rows = [_entry(limit - 1), _entry(limit), _entry(limit + 1)]
    store.commit([_commit(head, log=[row._replace(decided_at_ms=1) for row in rows])])
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
    store, limit = _postgres(database, opened).store, LOG_RANGE
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.heads set seq = %s, published_seq = %s", [limit - 2, limit - 2])
    store.commit([_commit(_head(store), log=[_entry(limit - 1)._replace(decided_at_ms=1)])])
    recent_ms = store.read([1], []).now_ms
    store.commit([_commit(_head(store, 1), log=[_entry(limit - 1, 1)])])
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.heads set seq = %s, published_seq = %s", [limit, limit])
        admin.execute("update router.log set decided_at_ms = %s where partition = 1", [recent_ms])
    assert store.drop_old_log_ranges() == []
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("update router.log set decided_at_ms = 1")
    assert store.drop_old_log_ranges() == ["log_0"]
    opened[0].close()
