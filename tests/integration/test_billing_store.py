"""The ledger in PostgreSQL keeps the rules of every ledger, and what only a database can keep."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from services.billing.accounts import FAILED_DELIVERIES
from services.billing.domain import totals_of
from services.billing.rows import Postings, Total, TotalKey, TransferKind, TransferRow
from services.billing.store import PostgresLedger
from services.bus.migrations import migrate
from services.bus.ports import PassingFault, Stopped
from services.contract.entries import Position
from services.contract.events import MoneyKind
from services.contract.ids import account_id_of, sale_id_of
from tests.support.billing_database import PostgresWorld, as_billing, bill, contents_of
from tests.support.ledger_checks import assert_billed_as_told
from tests.support.ledger_suite import Contents, LedgerSuite, LedgerWorld, Reading
from tests.support.log_builder import (
    LogBuilder,
    delivery_failed,
    lead_id,
    listed,
    money_moved,
    return_approved,
    return_requested,
    sold,
    upgraded,
)

pytest_plugins = ["tests.support.billing_fixtures"]

LEAD = lead_id("1")


class TestPostgresLedger(LedgerSuite):
    @pytest.fixture
    def world(self, postgres: PostgresWorld) -> LedgerWorld:
        return postgres


def story() -> LogBuilder:
    """A log with all that billing reads."""
    log = LogBuilder(partitions=2)
    for name in range(4):
        log.sell_out(lead_id(name))
    late = lead_id("late")
    log.add(late, listed(), sold(late))
    log.add(late, delivery_failed(sold(late)))
    upgraded_lead, returned_lead = lead_id("upgraded"), lead_id("returned")
    sale = sold(upgraded_lead, payout_cents=2_401)
    log.add(upgraded_lead, listed(), sale, upgraded(sale, fee_cents=7_501, payout_cents=4_501))
    sale = sold(returned_lead)
    log.add(returned_lead, listed(payout_cents=1_201), sale, return_requested(sale))
    log.add(returned_lead, return_approved(sale, payout_cents=1_201, automatic=False))
    log.add(account_id_of("oak"), money_moved(50_000))
    log.add(account_id_of("oak"), money_moved(-1, kind=MoneyKind.ADJUSTMENT, reference="correction"))
    return log


@pytest.fixture
def empty_ledger(database: str) -> str:
    """The URL of a migrated database of the test's own."""
    migrate(database)
    return database


@pytest.fixture(scope="module")
def billed_story(billed: str) -> LogBuilder:
    """A log, billed in the tables that the migration made."""
    log = story()
    bill(billed, log)
    return log


def test_bills_a_log_as_it_is_told(billed_story: LogBuilder, billing_owner: psycopg.Connection) -> None:
    assert_billed_as_told(contents_of(billing_owner), billed_story)
    assert billing_owner.execute("select * from billing.discrepancies").fetchall() == []


@pytest.mark.usefixtures("billed_story")
class TestNobodyChangesHistory:
    @pytest.mark.parametrize("table", ["transfers", "sales", "leads", "returns"])
    @pytest.mark.parametrize("statement", ["delete from billing.{}", "truncate billing.{}"])
    def test_not_even_the_owner_deletes(
        self, billing_owner: psycopg.Connection, table: str, statement: str
    ) -> None:
        with pytest.raises(errors.RestrictViolation, match="append-only"):
            billing_owner.execute(statement.format(table).encode())

    def test_not_even_the_owner_changes_a_transfer(
        self, billed: str, billing_owner: psycopg.Connection
    ) -> None:
        bill(billed, story())
        with pytest.raises(errors.RestrictViolation, match="a correction is a new row"):
            billing_owner.execute("update billing.transfers set amount_cents = 1")

    @pytest.mark.parametrize(
        "statement",
        [
            "update billing.transfers set amount_cents = 1",
            "delete from billing.transfers",
            "update billing.sales set price_cents = 1",
            "update billing.leads set plan = 'other'",
            "update billing.leads set payout_cents = 1",
            "update billing.returns set reason = 'other'",
            "delete from billing.returns",
            "delete from billing.positions",
            "delete from billing.account_totals",
            "select from intake.leads",
        ],
    )
    def test_billing_itself_has_no_right_to(self, billed: str, statement: str) -> None:
        with as_billing(billed)() as connection, pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.encode())


class Planted(PostgresLedger):
    """A ledger that is handed wrong rows."""

    def record(self, rows: Postings, moves: object) -> None:
        """Spoil the rows first."""
        super().record(self.spoil(rows), moves)  # type: ignore[arg-type]

    def spoil(self, rows: Postings) -> Postings:
        """Leave them as they are."""
        return rows


class ChargesTwice(Planted):
    def spoil(self, rows: Postings) -> Postings:
        twice = {key: Total(2 * debits, 2 * credited) for key, (debits, credited) in rows.totals.items()}
        return replace(rows, transfers=[*rows.transfers, *rows.transfers], totals=twice)


