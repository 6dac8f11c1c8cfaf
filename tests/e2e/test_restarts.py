"""The database and the broker go away under everything that runs, and come back: all of it waits and goes on.

The servers are the test's own, as nobody else's may be stopped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.servers import Servers, own_servers
from tests.support.gateway import free_port
from tests.support.hosting import wait_until
from tests.support.journeys import assert_promises, await_end, send
from tests.support.running import Gavel, running_gavel
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(400)]
AWAY_S = 35.0
ALARM = "the worker waits for a server"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    logs = tmp_path_factory.mktemp("servers")
    with own_servers(1, logs, lambda _: None, keep=False) as running:
        yield running


@pytest.fixture
def gavel(servers: Servers, tmp_path: Path) -> Iterator[Gavel]:
    market = Path(__file__).parent / "market.yaml"
    with (
        fresh_database(servers.stack.database) as database,
        running_gavel(servers.stack, database, tmp_path, market) as running,
    ):
        yield running


@contextmanager
def auditor(gavel: Gavel) -> Iterator[subprocess.Popen[bytes]]:
    """Run the auditor for good; what it says is in its log."""
    with (gavel.folder / "auditor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "audit", "run"],
            env={**gavel.environment(), "GAVEL_AUDIT_ROUND_S": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def away(servers: Servers, name: str) -> Iterator[None]:
    """Stop a server, and start it again when it was away for long, and the test has seen what it wanted to see."""
    servers.stop(name)
    stopped_at_s = time.monotonic()
    try:
        yield
        wait_until("it was away for long", lambda: time.monotonic() - stopped_at_s > AWAY_S)
    finally:
        servers.start()


def said(gavel: Gavel, name: str, text: str) -> Callable[[], bool]:
    """Tell whether somebody has said something in its log."""
    return lambda: text in gavel.log_of(name)


def start_everything(gavel: Gavel) -> None:
    gavel.start_all()
    gavel.start("gateway", GAVEL_HTTP_PORT=str(free_port()))
    send(gavel, 0, 60)
    await_end(gavel, 60)


def test_database_that_is_away_is_waited_for_by_everything(servers: Servers, gavel: Gavel) -> None:
    start_everything(gavel)
    with auditor(gavel) as process:
        wait_until("the auditor is at work", said(gavel, "auditor", "Auditing"))
        with away(servers, "postgres"):
            send(gavel, 60, 60)
            for name in ("intake", "resale", "gateway"):
                wait_until(f"{name} raises the alarm", said(gavel, name, ALARM))
            wait_until("so does the auditor", said(gavel, "auditor", "Tried again in"))
        send(gavel, 120, 60)
        await_end(gavel, 180)
        wait_until("the auditor goes on", said(gavel, "auditor", "answer again"))
        assert process.poll() is None
    assert_promises(gavel, 180)


def test_broker_that_is_away_is_waited_for_by_everything(servers: Servers, gavel: Gavel) -> None:
    start_everything(gavel)
    with auditor(gavel) as process:
        wait_until("the auditor is at work", said(gavel, "auditor", "Auditing"))
        send(gavel, 60, 300)
        with away(servers, "kafka-1"):
            wait_until("the auditor notices", said(gavel, "auditor", "Tried again in"))
        await_end(gavel, 360)
        wait_until("the auditor goes on", said(gavel, "auditor", "answer again"))
        assert process.poll() is None
    assert_promises(gavel, 360)
