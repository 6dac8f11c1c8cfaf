"""Workers are watched and stopped, and an interruption ends the demo once, between two steps and not within one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.cli.complaints import Complaint
from services.cli.demo_interruptions import SIGNALS, Interruptions
from services.cli.demo_workers import CREW, Workers, last_lines, readable
from services.cli.step_commands import steps


@pytest.fixture
def interruptions() -> Iterator[Interruptions]:
    found = Interruptions()
    yield found
    found.give_back()


def interrupt() -> None:
    """Send Ctrl-C to this process; the interpreter sees to it before the next bytecode of the main thread."""
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_is_raised_at_once(interruptions: Interruptions) -> None:
    assert interruptions is not None
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_a_second_interruption_does_not_disturb_the_end(interruptions: Interruptions) -> None:
    assert interruptions is not None
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    interrupt()


def test_what_must_not_be_cut_in_two_is_done_first(interruptions: Interruptions) -> None:
    done = []

    def start() -> None:
        with interruptions.deferred():
            interrupt()
            done.append("started")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done == ["started"]


def test_the_orderly_end_is_not_interrupted(interruptions: Interruptions) -> None:
    interruptions.hold()
    interrupt()


def test_signals_mean_again_what_they_meant() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    Interruptions().give_back()
    assert [signal.getsignal(each) for each in SIGNALS] == before


def workers(tmp_path: Path, interruptions: Interruptions) -> Workers:
    nowhere = {"GAVEL_KAFKA": "127.0.0.1:1", "GAVEL_DATABASE": "postgresql://nobody@127.0.0.1:1/nothing"}
    return Workers(environment=nowhere, logs=tmp_path, interruptions=interruptions)


def test_the_crew_is_every_step_there_is() -> None:
    assert {step for stage in CREW for step in stage} == set(steps())


def test_a_worker_that_ends_is_named_with_the_end_of_its_log(
    tmp_path: Path, interruptions: Interruptions
) -> None:
    with workers(tmp_path, interruptions) as crew:
        crew.environment = {"GAVEL_KAFKA": "", "GAVEL_DATABASE": ""}
        crew.start([["billing"]])
        crew.all[0].process.wait(60)
        with pytest.raises(
            Complaint, match=r"(?s)The worker billing has ended.*\| .*GAVEL_KAFKA"
        ) as complaint:
            crew.require_all()
    assert str(tmp_path / "billing.log") in complaint.value.what


def test_all_workers_are_stopped_at_the_end(tmp_path: Path, interruptions: Interruptions) -> None:
    with workers(tmp_path, interruptions) as crew:
        crew.start([["billing"], ["billing", "billing"]])
        crew.require_all()
        pids = [worker.process.pid for worker in crew.all]
        assert all(map(psutil.pid_exists, pids))
    assert not any(map(psutil.pid_exists, pids))
    assert [worker.name for worker in crew.all] == ["billing", "billing-1", "billing-2"]


def test_a_log_line_is_told_in_words() -> None:
    line = (
        '{"event": "the worker stops", "level": "error", "at": "2026-11-22T11:10:34.138542Z", "error": '
        '{"class": "services.bus.ports.BusFailed", "message": "no answer", "frames": ["a.py:1 f", "b.py:2 g"], '
        '"cause": {"class": "builtins.OSError"}}}'
    )
    assert readable(line) == (
        "11:10:34 error: the worker stops — services.bus.ports.BusFailed: no answer (at b.py:2 g) — builtins.OSError"
    )


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "17", '["a"]', "x" * 5_000])
def test_any_other_line_is_told_as_it_is_but_not_at_any_length(line: str) -> None:
    assert readable(line) == line[:300]


def test_an_empty_log_is_told_as_nothing(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log") == ["(nothing)"]