class CreditsTooMuch(Planted):
    def spoil(self, rows: Postings) -> Postings:
        changes = [row._replace(credited_cents=2 * row.credited_cents) for row in rows.changes]
        transfers = [
            row._replace(amount_cents=2 * row.amount_cents) if row.debit_account == FAILED_DELIVERIES else row
            for row in rows.transfers
        ]
        return replace(rows, changes=changes, transfers=transfers)


class ChargesLess(Planted):
    def spoil(self, rows: Postings) -> Postings:
        return replace(rows, transfers=[row._replace(amount_cents=-1) for row in rows.transfers])


class ChargesItself(Planted):
    def spoil(self, rows: Postings) -> Postings:
        return replace(
            rows, transfers=[row._replace(credit_account=row.debit_account) for row in rows.transfers]
        )


class ForgetsTotals(Planted):
    def spoil(self, rows: Postings) -> Postings:
        return replace(rows, totals={TotalKey("buyer:oak", "USD", 0): Total(-1, 0)})


class CreditsReturnsAgain(Planted):
    """Credits a return by another id, without saying so in the sale."""

    def spoil(self, rows: Postings) -> Postings:
        again = [
            row._replace(transfer_id=sale_id_of(row.transfer_id, 1))
            for row in rows.transfers
            if row.kind is TransferKind.RETURN_CREDIT
        ]
        return _with_transfers(rows, [*rows.transfers, *again])


class ForgetsFees(Planted):
    """Makes an upgrade without charging for it."""

    def spoil(self, rows: Postings) -> Postings:
        return _with_transfers(
            rows, [row for row in rows.transfers if row.kind is not TransferKind.UPGRADE_FEE]
        )


