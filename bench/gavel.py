"""Gavel as a `Pipeline`: its five steps as worker processes, one each, as an operator would start them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    """One worker each for intake, router, billing, resale and feed."""

    def __init__(self, site: Site) -> None:
        """Connect to the site; nothing is started or made yet."""
        self._site = site
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
        return tuple(self._topics.buyer_leads(buyer) for buyer in BUYERS)

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
        apply_files(site.database, open_files([MARKET]), dry_run=False, base_version=None, announce=announce)

    def start(self) -> None:
        """Start the five workers."""
        for step in STEPS:
            self._workers.append(self._worker(step))

    def stop(self) -> None:
        """Stop them."""
        stop_all(self._workers)
        self._connection.close()

    def is_delivery(self, message: Message, /) -> bool:
        """Tell a lead from a notice by its CloudEvents type."""
        return _LEAD_HEADER in (message.headers() or ())

    def billed_sales(self) -> int:
        """Count the sales in billing's books."""
        row = self._connection.execute("select count(*) from billing.sales").fetchone()
        return int(row[0]) if row else 0

    def _worker(self, step: str) -> Worker:
        environment = {
            "GAVEL_KAFKA": self._site.kafka,
            "GAVEL_DATABASE": self._site.database,
            "GAVEL_NAMESPACE": self._site.namespace,
            "GAVEL_VAULT_KEY_FILE": str(self._site.vault_key_file),
            "GAVEL_FINGERPRINT_KEY_FILE": str(self._site.fingerprint_key_file),
        }
        return Worker(
            step,
            ["-m", f"services.{step}"],
            environment=environment,
            log_file=self._site.folder / f"gavel-{step}.log",
        )
