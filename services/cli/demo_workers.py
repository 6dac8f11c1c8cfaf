"""The demo's workers: each step in a process of its own, watched, and stopped in order.

It knows no step but by name. A worker that ends before it is told to is an error, and its log says why.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from services.bus.kafka import Connection
from services.cli.complaints import Complaint
from services.cli.demo_interruptions import Interruptions
from services.cli.step_commands import command

CREW: tuple[tuple[str, ...], ...] = (
    ("intake",),
    ("router", "router"),
    ("resale", "billing", "feed", "gateway"),
)
"""Which steps run, in the order in which they are stopped: first those that let something in."""

STOPS_WITHIN_S = 10.0
REGISTRY = ".registry"
"""Groups of announcements end so, one a worker: they say nothing of whether it works."""

_ANSWER_S = 10.0
LINES_QUOTED = 8
_LINE_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(slots=True)
class Workers:
    """All processes of a demo, by the stage in which they are stopped."""

    environment: Mapping[str, str]
    logs: Path
    interruptions: Interruptions
    stages: list[list[Worker]] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin with none."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all, in order."""
        for stage in self.stages:
            _stop(stage)

    def start(self, crew: Sequence[Sequence[str]] = CREW) -> None:
        """Start all at once: whoever comes late finds in its topics what it missed."""
        for steps in crew:
            self.stages.append([])
            for step, name in _named(steps):
                with self.interruptions.deferred():
                    self.stages[-1].append(self._started(step, name))

    @property
    def all(self) -> list[Worker]:
        """All workers."""
        return [worker for stage in self.stages for worker in stage]

    def require_all(self) -> None:
        """Raise `Complaint` with the end of its log if a worker has ended."""
        for worker in self.all:
            code = worker.process.poll()
            if code is not None:
                raise Complaint(
                    f"The worker {worker.name} has ended, with exit code {code}. Its log, {worker.log}, ends:\n"
                    + "\n".join(f"  | {line}" for line in last_lines(worker.log))
                )

    def _started(self, step: str, name: str) -> Worker:
        log = self.logs / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command(step),
                env={**os.environ, **self.environment, "GAVEL_WORKER": name},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal is meant for the demo, which stops its workers in order.
                start_new_session=True,
            )
        return Worker(name=name, process=process, log=log)


def are_ready(connection: Connection, namespace: str, workers: Sequence[Worker]) -> bool:
    """Tell whether all workers have joined their groups, and each group has settled who reads what."""
    admin = AdminClient(connection.librdkafka())
    listed = admin.list_consumer_groups(request_timeout=_ANSWER_S).result().valid
    names = [
        group.group_id
        for group in listed
        if group.group_id.startswith(namespace) and not group.group_id.endswith(REGISTRY)
    ]
    if not names:
        return False
    groups = [
        found.result() for found in admin.describe_consumer_groups(names, request_timeout=_ANSWER_S).values()
    ]
    members = [
        member for group in groups for member in group.members if group.state is ConsumerGroupState.STABLE
    ]
    return sum(bool(member.assignment.topic_partitions) for member in members) >= len(workers)


def last_lines(log: Path) -> list[str]:
    """Read the end of a worker's log, as people read it."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [readable(line) for line in lines[-LINES_QUOTED:]] or ["(nothing)"]


def readable(line: str) -> str:
    """Write a line of a worker's log for people: the time, what happened, and the error if it was one."""
    try:
        found = json.loads(line)
    except ValueError:
        return line[:_LINE_MAX]
    if not isinstance(found, dict):
        return line[:_LINE_MAX]
    told = f"{str(found.get('at', ''))[11:19]} {found.get('level', '')}: {found.get('event', '')}"
    return (told + "".join(_causes(found.get("error"))))[: 2 * _LINE_MAX]


def _causes(error: Any) -> Iterable[str]:
    while isinstance(error, dict):
        yield f" — {error.get('class')}"
        if error.get("message"):
            yield f": {error['message']}"
        if error.get("frames"):
            yield f" (at {error['frames'][-1]})"
        error = error.get("cause")


def _named(steps: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Number the workers of a step where it has several."""
    for at, step in enumerate(steps):
        yield step, f"{step}-{steps[: at + 1].count(step)}" if steps.count(step) > 1 else step


def _stop(stage: Sequence[Worker]) -> None:
    """Ask all of a stage to leave, and end by force what has not left in time."""
    for worker in stage:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)
    for worker in stage:
        try:
            worker.process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
