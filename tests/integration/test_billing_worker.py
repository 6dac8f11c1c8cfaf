"""Billing as a process on real Kafka and PostgreSQL: nothing lost and nothing billed twice, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from deploy.local.stack import Stack
from services.billing.cli import app
from services.bus.migrations import migrate
from services.contract.events import Event
from tests.support.log_builder import closed, delivery_failed, lead_id, listed, sold
from tests.support.log_workers import LogOnKafka
from tests.support.stack import fresh_database

WITHIN_S = 60.0


Command = Callable[..., Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gavel:
    """A Gavel of its own: a log, a database, and the command line on both."""

    log: LogOnKafka
    owner: psycopg.Connection
    run: Command


@contextmanager
def gavel_of(stack: Stack, database: str, folder: Path) -> Iterator[Gavel]:
    """Make an empty one."""
    migrate(database)
    log = LogOnKafka(stack, database, folder)
    environment = {
        "GAVEL_KAFKA": stack.kafka,
        "GAVEL_DATABASE": database,
        "GAVEL_NAMESPACE": log.topics.namespace,
    }
    with closing(log), psycopg.connect(database, autocommit=True) as owner:
        yield Gavel(
            log=log,
            owner=owner,
            run=lambda *arguments: CliRunner().invoke(app, [*arguments], env=environment),
        )


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[Gavel]:
    with gavel_of(stack, database, tmp_path) as made:
        yield made


def sold_out(name: str) -> tuple[str, tuple[Event, ...]]:
    """The entry of a lead sold to three."""
    lead = lead_id(name)
    return lead, (listed(), *(sold(lead, number) for number in (1, 2, 3)), closed())


SALES = "select count(*) from billing.sales"


def wait_for(owner: psycopg.Connection, query: str, count: int) -> None:
    """Wait until a query counts so many."""
    ends_at_s = time.monotonic() + WITHIN_S
    while (found := _count(owner, query)) < count:
        assert time.monotonic() < ends_at_s, f"{found} of {count} after {WITHIN_S:.0f} s: {query}"
        time.sleep(0.01)


def _count(owner: psycopg.Connection, query: str) -> int:
    row = owner.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def assert_identical(result: Result, entries: int) -> None:
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["identical"]
    assert verdict["entries"] == entries


def test_kill_9_again_and_again_bills_everything_once(gavel: Gavel) -> None:
    log, owner, leads = gavel.log, gavel.owner, 3_000
    log.append(*(sold_out(f"{name}") for name in range(leads)))
    for share in (0.2, 0.6, 1.0):
        with log.worker("billing"):
            wait_for(owner, SALES, int(3 * leads * share))
    assert _count(owner, SALES) == 3 * leads
    assert_identical(gavel.run("rebuild", "--verify", "--json"), leads)


def test_a_worker_stopped_past_its_session_and_woken_up_changes_nothing(gavel: Gavel) -> None:
    log, owner = gavel.log, gavel.owner
    log.append(*(sold_out(f"first-{name}") for name in range(1_000)))
    with log.worker("billing") as zombie:
        wait_for(owner, SALES, 1)
        os.kill(zombie.pid, signal.SIGSTOP)
        log.append(*(sold_out(f"second-{name}") for name in range(500)))
        with log.worker("billing"):
            wait_for(owner, SALES, 4_500)
            os.kill(zombie.pid, signal.SIGCONT)
            log.append(*(sold_out(f"third-{name}") for name in range(500)))
            wait_for(owner, SALES, 6_000)
    assert _count(owner, SALES) == 6_000
    assert_identical(gavel.run("rebuild", "--verify", "--json"), 2_000)


@pytest.fixture(scope="module")
def billed(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gavel]:
    """A Gavel that has billed two leads sold to three, and one whose only delivery failed."""
    failed = lead_id("failed")
    sale = sold(failed, buyer_id="elm", price_cents=9_000)
    with (
        fresh_database(stack.database) as database,
        gavel_of(stack, database, tmp_path_factory.mktemp("billed")) as made,
    ):
        made.log.append(
            sold_out("1"), sold_out("2"), (failed, (listed(), sale)), (failed, (delivery_failed(sale),))
        )
        with made.log.worker("billing"):
            wait_for(made.owner, SALES, 7)
            wait_for(made.owner, "select count(*) from billing.transfers", 8)
        yield made


@contextmanager
def changed(owner: psycopg.Connection, change: str, back: str) -> Iterator[None]:
    """Change something behind everybody's back, and put it right again."""
    owner.execute("set session_replication_role = replica")
    owner.execute(change.encode())
    yield
    owner.execute(back.encode())
    owner.execute("reset session_replication_role")


