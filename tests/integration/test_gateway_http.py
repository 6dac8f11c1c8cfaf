"""The gateway over HTTP, as a process on real Kafka and PostgreSQL: what is acknowledged is there, and a no is a no."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from deploy.local.stack import Stack
from services.bus.ports import Record
from services.contract.ids import lead_id_of
from services.gateway.tokens import Kind
from tests.support.gateway import BUYER, SOURCE, GatewayOnKafka, market_with
from tests.support.stack import fresh_database
from tests.support.submissions import submission

NDJSON = {"Content-Type": "application/x-ndjson"}
PROBLEM = "application/problem+json"


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[GatewayOnKafka]:
    """A Gavel of the test's own, whose gateway the test runs."""
    opened = GatewayOnKafka(stack, database, tmp_path, market_with())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def served(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOnKafka]:
    """A Gavel whose gateway runs, for tests that do nothing to it."""
    with fresh_database(stack.database) as url:
        opened = GatewayOnKafka(stack, url, tmp_path_factory.mktemp("gateway"), market_with())
        with opened.worker():
            yield opened
        opened.close()


def _send(client: httpx.Client, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    return client.post("/v1/leads", json=body, headers={"Idempotency-Key": key or uuid.uuid4().hex})


def _problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == PROBLEM
    told = response.json()
    assert told["status"] == response.status_code
    return response.status_code, told["type"].removeprefix("urn:gavel:problem:")


def _lines(*values: Any) -> bytes:
    return b"".join(
        value if isinstance(value, bytes) else orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        for value in values
    )


def _fresh(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Make a lead of the test's own: its reference has been used by no other."""
    return submission(number, reference=f"{uuid.uuid4().hex}-{number}", **changes)


def _id(body: dict[str, Any]) -> str:
    return lead_id_of(SOURCE, body["reference"])


def _on_topic(served: GatewayOnKafka, lead_ids: set[str], count: int) -> list[Record]:
    """Wait until so many records of these leads are on the source's topic."""

    def ours(found: list[Record]) -> list[Record]:
        return [record for record in found if (record.key or b"").decode() in lead_ids]

    return ours(
        served.read_until(lambda found: len(ours(found)) >= count, served.topics.source_leads(SOURCE))
    )


def _announced(port: int, authorization: str, size: int) -> bytes:
    """Announce a stream of this size, send nothing of it, and read the first of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        head = (
            f"POST /v1/leads HTTP/1.1\r\nHost: gavel\r\nAuthorization: {authorization}\r\n"
            f"Content-Type: application/x-ndjson\r\nContent-Length: {size}\r\n\r\n"
        )
        caller.sendall(head.encode())
        return caller.recv(4_096)


def _results(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    return [orjson.loads(line) for line in response.content.splitlines()]


def test_a_lead_answered_202_is_on_its_topic_as_it_was_sent(served: GatewayOnKafka) -> None:
    body = _fresh()
    with served.client(served.key()) as client:
        response = _send(client, body)
    assert response.status_code == 202
    lead_id = _id(body)
    assert response.json() == {"lead_id": lead_id}
    assert response.headers["location"] == f"/v1/leads/{lead_id}"
    assert response.headers["ratelimit-policy"] == '"default";q=5000;w=1'
    (record,) = _on_topic(served, {lead_id}, 1)
    assert orjson.loads(record.value or b"") == body
    assert record.partition == served.partition_of(lead_id)
    assert record.headers == ()


def test_an_idempotency_key_gives_one_answer_and_is_for_one_body(served: GatewayOnKafka) -> None:
    body, key, stale = _fresh(), uuid.uuid4().hex, uuid.uuid4().hex
    with served.client(served.key()) as client:
        first = _send(client, body, key)
        again = _send(client, body, key)
        quoted = _send(client, body, f'"{key}"')
        other = _send(client, _fresh(), key)
        missing = client.post("/v1/leads", json=body)
        unusable = _send(client, body, "with spaces in it")
        owner = f"source:{SOURCE}"
        served.do(
            "insert into gateway.replies (owner, idempotency_key, payload_hash, claimed_at_ms) "
            f"select '{owner}', '{stale}', payload_hash, 99999999999999 "
            f"from gateway.replies where idempotency_key = '{key}'"
        )
        busy = _send(client, body, stale)
        served.do(f"update gateway.replies set claimed_at_ms = 0 where idempotency_key = '{stale}'")
        taken_over = _send(client, body, stale)
    assert first.status_code == again.status_code == quoted.status_code == taken_over.status_code == 202
    assert first.content == again.content == quoted.content == taken_over.content
    assert _problem(other) == (422, "idempotency-key-reused")
    assert _problem(missing) == (400, "no-idempotency-key")
    assert _problem(unusable) == (400, "idempotency-key")
    assert _problem(busy) == (409, "in-progress")
    assert len(_on_topic(served, {_id(body)}, 2)) == 2, "once under each key"


def test_of_two_requests_at_once_with_one_key_one_is_taken(served: GatewayOnKafka) -> None:
    body, key = _fresh(), uuid.uuid4().hex
    with served.client(served.key()) as client, ThreadPoolExecutor(8) as threads:
        sent = list(threads.map(lambda _: _send(client, body, key), range(8)))
    statuses = [response.status_code for response in sent]
    assert set(statuses) <= {202, 409}
    assert 202 in statuses
    marker = _fresh()
    with served.client(served.key()) as client:
        _send(client, marker)
    assert len(_on_topic(served, {_id(body), _id(marker)}, 2)) == 2


def test_every_no_is_a_problem_document_that_quotes_nothing(served: GatewayOnKafka) -> None:
    source, buyer = served.key(), served.key(Kind.BUYER, BUYER)
    key = {"Idempotency-Key": "k"}
    as_json = {"Content-Type": "application/json", **key}
    with served.client(source) as client:
        noes = {
            "no key": httpx.post(f"{served.url}/v1/leads", json={}, headers=key, trust_env=False),
            "a wrong secret": client.post("/v1/leads", headers={"Authorization": f"Bearer {source[:-1]}x"}),
            "no such key": client.get(
                "/v1/leads/x", headers={"Authorization": "Bearer src000000000000_" + "x" * 43}
            ),
            "a buyer's key": client.post("/v1/leads", headers={"Authorization": f"Bearer {buyer}"}),
            "no JSON": client.post("/v1/leads", content=b"{canary", headers=as_json),
            "no object": client.post("/v1/leads", content=b"[]", headers=as_json),
            "no submission": _send(client, {"lead_type": "solar", "contact": {}, "canary": "canary"}),
            "a wrong field": _send(client, submission(1, sales_max=11)),
            "another media type": client.post("/v1/leads", content=b"canary", headers=key),
            "too large": _send(client, submission(1, details={"canary": "x" * 70_000})),
            "an unknown lead": client.get(f"/v1/leads/{lead_id_of(SOURCE, 'canary')}"),
            "no lead id": client.get("/v1/leads/canary"),
            "no such place": client.get("/canary"),
            "no such method": client.delete("/v1/leads"),
        }
    assert {what: _problem(response) for what, response in noes.items()} == {
        "no key": (401, "no-key"),
        "a wrong secret": (401, "no-key"),
        "no such key": (401, "no-key"),
        "a buyer's key": (403, "wrong-key"),
        "no JSON": (422, "unfit"),
        "no object": (422, "unfit"),
        "no submission": (422, "unfit"),
        "a wrong field": (422, "unfit"),
        "another media type": (415, "media-type"),
        "too large": (413, "too-large"),
        "an unknown lead": (404, "unknown-lead"),
        "no lead id": (404, "unknown-lead"),
        "no such place": (404, "not-there"),
        "no such method": (405, "method"),
    }
    assert noes["no key"].headers["www-authenticate"] == "Bearer"
    assert noes["a wrong field"].json()["field"] == "sales_max"
    assert not [what for what, response in noes.items() if "canary" in response.text.lower()]
    assert "canary" not in served.logged().lower()


def test_a_stream_tells_of_each_line_and_one_broken_line_stops_no_other(served: GatewayOnKafka) -> None:
    good = [_fresh(number) for number in range(1_200)]
    body = _lines(good[0], b"{broken\n", b"\n", {"lead_type": 1}, b'"' + b"x" * 70_000 + b'"\n', *good[1:])
    with served.client(served.key()) as client:
        results = _results(client.post("/v1/leads", content=body, headers=NDJSON))
        without_newline = _results(client.post("/v1/leads", content=orjson.dumps(good[0]), headers=NDJSON))
        nothing = _results(client.post("/v1/leads", content=b"", headers=NDJSON))
    problems = {
        each["line"]: each["problem"]["type"].rpartition(":")[2] for each in results if "problem" in each
    }
    assert problems == {2: "unfit", 4: "unfit", 5: "too-large"}
    assert [each["line"] for each in results] == [1, 2, *range(4, 1_205)]
    named = {each["lead_id"] for each in results if "lead_id" in each}
    assert named == set(map(_id, good))
    assert without_newline == [{"line": 1, "lead_id": _id(good[0])}]
    assert nothing == []
    records = _on_topic(served, named, 1_201)
    assert {(record.key or b"").decode() for record in records} == named


def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(served: GatewayOnKafka) -> None:
    big = _lines(*(submission(number) for number in range(100))) * 360
    assert len(big) > 10_000_000

    def unannounced() -> Iterator[bytes]:
        for start in range(0, len(big), 65_536):
            yield big[start : start + 65_536]

    with served.client(served.key()) as client:
        assert _announced(served.port, client.headers["Authorization"], 10_485_760).startswith(
            b"HTTP/1.1 413 "
        )
        chunked = client.post("/v1/leads", content=unannounced(), headers=NDJSON)
        assert _problem(chunked) == (413, "too-large")
        assert 0 < chunked.json()["lines_taken"] < 36_000
        assert _send(client, submission(1)).status_code == 202


def test_a_client_that_leaves_in_the_middle_harms_nobody(served: GatewayOnKafka) -> None:
    key = served.key()
    leads = [_fresh(number) for number in range(600)]
    lines = _lines(*leads)
    with served.client(key) as client:
        with socket.create_connection(("127.0.0.1", served.port)) as caller:
            head = (
                f"POST /v1/leads HTTP/1.1\r\nHost: gavel\r\nAuthorization: Bearer {key}\r\n"
                "Content-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
            )
            caller.sendall(head.encode() + lines)
            _on_topic(served, set(map(_id, leads)), 500)
        served.wait_until(
            "it is noticed",
            lambda: "gavel_gateway_broken_off_total 1.0" in client.get("/metrics").text,
        )
        assert _send(client, submission(1)).status_code == 202


def test_too_many_requests_are_told_when_to_come_again(gavel: GatewayOnKafka) -> None:
    with gavel.worker(GAVEL_HTTP_RATE_PER_S="2"), gavel.client(gavel.key()) as client:
        sent = [client.get("/v1/leads/x") for _ in range(20)]
    assert {response.status_code for response in sent} == {404, 429}
    refused = next(response for response in sent if response.status_code == 429)
    assert _problem(refused) == (429, "too-many")
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit"].startswith('"default";r=0;t=')


def test_a_revoked_key_is_refused_within_seconds(served: GatewayOnKafka) -> None:
    key = served.key()
    with served.client(key) as client:
        assert client.get("/v1/leads/x").status_code == 404
        served.revoke(key)
        served.wait_until("it is refused", lambda: client.get("/v1/leads/x").status_code == 401)


def test_a_status_is_what_the_receipts_say_to_the_source_that_has_them(gavel: GatewayOnKafka) -> None:
    lead, declined = lead_id_of(SOURCE, "ref-1"), lead_id_of(SOURCE, "ref-2")
    at = "2026-11-22T10:00:00.000Z"

    def receipt(lead_id: str, *happened: dict[str, Any], seq: int | None = None) -> dict[str, Any]:
        log = {} if seq is None else {"log": {"partition": 3, "seq": seq}}
        return {"type": "receipt", "lead_id": lead_id, "at": at, "happened": list(happened), **log}

    sold = {
        "type": "sold",
        "sale_number": 1,
        "sales_max": 3,
        "mode": "shared",
        "payout": "24.00",
        "currency": "USD",
    }
    closed = {"type": "closed", "outcome": "partly_sold", "sales": 1}
    back = {"type": "returned", "sale_number": 1, "taken_back": "24.00", "currency": "USD"}
    key, others = gavel.key(), gavel.key(owner_id="partnerweb")
    gavel.tell_source(
        receipt(lead, {"type": "accepted"}),
        receipt(lead, sold, seq=7),
        receipt(lead, sold, seq=7),
        receipt(declined, {"type": "declined", "reason": "missing_field", "field": "contact"}),
    )
    with gavel.worker(), gavel.client(key) as client:
        gavel.wait_until("it is sold", lambda: client.get(f"/v1/leads/{lead}").status_code == 200)
        status = client.get(f"/v1/leads/{lead}").json()
        assert (status["state"], status["sales"], status["payout"]) == ("sold", 1, "24.00")
        assert [each["type"] for each in status["happened"]] == ["accepted", "sold"]
        gavel.wait_until("it is declined", lambda: client.get(f"/v1/leads/{declined}").status_code == 200)
        told = client.get(f"/v1/leads/{declined}").json()
        assert (told["state"], told["reason"], told["field"]) == ("declined", "missing_field", "contact")
        with gavel.client(others) as other:
            assert _problem(other.get(f"/v1/leads/{lead}")) == (404, "unknown-lead")
    # Another worker goes on where the one that was killed has stopped.
    gavel.tell_source(receipt(lead, back, seq=9), receipt(lead, closed, seq=10))
    with gavel.worker(), gavel.client(key) as client:
        gavel.wait_until("it is closed", lambda: client.get(f"/v1/leads/{lead}").json()["state"] == "closed")
        told = client.get(f"/v1/leads/{lead}").json()
        assert (told["outcome"], told["sales"], told["payout"]) == ("partly_sold", 1, "0.00")


def test_the_whole_way_with_keys_from_the_command_line(gavel: GatewayOnKafka) -> None:
    made = _gavel(gavel, "key", "add", "--source", SOURCE, "--note", "the shop")
    body = _fresh()
    with gavel.step("intake"), gavel.worker(), gavel.client(made["key"]) as client:
        where = _send(client, body).headers["location"]
        gavel.wait_until("it is accepted", lambda: client.get(where).json().get("state") == "accepted")
        other = _fresh(contact={"nickname": "Canary"})
        declined = _send(client, other).headers["location"]
        gavel.wait_until("it is declined", lambda: client.get(declined).json().get("state") == "declined")
        assert client.get(declined).json()["reason"] == "unknown_field"
        assert _gavel(gavel, "key", "revoke", made["key"]) == {"revoked": made["prefix"]}
        gavel.wait_until("the key is refused", lambda: client.get(where).status_code == 401)
    (listed,) = _gavel(gavel, "key", "list")["keys"]
    assert (listed["prefix"], listed["owner"], listed["note"]) == (made["prefix"], SOURCE, "the shop")
    assert listed["revoked"]
    secret = _gavel(gavel, "key", "webhook", BUYER)["secret"]
    assert secret == gavel.webhook_secrets.secret(BUYER, 1)
    assert _gavel(gavel, "key", "webhook", BUYER, "--rotate")["secret"] == gavel.webhook_secrets.secret(
        BUYER, 2
    )


def _gavel(gavel: GatewayOnKafka, *arguments: str) -> Any:
    """Call the command line, for its JSON."""
    command = [sys.executable, "-m", "services.cli", *arguments, "--json"]
    done = subprocess.run(command, env=gavel.environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


def test_answers_are_on_the_buyers_topic_as_they_were_sent(served: GatewayOnKafka) -> None:
    lead = _id(_fresh())
    bid = {"type": "bid", "lead_id": lead, "auction_number": 1, "exclusive": "85.00"}
    with served.client(served.key(Kind.BUYER, BUYER)) as client:
        assert client.post("/v1/answers", json=bid).status_code == 202
        assert _problem(client.post("/v1/answers", json={**bid, "exclusive": 85.0})) == (422, "unfit")
        assert _problem(client.post("/v1/answers", json={**bid, "type": "x"})) == (422, "unfit")
        assert _problem(client.post("/v1/answers", json={**bid, "exclusive": "8" * 5_000})) == (
            413,
            "too-large",
        )
        assert _problem(client.get(f"/v1/leads/{lead}")) == (403, "wrong-key")
    (record,) = served.read_until(lambda found: len(found) == 1, served.topics.buyer_answers(BUYER))
    assert orjson.loads(record.value or b"") == bid


def test_sigterm_ends_it_in_order_and_the_port_is_free_again(gavel: GatewayOnKafka) -> None:
    with gavel.worker() as process, gavel.client(gavel.key()) as client:
        assert _send(client, submission(1)).status_code == 202
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with gavel.worker(), gavel.client(gavel.key()) as client:
        assert _send(client, submission(1)).status_code == 202


def test_schemas_are_shown_as_a_schema_registry_shows_them(served: GatewayOnKafka) -> None:
    log = served.topics.log
    with served.client() as client:
        assert f"{log}-value" in client.get("/subjects").json()
        latest = client.get(f"/subjects/{log}-value/versions/latest").json()
        assert latest["id"] == 1
        by_id = client.get("/schemas/ids/1")
        assert by_id.json() == {"schema": latest["schema"]}
        assert by_id.headers["content-type"] == "application/vnd.schemaregistry.v1+json"
        assert orjson.loads(latest["schema"])["name"] == "Entry"
        unknown = client.get("/schemas/ids/9999")
    assert (unknown.status_code, unknown.json()["error_code"]) == (404, 40403)
