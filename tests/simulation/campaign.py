"""Runs many seeds on several processes and gathers what became of them."""

from __future__ import annotations

import gc
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from shlex import quote

from tests.simulation.faults import FaultKind
from tests.simulation.schedule import FAULTS, LEADS
from tests.simulation.simulation import Finding, run

SEEDS_AT_ONCE = 5


class SimulatorFailed(Exception):
    """Not the product but the simulator has failed; the message names the seed."""


Patch = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one seed ended."""

    seed: int
    violations: tuple[Finding, ...]
    faults: Counter[FaultKind]
    counts: Counter[str]


@dataclass(slots=True)
class Summary:
    """How all seeds ended so far."""

    runs: int = 0
    failed: list[Result] = field(default_factory=list)
    faults: Counter[FaultKind] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    fewest_leads: int = 1_000_000
    fewest_faults: int = 1_000_000

    def add(self, result: Result) -> None:
        """Count one more."""
        self.runs += 1
        self.faults.update(result.faults)
        self.counts.update(result.counts)
        self.fewest_leads = min(self.fewest_leads, result.counts["leads"])
        self.fewest_faults = min(self.fewest_faults, result.faults.total())
        if result.violations:
            self.failed.append(result)


def results(
    seeds: Sequence[int],
    *,
    processes: int = 1,
    leads: int = LEADS,
    faults: int = FAULTS,
    patch: Patch = nullcontext,
) -> Iterator[Result]:
    """Run each seed; of several processes results come in no order. A patch must be one that can be pickled."""
    work = partial(_result, leads=leads, faults=faults, patch=patch)
    if processes == 1:
        yield from map(work, seeds)
        return
    with get_context("fork").Pool(processes, initializer=_begin) as pool:
        yield from pool.imap_unordered(
            work, seeds, chunksize=min(SEEDS_AT_ONCE, 1 + len(seeds) // (4 * processes))
        )


def command_of(seed: int, *, leads: int = LEADS, faults: int = FAULTS, mutant: str | None = None) -> str:
    """Write the command that runs a seed again, and makes it smaller."""
    options = [f"--seed {seed}"]
    options += [f"--leads {leads}"] if leads != LEADS else []
    options += [f"--faults {faults}"] if faults != FAULTS else []
    options += [f"--mutant {quote(mutant)}"] if mutant else []
    return f".venv/bin/python -m tests.simulation {' '.join(options)}"


def _result(seed: int, *, leads: int, faults: int, patch: Patch) -> Result:
    try:
        outcome = run(seed, patch, leads=leads, faults=faults)
    except Exception as error:
        # The simulator's own failure must name its seed, too.
        raise SimulatorFailed(f"seed {seed}: {type(error).__name__}: {error}") from error
    return Result(seed=seed, violations=outcome.violations, faults=outcome.faults, counts=outcome.counts)


def _begin() -> None:
    """A process's beginning: an interruption is its parent's to heed, and runs leave no cycles worth looking for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
