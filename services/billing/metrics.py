"""Every metric of billing, in one typed list: the ledger's own, beside what its host and its reader count."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge


class BillingMetrics:
    """What billing says of its ledger."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin with nothing weighed."""
        self.imbalance_cents = Gauge(
            "gavel_billing_imbalance_cents",
            "Debits less credits of all accounts, in minor units: 0, or the ledger is wrong.",
            ["currency"],
            registry=registry,
        )
        self.weighed_at = Gauge(
            "gavel_billing_weighed_timestamp_seconds",
            "When the accounts were added up last, in seconds since 1970.",
            registry=registry,
        )
