"""The workers of all steps: how they join, share partitions, poll, work, die, are overtaken, and are started again.

It does what `services.bus.hosting` and a group's coordinator do on real Kafka. A worker that lost its partitions
without knowing goes on as a zombie for some turns, and is told then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from services.bus.memory import Crash
from services.bus.patience import PatientStep
from services.bus.ports import BusFailed, Message, Record, Step, Stopped, TopicPartition, Unacknowledged
from tests.simulation.faults import STEPS, Edges, FaultKind
from tests.simulation.world import PARTNERS, World

WORKERS = {"intake": 2, "router": 2, "resale": 2, "billing": 2, "feed": 1}
STOPS_MAX = 400
"""So many times all workers together may stop by themselves in one run; more often is for good."""

STOPS_IN_PEACE_MAX = 12
"""So many times may they once the faults are over."""

_ASKED_TO_REPUBLISH = re.compile(r"republish --partition (\d+) --from (\d+)")
_BATCHES = (4, 25, 500)
_NOTICED_AFTER_MS = (0, 40, 900, 6_000)
_STARTED_AGAIN_AFTER_MS = (1_000, 5_000)

EXPLAINED = (
    (re.compile("clock jumped|clock went back"), {FaultKind.CLOCK_STEP, FaultKind.CLOCK_LEAP}),
    (
        re.compile("tries in .* have failed"),
        {
            FaultKind.DATABASE_DOWN,
            FaultKind.COMMIT_LOST,
            FaultKind.COMMIT_UNANSWERED,
            FaultKind.REFUSED,
            FaultKind.READ_LOST,
            FaultKind.MARKET_MIDWAY,
        },
    ),
    (re.compile("is missing for over"), {FaultKind.LOG_TAIL_LOST, FaultKind.GAP}),
    (re.compile("position to read from is not in the topic"), {FaultKind.LOG_TAIL_LOST}),
    (
        re.compile("simulated"),
        {FaultKind.PRODUCE_FAILED, FaultKind.ACK_LOST, FaultKind.DATABASE_DOWN},
    ),
)
"""Why a worker may stop by itself, and the faults that alone may bring that about."""


class Broken(Exception):
    """The product failed in a way that nothing explains."""


class Trouble(Protocol):
    """Whoever strikes."""

    fired: Counter[FaultKind]

    def at_edge(self, worker: Worker, name: str) -> None:
        """Strike at an edge, or don't."""
        ...

    def at_record(self, worker: Worker, message: Message, *, gives_up: bool) -> Unacknowledged | None:
        """Write a record, or don't."""
        ...

    def skipped(self, worker: Worker, unread: int) -> int:
        """Say how many records a worker is not handed that are before others."""
        ...

    def is_withheld(self, where: TopicPartition) -> bool:
        """Tell whether records of a partition are not fetched at present."""
        ...


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process."""

    name: str
    step: str
    fleet: Fleet
    batch_max: int
    hosted: Step = field(init=False)
    units: set[TopicPartition] = field(default_factory=set)
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    busy: bool = False
    zombie_turns: int | None = None
    not_alive_until_ms: int = 0

    def pass_edge(self, name: str) -> None:
        """See `Fate`."""
        self.fleet.edges += 1
        self.fleet.trouble.at_edge(self, name)

    def write(self, message: Message, *, gives_up: bool) -> Unacknowledged | None:
        """See `Fate`."""
        return self.fleet.trouble.at_record(self, message, gives_up=gives_up)

    def at_once(self, count: int) -> int:
        """See `Fate`: most often all, as a broker is near."""
        rng = self.fleet.rng
        return count if rng.random() < 0.7 else rng.randint(0, count)

    def is_alive(self) -> bool:
        """See `Fate`."""
        return self.fleet.world.clock.now_ms >= self.not_alive_until_ms


class Fleet:
    """All workers."""

    def __init__(self, world: World, rng: Random, later: Later) -> None:
        """Start nobody yet. `later` has something done after a time."""
        self.world = world
        self.rng = rng
        self.trouble: Trouble
        self.members: dict[str, list[Worker]] = {step: [] for step in STEPS}
        self.zombies: list[Worker] = []
        self.stops: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self.in_peace = False
        self.stops_in_peace = 0
        self.edges = 0
        self.turns = 0
        self.trace: list[str] | None = None
        self._later = later
        self._names = 0
        self._shared: Counter[str] = Counter()

    def start(self) -> None:
        """Start all workers."""
        for step in STEPS:
            self.rebalance(step)

    def note(self, worker: Worker | None, text: str) -> None:
        """Keep a line for people."""
        if self.trace is not None:
            at_ms = self.world.clock.now_ms - self.world.started_at_ms
            self.trace.append(f"{at_ms:>10} ms  {worker.name if worker else '':<11}{text}")

    def everyone(self) -> list[Worker]:
        """Name all that may work, zombies included."""
        return [worker for step in STEPS for worker in self.members[step]] + self.zombies

    # Membership

    def rebalance(self, step: str, *, joining: int = 0) -> None:
        """Share the partitions of a step among its members, as many as there should be and `joining` more."""
        members = self.members[step]
        if any(worker.busy for worker in members):
            self._later(100, "rebalance", step)  # a group waits for a member that is at work
            return
        while len(members) < WORKERS[step] + joining:
            members.append(self._hired(step))
        self.rng.shuffle(members)
        target: dict[int, set[TopicPartition]] = {id(worker): set() for worker in members}
        for index, unit in enumerate(self.world.units(step)):
            target[id(members[index % len(members)])].add(unit)
        self.note(None, f"rebalance of {step}: {', '.join(worker.name for worker in members)}")
        self._shared[step] += 1
        this, sharing = self._shared[step], tuple(members)
        for worker in sharing:
            if self._shared[step] == this:
                self._revoke(worker, worker.units - target[id(worker)])
        for worker in sharing:
            # What a worker does meanwhile may have had the partitions shared anew.
            if self._shared[step] == this and worker in members:
                self._assign(worker, target[id(worker)] - worker.units)

    def leave(self, worker: Worker) -> None:
        """Let a worker leave in order, as at SIGTERM."""
        self._revoke(worker, set(worker.units))
        if worker in self.members[worker.step]:
            self.members[worker.step].remove(worker)
        self.rebalance(worker.step)

    def expel(self, worker: Worker, zombie_turns: int) -> None:
        """Let the group go on without a worker that does not know."""
        if worker in self.members[worker.step]:
            self.members[worker.step].remove(worker)
            self.zombies.append(worker)
            worker.zombie_turns = zombie_turns
            self.rebalance(worker.step)

    def drop_zombies(self) -> None:
        """Tell all zombies."""
        for worker in tuple(self.zombies):
            self._tell(worker)

    def _hired(self, step: str) -> Worker:
        self._names += 1
        worker = Worker(f"{step}-{self._names}", step, self, self.rng.choice(_BATCHES))
        worker.hosted = PatientStep(
            self.world.build(step, worker, Edges(worker)), monotonic_s=self.world.clock.monotonic_s
        )
        return worker

    def _assign(self, worker: Worker, units: set[TopicPartition]) -> None:
        if units:
            worker.units |= units
            self._guarded(worker, lambda: self._begin(worker, sorted(units)))

    def _revoke(self, worker: Worker, units: set[TopicPartition]) -> None:
        if units:
            worker.units -= units
            self._stop_reading(worker, units)
            self._guarded(worker, lambda: worker.hosted.release(sorted(units)))

    def _begin(self, worker: Worker, units: Collection[TopicPartition]) -> None:
        self._stop_reading(worker, units)
        start = worker.hosted.take_over(units)
        worker.positions.update({where: offset or 0 for where, offset in sorted(start.items())})

    def _stop_reading(self, worker: Worker, units: Iterable[TopicPartition]) -> None:
        for unit in units:
            for topic in (unit.topic, *PARTNERS.get(worker.step, ())):
                worker.positions.pop(TopicPartition(topic, unit.partition), None)

    # Work

    def turn(self, worker: Worker, *, idles: bool = True) -> int:
        """Let a worker poll once and work; return how many records it had. With none it need not do its idle work."""
        count = 0

        def work() -> None:
            nonlocal count
            polled = self._poll(worker)
            count = len(polled)
            if not polled and not idles:
                return
            again = worker.hosted.handle(polled) if polled else worker.hosted.idle()
            mine = sorted(worker.units.intersection(again))
            if mine:
                self._begin(worker, mine)

        self.turns += 1
        self._guarded(worker, work)
        if worker.zombie_turns is not None and not worker.busy:
            worker.zombie_turns -= 1
            if worker.zombie_turns <= 0:
                self._tell(worker)
        return count

    def unread(self, step: str) -> list[TopicPartition]:
        """Name the partitions of a step that no member has read to their end."""
        kept = self.world.kafka.records
        read = {
            where
            for worker in self.members[step]
            for where, offset in worker.positions.items()
            if offset == len(kept[where])
        }
        return [where for where in self.world.units(step) if where not in read]

    def let_others_work(self, worker: Worker, turns: int) -> None:
        """Let other workers have turns in the middle of this one's."""
        for _ in range(turns):
            same = [other for other in self.members[worker.step] if not other.busy]
            every = same if same and self.rng.random() < 0.7 else [w for w in self.everyone() if not w.busy]
            if every:
                self.turn(self.rng.choice(every))
                self.world.clock.advance(self.rng.choice((0, 1, 9)))

    def _poll(self, worker: Worker) -> list[Record]:
        polled: list[Record] = []
        kept, left = self.world.kafka.records, worker.batch_max
        ready = [(where, offset) for where, offset in worker.positions.items() if offset != len(kept[where])]
        if len(ready) > 1:
            self.rng.shuffle(ready)
        for where, offset in ready:
            if offset > len(kept[where]):
                raise BusFailed(f"{where}: the position to read from is not in the topic any more")
            if left <= 0 or self.trouble.is_withheld(where):
                continue
            start = offset + self.trouble.skipped(worker, len(kept[where]) - offset)
            found = kept[where][start : start + left]
            polled += found
            left -= len(found)
            worker.positions[where] = start + len(found)
        return polled

    def _guarded(self, worker: Worker, work: Callable[[], object]) -> None:
        """Let a worker do something; when that ends it, see that it is started again."""
        worker.busy, was_busy = True, worker.busy
        try:
            work()
        except Crash as crash:
            self.note(worker, f"crashes at {crash}")
            self._gone(worker)
        except (Stopped, BusFailed) as stopped:
            self._stopped(worker, stopped)
        except Broken:
            raise
        except Exception as error:
            self.note(worker, f"fails: {error!r}")
            raise Broken(f"{worker.step} fails: {type(error).__name__}: {error}") from error
        finally:
            worker.busy = was_busy

    def _stopped(self, worker: Worker, stopped: Stopped | BusFailed) -> None:
        text = str(stopped)
        self.note(worker, f"stops: {text}")
        self.stops[worker.step] += 1
        self.stops_in_peace += self.in_peace
        causes = next((causes for pattern, causes in EXPLAINED if pattern.search(text)), set[FaultKind]())
        if not causes & self.trouble.fired.keys():
            self.unexplained.append(f"{worker.step} stops: {text}")
        if self.stops.total() > STOPS_MAX or self.stops_in_peace > STOPS_IN_PEACE_MAX:
            raise Broken(f"{worker.step} stops again and again: {text}")
        asked = _ASKED_TO_REPUBLISH.search(text)
        if asked is not None:
            self._later(500, "republish from", (int(asked[1]), int(asked[2])))
        elif "not in the topic" in text:
            self._later(500, "republish", None)
        self._gone(worker, _STARTED_AGAIN_AFTER_MS)

    def _gone(self, worker: Worker, after_ms: Sequence[int] = _NOTICED_AFTER_MS) -> None:
        """A worker's process has ended; its group notices, and its supervisor starts another."""
        worker.hosted = _GONE
        worker.positions.clear()
        worker.units.clear()
        if worker in self.zombies:
            self.zombies.remove(worker)
        elif worker in self.members[worker.step]:
            self.members[worker.step].remove(worker)
            self._later(self.rng.choice(after_ms), "rebalance", worker.step)

    def _tell(self, worker: Worker) -> None:
        """Tell a zombie that its partitions are others'; what it does then is its last."""
        self._revoke(worker, set(worker.units))
        if worker in self.zombies:
            self.zombies.remove(worker)


class _Gone:
    """The step of a worker that has ended: nothing is left of it to do anything."""

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        del assigned
        return {}

    def release(self, revoked: Collection[TopicPartition]) -> None:
        del revoked

    def handle(self, records: Collection[Record]) -> Collection[TopicPartition]:
        del records
        return ()

    def idle(self) -> Collection[TopicPartition]:
        return ()


_GONE = _Gone()


class Later(Protocol):
    """Has something done after a time."""

    def __call__(self, after_ms: int, what: str, about: object) -> None:
        """Remember it."""
        ...
