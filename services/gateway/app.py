"""Builds the gateway: the hosted step, and HTTP beside it in the same process. It opens nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import structlog
from starlette.types import ASGIApp

from services.bus.hosting import GavelApp, Membership, Subscription, build_app, healthy
from services.bus.liveness import monotonic_s
from services.bus.ports import PassingFault
from services.contract.identity import IdentityKeys
from services.contract.topics import partitions_declared
from services.gateway.api import Surroundings, build_api
from services.gateway.appending import Appender
from services.gateway.calling import WebhookCaller
from services.gateway.desk import Desk, Limits
from services.gateway.desk_store import DeskStore
from services.gateway.fetching import KafkaFetcher
from services.gateway.metrics import GatewayMetrics
from services.gateway.ports import GatewayStore
from services.gateway.postman import HttpPostman
from services.gateway.registry import open_registry
from services.gateway.settings import GatewaySettings
from services.gateway.signing import WebhookSecrets
from services.gateway.step import Gateway, subscribed
from services.gateway.web import Listening, Web

STEP = "gateway"
VERSION = "1"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the process has opened, or opens once it runs; `store` in the step's thread."""

    store: Callable[[], GatewayStore]
    desk_store: DeskStore
    appender: Appender
    fetcher: KafkaFetcher
    keys: IdentityKeys
    secrets: WebhookSecrets
    listening: Listening
    now_ms: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The hosted step and what runs beside it."""

    app: GavelApp
    web: Web


def build(settings: GatewaySettings, opened: Opened) -> Worker:
    """Build both; nothing runs yet."""
    topics, store = settings.topics, cache(opened.store)

    def make_step(_: Membership) -> Gateway:
        return Gateway(store(), postman, topics, metrics, opened.now_ms)

    asked = _HttpUsers(lambda: subscribed(store().directory(opened.now_ms()), topics))
    subscription = Subscription(group=topics.group(STEP), topics=asked)
    app = build_app(settings, step=STEP, factory=make_step, subscription=subscription)
    metrics = GatewayMetrics(app.host.metrics.registry)
    postman = HttpPostman(
        caller=WebhookCaller(settings.allowed_networks),
        appender=opened.appender,
        fetcher=opened.fetcher,
        secrets=opened.secrets,
        topics=topics,
        metrics=metrics,
        now_ms=opened.now_ms,
    )
    api = _api(settings, opened, app, metrics)
    return Worker(app=app, web=Web(opened.listening, api, postman, app.host.fail))


def _api(
    settings: GatewaySettings, opened: Opened, app: GavelApp, metrics: GatewayMetrics
) -> Callable[[], ASGIApp]:
    desk = Desk(
        store=opened.desk_store,
        appender=opened.appender,
        topics=settings.topics,
        keys=opened.keys,
        limits=Limits(rate_per_s=settings.http_rate_per_s, stream_bytes_max=settings.http_stream_bytes_max),
        metrics=metrics,
        source_partitions=partitions_declared("sources.<id>.leads"),
        now_ms=opened.now_ms,
        monotonic_s=monotonic_s,
    )
    host = app.host
    around = Surroundings(
        version=VERSION,
        schemas=open_registry(settings.topics),
        metrics_page=host.metrics.page,
        is_healthy=lambda: healthy(host.pump.progress()),
        fail=host.fail,
    )
    return lambda: build_api(desk, around)


class _HttpUsers:
    """Says whose topics are read; while the database can't say, those known before."""

    def __init__(self, topics: Callable[[], list[str]]) -> None:
        self._topics = topics
        self._known: list[str] = []

    def __call__(self) -> list[str]:
        try:
            self._known = self._topics()
        except PassingFault as fault:
            _log.warning("can't ask who uses HTTP", fault=str(fault))
        return self._known
