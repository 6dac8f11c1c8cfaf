"""Runs a step as a Faust worker: Faust's lifecycle, web and registry agent around batches polled by the pump.

A batch goes from the pump through a Faust channel to one agent, which lets the step handle it in the step's thread.
Nothing here depends on Faust's acknowledgements, tables or rebalances; and whatever goes wrong anywhere ends the
process with exit code 1, nothing committed that was not done.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NoReturn

import faust
import structlog
from faust.app.base import BootStrategy
from mode import CrashingSupervisor, Service
from mode.types import ServiceT
from mode.utils.queues import FlowControlEvent, ThrowableQueue
from prometheus_client import CollectorRegistry

from services.bus.backlog import Batch
from services.bus.kafka import Connection
from services.bus.liveness import Liveness, monotonic_s
from services.bus.logging import start_logging, told
from services.bus.metrics import HostMetrics
from services.bus.patience import PatientStep
from services.bus.place import Subscription
from services.bus.ports import BusFailed, Step, TopicPartition
from services.bus.pump import Progress, Pump, PumpSettings
from services.bus.settings import StepSettings
from services.bus.step_thread import StepThread
from services.contract.announcements import MarketApplied
from services.contract.codec import codec
from services.contract.times import iso_time

__all__ = ["GavelApp", "Membership", "StepFactory", "Subscription", "build_app", "run"]

LEAVES_WITHIN_S = 8.0
"""How long an orderly leave may take: the batch in progress, the commit, the group."""

DIES_WITHIN_S = 2.0
"""How long a failed worker may take to leave the group before the process ends all the same."""

CHANNEL_BATCHES = 2
_AGENT_STARTS_WITHIN_S = 10.0
_UNHEALTHY_AFTER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What the host gives a step of its place in the group.

    `commit` asks for positions to be committed soon, and may be called in `handle` and `idle`; `committed` reads them
    back (for `take_over`). A step's own metrics go into `registry`.
    """

    liveness: Liveness
    commit: Callable[[Mapping[TopicPartition, int]], None]
    committed: Callable[[Collection[TopicPartition]], Mapping[TopicPartition, int | None]]
    registry: CollectorRegistry


StepFactory = Callable[[Membership], Step]
Announced = Callable[[MarketApplied], None]


class Feed(Service):
    """The service of the app that owns the pump."""

    mundane_level = "debug"

    def __init__(self, host: Host, channel: Any, **options: Any) -> None:
        """Feed what the host's pump polls into the channel."""
        super().__init__(**options)
        self._host = host
        self._channel = channel

    async def on_start(self) -> None:
        """Start to poll."""
        self._host.start(self.loop)

    async def on_stop(self) -> None:
        """Leave the group before Faust stops anything that a batch passes through."""
        await self._host.leave()

    @Service.task
    async def _feed(self) -> None:
        async with _Ending(self._host, "the feed"):
            await self._host.feed(self._channel)


class _Boot(BootStrategy):
    """Starts the feed right behind the agents, as app.service would only after a second's wait for tables.

    Faust's producer is not started: nothing is sent through it.
    """

    enable_kafka_producer = False

    def agents(self) -> Iterable[ServiceT]:
        """Name the agents and the feed."""
        app = self.app
        assert isinstance(app, GavelApp)
        return [app.agents, Feed(app.host, app.batches, loop=app.loop, beacon=app.beacon)]


class GavelApp(faust.App):
    """A Faust app whose channels keep what is put into them, and that leaves nothing on the disk."""

    BootStrategy = _Boot
    mundane_level = "debug"
    host: Host
    batches: Any

    def FlowControlQueue(  # noqa: N802  # Faust's name
        self, maxsize: int | None = None, *, clear_on_resume: bool = False
    ) -> ThrowableQueue[Any]:
        """Make a queue that no rebalance of Faust's own consumer suspends or clears."""
        assert maxsize is not None
        del clear_on_resume
        return ThrowableQueue(
            maxsize=maxsize,
            flow_control=FlowControlEvent(initially_suspended=False),
            clear_on_resume=False,
        )

    async def _wait_for_table_recovery_completed(self) -> bool:
        """Start our services at once: there are no tables to recover."""
        return False

    def _create_directories(self) -> None:
        """Make no data folder."""


