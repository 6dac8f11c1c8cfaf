"""Intake as real processes on real Kafka and PostgreSQL: a market's topics, workers to be killed, what comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psycopg
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.local.stack import Stack
from services.bus.administration import create_topics, wanted_topics
from services.bus.kafka import Connection, LogProducer, record_of
from services.bus.migrations import migrate
from services.bus.ports import Message, Record
from services.contract.market import Market
from services.contract.topics import Topics
from services.market import store as markets
from services.vault.keys import make_key, read_key
from services.vault.sealing import Vault

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0


class IntakeOnKafka:
    """A Gavel of the test's own on the shared servers, with the topics of its market."""

    def __init__(self, stack: Stack, database: str, folder: Path, market: Market) -> None:
        """Bring database and topics to what intake needs."""
        self.topics = Topics(namespace=f"t-{uuid.uuid4().hex[:12]}.")
        self.database = database
        self._folder = folder
        self._market = market
        self.connection = Connection(bootstrap=stack.kafka)
        migrate(database)
        self.apply(market, base_version=0)
        create_topics(self.connection, self.topics, market)
        for key in ("vault.key", "fingerprint.key"):
            make_key(folder / key)
        self.vault = Vault(read_key(folder / "vault.key"))
        self._producer = LogProducer(self.connection)
        self._environment = {
            **os.environ,
            "GAVEL_KAFKA": stack.kafka,
            "GAVEL_DATABASE": database,
            "GAVEL_NAMESPACE": self.topics.namespace,
            "GAVEL_SESSION_TIMEOUT_MS": "1000",
            "GAVEL_VAULT_KEY_FILE": str(folder / "vault.key"),
            "GAVEL_FINGERPRINT_KEY_FILE": str(folder / "fingerprint.key"),
        }

    def apply(self, market: Market, *, base_version: int) -> None:
        """Bring a market into force."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            markets.apply(connection, market, base_version, files=(), applied_by="tests")

    def send(self, topic: str, values: Sequence[bytes], partitions: int) -> None:
        """Do as a source or buyer does."""
        headers = (("canary", b"canary"),)
        self._producer.publish(
            [Message(topic, at % partitions, b"canary", value, headers) for at, value in enumerate(values)]
        )

    @contextmanager
    def worker(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker, and end it with SIGKILL."""
        with (self._folder / f"intake-{uuid.uuid4().hex[:6]}.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.intake"],
                cwd=ROOT,
                env=self._environment | environment,
                stdout=output,
                stderr=output,
            )
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()

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
            if time.monotonic() > ends_at_s:
                raise AssertionError(
                    f"{len(found)} records of {topics} did not suffice: {self.logged()[-4_000:]}"
                )
            messages = consumer.consume(1_000, 0.1)
            found += [record_of(message) for message in messages if message.error() is None]
        consumer.close()
        return found

    def await_position(self, topic: str, partition: int, offset: int) -> None:
        """Wait until the group has committed this position."""
        consumer = Consumer(
            self.connection.librdkafka(group_id=self.topics.group("intake"), enable_auto_commit=False)
        )
        ends_at_s = time.monotonic() + WITHIN_S
        committed = None
        while committed != offset:
            assert time.monotonic() < ends_at_s, f"the group is at {committed}: {self.logged()[-4_000:]}"
            (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=WITHIN_S)
            committed = found.offset
        consumer.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Look into the database, as one who may see everything."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(query.encode()).fetchall()

    def logged(self) -> str:
        """Read what all workers have logged."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        """Delete the topics."""
        names = [wanted.name for wanted in wanted_topics(self.topics, self._market, brokers=1)]
        admin = AdminClient(self.connection.librdkafka())
        for future in admin.delete_topics(names).values():
            future.result(30)

    def _partitions(self, topic: str) -> int:
        wanted = wanted_topics(self.topics, self._market, brokers=1)
        return next(each.partitions for each in wanted if each.name == topic)


def happened(receipt: Record) -> str:
    """Say in a word what a receipt tells."""
    assert receipt.value is not None
    (told,) = orjson.loads(receipt.value)["happened"]
    return str(told.get("reason", told["type"]))
