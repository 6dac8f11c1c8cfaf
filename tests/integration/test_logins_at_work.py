"""A whole Gavel whose steps, auditor and operator each logs in at a real PostgreSQL as its own user."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from deploy.local.stack import Stack
from services.bus.logins import OPERATOR, USERS
from tests.support.auditing import audit_violations
from tests.support.gateway import free_port
from tests.support.journeys import CANARY, await_end, send
from tests.support.logins import draw, own_server, url_of
from tests.support.running import STEPS, Gavel, running_gavel

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MARKET = Path(__file__).parents[1] / "e2e" / "market.yaml"
LEADS = 30
WITHIN_S = 120.0


@pytest.fixture
def gavel(stack: Stack, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gavel]:
    """As set up by its owner; no worker runs."""
    with (
        own_server(stack, tmp_path_factory.mktemp("logins")) as server,
        running_gavel(server, server.database, tmp_path, MARKET) as running,
    ):
        passwords = draw(tmp_path / "users", "given")
        told = run(running, "setup", GAVEL_DATABASE_USERS=str(tmp_path / "users"))
        assert json.loads(told.stdout)["logins"] == list(USERS)
        assert not any(password in told.stdout + told.stderr for password in passwords.values())
        yield running


def run(gavel: Gavel, *arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and return how it ended."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments, *([] if "--json" in arguments else ["--json"])],
        env={**gavel.environment(), **more},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def as_user(gavel: Gavel, user: str) -> Gavel:
    """Give the same Gavel to another user of the database."""
    return replace(gavel, database=url_of(gavel.database, user, gavel.folder / "users"))


def start(gavel: Gavel, step: str, **more: str) -> None:
    gavel.start(step, GAVEL_DATABASE=as_user(gavel, f"gavel_{step}").database, **more)


def sessions(gavel: Gavel) -> set[object]:
    """List who is connected besides the owner."""
    rows = gavel.ask("select distinct usename::text from pg_stat_activity where usename <> 'gavel'")
    return {user for (user,) in rows}


def test_each_user_does_its_steps_work(gavel: Gavel) -> None:
    operator = as_user(gavel, OPERATOR)
    for step in STEPS:
        start(gavel, step)
    at = f"http://127.0.0.1:{(port := free_port())}"
    start(gavel, "gateway", GAVEL_HTTP_PORT=str(port))
    key = json.loads(run(operator, "key", "add", "--source", "web").stdout)["key"]
    send(gavel, 0, LEADS - 1)
    gavel.wait_until("the gateway", lambda: answers(at))
    assert sent_by_http(at, key, LEADS - 1) == 202
    await_end(gavel, LEADS)
    assert sessions(gavel) >= {f"gavel_{step}" for step in (*STEPS, "gateway")}
    assert set(gavel.stop_all().values()) == {0}
    audit = run(as_user(gavel, "gavel_audit"), "audit", "run", "--once", "--at-rest", "--no-rebuild")
    assert json.loads(audit.stdout)["holds"]
    assert audit_violations(operator, CANARY) == []
    operate(operator)
    archive(operator, gavel)


def answers(at: str) -> bool:
    try:
        return httpx.get(f"{at}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def sent_by_http(at: str, key: str, number: int) -> int:
    lead = {
        "lead_type": "alone",
        "reference": f"h{number}",
        "contact": {
            "first_name": CANARY,
            "email": f"{CANARY}{number}@example.com",
            "phone": f"+1212{2_000_000 + number}",
        },
        "details": {"state": "NY"},
    }
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"h{number}"}
    return httpx.post(f"{at}/v1/leads", headers=headers, json=lead, timeout=WITHIN_S).status_code


def operate(operator: Gavel) -> None:
    """Give commands that act as every step, and as nobody but the operator."""

    def told(*arguments: str) -> Any:
        return json.loads(run(operator, *arguments).stdout)

    assert told("billing", "rebuild", "--verify", "--namespace", operator.namespace)
    assert told("market", "history")
    assert told("order", "show", "ann/s")
    assert told("vault", "rotate")
    person = f"{CANARY}1@example.com"
    assert told("subject", person)
    assert told("erase", person, "--dry-run")["leads"]
    told("suppress", "add", person)


def archive(operator: Gavel, owner: Gavel) -> None:
    """Make indexes again; what an interrupted run left is the owner's to drop."""
    left = "intake.leads_received_ccnew"
    with psycopg.connect(owner.database, autocommit=True) as connection:
        connection.execute("create index leads_received_ccnew on intake.leads (lead_id)")
        connection.execute(f"update pg_index set indisvalid = false where indexrelid = '{left}'::regclass")
    done = run(operator, "data", "archive", "--older-than", "0s")
    assert json.loads(done.stdout)["reindexed"]
    assert f"As the owner: drop index concurrently {left}" in done.stderr


def test_a_step_is_told_that_it_can_not_do_what_is_anothers(gavel: Gavel) -> None:
    feed = as_user(gavel, "gavel_feed")
    for command in (("setup",), ("vault", "status"), ("market", "apply", str(MARKET))):
        assert "The user of GAVEL_DATABASE may not do this" in run(feed, *command, code=1).stderr
