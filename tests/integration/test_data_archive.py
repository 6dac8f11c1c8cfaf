"""Archived leads answer, refuse and keep their promises as before: on real tables, and on their twin in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from services.bus.database import connect
from services.bus.migrations import migrate
from services.bus.ports import PassingFault
from services.cli.data_commands import app
from services.contract.codec import codec
from services.contract.events import (
    Disposition,
    DispositionReported,
    ErasureReason,
    Outcome,
    ReturnApproved,
    ReturnReason,
    WithdrawalReason,
)
from services.contract.ids import lead_id_of, partition_of
from services.contract.inputs import (
    AcknowledgeErasure,
    DecideReturn,
    EraseLead,
    PlaceBid,
    QualifiedLead,
    ReportDisposition,
    ReturnLead,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import Market, Returns
from services.intake.archive import archive_received
from services.intake.ports import Kept, LeadRow
from services.intake.store import PostgresIntakeStore
from services.router.archive import ClosedLead, Limits, TooMuchAtOnce
from services.router.database import Database
from services.router.faults import TryAgain as RouterTryAgain
from services.router.lead import Lead, State, evolve
from services.router.memory_store import MemoryRouterStore
from services.router.ports import CloseRow, PromiseBroken, RouterStore
from services.router.step import ATTEMPTS_MAX
from services.router.store import PostgresRouterStore
from tests.support.archiving import (
    EVERYTHING,
    Place,
    archive_all,
    archive_of,
    batches,
    memory_place,
    postgres_place,
    timeless,
)
from tests.support.deciding import NOW_MS, lead, market, order, plan, shared_stage
from tests.support.router_tables import LEAD_ID, commit_of, head_of, sale_of
from tests.support.routing import PARTITIONS, run_until_done

LATE_MS = 4_000_000_000_000
"""A time that is over after any return window, and behind any test's clock."""


def _market(*, within_ms: int = 1, automatic: bool = True) -> Market:
    given = market(
        plan(shared_stage(4000), sales_max=2),
        orders=(order("a", shared=4100), order("b", shared="list"), order("c", shared="list")),
    )
    returns = Returns(within_ms=within_ms, reasons=(ReturnReason.INVALID_CONTACT.value,), automatic=automatic)
    return replace(given, lead_types={"solar": replace(given.lead_types["solar"], returns=returns)})


SOLD, UNSOLD, REFUSED_ALL = "sold", "unsold", "never to anybody"


def _leads() -> dict[str, QualifiedLead]:
    return {
        SOLD: lead(SOLD),
        UNSOLD: lead(UNSOLD, never_to=("a", "b", "c")),
        "sold to one": lead("sold to one", never_to=("a", "b")),
    }


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    given = _market()
    if request.param == "memory":
        yield memory_place(given)
    else:
        with postgres_place(request.getfixturevalue("database"), given) as opened:
            yield opened


def _commands(leads: dict[str, QualifiedLead]) -> Sequence[Any]:
    """Commands that come long after the close, about every kind of lead."""
    sold, unsold, one = (leads[name].lead_id for name in (SOLD, UNSOLD, "sold to one"))
    return (
        ReportDisposition(lead_id=sold, buyer_id="a", disposition=Disposition.NO_DEAL),
        ReportDisposition(lead_id=sold, buyer_id="a", disposition=Disposition.DEAL),
        ReportDisposition(lead_id=unsold, buyer_id="a", disposition=Disposition.DEAL),
        EraseLead(lead_id=sold, reason=ErasureReason.REVOKED),
        AcknowledgeErasure(lead_id=sold, buyer_id="a", by_operator=False),
        EraseLead(lead_id=unsold, reason=ErasureReason.ERASED),
        ReturnLead(lead_id=one, buyer_id="c", reason=ReturnReason.INVALID_CONTACT, answered_at_ms=LATE_MS),
        ReturnLead(lead_id=sold, buyer_id="c", reason=ReturnReason.INVALID_CONTACT, answered_at_ms=LATE_MS),
        DecideReturn(lead_id=one, sale_number=1, approve=True),
        UpgradeSale(lead_id=one, buyer_id="c", answered_at_ms=LATE_MS),
        WithdrawLead(lead_id=unsold, reason=WithdrawalReason.OPERATOR),
        PlaceBid(
            lead_id=sold,
            buyer_id="b",
            auction_number=1,
            exclusive_cents=1,
            shared_cents=None,
            answered_at_ms=LATE_MS,
        ),
        *leads.values(),
    )