class LosesRoundedCents(Planted):
    """Pays sources whole units of currency."""

    def spoil(self, rows: Postings) -> Postings:
        whole = [
            row._replace(amount_cents=row.amount_cents // 100 * 100)
            if row.kind in (TransferKind.PAYOUT, TransferKind.PAYOUT_REVERSAL)
            else row
            for row in rows.transfers
        ]
        return _with_transfers(rows, whole)


class PaysForNobody(Planted):
    """Books a deposit as the payout of a lead that was never listed."""

    def spoil(self, rows: Postings) -> Postings:
        strayed = [
            row._replace(reference=None, lead_id=lead_id("nobody's"), kind=TransferKind.PAYOUT)
            if row.reference
            else row
            for row in rows.transfers
        ]
        return _with_transfers(rows, strayed)


def _with_transfers(rows: Postings, transfers: list[TransferRow]) -> Postings:
    """Plant transfers whose totals add up, so that these give nothing away."""
    return replace(rows, transfers=transfers, totals=totals_of(transfers))


PLANTED = [
    pytest.param(ChargesTwice, "transfers", "transfers_pkey", id="charges-twice"),
    pytest.param(CreditsTooMuch, "sales", "credited_within_charge", id="credits-too-much"),
    pytest.param(ChargesLess, "transfers", "amount_is_positive", id="charges-less"),
    pytest.param(ChargesItself, "transfers", "two_accounts", id="one-account"),
    pytest.param(ForgetsTotals, "account_totals", "account_totals_debits_cents_check", id="wrong-totals"),
]


class TestPlantedBugs:
    @pytest.mark.parametrize(("planted", "table", "constraint"), PLANTED)
    def test_a_constraint_stops_it_and_nothing_is_stored(
        self, postgres: PostgresWorld, planted: type[Planted], table: str, constraint: str
    ) -> None:
        with pytest.raises(Stopped, match=f"{table}, constraint {constraint}"):
            Reading(postgres.fresh(planted), story()).read()
        assert postgres.contents() == Contents(
            leads=(), sales=(), transfers=(), totals=(), returns=(), positions={}
        )

    @pytest.mark.parametrize(("planted", "table", "constraint"), PLANTED)
    def test_without_the_constraint_it_is_seen_from_outside(
        self, postgres: PostgresWorld, planted: type[Planted], table: str, constraint: str
    ) -> None:
        ledger, log = postgres.fresh(planted), story()
        names = sql.Identifier(postgres.schema, table), sql.Identifier(constraint)
        postgres.owner.execute(sql.SQL("alter table {} drop constraint {}").format(*names))
        Reading(ledger, log).read()
        with pytest.raises(AssertionError):
            assert_billed_as_told(postgres.contents(), log)


@pytest.mark.parametrize(
    ("planted", "discrepancy"),
    [
        pytest.param(CreditsReturnsAgain, "credit of a return", id="return-credited-twice"),
        pytest.param(ForgetsFees, "charge and credit of a sale", id="fee-forgotten"),
        pytest.param(LosesRoundedCents, "payout of a lead", id="rounding-lost"),
        pytest.param(PaysForNobody, "transfer without a lead", id="a-lead-never-listed"),
    ],
)
def test_planted_bug_that_no_constraint_sees_is_a_discrepancy(
    empty_ledger: str, planted: type[Planted], discrepancy: str
) -> None:
    log = story()
    with closing(planted(as_billing(empty_ledger))) as ledger:
        Reading(ledger, log).read()
    with psycopg.connect(empty_ledger, autocommit=True) as owner:
        found = {what for (what,) in owner.execute("select what from billing.discrepancies")}
        assert discrepancy in found
        with pytest.raises(AssertionError):
            assert_billed_as_told(contents_of(owner), log)


class MovesPositionsLater(PostgresLedger):
    """Commits the rows, and then dies before the positions."""

    def _move_positions(self, connection: psycopg.Connection, moves: object) -> None:
        connection.execute("commit")
        raise SystemExit


def test_planted_position_outside_the_transaction_is_stopped_by_the_sale_id(postgres: PostgresWorld) -> None:
    ledger, log = postgres.fresh(MovesPositionsLater), LogBuilder()
    log.add(LEAD, sold(LEAD))
    with pytest.raises(SystemExit):
        Reading(ledger, log).read()
    with pytest.raises(Stopped, match="sales_pkey"):
        Reading(postgres.another(), log).read()


class TestConnections:
    def test_a_connection_lost_before_a_batch_is_opened_again(self, postgres: PostgresWorld) -> None:
        log = story()
        reading = Reading(postgres.fresh(), log)
        _end_sessions(postgres.owner)
        assert reading.read(), "the batch begins again from the database"
        assert not reading.read()
        assert_billed_as_told(postgres.contents(), log)

    def test_a_connection_lost_while_idle_is_opened_again(self, postgres: PostgresWorld) -> None:
        ledger = postgres.fresh()
        ledger.positions([0])
        _end_sessions(postgres.owner)
        with pytest.raises(PassingFault, match="the database"):
            ledger.positions([0])
        assert ledger.positions([0]) == {0: Position()}

    def test_a_connection_lost_in_commit_leaves_it_to_the_database_to_say(
        self, postgres: PostgresWorld
    ) -> None:
        class LosesOneCommit(PostgresLedger):
            """Commits, and never hears of it."""

            lost = False

            def _move_positions(self, connection: psycopg.Connection, moves: Any) -> None:
                super()._move_positions(connection, moves)
                if not self.lost:
                    self.lost = True
                    connection.execute("commit")
                    _end_sessions(postgres.owner)
                    connection.execute("select 1")

        log = story()
        reading = Reading(postgres.fresh(LosesOneCommit), log)
        assert reading.read(), "the batch begins again from the database"
        assert not reading.read()
        assert_billed_as_told(postgres.contents(), log)

    def test_an_owner_paused_inside_its_transaction_loses_it_and_holds_nobody_up(
        self, postgres: PostgresWorld
    ) -> None:
        paused, resumed = threading.Event(), threading.Event()

        class Paused(PostgresLedger):
            """Stops as SIGSTOP would, with all its locks held."""

            def _move_positions(self, connection: psycopg.Connection, moves: Any) -> None:
                paused.set()
                assert resumed.wait(30)
                super()._move_positions(connection, moves)

        log = LogBuilder(partitions=1)
        log.sell_out(LEAD)
        reading = Reading(postgres.fresh(Paused), log)
        successor = Reading(postgres.another(), log)
        with ThreadPoolExecutor(1) as pool:
            waking = pool.submit(reading.read)
            assert paused.wait(10)
            while successor.read():
                """Its own time may be over first; the database ends the paused transaction all the same."""
            resumed.set()
            assert waking.result(10), "the paused owner is told to begin again"
        assert_billed_as_told(postgres.contents(), log)


def test_owners_of_different_partitions_never_wait_for_each_other(postgres: PostgresWorld) -> None:
    log = LogBuilder(partitions=2)
    records = [log.sell_out(lead_id(name)) for name in range(12)]
    first, second = ([record for record in records if record.partition == at] for at in (0, 1))
    assert first
    assert second

    class Waiting(PostgresLedger):
        """Lets another owner bill the same buyers and sources while its own locks are held."""

        def _move_positions(self, connection: psycopg.Connection, moves: Any) -> None:
            super()._move_positions(connection, moves)
            assert not other.reader.handle(second)

    reading = Reading(postgres.fresh(Waiting), log)
    other = Reading(postgres.another(), log)
    assert not reading.reader.handle(first)
    assert_billed_as_told(postgres.contents(), log)


def _end_sessions(owner: psycopg.Connection) -> None:
    owner.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
        "where datname = current_database() and application_name = 'gavel billing test'"
    )
