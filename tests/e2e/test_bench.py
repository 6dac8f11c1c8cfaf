"""The command measures on real servers, and leaves nothing behind, interrupted or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.processes import parent_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(170)]

_REPOSITORY = Path(__file__).parents[2]
_STARTED_WITHIN_S = 90.0


FEW = ("--quick", "--warm-up", "5", "--warm-broker-leads", "100", "--latency-s", "1")
SUMMARY = {
    *("pipeline_leads_per_s", "per_event_faust_leads_per_s", "pipeline_over_per_event_faust"),
    *("row_lock_router_leads_per_s", "pipeline_over_row_lock_router", "raw_forward_records_per_s"),
    *("latency_p50_ms_at_quarter_rate", "latency_p50_ms_at_half_rate", "latency_p99_ms_at_half_rate"),
    *("latency_p99.9_ms_at_half_rate", "latency_p99_ms_at_three_quarters_rate"),
    *("router_core_decisions_per_s", "billing_rows_per_s", "billing_rebuild_entries_per_s"),
    *("replay_entries_per_s", "memory_mib_per_worker"),
}


def run_bench(*arguments: str) -> subprocess.Popen[str]:
    """Start the command, with few leads."""
    words = [sys.executable, "-m", "bench", *FEW, *arguments]
    return subprocess.Popen(words, cwd=_REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def workers_of(pid: int) -> list[int]:
    """The Faust workers that a process started."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [child for child in pids if parent_of(child) == pid and "per_event_faust" in command_of(child)]


def command_of(pid: int) -> str:
    """The command line of a process that may be gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_measures_pipelines_and_controls_each_of_which_did_all_its_work(tmp_path: Path) -> None:
    amounts = ("--leads", "200", "--control-leads", "30", "--forwarded-leads", "300")
    measured = ("raw-forward", "faust", "row-lock", "pipeline", "latency", "log", "core")
    run = run_bench(*amounts, "--only", *measured, "--results", str(tmp_path), "--name", "few", "--json")
    printed, told = run.communicate()
    assert run.returncode == 0, told
    found = json.loads((tmp_path / "few.json").read_text())
    assert json.loads(printed) == found
    assert found["summary"].keys() >= SUMMARY
    assert all(found["summary"][name] > 0 for name in SUMMARY)
    leads = {run["measurement"]: run["notes"].get("leads") for run in found["runs"]}
    assert (leads["pipeline"], leads["faust"], leads["row-lock"], leads["raw-forward"]) == (200, 30, 30, 300)
    assert {run["notes"]["lost"] for run in found["runs"] if "lost" in run["notes"]} == {0}
    entries = {run["measurement"]: run["notes"].get("entries") for run in found["runs"]}
    assert entries["billing"] == entries["rebuild"] == entries["replay"] > 200


def test_interrupted_run_stops_what_it_started(tmp_path: Path) -> None:
    run = run_bench("--only", "faust", "--control-leads", "100000", "--results", str(tmp_path))
    until_s = time.monotonic() + _STARTED_WITHIN_S
    while len(workers := workers_of(run.pid)) < 3:
        assert run.poll() is None
        assert time.monotonic() < until_s, "the workers were not started in time"
    run.send_signal(signal.SIGINT)
    _, told = run.communicate()
    assert run.returncode == 130, told
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    assert not list(tmp_path.iterdir())
