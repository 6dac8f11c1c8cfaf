"""The campaign's crew on real processes: who ends is started again and counted, and nobody outlives the campaign."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from chaos import crew as crew_module
from chaos.crew import Command, Crew
from chaos.guard import Guard

_PATIENT = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('up', flush=True)
signal.pause()
"""
_FAILING = "print('why it ended', flush=True); raise SystemExit(3)"


@contextmanager
def crew_of(tmp_path: Path, code: str) -> Iterator[Crew]:
    with (
        Guard.over(tmp_path / "no servers") as guard,
        Crew(
            command=lambda _step, _name: Command(arguments=("-c", code), environment={}),
            folder=tmp_path,
            explain=lambda log: log.strip().splitlines()[-1],
            guard=guard,
        ) as crew,
    ):
        yield crew


def wait_until(holds: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends_at_s, "not in time"
        time.sleep(0.02)


def is_up(tmp_path: Path, name: str, times: int = 1) -> bool:
    log = tmp_path / f"{name}.log"
    return log.exists() and log.read_text().count("up") == times


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_RESTARTED_AFTER_S", 0.05)


def test_worker_that_ends_by_itself_is_counted_with_its_reason_and_started_again(tmp_path: Path) -> None:
    with crew_of(tmp_path, _FAILING) as crew:
        crew.start("router", "router-1")
        wait_until(lambda: len(crew.ended) >= 2)
    assert {(each.worker, each.code, each.said) for each in crew.ended} == {("router-1", 3, "why it ended")}


def test_worker_that_was_killed_is_not_counted_and_stays_away_until_it_is_brought_back(
    tmp_path: Path,
) -> None:
    with crew_of(tmp_path, _PATIENT) as crew:
        crew.start("router", "router-1")
        wait_until(lambda: is_up(tmp_path, "router-1"))
        crew.kill("router-1")
        assert crew.pid("router-1") is None
        crew.bring_back("router-1")
        wait_until(lambda: is_up(tmp_path, "router-1", times=2))
        assert crew.ended == []


def test_worker_that_leaves_as_it_was_asked_is_no_failure(tmp_path: Path) -> None:
    with crew_of(tmp_path, _PATIENT) as crew:
        crew.start("router", "router-1")
        wait_until(lambda: is_up(tmp_path, "router-1"))
        crew.ask_to_leave("router-1")
        assert crew.ended == []


def test_end_of_the_crew_ends_everybody_the_stopped_ones_too(tmp_path: Path) -> None:
    with crew_of(tmp_path, _PATIENT) as crew:
        for name in ("router-1", "router-2"):
            crew.start("router", name)
            wait_until(lambda name=name: is_up(tmp_path, name))  # type: ignore[misc]
        pids = [crew.pid(name) for name in crew.names]
        crew.signal("router-2", signal.SIGSTOP)
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)


def test_guard_ends_whom_a_killed_campaign_left_and_nobody_else(tmp_path: Path) -> None:
    with (
        psutil.Popen(["sleep", "60"]) as left,
        psutil.Popen(["sleep", "60"]) as other,
        psutil.Popen(["sleep", "60"]) as gone,
    ):
        guard = Guard.over(tmp_path / "no servers")
        for process in (left, gone):
            guard.started(process.pid)
        guard.ended(gone.pid)
        assert guard.process.stdin is not None
        guard.process.stdin.close()  # what a kill -9 of the campaign does to it
        assert guard.process.wait(30) == 1
        assert left.wait(10) == -signal.SIGKILL
        assert other.poll() is None
        assert gone.poll() is None
        other.kill()
        gone.kill()
