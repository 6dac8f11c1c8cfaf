"""Runs the benchmark: `python -m bench`, what `make bench` does.

Reads the arguments, takes the pipelines in turns so that a machine that changes its pace is fair to both, and writes
what was found. SIGTERM and Ctrl-C end it in order: nothing that it started lives on.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench import gavel, per_event, report
from bench.figures import Run
from bench.load import Load, LoadError
from bench.measurement import Bench, UnfinishedError
from bench.observation import Deliveries
from bench.pipeline import Pipeline, Site
from bench.processes import WorkerEndedError
from bench.servers import Servers, servers
from deploy.local.stack import StackError

_RESULTS = Path(__file__).parent / "results"
_CONTROL_LEADS_DIVISOR = 5
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_MAKERS: dict[str, Callable[[Site], Pipeline]] = {
    gavel.NAME: gavel.Gavel,
    per_event.NAME: per_event.PerEventFaust,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What to measure, and how much of it."""

    leads: int
    control_leads: int
    repeats: int
    rate: float
    seconds: float
    warm_up: int
    phase_within_s: float
    pipelines: tuple[str, ...]
    results: Path
    name: str
    json: bool


def main() -> int:
    """Measure, show, write; return the exit code."""
    arguments = _arguments(sys.argv[1:])
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    console = Console(stderr=True)
    try:
        runs = _measure(arguments, console)
    except (UnfinishedError, LoadError, WorkerEndedError, StackError) as error:
        console.print(f"The benchmark failed. {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started is stopped.")
        return 130
    _publish(runs, arguments, console)
    return 0


def _measure(arguments: Arguments, console: Console) -> list[Run]:
    order = [name for _ in range(arguments.repeats) for name in arguments.pipelines]
    runs: list[Run] = []
    with servers(lambda message: console.print(message, style="dim", markup=False)) as running:
        for number, name in enumerate(order, start=1):
            runs.append(_run(name, number, running, arguments))
            report.show_run(console, number, len(order), runs[-1])
    return runs


def _run(name: str, number: int, running: Servers, arguments: Arguments) -> Run:
    """Start one pipeline afresh, measure it, and stop it."""
    with running.site(number) as site:
        pipeline = _MAKERS[name](site)
        try:
            pipeline.prepare()
            pipeline.start()
            return _measured(name, pipeline, running, arguments)
        finally:
            pipeline.stop()


def _measured(name: str, pipeline: Pipeline, running: Servers, arguments: Arguments) -> Run:
    is_ours = name == gavel.NAME
    with Deliveries(running.kafka, pipeline.delivery_topics, is_delivery=pipeline.is_delivery) as deliveries:
        bench = Bench(
            pipeline=pipeline,
            servers=running,
            load=Load(running.kafka, pipeline.submit_topic),
            deliveries=deliveries,
            phase_within_s=arguments.phase_within_s,
        )
        bench.warm_up(arguments.warm_up)
        throughput = bench.throughput(arguments.leads if is_ours else arguments.control_leads)
        latency = bench.latency(arguments.rate, arguments.seconds) if is_ours and arguments.seconds else None
        if throughput.is_complete:
            bench.check_bills()
    return Run(pipeline=name, throughput=throughput, latency=latency)


def _publish(runs: Sequence[Run], arguments: Arguments, console: Console) -> None:
    shown = {
        key: getattr(arguments, key)
        for key in ("leads", "control_leads", "repeats", "rate", "seconds", "warm_up")
    }
    found = report.document(runs, pipeline=gavel.NAME, control=per_event.NAME, arguments=shown)
    report.show(console, found)
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"{arguments.name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"Written to {path}")
    if arguments.json:
        print(json.dumps(found))


def _arguments(words: Sequence[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--leads", type=_count, default=20_000, help="backlog for Gavel in each run (default 20000)")
    add(
        "--control-leads",
        type=_count,
        help="backlog for the control, which takes longer (default a fifth of --leads)",
    )
    add("--repeats", type=_count, default=3, help="runs of each pipeline, taken in turns (default 3)")
    add("--rate", type=float, default=1_000.0, help="leads a second while latency is measured (default 1000)")
    add(
        "--seconds",
        type=float,
        default=20.0,
        help="how long latency is measured; 0 leaves it out (default 20)",
    )
    add("--warm-up", type=_count, default=500, help="leads before anything counts (default 500)")
    add("--within", type=float, default=180.0, help="seconds after which a phase is broken off (default 180)")
    add("--only", choices=["gavel", "faust"], help="measure one of the two only")
    add("--name", default=f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}", help="of the file with the results")
    add("--results", type=Path, default=_RESULTS, help="folder of that file (default bench/results)")
    add("--quick", action="store_true", help="once, with few leads: to see that it works, not to quote")
    add("--json", action="store_true", help="print the results to stdout as JSON, too")
    given = parser.parse_args(words)
    if given.quick:
        given.leads, given.repeats, given.seconds, given.warm_up = 3_000, 1, min(given.seconds, 5.0), 100
        given.control_leads = given.control_leads or 1_000
    return Arguments(
        leads=given.leads,
        control_leads=given.control_leads or max(given.leads // _CONTROL_LEADS_DIVISOR, 1),
        repeats=given.repeats,
        rate=given.rate,
        seconds=given.seconds,
        warm_up=given.warm_up,
        phase_within_s=given.within,
        pipelines={"gavel": (gavel.NAME,), "faust": (per_event.NAME,), None: tuple(_MAKERS)}[given.only],
        results=given.results,
        name=given.name,
        json=given.json,
    )


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("expected a number from 1 up")
    return count


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End in order, once: a second Ctrl-C must not interrupt the cleaning up, which is bounded in time."""
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
