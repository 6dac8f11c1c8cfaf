"""The plan of a run as data: who sends what and when, what operators do, and which faults strike, all from one seed.

Whatever is drawn is drawn for a number, not in turn: an arrival, an action or a fault that is left out changes nothing
about the others. So a run that fails can be made smaller item by item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from random import Random
from typing import Any

from services.contract.times import HOUR_MS, MINUTE_MS, SECOND_MS
from tests.simulation.faults import STRIKES, FaultKind, steps_of

LEADS = 50
FAULTS = 20
SPARE_FAULTS_OF_10 = 4
"""For so many of ten faults wanted one more is planned, as some find nothing to strike at."""

SPARE_LEADS = 2
"""So many more are sent in a usual run, as a source may lose one on its way."""

ACTIONS_PER_LEAD = 0.5
LEADS_PER_ERASURE = 15
"""A person asks to be forgotten once in so many leads, on average."""

DEMANDING_SEEDS_OF = 5
"""In one of so many seeds each lead must name the buyers that its person consented to."""


class ActionKind(StrEnum):
    """What operators do, and what outsiders do unasked."""

    DEPOSIT = "deposit"
    WITHDRAW = "withdraw"
    CHANGE_MARKET = "change_market"
    ROGUE_ANSWER = "rogue_answer"
    GARBAGE = "garbage"
    ARCHIVE = "archive"
    ERASE = "erase"
    SUPPRESS = "suppress"


_USUAL = (
    ActionKind.DEPOSIT,
    ActionKind.WITHDRAW,
    ActionKind.CHANGE_MARKET,
    ActionKind.ROGUE_ANSWER,
    ActionKind.GARBAGE,
    ActionKind.ARCHIVE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A source sends a lead `at_ms` after the start; all else about it follows from seed and number."""

    number: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Somebody does something `at_ms` after the start."""

    number: int
    kind: ActionKind
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something goes wrong, `at_ms` after the start or later: at the `edges`-th edge of `step` that it can strike at.

    `size` is how much of it: turns, records or milliseconds, as the kind says.
    """

    number: int
    kind: FaultKind
    at_ms: int
    step: str = ""
    edges: int = 1
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All that is planned for one run."""

    seed: int
    arrivals: Sequence[Arrival]
    actions: Sequence[Action]
    faults: Sequence[Fault]

    def lines(self) -> list[str]:
        """Tell the plan in the order of time, an item a line."""
        every: list[Arrival | Action | Fault] = [*self.arrivals, *self.actions, *self.faults]
        items = sorted(every, key=lambda item: item.at_ms)
        return [f"{item.at_ms:>10} ms  {type(item).__name__.lower():<8}{_told(item)}" for item in items]


def _told(item: Arrival | Action | Fault) -> str:
    values: dict[str, Any] = asdict(item)
    values.pop("at_ms")
    return " ".join(f"{name}={value}" for name, value in values.items() if value != "")


def roll(*parts: object) -> int:
    """Draw a 64-bit number for these parts: the same for the same, whatever was drawn before."""
    text = "\n".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def schedule_of(seed: int, *, leads: int = LEADS, faults: int = FAULTS) -> Schedule:
    """Plan the run of a seed."""
    rng = Random(f"schedule {seed}")  # the same plan every time, and no secret
    arrivals = _arrivals(seed, rng, leads)
    ends_at_ms = arrivals[-1].at_ms if arrivals else 0
    planned = faults + -(-faults * SPARE_FAULTS_OF_10 // 10)
    return Schedule(
        seed=seed,
        arrivals=arrivals,
        actions=[
            *_actions(rng, round(leads * ACTIONS_PER_LEAD), ends_at_ms),
            *_erasures(seed, round(leads * ACTIONS_PER_LEAD), 2 * leads // LEADS_PER_ERASURE, ends_at_ms),
        ],
        faults=_faults(rng, planned, arrivals),
    )


def is_duplicate(seed: int, number: int) -> bool:
    """Tell whether a lead is planned to be of a person that was sent before."""
    return roll(seed, "is duplicate", number) % 100 < 4


def is_invalid(seed: int, number: int) -> bool:
    """Tell whether a lead is planned to be declined for what it says."""
    return roll(seed, "is invalid", number) % 100 < 3


def demands_consent(seed: int) -> bool:
    """Tell whether a seed's lead type demands that a consent names buyers."""
    return roll(seed, "demands consent") % DEMANDING_SEEDS_OF == 0


def _arrivals(seed: int, rng: Random, leads: int) -> list[Arrival]:
    """Leads come in bursts, with pauses in which windows end; those that must be declined are not counted."""
    at_ms, found, sound = 0, list[Arrival](), 0
    while sound < leads + (SPARE_LEADS if leads == LEADS else 0):
        number = len(found)
        at_ms += rng.choice((0, 0, 3, 40, 700, 3 * SECOND_MS, 40 * SECOND_MS, 9 * MINUTE_MS))
        found.append(Arrival(number=number, at_ms=at_ms))
        sound += not is_duplicate(seed, number) and not is_invalid(seed, number)
    return found


def _actions(rng: Random, count: int, ends_at_ms: int) -> list[Action]:
    kinds = rng.choices(_USUAL, (6, 2, 4, 5, 2, 3), k=count)
    return [
        Action(number=number, kind=kind, at_ms=rng.randint(0, ends_at_ms + HOUR_MS))
        for number, kind in enumerate(kinds)
    ]


def _erasures(seed: int, first: int, most: int, ends_at_ms: int) -> list[Action]:
    """Some persons ask to be forgotten, up to some time after the last lead came; some of them for good."""
    rng = Random(f"erasures {seed}")  # the same every time, and no secret
    return [
        Action(
            number=first + at,
            kind=rng.choice((ActionKind.ERASE, ActionKind.ERASE, ActionKind.SUPPRESS)),
            at_ms=rng.randint(0, ends_at_ms + HOUR_MS),
        )
        for at in range(rng.randint(0, most))
    ]


def _faults(rng: Random, count: int, arrivals: Sequence[Arrival]) -> list[Fault]:
    """Faults come where there is work: around an arrival, or after it, when its windows end."""
    kinds = tuple(STRIKES)
    weights = [STRIKES[kind].weight for kind in kinds]
    found = []
    for number in range(count):
        kind = rng.choices(kinds, weights)[0]
        near_ms = rng.choice(arrivals).at_ms if arrivals else 0
        after_ms = rng.choice((0, 0, 5, 60, 900, 8 * SECOND_MS, 2 * MINUTE_MS))
        found.append(
            Fault(
                number=number,
                kind=kind,
                at_ms=near_ms + after_ms,
                step=rng.choice(steps_of(kind)),
                edges=rng.randint(1, STRIKES[kind].edges_max),
                size=rng.randint(1, 1_000),
            )
        )
    return found
