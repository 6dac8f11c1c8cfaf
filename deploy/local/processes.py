"""Servers as processes: started in a session of their own, recognised by a mark, stopped in order.

Knows no particular server, and never signals a process that doesn't bear the mark.
"""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local.folder import StackError
from deploy.local.unprivileged import Account

LOG_LINES_QUOTED = 15
POLL_SECONDS = 0.1
KILL_WAIT_SECONDS = 10.0

# Servers that this very process started, so that they can be reaped when they end.
_children: dict[int, subprocess.Popen[bytes]] = {}


class ServerEndedError(StackError):
    """The server's process ended while somebody waited for its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server of a local stack.

    `mark` is an argument on its command line that no other process has: a process id alone proves nothing, since
    the number in a pid file may belong to somebody else's process by now.
    """

    name: str
    mark: str
    pid_file: Path
    log_file: Path
    stop_signal: signal.Signals
    stop_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for each server, and whether somebody has called it off."""

    seconds: float
    ended: threading.Event


def find(server: Server) -> psutil.Process | None:
    """Find the server's process: the one in its pid file if that is it, else any that bears its mark."""
    _reap()
    return _named_in_pid_file(server) or _bearing_mark(server.mark)


def start(
    server: Server,
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    account: Account | None = None,
    keep_open: Sequence[int] = (),
) -> None:
    """Start the server in its own session, so that Ctrl-C at the terminal is not meant for it."""
    runs_as = account or Account()
    with server.log_file.open("ab") as log:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep_open,
            user=runs_as.uid,
            group=runs_as.gid,
            extra_groups=runs_as.groups,
        )
    _children[child.pid] = child
    server.pid_file.write_text(f"{child.pid}\n")


def await_answer(server: Server, answers: Callable[[], bool], patience: Patience) -> None:
    """Wait until the server answers.

    Raises `StackError`, quoting the end of the log, if its process (`ServerEndedError`) or the patience ends before.
    """
    until = time.monotonic() + patience.seconds
    while not answers():
        if patience.ended.wait(POLL_SECONDS):
            raise StackError(f"Nobody waits for {server.name} any more.")
        if find(server) is None:
            raise ServerEndedError(f"{server.name} ended while starting. {quoted_log(server)}")
        if time.monotonic() > until:
            raise StackError(
                f"{server.name} didn't answer within {patience.seconds:g} s. {quoted_log(server)}"
            )


def stop(server: Server) -> bool:
    """Stop the server in order, by force once its time is up; tell whether it was running."""
    process = find(server)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(server.stop_signal)
            try:
                process.wait(server.stop_seconds)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(KILL_WAIT_SECONDS)
    server.pid_file.unlink(missing_ok=True)
    _reap()
    return process is not None


def quoted_log(server: Server) -> str:
    """Say where the server's log is, and quote its last lines."""
    lines = server.log_file.read_text(errors="replace").splitlines() if server.log_file.exists() else []
    quoted = "\n".join(f"  | {line}" for line in lines[-LOG_LINES_QUOTED:])
    return f"Its log is {server.log_file}" + (f" and ends:\n{quoted}" if quoted else ", and empty.")


def _named_in_pid_file(server: Server) -> psutil.Process | None:
    try:
        process = psutil.Process(int(server.pid_file.read_text()))
    except (OSError, ValueError, psutil.Error):
        return None
    return process if server.mark in _arguments(process) else None


def _bearing_mark(mark: str) -> psutil.Process | None:
    marked = [process for process in psutil.process_iter() if mark in _arguments(process)]
    # A server that has just forked has the mark twice: the parent is the elder.
    return min(marked, key=lambda process: (process.create_time(), process.pid), default=None)


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _reap() -> None:
    for pid, child in list(_children.items()):
        if child.poll() is None and _is_dying(pid):
            # Until it is reaped its number counts as running for whoever finds it in a lock file.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(KILL_WAIT_SECONDS)
        if child.poll() is not None:
            _children.pop(pid, None)


def _is_dying(pid: int) -> bool:
    """Tell whether a process has given up its memory, and with it its arguments, and is not gone yet."""
    try:
        return not psutil.Process(pid).cmdline()
    except psutil.Error:
        return True
