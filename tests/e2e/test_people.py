"""A person's rights as an operator honours them, all steps as processes: told, erased, suppressed, found nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from deploy.local.stack import Stack
from tests.support.auditing import audit_violations
from tests.support.gateway import free_port
from tests.support.running import Gavel, running_gavel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EMAIL, PHONE = "canary77@example.com", "+12125550177"
CANARIES = ("canary77", "2125550177")
WITHIN_S = 60.0


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[Gavel]:
    with running_gavel(stack, database, tmp_path, Path(__file__).parent / "market.yaml") as running:
        running.start_all()
        yield running


def run(gavel: Gavel, *arguments: str, given: str = "", code: int = 0) -> Any:
    """Run a command as an operator does, and give its answer; nothing it says may name the person."""
    return json.loads(told_by(gavel, *arguments, given=given, code=code).stdout)


def told_by(
    gavel: Gavel, *arguments: str, given: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments, "--json"],
        env=gavel.environment(),
        input=given,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert not any(canary in done.stdout + done.stderr for canary in CANARIES)
    return done


def send(
    gavel: Gavel, reference: str, lead_type: str, email: str, phone: str, *, to: Sequence[str] = ()
) -> None:
    """Send a lead as a source does; its consent names the buyers `to` whom alone it may go."""
    write(gavel, gavel.topics.source_leads("web"), submission(reference, lead_type, email, phone, to=to))


def submission(
    reference: str, lead_type: str, email: str, phone: str, *, to: Sequence[str] = ()
) -> dict[str, Any]:
    named = {"buyers": list(to)} if to else {}
    return {
        "lead_type": lead_type,
        "reference": reference,
        "contact": {"first_name": "Canary77" if email == EMAIL else "Sam", "email": email, "phone": phone},
        "details": {"state": "NY"},
        "consent": {"text": f"Call me, {email}", "at": "2026-01-01T00:00:00Z", **named},
    }


@contextmanager
def source_by_http(gavel: Gavel) -> Iterator[httpx.Client]:
    """Start a gateway, and speak to it as the source does."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    gavel.start("gateway", GAVEL_HTTP_PORT=str(port))
    key = run(gavel, "key", "add", "--source", "web")["key"]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=WITHIN_S, trust_env=False) as client:
        gavel.wait_until("the gateway is ready", lambda: is_ready(client))
        yield client


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def write(gavel: Gavel, topic: str, body: dict[str, Any]) -> None:
    producer = KafkaProducer(bootstrap_servers=gavel.kafka)
    producer.send(topic, json.dumps(body).encode())
    producer.flush()
    producer.close()


def everything_in(gavel: Gavel, topic: str) -> list[dict[str, Any]]:
    """Read a topic of one partition from its beginning to its end."""
    consumer = KafkaConsumer(bootstrap_servers=gavel.kafka, enable_auto_commit=False)
    where = KafkaPartition(topic, 0)
    consumer.assign([where])
    consumer.seek_to_beginning(where)
    ends, found = consumer.end_offsets([where])[where], []
    while consumer.position(where) < ends:
        for records in consumer.poll(timeout_ms=500).values():
            found += [json.loads(record.value) for record in records]
    consumer.close()
    return found


def keep_for_good(gavel: Gavel, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=gavel.kafka)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "-1"})])
    admin.close()


def receipts(gavel: Gavel, reason: str) -> int:
    told = everything_in(gavel, gavel.topics.source_receipts("web"))
    return sum(item.get("reason") == reason for receipt in told for item in receipt["happened"])


def at_rest(gavel: Gavel, *, closed: int) -> None:
    def is_told() -> bool:
        ((told,),) = gavel.ask(
            "select (select count(*) from router.all_closes) = %s"
            " and (select bool_and(seq = published_seq) from router.heads)"
            " and not exists (select from router.undelivered)",
            closed,
        )
        return bool(told)

    gavel.wait_until(f"{closed} leads closed and published", is_told)
    gavel.wait_all_read()


def notices(gavel: Gavel, buyer: str) -> Sequence[dict[str, Any]]:
    return [
        {"lead_id": record["lead_id"], **item}
        for record in everything_in(gavel, gavel.topics.buyer_leads(buyer))
        if record["type"] == "notice"
        for item in record["happened"]
        if item["type"] == "erasure"
    ]


