"""A short fault campaign, as `make chaos` runs it: nothing is lost, nothing is broken, and nothing is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
_REPOSITORY = Path(__file__).parents[2]
# The seed deals a zombie router, one cut off from Kafka, both killed, a broker killed, a database restarted.
_SHORT = (
    "--leads",
    "1500",
    "--faults",
    "8",
    "--minutes",
    "0.5",
    "--session-timeout-ms",
    "3000",
    "--seed",
    "218",
)


def _campaign(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    # In a session of its own, so that a signal meant for it reaches nobody else.
    return subprocess.Popen(
        [sys.executable, "-m", "chaos", *_SHORT, "--name", "test", "--results", str(tmp_path), *more],
        cwd=_REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_short_campaign_loses_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    campaign = _campaign(tmp_path)
    _, said = campaign.communicate(timeout=570)
    assert campaign.returncode == 0, said[-6_000:]
    found = json.loads((tmp_path / "test.json").read_text())
    summary = found["summary"]["Gavel"]
    assert summary["submissions_acknowledged"] >= 1_500
    assert (summary["faults"], summary["faults_not_recovered_from"]) == (8, 0)
    assert summary["violations"] == 0
    (told,) = found["campaigns"]
    assert told["counts"]["sales"] > 1_000, "there was something to break"
    assert told["judge"] == "gavel audit run --once"


@pytest.mark.long
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_campaign_that_is_ended_leaves_no_process_behind(
    tmp_path: Path, how: signal.Signals, code: int
) -> None:
    campaign = _campaign(tmp_path)
    assert campaign.stderr is not None
    started: list[psutil.Process] = []
    with campaign:
        for line in campaign.stderr:
            if "Every step works" in line:
                started = psutil.Process(campaign.pid).children(recursive=True)
                campaign.send_signal(how)
                break
        said = campaign.stderr.read()
    assert campaign.wait(120) == code, said[-3_000:]
    assert len(started) >= 13, "ten workers, two servers and the guard over them"
    _, left = psutil.wait_procs(started, timeout=60)
    assert left == []
