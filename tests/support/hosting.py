"""Topics of a test's own on real Kafka, and hosted workers as processes that can be paused, killed and listened to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from services.bus.kafka import Connection, LogProducer
from services.bus.ports import Message

ROOT = Path(__file__).parents[2]
WITHIN_S = 90.0
PARTITIONS = 4
SESSION_TIMEOUT_MS = 1_000


def wait_until(what: str, done: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
    """Wait for progress, with a deadline."""
    ends_at_s = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < ends_at_s, f"not within {within_s} s: {what}"
        time.sleep(0.02)


@dataclass(slots=True)
class Worker:
    """One process, its events on stdout and its log on stderr."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Read what it told so far."""
        lines = self.out.read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in told if not kinds or event["event"] in kinds]

    def log(self) -> list[dict[str, Any]]:
        """Read its log; every line must be JSON."""
        return [json.loads(line) for line in self.err.read_text().splitlines()]

    def owned(self) -> set[int]:
        """Name the partitions that it took over and did not release."""
        owned: set[int] = set()
        for event in self.events("take_over", "release"):
            numbers = {partition for _, partition in event["partitions"]}
            owned = owned | numbers if event["event"] == "take_over" else owned - numbers
        return owned

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit_code(self, *, within_s: float = WITHIN_S) -> int:
        """Wait for its end."""
        return self.process.wait(within_s)


@dataclass(slots=True)
class Cluster:
    """Real Kafka, seen from one namespace."""

    kafka: str
    folder: Path
    namespace: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:12]}.")
    topics: list[str] = field(default_factory=list)

    @property
    def connection(self) -> Connection:
        """Say how to reach it."""
        return Connection(bootstrap=self.kafka)

    def create(self, name: str, partitions: int = PARTITIONS, **config: str) -> str:
        """Create a topic and return its whole name."""
        topic = self.namespace + name
        new = NewTopic(
            topic, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()}
        )
        admin = AdminClient({"bootstrap.servers": self.kafka})
        admin.create_topics([new])[topic].result(20)
        self.topics.append(topic)
        return topic

    def delete(self) -> None:
        """Delete the topics."""
        if not self.topics:
            return
        admin = AdminClient({"bootstrap.servers": self.kafka})
        for future in admin.delete_topics(self.topics).values():
            future.result(20)

    def fill(self, topic: str, count: int, partitions: int = PARTITIONS) -> None:
        """Write records, partition by partition in turn."""
        LogProducer(self.connection).publish(
            [Message(topic, index % partitions, b"key", b"content %d" % index) for index in range(count)]
        )

    @contextmanager
    def worker(self, **behaviour: Any) -> Iterator[Worker]:
        """Run a worker; kill it at the end if it still runs."""
        environment = {name: value for name, value in behaviour.items() if name.isupper()}
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        told = {name: value for name, value in behaviour.items() if not name.isupper()}
        out, err = (self.folder / f"{uuid.uuid4().hex[:8]}.{kind}" for kind in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.hosted_worker",
                    json.dumps({"store": str(store)} | told),
                ],
                cwd=ROOT,
                env={**self._environment(), **environment},
                stdout=stdout,
                stderr=stderr,
            )
        worker = Worker(process, out, err)
        try:
            yield worker
        finally:
            worker.signal(signal.SIGKILL)
            worker.signal(signal.SIGCONT)
            worker.process.wait()

    def seen(self, topic: str) -> dict[int, list[int]]:
        """Read which offsets the workers took of each partition, in the order in which they did."""
        return {
            int(file.stem.rpartition("-")[2]): [int(line) for line in file.read_text().split()]
            for file in (self.folder / "store").glob(f"{topic}-*.seen")
        }

    def seen_count(self, topic: str) -> int:
        """Count them."""
        return sum(len(offsets) for offsets in self.seen(topic).values())

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("GAVEL_")},
            "GAVEL_KAFKA": self.kafka,
            "GAVEL_DATABASE": "postgresql://unused",
            "GAVEL_NAMESPACE": self.namespace,
            "GAVEL_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
            "GAVEL_BATCH_MAX": "50",
        }
