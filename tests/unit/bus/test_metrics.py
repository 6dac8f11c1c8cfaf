"""What a host says of its lag is asked at each look at its page, in seconds."""

from __future__ import annotations

import pytest

from services.bus.metrics import HostMetrics, age_s

STEP = {"step": "router"}


def test_an_age_is_in_seconds_and_never_below_nothing() -> None:
    assert age_s(4_000, 6_500) == 2.5
    assert age_s(6_500, 4_000) == 0.0
    assert age_s(None, 4_000) == 0.0


def test_a_page_shows_the_lag_and_the_wait_of_its_moment() -> None:
    metrics, oldest_ms, waits = HostMetrics("router"), 0, False
    metrics.watch(
        oldest_ms=lambda: oldest_ms if waits else None, waits_for=lambda: "the database" if waits else None
    )
    assert metrics.registry.get_sample_value("gavel_bus_lag_seconds", STEP) == 0.0
    assert metrics.registry.get_sample_value("gavel_bus_waits", STEP) == 0.0
    waits = True
    lag_s = metrics.registry.get_sample_value("gavel_bus_lag_seconds", STEP)
    assert lag_s is not None
    assert lag_s > 1e9, "a record of 1970 is more than thirty years old"
    assert metrics.registry.get_sample_value("gavel_bus_waits", STEP) == pytest.approx(1.0)
