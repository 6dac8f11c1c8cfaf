"""`python -m tests.simulation`: run seeds, tell which fail and how to run them again, and make a failing one smaller.

Exit code 0: nothing is wrong; 1: something is; 2: the command line is; 130: interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext

from bench.command_line import count
from tests.simulation.campaign import Patch, Result, Summary, command_of, results
from tests.simulation.schedule import FAULTS, LEADS
from tests.simulation.shrinking import report, shrink
from tests.simulation.simulation import run

FAILED_MAX = 10
PROGRESS_EACH_S = 5.0
TRACE_LINES_MAX = 4_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.trace and options.seed is None:
        parser.error("--trace tells of one run: name it with --seed")
    patch = _patch_of(options.mutant)
    try:
        return _run_many(options, patch) if options.seed is None else _run_one(options, patch)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="run this seed alone; where it fails, make it smaller and tell all"
    )
    parser.add_argument("--seeds", type=count, default=1_000, help="how many seeds to run (1,000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--processes", type=count, default=2, help="on how many processes (2)")
    parser.add_argument("--leads", type=count, default=LEADS, help=f"leads of a run ({LEADS})")
    parser.add_argument("--faults", type=count, default=FAULTS, help=f"faults of a run, at least ({FAULTS})")
    parser.add_argument("--mutant", help="plant this bug of tests/simulation/mutants.py")
    parser.add_argument("--no-shrink", action="store_true", help="tell a failing seed as it is")
    parser.add_argument(
        "--trace", action="store_true", help="tell what happens in --seed even if nothing is wrong"
    )
    return parser


def _patch_of(mutant: str | None) -> Patch:
    if mutant is None:
        return nullcontext
    from tests.simulation.mutants import MUTANTS

    if mutant not in MUTANTS:
        print(f"There is no mutant {mutant}. There are: {', '.join(sorted(MUTANTS))}", file=sys.stderr)
        raise SystemExit(2)
    return MUTANTS[mutant].planted


def _run_one(options: argparse.Namespace, patch: Patch) -> int:
    outcome = run(options.seed, patch, leads=options.leads, faults=options.faults, with_trace=options.trace)
    for line in outcome.trace:
        print(line)
    counts = ", ".join(f"{count:,} {name}" for name, count in outcome.counts.items())
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.faults.items()))
    print(f"seed {options.seed}: {counts}\nfaults: {faults}\ndigest: {outcome.digest}")
    if not outcome.caught:
        print("nothing is wrong")
        return 0
    if not options.no_shrink:
        outcome = shrink(outcome, patch, onlooker=_say)
        _say("")
    lines = list(report(outcome))
    print("\n".join(lines[:TRACE_LINES_MAX]))
    if len(lines) > TRACE_LINES_MAX:
        print(f"... {len(lines) - TRACE_LINES_MAX:,} more lines")
        print("\n".join(f"{finding.rule}: {finding.what}" for finding in outcome.violations))
    return 1


def _run_many(options: argparse.Namespace, patch: Patch) -> int:
    seeds = range(options.first, options.first + options.seeds)
    summary, began_s, told_s = Summary(), time.monotonic(), 0.0
    for result in results(
        seeds, processes=options.processes, leads=options.leads, faults=options.faults, patch=patch
    ):
        summary.add(result)
        if result.violations:
            _tell_failed(result, options)
            if len(summary.failed) >= FAILED_MAX:
                print(f"{FAILED_MAX} seeds have failed: no more are run")
                break
        if time.monotonic() - told_s > PROGRESS_EACH_S:
            told_s = time.monotonic()
            _say(f"{summary.runs:,} of {len(seeds):,} seeds, {len(summary.failed)} failed")
    _say("")
    _tell_summary(summary, time.monotonic() - began_s)
    return 1 if summary.failed else 0


def _tell_failed(result: Result, options: argparse.Namespace) -> None:
    _say("")
    first = result.violations[0]
    print(f"seed {result.seed} FAILED: {first.rule}: {first.what[:300]}")
    print(
        f"  {command_of(result.seed, leads=options.leads, faults=options.faults, mutant=options.mutant)}",
        flush=True,
    )


def _tell_summary(summary: Summary, took_s: float) -> None:
    counts = summary.counts
    print(
        f"{summary.runs:,} seeds in {took_s:,.0f} s: {counts['leads']:,} leads, {counts['entries']:,} entries, "
        f"{counts['sales']:,} sales, {summary.faults.total():,} faults "
        f"(a run has at least {summary.fewest_leads} leads and {summary.fewest_faults} faults), "
        f"{counts['stops']:,} workers stopped by themselves, {len(summary.failed)} seeds failed"
    )
    for kind, times in summary.faults.most_common():
        print(f"  {times:>8,} {kind}")


def _say(text: str) -> None:
    """Show progress to people, and to them alone."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