def _told(place: Place, *, archived: bool) -> list[tuple[str, tuple[str, dict[str, Any]]]]:
    """Sell leads, have each command decided, archiving before each of them or not; give all that the log says."""
    leads = _leads()
    worker = place.worker()
    place.world.send(*leads.values())
    run_until_done(worker)
    moved = 0
    for command in _commands(leads):
        moved += place.archive() if archived else 0
        place.world.send(command)
        run_until_done(worker)
    assert moved > len(leads) or not archived, "leads came back, and went again"
    return [(lead_id, timeless(event)) for lead_id, event in place.world.events()]


def test_commands_about_archived_leads_are_answered_as_before(place: Place) -> None:
    expected = _told(memory_place(place.world.market), archived=False)
    assert _told(place, archived=True) == expected
    answers = {name for _, (name, _) in expected}
    assert {"DispositionReported", "ReturnRefused", "CommandRefused"} <= answers


def _states(place: Place) -> dict[str, State]:
    """Fold the log."""
    states: dict[str, State] = {}
    for entries in place.world.log().values():
        for entry in entries:
            states[entry.lead_id] = evolve(
                states.get(entry.lead_id), entry.lead_id, codec().events_of(entry), entry.decided_at_ms
            )
    return states


@pytest.mark.integration
def test_the_log_s_fold_is_what_is_read_of_archived_and_recalled_leads(database: str) -> None:
    with postgres_place(database, _market()) as place:
        _told(place, archived=True)
        place.archive()
        place.world.send(
            ReportDisposition(
                lead_id=_leads()["sold to one"].lead_id, buyer_id="c", disposition=Disposition.DEAL
            )
        )
        run_until_done(place.worker())
        states = _states(place)
        store = PostgresRouterStore(place.opened[0])
        assert store.read(range(PARTITIONS), list(states)).leads == states
        assert _count(database, "router.archived_leads") == 2
        assert _count(database, "router.leads") == 1


# What may go, and how


@pytest.mark.integration
def test_lead_goes_whole_and_comes_back_whole(database: str) -> None:
    with postgres_place(database, _market()) as place:
        leads = _leads()
        worker = place.worker()
        place.world.send(*leads.values())
        run_until_done(worker)
        before = _everything(database)
        assert archive_all(database, place.world.market) == len(leads)
        assert _everything(database) == before
        assert [_count(database, f"router.{table}") for table in ("leads", "closes", "sales")] == [0, 0, 0]
        assert archive_all(database, place.world.market) == 0, "to repeat it does nothing"
        place.world.send(
            *(
                ReportDisposition(lead_id=leads[name].lead_id, buyer_id="c", disposition=Disposition.DEAL)
                for name in ("sold to one",)
            )
        )
        run_until_done(worker)
        assert _count(database, "router.sales") == 1
        assert _everything(database)[1:] == before[1:], "sales and closes are as they were"


@pytest.mark.integration
def test_what_is_open_waits_for_an_operator_or_has_a_window_left_stays(database: str) -> None:
    given = _market(within_ms=LATE_MS, automatic=False)
    with postgres_place(database, given) as place:
        leads = _leads()
        worker = place.worker()
        place.world.send(*leads.values())
        run_until_done(worker)
        assert place.archive() == 1, "only what nobody bought has no return window"
        short = _market(within_ms=1, automatic=False)
        place.world.send(
            ReturnLead(
                lead_id=leads[SOLD].lead_id,
                buyer_id="a",
                reason=ReturnReason.INVALID_CONTACT,
                answered_at_ms=NOW_MS,
            )
        )
        run_until_done(worker)
        assert archive_all(database, short) == 1, "the return that waits for an operator keeps the other"
        place.world.send(DecideReturn(lead_id=leads[SOLD].lead_id, sale_number=1, approve=True))
        run_until_done(worker)
        assert ReturnApproved in {type(event) for _, event in place.world.events()}
        assert archive_all(database, short) == 1


