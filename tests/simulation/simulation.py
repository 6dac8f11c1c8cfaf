"""One run of all steps under one virtual clock, from one seed, without threads; and its outcome.

The interface, also for planted bugs:

    outcome = run(17)                            # the clean product
    outcome = run(17, patch)                     # `patch()` gives a context manager, entered before anything is built
    outcome.caught                               # what the judge says, and why the run could not go on
    run(17, schedule=smaller)                    # the same seed with items of its plan left out

A patch changes attributes of the product (a planted bug) and takes that back at its end. It is caught where the judge
reports something, where the product fails or stops for good, or where rest is never reached: `outcome.violations` then
tells each with its rule. Two runs of one seed, schedule and product are the same to the byte (`outcome.digest`), in any
process.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog

from services.contract.times import HOUR_MS
from tests.simulation.faults import FaultKind
from tests.simulation.fleet import Broken, Fleet
from tests.simulation.judge import Evidence, judge
from tests.simulation.outsiders import Outsiders
from tests.simulation.schedule import FAULTS, LEADS, Action, Arrival, Fault, Schedule, schedule_of
from tests.simulation.trouble import Striker
from tests.simulation.world import World

ROUNDS_MAX = 12_000
"""So often everybody may have a turn before all is at rest; a usual run takes a twentieth of it."""

OVERDUE_AGAIN_MS = 50
SOURCE_SLEEPS_FOR_MS = 1_000
SKIPPED = 0.15
IDLE_SKIPPED = 0.5
"""So often a worker has no turn in a round, and so often one that has nothing to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong: by which rule, and in words."""

    rule: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    schedule: Schedule
    violations: tuple[Finding, ...]
    faults: Counter[FaultKind]
    counts: Counter[str]
    digest: str
    trace: tuple[str, ...] = ()

    @property
    def caught(self) -> bool:
        """Tell whether anything is wrong."""
        return bool(self.violations)


def run(
    seed: int,
    patch: Callable[[], AbstractContextManager[object]] = nullcontext,
    *,
    leads: int = LEADS,
    faults: int = FAULTS,
    schedule: Schedule | None = None,
    with_trace: bool = False,
) -> Outcome:
    """Run a seed to its end and judge it."""
    planned = schedule or schedule_of(seed, leads=leads, faults=faults)
    with patch(), _logging() as logged:
        simulation = Simulation(planned, with_trace=with_trace)
        found = simulation.run()
        if not found:
            found = [Finding(rule=rule, what=what) for rule, what in judge(simulation.evidence(logged))]
        return simulation.outcome(found)


@contextmanager
def _logging() -> Iterator[list[str]]:
    """Keep what the product logs, so that it can be searched for what must not be there."""
    lines: list[str] = []

    def keep(_logger: object, _method: str, event: Any) -> Any:
        lines.append(repr(event))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    try:
        yield lines
    finally:
        structlog.configure(**before)


@dataclass(order=True, slots=True)
class _Due:
    at_ms: int
    number: int
    what: str = field(compare=False)
    about: Any = field(compare=False)


class Simulation:
    """A run in the making."""

    def __init__(self, schedule: Schedule, *, with_trace: bool) -> None:
        """Make the world and plan what happens in it."""
        self.schedule = schedule
        self.world = World(schedule.seed)
        self._rng = Random(f"run {schedule.seed}")  # the same run every time, and no secret
        self._due: list[_Due] = []
        self._numbered = 0
        self._planned = 0
        self._rounds = 0
        self.fleet = Fleet(self.world, self._rng, self.later)
        self.striker = Striker(self.world, self.fleet, self._rng, self.later)
        self.fleet.trouble = self.striker
        self.outsiders = Outsiders(self.world, self.striker, self.later)
        if with_trace:
            self.fleet.trace = []
        self._in_peace = False
        self._handling: dict[str, Callable[[Any], object]] = {
            "arrival": self.outsiders.arrive,
            "action": self.outsiders.act,
            "fault": self.striker.arm,
            "send": self.striker.send,
            "append": self.world.kafka.append,
            "rebalance": self.fleet.rebalance,
            "republish": self._republish,
            "republish from": lambda asked: self.world.republish_from(*asked),
            "apply market": self._apply_market,
            "set clock": self.striker.set_clock,
        }
        for kind, items in (
            ("arrival", schedule.arrivals),
            ("action", schedule.actions),
            ("fault", schedule.faults),
        ):
            for item in items:
                self._plan(kind, item)

    def _plan(self, kind: str, item: Arrival | Action | Fault) -> None:
        self._planned += 1
        self.later(item.at_ms, kind, item)

    def later(self, after_ms: int, what: str, about: object) -> None:
        """Have something done after a time."""
        self._numbered += 1
        heapq.heappush(self._due, _Due(self.world.clock.now_ms + after_ms, self._numbered, what, about))

    def run(self) -> list[Finding]:
        """Let everything happen, and end the faults, and let everything come to rest; say what prevents that."""
        try:
            self.fleet.start()
            for self._rounds in range(ROUNDS_MAX):
                if self._round():
                    return [Finding(rule="unexplained stop", what=text) for text in self.fleet.unexplained]
        except Broken as broken:
            return [Finding(rule="broken", what=str(broken))]
        return [
            Finding(rule="no rest", what=f"nothing was at rest after {ROUNDS_MAX} rounds: {self._unrest()}")
        ]

    def _round(self) -> bool:
        """Let everybody have a turn; True where all is done."""
        self._do_what_is_due()
        before = self.world.kafka.appended
        workers = self.fleet.everyone()
        self._rng.shuffle(workers)
        records = 0
        for worker in workers:
            chance = self._rng.random()
            if chance < SKIPPED:
                continue
            records += self.fleet.turn(worker, idles=chance > IDLE_SKIPPED)
            self.world.clock.advance(self._rng.choice((0, 0, 1, 3)))
        self.outsiders.read()
        if records or self.world.kafka.appended != before:
            return False
        if not self._planned and not self._in_peace:
            self._make_peace()
            return False
        if self._in_peace and not self._due and self.world.is_at_rest() and not self.fleet.unread("intake"):
            return not self._has_lost_log()
        self._let_time_pass()
        return False

    def _has_lost_log(self) -> bool:
        """Do as an operator whom the auditor tells that the log lacks entries, which no reader need have noticed."""
        world = self.world
        lost = [at for at, head in world.router.heads.items() if world.readable_seq(at) != head.seq]
        if not lost or not self.striker.fired[FaultKind.LOG_TAIL_LOST]:
            return False
        self._republish(None)
        return True

    def _do_what_is_due(self) -> None:
        while self._due and self._due[0].at_ms <= self.world.clock.now_ms:
            due = heapq.heappop(self._due)
            self._planned -= due.what in _PLANNED
            self._handling[due.what](due.about)

    def _make_peace(self) -> None:
        """End all faults, what they left behind included."""
        self.fleet.note(None, "the faults are over")
        self._in_peace = True
        self.striker.heal()
        self.fleet.drop_zombies()
        self.fleet.in_peace = True
        for step in self.fleet.members:
            self.fleet.rebalance(step)

    def _let_time_pass(self) -> None:
        """Go on to the next moment at which anything can happen; at most a second where somebody may be late."""
        now_ms = self.world.clock.now_ms
        times = [self._due[0].at_ms] if self._due else []
        # What is overdue waits for a worker that looks again in a moment.
        times += [
            at_ms if at_ms > now_ms else now_ms + OVERDUE_AGAIN_MS for at_ms in self.world.next_due_ms()
        ]
        if self.world.router.undelivered or not times or self._is_behind():
            times.append(now_ms + 1_000)
        self.world.clock.advance(max(1, min(times) - now_ms))

    def _is_behind(self) -> bool:
        """Tell whether somebody has not read all there is: it waits for something that no table tells."""
        world = self.world
        heads = world.router.heads
        if any(head.published_seq != head.seq for head in heads.values()):
            return True
        for found in world.reader_positions().values():
            if any(at not in found or found[at].seq != head.seq for at, head in heads.items() if head.seq):
                return True
        return bool(self.fleet.unread("intake"))

    def _unrest(self) -> str:
        world = self.world
        heads = {at: (head.seq, head.published_seq) for at, head in world.router.heads.items()}
        behind = {
            step: {at: position.seq for at, position in sorted(found.items())}
            for step, found in world.reader_positions().items()
        }
        unread = self.fleet.unread("intake")[:3]
        return (
            f"heads (seq, published) {heads}, readers {behind}, windows {sorted(world.windows)[:3]}, "
            f"auctions {sorted(world.router.auctions)[:3]}, undelivered {sorted(world.router.undelivered)[:3]}, "
            f"unread by intake {unread}, due {len(self._due)}"
        )

    def _apply_market(self, _: object) -> None:
        if self.world.apply_market():
            self.later(SOURCE_SLEEPS_FOR_MS, "apply market", None)

    def _republish(self, _: object) -> None:
        for partition in self.world.router.heads:
            count = self.world.republish(partition)
            if count:
                self.fleet.note(None, f"operator republishes {count} entries of partition {partition}")

    def evidence(self, logged: list[str]) -> Evidence:
        """Hand over what the judge looks at."""
        return Evidence(
            world=self.world,
            logged=logged,
            faults=self.striker.fired,
            too_large=self.striker.too_large,
            submitted=1 + max((arrival.number for arrival in self.schedule.arrivals), default=-1),
        )

    def outcome(self, found: list[Finding]) -> Outcome:
        """Say how it ended."""
        from tests.simulation.digest import digest_of

        world = self.world
        counts = Counter(
            leads=len(world.router.closes) + len(world.router.archived),
            sales=len(world.router.sales) + sum(len(kept.sales) for kept in world.router.archived.values()),
            entries=sum(head.seq for head in world.router.heads.values()),
            turns=self.fleet.turns,
            rounds=self._rounds,
            edges=self.fleet.edges,
            stops=self.fleet.stops.total(),
            hours=(world.clock.now_ms - world.started_at_ms) // HOUR_MS,
        )
        return Outcome(
            schedule=self.schedule,
            violations=tuple(found),
            faults=self.striker.fired,
            counts=counts,
            digest=digest_of(world),
            trace=tuple(self.fleet.trace or ()),
        )


_PLANNED = frozenset({"arrival", "action", "fault"})
