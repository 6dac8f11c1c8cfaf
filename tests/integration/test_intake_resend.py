"""`gavel intake resend` on real Kafka and PostgreSQL: the router gets what was accepted and never listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.local.stack import Stack
from services.bus.database import connect
from services.bus.kafka import LogProducer
from services.bus.ports import Message
from services.contract.ids import lead_id_of, partition_of
from services.contract.topics import partitions_declared
from services.intake.cli import app
from services.intake.ports import Kept, LeadRow
from services.intake.store import PostgresIntakeStore
from tests.support.intake_on_kafka import IntakeOnKafka
from tests.support.submissions import MARKET
from tests.support.written_log import WrittenLog
from tests.unit.intake.test_resend import LISTED

LEADS = 2_500
LONG_AGO_MS = 1_000_000_000_000


@pytest.fixture
def world(stack: Stack, database: str, tmp_path: Path) -> Iterator[IntakeOnKafka]:
    opened = IntakeOnKafka(stack, database, tmp_path, MARKET)
    yield opened
    opened.close()


def accept(url: str, lead_ids: list[str], received_at_ms: int = LONG_AGO_MS) -> None:
    store = PostgresIntakeStore(lambda: connect(url, role="gavel_intake", application_name="tests"))
    rows = [
        LeadRow(lead_id, "sunform", 0, 0, bytes(32), lead_id.encode(), received_at_ms) for lead_id in lead_ids
    ]
    with store.open() as door:
        door.keep(Kept(rows, (), (), {}))
    store.close()


def list_in_log(world: IntakeOnKafka, lead_ids: list[str]) -> None:
    log = WrittenLog(partitions_declared("leads.qualified"))
    messages = [
        Message(
            world.topics.log, log.partition_of(lead_id), lead_id.encode(), log.next_value(lead_id, LISTED)
        )
        for lead_id in lead_ids
    ]
    LogProducer(world.connection).publish(messages)


def run(world: IntakeOnKafka, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, int]:
    monkeypatch.setenv("GAVEL_KAFKA", world.connection.bootstrap)
    monkeypatch.setenv("GAVEL_DATABASE", world.database)
    monkeypatch.setenv("GAVEL_NAMESPACE", world.topics.namespace)
    result = CliRunner().invoke(app, ["resend", "--json", *arguments])
    assert result.exit_code == 0, result.output
    told: dict[str, int] = json.loads(result.output)
    return told


def test_emits_what_the_log_has_not_listed_and_leaves_what_is_on_its_way(
    world: IntakeOnKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead_ids = [lead_id_of("sunform", f"ref-{number}") for number in range(LEADS)]
    accept(world.database, lead_ids)
    accept(world.database, [lead_id_of("sunform", "just now")], received_at_ms=4_000_000_000_000)
    list_in_log(world, lead_ids[: LEADS // 2])
    unlisted = LEADS - LEADS // 2
    assert run(world, monkeypatch, "--dry-run") == {"accepted": LEADS, "unlisted": unlisted, "emitted": 0}
    assert run(world, monkeypatch) == {"accepted": LEADS, "unlisted": unlisted, "emitted": unlisted}
    found = world.read_until(lambda records: len(records) >= unlisted, world.topics.qualified)
    assert {record.value for record in found} == {lead_id.encode() for lead_id in lead_ids[LEADS // 2 :]}
    for record in found:
        assert record.key == record.value
        assert record.partition == partition_of(
            (record.key or b"").decode(), partitions_declared("leads.qualified")
        )
