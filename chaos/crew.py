"""The workers under the campaign: started, watched, and started again when they end, as systemd would do it.

It signals only processes that it started itself, each by its id, and ends them all at its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.guard import Guard

_REPOSITORY = Path(__file__).parents[1]
_LOOK_EVERY_S = 0.1
_RESTARTED_AFTER_S = 1.0
_ENDS_WITHIN_S = 20.0
_LINES_QUOTED = 8
_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a worker is started: arguments of Python, and what is added to the environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A worker that ended without having been told to, or not as it was told."""

    at_s: float
    worker: str
    code: int
    said: str


@dataclass(slots=True, kw_only=True)
class _Place:
    """A worker's place in the crew. While it `is_held`, the watch leaves it as it is."""

    step: str
    process: subprocess.Popen[bytes]
    is_held: bool = False
    starts_at_s: float | None = None


@dataclass(slots=True)
class Crew:
    """All workers by name, `<step>-<number>`."""

    command: Callable[[str, str], Command]
    folder: Path
    explain: Callable[[str], str]
    guard: Guard
    ended: list[Ended] = field(default_factory=list)
    starts: int = 0
    _places: dict[str, _Place] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _over: threading.Event = field(default_factory=threading.Event)
    _watch: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to watch; there is nobody yet."""
        self._watch = threading.Thread(target=self._look_after, name="crew", daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everybody, in order where they can."""
        self._over.set()
        with self._lock:
            processes = [place.process for place in self._places.values()]
            for process in processes:
                _tell(process, signal.SIGCONT)
                _tell(process, signal.SIGTERM)
        for process in processes:
            _await_end(process)
        if self._watch is not None:
            self._watch.join(_ENDS_WITHIN_S)

    @property
    def names(self) -> list[str]:
        """Everybody's name."""
        with self._lock:
            return list(self._places)

    def start(self, step: str, name: str) -> None:
        """Start a worker in a place of its own."""
        with self._lock:
            process = self._started(step, name)
            if process is not None:
                self._places[name] = _Place(step=step, process=process)

    def of_step(self, step: str) -> list[str]:
        """Name a step's workers."""
        with self._lock:
            return [name for name, place in self._places.items() if place.step == step]

    def pid(self, name: str) -> int | None:
        """Give a worker's process id; None while it does not run."""
        with self._lock:
            place = self._places.get(name)
            return place.process.pid if place and place.process.poll() is None else None

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a worker a signal, if it runs."""
        with self._lock:
            place = self._places.get(name)
            if place is not None:
                _tell(place.process, number)

    def kill(self, name: str) -> None:
        """End a worker as a power cut does, and keep its place empty until `bring_back`."""
        place = self._hold(name)
        if place is not None:
            place.process.kill()
            place.process.wait(_ENDS_WITHIN_S)

    def ask_to_leave(self, name: str) -> None:
        """Let a worker leave in order, and keep its place empty; one that can't, or fails at it, is noted."""
        place = self._hold(name)
        if place is not None and place.process.poll() is None:
            _tell(place.process, signal.SIGTERM)
            _await_end(place.process)
            if place.process.returncode != 0:
                self._note(name, place.process.returncode)

    def bring_back(self, name: str) -> None:
        """Start a worker again in its place."""
        with self._lock:
            place = self._places.get(name)
            if place is None or place.process.poll() is None:
                return
            self.guard.ended(place.process.pid)
            process = self._started(place.step, name)
            if process is not None:
                place.process, place.is_held, place.starts_at_s = process, False, None

    def dismiss(self, name: str) -> None:
        """Take a worker that has ended off the crew."""
        with self._lock:
            self._places.pop(name, None)

    def last_words(self, name: str) -> str:
        """Quote the end of a worker's log."""
        return "\n".join(_tail(self._log(name)).splitlines()[-_LINES_QUOTED:])

    def _hold(self, name: str) -> _Place | None:
        with self._lock:
            place = self._places.get(name)
            if place is not None:
                place.is_held = True
            return place

    def _look_after(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            with self._lock:
                for name, place in self._places.items():
                    self._look(name, place)

    def _look(self, name: str, place: _Place) -> None:
        code = place.process.poll()
        if code is None or place.is_held or self._over.is_set():
            return
        if place.starts_at_s is None:
            self._note(name, code)
            place.starts_at_s = time.monotonic() + _RESTARTED_AFTER_S
        elif time.monotonic() >= place.starts_at_s:
            self.bring_back(name)

    def _note(self, name: str, code: int) -> None:
        said = self.explain(_tail(self._log(name)))
        self.ended.append(Ended(at_s=time.monotonic(), worker=name, code=code, said=said))

    def _started(self, step: str, name: str) -> subprocess.Popen[bytes] | None:
        if self._over.is_set():
            return None
        command = self.command(step, name)
        self.starts += 1
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command.arguments],
                cwd=_REPOSITORY,
                env={**os.environ, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal is meant for the campaign, which ends its workers itself.
                start_new_session=True,
            )
        self.guard.started(process.pid)
        return process

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def start_all(crew: Crew, steps: Sequence[str], workers_a_step: int) -> None:
    """Start so many workers of each step."""
    for step in steps:
        for number in range(1, workers_a_step + 1):
            crew.start(step, f"{step}-{number}")


def _tell(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Wait until it has ended, and kill it when that takes too long."""
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_ENDS_WITHIN_S)


def _tail(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
