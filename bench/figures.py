"""What is made of the measurements: percentiles, medians and the summary. Pure: no clock and no process here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PERCENTILES = (50.0, 99.0, 99.9)
PIPELINE, FAUST, RAW_FORWARD, ROW_LOCK = "pipeline", "faust", "raw-forward", "row-lock"
"""The measurements that ratios are made of."""


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
    cpu_us_per_lead: Mapping[str, float] = field(default_factory=dict)
    elsewhere: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measurement, made once, of something started afresh.

    `figures` are the numbers that medians are taken of, each with its unit in its name; `notes` is all else that a
    reader of the results may ask for, as JSON can hold it. `elsewhere` is as in `Throughput`.
    """

    measurement: str
    figures: Mapping[str, float]
    cpu_us_per_lead: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mib: Mapping[str, float] = field(default_factory=dict)
    elsewhere: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


SUMMARY: Mapping[str, tuple[str, str]] = {
    "pipeline_leads_per_s": (PIPELINE, "leads_per_s"),
    "per_event_faust_leads_per_s": (FAUST, "leads_per_s"),
    "row_lock_router_leads_per_s": (ROW_LOCK, "leads_per_s"),
    "raw_forward_records_per_s": (RAW_FORWARD, "leads_per_s"),
    "auctions_leads_per_s": ("auctions", "leads_per_s"),
    "two_routers_leads_per_s": ("scaling-2", "leads_per_s"),
    "three_routers_leads_per_s": ("scaling-3", "leads_per_s"),
    "latency_p50_ms_at_quarter_rate": ("latency-25", "p50_ms"),
    "latency_p99_ms_at_quarter_rate": ("latency-25", "p99_ms"),
    "latency_p99.9_ms_at_quarter_rate": ("latency-25", "p99.9_ms"),
    "latency_p50_ms_at_half_rate": ("latency-50", "p50_ms"),
    "latency_p99_ms_at_half_rate": ("latency-50", "p99_ms"),
    "latency_p99.9_ms_at_half_rate": ("latency-50", "p99.9_ms"),
    "latency_p50_ms_at_three_quarters_rate": ("latency-75", "p50_ms"),
    "latency_p99_ms_at_three_quarters_rate": ("latency-75", "p99_ms"),
    "latency_p99.9_ms_at_three_quarters_rate": ("latency-75", "p99.9_ms"),
    "takeover_s": ("takeover", "takeover_s"),
    "takeover_after_notice_s": ("takeover", "after_notice_s"),
    "router_core_decisions_per_s": ("core", "leads_to_three_per_s"),
    "router_core_exclusive_decisions_per_s": ("core", "exclusive_leads_per_s"),
    "router_core_auctions_per_s": ("core", "auctions_per_s"),
    "billing_rows_per_s": ("billing", "rows_per_s"),
    "billing_entries_per_s": ("billing", "entries_per_s"),
    "billing_rebuild_entries_per_s": ("rebuild", "entries_per_s"),
    "replay_entries_per_s": ("replay", "entries_per_s"),
    "timers_pending": ("timers", "pending"),
    "timers_fired_per_s": ("timers", "fired_per_s"),
    "timers_late_p50_ms": ("timers", "late_p50_ms"),
    "timers_late_p99_ms": ("timers", "late_p99_ms"),
    "timers_look_ms": ("timers", "look_ms"),
    "timers_look_ms_when_empty": ("timers", "look_ms_when_empty"),
}
"""The keys of `summary` that are medians as they are: of which measurement, and which of its figures."""

RATIOS: Mapping[str, tuple[str, str]] = {
    "pipeline_over_per_event_faust": ("pipeline_leads_per_s", "per_event_faust_leads_per_s"),
    "pipeline_over_row_lock_router": ("pipeline_leads_per_s", "row_lock_router_leads_per_s"),
    "pipeline_over_raw_forward": ("pipeline_leads_per_s", "raw_forward_records_per_s"),
    "two_routers_over_one": ("two_routers_leads_per_s", "pipeline_leads_per_s"),
    "three_routers_over_one": ("three_routers_leads_per_s", "pipeline_leads_per_s"),
}
"""The keys of `summary` that are one of its medians over another."""


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Take the nearest-rank percentile: the smallest value that at least `percent` of all do not exceed."""
    rank = -(-len(ascending) * percent // 100)
    return ascending[max(int(rank), 1) - 1]


def percentiles_ms(seconds: Sequence[float], lost: int) -> Mapping[float, float]:
    """Take the percentiles of the latencies, a lost lead counting as one that takes for ever."""
    ascending = sorted(1_000 * value for value in seconds) + [float("inf")] * lost
    return {percent: percentile(ascending, percent) for percent in PERCENTILES} if ascending else {}


def medians(runs: Sequence[Run], measurement: str) -> dict[str, float]:
    """Take the median of each figure of a measurement over all its runs."""
    return _medians([run.figures for run in runs if run.measurement == measurement])


def cpu_us_per_lead(runs: Sequence[Run], measurement: str) -> dict[str, float]:
    """Take the median CPU time per lead of each process of a measurement, in microseconds."""
    return _medians([run.cpu_us_per_lead for run in runs if run.measurement == measurement])


def peak_memory_mib(runs: Sequence[Run], measurement: str) -> dict[str, float]:
    """Take the median peak memory of each worker of a measurement."""
    return _medians([run.peak_memory_mib for run in runs if run.measurement == measurement])


def measurements(runs: Sequence[Run]) -> list[str]:
    """Name what was measured, in the order of its first run."""
    return list(dict.fromkeys(run.measurement for run in runs))


def summary(runs: Sequence[Run]) -> dict[str, float]:
    """Sum up all runs, under the keys that `bench/results/*.json` promises; what was not measured has no key."""
    found = {
        key: values[figure]
        for key, (measurement, figure) in SUMMARY.items()
        if figure in (values := medians(runs, measurement))
    }
    for key, (over, under) in RATIOS.items():
        if over in found and found.get(under):
            found[key] = found[over] / found[under]
    memory = peak_memory_mib(runs, PIPELINE)
    if memory:
        found["memory_mib_per_worker"] = max(memory.values())
    if any("evictions" in run.notes for run in runs):
        found["evictions"] = sum(run.notes.get("evictions", 0) for run in runs)
    return found


def _medians(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in measured for name in one)
    return {name: median(one[name] for one in measured if name in one) for name in names}