class Host:
    """One step, its pump, its thread, and the end of the process."""

    def __init__(
        self,
        settings: StepSettings,
        *,
        step: str,
        factory: StepFactory,
        subscription: Subscription,
        announced: Announced | None,
    ) -> None:
        """Wire them; nothing connects before `start`."""
        self.step_name = step
        self.worker = settings.worker or f"{step}-{os.getpid()}"
        self.metrics = HostMetrics(step)
        self.liveness = Liveness(settings.session_timeout_ms)
        self.leaving = False
        self.step: PatientStep | None = None
        self.log = structlog.get_logger(__name__)
        self._factory = factory
        self._announced = announced
        self._step_thread = StepThread()
        self._failure: BaseException | None = None
        self._failing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: asyncio.Queue[Batch] = asyncio.Queue()
        self.pump = Pump(
            PumpSettings(
                connection=settings.connection(),
                client_id=self.worker,
                session_timeout_ms=settings.session_timeout_ms,
                batch_max=settings.batch_max,
                batch_wait_ms=settings.batch_wait_ms,
                needs=(settings.topics.registry,),
            ),
            subscription,
            step_thread=self._step_thread,
            hand_over=self._hand_over,
            liveness=self.liveness,
            metrics=self.metrics,
        )
        self.metrics.watch(oldest_ms=self.oldest_ms, waits_for=self.waits_for)
        self._pump_thread = threading.Thread(target=self._pump, name="pump", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to poll."""
        self._loop = loop
        self._pump_thread.start()

    async def feed(self, channel: Any) -> None:
        """Put what the pump hands over into the agent's channel."""
        await self._await_agent(channel)
        while True:
            batch = await self._outbox.get()
            if _subscribers(channel) != 1:
                raise BusFailed("the agent has left its channel: a batch would be dropped in silence")
            await channel.put(batch)

    async def work(self, batch: Batch) -> None:
        """Let the step handle a batch in its thread."""
        await asyncio.wrap_future(self._step_thread.submit(lambda: self.pump.work(batch)))

    def announce(self, value: bytes) -> None:
        """Take an announcement of `registry`: the step's topics may have changed with the market."""
        market = codec().decode(value)
        assert isinstance(market, MarketApplied)
        self.log.info("market applied", version=market.version, at=iso_time(market.applied_at_ms))
        self.pump.ask_topics()
        announced = self._announced
        if announced is not None:
            self._step_thread.submit(lambda: announced(market)).add_done_callback(self._check)

    async def leave(self) -> None:
        """Leave the group in order; what takes too long ends the process."""
        self.leaving = True
        self.pump.leaving.set()
        if not self._pump_thread.is_alive():
            return
        await asyncio.to_thread(self._pump_thread.join, LEAVES_WITHIN_S)
        if self._pump_thread.is_alive():
            self.fail(BusFailed(f"the worker could not leave within {LEAVES_WITHIN_S:.0f} s"))

    def fail(self, error: BaseException) -> None:
        """End the process with exit code 1, soon and for sure. Only the first failure counts."""
        with self._failing:
            if self._failure is not None:
                return
            self._failure = error
        self.log.error("the worker stops", error=told(error))
        self.pump.failing.set()
        self.pump.leaving.set()
        threading.Thread(target=self._die, name="undertaker", daemon=True).start()

    def end(self) -> None:
        """Take no more calls: the worker is done."""
        self._step_thread.end()

    def _pump(self) -> None:
        try:
            self.pump.run(self._make_step)
        except BaseException as error:  # noqa: BLE001  # whatever it was, the worker ends with it
            self.fail(error)

    def _make_step(self) -> Step:
        membership = Membership(
            liveness=self.liveness,
            commit=self.pump.commit,
            committed=self.pump.committed,
            registry=self.metrics.registry,
        )
        self.step = PatientStep(
            self._factory(membership), monotonic_s=monotonic_s, on_fault=self.metrics.tried_again.inc
        )
        return self.step

    def waits_for(self) -> str | None:
        """Say which fault the worker waits out."""
        return None if self.step is None else self.step.waits_for

    def oldest_ms(self) -> int | None:
        """Give the time of the oldest record that was read and is not handled, or that a fault has put off."""
        put_off_ms = None if self.step is None else self.step.put_off_ms()
        return min((at for at in (put_off_ms, self.pump.oldest_ms()) if at is not None), default=None)

    def _hand_over(self, batch: Batch) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._outbox.put_nowait, batch)

    async def _await_agent(self, channel: Any) -> None:
        ends_at_s = monotonic_s() + _AGENT_STARTS_WITHIN_S
        while _subscribers(channel) == 0:
            if monotonic_s() > ends_at_s:
                raise BusFailed(f"Faust did not start the agent within {_AGENT_STARTS_WITHIN_S:.0f} s")
            await asyncio.sleep(0.01)

    def _check(self, done: Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self.fail(error)

    def _die(self) -> None:
        """Leave the group, so that others take over at once, and end without asking Faust."""
        self._pump_thread.join(DIES_WITHIN_S)
        sys.stderr.flush()
        os._exit(1)


def build_app(
    settings: StepSettings,
    *,
    step: str,
    factory: StepFactory,
    subscription: Subscription,
    announced: Announced | None = None,
) -> GavelApp:
    """Build the Faust app that hosts a step; nothing connects before `run`.

    `factory` makes the step in the step's thread, where all its methods are called; so are `subscription.topics` and
    `announced`, which hears of each new market version.
    """
    host = Host(settings, step=step, factory=factory, subscription=subscription, announced=announced)
    app = _bare_app(settings, host)
    app.host = host
    app.batches = app.channel(maxsize=CHANNEL_BATCHES)

    @app.agent(app.batches, name="step", concurrency=1, supervisor_strategy=CrashingSupervisor)
    async def work(batches: faust.types.StreamT[Batch]) -> None:
        async with _Ending(host, "the agent of the step"):
            async for batch in batches:
                await host.work(batch)

    registry = app.topic(
        settings.topics.registry, value_type=bytes, value_serializer="raw", key_serializer="raw"
    )

    @app.agent(registry, name="registry", concurrency=1, supervisor_strategy=CrashingSupervisor)
    async def announce(values: faust.types.StreamT[bytes]) -> None:
        async with _Ending(host, "the agent of the registry"):
            async for value in values:
                host.announce(value)

    if settings.web_port is not None:
        _serve(app, host)
    return app


def run(app: GavelApp) -> NoReturn:
    """Run the worker until SIGTERM or SIGINT (exit code 0) or a failure (1). For a `__main__` only."""
    host = app.host
    start_logging(step=host.step_name, worker=host.worker)
    host.log.info("starting", pid=os.getpid())
    worker = app.Worker(quiet=True, override_logging=False, redirect_stdouts=False)
    worker.spinner = None
    _calm_the_collector()
    try:
        worker.execute_from_commandline()
    finally:
        host.end()


def _calm_the_collector() -> None:
    """Let the collector of cycles look seldom, and never at what is there from the start.

    A batch makes tens of thousands of short-lived objects without a cycle among them; looking for cycles each 700 took
    a tenth to a fifth of a worker's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class _Ending:
    """Ends the worker when what runs inside ends in any way, unless the worker is leaving."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _kind: Any, error: BaseException | None, _frames: Any) -> None:
        if isinstance(error, Exception):
            self._host.fail(error)
        elif not self._host.leaving:
            self._host.fail(BusFailed(f"{self._name} was ended from outside"))


def announcements_group(step_group: str, worker: str) -> str:
    """Name the group in which this process hears `registry`, which no other process is in.

    Every worker must hear every announcement, and no other worker's coming or going may rebalance it. Workers in
    containers have the same process id, and often the same name: the host tells them apart.
    """
    return f"{step_group}.{worker}.{socket.gethostname()}.{os.getpid()}.registry"


def _bare_app(settings: StepSettings, host: Host) -> GavelApp:
    """Make the Faust app, whose id is the group of its consumer of `registry`."""
    connection = settings.connection()
    return GavelApp(
        announcements_group(settings.topics.group(host.step_name), host.worker),
        broker=";".join(f"kafka://{server}" for server in connection.bootstrap.split(",")),
        broker_credentials=faust_credentials(connection),
        broker_client_id=host.worker,
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="latest",
        stream_wait_empty=False,
        agent_supervisor=CrashingSupervisor,
        web_enabled=settings.web_port is not None,
        web_bind=settings.web_host,
        web_port=settings.web_port or 6066,
        web_router_enabled=False,
        web_tables_enabled=False,
        web_graph_enabled=False,
        web_stats_enabled=False,
        web_metrics_enabled=False,
        store="memory://",
        worker_redirect_stdouts=False,
    )


def faust_credentials(connection: Connection) -> Any:
    """Put librdkafka's properties into Faust's words."""
    known = {name: value for name, value in connection.kafka_python().items() if name != "bootstrap_servers"}
    protocol = str(known.get("security_protocol", "PLAINTEXT")).upper()
    if protocol == "PLAINTEXT":
        return None
    context = ssl.create_default_context(cafile=known.get("ssl_cafile")) if protocol.endswith("SSL") else None
    if context is not None and "ssl_certfile" in known:
        context.load_cert_chain(known["ssl_certfile"], known.get("ssl_keyfile"), known.get("ssl_password"))
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        mechanism=known.get("sasl_mechanism"),
        username=known.get("sasl_plain_username"),
        password=known.get("sasl_plain_password"),
        ssl_context=context,
    )


