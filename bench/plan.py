"""Which measurements there are, and in which order they are made.

What is repeated is made in turns, round by round; what repeats within itself is made once, between the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bench import auctions, core, figures, takeover, timers
from bench.amounts import Amounts
from bench.figures import Run
from bench.stage import Stage
from bench.throughputs import (
    GavelMeasurement,
    RowLockMeasurement,
    measure_faust,
    measure_forward,
    measure_scaling,
)

LATENCY, LOG, SCALING, CORE = "latency", "log", "scaling", "core"
NAMES = (
    *(figures.RAW_FORWARD, figures.FAUST, figures.ROW_LOCK, figures.PIPELINE, LATENCY, LOG),
    *(SCALING, auctions.NAME, takeover.NAME, timers.NAME, CORE),
)
"""What may be asked for by name. `latency` and `log` are measured on what `pipeline` leaves, which comes with them."""

_WORKERS = (2, 3)
Measure: TypeAlias = Callable[[Stage], list[Run]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One measurement to be made."""

    name: str
    measure: Measure


def steps(only: Sequence[str], amounts: Amounts) -> list[PlannedStep]:
    """Plan what was asked for (nothing is everything)."""
    wanted = set(only or NAMES)
    repeated, once = _repeated(wanted), _once(wanted)
    planned: list[PlannedStep] = []
    for number in range(amounts.repeats):
        planned += repeated
        planned += once[number :: amounts.repeats]
    return planned


def measure_core(stage: Stage) -> list[Run]:
    """Measure the router's decisions alone."""
    found = core.measure(stage.amounts.core_s)
    return [
        Run(
            measurement=CORE,
            figures={
                name.removesuffix("/s").replace(" ", "_") + "_per_s": value for name, value in found.items()
            },
        )
    ]


def _repeated(wanted: set[str]) -> list[PlannedStep]:
    with_gavel = GavelMeasurement(with_latency=LATENCY in wanted, with_log=LOG in wanted)
    controls: dict[str, Measure] = {
        figures.RAW_FORWARD: measure_forward,
        figures.FAUST: measure_faust,
        figures.ROW_LOCK: RowLockMeasurement(),
    }
    found = [PlannedStep(name=name, measure=measure) for name, measure in controls.items() if name in wanted]
    if wanted & {figures.PIPELINE, LATENCY, LOG}:
        found.append(PlannedStep(name=figures.PIPELINE, measure=with_gavel))
    if SCALING in wanted:
        found += [
            PlannedStep(name=f"{SCALING}-{count}", measure=measure_scaling(count)) for count in _WORKERS
        ]
    if auctions.NAME in wanted:
        found.append(PlannedStep(name=auctions.NAME, measure=auctions.measure))
    return found


def _once(wanted: set[str]) -> list[PlannedStep]:
    measures: dict[str, Measure] = {
        takeover.NAME: takeover.measure,
        timers.NAME: timers.measure,
        CORE: measure_core,
    }
    return [PlannedStep(name=name, measure=measure) for name, measure in measures.items() if name in wanted]
