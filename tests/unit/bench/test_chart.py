"""The picture shows what the summary has, and nothing else."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.chart import Bar, latency_bars, length, rate_bars, svg

SUMMARY: dict[str, float | None] = {
    "pipeline_leads_per_s": 4_000.0,
    "per_event_faust_leads_per_s": 400.0,
    "raw_forward_records_per_s": 40_000.0,
    "latency_p50_ms_at_half_rate": 12.0,
    "latency_p99_ms_at_half_rate": 48.0,
    "latency_p99.9_ms_at_half_rate": None,
}


def test_is_well_formed_and_shows_each_value() -> None:
    texts = [
        node.text for node in ElementTree.fromstring(svg(SUMMARY)).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"4,000", "400", "40,000", "12 ms", "48 ms"} <= set(texts)


def test_what_was_not_measured_has_no_bar() -> None:
    assert [bar.label for bar in rate_bars(SUMMARY)] == [
        "per-event Faust",
        "Gavel, one worker a step",
        "raw forward: the limit",
    ]
    assert [bar.label for bar in latency_bars(SUMMARY)] == ["50 %, p50", "50 %, p99"]


def test_ten_times_as_much_is_the_same_step_longer_everywhere() -> None:
    bars = [Bar("a", 4.0, ""), Bar("b", 40.0, ""), Bar("c", 400.0, "")]
    lengths = [length(bar.value, bars) for bar in bars]
    assert lengths[1] - lengths[0] == pytest.approx(lengths[2] - lengths[1])
    assert lengths[0] > 0


def test_refuses_a_summary_without_anything_to_show() -> None:
    with pytest.raises(ValueError, match="neither"):
        svg({"takeover_s": 4.0})
