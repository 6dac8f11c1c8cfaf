"""Builds the worker of the feed: its topics, its group, what the step is made of. It opens nothing itself."""

from __future__ import annotations

from collections.abc import Callable

from services.bus.hosting import GavelApp, Membership, Subscription, build_app
from services.bus.liveness import monotonic_s
from services.bus.log_reader import LogReader
from services.bus.ports import Producer
from services.bus.settings import StepSettings
from services.contract.codec import codec
from services.contract.topics import partitions_declared
from services.feed.publishing import EventFeed
from services.feed.store import FeedPositions

STEP = "feed"
GATHERS_MS = 200


def build(
    settings: StepSettings,
    *,
    open_positions: Callable[[], FeedPositions],
    open_producer: Callable[[], Producer],
) -> GavelApp:
    """Build the app; positions and producer are opened once it runs, in the step's thread."""
    topics = settings.topics

    def make_step(membership: Membership) -> LogReader:
        feed = EventFeed(open_positions(), open_producer(), topics)
        return LogReader(
            feed, codec(), topic=topics.log, monotonic_s=monotonic_s, registry=membership.registry
        )

    subscription = Subscription(
        group=topics.group(STEP),
        topics=lambda: [topics.log],
        partitions=partitions_declared("leads.log"),
        gathers_ms=GATHERS_MS,
    )
    return build_app(settings, step=STEP, factory=make_step, subscription=subscription)
