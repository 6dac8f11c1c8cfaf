"""Which faults a campaign has, in which order and when: a pure function of the seed.

Kinds are dealt like cards: each kind comes once before the rest of the deck is shuffled, so that a campaign of some
length has all of them. Who is hit, and for how long, is drawn as well. Nothing here does anything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What is done."""

    WORKER_KILLED = "worker killed (kill -9)"
    WORKER_STOPPED = "worker stopped briefly"
    ZOMBIE = "worker stopped past its session"
    WORKER_LEAVES = "worker leaves in order (SIGTERM)"
    STEP_KILLED = "all workers of a step killed"
    WORKER_JOINS = "further worker joins and leaves"
    KAFKA_CUT = "worker cut off from Kafka"
    DATABASE_CUT = "worker cut off from database"
    SESSIONS_TERMINATED = "database ends worker's sessions"
    BROKER_RESTARTED = "broker restarted (SIGTERM)"
    BROKER_KILLED = "broker killed (kill -9)"
    DATABASE_RESTARTED = "database restarted (fast)"
    DATABASE_KILLED = "database killed (kill -9)"


DECK: Mapping[FaultKind, int] = {
    FaultKind.WORKER_KILLED: 5,
    FaultKind.WORKER_STOPPED: 2,
    FaultKind.ZOMBIE: 4,
    FaultKind.WORKER_LEAVES: 2,
    FaultKind.STEP_KILLED: 1,
    FaultKind.WORKER_JOINS: 2,
    FaultKind.KAFKA_CUT: 3,
    FaultKind.DATABASE_CUT: 2,
    FaultKind.SESSIONS_TERMINATED: 1,
    FaultKind.BROKER_RESTARTED: 1,
    FaultKind.BROKER_KILLED: 1,
    FaultKind.DATABASE_RESTARTED: 1,
    FaultKind.DATABASE_KILLED: 1,
}
"""How often each kind comes in one deck."""

OF_SERVERS = frozenset(
    {
        FaultKind.BROKER_RESTARTED,
        FaultKind.BROKER_KILLED,
        FaultKind.DATABASE_RESTARTED,
        FaultKind.DATABASE_KILLED,
    }
)
_OF_BROKERS = frozenset({FaultKind.BROKER_RESTARTED, FaultKind.BROKER_KILLED})
_OF_STEPS = frozenset({FaultKind.STEP_KILLED, FaultKind.WORKER_JOINS})

_OVERLAPPING_OF_100 = 25
_QUIET_AT_BOTH_ENDS = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: planned so many seconds after the load's beginning, `target` by name, held for so long.

    `overlaps`: the next one does not wait until the system has recovered from this one.
    """

    number: int
    at_s: float
    kind: FaultKind
    target: str
    holds_s: float
    overlaps: bool


def plan(
    *,
    seed: int,
    faults: int,
    seconds: float,
    steps: Sequence[str],
    workers_a_step: int,
    brokers: int,
    session_timeout_s: float,
) -> tuple[Fault, ...]:
    """Draw the faults of a campaign. Workers are named `<step>-<number>`, brokers `kafka-<number>`.

    A step that stands in `steps` more than once is hit the more often.
    """
    chance = random.Random(seed)
    quiet_s = seconds * _QUIET_AT_BOTH_ENDS
    times_s = sorted(chance.uniform(quiet_s, seconds - quiet_s) for _ in range(faults))
    kinds = _dealt(chance)
    return tuple(
        Fault(
            number=number,
            at_s=at_s,
            kind=kind,
            target=_target(chance, kind, steps, workers_a_step, brokers),
            holds_s=_holds_s(chance, kind, brokers, session_timeout_s),
            overlaps=kind not in OF_SERVERS and chance.randrange(100) < _OVERLAPPING_OF_100,
        )
        for number, (at_s, kind) in enumerate(zip(times_s, kinds, strict=False), start=1)
    )


def _dealt(chance: random.Random) -> Iterator[FaultKind]:
    """Deal deck after deck, each with one of every kind on top."""
    while True:
        top = list(DECK)
        rest = [kind for kind, times in DECK.items() for _ in range(times - 1)]
        chance.shuffle(top)
        chance.shuffle(rest)
        yield from top
        yield from rest


def _target(
    chance: random.Random, kind: FaultKind, steps: Sequence[str], workers_a_step: int, brokers: int
) -> str:
    if kind in _OF_BROKERS:
        return f"kafka-{chance.randrange(brokers) + 1}"
    if kind in OF_SERVERS:
        return "postgres"
    step = chance.choice(steps)
    return step if kind in _OF_STEPS else f"{step}-{chance.randrange(workers_a_step) + 1}"


def _holds_s(chance: random.Random, kind: FaultKind, brokers: int, session_timeout_s: float) -> float:
    """Draw how long it lasts: how long something is away, stopped or cut off."""
    match kind:
        case FaultKind.WORKER_STOPPED:
            return chance.uniform(0.05, 0.7) * session_timeout_s
        case FaultKind.ZOMBIE:
            return chance.uniform(1.2, 2.2) * session_timeout_s
        case FaultKind.KAFKA_CUT | FaultKind.DATABASE_CUT:
            return chance.choice((0.0, 0.3, 1.3)) * session_timeout_s
        case FaultKind.WORKER_KILLED | FaultKind.STEP_KILLED:
            return chance.choice((0.0, 1.0, 1.5 * session_timeout_s))
        case FaultKind.WORKER_JOINS:
            return chance.uniform(2.0, 6.0)
        case FaultKind.BROKER_KILLED | FaultKind.BROKER_RESTARTED if brokers > 1:
            return chance.uniform(3.0, 15.0)
        case _:
            return chance.uniform(0.0, 2.0)
