"""Processes are measured and stopped as they should be, on real ones."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bench.processes import (
    Worker,
    WorkerEndedError,
    cpu_s,
    listener_on,
    parent_of,
    peak_memory_mib,
    stop_all,
)

_PATIENT = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"


def worker(tmp_path: Path, code: str) -> Worker:
    """A worker that runs these lines."""
    return Worker("one", ["-c", code], environment={}, log_file=tmp_path / "one.log")


def test_worker_that_ended_by_itself_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    ended = worker(tmp_path, "print('why it ended'); raise SystemExit(3)")
    ended.await_end()
    with pytest.raises(WorkerEndedError, match=r"(?s)one ended with code 3.*why it ended"):
        ended.check()


def test_stopping_ends_exactly_the_workers_given(tmp_path: Path) -> None:
    stopped, other = worker(tmp_path, _PATIENT), worker(tmp_path, _PATIENT)
    try:
        stop_all([stopped])
        other.check()
        with pytest.raises(WorkerEndedError):
            stopped.check()
    finally:
        stop_all([other])


def test_worker_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.processes._STOP_WITHIN_S", 0.2)
    log = tmp_path / "one.log"
    stubborn = worker(
        tmp_path,
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()",
    )
    while "deaf" not in log.read_text():
        stubborn.check()
    stop_all([stubborn])
    with pytest.raises(WorkerEndedError, match="code -9"):
        stubborn.check()


def test_cpu_time_and_memory_of_a_process_are_read() -> None:
    before_s = cpu_s(os.getpid())
    while cpu_s(os.getpid()) < before_s + 0.02:
        sum(range(10_000))
    assert peak_memory_mib(os.getpid()) > 5
    assert parent_of(os.getpid()) == os.getppid()


def test_process_that_is_gone_has_used_nothing(tmp_path: Path) -> None:
    gone = worker(tmp_path, "")
    gone.await_end()
    assert (cpu_s(gone.pid), peak_memory_mib(gone.pid), parent_of(gone.pid)) == (0.0, 0.0, None)


def test_listener_is_found_by_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listener_on(port) == os.getpid()
    assert listener_on(port) is None
