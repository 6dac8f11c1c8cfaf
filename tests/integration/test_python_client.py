"""The client that sources and buyers install: on real Kafka, without Gavel's own code beside it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer, KafkaProducer
from kafka.cluster import ClusterMetadata

from deploy.local.stack import Stack
from gavel_client import (
    Answers,
    AvroRecord,
    Bid,
    Bidder,
    Erasure,
    LeadReader,
    LeadSource,
    MemorySeen,
    NoBid,
    NotSent,
    Ping,
    SqliteSeen,
)

METADATA_LATE_S = 0.5
CLIENT = Path(__file__).parents[2] / "clients" / "python"
TOPICS = (
    "sources.sunform.leads",
    "sources.sunform.receipts",
    "buyers.acme.leads",
    "buyers.acme.pings",
    "buyers.acme.answers",
)

pytestmark = pytest.mark.integration


@pytest.fixture
def namespace(stack: Stack) -> Iterator[str]:
    """Topics of the test's own."""
    prefix = f"t{uuid4().hex[:10]}."
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    for made in admin.create_topics([NewTopic(prefix + name, 1, 1) for name in TOPICS]).values():
        made.result(30)
    yield prefix
    admin.delete_topics([prefix + name for name in TOPICS])


def test_each_lead_that_was_sent_is_in_the_topic_once_however_few_may_be_on_their_way(
    stack: Stack, namespace: str
) -> None:
    with LeadSource("sunform", servers=stack.kafka, namespace=namespace, in_flight_max=10) as source:
        for number in range(2_000):
            source.send({"reference": f"R-{number}"})
        source.flush()
    references = [
        json.loads(value)["reference"] for value in read(stack, f"{namespace}sources.sunform.leads", 2_000)
    ]
    assert references == [f"R-{number}" for number in range(2_000)]


def test_a_lead_that_is_too_large_is_named_and_the_rest_goes_on(stack: Stack, namespace: str) -> None:
    with LeadSource("sunform", servers=stack.kafka, namespace=namespace, in_flight_max=1) as source:
        with pytest.raises(NotSent, match="65536 are the most") as refused:
            source.send({"reference": "huge", "text": "x" * 65_536})
        assert [lead["reference"] for lead in refused.value.leads] == ["huge"]
        source.send({"reference": "small"})
    values = read(stack, f"{namespace}sources.sunform.leads", 1)
    assert [json.loads(value)["reference"] for value in values] == ["small"]


def test_a_lead_for_a_topic_that_does_not_exist_is_named(stack: Stack) -> None:
    source = LeadSource("sunform", servers=stack.kafka, namespace="nowhere.", max_block_ms=1_000)
    with pytest.raises(NotSent, match="KafkaTimeoutError") as refused:
        source.send({"reference": "lost"})
    assert [lead["reference"] for lead in refused.value.leads] == ["lost"]
    source.close()


def test_receipts_are_read_from_the_beginning_and_then_from_where_the_group_left_off(
    stack: Stack, namespace: str
) -> None:
    topic = f"{namespace}sources.sunform.receipts"
    write(stack, topic, [{"lead_id": "1", "happened": []}, {"lead_id": "2", "happened": []}])
    with LeadSource("sunform", servers=stack.kafka, namespace=namespace) as source:
        assert [receipt["lead_id"] for receipt in source.receipts(quiet_s=3)] == ["1", "2"]
        write(stack, topic, [{"lead_id": "3", "happened": []}])
        assert [receipt["lead_id"] for receipt in source.receipts(quiet_s=3)] == ["3"]


def test_a_delivery_that_comes_twice_is_given_once_and_notices_go_elsewhere(
    stack: Stack, namespace: str
) -> None:
    write(
        stack,
        f"{namespace}buyers.acme.leads",
        [lead("a"), lead("b"), {"type": "notice", "lead_id": "x"}, lead("a"), lead("c")],
    )
    others: list[Any] = []
    with LeadReader("acme", servers=stack.kafka, namespace=namespace, on_other=others.append) as reader:
        assert take(reader, 3) == ["a", "b", "c"]
    assert [other["type"] for other in others] == ["notice"]


