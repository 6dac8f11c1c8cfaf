"""Measures what history costs: `python -m bench.history --open 1000000 --closed 10000000`.

Two databases on one server, the one empty, the other with so many leads in its tables, are given the same batches in
turns; what counts are the medians of their times against each other. With `--archive` the leads that may go are moved
to the archive first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from bench.command_line import setting
from bench.history_fill import Amount, Progress, fill, lack_of_room, sample_of, set_up
from bench.history_steps import PARTITIONS, Steps
from deploy.local import postgres, stack
from services.contract.events import Disposition

MARKET = str(Path(__file__).parent / "history-market.yaml")
_RESULTS = Path(__file__).parent / "results"
_WARM_UP = 8
_GOAL = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What to measure, and how much of it."""

    amount: Amount
    rounds: int
    batch: int
    name: str
    data: Path | None
    first: int
    settings: Mapping[str, str]
    archive: bool


def main() -> int:
    """Fill, measure, show, write; return the exit code."""
    arguments = _arguments(sys.argv[1:])
    console = Console(stderr=True)

    def progress(message: str) -> None:
        console.print(message, style="dim", markup=False, highlight=False)

    if lack := lack_of_room(arguments.amount):
        console.print(lack)
        return 2
    try:
        postgres.SETTINGS.update(arguments.settings)
        with _server(arguments.data, progress) as database:
            found = _measure(database, arguments, progress)
    except KeyboardInterrupt:
        console.print("Interrupted; the server is stopped, and its tables are gone.")
        return 130
    _show(console, found)
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{arguments.name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"Written to {path}")
    return 0


def _measure(server: str, arguments: Arguments, progress: Progress) -> dict[str, Any]:
    empty = _made(server, "history_empty")
    name = f"history_{arguments.amount.open}_{arguments.amount.closed}"
    if _is_there(server, name):
        full = _with_database(server, name)
        progress(f"Taking the tables that were filled before: {_size(full)}")
    else:
        full = _filled(server, name, empty, arguments.amount, progress)
    archived = _archive(full, progress) if arguments.archive else None
    rounds = _rounds(empty, full, arguments, progress)
    return {
        "archived": archived,
        "open": arguments.amount.open,
        "closed": arguments.amount.closed,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
        "settings": dict(arguments.settings),
        "database_bytes": _bytes(full),
        "statements": rounds,
    }


def _archive(database: str, progress: Progress) -> dict[str, Any]:
    """Run `gavel data archive` on all that may go; return what it says, and how long it took."""
    progress("Archiving ...")
    began_s = time.monotonic()
    environment = {**os.environ, "GAVEL_DATABASE": database, "GAVEL_KAFKA": "127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "data", "archive", "--older-than", "10d", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    took_s = time.monotonic() - began_s
    told: dict[str, Any] = json.loads(done.stdout)
    moved = told["router_leads"] + told["intake_leads"]
    progress(f"Archived {moved:,} rows in {took_s:.0f} s")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
    return {**told, "seconds": round(took_s, 1)}


def _made(server: str, name: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)".encode())
        connection.execute(f"create database {name}".encode())
    url = _with_database(server, name)
    set_up(url, MARKET, PARTITIONS)
    return url


def _is_there(server: str, name: str) -> bool:
    with psycopg.connect(server) as connection:
        return bool(connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone())


def _filled(server: str, name: str, empty: str, amount: Amount, progress: Progress) -> str:
    """Fill a database, which has its name only when it is full."""
    steps = Steps(empty)
    (lead_id,) = steps.sell(1, 0)
    steps.close()
    began_s = time.monotonic()
    filling = _made(server, "history_filling")
    fill(filling, amount, sample_of(empty, lead_id), PARTITIONS, progress)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"alter database history_filling rename to {name}".encode())
    full = _with_database(server, name)
    progress(f"Filled in {time.monotonic() - began_s:.0f} s: {_size(full)}")
    return full


def _rounds(empty: str, full: str, arguments: Arguments, progress: Progress) -> dict[str, dict[str, float]]:
    """Give both the same batches in turns; the first rounds, in which caches fill, don't count."""
    old = {"full": _sample_leads(full, arguments)}
    sides = {"empty": Steps(empty), "full": Steps(full)}
    times: dict[str, dict[str, list[float]]] = {"empty": {}, "full": {}}
    wal: dict[str, list[float]] = {"empty": [], "full": []}
    cpu: dict[str, list[float]] = {"empty": [], "full": []}
    sold: dict[str, list[str]] = {"empty": [], "full": []}
    number = arguments.first
    for at in range(_WARM_UP + arguments.rounds):
        for name, steps in sides.items():
            wal_before, cpu_before = _wal_bytes(full), steps.cpu_s()
            sold[name] += steps.sell(arguments.batch, number)
            if at >= 2:
                leads = old.get(name) or sold[name]
                chosen = leads[(at * arguments.batch) % len(leads) :][: arguments.batch]
                steps.report(chosen, Disposition.DEAL if at % 2 else Disposition.NO_DEAL)
            taken = steps.timings.take()
            if at >= _WARM_UP:
                wal[name].append(_wal_bytes(full) - wal_before)
                cpu[name].append(steps.cpu_s() - cpu_before)
                for what, seconds in taken.items():
                    times[name].setdefault(what, []).append(sum(seconds))
        number += arguments.batch
        if at % 10 == 0:
            progress(f"Measuring: {at + 1} of {_WARM_UP + arguments.rounds} rounds ...")
    for steps in sides.values():
        steps.close()
    found = _compared(times, arguments.batch)
    for what, sums in (("WAL, bytes", wal), ("sessions' CPU, us", cpu)):
        scale = 1e6 if sums is cpu else 1.0
        mean = {name: scale * statistics.fmean(values) / arguments.batch for name, values in sums.items()}
        found[what] = {
            "empty_mean_us_a_lead": round(mean["empty"], 1),
            "full_mean_us_a_lead": round(mean["full"], 1),
            "rate": round(mean["empty"] / mean["full"], 3),
        }
    return found


