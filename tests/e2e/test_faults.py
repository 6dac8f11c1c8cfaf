"""All steps as processes on real Kafka and PostgreSQL, killed and paused in the middle: the guarantees hold.

What is checked is checked from the topics and the database alone (`tests/support/checker.py`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from tests.support.journeys import assert_promises, await_end, closed, send
from tests.support.running import SESSION_TIMEOUT_MS, STEPS, Gavel, running_gavel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[Gavel]:
    with running_gavel(stack, database, tmp_path, Path(__file__).parent / "market.yaml") as running:
        yield running


def test_every_lead_is_sold_delivered_and_billed_as_promised(gavel: Gavel) -> None:
    gavel.start_all()
    send(gavel, 0, 300)
    await_end(gavel, 300)
    assert set(gavel.stop_all().values()) == {0}, "an orderly stop is no failure"
    assert_promises(gavel, 300)


@pytest.mark.parametrize("victim", STEPS)
def test_killed_worker_loses_nothing_and_breaks_no_promise(gavel: Gavel, victim: str) -> None:
    gavel.start_all()
    sent = 0
    for _ in range(3):
        send(gavel, sent, 150)
        sent += 150
        before = closed(gavel)
        gavel.wait_until("leads are flowing", lambda before=before: closed(gavel) > before)  # type: ignore[misc]
        gavel.kill(victim)
        gavel.start(victim)
    await_end(gavel, sent)
    assert_promises(gavel, sent)


def test_router_that_slept_past_its_session_cannot_commit_nor_change_what_a_reader_sees(gavel: Gavel) -> None:
    gavel.start_all()
    send(gavel, 0, 300)
    gavel.wait_until("leads are flowing", lambda: closed(gavel) > 0)
    gavel.signal("router", signal.SIGSTOP)
    gavel.start("router", "router-2")
    send(gavel, 300, 300)
    gavel.wait_until("the successor took over", lambda: closed(gavel) >= 500, within_s=60)
    gavel.signal("router", signal.SIGCONT)
    send(gavel, 600, 300)
    await_end(gavel, 900)
    time.sleep(SESSION_TIMEOUT_MS / 1_000)  # so long a zombie might still send what it had queued
    assert gavel.workers["router-2"].poll() is None
    assert_promises(gavel, 900)
