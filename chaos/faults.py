"""Does to workers and servers what the plan says, and takes note of when it began, ended, and all went on again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import psycopg

from chaos.connections import cut, local_ports
from chaos.crew import Crew
from chaos.plan import Fault, FaultKind
from chaos.positions import Watch, await_progress
from chaos.servers import Servers

_CUT_EVERY_S = 0.02
_LOOK_EVERY_S = 0.1
_JOINED = "joined"
_SPEAKS_WITHIN_S = 60.0

Action: TypeAlias = Generator[None, None, str]
"""Strikes, yields, holds on and undoes it; returns what is to be said about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One fault as it was. Times are seconds after the load's beginning.

    `recovered_s`: from its beginning until every step had gone on in every partition, None where that did not come
    in time; `again_s`: the same from its end. `standing`: what stood still then.
    """

    number: int
    kind: FaultKind
    target: str
    planned_s: float
    began_s: float
    ended_s: float
    recovered_s: float | None
    again_s: float | None
    standing: tuple[str, ...]
    note: str

    @property
    def is_recovered(self) -> bool:
        """Tell whether all went on, during it or after it."""
        return self.again_s is not None


@dataclass(slots=True, kw_only=True)
class Injector:
    """Carries faults out, each in the thread that asks for it."""

    crew: Crew
    servers: Servers
    watch: Watch
    start_s: float
    recovers_within_s: float
    over: threading.Event

    def carry_out(self, fault: Fault) -> Told:
        """Do it, undo it, and wait until all goes on."""
        action = self._actions()[fault.kind](fault)
        next(action)
        began_s = time.monotonic()
        within_s = fault.holds_s + self.recovers_within_s
        with ThreadPoolExecutor(1) as pool:
            from_beginning = pool.submit(await_progress, self.watch, began_s, within_s)
            note = _rest_of(action)
            ended_s = time.monotonic()
            again = await_progress(self.watch, ended_s, self.recovers_within_s)
            recovered = from_beginning.result()
        return Told(
            number=fault.number,
            kind=fault.kind,
            target=fault.target,
            planned_s=fault.at_s,
            began_s=began_s - self.start_s,
            ended_s=ended_s - self.start_s,
            recovered_s=_at_most(recovered.seconds, again.seconds, ended_s - began_s),
            again_s=again.seconds,
            standing=again.standing,
            note=note,
        )

    def _actions(self) -> Mapping[FaultKind, Callable[[Fault], Action]]:
        return {
            FaultKind.WORKER_KILLED: self._kill,
            FaultKind.WORKER_STOPPED: self._stop,
            FaultKind.ZOMBIE: self._stop,
            FaultKind.WORKER_LEAVES: self._leave,
            FaultKind.STEP_KILLED: self._kill_step,
            FaultKind.WORKER_JOINS: self._join,
            FaultKind.KAFKA_CUT: self._cut_kafka,
            FaultKind.DATABASE_CUT: self._cut_database,
            FaultKind.SESSIONS_TERMINATED: self._terminate,
            FaultKind.BROKER_RESTARTED: lambda fault: self._restart(fault, self.servers.stop),
            FaultKind.BROKER_KILLED: lambda fault: self._restart(fault, self.servers.kill),
            FaultKind.DATABASE_RESTARTED: lambda fault: self._restart(fault, self.servers.stop),
            FaultKind.DATABASE_KILLED: lambda fault: self._restart(fault, self.servers.kill),
        }

    def _kill(self, fault: Fault) -> Action:
        self.crew.kill(fault.target)
        yield
        self._hold(fault.holds_s)
        self.crew.bring_back(fault.target)
        return f"away for {fault.holds_s:.1f} s"

    def _kill_step(self, fault: Fault) -> Action:
        names = self.crew.of_step(fault.target)
        for name in names:
            self.crew.kill(name)
        yield
        self._hold(fault.holds_s)
        for name in names:
            self.crew.bring_back(name)
        return f"{len(names)} workers away for {fault.holds_s:.1f} s"

    def _leave(self, fault: Fault) -> Action:
        self.crew.ask_to_leave(fault.target)
        yield
        self._hold(fault.holds_s)
        self.crew.bring_back(fault.target)
        return f"away for {fault.holds_s:.1f} s"

    def _stop(self, fault: Fault) -> Action:
        self.crew.signal(fault.target, signal.SIGSTOP)
        yield
        self._hold(fault.holds_s)
        self.crew.signal(fault.target, signal.SIGCONT)
        return f"stopped for {fault.holds_s:.1f} s"

    def _join(self, fault: Fault) -> Action:
        name = f"{fault.target}-{_JOINED}"
        said_before = self.crew.last_words(name)
        self.crew.start(fault.target, name)
        yield
        began_s = time.monotonic()
        # Its first words are that it starts. Told to leave before them, it would end and have disturbed nobody.
        while self.crew.last_words(name) == said_before and time.monotonic() < began_s + _SPEAKS_WITHIN_S:
            if self.over.wait(_LOOK_EVERY_S):
                break
        self._hold(fault.holds_s)
        self.crew.ask_to_leave(name)
        self.crew.dismiss(name)
        return f"there for {time.monotonic() - began_s:.1f} s with its start"

    def _cut_kafka(self, fault: Fault) -> Action:
        return self._keep_cut(fault, self.servers.kafka_ports)

    def _cut_database(self, fault: Fault) -> Action:
        return self._keep_cut(fault, frozenset({self.servers.database_port}))

    def _keep_cut(self, fault: Fault, ports: frozenset[int]) -> Action:
        """Shut what there is, and whatever is opened anew until the time is up."""
        count = self._cut_once(fault.target, ports)
        yield
        ends_at_s = time.monotonic() + fault.holds_s
        while time.monotonic() < ends_at_s and not self.over.wait(_CUT_EVERY_S):
            count += self._cut_once(fault.target, ports)
        return f"{count} connections shut in {fault.holds_s:.1f} s"

    def _cut_once(self, name: str, ports: frozenset[int]) -> int:
        pid = self.crew.pid(name)
        return cut(pid, ports) if pid is not None else 0

    def _terminate(self, fault: Fault) -> Action:
        pid = self.crew.pid(fault.target)
        ports = local_ports(pid, {self.servers.database_port}) if pid is not None else ()
        try:
            count = self.servers.terminate_sessions(ports)
        except psycopg.OperationalError:
            count = 0  # the database is away itself just now
        yield
        return f"{count} sessions ended"

    def _restart(self, fault: Fault, end: Callable[[str], None]) -> Action:
        with self.servers.lock:
            end(fault.target)
            yield
            self._hold(fault.holds_s)
            self.servers.start()
        return f"away for {fault.holds_s:.1f} s and its start"

    def _hold(self, seconds: float) -> None:
        self.over.wait(seconds)


def _at_most(recovered_s: float | None, again_s: float | None, lasted_s: float) -> float | None:
    """Take what went on after the end for what went on after the beginning, where that was not seen in its time."""
    if recovered_s is not None or again_s is None:
        return recovered_s
    return lasted_s + again_s


def _rest_of(action: Action) -> str:
    """Let an action go on to its end, and take what it says of itself."""
    try:
        next(action)
    except StopIteration as ended:
        return str(ended.value)
    raise AssertionError("an action strikes once")
