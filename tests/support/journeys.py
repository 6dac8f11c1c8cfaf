"""Leads through all steps of a running Gavel, from the source that sends them to both judges."""

from __future__ import annotations

import json

from kafka import KafkaProducer

from tests.support.auditing import audit_violations
from tests.support.checker import gather, leaks, violations
from tests.support.running import Gavel

TYPES = ("shared", "alone", "staggered")
CANARY = "canary"


def send(gavel: Gavel, first: int, count: int) -> None:
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


def closed(gavel: Gavel) -> int:
    """Count the leads that are closed."""
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


def await_end(gavel: Gavel, count: int) -> None:
    """Wait until so many leads are closed, delivered and billed."""
    gavel.wait_until(f"{count} leads closed", lambda: closed(gavel) == count, within_s=90)
    gavel.wait_until("all published", lambda: _published(gavel))
    gavel.wait_until("all billed", lambda: _billed(gavel))
    gavel.wait_all_read()


def assert_promises(gavel: Gavel, count: int) -> None:
    """Have both judges look at everything from outside."""
    assert violations(gavel.kafka, gavel.topics, gavel.market, gavel.database) == []
    evidence = gather(gavel.kafka, gavel.topics, gavel.market)
    assert len(evidence.accepted) == count
    assert evidence.deliveries, "there were deliveries to check"
    assert leaks(evidence, gavel.database, gavel.folder, [CANARY.encode()]) == []
    assert audit_violations(gavel, CANARY) == []