def test_an_erasure_is_told_apart_and_acknowledged_and_comes_again_until_its_handler_is_done(
    stack: Stack, namespace: str
) -> None:
    erased, kept = str(uuid4()), {"type": "notice", "lead_id": "x", "happened": [{"type": "closed"}]}
    asked = {"type": "erasure", "reason": "revoked", "acknowledge_by": "2026-12-23T09:00:00.000Z"}
    notice = {"type": "notice", "lead_id": erased, "happened": [{"type": "closed"}, asked]}
    write(stack, f"{namespace}buyers.acme.leads", [lead("a"), kept, notice, lead("b")])
    answers = Answers("acme", servers=stack.kafka, namespace=namespace)
    others: list[Any] = []
    given: list[Erasure] = []

    def forget(erasure: Erasure) -> None:
        given.append(erasure)
        if len(given) == 1:
            raise ZeroDivisionError
        answers.erased(erasure.lead_id)

    with LeadReader(
        "acme", servers=stack.kafka, namespace=namespace, on_other=others.append, on_erasure=forget
    ) as reader:
        with pytest.raises(ZeroDivisionError):
            take(reader, 2)
        assert take(reader, 1) == ["b"]
    answers.close()
    until = datetime(2026, 12, 23, 9, tzinfo=UTC)
    assert given == [Erasure(lead_id=erased, reason="revoked", acknowledge_by=until, body=notice)] * 2
    assert others == [kept, notice]
    (answer,) = read(stack, f"{namespace}buyers.acme.answers", 1)
    assert json.loads(answer) == {"type": "erased", "lead_id": erased}


def test_after_a_crash_the_lead_at_work_comes_again_and_those_finished_with_do_not(
    stack: Stack, namespace: str, tmp_path: Path
) -> None:
    write(stack, f"{namespace}buyers.acme.leads", [lead("a"), lead("b"), lead("c")])
    reader = LeadReader(
        "acme", servers=stack.kafka, namespace=namespace, seen=SqliteSeen(tmp_path / "seen.sqlite")
    )
    leads = iter(reader)
    assert [next(leads).sale_id, next(leads).sale_id] == ["a", "b"]
    reader.close()
    with LeadReader(
        "acme", servers=stack.kafka, namespace=namespace, seen=SqliteSeen(tmp_path / "seen.sqlite")
    ) as again:
        assert take(again, 2) == ["b", "c"]


def test_after_an_exception_in_the_loop_the_same_reader_goes_on_with_the_lead_that_was_at_work(
    stack: Stack, namespace: str
) -> None:
    write(stack, f"{namespace}buyers.acme.leads", [lead(sale_id) for sale_id in "abcd"])
    with LeadReader("acme", servers=stack.kafka, namespace=namespace) as reader:
        given: list[str] = []

        def go_on_until(broken: str) -> None:
            for each in reader:
                given.append(each.sale_id)
                if each.sale_id == broken:
                    raise ZeroDivisionError

        for broken in ("b", "c"):
            with pytest.raises(ZeroDivisionError):
                go_on_until(broken)
        assert [*given, *take(reader, 2)] == ["a", "b", "b", "c", "c", "d"]


def test_avro_is_told_as_such_and_nothing_of_it_is_skipped(stack: Stack, namespace: str) -> None:
    topic = f"{namespace}buyers.acme.leads"
    write(stack, topic, [lead("a")])
    producer = KafkaProducer(bootstrap_servers=stack.kafka)
    producer.send(topic, value=b"\x00\x00\x00\x00\x64rest")
    producer.close()
    with LeadReader("acme", servers=stack.kafka, namespace=namespace) as reader:
        assert take(reader, 1) == ["a"]
        for _ in range(2):
            with pytest.raises(AvroRecord, match=f"{topic} has Avro at offset 1"):
                take(reader, 2)