def test_person_is_told_who_has_its_data_is_erased_everywhere_and_is_not_asked_again(gavel: Gavel) -> None:
    send(gavel, "one", "shared", EMAIL, PHONE)
    with source_by_http(gavel) as source:
        lead = submission("two", "alone", EMAIL.upper(), PHONE)
        sent = source.post("/v1/leads", json=lead, headers={"Idempotency-Key": EMAIL})
        assert sent.status_code == httpx.codes.ACCEPTED, sent.text
        unfit = source.post("/v1/leads", json=[EMAIL, PHONE], headers={"Idempotency-Key": "unfit"})
        assert unfit.status_code == httpx.codes.UNPROCESSABLE_ENTITY, unfit.text
        assert source.get("/v1/leads/" + EMAIL).status_code == httpx.codes.NOT_FOUND
    send(gavel, "other", "alone", "sam@example.com", "+12125550188")
    at_rest(gavel, closed=3)

    known = run(gavel, "subject", EMAIL)["leads"]
    assert [lead["lead_type"] for lead in known] == ["shared", "alone"]
    assert run(gavel, "subject", "-", given="(212) 555-0177\n")["leads"] == known
    for lead in known:
        for recipient in lead["recipients"]:
            delivered = [
                record
                for record in everything_in(gavel, gavel.topics.buyer_leads(recipient["buyer"]))
                if record["lead_id"] == lead["lead_id"]
            ]
            assert [(record["promise"], record["terms"], record["sold_at"]) for record in delivered] == [
                (recipient["promise"], recipient["terms"], recipient["received_at"])
            ]
    shared, alone = known
    assert (len(shared["recipients"]), len(alone["recipients"])) == (3, 1)

    planned = run(gavel, "erase", EMAIL, "--dry-run")
    assert [lead["sealed"] for lead in planned["leads"]] == [True, True]
    assert gavel.ask("select count(*) from vault.leads") == [(3,)]
    assert planned["topics_that_keep_longer"] == []
    (holder,) = (recipient["buyer"] for recipient in alone["recipients"])
    keep_for_good(gavel, gavel.topics.buyer_leads(holder))
    done = run(gavel, "erase", "--suppress", EMAIL)
    assert (done["undecided"], done["still_sealed"]) == (0, 0)
    (longer,) = done["topics_that_keep_longer"]
    assert longer.startswith(f"{gavel.topics.buyer_leads(holder)} keeps records for good")
    assert gavel.ask("select count(*) from vault.leads") == [(1,)]
    assert gavel.ask("select count(*) from intake.fingerprints") == [(2,)], "those of the other person"
    again = run(gavel, "erase", EMAIL)
    assert [lead["is_asked"] for lead in again["leads"]] == [True, True]

    at_rest(gavel, closed=3)
    asked = run(gavel, "erase", "status")["holders"]
    assert {(row["lead_id"], row["buyer"]) for row in asked} == {
        (lead["lead_id"], recipient["buyer"]) for lead in known for recipient in lead["recipients"]
    }
    for row in asked:
        (notice,) = [item for item in notices(gavel, row["buyer"]) if item["lead_id"] == row["lead_id"]]
        assert (notice["reason"], notice["acknowledge_by"]) == ("erased", row["acknowledge_by"])
    first, *others = asked
    write(gavel, gavel.topics.buyer_answers(first["buyer"]), {"type": "erased", "lead_id": first["lead_id"]})
    for row in others:
        run(gavel, "erase", "acknowledge", row["lead_id"], row["buyer"])
    gavel.wait_until("acknowledgements", lambda: run(gavel, "erase", "status")["holders"] == [])
    assert {row["by_operator"] for row in run(gavel, "erase", "status", "--all")["holders"]} == {True, False}
    assert all(
        recipient["erased_at"]
        for lead in run(gavel, "subject", EMAIL)["leads"]
        for recipient in lead["recipients"]
    )

    send(gavel, "three", "staggered", "someone-else@example.com", PHONE)
    gavel.wait_until("a declined lead", lambda: receipts(gavel, "suppressed") == 1)
    at_rest(gavel, closed=3)
    gavel.wait_until("the gateway knows", lambda: gavel.ask("select count(*) from gateway.leads") == [(4,)])
    assert gavel.ask("select count(*) from gateway.replies") == [(1,)]
    assert "gateway" in gavel.log_of("gateway")
    assert audit_violations(gavel, *CANARIES) == []
    gavel.ask("update gateway.replies set body = %s returning 1", CANARIES[0].encode())
    (found,) = audit_violations(gavel, *CANARIES)
    assert "gateway.replies" in found, "it looks there"


