"""What is made of the measurements: percentiles, medians and the summary. Pure: no clock and no process here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

PERCENTILES = (50.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """A backlog of leads worked off: from the first one sent to the last one delivered to all and billed.

    `repeats` are deliveries that came more than once. `cpu_us_per_lead` and `peak_memory_mib` are by process.
    `is_complete` is False when the time was up first, and then `leads` are those fully processed by then.
    `elsewhere` is the share of the machine's CPU time that went to anything else: over a few per cent, the rate is
    not one to quote.
    """

    leads: int
    seconds: float
    repeats: int
    is_complete: bool
    cpu_us_per_lead: Mapping[str, float]
    peak_memory_mib: Mapping[str, float]
    elsewhere: float

    @property
    def leads_per_s(self) -> float:
        """The rate."""
        return self.leads / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Leads sent at a fixed rate: scheduled time of sending to delivery to the last of its buyers.

    `lost` were not delivered when the time was up; `sent_late_ms` is how far the load itself fell behind at most.
    """

    rate_per_s: float
    leads: int
    lost: int
    sent_late_ms: float
    percentiles_ms: Mapping[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One pipeline, started afresh, measured once."""

    pipeline: str
    throughput: Throughput
    latency: Latency | None


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Take the nearest-rank percentile: the smallest value that at least `percent` of all do not exceed."""
    rank = -(-len(ascending) * percent // 100)
    return ascending[max(int(rank), 1) - 1]


def percentiles_ms(seconds: Sequence[float], lost: int) -> Mapping[float, float]:
    """Take the percentiles of the latencies, a lost lead counting as one that takes for ever."""
    ascending = sorted(1_000 * value for value in seconds) + [float("inf")] * lost
    return {percent: percentile(ascending, percent) for percent in PERCENTILES} if ascending else {}


def summary(runs: Sequence[Run], *, pipeline: str, control: str) -> dict[str, float]:
    """Sum up all runs by their medians, under the keys that `bench/results/*.json` promises."""
    ours = [run.throughput.leads_per_s for run in runs if run.pipeline == pipeline]
    theirs = [run.throughput.leads_per_s for run in runs if run.pipeline == control]
    found = {}
    if ours:
        found["pipeline_leads_per_s"] = median(ours)
    if theirs:
        found["per_event_faust_leads_per_s"] = median(theirs)
    if ours and theirs:
        found["pipeline_over_per_event_faust"] = median(ours) / median(theirs)
    return found | _latencies([run.latency for run in runs if run.pipeline == pipeline and run.latency])


def cpu_us_per_lead(runs: Sequence[Run], pipeline: str) -> dict[str, float]:
    """Take the median CPU time per lead of each of the pipeline's processes, in microseconds."""
    measured = [run.throughput.cpu_us_per_lead for run in runs if run.pipeline == pipeline]
    return _medians(measured)


def peak_memory_mib(runs: Sequence[Run], pipeline: str) -> dict[str, float]:
    """Take the median peak memory of each of the pipeline's workers."""
    return _medians([run.throughput.peak_memory_mib for run in runs if run.pipeline == pipeline])


def _medians(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in measured for name in one)
    return {name: median(one[name] for one in measured if name in one) for name in names}


def _latencies(measured: Sequence[Latency]) -> dict[str, float]:
    return {
        f"latency_p{percent:g}_ms_at_{one.rate_per_s:g}": median(
            other.percentiles_ms[percent] for other in measured if other.rate_per_s == one.rate_per_s
        )
        for one in measured
        for percent in one.percentiles_ms
    }
