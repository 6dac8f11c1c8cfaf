"""Workers that read the log as real processes on real Kafka: their topics, the log they read, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.stack import Stack
from services.bus.kafka import Connection, LogProducer
from services.bus.ports import Message
from services.contract.events import Event
from services.contract.topics import Topics, partitions_declared
from tests.support.written_log import WrittenLog

PARTITIONS = partitions_declared("leads.log")
WITHIN_S = 60.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Written:
    """A record as it was read: when Kafka got it, or the timestamp that its producer gave it."""

    partition: int
    key: str
    value: bytes
    timestamp_ms: int


class LogOnKafka:
    """A Gavel of the test's own on the shared servers: a namespace, a database, and a log written by the test."""

    def __init__(self, stack: Stack, database: str, folder: Path) -> None:
        """Create the topics."""
        self.topics = Topics(namespace=f"t-{uuid.uuid4().hex[:12]}.")
        self._kafka = stack.kafka
        self._folder = folder
        self._environment = {
            **os.environ,
            "GAVEL_KAFKA": stack.kafka,
            "GAVEL_DATABASE": database,
            "GAVEL_NAMESPACE": self.topics.namespace,
        }
        self._producer = LogProducer(Connection(bootstrap=stack.kafka))
        self._log = WrittenLog(PARTITIONS)
        self._admin = AdminClient({"bootstrap.servers": stack.kafka})
        self._create(self.topics.log, self.topics.timers, self.topics.events, self.topics.registry)

    def append(self, *entries: tuple[str, tuple[Event, ...]], decided_at_ms: int = 1_790_000_000_000) -> None:
        """Write entries to the log."""
        self._producer.publish(
            [
                Message(
                    self.topics.log,
                    self._log.partition_of(lead_id),
                    lead_id.encode(),
                    self._log.next_value(lead_id, *events, decided_at_ms=decided_at_ms),
                )
                for lead_id, events in entries
            ]
        )

    def partition_of(self, lead_id: str) -> int:
        """Say where the lead's entries stand."""
        return self._log.partition_of(lead_id)

    @contextmanager
    def worker(self, step: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker of a step, and end it with SIGKILL."""
        with (self._folder / f"{step}-{uuid.uuid4().hex[:6]}.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"services.{step}"],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def read_until(self, topic: str, done: Callable[[list[Written]], bool]) -> list[Written]:
        """Read a topic from its beginning until what was read suffices."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._kafka,
                "group.id": "unused",
                "enable.auto.commit": False,
                # A new topic may not have its first offset for an instant: then from the beginning, never the end.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 5,
            }
        )
        consumer.assign([TopicPartition(topic, at, 0) for at in range(PARTITIONS)])
        found: list[Written] = []
        ends_at_s = time.monotonic() + WITHIN_S
        while not done(found):
            if time.monotonic() > ends_at_s:
                raise AssertionError(f"{len(found)} records on {topic} did not suffice: {self._last_words()}")
            found += [
                Written(
                    message.partition() or 0,
                    (message.key() or b"").decode(),
                    message.value() or b"",
                    message.timestamp()[1],
                )
                for message in consumer.consume(1_000, 0.1)
                if message.error() is None
            ]
        consumer.close()
        return found

    def close(self) -> None:
        """Delete the topics."""
        names = [self.topics.log, self.topics.timers, self.topics.events, self.topics.registry]
        for future in self._admin.delete_topics(names).values():
            future.result(10)

    def _create(self, *names: str) -> None:
        created = self._admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
        for future in created.values():
            future.result(10)

    def _last_words(self) -> str:
        return "\n".join(path.read_text()[-2_000:] for path in sorted(self._folder.glob("*.log")))
