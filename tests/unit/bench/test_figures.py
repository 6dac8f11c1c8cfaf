"""The figures that are quoted are computed as their names say."""

from __future__ import annotations

import json
import math

import pytest

from bench import figures, report
from bench.figures import Run


def run(measurement: str, **values: float) -> Run:
    """A measurement made once."""
    return Run(measurement=measurement, figures=values)


def pipeline(rate: float, cpu_us: float = 100.0, memory_mib: float = 50.0) -> Run:
    """Gavel's throughput, measured once."""
    return Run(
        measurement=figures.PIPELINE,
        figures={"leads_per_s": rate},
        cpu_us_per_lead={"router": cpu_us},
        peak_memory_mib={"intake": 40.0, "router": memory_mib},
        notes={"evictions": 1},
    )


RUNS = (
    pipeline(3_000, 90.0),
    run(figures.FAUST, leads_per_s=300),
    run("latency-50", rate_per_s=1_500, p50_ms=10.0, p99_ms=30.0),
    pipeline(9_000, 500.0, 70.0),
    run(figures.FAUST, leads_per_s=200),
    run("latency-50", rate_per_s=4_500, p50_ms=12.0, p99_ms=90.0),
    pipeline(4_000, 100.0, 60.0),
    run(figures.FAUST, leads_per_s=400),
    run("latency-50", rate_per_s=2_000, p50_ms=11.0, p99_ms=40.0),
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
    assert figures.summary(RUNS) == {
        "pipeline_leads_per_s": 4_000.0,
        "per_event_faust_leads_per_s": 300.0,
        "latency_p50_ms_at_half_rate": 11.0,
        "latency_p99_ms_at_half_rate": 40.0,
        "pipeline_over_per_event_faust": pytest.approx(4_000 / 300),
        "memory_mib_per_worker": 60.0,
        "evictions": 3,
    }


def test_summary_of_one_pipeline_has_no_ratio() -> None:
    assert figures.summary(RUNS[:1]).keys() == {"pipeline_leads_per_s", "memory_mib_per_worker", "evictions"}


def test_ratio_over_nothing_is_left_out() -> None:
    found = figures.summary([pipeline(1_000), run(figures.FAUST, leads_per_s=0.0)])
    assert "pipeline_over_per_event_faust" not in found


def test_every_ratio_is_of_two_medians_of_the_summary() -> None:
    assert {key for pair in figures.RATIOS.values() for key in pair} <= figures.SUMMARY.keys()


def test_cpu_per_lead_is_the_median_of_its_measurement_alone() -> None:
    others = (*RUNS, Run(measurement="other", figures={}, cpu_us_per_lead={"router": 9_999.0}))
    assert figures.cpu_us_per_lead(others, figures.PIPELINE) == {"router": 100.0}


def test_document_is_json_even_when_a_lead_was_lost() -> None:
    lossy = run("latency-50", p50_ms=10.0, p99_ms=math.inf)
    found = report.document([lossy], arguments={"repeats": 1}, seconds=60.0)
    assert found["summary"]["latency_p99_ms_at_half_rate"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_document_names_no_host() -> None:
    found = report.document(RUNS, arguments={"repeats": 3})
    assert found["machine"].keys() == {"cpus", "cpu", "memory_gib", "system", "python"}


def test_markdown_has_every_key_of_the_summary_and_every_process() -> None:
    text = report.markdown(report.document(RUNS, arguments={"repeats": 3}, seconds=300.0))
    for key in figures.summary(RUNS):
        assert f"| {key} | " in text
    assert "| pipeline_leads_per_s | 4,000 |" in text
    assert "| router | 100 | 60.00 |" in text
