"""Starts and stops the workers that are measured, and reads what processes use from /proc.

It signals only processes that it started itself, each by its id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.command_line import interrupts_wait

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOP_WITHIN_S = 15.0
_LOG_CHARACTERS_QUOTED = 2_000
_REPOSITORY = Path(__file__).parents[1]


class WorkerEndedError(Exception):
    """A worker ended by itself; the message ends with the last lines of its log."""


class Worker:
    """One Python process of a pipeline, started at once."""

    def __init__(
        self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str], log_file: Path
    ) -> None:
        """Run `python <arguments>` in a session of its own, so that Ctrl-C is the harness's alone."""
        self.name = name
        self._log_file = log_file
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=_REPOSITORY,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @classmethod
    def start_on(
        cls,
        workers: list[Worker],
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_file: Path,
    ) -> Worker:
        """Start one and put it on the list of those to stop, with no interruption in between."""
        with interrupts_wait():
            worker = cls(name, arguments, environment=environment, log_file=log_file)
            workers.append(worker)
        return worker

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """Where its output goes."""
        return self._log_file

    def kill(self) -> None:
        """End it at once, without a word to anybody (SIGKILL), and wait until it is gone."""
        self._process.kill()
        self._process.wait(_STOP_WITHIN_S)

    def check(self) -> None:
        """Raise `WorkerEndedError` if it no longer runs."""
        code = self._process.poll()
        if code is not None:
            end = self._log_file.read_text(errors="replace")[-_LOG_CHARACTERS_QUOTED:]
            raise WorkerEndedError(f"{self.name} ended with code {code}; {self._log_file} ends:\n{end}")

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def await_end(self) -> None:
        """Wait until it has ended, and kill it when that takes too long."""
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_WITHIN_S)


def stop_all(workers: Sequence[Worker]) -> None:
    """Stop all at the same time."""
    for worker in workers:
        worker.ask_to_stop()
    for worker in workers:
        worker.await_end()


def cpu_s(pid: int) -> float:
    """Read the CPU time of a process and of its children that have ended; 0.0 when there is none such (proc(5))."""
    fields = _stat(pid)
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S if fields else 0.0


def family_cpu_s(pid: int) -> float:
    """Read the CPU time of a process and of all its children, living and ended."""
    return cpu_s(pid) + sum(cpu_s(child) for child in _children(pid))


def machine_cpu_s() -> float:
    """Read the CPU time that anything on this machine has used, time that its host withheld included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICKS_PER_S


def peak_memory_mib(pid: int) -> float:
    """Read the most memory that a process ever had resident."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1_024 for line in lines if line.startswith("VmHWM:")), 0.0)


def parent_of(pid: int) -> int | None:
    """Name the process's parent."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def listener_on(port: int) -> int | None:
    """Find the process of this machine that listens on a TCP port, where it may be looked at."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    return next((pid for pid in _pids() if inodes & set(_open_files(pid))), None)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on; the second, the name, may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _children(pid: int) -> list[int]:
    return [child for child in _pids() if parent_of(child) == pid]


def _listening_inodes(port: int) -> list[str]:
    rows = [line.split() for table in ("tcp", "tcp6") for line in _lines(Path(f"/proc/net/{table}"))[1:]]
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _open_files(pid: int) -> list[str]:
    try:
        paths = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return []
    return [_target(path) for path in paths]


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # closed since it was listed
