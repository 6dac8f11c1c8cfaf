"""Runs the benchmark: `python -m bench`, what `make bench` does.

Reads the arguments, makes all measurements in turns so that a machine that changes its pace is fair to all, and writes
what was found. SIGTERM and Ctrl-C end it in order: nothing that it started lives on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from confluent_kafka import KafkaException
from rich.console import Console

from bench import plan, report
from bench.amounts import QUICK, Amounts
from bench.command_line import count, end_in_order_on, positive, writable_folder
from bench.figures import Run
from bench.load import LoadError
from bench.measurement import UnfinishedError
from bench.processes import WorkerEndedError
from bench.servers import servers
from bench.stage import Stage
from deploy.local.stack import StackError

_RESULTS = Path(__file__).parent / "results"
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_FAILURES = (
    UnfinishedError,
    LoadError,
    WorkerEndedError,
    StackError,
    KafkaException,
    psycopg.Error,
    TimeoutError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What to measure, how much of it, and where to write it. `only`: empty is everything."""

    amounts: Amounts
    only: tuple[str, ...]
    is_quick: bool
    results: Path
    name: str
    json: bool


def main() -> int:
    """Measure, show, write; return the exit code."""
    arguments = _arguments(sys.argv[1:])
    end_in_order_on(_INTERRUPTS)
    console = Console(stderr=True)
    try:
        found = _measure(arguments, console)
    except _FAILURES as error:
        console.print(f"The benchmark failed. {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started is stopped.")
        return 130
    report.show(console, found)
    path = _write(found, arguments)
    console.print(f"Written to {path}", soft_wrap=True)
    if arguments.json:
        print(json.dumps(found))
    return 0


def _measure(arguments: Arguments, console: Console) -> dict[str, object]:
    steps = plan.steps(arguments.only, arguments.amounts)
    start_s = time.monotonic()

    def tell(message: str) -> None:
        console.print(message, style="dim", markup=False, soft_wrap=True)

    runs: list[Run] = []
    with servers(tell) as running:
        stage = Stage(servers=running, amounts=arguments.amounts, progress=tell)
        tell("Warming the broker ...")
        warming_us = stage.warm_broker()
        for number, step in enumerate(steps, start=1):
            tell(f"{number}/{len(steps)} {step.name}, {time.monotonic() - start_s:.0f} s so far ...")
            made = step.measure(stage)
            runs += made
            report.show_runs(console, made)
    return report.document(
        runs,
        arguments={"quick": arguments.is_quick, **dataclasses.asdict(arguments.amounts)},
        broker_warming_us=warming_us,
        seconds=time.monotonic() - start_s,
    )


def _write(found: dict[str, object], arguments: Arguments) -> Path:
    path = arguments.results / f"{arguments.name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    return path


def _arguments(words: Sequence[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="once, and little of each: to see that it works, not to quote")
    add(
        "--only",
        nargs="+",
        action="extend",
        choices=plan.NAMES,
        metavar="NAME",
        default=[],
        help=f"measure these only: {', '.join(plan.NAMES)}",
    )
    for name, purpose in _AMOUNTS.items():
        kind = type(getattr(Amounts(), name))
        add(
            f"--{name.replace('_', '-')}",
            type=count if kind is int else positive,
            help=f"{purpose} (default {getattr(Amounts(), name):g}, quick {getattr(QUICK, name):g})",
        )
    add("--name", default=f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}", help="of the file with the results")
    add(
        "--results",
        type=writable_folder,
        default=str(_RESULTS),
        help="folder of that file (default bench/results)",
    )
    add("--json", action="store_true", help="print the results to stdout as JSON, too")
    given = parser.parse_args(words)
    changed = {name: value for name in _AMOUNTS if (value := getattr(given, name)) is not None}
    return Arguments(
        amounts=dataclasses.replace(QUICK if given.quick else Amounts(), **changed),
        only=tuple(given.only),
        is_quick=given.quick,
        results=given.results,
        name=given.name,
        json=given.json,
    )


_AMOUNTS = {
    "repeats": "how often each measurement is made, all in turns",
    "leads": "backlog of Gavel",
    "control_leads": "backlog of the per-event Faust and the row-lock control",
    "forwarded_leads": "backlog of the raw forward",
    "warm_broker_leads": "leads that warm the broker, forwarded before anything else",
    "warm_up": "leads that warm each pipeline before it counts",
    "latency_s": "seconds at each rate at which latency is measured",
    "settle_s": "seconds for which each of these rates is held before it counts, and the first one of auctions",
    "auction_start_rate": "auctions a second to begin with",
    "auction_step_s": "seconds at each rate of auctions",
    "kills": "routers to be killed",
    "pending": "windows that wait",
    "due_at_once": "windows that fall due at once",
    "phase_within_s": "seconds after which a backlog is given up",
}


if __name__ == "__main__":
    sys.exit(main())
