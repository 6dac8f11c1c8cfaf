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

from services.billing.domain import FAILED_DELIVERIES
from services.billing.rows import Postings, Total, TotalKey
from services.billing.store import PostgresLedger
from services.bus.ports import Stopped
from services.contract.entries import Position
from tests.support.billing_database import PostgresWorld, as_billing, bill, contents_of
from tests.support.ledger_checks import assert_billed_as_told
from tests.support.ledger_suite import Contents, LedgerSuite, LedgerWorld, Reading
from tests.support.log_builder import LogBuilder, delivery_failed, lead_id, listed, sold

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
    return log


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
    @pytest.mark.parametrize("table", ["transfers", "sales", "leads"])
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
        failed = [row._replace(credited_cents=2 * row.credited_cents) for row in rows.failed_deliveries]
        transfers = [
            row._replace(amount_cents=2 * row.amount_cents) if row.debit_account == FAILED_DELIVERIES else row
            for row in rows.transfers
        ]
        return replace(rows, failed_deliveries=failed, transfers=transfers)


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
        assert postgres.contents() == Contents(leads=(), sales=(), transfers=(), totals=(), positions={})

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

    def test_waits_for_a_database_that_restarts(self, billed: str) -> None:
        waits: list[float] = []

        def connect_later() -> psycopg.Connection:
            if len(waits) < 3:
                raise psycopg.OperationalError("the database system is starting up")
            return as_billing(billed)()

        with closing(PostgresLedger(connect_later, wait_s=waits.append)) as ledger:
            assert set(ledger.positions([0, 1])) == {0, 1}
        assert waits == [0.5, 0.5, 0.5]

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
            assert not successor.read(), "the database has ended the paused transaction"
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