def _subscribers(channel: Any) -> int:
    return int(channel.subscriber_count)


def _serve(app: GavelApp, host: Host) -> None:
    """Serve `/metrics`, `/healthz` and `/readyz`."""

    @app.page("/metrics")
    async def metrics(web: Any, _request: Any) -> Any:
        return web.bytes(host.metrics.page(), content_type="text/plain")

    @app.page("/healthz")
    async def healthz(web: Any, _request: Any) -> Any:
        progress = host.pump.progress()
        return web.json(_health(progress), status=200 if healthy(progress) else 503)

    @app.page("/readyz")
    async def readyz(web: Any, _request: Any) -> Any:
        waits_for, is_known = host.waits_for(), _is_known(host.pump.progress())
        told_of = {"waits_for": waits_for, "known_to_its_group": is_known}
        return web.json(told_of, status=200 if waits_for is None and is_known else 503)


def healthy(progress: Progress) -> bool:
    """Liveness is progress: polled lately, and no batch under way for long."""
    stuck = progress.batches_under_way > 0 and progress.finished_s_ago > _UNHEALTHY_AFTER_S
    return progress.polled_s_ago < _UNHEALTHY_AFTER_S and not stuck


def _is_known(progress: Progress) -> bool:
    """Tell whether the brokers have lately answered for what is read; a worker that reads nothing asks for nothing."""
    return progress.alive or not progress.positions


def _health(progress: Progress) -> dict[str, Any]:
    return {
        "polled_s_ago": round(progress.polled_s_ago, 3),
        "finished_s_ago": round(progress.finished_s_ago, 3),
        "batches_under_way": progress.batches_under_way,
        "paused": progress.paused,
        "alive": progress.alive,
        "positions": {
            f"{at.topic}-{at.partition}": offset for at, offset in sorted(progress.positions.items())
        },
    }