class TestCommandLine:
    def test_balance_lists_accounts(self, billed: Gavel) -> None:
        rows = json.loads(billed.run("balance", "--json").stdout)
        assert {row["account"]: row["balance"] for row in rows} == {
            "allowance:failed_delivery": "90.00",
            "buyer:elm": "0.00",
            "buyer:harbor": "80.00",
            "buyer:oak": "80.00",
            "buyer:pine": "80.00",
            "revenue:quotehub": "-330.00",
        }
        assert [
            row["account"] for row in json.loads(billed.run("balance", "--buyer", "oak", "--json").stdout)
        ] == ["buyer:oak"]
        assert "80.00" in billed.run("balance", "--buyer", "oak").stdout

    def test_sales_lists_the_latest(self, billed: Gavel) -> None:
        rows = json.loads(billed.run("sales", "--limit", "2", "--json").stdout)
        assert len(rows) == 2
        (row,) = json.loads(billed.run("sales", "--buyer", "elm", "--json").stdout)
        assert (row["mode"], row["sale_number"], row["sales_max"]) == ("shared", 1, 3)
        assert (row["price"], row["credited"]) == ("90.00", "90.00")
        assert "three-at-40" in billed.run("sales").stdout

    def test_rebuild_verifies_and_leaves_nothing(self, billed: Gavel) -> None:
        assert_identical(billed.run("rebuild", "--verify", "--json"), 4)
        told = billed.run("rebuild", "--verify")
        assert "identical, row by row and to the cent" in told.stdout
        assert "USD: debits 420.00, credits 420.00; rebuilt 420.00, 420.00" in told.stdout
        assert _rebuilt_tables(billed.owner) == 0

    def test_rebuild_keeps_the_tables_if_told_to(self, billed: Gavel) -> None:
        assert billed.run("rebuild", "--verify", "--keep").exit_code == 0
        assert _rebuilt_tables(billed.owner) == 6
        assert billed.run("rebuild").exit_code == 0
        assert _rebuilt_tables(billed.owner) == 6

    def test_rebuild_fails_and_names_the_row_that_differs(self, billed: Gavel) -> None:
        change, back = (
            f"update billing.transfers set amount_cents = {to} where amount_cents = {of}"
            for to, of in ((9_001, 9_000), (9_000, 9_001))
        )
        with changed(billed.owner, change, back):
            told = billed.run("rebuild", "--verify")
            verdict = json.loads(billed.run("rebuild", "--verify", "--json").stdout)
        assert told.exit_code == 1
        assert '"amount_cents": 9001' in told.stdout
        assert "DIFFERENT from the log" in told.stdout
        assert verdict["identical"] is False

    def test_rebuild_says_so_when_the_topic_is_not_the_one_that_was_billed(self, billed: Gavel) -> None:
        change, back = (
            f"update billing.positions set next_offset = next_offset {sign} 1000 where seq > 0"
            for sign in "+-"
        )
        with changed(billed.owner, change, back):
            told = billed.run("rebuild", "--verify")
        assert told.exit_code == 1
        assert "the topic was cut or created again" in told.stderr
        assert _rebuilt_tables(billed.owner) == 0


@pytest.mark.parametrize("arguments", [("balance",), ("sales",), ("rebuild", "--verify")])
def test_says_which_variable_is_missing(arguments: tuple[str, ...]) -> None:
    nothing: dict[str, Any] = {"GAVEL_DATABASE": "", "GAVEL_KAFKA": ""}
    told = CliRunner().invoke(app, [*arguments], env=nothing)
    assert told.exit_code == 2
    assert "GAVEL_DATABASE is not set" in told.stderr


def test_says_so_when_the_database_is_not_migrated(database: str) -> None:
    told = CliRunner().invoke(app, ["balance", "--database", database])
    assert told.exit_code == 1
    assert "migrations have not run" in told.stderr


def _rebuilt_tables(owner: psycopg.Connection) -> int:
    return _count(owner, "select count(*) from pg_tables where schemaname = 'billing_rebuilt'")
