"""Gavel as a `Pipeline`: its five steps as worker processes, as an operator would start them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import psycopg
from confluent_kafka import Message

from bench.leads import SOURCE_ID
from bench.pipeline import BUYERS, Site
from bench.processes import Worker, stop_all
from services.bus.settings import StepSettings
from services.cli.market_commands import follow_apply
from services.cli.setup_command import set_up
from services.contract.market import Market
from services.contract.topics import Topics
from services.market.cli import apply_files
from services.market.reading import open_files

NAME = "Gavel"
_LEAD_HEADER = ("ce_type", b"gavel.lead.v1")
STEPS = ("intake", "router", "billing", "resale", "feed")
MARKET = Path(__file__).parent / "market.yaml"


class Gavel:
    """Workers of intake, router, billing, resale and feed: one each, or as many as `workers_of` says."""

    market: ClassVar[Path] = MARKET
    buyers: ClassVar[tuple[str, ...]] = BUYERS

    def __init__(self, site: Site, workers_of: Mapping[str, int] = MappingProxyType({})) -> None:
        """Connect to the site; nothing is started or made yet."""
        self._site = site
        self._workers_of = workers_of
        self._topics = Topics(namespace=site.namespace)
        self._workers: list[Worker] = []
        self._connection: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(
            site.database, autocommit=True
        )

    @property
    def submit_topic(self) -> str:
        """Where leads are sent."""
        return self._topics.source_leads(SOURCE_ID)

    @property
    def delivery_topics(self) -> tuple[str, ...]:
        """Where each buyer reads."""
        return tuple(self._topics.buyer_leads(buyer) for buyer in self.buyers)

    @property
    def workers(self) -> Sequence[Worker]:
        """The processes that run."""
        return self._workers

    def prepare(self) -> None:
        """Make tables, topics and market, as `gavel setup` and `gavel market apply` do."""
        site = self._site
        settings = StepSettings(kafka=site.kafka, database=site.database, namespace=site.namespace)

        def announce(market: Market) -> None:
            follow_apply(market, settings)

        set_up(settings)
        apply_files(
            site.database, open_files([self.market]), dry_run=False, base_version=None, announce=announce
        )

    def start(self) -> None:
        """Start the workers."""
        for step in STEPS:
            for number in range(1, self._workers_of.get(step, 1) + 1):
                self.add_worker(step, number)

    def drop_worker(self, worker: Worker) -> None:
        """Expect no longer that it runs."""
        self._workers.remove(worker)

    def stop_workers(self) -> None:
        """Stop all workers; tables and topics stay as they are."""
        stop_all(self._workers)

    def shares(self, step: str) -> dict[str, set[tuple[str, int]]]:
        """Say which partitions each worker of a step has, by what it has logged."""
        of_step = [worker for worker in self._workers if worker.name.split("-")[0] == step]
        return {worker.name: owned_by(events_of(worker.log_file)) for worker in of_step}

    def is_shared(self, step: str) -> bool:
        """Tell whether every worker of a step has partitions, and none those of another."""
        shares = self.shares(step).values()
        return all(shares) and sum(map(len, shares)) == len(set[tuple[str, int]]().union(*shares))

    def evictions(self) -> int:
        """Count how often the group took partitions away from a worker that it took for dead."""
        logs = self._site.folder.glob("gavel-*.log")
        return sum(event.get("event") == "lost" for log in logs for event in events_of(log))

    def stop(self) -> None:
        """Stop them, and let go of the database."""
        self.stop_workers()
        self._connection.close()

    def is_delivery(self, message: Message, /) -> bool:
        """Tell a lead from a notice by its CloudEvents type."""
        return _LEAD_HEADER in (message.headers() or ())

    def billed_sales(self) -> int:
        """Count the sales in billing's books."""
        row = self._connection.execute("select count(*) from billing.sales").fetchone()
        return int(row[0]) if row else 0

    def closed_leads(self) -> int:
        """Count the leads whose selling is over, as billing has read it in the log."""
        row = self._connection.execute(
            "select count(*) from billing.leads where outcome is not null"
        ).fetchone()
        return int(row[0]) if row else 0

    def add_worker(self, step: str, number: int) -> Worker:
        """Start one more worker of a step."""
        environment = {
            "GAVEL_KAFKA": self._site.kafka,
            "GAVEL_DATABASE": self._site.database,
            "GAVEL_NAMESPACE": self._site.namespace,
            "GAVEL_VAULT_KEY_FILE": str(self._site.vault_key_file),
            "GAVEL_FINGERPRINT_KEY_FILE": str(self._site.fingerprint_key_file),
            # Half of what every broker allows: the local one is set up for it, and take-over is measured with it.
            "GAVEL_SESSION_TIMEOUT_MS": os.environ.get("GAVEL_SESSION_TIMEOUT_MS", "3000"),
        }
        name = step if number == 1 else f"{step}-{number}"
        return Worker.start_on(
            self._workers,
            name,
            ["-m", f"services.{step}"],
            environment=environment,
            log_file=self._site.folder / f"gavel-{name}.log",
        )


def events_of(log: Path) -> list[dict[str, Any]]:
    """Read what a worker has logged so far; what is no JSON, such as a library's own line, is left out."""
    return [event for line in log.read_text(errors="replace").splitlines() if (event := _event(line))]


def owned_by(events: Sequence[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """Say which partitions a worker has, by what it has logged of its place in the group."""
    owned: set[tuple[str, int]] = set()
    for event in events:
        named = event.get("partitions")
        partitions = {(topic, at) for topic, numbers in (named or {}).items() for at in numbers}
        if event.get("event") == "assigned":
            owned |= partitions
        elif event.get("event") in ("revoked", "lost"):
            owned -= partitions
    return owned


def _event(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
