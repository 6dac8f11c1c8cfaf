"""The command measures the control on real servers, and leaves nothing behind, interrupted or not."""

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


def run_bench(*arguments: str) -> subprocess.Popen[str]:
    """Start the command on the control alone, with few leads."""
    words = [sys.executable, "-m", "bench", "--only", "faust", "--repeats", "1", "--warm-up", "5", *arguments]
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


def test_measures_the_control_and_writes_the_summary(tmp_path: Path) -> None:
    run = run_bench("--control-leads", "30", "--results", str(tmp_path), "--name", "few", "--json")
    printed, told = run.communicate()
    assert run.returncode == 0, told
    found = json.loads((tmp_path / "few.json").read_text())
    assert json.loads(printed) == found
    assert found["summary"]["per_event_faust_leads_per_s"] > 0
    assert found["runs"][0]["throughput"]["leads"] == 30
    assert found["runs"][0]["throughput"]["is_complete"]


def test_interrupted_run_stops_what_it_started(tmp_path: Path) -> None:
    run = run_bench("--control-leads", "100000", "--results", str(tmp_path))
    until_s = time.monotonic() + _STARTED_WITHIN_S
    while len(workers := workers_of(run.pid)) < 3:
        assert run.poll() is None
        assert time.monotonic() < until_s, "the workers were not started in time"
    run.send_signal(signal.SIGINT)
    _, told = run.communicate()
    assert run.returncode == 130, told
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    assert not list(tmp_path.iterdir())
