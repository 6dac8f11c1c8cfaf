"""All steps as processes on real Kafka and PostgreSQL, killed and paused in the middle: the guarantees hold.

What is checked is checked from the topics and the database alone (`tests/support/checker.py`).
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from deploy.local.stack import Stack
from tests.support.auditing import audit_violations
from tests.support.checker import gather, leaks, violations
from tests.support.running import SESSION_TIMEOUT_MS, STEPS, Gavel, running_gavel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
TYPES = ("shared", "alone", "staggered")
CANARY = "canary"


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[Gavel]:
    with running_gavel(stack, database, tmp_path, Path(__file__).parent / "market.yaml") as running:
        yield running


def _send(gavel: Gavel, first: int, count: int) -> None:
    """Send leads as a source does; every name and address says canary."""
    producer = KafkaProducer(bootstrap_servers=gavel.kafka)
    for n in range(first, first + count):
        submission = {
            "lead_type": TYPES[n % 3],
            "reference": f"r{n}",
            "contact": {
                "first_name": f"{CANARY}-{n}",
                "email": f"{CANARY}{n}@example.com",
                "phone": f"+1212{2_000_000 + n}",
            },
            "details": {"state": "NY"},
        }
        producer.send(gavel.topics.source_leads("web"), json.dumps(submission).encode())
    producer.flush()
    producer.close()


def _closed(gavel: Gavel) -> int:
    (row,) = gavel.ask("select count(*) from router.closes")
    return int(str(row[0]))


def _billed(gavel: Gavel) -> bool:
    (row,) = gavel.ask(
        "select (select count(*) from router.sales) = (select count(*) from billing.sales)"
        " and not exists (select from billing.leads where outcome is null)"
    )
    return bool(row[0])


def _published(gavel: Gavel) -> bool:
    (row,) = gavel.ask(
        "select (select bool_and(seq = published_seq) from router.heads)"
        " and not exists (select from router.undelivered)"
    )
    return bool(row[0])


def _await_end(gavel: Gavel, count: int) -> None:
    gavel.wait_until(f"{count} leads closed", lambda: _closed(gavel) == count, within_s=90)
    gavel.wait_until("all published", lambda: _published(gavel))
    gavel.wait_until("all billed", lambda: _billed(gavel))
    gavel.wait_all_read()


def _assert_promises(gavel: Gavel, count: int) -> None:
    assert violations(gavel.kafka, gavel.topics, gavel.market, gavel.database) == []
    evidence = gather(gavel.kafka, gavel.topics, gavel.market)
    assert len(evidence.accepted) == count
    assert evidence.deliveries, "there were deliveries to check"
    assert leaks(evidence, gavel.database, gavel.folder, [CANARY.encode()]) == []
    assert audit_violations(gavel, CANARY) == []


def test_every_lead_is_sold_delivered_and_billed_as_promised(gavel: Gavel) -> None:
    gavel.start_all()
    _send(gavel, 0, 300)
    _await_end(gavel, 300)
    assert set(gavel.stop_all().values()) == {0}, "an orderly stop is no failure"
    _assert_promises(gavel, 300)


@pytest.mark.parametrize("victim", STEPS)
def test_killed_worker_loses_nothing_and_breaks_no_promise(gavel: Gavel, victim: str) -> None:
    gavel.start_all()
    sent = 0
    for _ in range(3):
        _send(gavel, sent, 150)
        sent += 150
        before = _closed(gavel)
        gavel.wait_until("leads are flowing", lambda before=before: _closed(gavel) > before)  # type: ignore[misc]
        gavel.kill(victim)
        gavel.start(victim)
    _await_end(gavel, sent)
    _assert_promises(gavel, sent)


def test_router_that_slept_past_its_session_cannot_commit_nor_change_what_a_reader_sees(gavel: Gavel) -> None:
    gavel.start_all()
    _send(gavel, 0, 300)
    gavel.wait_until("leads are flowing", lambda: _closed(gavel) > 0)
    gavel.signal("router", signal.SIGSTOP)
    gavel.start("router", "router-2")
    _send(gavel, 300, 300)
    gavel.wait_until("the successor took over", lambda: _closed(gavel) >= 500, within_s=60)
    gavel.signal("router", signal.SIGCONT)
    _send(gavel, 600, 300)
    _await_end(gavel, 900)
    time.sleep(SESSION_TIMEOUT_MS / 1_000)  # so long a zombie might still send what it had queued
    assert gavel.workers["router-2"].poll() is None
    _assert_promises(gavel, 900)
