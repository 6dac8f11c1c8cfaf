"""What the harness asks of a pipeline that it measures, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from confluent_kafka import Message

from bench.processes import Worker

BUYERS = ("bench-a", "bench-b", "bench-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where one run takes place: real servers, a namespace and a database of its own, a folder for logs and keys."""

    kafka: str
    database: str
    namespace: str
    folder: Path
    vault_key_file: Path
    fingerprint_key_file: Path


class Pipeline(Protocol):
    """A pipeline that takes submissions, delivers each lead to three buyers and books three sales for it."""

    @property
    def submit_topic(self) -> str:
        """Where leads are sent."""
        ...

    @property
    def delivery_topics(self) -> tuple[str, ...]:
        """Where each buyer reads, its records keyed by lead id."""
        ...

    @property
    def workers(self) -> Sequence[Worker]:
        """The processes that run."""
        ...

    def prepare(self) -> None:
        """Make topics and tables, before the measurement."""
        ...

    def start(self) -> None:
        """Start the workers."""
        ...

    def stop(self) -> None:
        """Stop the workers, also after a start that failed."""
        ...

    def is_delivery(self, message: Message, /) -> bool:
        """Tell a lead from anything else that a buyer is sent."""
        ...

    def billed_sales(self) -> int | None:
        """Count the sales that are booked; None where the pipeline books none."""
        ...