def test_archived_leads_are_told_and_erased_as_before_and_leads_without_a_hash_are_spoken_of(
    gavel: Gavel,
) -> None:
    send(gavel, "one", "shared", EMAIL, PHONE, to=("bob", "dan", "nobody"))
    send(gavel, "two", "alone", EMAIL, PHONE)
    at_rest(gavel, closed=2)
    before = run(gavel, "subject", EMAIL)
    assert before["known_since"] is None
    named, other = before["leads"]
    assert {recipient["buyer"] for recipient in named["recipients"]} == {"bob", "dan"}
    assert (named["consented_buyers"], other["consented_buyers"]) == (["bob", "dan", "nobody"], [])

    moved = run(gavel, "data", "archive", "--older-than", "0s")
    assert (moved["router_leads"], moved["intake_leads"]) == (2, 2)
    assert gavel.ask("select (select count(*) from router.leads), (select count(*) from intake.leads)") == [
        (0, 0)
    ]
    assert run(gavel, "subject", EMAIL) == before
    assert run(gavel, "subject", named["lead_id"])["leads"] == [named]

    gavel.ask("delete from vault.people where lead_id = %s returning 1", other["lead_id"])
    gavel.ask(
        "update gavel.migrations set applied_at = now() where step = 'vault' and number = 2 returning 1"
    )
    told = run(gavel, "subject", EMAIL)
    assert ([lead["lead_id"] for lead in told["leads"]], told["known_since"] is None) == (
        [named["lead_id"]],
        False,
    )
    assert run(gavel, "subject", other["lead_id"])["leads"] == [other]

    for about, lead_id in ((EMAIL, named["lead_id"]), (other["lead_id"], other["lead_id"])):
        done = run(gavel, "erase", about)
        assert [lead["lead_id"] for lead in done["leads"]] == [lead_id]
        assert (done["undecided"], done["still_sealed"]) == (0, 0)
    assert gavel.ask("select count(*) from vault.leads") == [(0,)]
    at_rest(gavel, closed=2)
    for buyer in ("bob", "dan"):
        assert named["lead_id"] in {item["lead_id"] for item in notices(gavel, buyer)}
    (erased,) = run(gavel, "subject", EMAIL)["leads"]
    assert erased["erasure"]["reason"] == "erased"
    assert {recipient["erased_at"] for recipient in erased["recipients"]} == {None}

    nobody = told_by(gavel, "erase", "--suppress", other["lead_id"], code=1)
    assert f"Nobody is known by lead {other['lead_id']}" in nobody.stderr
    assert run(gavel, "suppress", "count")["count"] == 0
    run(gavel, "erase", "--suppress", named["lead_id"].upper())
    assert run(gavel, "suppress", "count")["count"] == 2, (
        "its address and its number, by the hashes that are left"
    )
    assert audit_violations(gavel, *CANARIES) == []


def test_suppressed_persons_open_leads_are_withdrawn_and_a_file_says_which_lines_are_bad(
    gavel: Gavel, tmp_path: Path
) -> None:
    gavel.kill("resale")
    send(gavel, "open", "staggered", EMAIL, PHONE)
    gavel.wait_until("the sale", lambda: gavel.ask("select count(*) from router.sales") == [(1,)])
    people = tmp_path / "people.txt"
    people.write_text(f"{PHONE}\n\nnobody\nsam@example.com\n")
    done = run(gavel, "suppress", "add", "--file", str(people), code=1)
    people.unlink()
    assert (done["added"], done["withdrawn"], done["bad_lines"]) == (2, 1, [3])
    gavel.start("resale")
    at_rest(gavel, closed=1)
    assert gavel.ask("select outcome from router.closes") == [("withdrawn",)]
    assert run(gavel, "suppress", "add", PHONE)["known"] == 1
    assert run(gavel, "suppress", "remove", "sam@example.com")["removed"] == 1
    assert run(gavel, "suppress", "count")["count"] == 1
    send(gavel, "again", "alone", "other77@example.com", PHONE)
    gavel.wait_until("a declined lead", lambda: receipts(gavel, "suppressed") == 1)
    assert audit_violations(gavel) == []