@pytest.mark.integration
def test_lead_closed_lately_stays_and_a_dry_run_moves_nothing(database: str) -> None:
    with postgres_place(database, _market()) as place:
        place.world.send(*_leads().values())
        run_until_done(place.worker())
        assert archive_all(database, place.world.market, Limits(older_than_ms=60_000, batch=10)) == 0
        found = list(batches(database, place.world.market, replace(EVERYTHING, dry_run=True)))
        assert sum(moved.archived for moved in found) == 3
        assert _count(database, "router.archived_leads") == 0


# Promises


def _closed_with_sale(store: RouterStore, state: State) -> None:
    head = head_of(store)
    closes = [CloseRow(LEAD_ID, Outcome.PARTLY_SOLD, NOW_MS)]
    store.commit([commit_of(head, new_leads={LEAD_ID: state}, sales=[sale_of(1)], closes=closes)])


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def archived(request: pytest.FixtureRequest) -> Iterator[tuple[RouterStore, Lead]]:
    """A store whose one lead, sold once of at most twice, is archived."""
    place = memory_place(_market())
    place.world.send(lead("store", never_to=("b", "c")))
    run_until_done(place.worker())
    state = _states(place)[LEAD_ID]
    assert isinstance(state, Lead)
    if request.param == "memory":
        twin = memory_place(_market())
        memory = MemoryRouterStore(twin.world.tables, twin.world.clock, lambda: 1)
        _closed_with_sale(memory, state)
        assert twin.archive() == 1
        yield memory, state
        return
    url = request.getfixturevalue("database")
    with postgres_place(url, _market()):
        database = Database(lambda: connect(url, role="gavel_router", application_name="test"))
        store = PostgresRouterStore(database)
        _closed_with_sale(store, state)
        assert archive_all(url, _market()) == 1
        yield store, state
        database.close()


@pytest.mark.parametrize(
    ("rows", "constraint"),
    [
        ({"new_leads": {LEAD_ID: None}}, "listed_once"),
        ({"sales": [sale_of(1, "b")]}, "nothing_beside_the_archive"),
        ({"sales": [sale_of(2, "b")]}, "nothing_beside_the_archive"),
        ({"closes": [CloseRow(LEAD_ID, Outcome.UNSOLD, NOW_MS)]}, "nothing_beside_the_archive"),
        ({"changed_leads": {LEAD_ID: None}, "sales": [sale_of(2, "a")]}, "never_the_same_buyer_twice"),
        ({"changed_leads": {LEAD_ID: None}, "sales": [sale_of(1, "b")]}, "one_sale_per_number"),
        (
            {"changed_leads": {LEAD_ID: None}, "closes": [CloseRow(LEAD_ID, Outcome.UNSOLD, NOW_MS)]},
            "one_close_per_lead",
        ),
    ],
)
def test_constraint_refuses_what_breaks_an_archived_lead_s_promise(
    archived: tuple[RouterStore, Lead], rows: dict[str, Any], constraint: str
) -> None:
    store, state = archived
    stated: dict[str, Any] = {
        name: {LEAD_ID: state} for name in ("new_leads", "changed_leads") if name in rows
    }
    with pytest.raises(PromiseBroken) as caught:
        store.commit([commit_of(head_of(store), **(rows | stated))])
    assert (caught.value.lead_id, caught.value.constraint) == (LEAD_ID, constraint)
    assert store.read([0], [LEAD_ID]).leads == {LEAD_ID: state}, "nothing was committed"


@pytest.mark.integration
def test_without_the_look_at_the_archive_a_lead_could_be_listed_twice(database: str) -> None:
    """What refuses it is that look, and nothing else."""
    with postgres_place(database, _market()) as place:
        place.world.send(lead("store"))
        run_until_done(place.worker())
        place.archive()
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("drop trigger listed_once_archived_or_not on router.leads")
        store = PostgresRouterStore(place.opened[0])
        at = partition_of(LEAD_ID, PARTITIONS)
        state = store.read([at], [LEAD_ID]).leads[LEAD_ID]
        store.commit([commit_of(head_of(store, at), new_leads={LEAD_ID: state})])
        assert _count(database, "router.all_leads") == 2


