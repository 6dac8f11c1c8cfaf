"""Every metric of a hosted step, in one typed list: times in seconds, counts in `_total`, no lead ids as labels.

Metrics are for people; no decision reads one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


class HostMetrics:
    """What the host of one step counts."""

    def __init__(self, step: str) -> None:
        """Begin at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        self.records = Counter(
            "gavel_bus_records_total", "Records handed to the step.", ["step"], registry=self.registry
        ).labels(step)
        self.void_records = Counter(
            "gavel_bus_void_records_total",
            "Records dropped because their partition was revoked or begun again after they were read.",
            ["step"],
            registry=self.registry,
        ).labels(step)
        self.batches = Histogram(
            "gavel_bus_batch_records",
            "Records of a batch.",
            ["step"],
            buckets=_RECORDS,
            registry=self.registry,
        ).labels(step)
        self.handle_seconds = Histogram(
            "gavel_bus_handle_seconds",
            "Time that the step took for a batch.",
            ["step"],
            buckets=_SECONDS,
            registry=self.registry,
        ).labels(step)
        self.queue_seconds = Histogram(
            "gavel_bus_queue_seconds",
            "Time from a batch's first record being read until the step began with it.",
            ["step"],
            buckets=_SECONDS,
            registry=self.registry,
        ).labels(step)
        self.rebalances = Counter(
            "gavel_bus_rebalances_total",
            "Partitions assigned, revoked or lost, one at each change.",
            ["step"],
            registry=self.registry,
        ).labels(step)
        self.restarts = Counter(
            "gavel_bus_restarts_total",
            "Partitions begun again because the step asked for it.",
            ["step"],
            registry=self.registry,
        ).labels(step)
        self.tried_again = Counter(
            "gavel_bus_tried_again_total",
            "Passing faults, after each of which all partitions were begun again.",
            ["step"],
            registry=self.registry,
        ).labels(step)
        self.pauses = Counter(
            "gavel_bus_pauses_total",
            "Times that reading was paused for back-pressure.",
            ["step"],
            registry=self.registry,
        ).labels(step)
        self.lag_seconds = Gauge(
            "gavel_bus_lag_seconds",
            "Age of the oldest record that was read and is not handled; 0 where there is none.",
            ["step"],
            registry=self.registry,
        ).labels(step)
        self.lag_records = Gauge(
            "gavel_bus_lag_records",
            "Records at the brokers behind the worker's positions where it reads, as of some seconds ago.",
            ["step"],
            registry=self.registry,
        ).labels(step)
        self.waits = Gauge(
            "gavel_bus_waits", "1 while the worker waits for a server.", ["step"], registry=self.registry
        ).labels(step)
        self.partitions = Gauge(
            "gavel_bus_partitions", "Partitions being read.", ["step"], registry=self.registry
        ).labels(step)
        self.alive = Gauge(
            "gavel_bus_alive",
            "1 while the group is known to know this worker.",
            ["step"],
            registry=self.registry,
        ).labels(step)

    def watch(self, *, oldest_ms: Callable[[], int | None], waits_for: Callable[[], str | None]) -> None:
        """Ask these at each look at the page, and never in between: a lag costs those nothing who work."""
        self.lag_seconds.set_function(lambda: age_s(oldest_ms(), _now_ms()))
        self.waits.set_function(lambda: float(waits_for() is not None))

    def page(self) -> bytes:
        """Render the page that Prometheus reads."""
        return generate_latest(self.registry)


class ReaderMetrics:
    """What a reader of the log counts besides its host."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin at zero."""
        self.repeats = Counter(
            "gavel_reader_repeats_total",
            "Entries of the log dropped because they were taken before.",
            registry=registry,
        )
        self.ahead = Counter(
            "gavel_reader_ahead_total",
            "Entries of the log dropped because an earlier one is missing.",
            registry=registry,
        )


def age_s(since_ms: int | None, now_ms: int) -> float:
    """Give the age in seconds of what is of `since_ms`: 0 where there is nothing, or clocks differ."""
    return 0.0 if since_ms is None else max(0.0, (now_ms - since_ms) / 1_000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000  # noqa: TID251  # for people: no decision reads a metric
