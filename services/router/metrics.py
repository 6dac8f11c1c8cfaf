"""What the router counts for people, beside what its host counts; no decision reads one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_CLOSE_SECONDS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class RouterMetrics:
    """The router's own metrics, in a registry that its host serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin at zero."""
        self.breakers = Counter(
            "gavel_router_breakers_total",
            "Changes of the breakers of buyers that don't answer pings.",
            ["change"],
            registry=registry,
        )
        self.limits_short = Counter(
            "gavel_router_limits_short_total",
            "Batches decided again because a limit had less room than was known.",
            registry=registry,
        )
        self.locked_batches = Counter(
            "gavel_router_locked_batches_total",
            "Batches decided under locks, because deciding first had failed repeatedly.",
            registry=registry,
        )
        self.passed_over = Counter(
            "gavel_router_passed_over_total",
            "Times that an order was passed over for a limit, its breaker or its limit of pings.",
            registry=registry,
        )
        self.auction_close_seconds = Histogram(
            "gavel_router_auction_close_seconds",
            "Time from an auction's end to the decision on it.",
            buckets=_CLOSE_SECONDS,
            registry=registry,
        )
