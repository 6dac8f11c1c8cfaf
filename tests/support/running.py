"""Gavel's steps as real worker processes on real servers, in a namespace and a database of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from confluent_kafka.admin import AdminClient

from deploy.local.stack import Stack
from services.bus.administration import announce, create_topics
from services.bus.kafka import Connection
from services.bus.migrations import migrate
from services.contract.market import Market
from services.contract.topics import Topics, partitions_declared
from services.market.cli import apply_files
from services.market.reading import open_files
from services.router.store import initialise
from services.vault.keys import make_key

STEPS = ("intake", "router", "resale", "billing", "feed")
STOPS_WITHIN_S = 15.0
SESSION_TIMEOUT_MS = 2_000


@dataclass(slots=True)
class Gavel:
    """A Gavel of the test's own: what it needs, and its workers by name."""

    kafka: str
    database: str
    namespace: str
    folder: Path
    market: Market
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def topics(self) -> Topics:
        """Its topics."""
        return Topics(self.namespace)

    def environment(self) -> dict[str, str]:
        """What a worker or a command is told."""
        return {
            **os.environ,
            "GAVEL_KAFKA": self.kafka,
            "GAVEL_DATABASE": self.database,
            "GAVEL_NAMESPACE": self.namespace,
            "GAVEL_VAULT_KEY_FILE": str(self.folder / "vault.key"),
            "GAVEL_FINGERPRINT_KEY_FILE": str(self.folder / "fingerprint.key"),
            "GAVEL_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
        }

    def start(self, step: str, name: str | None = None, **more: str) -> subprocess.Popen[bytes]:
        """Start a worker of a step; its log is `<folder>/<name>.log`."""
        name = name or step
        with (self.folder / f"{name}.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", f"services.{step}"],
                env={**self.environment(), "GAVEL_WORKER": name, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers[name] = worker
        return worker

    def start_all(self) -> None:
        """Start one worker of each step."""
        for step in STEPS:
            self.start(step)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a worker a signal."""
        self.workers[name].send_signal(number)

    def kill(self, name: str) -> None:
        """End a worker as a power cut does."""
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait(STOPS_WITHIN_S)

    def stop_all(self) -> dict[str, int]:
        """Stop every worker in order; return exit codes."""
        for worker in self.workers.values():
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
        codes = {}
        for name, worker in self.workers.items():
            try:
                codes[name] = worker.wait(STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                codes[name] = worker.wait(STOPS_WITHIN_S)
        self.workers.clear()
        return codes

    def log_of(self, name: str) -> str:
        """Read a worker's log."""
        return (self.folder / f"{name}.log").read_text()

    def ask(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Ask the database."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def wait_all_read(self) -> None:
        """Wait until every reader of the log has taken all of it: one that is stopped before that is not at rest."""
        taken = " or ".join(
            f"h.seq <> coalesce((select seq from {reader}.positions as p where p.partition = h.partition), 0)"
            for reader in ("billing", "resale", "feed")
        )
        behind = f"select count(*) from router.heads as h where {taken}"
        self.wait_until("the log read by all", lambda: self.ask(behind) == [(0,)])

    def wait_until(self, what: str, holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
        """Wait for progress, and fail with what the workers said last."""
        ends_at_s = time.monotonic() + within_s
        while not holds():
            dead = {
                name: worker.returncode for name, worker in self.workers.items() if worker.poll() is not None
            }
            if dead or time.monotonic() > ends_at_s:
                tails = {path.stem: path.read_text()[-1_500:] for path in sorted(self.folder.glob("*.log"))}
                raise AssertionError(
                    f"{what}: not within {within_s:.0f} s; ended workers: {dead}; logs: {tails}"
                )
            time.sleep(0.05)


@contextmanager
def running_gavel(stack: Stack, database: str, folder: Path, market_file: Path) -> Iterator[Gavel]:
    """Set a Gavel up with a market; the workers are the test's to start, and are all stopped at the end."""
    namespace = f"t-{folder.name}-{os.getpid()}-{time.monotonic_ns() % 1_000_000_000}.".replace(
        "_", "-"
    ).lower()
    connection, topics = Connection(bootstrap=stack.kafka), Topics(namespace)
    for key in ("vault", "fingerprint"):
        make_key(folder / f"{key}.key")
    migrate(database)
    with psycopg.connect(database, autocommit=True) as admin:
        initialise(admin, partitions())
    announced: list[Market] = []

    def follow(market: Market) -> None:
        create_topics(connection, topics, market)
        announce(connection, topics, version=market.version, at_ms=0)
        announced.append(market)

    apply_files(database, open_files([market_file]), dry_run=False, base_version=None, announce=follow)
    gavel = Gavel(stack.kafka, database, namespace, folder, announced[-1])
    try:
        yield gavel
    finally:
        gavel.stop_all()
        _delete_topics(connection, namespace)


def partitions() -> int:
    """The partition count of the log."""
    return partitions_declared("leads.log")


def _delete_topics(connection: Connection, namespace: str) -> None:
    admin = AdminClient(connection.librdkafka())
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(namespace)]
    if names:
        for done in admin.delete_topics(names).values():
            done.result(timeout=30)
