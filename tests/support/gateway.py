"""The gateway as a real process on real Kafka and PostgreSQL, its callers, and the webhooks that it calls."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.stack import Stack
from services.bus.administration import create_topics, wanted_topics
from services.bus.kafka import Connection, LogProducer, record_of
from services.bus.migrations import migrate
from services.bus.ports import Message, Record
from services.contract.identity import IdentityKeys
from services.contract.ids import partition_of
from services.contract.market import Deliver, Market
from services.contract.topics import Topics
from services.gateway.key_store import add_key, revoke_key
from services.gateway.signing import WebhookSecrets
from services.gateway.tokens import Kind, StoredKey, hash_of, make_token
from services.market import store as markets
from services.vault.keys import make_key, read_key
from tests.support.submissions import MARKET

ROOT = Path(__file__).parents[2]
WITHIN_S = 30.0
SOURCE = "sunform"
BUYER = "acme"


def market_with(**webhooks: str) -> Market:
    """Give buyers of the tests' market a webhook each."""
    buyers = {
        buyer.id: replace(buyer, deliver=Deliver(webhook=webhooks.get(buyer.id)))
        for buyer in MARKET.buyers.values()
    }
    return replace(MARKET, version=0, buyers=buyers)


class GatewayOnKafka:
    """A Gavel of the test's own on the shared servers, with the topics of its market."""

    def __init__(self, stack: Stack, database: str, folder: Path, market: Market) -> None:
        """Bring database and topics to what the gateway needs."""
        self.topics = Topics(namespace=f"t-{uuid.uuid4().hex[:12]}.")
        self.database = database
        self.connection = Connection(bootstrap=stack.kafka)
        self.port = free_port()
        self._folder = folder
        self._market = market
        migrate(database)
        self.apply(market, base_version=0)
        create_topics(self.connection, self.topics, market)
        for key in ("vault.key", "fingerprint.key"):
            make_key(folder / key)
        fingerprint_key = read_key(folder / "fingerprint.key")
        self.keys, self.webhook_secrets = IdentityKeys(fingerprint_key), WebhookSecrets(fingerprint_key)
        self._producer = LogProducer(self.connection)
        self.environment = {
            **os.environ,
            "GAVEL_KAFKA": stack.kafka,
            "GAVEL_DATABASE": database,
            "GAVEL_NAMESPACE": self.topics.namespace,
            "GAVEL_SESSION_TIMEOUT_MS": "1000",
            "GAVEL_VAULT_KEY_FILE": str(folder / "vault.key"),
            "GAVEL_FINGERPRINT_KEY_FILE": str(folder / "fingerprint.key"),
            "GAVEL_HTTP_PORT": str(self.port),
            "GAVEL_WEBHOOK_NETWORKS": "127.0.0.0/8",
        }

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://127.0.0.1:{self.port}"

    def apply(self, market: Market, *, base_version: int) -> None:
        """Bring a market into force."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            markets.apply(connection, market, base_version, files=(), applied_by="tests")

    def key(self, kind: Kind = Kind.SOURCE, owner_id: str = SOURCE) -> str:
        """Make a key."""
        token = make_token(kind, prefix_bytes=secrets.token_bytes(6), secret_text=secrets.token_urlsafe(32))
        stored = StoredKey(
            prefix=token.prefix,
            secret_sha256=hash_of(token.secret),
            kind=kind,
            owner_id=owner_id,
            note="of a test",
            created_at_ms=1,
        )
        with psycopg.connect(self.database, autocommit=True) as connection:
            add_key(connection, stored)
        return f"{token.prefix}_{token.secret}"

    def revoke(self, key: str) -> None:
        """End a key."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            assert revoke_key(connection, key.partition("_")[0], time.time_ns() // 1_000_000)

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        """Speak HTTP with a key."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20.0, trust_env=False, **more)

    @contextmanager
    def worker(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a gateway until it is ready; end it with SIGKILL, unless the test has ended it."""
        with self.step("gateway", **environment) as process:
            self.await_ready(process)
            yield process

    @contextmanager
    def step(self, name: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker of any step."""
        with (self._folder / f"{name}-{uuid.uuid4().hex[:6]}.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"services.{name}"],
                cwd=ROOT,
                env=self.environment | environment,
                stdout=output,
                stderr=output,
            )
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def await_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until it answers."""
        with self.client() as client:

            def answers() -> bool:
                assert process.poll() is None, self.logged()[-4_000:]
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            self.wait_until("the gateway is ready", answers)

    def tell_source(self, *receipts: Mapping[str, Any]) -> None:
        """Write receipts, as intake and router do."""
        topic = self.topics.source_receipts(SOURCE)
        self._producer.publish(
            [Message(topic, 0, receipt["lead_id"].encode(), orjson.dumps(receipt)) for receipt in receipts]
        )

    def tell_buyer(
        self, *bodies: Mapping[str, Any], kind: str = "leads", buyer: str = BUYER, first: int = 1
    ) -> None:
        """Write records for a buyer, as the router does."""
        topic = self.topics.buyer_leads(buyer) if kind == "leads" else self.topics.buyer_pings(buyer)
        self._producer.publish(
            [
                Message(
                    topic,
                    0,
                    body["lead_id"].encode(),
                    orjson.dumps(body),
                    (("ce_id", f"0:{number}:{kind}".encode()), ("content-type", b"application/json")),
                )
                for number, body in enumerate(bodies, start=first)
            ]
        )

    def read_until(self, done: Callable[[list[Record]], bool], *topics: str) -> list[Record]:
        """Read topics from their beginnings until what was read suffices."""
        consumer = Consumer(
            self.connection.librdkafka(
                group_id="unused", enable_auto_commit=False, auto_offset_reset="earliest"
            )
        )
        consumer.assign(
            [TopicPartition(topic, at, 0) for topic in topics for at in range(self._partitions(topic))]
        )
        found: list[Record] = []
        ends_at_s = time.monotonic() + WITHIN_S
        while not done(found):
            assert time.monotonic() < ends_at_s, f"{len(found)} of {topics}: {self.logged()[-4_000:]}"
            messages = consumer.consume(1_000, 0.1)
            found += [record_of(message) for message in messages if message.error() is None]
        consumer.close()
        return found

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Look into the database, as one who may see everything."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(query.encode()).fetchall()

    def do(self, statement: str) -> None:
        """Change the database."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(statement.encode())

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for progress, with a deadline."""
        ends_at_s = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < ends_at_s, f"not in time: {what}: {self.logged()[-4_000:]}"
            time.sleep(0.02)

    def logged(self) -> str:
        """Read what all workers have logged."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def partition_of(self, lead_id: str) -> int:
        """Say in which partition of its source's topic a lead stands."""
        return partition_of(lead_id, self._partitions(self.topics.source_leads(SOURCE)))

    def close(self) -> None:
        """Delete the topics."""
        names = [wanted.name for wanted in wanted_topics(self.topics, self._market, brokers=1)]
        admin = AdminClient(self.connection.librdkafka())
        for future in admin.delete_topics(names).values():
            future.result(30)

    def _partitions(self, topic: str) -> int:
        wanted = wanted_topics(self.topics, self._market, brokers=1)
        return next(each.partitions for each in wanted if each.name == topic)


@dataclass(frozen=True, slots=True)
class Received:
    """A webhook as its buyer gets it."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        """Read it."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a buyer's machine answers, and how slow it is."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    until: threading.Event | None = None


class WebhookReceiver:
    """A buyer's machine; `reply` says what it answers to each request."""

    def __init__(self, reply: Callable[[Received], Reply] = lambda _: Reply()) -> None:
        """Listen on a port of its own."""
        self.received: list[Received] = []
        self.reply = reply
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                receiver.received.append(received)
                reply = receiver.reply(received)
                if reply.until is not None:
                    reply.until.wait(WITHIN_S)
                try:
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(reply.body)))
                    self.end_headers()
                    self.wfile.write(reply.body)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WITHIN_S)


@contextmanager
def receivers(*replies: Callable[[Received], Reply]) -> Iterator[Sequence[WebhookReceiver]]:
    """Run several machines of buyers."""
    running = [WebhookReceiver(reply) for reply in replies]
    try:
        yield running
    finally:
        for receiver in running:
            receiver.close()


def free_port() -> int:
    """Find a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
