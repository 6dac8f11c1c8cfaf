"""Builds the worker of intake: which topics, which group, what the step is made of. It opens nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import structlog

from services.bus.hosting import GavelApp, Membership, Subscription, build_app
from services.bus.liveness import monotonic_s
from services.bus.ports import PassingFault, Producer
from services.bus.settings import StepSettings
from services.contract.codec import codec
from services.contract.identity import IdentityKeys
from services.contract.market import Market
from services.contract.topics import Topics, partitions_declared
from services.intake.admission import Admission
from services.intake.metrics import IntakeMetrics
from services.intake.step import Clocks, Intake, Outlets
from services.intake.store import PostgresIntakeStore
from services.vault.sealing import Vault

STEP = "intake"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the worker opens once it runs, each in the step's thread, and the keys that it was given."""

    store: Callable[[], PostgresIntakeStore]
    inside: Callable[[], Producer]
    outside: Callable[[], Producer]
    vault: Vault
    keys: IdentityKeys
    now_ms: Callable[[], int]


def build(settings: StepSettings, opened: Opened) -> GavelApp:
    """Build the app; nothing is opened before it runs."""
    topics = settings.topics
    store = cache(opened.store)

    def make_step(membership: Membership) -> Intake:
        return Intake(
            Admission(store(), codec(), opened.vault, opened.keys),
            Outlets(
                inside=opened.inside(),
                outside=opened.outside(),
                alive=membership.liveness.alive,
                topics=topics,
                partitions=partitions_declared("leads.qualified"),
            ),
            membership,
            Clocks(now_ms=opened.now_ms, monotonic_s=monotonic_s),
            IntakeMetrics(membership.registry),
        )

    subscription = Subscription(
        group=topics.group(STEP),
        topics=_Outsiders(lambda: store().market_in_force(), topics),
        step_commits=True,
    )
    return build_app(settings, step=STEP, factory=make_step, subscription=subscription)


class _Outsiders:
    """Asks the market in force whose topics are read; while the database can't say, those known before."""

    def __init__(self, market_in_force: Callable[[], Market | None], topics: Topics) -> None:
        self._market_in_force = market_in_force
        self._topics = topics
        self._known: list[str] = []

    def __call__(self) -> list[str]:
        try:
            self._known = outsiders_topics(self._market_in_force(), self._topics)
        except PassingFault as fault:
            _log.warning("can't ask for the market in force", fault=str(fault))
        return self._known


def outsiders_topics(market: Market | None, topics: Topics) -> list[str]:
    """Name the topics that sources and buyers of the market write to; none before the first market."""
    if market is None:
        return []
    return [
        *(topics.source_leads(source_id) for source_id in market.sources),
        *(topics.buyer_answers(buyer_id) for buyer_id in market.buyers),
    ]
