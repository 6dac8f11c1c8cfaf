"""The gateway when something is gone: no broker, no database, no process. What was acknowledged is there."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client import CollectorRegistry
from psycopg import Connection as Database

from deploy.local.stack import Stack
from services.bus.database import connect
from services.bus.kafka import Connection
from services.contract.ids import lead_id_of
from services.contract.topics import Topics
from services.gateway.api import Surroundings, build_api
from services.gateway.appending import Appender
from services.gateway.desk import Desk, Limits
from services.gateway.desk_store import DeskStore
from services.gateway.metrics import GatewayMetrics
from services.gateway.registry import open_registry
from tests.support.gateway import SOURCE, GatewayOnKafka, free_port, market_with
from tests.support.submissions import submission

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def gavel(stack: Stack, database: str, tmp_path: Path) -> Iterator[GatewayOnKafka]:
    opened = GatewayOnKafka(stack, database, tmp_path, market_with())
    yield opened
    opened.close()


def _ask(
    gavel: GatewayOnKafka, requests: list[dict[str, Any]], *, kafka: str, database: str
) -> list[httpx.Response]:
    """Put requests to the application itself, with servers that may not be there."""

    connections: list[Database] = []

    def connected() -> Database:
        connections.append(connect(database, role="gavel_gateway", application_name="test"))
        return connections[-1]

    appender = Appender(Connection(bootstrap=kafka), client_id="test", within_s=1.0)
    desk = Desk(
        store=DeskStore(connected),
        appender=appender,
        topics=gavel.topics,
        keys=gavel.keys,
        limits=Limits(rate_per_s=1_000, stream_bytes_max=1_000_000),
        metrics=GatewayMetrics(CollectorRegistry()),
        source_partitions=3,
        now_ms=lambda: time.time_ns() // 1_000_000,
        monotonic_s=time.monotonic,
    )
    around = Surroundings(
        version="1",
        schemas=open_registry(Topics()),
        metrics_page=lambda: b"",
        is_healthy=lambda: True,
        fail=lambda error: pytest.fail(str(error)),
    )

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(build_api(desk, around))
        headers = {"Authorization": f"Bearer {gavel.key()}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://gavel", headers=headers) as client:
            return [await client.request(**request) for request in requests]

    try:
        return asyncio.run(ask())
    finally:
        appender.end()
        desk.threads.shutdown()
        for connection in connections:
            connection.close()


def _one(body: dict[str, Any], key: str) -> dict[str, Any]:
    return {"method": "POST", "url": "/v1/leads", "json": body, "headers": {"Idempotency-Key": key}}


def _many(*bodies: dict[str, Any]) -> dict[str, Any]:
    content = b"".join(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE) for body in bodies)
    return {"method": "POST", "url": "/v1/leads", "content": content, "headers": NDJSON}


def _named(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"]


def test_without_a_broker_nothing_is_acknowledged_and_the_same_may_be_sent_again(
    gavel: GatewayOnKafka,
) -> None:
    requests = [_one(submission(1), "k"), _many(submission(2)), {"method": "GET", "url": "/readyz"}]
    one, many, ready = _ask(gavel, requests, kafka=f"127.0.0.1:{free_port()}", database=gavel.database)
    assert _named(one) == _named(many) == (503, "urn:gavel:problem:unavailable")
    assert one.headers["retry-after"] == "1"
    assert (ready.status_code, ready.json()) == (503, {"kafka": False, "database": True})
    assert gavel.rows("select 1 from gateway.replies") == [], "the key may be used again"
    (again,) = _ask(
        gavel, [_one(submission(1), "k")], kafka=gavel.connection.bootstrap, database=gavel.database
    )
    assert again.status_code == 202


def test_without_a_database_nobody_is_let_in(gavel: GatewayOnKafka) -> None:
    nowhere = f"postgresql://127.0.0.1:{free_port()}/nowhere"
    (one,) = _ask(gavel, [_one(submission(1), "k")], kafka=gavel.connection.bootstrap, database=nowhere)
    assert _named(one) == (503, "urn:gavel:problem:unavailable")


def test_kill_9_loses_no_acknowledged_lead_and_names_each_as_before(gavel: GatewayOnKafka) -> None:
    key = gavel.key()
    references = [f"{uuid.uuid4().hex}-{number}" for number in range(20_000)]
    bodies = [submission(number, reference=reference) for number, reference in enumerate(references)]
    parts = [bodies[start : start + 200] for start in range(0, len(bodies), 200)]
    acknowledged: dict[str, str] = {}
    begun = threading.Event()

    def send(client: httpx.Client, part: list[dict[str, Any]]) -> None:
        response = client.request(**_many(*part))
        assert response.status_code == 200
        lines = [orjson.loads(line) for line in response.content.splitlines()]
        acknowledged.update({part[each["line"] - 1]["reference"]: each["lead_id"] for each in lines})

    def send_all() -> None:
        with gavel.client(key) as client:
            for part in parts:
                try:
                    send(client, part)
                except httpx.TransportError:
                    return
                begun.set()

    with gavel.worker() as process:
        sender = threading.Thread(target=send_all)
        sender.start()
        assert begun.wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sender.join()
    before = dict(acknowledged)
    assert before
    with gavel.worker(), gavel.client(key) as client:
        for part in parts[: len(before) // 200 + 2]:
            send(client, part)
    assert {reference: acknowledged[reference] for reference in before} == before
    assert all(lead_id == lead_id_of(SOURCE, reference) for reference, lead_id in acknowledged.items())
    named = set(acknowledged.values())
    records = gavel.read_until(
        lambda found: named <= {(record.key or b"").decode() for record in found},
        gavel.topics.source_leads(SOURCE),
    )
    assert {lead_id_of(SOURCE, orjson.loads(record.value or b"")["reference"]) for record in records} == named
