"""Names of topics, and what each topic is, as declared in `schemas/topics`.

A namespace is put before every name where several Gavels share one cluster (as tests do); it is empty by default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from services.contract.codec import SCHEMAS

DEAD_LETTERS_SUFFIX = ".dlq"

_OUTSIDER = re.compile(r"^(sources|buyers)\.([a-z0-9-]+)\.([a-z]+)$")


@dataclass(frozen=True, slots=True)
class Topics:
    """Every topic name of one Gavel."""

    namespace: str = ""

    @property
    def qualified(self) -> str:
        """Accepted leads, from intake."""
        return f"{self.namespace}leads.qualified"

    @property
    def commands(self) -> str:
        """Answers of buyers and commands of operators."""
        return f"{self.namespace}leads.commands"

    @property
    def timers(self) -> str:
        """Windows that the resale timer holds to be due."""
        return f"{self.namespace}leads.timers"

    @property
    def log(self) -> str:
        """The record of all decisions."""
        return f"{self.namespace}leads.log"

    @property
    def events(self) -> str:
        """The flat feed of the log, one event a record."""
        return f"{self.namespace}leads.events"

    @property
    def registry(self) -> str:
        """Announcements of market versions."""
        return f"{self.namespace}registry"

    def group(self, step: str) -> str:
        """The consumer group of a step's workers."""
        return f"{self.namespace}gavel.{step}"

    def source_leads(self, source_id: str) -> str:
        """Where a source sends its leads."""
        return f"{self.namespace}sources.{source_id}.leads"

    def source_receipts(self, source_id: str) -> str:
        """Where a source reads what became of them."""
        return f"{self.namespace}sources.{source_id}.receipts"

    def buyer_pings(self, buyer_id: str) -> str:
        """Where a buyer reads offers, without contact details."""
        return f"{self.namespace}buyers.{buyer_id}.pings"

    def buyer_answers(self, buyer_id: str) -> str:
        """Where a buyer answers."""
        return f"{self.namespace}buyers.{buyer_id}.answers"

    def buyer_leads(self, buyer_id: str) -> str:
        """Where a buyer reads the leads that it bought."""
        return f"{self.namespace}buyers.{buyer_id}.leads"

    def dead_letters(self, topic: str) -> str:
        """Where intake puts what it cannot process from an outsider's topic."""
        return topic + DEAD_LETTERS_SUFFIX

    def owner_of(self, topic: str) -> tuple[str, str, str] | None:
        """Split an outsider's topic into (`sources` or `buyers`, id, kind); None for any other topic."""
        found = _OUTSIDER.match(topic.removeprefix(self.namespace))
        return (found[1], found[2], found[3]) if found and topic.startswith(self.namespace) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDeclaration:
    """One file of `schemas/topics`: `name` holds `<id>` where a source's or buyer's id stands."""

    name: str
    partitions: int
    config: tuple[tuple[str, str], ...]
    key: str
    records: tuple[str, ...]
    producer: str
    consumers: tuple[str, ...]
    personal_data: str
    dead_letters: bool


@lru_cache(maxsize=1)
def declarations() -> tuple[TopicDeclaration, ...]:
    """Read every declaration, ordered by name."""
    rows: list[dict[str, Any]] = [
        yaml.safe_load(path.read_text()) for path in (SCHEMAS / "topics").glob("*.yaml")
    ]
    return tuple(
        TopicDeclaration(
            name=row["name"],
            partitions=row["partitions"],
            config=tuple((key, str(value)) for key, value in row["config"].items()),
            key=row["key"],
            records=tuple(row["records"]),
            producer=row["producer"],
            consumers=tuple(row["consumers"]),
            personal_data=row["personal_data"],
            dead_letters=row["dead_letters"],
        )
        for row in sorted(rows, key=lambda row: str(row["name"]))
    )


@lru_cache(maxsize=64)
def partitions_declared(name: str) -> int:
    """Give the partition count of a topic by its declared name; raise `StopIteration` for no such topic."""
    return next(declared.partitions for declared in declarations() if declared.name == name)
