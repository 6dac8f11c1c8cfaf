"""The figures that are quoted are computed as their names say."""

from __future__ import annotations

import json
import math

import pytest

from bench import figures, report
from bench.figures import Latency, Run, Throughput


def throughput(leads: int, seconds: float, cpu_us: float = 100.0) -> Throughput:
    """A throughput measured."""
    return Throughput(
        leads=leads,
        seconds=seconds,
        repeats=0,
        is_complete=True,
        cpu_us_per_lead={"router": cpu_us},
        peak_memory_mib={"router": 50.0},
        elsewhere=0.0,
    )


def latency(p50_ms: float, p99_ms: float) -> Latency:
    """A latency measured at 1,000 leads a second."""
    return Latency(
        rate_per_s=1_000.0, leads=10, lost=0, sent_late_ms=0.0, percentiles_ms={50.0: p50_ms, 99.0: p99_ms}
    )


RUNS = (
    Run(pipeline="ours", throughput=throughput(3_000, 1.0, 90.0), latency=latency(10.0, 30.0)),
    Run(pipeline="theirs", throughput=throughput(300, 1.0), latency=None),
    Run(pipeline="ours", throughput=throughput(9_000, 1.0, 500.0), latency=latency(12.0, 90.0)),
    Run(pipeline="theirs", throughput=throughput(200, 1.0), latency=None),
    Run(pipeline="ours", throughput=throughput(4_000, 1.0, 100.0), latency=latency(11.0, 40.0)),
    Run(pipeline="theirs", throughput=throughput(400, 1.0), latency=None),
)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50.0, 50.0), (99.0, 99.0), (99.9, 100.0), (100.0, 100.0), (0.5, 1.0)]
)
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, expected: float) -> None:
    assert figures.percentile([float(value) for value in range(1, 101)], percent) == expected


def test_median_of_one_value_is_that_value() -> None:
    assert figures.percentile([7.0], 50.0) == 7.0


def test_lost_lead_counts_as_one_that_takes_for_ever() -> None:
    found = figures.percentiles_ms([0.01] * 98, lost=2)
    assert found[50.0] == pytest.approx(10.0)
    assert math.isinf(found[99.0])


def test_summary_has_the_promised_keys_as_medians_of_all_runs() -> None:
    assert figures.summary(RUNS, pipeline="ours", control="theirs") == {
        "pipeline_leads_per_s": 4_000.0,
        "per_event_faust_leads_per_s": 300.0,
        "pipeline_over_per_event_faust": pytest.approx(4_000 / 300),
        "latency_p50_ms_at_1000": 11.0,
        "latency_p99_ms_at_1000": 40.0,
    }


def test_summary_of_one_pipeline_has_no_ratio() -> None:
    assert figures.summary(RUNS[:1], pipeline="ours", control="theirs").keys() == {
        "pipeline_leads_per_s",
        "latency_p50_ms_at_1000",
        "latency_p99_ms_at_1000",
    }


def test_cpu_per_lead_is_the_median_of_its_pipeline_alone() -> None:
    assert figures.cpu_us_per_lead(RUNS, "ours") == {"router": 100.0}


def test_document_is_json_even_when_a_lead_was_lost() -> None:
    lossy = Run(pipeline="ours", throughput=throughput(1, 1.0), latency=latency(10.0, math.inf))
    found = report.document([lossy], pipeline="ours", control="theirs", arguments={"leads": 1})
    assert found["summary"]["latency_p99_ms_at_1000"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found
