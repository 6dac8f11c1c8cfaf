"""Intake as processes on real Kafka and PostgreSQL: nothing lost or doubled in effect, whatever is killed."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from deploy.local.stack import Stack
from services.bus.database import connect
from services.bus.ports import Record
from services.contract.codec import codec
from services.contract.inputs import AcceptOffer, ReportDisposition
from services.intake.reading import DEAD_LETTERS_IN_A_ROW_MAX
from services.vault import table
from tests.support.intake_on_kafka import WITHIN_S, IntakeOnKafka, happened
from tests.support.submissions import MARKET, contact, submission

LEADS = 1_200
PARTITIONS = 3
LEAD = "7e57ab1e-0000-5000-8000-000000000001"


@pytest.fixture
def world(stack: Stack, database: str, tmp_path: Path) -> Iterator[IntakeOnKafka]:
    opened = IntakeOnKafka(stack, database, tmp_path, MARKET)
    yield opened
    opened.close()


def receipts_by_id(records: list[Record]) -> dict[tuple[str, bytes], set[bytes]]:
    """Gather receipts by topic and ce_id: repeats must have one content."""
    found: dict[tuple[str, bytes], set[bytes]] = defaultdict(set)
    for record in records:
        assert record.value is not None
        found[record.topic, dict(record.headers)["ce_id"]].add(record.value)
    return found


def test_kill_9_in_the_middle_loses_no_lead_and_decides_each_once(world: IntakeOnKafka) -> None:
    """Half of partnerweb's people are sunform's, too; 1 in 100 records is rubbish."""
    sunform, partnerweb = world.topics.source_leads("sunform"), world.topics.source_leads("partnerweb")
    ours = [orjson.dumps(submission(number)) for number in range(LEADS)]
    theirs = [
        orjson.dumps(submission(number, reference=f"p-{number}"))
        for number in range(LEADS // 2, LEADS + LEADS // 2)
    ]
    rubbish = [b"rubbish canary %d" % number for number in range(LEADS // 100)]
    receipts = [world.topics.source_receipts(source) for source in ("sunform", "partnerweb")]
    world.send(sunform, ours[: LEADS // 2] + rubbish, PARTITIONS)
    world.send(partnerweb, theirs[: LEADS // 2], PARTITIONS)
    for round_ in range(3):
        with world.worker(GAVEL_BATCH_MAX="20"):
            world.read_until(lambda found, least=100 * (round_ + 1): len(found) >= least, *receipts)  # type: ignore[misc]
    world.send(sunform, ours[LEADS // 2 :], PARTITIONS)
    world.send(partnerweb, theirs[LEADS // 2 :], PARTITIONS)
    with world.worker(GAVEL_BATCH_MAX="50"), world.worker(GAVEL_BATCH_MAX="50"):
        told = world.read_until(lambda found: len(receipts_by_id(found)) >= 2 * LEADS, *receipts)
        letters = world.read_until(
            lambda found: len({record.value for record in found}) >= len(rubbish),
            world.topics.dead_letters(sunform),
        )
    check_receipts(told)
    check_leads(world)
    assert {letter.value for letter in letters} == set(rubbish)
    assert "canary" not in world.logged().lower()


def check_receipts(told: list[Record]) -> None:
    by_id = receipts_by_id(told)
    assert len(by_id) == 2 * LEADS
    assert all(len(values) == 1 for values in by_id.values())
    verdicts: dict[str, int] = defaultdict(int)
    for record in {(record.topic, dict(record.headers)["ce_id"]): record for record in told}.values():
        verdicts[happened(record)] += 1
    # Whoever of the two sources was first has the lead, the other one the receipt.
    assert verdicts == {"accepted": LEADS + LEADS // 2, "duplicate": LEADS // 2}
    assert "canary" not in repr(told).lower()


def check_leads(world: IntakeOnKafka) -> None:
    accepted = LEADS + LEADS // 2
    emitted = world.read_until(lambda found: len({r.key for r in found}) >= accepted, world.topics.qualified)
    values: dict[bytes | None, set[bytes | None]] = defaultdict(set)
    for record in emitted:
        values[record.key].add(record.value)
        assert record.headers == ()
    assert len(values) == accepted
    assert all(len(each) == 1 for each in values.values()), (
        "a lead has one record, however often it is emitted"
    )
    assert "canary" not in repr(emitted).lower()
    stored = dict(world.rows("select lead_id::text, record from intake.leads"))
    assert {key.decode(): value for key, (value,) in values.items() if key} == stored
    check_vault(world, stored)


def check_vault(world: IntakeOnKafka, stored: dict[str, bytes]) -> None:
    with connect(world.database, role="gavel_router", application_name="tests") as connection:
        opened = table.read(connection, stored.keys(), vault=world.vault)
    assert opened.keys() == stored.keys()
    emails = {orjson.loads(payload)["contact"]["email"] for payload in opened.values()}
    assert len(emails) == len(stored), "each person was sold once"
    for name in ("intake.leads", "intake.fingerprints", "vault.leads", "vault.consents"):
        assert "canary" not in repr(world.rows(f"select * from {name}")).lower()


def test_answers_become_commands_with_the_buyer_of_their_topic(world: IntakeOnKafka) -> None:
    answers = world.topics.buyer_answers("acme")
    sent = [
        {"type": "accept_offer", "lead_id": LEAD, "offer_number": 1},
        {"type": "disposition", "lead_id": LEAD, "disposition": "deal"},
        {"type": "disposition", "lead_id": LEAD, "disposition": "canary"},
    ]
    began_at_ms = time.time_ns() // 1_000_000
    world.send(answers, [orjson.dumps(answer) for answer in sent], 1)
    with world.worker():
        found = world.read_until(lambda found: len(found) >= 2, world.topics.commands)
        world.read_until(lambda found: len(found) >= 1, world.topics.dead_letters(answers))
    accept, report = (codec().decode(record.value) for record in found)
    assert isinstance(accept, AcceptOffer)
    assert (accept.buyer_id, accept.offer_number) == ("acme", 1)
    assert began_at_ms - 1_000 <= accept.answered_at_ms <= time.time_ns() // 1_000_000
    assert isinstance(report, ReportDisposition)
    assert "canary" not in repr(found)
    assert "canary" not in world.logged().lower()


def test_pausing_a_source_holds_from_its_next_submission_on(world: IntakeOnKafka) -> None:
    receipts = world.topics.source_receipts("sunform")
    with world.worker():
        world.send(world.topics.source_leads("sunform"), [orjson.dumps(submission(1))], 1)
        world.read_until(lambda found: len(found) == 1, receipts)
        paused = {**MARKET.sources, "sunform": replace(MARKET.sources["sunform"], paused=True)}
        world.apply(replace(MARKET, sources=paused), base_version=1)
        world.send(world.topics.source_leads("sunform"), [orjson.dumps(submission(2))], 1)
        told = world.read_until(lambda found: len(found) == 2, receipts)
    assert [happened(record) for record in told] == ["accepted", "source_paused"]


def test_worker_without_its_keys_says_which(world: IntakeOnKafka) -> None:
    with world.worker(GAVEL_VAULT_KEY_FILE="/nowhere/vault.key") as process:
        assert process.wait(WITHIN_S) == 1
    assert "/nowhere/vault.key: there is no such key file" in world.logged()


def test_worker_ends_in_order_when_told_to(world: IntakeOnKafka) -> None:
    with world.worker() as process:
        world.send(world.topics.source_leads("sunform"), [orjson.dumps(submission(1, contact=contact(1)))], 1)
        world.read_until(lambda found: len(found) == 1, world.topics.source_receipts("sunform"))
        process.terminate()
        try:
            assert process.wait(WITHIN_S) == 0
        except subprocess.TimeoutExpired:
            pytest.fail(f"did not end: {world.logged()[-2_000:]}")


def test_rubbish_rests_its_topic_and_a_new_worker_goes_on_behind_it(world: IntakeOnKafka) -> None:
    sunform, partnerweb = world.topics.source_leads("sunform"), world.topics.source_leads("partnerweb")
    rubbish = [b"rubbish canary %d" % number for number in range(DEAD_LETTERS_IN_A_ROW_MAX + 50)]
    world.send(sunform, rubbish, 1)
    world.send(sunform, [orjson.dumps(submission(1))], 1)
    dead = world.topics.dead_letters(sunform)
    with world.worker():
        world.read_until(lambda found: len(found) >= DEAD_LETTERS_IN_A_ROW_MAX, dead)
        world.send(partnerweb, [orjson.dumps(submission(2))], 1)
        world.read_until(lambda found: len(found) >= 1, world.topics.source_receipts("partnerweb"))
        letters = world.read_until(lambda _: True, dead)
        world.await_position(sunform, 0, DEAD_LETTERS_IN_A_ROW_MAX)
        assert "topic rests" in world.logged()
    assert len(letters) <= DEAD_LETTERS_IN_A_ROW_MAX
    with world.worker():
        told = world.read_until(lambda found: len(found) >= 1, world.topics.source_receipts("sunform"))
        letters = world.read_until(lambda found: len({each.value for each in found}) == len(rubbish), dead)
    assert [happened(record) for record in told] == ["accepted"]
    assert {letter.value for letter in letters} == set(rubbish)
