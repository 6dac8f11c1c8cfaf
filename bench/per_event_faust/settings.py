"""Owns what the three Faust apps share: their settings, their topic names and how an app is made."""

from __future__ import annotations

from dataclasses import dataclass

import faust

PARTITIONS = 4
TABLES = (("intake", "people"), ("router", "leads"))
BUYERS = ("bench-a", "bench-b", "bench-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the servers are, and the namespace that keeps this run's topics apart."""

    kafka: str
    database: str
    namespace: str
    data_folder: str

    @property
    def submitted(self) -> str:
        """Leads as their source sends them."""
        return f"{self.namespace}faust.submitted"

    @property
    def accepted(self) -> str:
        """Valid leads, seen for the first time."""
        return f"{self.namespace}faust.accepted"

    @property
    def decisions(self) -> str:
        """Who got each lead, and at what price."""
        return f"{self.namespace}faust.decisions"

    def delivered(self, buyer_id: str) -> str:
        """Leads that this buyer bought."""
        return f"{self.namespace}faust.delivered.{buyer_id}"

    def app_id(self, step: str) -> str:
        """Name a Faust app, which is its consumer group as well."""
        return f"{self.namespace}faust-{step}"

    def changelogs(self) -> tuple[str, ...]:
        """Topics behind the tables, which are to exist beforehand.

        Faust would make them itself, but takes partitions over before it knows of them, and then loses a record for
        each time that it fails to write to one.
        """
        return tuple(f"{self.app_id(step)}-{table}-changelog" for step, table in TABLES)

    def topics(self) -> tuple[str, ...]:
        """Topics of records."""
        return (self.submitted, self.accepted, self.decisions, *(self.delivered(buyer) for buyer in BUYERS))


def new_app(settings: Settings, step: str) -> faust.App:
    """Make a Faust app with the documentation's defaults, its tables in memory and no web server."""
    return faust.App(
        id=settings.app_id(step),
        broker=[f"kafka://{address}" for address in settings.kafka.split(",")],
        datadir=settings.data_folder,
        store="memory://",
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        autodiscover=False,
        web_enabled=False,
    )