@pytest.mark.integration
def test_changed_lead_that_is_nowhere_stops_the_commit(database: str) -> None:
    with postgres_place(database, _market()) as place:
        place.worker()
        store = PostgresRouterStore(place.opened[0])
        with pytest.raises(psycopg.Error) as caught:
            store.commit([commit_of(head_of(store), changed_leads={LEAD_ID: _a_state()})])
        assert caught.value.sqlstate == "GV003"


def _a_state() -> State:
    place = memory_place(_market())
    place.world.send(lead("store"))
    run_until_done(place.worker())
    return _states(place)[LEAD_ID]


# Beside routers that work, and through crashes


@pytest.mark.integration
def test_lead_that_a_router_is_changing_stays_where_it_is(database: str) -> None:
    with postgres_place(database, _market()) as place:
        leads = _leads()
        place.world.send(*leads.values())
        run_until_done(place.worker())
        with psycopg.connect(database) as router:
            router.execute("select from router.leads where lead_id = %s for update", [leads[SOLD].lead_id])
            assert place.archive() == 2
            router.rollback()
        assert place.archive() == 1


@pytest.mark.integration
def test_router_that_decided_before_a_lead_was_moved_commits_after_it(database: str) -> None:
    """Read before the move, committed behind it: the commit takes the lead back, with what was decided."""
    with postgres_place(database, _market()) as place:
        place.world.send(lead("store"))
        run_until_done(place.worker())
        store = PostgresRouterStore(place.opened[0])
        at = partition_of(LEAD_ID, PARTITIONS)
        state = store.read([at], [LEAD_ID]).leads[LEAD_ID]
        decided = evolve(
            state,
            LEAD_ID,
            [DispositionReported(sale_number=1, buyer_id="a", disposition=Disposition.DEAL)],
            NOW_MS,
        )
        assert place.archive() == 1
        store.commit([commit_of(head_of(store, at), changed_leads={LEAD_ID: decided})])
        assert store.read([at], [LEAD_ID]).leads == {LEAD_ID: decided}
        assert (_count(database, "router.leads"), _count(database, "router.archived_leads")) == (1, 0)
        assert _count(database, "router.sales") == 2


@pytest.mark.integration
def test_archive_that_pauses_in_the_middle_gives_way_to_a_router_before_that_stops(database: str) -> None:
    with postgres_place(database, _market()) as place:
        place.world.send(lead("store"))
        run_until_done(place.worker())
        store = PostgresRouterStore(place.opened[0])
        at = partition_of(LEAD_ID, PARTITIONS)
        head, state = head_of(store, at), store.read([at], [LEAD_ID]).leads[LEAD_ID]
        tables = archive_of(database)

        def commit_meanwhile(closed: Sequence[ClosedLead]) -> list[str]:
            for _ in range(ATTEMPTS_MAX - 1):
                with suppress(RouterTryAgain):
                    store.commit([commit_of(head, changed_leads={LEAD_ID: state})])
                    break
            return [item.lead_id for item in closed]

        with pytest.raises(TooMuchAtOnce):
            tables.move(range(tables.pages()), LATE_MS, commit_meanwhile)
        tables.close()
        assert head_of(store, at).version == head.version + 1, "the router has committed"
        assert _count(database, "router.archived_leads") == 0
        assert place.archive() == 1


@pytest.mark.integration
def test_archive_that_is_killed_in_the_middle_has_moved_nothing_and_goes_on_when_it_is_run_again(
    database: str,
) -> None:
    with postgres_place(database, _market()) as place:
        place.world.send(*_leads().values())
        run_until_done(place.worker())
        before = _everything(database)
        tables = archive_of(database)

        def killed(closed: Sequence[ClosedLead]) -> list[str]:
            with psycopg.connect(database, autocommit=True) as admin:
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'test archive'"
                    " and datname = current_database()"
                )
            return [item.lead_id for item in closed]

        with pytest.raises(psycopg.OperationalError):
            tables.move(range(tables.pages()), LATE_MS, killed)
        tables.close()
        assert _everything(database) == before
        assert _count(database, "router.archived_leads") == 0
        assert place.archive() == 3
        assert _everything(database) == before