def test_without_remembering_what_it_had_a_repeat_is_given_again(stack: Stack, namespace: str) -> None:
    """The check above can fail."""

    class Forgetful(MemorySeen):
        def has(self, sale_id: str) -> bool:
            return False

    write(stack, f"{namespace}buyers.acme.leads", [lead("a"), lead("a")])
    with LeadReader("acme", servers=stack.kafka, namespace=namespace, seen=Forgetful()) as reader:
        assert take(reader, 2) == ["a", "a"]


def test_pings_are_answered_by_a_function_in_time_and_its_failure_is_a_no_bid(
    stack: Stack, namespace: str
) -> None:
    soon, past = datetime.now(UTC) + timedelta(minutes=1), datetime.now(UTC) - timedelta(seconds=1)
    pings = [
        ping("good", soon),
        ping("poor", soon),
        ping("broken", soon),
        ping("silent", soon),
        ping("good", past),
    ]
    write(stack, f"{namespace}buyers.acme.pings", [*pings, {"type": "auction_result", "lead_id": "good"}])
    heard: list[Any] = []
    bidder = Bidder("acme", servers=stack.kafka, namespace=namespace)

    def decide(asked: Ping) -> Bid | NoBid | None:
        if asked.lead_id == "silent":
            return None
        known: dict[str, Bid | NoBid] = {"good": Bid(exclusive="85.00"), "poor": NoBid("criteria")}
        return known[asked.lead_id]

    def other(body: Any) -> None:
        heard.append(body)
        bidder.stop()

    running = threading.Thread(target=bidder.run, args=(decide, other))
    running.start()
    answers = [json.loads(value) for value in read(stack, f"{namespace}buyers.acme.answers", 3)]
    running.join(30)
    assert answers == [
        {"type": "bid", "lead_id": "good", "auction_number": 1, "exclusive": "85.00"},
        {"type": "no_bid", "lead_id": "poor", "auction_number": 1, "reason": "criteria"},
        {"type": "no_bid", "lead_id": "broken", "auction_number": 1, "reason": "technical"},
    ]
    assert (bidder.answered, bidder.too_late, len(heard)) == (3, 1, 1)


