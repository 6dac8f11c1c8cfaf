"""Builds the worker of the resale timer: its topics, its group, what the step is made of. It opens nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from services.bus.hosting import GavelApp, Membership, Subscription, build_app
from services.bus.liveness import monotonic_s
from services.bus.ports import Producer
from services.bus.settings import StepSettings
from services.contract.codec import codec
from services.contract.topics import partitions_declared
from services.resale.store import WindowStore
from services.resale.timer import ResaleTimer

STEP = "resale"
GATHERS_MS = 200


def build(
    settings: StepSettings, *, open_windows: Callable[[], WindowStore], open_producer: Callable[[], Producer]
) -> GavelApp:
    """Build the app; the table and the producer are opened once it runs, in the step's thread."""
    topics = settings.topics

    def make_step(membership: Membership) -> ResaleTimer:
        return ResaleTimer(
            open_windows(),
            open_producer(),
            codec(),
            topics,
            monotonic_s=monotonic_s,
            wait_s=time.sleep,
            registry=membership.registry,
        )

    subscription = Subscription(
        group=topics.group(STEP),
        topics=lambda: [topics.log],
        partitions=partitions_declared("leads.log"),
        gathers_ms=GATHERS_MS,
    )
    return build_app(settings, step=STEP, factory=make_step, subscription=subscription)