@pytest.mark.integration
def test_routers_and_archive_side_by_side_lose_no_lead_and_no_report(database: str) -> None:
    """Leads go and come back all the time while their holders report on them."""
    given = _market()
    with postgres_place(database, given) as place:
        leads = [lead(f"busy-{number}") for number in range(60)]
        worker = place.worker()
        place.world.send(*leads)
        run_until_done(worker)
        sales = _everything(database)[1]
        ended, moved = threading.Event(), [0]

        def archive_all_the_time() -> None:
            while not ended.is_set():
                moved[0] += archive_all(database, given)

        archiving = threading.Thread(target=archive_all_the_time)
        archiving.start()
        try:
            for turn in range(10):
                disposition = Disposition.DEAL if turn % 2 else Disposition.NO_DEAL
                place.world.send(
                    *(
                        ReportDisposition(lead_id=item.lead_id, buyer_id="a", disposition=disposition)
                        for item in leads
                    )
                )
                run_until_done(worker)
        finally:
            ended.set()
            archiving.join()
        assert moved[0] > len(leads), "they went more than once"
        reports = [event for _, event in place.world.events() if isinstance(event, DispositionReported)]
        assert len(reports) == 10 * len(leads)
        assert _count(database, "router.all_leads") == len(leads)
        assert _everything(database)[1] == sales
        states = _states(place)
        assert PostgresRouterStore(place.opened[0]).read([0], list(states)).leads == states


# Intake


def _row(number: int, received_at_ms: int) -> LeadRow:
    return LeadRow(
        lead_id_of("sunform", f"row-{number}"), "sunform", 0, number, bytes(32), b"record", received_at_ms
    )


@pytest.mark.integration
def test_intake_knows_archived_leads_and_accepts_none_of_them_again(database: str) -> None:
    migrate(database)
    open_connection = lambda: connect(database, role="gavel_intake", application_name="test")  # noqa: E731
    store = PostgresIntakeStore(open_connection)
    rows = [_row(number, 1 if number % 2 else LATE_MS) for number in range(500)]
    with store.open() as door:
        door.keep(Kept(rows, (), (), {}))
    ids = [row.lead_id for row in rows]
    with store.open() as door:
        before = door.look(ids).known
    dry = sum(
        moved for *_, moved in archive_received(open_connection, older_than_ms=1_000, batch=100, dry_run=True)
    )
    moved = [moved for *_, moved in archive_received(open_connection, older_than_ms=1_000, batch=100)]
    assert sum(moved) == dry == 250
    assert len(moved) > 1, "in batches"
    assert (_count(database, "intake.leads"), _count(database, "intake.all_leads")) == (250, 500)
    with store.open() as door:
        assert door.look(ids).known == before
    with pytest.raises(PassingFault), store.open() as door:
        door.keep(Kept([rows[1]], (), (), {}))
    store.close()


# The command


def _run(database: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    monkeypatch.setenv("GAVEL_DATABASE", database)
    monkeypatch.setenv("GAVEL_KAFKA", "127.0.0.1:1")
    result = CliRunner().invoke(app, ["archive", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.integration
def test_command_counts_moves_and_repeats(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_place(database, _market()) as place:
        place.world.send(*_leads().values())
        run_until_done(place.worker())
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("update router.closes set closed_at_ms = 1")
        code, output = _run(database, monkeypatch, "--json", "--dry-run")
        assert (code, json.loads(output)["router_leads"]) == (0, 3)
        assert _count(database, "router.archived_leads") == 0
        code, output = _run(database, monkeypatch, "--json", "--batch", "1")
        told = json.loads(output)
        assert (code, told["router_leads"], told["kept"], told["reindexed"]) == (0, 3, 0, True)
        assert _count(database, "router.archived_leads") == 3
        code, output = _run(database, monkeypatch)
        assert (code, "Router: 0 closed leads moved" in output) == (0, True)


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "3w", "1.5d"])
def test_command_says_what_a_duration_is(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.cli.complaints import MISUSED, Complaint

    with pytest.raises(Complaint) as caught:
        _run("postgresql://nowhere", monkeypatch, f"--older-than={text}")
    assert caught.value.exit_code == MISUSED


def _count(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def _everything(url: str) -> list[list[tuple[Any, ...]]]:
    """Read all that the views say of leads, sales and closes."""
    with psycopg.connect(url) as connection:
        return [
            connection.execute(f"select * from router.{view} order by 1, 2".encode()).fetchall()
            for view in ("all_leads", "all_sales", "all_closes")
        ]