def test_a_reader_knows_its_topic_before_it_joins_its_group_and_so_joins_it_once(
    stack: Stack, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = ClusterMetadata._do_refresh_metadata

    async def late(cluster: Any, node_id: Any) -> None:
        await cluster._manager._net.sleep(METADATA_LATE_S)
        await at_once(cluster, node_id)

    monkeypatch.setattr(ClusterMetadata, "_do_refresh_metadata", late)
    write(stack, f"{namespace}buyers.acme.leads", [lead("a")])
    with (
        caplog.at_level(logging.INFO, logger="kafka.coordinator"),
        LeadReader("acme", servers=stack.kafka, namespace=namespace) as reader,
    ):
        assert take(reader, 1) == ["a"]
    joined = [record for record in caplog.records if "Successfully joined group" in record.getMessage()]
    assert len(joined) == 1, caplog.text


def test_what_a_record_tells_beside_a_ping_is_handed_on_as_records_of_their_own(
    stack: Stack, namespace: str
) -> None:
    soon, past = datetime.now(UTC) + timedelta(minutes=1), datetime.now(UTC) - timedelta(seconds=1)
    ended = {"type": "auction_result", "auction_number": 1, "outcome": "outbid"}
    reached = {"type": "limit_reached", "order": "acme/auction", "limit": "leads_per_day"}
    around = {"at": "2026-11-22T10:00:00.000Z", "log": {"partition": 0, "seq": 9}}
    write(
        stack,
        f"{namespace}buyers.acme.pings",
        [
            {**ping("asked", soon), **around, "also": [ended, reached]},
            {**ping("late", past), **around, "also": [ended]},
            {**ended, "lead_id": "over", **around, "also": [reached]},
        ],
    )
    heard: list[Any] = []
    bidder = Bidder("acme", servers=stack.kafka, namespace=namespace)

    def other(body: Any) -> None:
        heard.append(body)
        if len(heard) == 5:
            bidder.stop()

    running = threading.Thread(target=bidder.run, args=(lambda _: Bid(exclusive="85.00"), other))
    running.start()
    (answer,) = [json.loads(value) for value in read(stack, f"{namespace}buyers.acme.answers", 1)]
    running.join(30)
    assert (answer["type"], answer["lead_id"]) == ("bid", "asked")
    assert heard == [
        {"lead_id": "asked", **around, **ended},
        {"lead_id": "asked", **around, **reached},
        {"lead_id": "late", **around, **ended},
        {"lead_id": "over", **around, **ended},
        {"lead_id": "over", **around, **reached},
    ]


def test_answers_are_what_the_schema_says(stack: Stack, namespace: str) -> None:
    import jsonschema

    schema = json.loads((CLIENT.parents[1] / "schemas" / "json" / "answer.schema.json").read_text())
    answers = Answers("acme", servers=stack.kafka, namespace=namespace)
    lead_id = str(uuid4())
    answers.accept(lead_id, 1)
    answers.report(lead_id, "deal")
    answers.upgrade(lead_id)
    answers.give_back(lead_id, "invalid_contact")
    answers.erased(lead_id)
    answers.close()
    for value in read(stack, f"{namespace}buyers.acme.answers", 5):
        jsonschema.validate(json.loads(value), schema)


def test_it_is_a_package_of_its_own(tmp_path: Path) -> None:
    """Built from its folder alone, it imports with kafka-python and nothing of Gavel beside it."""
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", str(CLIENT), str(source)], check=True)
    build = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    built = subprocess.run(
        [sys.executable, "-c", build], cwd=source, check=True, capture_output=True, text=True
    )
    wheel = source / built.stdout.splitlines()[-1]
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    proof = "import sys, gavel_client; print(gavel_client.__file__); assert 'services' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    ran = subprocess.run(
        [sys.executable, "-c", proof],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith(str(tmp_path / "installed"))


def take(reader: LeadReader, count: int) -> list[str]:
    leads = iter(reader)
    return [next(leads).sale_id for _ in range(count)]


def write(stack: Stack, topic: str, bodies: list[Any]) -> None:
    producer = KafkaProducer(bootstrap_servers=stack.kafka)
    for body in bodies:
        producer.send(topic, value=json.dumps(body).encode())
    producer.close()


def read(stack: Stack, topic: str, count: int) -> list[bytes]:
    """Read exactly so many records, and see that no other follows within a second."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=stack.kafka, auto_offset_reset="earliest", group_id=None
    )
    values: list[bytes] = []
    until = datetime.now(UTC) + timedelta(seconds=60)
    while len(values) < count and datetime.now(UTC) < until:
        values += [record.value for records in consumer.poll(timeout_ms=200).values() for record in records]
    values += [record.value for records in consumer.poll(timeout_ms=1_000).values() for record in records]
    consumer.close()
    assert len(values) == count
    return values


def lead(sale_id: str) -> dict[str, Any]:
    return {
        "type": "lead",
        "sale_id": sale_id,
        "lead_id": sale_id,
        "lead_type": "solar",
        "price": "45.00",
        "currency": "USD",
        "terms": {"mode": "shared"},
        "promise": "Shared.",
        "is_test": False,
        "lead": {"contact": {}, "details": {}},
    }


def ping(lead_id: str, answer_by: datetime) -> dict[str, Any]:
    return {
        "type": "ping",
        "lead_id": lead_id,
        "auction_number": 1,
        "answer_by": answer_by.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "lead_type": "mortgage",
        "order": "acme/auction",
        "modes": ["exclusive"],
        "floor": {"exclusive": "50.00", "shared": None},
        "sales_max": 1,
        "quality": 0,
        "fields": {},
        "is_test": False,
    }
