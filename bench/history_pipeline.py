"""Measures what history costs the whole pipeline: `python -m bench.history_pipeline --open 100000 --closed 1000000`.

A Gavel with empty tables, one with so many leads in them, and an empty one again work off the same backlogs, and then
have leads come at a fixed rate. What counts is the full one against both empty ones. Large tables are read from disk
first, which `--settle` leaves out. `bench.history` tells which statement it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console

from bench.amounts import Amounts
from bench.command_line import setting
from bench.figures import Latency, Throughput
from bench.gavel import Gavel
from bench.history_fill import Amount, Progress, Sample, fill, lack_of_room, sample_of, set_up
from bench.history_steps import PARTITIONS, Steps
from bench.pipeline import Site
from bench.servers import servers
from bench.stage import Stage
from deploy.local import postgres

_MARKET: Final = str(Path(__file__).parent / "history-market.yaml")
_RESULTS: Final = Path(__file__).parent / "results"
_SHARES: Final = {"quarter": 0.25, "half": 0.5}

_BEGIN_READERS: Final = """
insert into {0}.positions (partition, next_offset, seq, hash) select partition, 0, seq, hash from router.heads
on conflict (partition) do update set seq = excluded.seq, hash = excluded.hash
"""
"""The log's topic is empty: its readers go on behind what the tables have."""


class WithHistory(Gavel):
    """Gavel on tables that are full of leads sold before it started."""

    def __init__(self, amount: Amount, sample: Sample, progress: Progress, site: Site) -> None:
        """Connect; `sample` is what the steps write for one lead."""
        super().__init__(site)
        self._amount = amount
        self._sample = sample
        self._progress = progress
        self._filled_at = datetime.now(UTC)

    def prepare(self) -> None:
        """Make everything, and fill it."""
        super().prepare()
        database = self._site.database
        began_s = time.monotonic()
        fill(database, self._amount, self._sample, PARTITIONS, self._progress)
        with psycopg.connect(database, autocommit=True) as connection:
            row = connection.execute("select pg_database_size(current_database())").fetchone()
            size_gb = row[0] / 1e9 if row else 0.0
            self._progress(f"Filled in {time.monotonic() - began_s:.0f} s: {size_gb:.1f} GB")
            for reader in ("billing", "resale", "feed"):
                connection.execute(_BEGIN_READERS.format(reader).encode())
        self._filled_at = datetime.now(UTC)

    def billed_sales(self) -> int:
        """Count the sales since the filling."""
        query = "select count(*) from billing.sales where sold_at > %s"
        row = self._connection.execute(query, [self._filled_at]).fetchone()
        return int(row[0]) if row else 0


def main() -> int:
    """Measure, show, write; return the exit code."""
    given = _arguments(sys.argv[1:])
    console = Console(stderr=True)

    def progress(message: str) -> None:
        console.print(message, style="dim", markup=False, highlight=False)

    amount = Amount(open=given.open, closed=given.closed, archived=min(given.archived, given.closed))
    if lack := lack_of_room(amount):
        console.print(lack)
        return 2
    postgres.SETTINGS.update(given.set)
    try:
        with servers(progress) as running:
            found = _measure(Stage(servers=running, amounts=Amounts(), progress=progress), amount, given)
    except KeyboardInterrupt:
        console.print("Interrupted; the servers are stopped, and their data is gone.")
        return 130
    console.print_json(json.dumps(found["summary"]))
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{given.name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"Written to {path}")
    return 0


def _measure(stage: Stage, amount: Amount, given: argparse.Namespace) -> dict[str, Any]:
    stage.progress("Warming the broker up ...")
    stage.warm_broker()
    sample = _sample(stage)
    before, rate = _side(stage, Gavel, given, None)
    full, _ = _side(stage, partial(WithHistory, amount, sample, stage.progress), given, rate)
    after, _ = _side(stage, Gavel, given, rate)
    empty = [*before, *after]
    return {
        "open": amount.open,
        "closed": amount.closed,
        "archived": amount.archived,
        "settings": dict(given.set),
        "leads": given.leads,
        "settle": given.settle,
        "summary": _summary(empty, full),
        "empty": empty,
        "full": full,
    }


def _sample(stage: Stage) -> Sample:
    """Have the steps write one lead into tables of its own, and read it."""
    with stage.site() as site:
        set_up(site.database, _MARKET, PARTITIONS)
        steps = Steps(site.database)
        try:
            (lead_id,) = steps.sell(1, 0)
        finally:
            steps.close()
        return sample_of(site.database, lead_id)


def _side(
    stage: Stage, make: Any, given: argparse.Namespace, rate_per_s: float | None
) -> tuple[list[dict[str, Any]], float]:
    """Measure one Gavel; the rates of its latencies are shares of `rate_per_s`, by default its own."""
    began_s = time.monotonic()
    with stage.started(make) as started:
        stage.progress(f"Started in {time.monotonic() - began_s:.0f} s; measuring ...")
        runs = [
            {"settling": number < given.settle, **_throughput(started.bench.throughput(given.leads))}
            for number in range(given.settle + given.repeats)
        ]
        own = rate_per_s or statistics.median(_rates(runs))
        amounts = stage.amounts
        for name, share in _SHARES.items():
            latency = started.bench.latency(share * own, amounts.latency_s, settle_s=amounts.settle_s)
            runs.append({"share": name, **_latency(latency)})
        started.bench.check_bills()
    return runs, own


def _throughput(found: Throughput) -> dict[str, Any]:
    return {
        "leads_per_s": found.leads / found.seconds,
        "cpu_us_per_lead": dict(found.cpu_us_per_lead),
        "elsewhere": found.elsewhere,
    }


def _latency(found: Latency) -> dict[str, Any]:
    percentiles = {f"p{share:g}_ms": value for share, value in found.percentiles_ms.items()}
    return {"rate_per_s": found.rate_per_s, "lost": found.lost, **percentiles, "elsewhere": found.elsewhere}


def _summary(empty: Sequence[Mapping[str, Any]], full: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sides = {"empty": empty, "full": full}
    rates = {name: statistics.median(_rates(runs)) for name, runs in sides.items()}
    found: dict[str, Any] = {f"{name}_leads_per_s": round(rate) for name, rate in rates.items()}
    found["full_over_empty"] = round(rates["full"] / rates["empty"], 3)
    for share in _SHARES:
        for key in ("p50_ms", "p99_ms"):
            for name, runs in sides.items():
                values = [run[key] for run in runs if run.get("share") == share]
                found[f"{name}_{key}_at_{share}"] = round(statistics.median(values), 1)
    return found


def _rates(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [run["leads_per_s"] for run in runs if not run.get("settling", True)]


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m bench.history_pipeline", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--open", type=int, default=100_000, help="leads that are still being sold (default 100000)")
    add("--closed", type=int, default=1_000_000, help="leads that were closed (default 1000000)")
    add("--archived", type=int, default=0, help="so many of the closed ones stand in the archive (default 0)")
    help_text = "a setting of the server, in place of the local stack's own"
    add("--set", action="append", default=[], type=setting, metavar="NAME=VALUE", help=help_text)
    add("--leads", type=int, default=20_000, help="leads of a backlog (default 20000)")
    add("--repeats", type=int, default=3, help="backlogs for each Gavel (default 3)")
    add("--settle", type=int, default=0, help="backlogs before these that don't count (default 0)")
    add("--name", default="history-pipeline", help="of the file with the results")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
