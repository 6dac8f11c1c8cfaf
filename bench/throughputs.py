"""How many leads a second each pipeline works off: Gavel, with one worker a step or more, and the controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench import figures, per_event, raw_forward, row_lock
from bench.amounts import Amounts
from bench.figures import Latency, Run, Throughput
from bench.gavel import Gavel
from bench.measurement import UnfinishedError
from bench.pipeline import Site
from bench.prepared_log import LogMeasurements
from bench.row_lock import SHAPES, RowLock, Shape
from bench.stage import Stage, Started

_STARTS_MAX = 3
"""A Faust worker may take nothing after its start, without a word: then the control is started again, and it counts."""

_SHARED_WITHIN_S = 30.0
_RATES = {"latency-25": 0.25, "latency-50": 0.50, "latency-75": 0.75}


def measure_forward(stage: Stage) -> list[Run]:
    """Measure the limit."""
    with stage.started(raw_forward.RawForward) as started:
        return [_throughput(figures.RAW_FORWARD, started, stage.amounts.forwarded_leads)]


def measure_faust(stage: Stage) -> list[Run]:
    """Measure the per-event Faust pipeline."""
    with stage.started(per_event.PerEventFaust, starts_max=_STARTS_MAX) as started:
        return [_throughput(figures.FAUST, started, stage.amounts.control_leads)]


@dataclass(slots=True)
class RowLockMeasurement:
    """Measures the row-lock router, with the number of connections that was best in a first try of all."""

    _best: Shape | None = None
    _tried: dict[str, float] = field(default_factory=dict)

    def __call__(self, stage: Stage) -> list[Run]:
        """Measure it."""
        if self._best is None:
            self._best = self._best_of(stage, SHAPES[: stage.amounts.shapes])
        with stage.started(partial(_row_lock, self._best)) as started:
            notes = {"connections": str(self._best), "tried_leads_per_s": dict(self._tried)}
            return [_throughput(figures.ROW_LOCK, started, stage.amounts.control_leads, notes)]

    def _best_of(self, stage: Stage, shapes: Sequence[Shape]) -> Shape:
        return shapes[0] if len(shapes) == 1 else max(shapes, key=lambda shape: self._try(stage, shape))

    def _try(self, stage: Stage, shape: Shape) -> float:
        with stage.started(partial(_row_lock, shape)) as started:
            run = _throughput(row_lock.NAME, started, max(stage.amounts.control_leads // 2, 1))
        rate = self._tried[str(shape)] = run.figures["leads_per_s"]
        stage.progress(f"row-lock router with {shape}: {rate:,.0f} leads/s")
        return rate


def _row_lock(shape: Shape, site: Site) -> RowLock:
    return RowLock(site, shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GavelMeasurement:
    """Measures Gavel: its rate, its latency at shares of it, and what the log that this leaves is good for."""

    with_latency: bool
    with_log: bool

    def __call__(self, stage: Stage) -> list[Run]:
        """Measure it."""
        with stage.started(Gavel) as started:
            runs = [_throughput(figures.PIPELINE, started, stage.amounts.leads)]
            if self.with_latency:
                rate = runs[0].figures["leads_per_s"]
                runs += [
                    _latency(name, started, share * rate, stage.amounts) for name, share in _RATES.items()
                ]
                started.bench.check_bills()
            _note_evictions(runs, started)
            if self.with_log:
                started.pipeline.stop_workers()
                runs += LogMeasurements(started.site, stage.progress).measure()
            return runs


def measure_scaling(workers: int) -> Callable[[Stage], list[Run]]:
    """Make the measurement of Gavel with so many workers of intake and of the router."""

    def measure(stage: Stage) -> list[Run]:
        workers_of = {"intake": workers, "router": workers}
        with stage.started(lambda site: Gavel(site, workers_of)) as started:
            _await_shared(started, workers_of)
            runs = [_throughput(f"scaling-{workers}", started, stage.amounts.leads)]
            _note_evictions(runs, started)
            return runs

    return measure


def _await_shared(started: Started[Gavel], steps: Collection[str]) -> None:
    """Wait until all workers of these steps take part, as the group lets a new one in only after a while."""
    for step in steps:
        if not started.bench.wait(partial(started.pipeline.is_shared, step), _SHARED_WITHIN_S):
            raise UnfinishedError(f"the workers of {step} did not share the partitions in time")


def _note_evictions(runs: list[Run], started: Started[Gavel]) -> None:
    notes = {**runs[0].notes, "evictions": started.pipeline.evictions()}
    runs[0] = dataclasses.replace(runs[0], notes=notes)


def _throughput(
    measurement: str, started: Started[Any], leads: int, notes: dict[str, Any] | None = None
) -> Run:
    """Measure a backlog; raise `UnfinishedError` where not every lead was delivered and billed in time."""
    found = started.bench.throughput(leads)
    if not found.is_complete:
        raise UnfinishedError(f"{measurement}: only {found.leads} of {leads} leads were done in time")
    started.bench.check_bills()
    return run_of_throughput(measurement, found, {**(notes or {}), "failed_starts": started.failed_starts})


def _latency(measurement: str, started: Started[Gavel], rate_per_s: float, amounts: Amounts) -> Run:
    found = started.bench.latency(rate_per_s, amounts.latency_s, settle_s=amounts.settle_s)
    return run_of_latency(measurement, found)


def run_of_throughput(measurement: str, found: Throughput, notes: dict[str, Any]) -> Run:
    """Put a throughput among the runs."""
    return Run(
        measurement=measurement,
        figures={"leads_per_s": found.leads_per_s},
        cpu_us_per_lead=found.cpu_us_per_lead,
        peak_memory_mib=found.peak_memory_mib,
        elsewhere=found.elsewhere,
        notes={"leads": found.leads, "seconds": found.seconds, "repeats": found.repeats, **notes},
    )


def run_of_latency(measurement: str, found: Latency) -> Run:
    """Put a latency among the runs."""
    return Run(
        measurement=measurement,
        figures={
            "rate_per_s": found.rate_per_s,
            **{f"p{percent:g}_ms": value for percent, value in found.percentiles_ms.items()},
        },
        cpu_us_per_lead=found.cpu_us_per_lead,
        elsewhere=found.elsewhere,
        notes={"leads": found.leads, "lost": found.lost, "sent_late_ms": found.sent_late_ms},
    )
