"""Tries planted bugs on the simulator and on the tests named for them, each in a process of its own.

A process of its own, because a bug leaves traces in what the product keeps for speed.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import pytest

from tests.simulation import simulation
from tests.simulation.mutants import MUTANTS, SEEDS_MAX

PROCESSES = 2
ROUNDS_MAX = 5_000
"""A run of the clean product needs a third of that; one that never comes to rest is given up sooner than elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """What caught a planted bug: a seed of the simulation, the `runs`-th that was tried, or a test; or nothing."""

    name: str
    runs: int
    seed: int | None = None
    rule: str = ""
    what: str = ""
    test: str = ""
    seconds: float = 0.0

    @property
    def by_simulation(self) -> bool:
        """Tell whether the simulation saw it."""
        return self.seed is not None

    @property
    def is_caught(self) -> bool:
        """Tell whether anything saw it."""
        return self.by_simulation or bool(self.test)


def hunt(names: Sequence[str], *, seeds_max: int = SEEDS_MAX, processes: int = PROCESSES) -> Iterator[Caught]:
    """Try each; those that no seed finds are tried on their tests. In the order in which they are done."""
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(partial(catch, seeds_max=seeds_max), names)


def false_alarms(seeds: Sequence[int], *, processes: int = PROCESSES) -> list[Caught]:
    """Run the clean product under the same bounds; name the seeds at which anything is reported all the same."""
    context = multiprocessing.get_context("fork")
    with context.Pool(processes) as pool:
        found = pool.map(partial(_look, nullcontext), seeds, chunksize=1)
    return [caught for caught in found if caught is not None]


def catch(name: str, *, seeds_max: int = SEEDS_MAX) -> Caught:
    """Try one planted bug, seed after seed, and then on its tests. Only in a process of its own."""
    mutant, began_s = MUTANTS[name], time.monotonic()
    with mutant.planted():
        pass  # what does not apply fails here, and not as if something had been caught
    for seed in range(seeds_max):
        caught = _look(mutant.planted, seed)
        if caught is not None:
            seconds = time.monotonic() - began_s
            return Caught(
                name=name, runs=seed + 1, seed=seed, rule=caught.rule, what=caught.what, seconds=seconds
            )
    test = next((test for test in mutant.tests if fails(test, mutant.planted)), "")
    return Caught(name=name, runs=seeds_max, test=test, seconds=time.monotonic() - began_s)


def failing_without_a_bug(tests: Sequence[str], *, processes: int = PROCESSES) -> list[str]:
    """Run tests here as they are run with a bug planted, but without one: what fails then proves nothing."""
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, maxtasksperchild=1) as pool:
        return [
            test for test, failed in zip(tests, pool.map(fails, tests, chunksize=1), strict=True) if failed
        ]


def fails(test: str, planted: Callable[[], AbstractContextManager[object]] = nullcontext) -> bool:
    """Run a test file with the bug planted, and see it fail. Only in a process of its own."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), planted():
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--timeout", "120", test])
    return code == pytest.ExitCode.TESTS_FAILED


def _look(planted: Callable[[], AbstractContextManager[object]], seed: int) -> Caught | None:
    simulation.ROUNDS_MAX = ROUNDS_MAX
    try:
        outcome = simulation.run(seed, planted)
    except Exception as error:  # noqa: BLE001  # whatever it could not go on with; the clean product never does this
        return Caught(name="", runs=1, seed=seed, rule=type(error).__name__, what=str(error)[:200])
    if not outcome.caught:
        return None
    first = outcome.violations[0]
    return Caught(name="", runs=1, seed=seed, rule=first.rule, what=first.what)
