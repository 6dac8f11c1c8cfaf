"""Every metric of a hosted step, in one typed list: times in seconds, counts in `_total`, no lead ids as labels.

Metrics are for people; no decision reads one.
"""

from __future__ import annotations

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
        self.partitions = Gauge(
            "gavel_bus_partitions", "Partitions being read.", ["step"], registry=self.registry
        ).labels(step)
        self.alive = Gauge(
            "gavel_bus_alive",
            "1 while the group is known to know this worker.",
            ["step"],
            registry=self.registry,
        ).labels(step)

    def page(self) -> bytes:
        """Render the page that Prometheus reads."""
        return generate_latest(self.registry)
