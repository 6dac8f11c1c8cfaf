"""Where measurements are made: pipelines are started afresh on a site of their own, warmed up, and stopped.

It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.amounts import Amounts
from bench.load import Load
from bench.measurement import Bench, NotStartedError
from bench.observation import Deliveries
from bench.pipeline import Pipeline, Site
from bench.raw_forward import RawForward
from bench.servers import Servers

P = TypeVar("P", bound=Pipeline)
_WARMING_SLICE = 50
_WARMING_PARTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Generic[P]):
    """A pipeline that runs, warmed up. `failed_starts` is how often it took no lead and was started again."""

    pipeline: P
    bench: Bench
    site: Site
    failed_starts: int


@dataclass(slots=True, kw_only=True)
class Stage:
    """The servers of one benchmark, and how much is to be measured on them. `progress` is told what goes on."""

    servers: Servers
    amounts: Amounts
    progress: Callable[[str], None]
    _sites: int = 0

    @contextmanager
    def site(self) -> Iterator[Site]:
        """Make the next site."""
        self._sites += 1
        with self.servers.site(self._sites) as site:
            yield site

    @contextmanager
    def started(
        self,
        make: Callable[[Site], P],
        *,
        starts_max: int = 1,
        buyers_per_lead: int | None = None,
        is_warmed_up: bool = True,
    ) -> Iterator[Started[P]]:
        """Start a pipeline and warm it up; raise `NotStartedError` where it takes no lead after so many starts."""
        with ExitStack() as stack:
            for failed in range(starts_max):
                attempt = stack.enter_context(ExitStack())
                try:
                    pipeline, bench, site = self._start(attempt, make, buyers_per_lead)
                    if is_warmed_up:
                        bench.warm_up(self.amounts.warm_up)
                    break
                except NotStartedError as error:
                    attempt.close()
                    if failed + 1 == starts_max:
                        raise
                    self.progress(f"{error}; it is started again")
            yield Started(pipeline=pipeline, bench=bench, site=site, failed_starts=failed)

    def warm_broker(self) -> list[float]:
        """Forward a fixed number of leads, in small batches; give the broker's CPU us a lead, tenth by tenth.

        A broker that has just started interprets its code, and costs every pipeline several times what it costs later.
        """
        if not self.amounts.warm_broker_leads:
            return []
        costs_us = []
        with self.started(RawForward) as started:
            part = max(self.amounts.warm_broker_leads // _WARMING_PARTS, 1)
            for _ in range(_WARMING_PARTS):
                before_s = self._broker_s()
                for _ in range(0, part, _WARMING_SLICE):
                    started.bench.load.burst(started.bench.submissions(_WARMING_SLICE))
                costs_us.append(1e6 * (self._broker_s() - before_s) / part)
            started.bench.check_bills()
        return costs_us

    def _start(
        self, stack: ExitStack, make: Callable[[Site], P], buyers_per_lead: int | None
    ) -> tuple[P, Bench, Site]:
        site = stack.enter_context(self.site())
        pipeline = make(site)
        stack.callback(pipeline.stop)
        pipeline.prepare()
        pipeline.start()
        kafka = self.servers.kafka
        deliveries = stack.enter_context(
            Deliveries(
                kafka,
                pipeline.delivery_topics,
                is_delivery=pipeline.is_delivery,
                buyers_per_lead=buyers_per_lead,
            )
        )
        bench = Bench(
            pipeline=pipeline,
            servers=self.servers,
            load=Load(kafka, pipeline.submit_topic),
            deliveries=deliveries,
            phase_within_s=self.amounts.phase_within_s,
        )
        return pipeline, bench, site

    def _broker_s(self) -> float:
        return self.servers.cpu_s().get("broker", 0.0)
