"""The control as a `Pipeline`: three Faust workers of `bench.per_event_faust`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg
from confluent_kafka import Message

from bench.per_event_faust.settings import BUYERS, PARTITIONS, Settings
from bench.pipeline import Site
from bench.processes import Worker, stop_all
from bench.servers import create_topics

NAME = "per-event Faust"
STEPS = ("intake", "router", "billing")
_SCHEMA = Path(__file__).parent / "per_event_faust" / "schema.sql"


class PerEventFaust:
    """One worker each for intake, router and billing."""

    def __init__(self, site: Site) -> None:
        """Connect to the site; nothing is started or made yet."""
        self._site = site
        self._settings = Settings(
            kafka=site.kafka,
            database=site.database,
            namespace=site.namespace,
            data_folder=str(site.folder / "faust"),
        )
        self._workers: list[Worker] = []
        self._connection: psycopg.Connection[tuple[int]] = psycopg.connect(site.database, autocommit=True)

    @property
    def submit_topic(self) -> str:
        """Where leads are sent."""
        return self._settings.submitted

    @property
    def delivery_topics(self) -> tuple[str, ...]:
        """Where each buyer reads."""
        return tuple(self._settings.delivered(buyer) for buyer in BUYERS)

    @property
    def workers(self) -> Sequence[Worker]:
        """The processes that run."""
        return self._workers

    def prepare(self) -> None:
        """Make topics and tables."""
        compacted = {"cleanup.policy": "compact"}
        create_topics(self._site.kafka, self._settings.topics(), partitions=PARTITIONS)
        create_topics(self._site.kafka, self._settings.changelogs(), partitions=PARTITIONS, config=compacted)
        self._connection.execute(_SCHEMA.read_bytes())

    def start(self) -> None:
        """Start the three workers."""
        for step in STEPS:
            self._start(step)

    def stop(self) -> None:
        """Stop them."""
        stop_all(self._workers)
        self._connection.close()

    def is_delivery(self, _: Message, /) -> bool:
        """The control sends buyers nothing but leads."""
        return True

    def billed_sales(self) -> int:
        """Count the rows of sales."""
        row = self._connection.execute("select count(*) from faust_billing.sales").fetchone()
        return row[0] if row else 0

    def _start(self, step: str) -> None:
        environment = {
            "GAVEL_KAFKA": self._site.kafka,
            "GAVEL_DATABASE": self._site.database,
            "GAVEL_NAMESPACE": self._site.namespace,
            "BENCH_DATA_FOLDER": f"{self._settings.data_folder}-{step}",
        }
        Worker.start_on(
            self._workers,
            step,
            ["-m", "bench.per_event_faust", step],
            environment=environment,
            log_file=self._site.folder / f"faust-{step}.log",
        )