def _wal_bytes(database: str) -> int:
    """Read how much WAL the server has written."""
    with psycopg.connect(database) as connection:
        row = connection.execute("select pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def _compared(times: Mapping[str, Mapping[str, Sequence[float]]], batch: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for what in times["empty"]:
        empty, full = (sorted(times[name][what]) for name in ("empty", "full"))
        found[what] = {
            "empty_p50_ms": round(statistics.median(empty) * 1_000, 3),
            "full_p50_ms": round(statistics.median(full) * 1_000, 3),
            "empty_p90_ms": round(empty[int(len(empty) * 0.9)] * 1_000, 3),
            "full_p90_ms": round(full[int(len(full) * 0.9)] * 1_000, 3),
            "empty_mean_us_a_lead": round(statistics.fmean(empty) / batch * 1e6, 1),
            "full_mean_us_a_lead": round(statistics.fmean(full) / batch * 1e6, 1),
            "rate": round(statistics.fmean(empty) / statistics.fmean(full), 3),
            "latency": round(statistics.median(empty) / statistics.median(full), 3),
        }
    for step in ("intake", "router", "billing", "resale"):
        mean = {
            name: sum(statistics.fmean(seconds) for what, seconds in sides.items() if what.startswith(step))
            for name, sides in times.items()
        }
        found[f"{step}, all"] = {
            "empty_mean_us_a_lead": round(mean["empty"] / batch * 1e6, 1),
            "full_mean_us_a_lead": round(mean["full"] / batch * 1e6, 1),
            "rate": round(mean["empty"] / mean["full"], 3),
        }
    return found


def _show(console: Console, found: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"{found['open']:,} open and {found['closed']:,} closed leads against none")
    for column in ("statement", "empty ms", "full ms", "empty us/lead", "full us/lead", "latency", "rate"):
        table.add_column(column, justify="left" if column == "statement" else "right")
    for what, row in found["statements"].items():
        style = "" if row["rate"] >= _GOAL else "bold"
        cells = (
            "empty_p50_ms",
            "full_p50_ms",
            "empty_mean_us_a_lead",
            "full_mean_us_a_lead",
            "latency",
            "rate",
        )
        table.add_row(what, *(str(row.get(cell, "")) for cell in cells), style=style)
    console.print(table)


def _sample_leads(database: str, arguments: Arguments) -> list[str]:
    """Choose old leads that somebody holds, half of them open, all over the table."""
    wanted = 2 * arguments.batch * (_WARM_UP + arguments.rounds)
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select md5('history ' || n)::uuid::text from ("
            " select n from generate_series(0, %(closed)s - 1, greatest(1, %(closed)s / %(half)s)) as n"
            " union all select n from generate_series(%(closed)s, %(all)s - 1, greatest(1, %(open)s / %(half)s)) as n"
            ") as chosen where n >= %(closed)s or n %% 4 > 0",
            {
                "closed": arguments.amount.closed,
                "open": arguments.amount.open,
                "all": arguments.amount.closed + arguments.amount.open,
                "half": wanted // 2,
            },
        ).fetchall()
    leads = [lead_id for (lead_id,) in rows]
    random.Random(arguments.first).shuffle(leads)
    return leads


def _size(database: str) -> str:
    return f"{_bytes(database) / 1e9:.1f} GB"


def _bytes(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("select pg_database_size(current_database())").fetchone()
    assert row is not None
    return int(row[0])


def _with_database(url: str, name: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def _server(data: Path | None, progress: Progress) -> Iterator[str]:
    """Start a stack of our own; its tables go with it, unless its folder was named."""
    folder = data or Path(tempfile.mkdtemp(prefix="gavel-history-"))
    try:
        yield stack.up(folder, progress=progress).database
    finally:
        stack.down(folder, progress=progress)
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _arguments(words: Sequence[str]) -> Arguments:
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--open", type=int, default=100_000, help="leads that are still being sold (default 100000)")
    add("--closed", type=int, default=1_000_000, help="leads that were closed (default 1000000)")
    add("--rounds", type=int, default=60, help="batches that count (default 60)")
    add("--batch", type=int, default=250, help="leads in a batch (default 250)")
    add("--archive", action="store_true", help="move what may go to the archive before anything is measured")
    add("--name", default="history", help="of the file with the results")
    add(
        "--set",
        action="append",
        type=setting,
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the server, in place of the local stack's own",
    )
    add(
        "--first",
        type=int,
        default=1,
        help="number of the first lead to sell: another one on tables filled before",
    )
    add(
        "--data", type=Path, help="folder of the servers, which keeps their tables (default: a temporary one)"
    )
    given = parser.parse_args(words)
    return Arguments(
        amount=Amount(open=given.open, closed=given.closed),
        rounds=given.rounds,
        batch=given.batch,
        name=given.name,
        data=given.data,
        first=given.first,
        archive=given.archive,
        settings=dict(given.set),
    )


if __name__ == "__main__":
    sys.exit(main())
