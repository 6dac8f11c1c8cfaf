"""What history costs is the full tables' rate over the empty ones', and needs room on the disk."""

from __future__ import annotations

import shutil
from collections import namedtuple
from typing import Any

import pytest

from bench.history_fill import BYTES_A_LEAD, Amount, lack_of_room
from bench.history_pipeline import _summary

Usage = namedtuple("Usage", "total used free")


def runs(rate: float, latency_ms: float) -> list[dict[str, Any]]:
    shares = [
        {"share": share, "p50_ms": latency_ms, "p99_ms": 3 * latency_ms} for share in ("quarter", "half")
    ]
    backlogs = [{"settling": False, "leads_per_s": rate + more} for more in (-1, 0, 1)]
    return [{"settling": True, "leads_per_s": 1.0}, *backlogs, *shares]


def test_medians_of_both_sides_are_compared() -> None:
    found = _summary(runs(1_000, 20.0), runs(800, 25.0))
    assert found["empty_leads_per_s"] == 1_000
    assert found["full_leads_per_s"] == 800
    assert found["full_over_empty"] == 0.8
    assert found["empty_p50_ms_at_half"] == 20.0
    assert found["full_p99_ms_at_quarter"] == 75.0


def test_tables_that_have_no_room_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    amount = Amount(open=1_000_000, closed=9_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10_000_000 * BYTES_A_LEAD * 2))
    assert lack_of_room(amount) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10_000_000 * BYTES_A_LEAD))
    told = lack_of_room(amount)
    assert told is not None
    assert "--open" in told
