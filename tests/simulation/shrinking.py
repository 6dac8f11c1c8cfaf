"""Makes a failing run smaller: leaves out what it fails without, until each item that is left is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from tests.simulation.campaign import Patch
from tests.simulation.schedule import Schedule
from tests.simulation.simulation import Outcome, run

TRIES_MAX = 400

PARTS = ("faults", "actions", "arrivals")


def shrink(
    failing: Outcome,
    patch: Patch = nullcontext,
    *,
    tries_max: int = TRIES_MAX,
    onlooker: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Find a smaller schedule that still breaks one of the same rules; return its outcome, with its trace."""
    rules = {finding.rule for finding in failing.violations}
    assert rules, "only what fails can be made smaller"
    tries = 0

    def still_fails(schedule: Schedule) -> bool:
        nonlocal tries
        tries += 1
        outcome = run(schedule.seed, patch, schedule=schedule)
        return bool(rules & {finding.rule for finding in outcome.violations})

    smallest, before = failing.schedule, -1
    while _size(smallest) != before and tries < tries_max:
        before = _size(smallest)
        for part in PARTS:
            kept = getattr(smallest, part)
            step = max(1, len(kept) // 2)
            while step >= 1 and tries < tries_max:
                for start in range(0, len(kept), step):
                    fewer = _without(smallest, part, start, step)
                    if fewer is not None and tries < tries_max and still_fails(fewer):
                        smallest = fewer
                        onlooker(f"{_size(smallest)} items left after {tries} runs")
                        break
                else:
                    step //= 2
                kept = getattr(smallest, part)
    return run(smallest.seed, patch, schedule=smallest, with_trace=True)


def _size(schedule: Schedule) -> int:
    return sum(len(getattr(schedule, part)) for part in PARTS)


def _without(schedule: Schedule, part: str, start: int, count: int) -> Schedule | None:
    kept: Sequence[Any] = getattr(schedule, part)
    fewer = [*kept[:start], *kept[start + count :]]
    changed: dict[str, Any] = {part: fewer}
    return replace(schedule, **changed) if len(fewer) < len(kept) else None


def report(outcome: Outcome) -> Iterator[str]:
    """Tell a run to people: what it consists of, what happened, what is wrong."""
    yield f"The schedule of seed {outcome.schedule.seed}:"
    yield from outcome.schedule.lines()
    yield "What happened:"
    yield from outcome.trace
    yield "What is wrong:"
    yield from (f"{finding.rule}: {finding.what}" for finding in outcome.violations)
