"""Builds the billing worker: its topic, its group, what the step is made of. It opens nothing itself."""

from __future__ import annotations

from collections.abc import Callable

from services.billing.metrics import BillingMetrics
from services.billing.settings import BillingSettings
from services.billing.step import Billing
from services.billing.weighing import WeighableLedger, WeighedFold
from services.bus.hosting import GavelApp, Membership, Subscription, build_app
from services.bus.liveness import monotonic_s
from services.bus.log_reader import LogReader
from services.contract.codec import codec
from services.contract.topics import partitions_declared

STEP = "billing"
GATHERS_MS = 200


def build(settings: BillingSettings, *, open_ledger: Callable[[], WeighableLedger]) -> GavelApp:
    """Build the app; the ledger is opened once it runs, in the step's thread."""
    topic = settings.topics.log

    def make_step(membership: Membership) -> LogReader:
        ledger, registry = open_ledger(), membership.registry
        fold = WeighedFold(
            Billing(ledger, codec()), ledger, BillingMetrics(registry), monotonic_s=monotonic_s
        )
        return LogReader(fold, codec(), topic=topic, monotonic_s=monotonic_s, registry=registry)

    subscription = Subscription(
        group=settings.topics.group(STEP),
        topics=lambda: [topic],
        partitions=partitions_declared("leads.log"),
        gathers_ms=GATHERS_MS,
    )
    return build_app(settings, step=STEP, factory=make_step, subscription=subscription)
