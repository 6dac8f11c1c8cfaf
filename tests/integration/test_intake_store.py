"""One suite for intake's tables: the in-memory twin and PostgreSQL promise the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from deploy.local.stack import Stack
from services.bus.database import connect
from services.bus.memory import VirtualClock
from services.bus.migrations import migrate
from services.bus.ports import PassingFault, Stopped
from services.contract.ids import lead_id_of
from services.contract.market import Market
from services.intake.domain import KnownLead, Origin, Owner
from services.intake.memory_store import MemoryIntakeStore, MemoryIntakeTables
from services.intake.ports import IntakeStore, Kept, LeadRow, SealedRow, SubjectRow
from services.intake.store import FORGET_CONSENTS, FORGET_DETAILS, PostgresIntakeStore
from services.market import store as markets
from services.vault import people, table
from services.vault.memory import MemoryVault
from services.vault.sealing import Vault
from tests.support.stack import fresh_database
from tests.support.submissions import MARKET

VAULT = Vault(bytes(range(32)))
LONG_AGO_MS = 1_000_000_000_000
FAR_AHEAD_MS = 4_000_000_000_000
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Tables:
    """Tables in memory or in a database: stores on them, and a look at the vault."""

    store: Callable[[], IntakeStore]
    vault: Callable[[list[str]], dict[str, bytes]]
    consents: Callable[[], int]


@pytest.fixture(scope="module")
def migrated(stack: Stack) -> Iterator[str]:
    with fresh_database(stack.database) as url:
        migrate(url)
        yield url


@pytest.fixture
def url(migrated: str) -> str:
    """Empty tables, and a market in force: much quicker than a database for each test."""
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute(
            "truncate intake.leads, intake.fingerprints, vault.leads, vault.consents, vault.people, "
            "vault.suppressed, market.versions"
        )
    apply_market(migrated, MARKET, 0)
    return migrated


@pytest.fixture(params=["memory", "postgres"])
def tables(request: pytest.FixtureRequest) -> Iterator[Tables]:
    if request.param == "memory":
        yield memory_tables()
    else:
        yield from postgres_tables(request.getfixturevalue("url"))


def memory_tables() -> Tables:
    rows = MemoryIntakeTables()
    return Tables(
        store=lambda: MemoryIntakeStore(rows, VirtualClock(), lambda: replace(MARKET, version=1)),
        vault=lambda lead_ids: MemoryVault(VAULT, rows.details).read(lead_ids),
        consents=lambda: len(rows.consents),
    )


def apply_market(url: str, market: Market, base_version: int) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        return markets.apply(connection, market, base_version, files=(), applied_by="tests")


def postgres_store(url: str, *, idle_ms: int = 1_000, lock_ms: int = 1_000) -> PostgresIntakeStore:
    return PostgresIntakeStore(
        lambda: connect(
            url,
            role="gavel_intake",
            application_name="tests",
            idle_in_transaction_timeout_ms=idle_ms,
            lock_timeout_ms=lock_ms,
        )
    )


def postgres_tables(url: str) -> Iterator[Tables]:
    stores: list[PostgresIntakeStore] = []

    def store() -> PostgresIntakeStore:
        stores.append(postgres_store(url))
        return stores[-1]

    def vault(lead_ids: list[str]) -> dict[str, bytes]:
        with connect(url, role="gavel_router", application_name="tests") as connection:
            return table.read(connection, lead_ids, vault=VAULT)

    def consents() -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute("select count(*) from vault.consents").fetchone()
            return row[0] if row else 0

    yield Tables(store, vault, consents)
    for opened in stores:
        opened.close()


def lead(number: int) -> str:
    return lead_id_of("sunform", f"lead {number}")


def fingerprint(number: int) -> bytes:
    return number.to_bytes(16, "big")


def owner(number: int, kept_until_ms: int = FAR_AHEAD_MS) -> Owner:
    return Owner(lead_id=lead(number), received_at_ms=LONG_AGO_MS + number, kept_until_ms=kept_until_ms)


def lead_row(number: int) -> LeadRow:
    return LeadRow(
        lead_id=lead(number),
        source_id="sunform",
        origin_partition=1,
        origin_offset=2**40 + number,
        payload_hash=bytes([number]) * 32,
        record=b"record %d" % number,
        received_at_ms=LONG_AGO_MS,
    )


def sealed_row(number: int, kept_until_ms: int = FAR_AHEAD_MS) -> SealedRow:
    return SealedRow(lead(number), VAULT.seal(lead(number), b"details %d" % number), kept_until_ms)


def kept(*numbers: int, owners: dict[bytes, Owner] | None = None, kept_until_ms: int = FAR_AHEAD_MS) -> Kept:
    sealed = [sealed_row(number, kept_until_ms) for number in numbers]
    return Kept([lead_row(number) for number in numbers], sealed, sealed, owners or {})


def keep(store: IntakeStore, what: Kept) -> None:
    with store.open() as door:
        door.keep(what)


def claim_and_keep(
    store: IntakeStore, claims: dict[bytes, Owner], owners: dict[bytes, Owner]
) -> dict[bytes, Owner]:
    """Claim, and decide that these are the owners; return who they were before."""
    with store.open() as door:
        before = dict(door.look((), claims).owners)
        door.keep(Kept((), (), (), owners))
        return before


def owners_now(store: IntakeStore, *numbers: int) -> dict[bytes, Owner]:
    """Look who owns these fingerprints, and leave everything as it is."""
    probe = {fingerprint(number): owner(99) for number in numbers}
    with store.open() as door:
        before = dict(door.look((), probe).owners)
        door.keep(Kept((), (), (), before))
        return before


def test_knows_a_kept_lead_by_origin_hash_and_record(tables: Tables) -> None:
    keep(tables.store(), kept(1, 2))
    with tables.store().open() as door:
        assert door.look({lead(1), lead(3)}).known == {
            lead(1): KnownLead(
                origin=Origin(partition=1, offset=2**40 + 1), payload_hash=b"\x01" * 32, record=b"record 1"
            )
        }
        assert door.look([]).known == {}


def test_reads_the_market_in_force(tables: Tables) -> None:
    store = tables.store()
    assert store.market() == replace(MARKET, version=1)
    with store.open() as door:
        assert door.look().market_version == 1


def test_router_opens_what_intake_sealed(tables: Tables) -> None:
    keep(tables.store(), kept(1, 2))
    assert tables.vault([lead(1), lead(2), lead(3)]) == {lead(1): b"details 1", lead(2): b"details 2"}


def test_free_fingerprints_are_the_claimants(tables: Tables) -> None:
    claims = {fingerprint(number): owner(number) for number in (3, 1, 2)}
    assert claim_and_keep(tables.store(), claims, claims) == {}
    assert owners_now(tables.store(), 1, 2, 3, 4) == claims


def test_taken_fingerprints_show_their_owners_and_keep_them(tables: Tables) -> None:
    first = {fingerprint(1): owner(1)}
    claim_and_keep(tables.store(), first, first)
    second = {fingerprint(1): owner(2), fingerprint(2): owner(2)}
    before = claim_and_keep(tables.store(), second, first)
    assert before == first
    assert owners_now(tables.store(), 1, 2) == first, "a claim that was not accepted leaves nothing"


def test_expired_fingerprints_get_new_owners(tables: Tables) -> None:
    old = {fingerprint(1): owner(1)}
    claim_and_keep(tables.store(), old, old)
    new = {fingerprint(1): owner(2)}
    assert claim_and_keep(tables.store(), new, new) == old
    assert owners_now(tables.store(), 1) == new


def test_later_lead_of_a_batch_takes_what_an_earlier_one_claimed_in_vain(tables: Tables) -> None:
    after = {fingerprint(1): owner(2)}
    claim_and_keep(tables.store(), {fingerprint(1): owner(1)}, after)
    assert owners_now(tables.store(), 1) == after


def break_off(store: IntakeStore) -> None:
    with store.open() as door:
        door.look((), {fingerprint(1): owner(1)})
        door.keep(kept(1, owners={fingerprint(1): owner(1)}))
        raise KeyError


def test_an_exception_takes_everything_back(tables: Tables) -> None:
    store = tables.store()
    with pytest.raises(KeyError):
        break_off(store)
    with store.open() as door:
        assert door.look([lead(1)]).known == {}
    assert owners_now(store, 1) == {}
    assert tables.vault([lead(1)]) == {}


def test_lead_that_another_worker_kept_meanwhile_begins_the_batch_again(tables: Tables) -> None:
    keep(tables.store(), kept(1))
    store = tables.store()
    with pytest.raises(PassingFault), store.open() as door:
        door.keep(kept(2, 1))
    with store.open() as door:
        assert door.look([lead(1), lead(2)]).known.keys() == {lead(1)}


def test_forgets_what_was_kept_long_enough_and_nothing_else(tables: Tables) -> None:
    store = tables.store()
    keep(store, kept(1, kept_until_ms=LONG_AGO_MS))
    keep(store, kept(2))
    claims = {fingerprint(1): owner(1, kept_until_ms=LONG_AGO_MS), fingerprint(2): owner(2)}
    claim_and_keep(store, claims, claims)
    assert store.forget(100) == 3
    assert store.forget(100) == 0
    assert tables.vault([lead(1), lead(2)]).keys() == {lead(2)}
    assert tables.consents() == 1
    assert owners_now(store, 1, 2) == {fingerprint(2): owner(2)}
    with store.open() as door:
        assert door.look([lead(1), lead(2)]).known.keys() == {lead(1), lead(2)}


def test_forgets_a_little_at_a_time(tables: Tables) -> None:
    store = tables.store()
    claims = {fingerprint(number): owner(number, kept_until_ms=LONG_AGO_MS) for number in range(1, 8)}
    claim_and_keep(store, claims, claims)
    rounds = [store.forget(3) for _ in range(5)]
    assert sum(rounds) == 7
    assert max(rounds) == 3


# What only the real thing can show.


@pytest.mark.parametrize("statement", [FORGET_DETAILS, FORGET_CONSENTS], ids=["details", "consents"])
def test_looks_at_what_is_expired_and_not_at_all_that_is_kept(url: str, statement: str) -> None:
    """A time of another type than the column's would be compared with every row, every few seconds."""
    with psycopg.connect(url) as connection:
        connection.execute("set local enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"explain {statement}", (1_000,)))
    assert "Index Cond: (kept_until_ms <" in plan


def test_no_market_yet_stops_the_worker(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("truncate market.versions")
    store = postgres_store(url)
    assert store.market_in_force() is None
    with pytest.raises(Stopped, match="market apply"):
        store.market()
    store.close()


def test_new_market_is_read_by_the_next_transaction(url: str) -> None:
    store = postgres_store(url)
    assert store.market() == replace(MARKET, version=1)
    apply_market(url, replace(MARKET, timezone="UTC"), 1)
    with store.open() as door:
        assert door.look().market_version == 2
    assert store.market_in_force() == replace(MARKET, version=2, timezone="UTC")
    store.close()


def test_two_workers_with_the_same_fingerprints_wait_and_never_deadlock(url: str) -> None:
    """Each round both claim the same 200 fingerprints, in opposite orders of arrival."""
    rounds, size = 10, 200
    together = threading.Barrier(2, timeout=PATIENCE_S)

    def work(number: int) -> int:
        store, won = postgres_store(url), 0
        for round_ in range(rounds):
            order = range(size) if number else range(size - 1, -1, -1)
            claims = {fingerprint(round_ * size + at): owner(number) for at in order}
            together.wait()
            with store.open() as door:
                before = door.look((), claims).owners
                door.keep(Kept((), (), (), {**claims, **before}))
            won += not before
        store.close()
        return won

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(work, (0, 1))) == rounds, "in each round one worker gets all, the other sees it"


@pytest.mark.parametrize("is_taken", [False, True])
def test_waiting_too_long_for_another_worker_begins_the_batch_again(url: str, is_taken: bool) -> None:
    """A fingerprint is locked whether it is new or has an owner: an expired one must not get two new owners."""
    holder, waiter = postgres_store(url), postgres_store(url, lock_ms=100)
    claims = {fingerprint(1): owner(1)}
    if is_taken:
        claim_and_keep(holder, {fingerprint(1): owner(5)}, {fingerprint(1): owner(5)})
    with holder.open() as held:
        held.look((), claims)
        with pytest.raises(PassingFault, match="LockNotAvailable"), waiter.open() as door:
            door.look((), claims)
        held.keep(Kept((), (), (), claims))
    assert owners_now(waiter, 1) == claims
    holder.close()
    waiter.close()


def claim_then(store: IntakeStore, happens: Callable[[], object]) -> None:
    with store.open() as door:
        door.look((), {fingerprint(1): owner(1)})
        happens()
        door.keep(kept(1))


def test_lost_connection_begins_the_batch_again_on_a_new_one(url: str) -> None:
    store = postgres_store(url)
    with pytest.raises(PassingFault):
        claim_then(store, lambda: kill_connections(url))
    assert owners_now(store, 1) == {}
    store.close()


def kill_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name = 'tests'"
        )


