"""The examples for sources and buyers run as they stand, against a Gavel whose steps are processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from deploy.local.stack import Stack
from tests.support.running import Gavel, running_gavel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
CLIENTS = Path(__file__).parents[2] / "clients"
LEADS = 20
COORDINATOR_NOT_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[Gavel]:
    with running_gavel(stack, database, tmp_path, Path(__file__).parent / "market-examples.yaml") as running:
        yield running


def _example(gavel: Gavel, name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CLIENTS / "examples" / name), *arguments],
        cwd=gavel.folder,
        env={**gavel.environment(), "PYTHONPATH": str(CLIENTS / "python"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_examples_stream_leads_bid_on_them_and_read_what_was_bought(gavel: Gavel) -> None:
    gavel.start_all()
    leads = gavel.folder / "leads.jsonl"
    leads.write_text("".join(json.dumps(_lead(number)) + "\n" for number in range(LEADS)))
    bidder = _example(gavel, "answer_pings.py", "lendfast")
    reader = _example(gavel, "read_leads.py", "lendfast")
    try:
        for group in ("buyers.lendfast.pings.bidder", "gavel.intake", "gavel.router"):
            _wait_for_member(gavel, f"{gavel.namespace}{group}")
        receipts, complaint = _example(gavel, "stream_leads.py", "quotehub", str(leads)).communicate(
            timeout=120
        )
        assert receipts.count("'accepted'") == LEADS, complaint
        gavel.wait_until("all is told", lambda: _unsettled(gavel) == 0)
        ((bought,),) = gavel.ask("select count(*) from router.sales where buyer_id = 'lendfast'")
        assert bought == LEADS
        assert reader.stdout is not None
        told = [reader.stdout.readline() for _ in range(LEADS)]
        assert len({line.split()[0] for line in told}) == LEADS
        assert all("Exclusive, for good" in line for line in told)
    finally:
        for each in (bidder, reader):
            each.terminate()
            each.communicate(timeout=30)


def _lead(number: int) -> dict[str, object]:
    return {
        "lead_type": "mortgage",
        "reference": f"Q-{number}",
        "contact": {
            "first_name": "Ada",
            "email": f"ada.{number}@example.com",
            "phone": f"+1212{2_000_000 + number}",
        },
        "details": {"state": "NY", "credit": "good"},
    }


def _wait_for_member(gavel: Gavel, group: str) -> None:
    admin = AdminClient({"bootstrap.servers": gavel.kafka})

    def has_joined() -> bool:
        try:
            found = admin.describe_consumer_groups([group])[group].result(10)
        except KafkaException as error:
            # A group's first member makes Kafka set its coordinator up.
            if error.args[0].code() in COORDINATOR_NOT_YET:
                return False
            raise
        return found.state is ConsumerGroupState.STABLE and bool(found.members)

    gavel.wait_until(f"{group} has a member", has_joined)


def _unsettled(gavel: Gavel) -> int:
    ((count,),) = gavel.ask(
        "select count(*) filter (where seq > published_seq) + (select count(*) from router.undelivered)"
        " + (select count(*) from router.leads) - (select count(*) from router.closes) from router.heads"
    )
    return int(str(count))