def test_worker_paused_inside_a_transaction_loses_it_to_the_timeout(url: str) -> None:
    store = postgres_store(url, idle_ms=50)
    with pytest.raises(PassingFault):
        claim_then(store, lambda: wait_until_nobody_is_connected(url))
    assert owners_now(store, 1) == {}
    store.close()


def wait_until_nobody_is_connected(url: str) -> None:
    ends_at_s = time.monotonic() + PATIENCE_S
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(
            "select 1 from pg_stat_activity where datname = current_database() and application_name = 'tests'"
        ).fetchone():
            assert time.monotonic() < ends_at_s, "the server did not end the session"


FORBIDDEN: list[tuple[str, str]] = [
    ("gavel_intake", "select sealed from vault.leads"),
    ("gavel_intake", "select wrapped_key from vault.consents"),
    ("gavel_intake", "update intake.leads set record = ''"),
    ("gavel_intake", "delete from intake.leads"),
    ("gavel_router", "select * from intake.leads"),
    ("gavel_router", "select * from vault.consents"),
    ("gavel_router", "insert into vault.leads values (gen_random_uuid(), '', '', '', 0)"),
    ("gavel_billing", "select * from vault.leads"),
    ("gavel_audit", "select sealed from vault.leads"),
]


@pytest.mark.parametrize(("role", "statement"), FORBIDDEN)
def test_no_step_can_do_more_with_personal_data_than_it_must(url: str, role: str, statement: str) -> None:
    with (
        connect(url, role=role, application_name="tests") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_router_erases_a_row_and_with_it_the_key(url: str) -> None:
    store = postgres_store(url)
    keep(store, kept(1, 2))
    store.close()
    with connect(url, role="gavel_router", application_name="tests") as connection:
        assert table.erase(connection, [lead(1), lead(3)]) == 1
        assert table.read(connection, [lead(1), lead(2)], vault=VAULT).keys() == {lead(2)}
        assert table.erase(connection, []) == 0
        assert table.read(connection, [], vault=VAULT) == {}


def test_nothing_personal_is_in_any_table(url: str) -> None:
    """Look at every column of every row that intake may write, as text and as bytes."""
    store = postgres_store(url)
    canary = b'{"contact":{"email":"canary@mail.example"}}'
    row = SealedRow(lead(1), VAULT.seal(lead(1), canary), FAR_AHEAD_MS)
    keep(store, Kept([lead_row(1)], [row], [row], {}))
    store.close()
    with psycopg.connect(url) as connection:
        told: list[Any] = []
        for name in ("intake.leads", "intake.fingerprints", "vault.leads", "vault.consents"):
            told += connection.execute(f"select * from {name}".encode()).fetchall()
    assert len(told) == 3
    assert "canary" not in repr(told)


# Persons


SUBJECT, OTHER_SUBJECT = b"s" * 16, b"t" * 16


def as_operator(url: str) -> psycopg.Connection:
    return connect(url, role="gavel_vault", application_name="tests")


def test_persons_of_accepted_leads_are_found_until_their_time_is_over(url: str) -> None:
    rows = [
        SubjectRow(SUBJECT, lead(1), FAR_AHEAD_MS),
        SubjectRow(OTHER_SUBJECT, lead(1), LONG_AGO_MS),
        SubjectRow(SUBJECT, lead(2), LONG_AGO_MS),
        SubjectRow(SUBJECT, lead(3), FAR_AHEAD_MS),
    ]
    with closing(postgres_store(url)) as store, as_operator(url) as operator:
        keep(store, kept(1, 2, 3)._replace(subjects=rows))
        assert people.leads_of(operator, [SUBJECT]) == sorted(map(lead, (1, 2, 3)))
        assert people.leads_of(operator, [OTHER_SUBJECT]) == [lead(1)]
        assert people.leads_of(operator, []) == []
        # One row at a time, so that the walk goes on within a person's rows.
        for _ in range(len(rows) + 1):
            store.forget(1)
        assert people.leads_of(operator, [SUBJECT, OTHER_SUBJECT]) == sorted(map(lead, (1, 3)))


def test_the_list_holds_each_person_once_and_lets_go_of_it(url: str) -> None:
    with as_operator(url) as operator:
        assert people.suppress(operator, [SUBJECT, OTHER_SUBJECT]) == 2
        assert people.suppress(operator, [SUBJECT]) == 0
        assert people.suppressed_count(operator) == 2
        with closing(postgres_store(url)) as store, store.open() as door:
            assert door.look(subjects=[SUBJECT, b"u" * 16]).suppressed == {SUBJECT}
        assert people.unsuppress(operator, [SUBJECT, b"u" * 16]) == 1
        assert people.suppressed_count(operator, [SUBJECT]) == 0


def test_who_is_suppressed_while_a_batch_is_let_in_has_its_leads_found(url: str) -> None:
    """The planted bug: without the lock on the list, the addition returns before the batch's leads are there."""
    looked, goes_on = threading.Event(), threading.Event()

    def let_in() -> None:
        with closing(postgres_store(url)) as store, store.open() as door:
            assert door.look(subjects=[SUBJECT]).suppressed == frozenset()
            looked.set()
            assert goes_on.wait(PATIENCE_S)
            door.keep(kept(1)._replace(subjects=[SubjectRow(SUBJECT, lead(1), FAR_AHEAD_MS)]))

    def waits_for_the_list() -> bool:
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute("select exists (select from pg_locks where not granted)").fetchone()
        return row is not None and bool(row[0])

    batch = threading.Thread(target=let_in)
    batch.start()
    assert looked.wait(PATIENCE_S)
    found: list[list[str]] = []

    def add() -> None:
        with as_operator(url) as operator:
            people.suppress(operator, [SUBJECT])
            found.append(people.leads_of(operator, [SUBJECT]))

    addition = threading.Thread(target=add)
    addition.start()
    deadline_s = time.monotonic() + PATIENCE_S
    while not waits_for_the_list():
        assert time.monotonic() < deadline_s, "the addition does not wait for the batch"
    goes_on.set()
    addition.join(PATIENCE_S)
    batch.join(PATIENCE_S)
    assert found == [[lead(1)]]
