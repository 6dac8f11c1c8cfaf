"""Shows people and machines what was measured: lines while it goes on, tables and a JSON document at the end.

`python -m bench.report --markdown RESULT.json` prints the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import figures
from bench.figures import Run

_QUIET = 0.05
"""Share of the machine that something else may use without being mentioned."""


def document(
    runs: Sequence[Run],
    *,
    arguments: Mapping[str, Any],
    broker_warming_us: Sequence[float] = (),
    seconds: float = 0.0,
) -> dict[str, Any]:
    """Put everything that was measured into one JSON object, the medians under `summary`."""
    names = figures.measurements(runs)
    found = {
        "summary": figures.summary(runs),
        "medians": {name: figures.medians(runs, name) for name in names},
        "cpu_us_per_lead": _not_empty({name: figures.cpu_us_per_lead(runs, name) for name in names}),
        "peak_memory_mib": _not_empty({name: figures.peak_memory_mib(runs, name) for name in names}),
        "broker_warming_us_per_lead": list(broker_warming_us),
        "machine": _machine(),
        "arguments": dict(arguments),
        "seconds": seconds,
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    return {name: _finite(value) for name, value in found.items()}


def show_runs(console: Console, runs: Sequence[Run]) -> None:
    """Show runs on a line each."""
    for run in runs:
        shown = ", ".join(f"{name} {_number(value)}" for name, value in run.figures.items())
        busy = (
            f", [bold]{run.elsewhere:.0%} of the CPUs busy elsewhere[/bold]"
            if run.elsewhere is not None and run.elsewhere > _QUIET
            else ""
        )
        lost = f", {run.notes['lost']} leads lost" if run.notes.get("lost") else ""
        console.print(f"    [bold]{run.measurement}[/bold]: {shown}{lost}{busy}", soft_wrap=True)


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Show the medians as tables."""
    console.print(_summary(found["summary"]))
    for measurement, cpu_us in found["cpu_us_per_lead"].items():
        console.print(_processes(measurement, cpu_us, found["peak_memory_mib"].get(measurement, {})))


def markdown(found: Mapping[str, Any]) -> str:
    """Write the tables of docs/performance.md."""
    machine = found["machine"]
    lines = [
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, Python {machine['python']}; "
        f"{found['arguments']['repeats']} rounds, {found['seconds'] / 60:.0f} minutes.",
        "",
        *_markdown_table(("summary", "median"), _rows(found["summary"])),
    ]
    for measurement, cpu_us in found["cpu_us_per_lead"].items():
        memory = found["peak_memory_mib"].get(measurement, {})
        rows = [(name, _number(value), _number(memory.get(name))) for name, value in cpu_us.items()]
        total = ("**all together**", _number(sum(cpu_us.values())), "")
        head = (f"{measurement}: process", "CPU µs a lead", "peak MiB")
        lines += ["", *_markdown_table(head, [*rows, total])]
    return "\n".join(lines) + "\n"


def read_document(path: Path) -> dict[str, Any]:
    """Read a result file; raise `ValueError` where it is none."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not {"summary", "runs", "machine"} <= found.keys():
        raise ValueError(f"{path} is not a result of the benchmark")
    return found


def main() -> None:
    """Print the tables of a result file."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--markdown", action="store_true", help="print Markdown, as docs/performance.md has it"
    )
    parser.add_argument("result", type=Path, help="a file of bench/results")
    given = parser.parse_args()
    try:
        found = read_document(given.result)
    except (OSError, ValueError) as error:
        sys.exit(f"{given.result}: {error}")
    if given.markdown:
        print(markdown(found), end="")
    else:
        show(Console(), found)


def _summary(values: Mapping[str, float | None]) -> Table:
    table = Table("median of all runs", title="Summary")
    table.add_column("value", justify="right")
    for name, value in _rows(values):
        table.add_row(name, value)
    return table


def _processes(measurement: str, cpu_us: Mapping[str, float], memory_mib: Mapping[str, float]) -> Table:
    table = Table("process", title=measurement)
    table.add_column("CPU us a lead", justify="right")
    table.add_column("peak memory MiB", justify="right")
    for name, value in cpu_us.items():
        table.add_row(name, _number(value), _number(memory_mib[name]) if name in memory_mib else "")
    table.add_row("all together", _number(sum(cpu_us.values())), "")
    return table


def _rows(values: Mapping[str, float | None]) -> list[tuple[str, str]]:
    return [(name, _number(value, never="never")) for name, value in values.items()]


def _number(value: float | None, *, never: str = "") -> str:
    if value is None:
        return never
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def _not_empty(by_measurement: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: values for name, values in by_measurement.items() if values}


def _finite(value: Any) -> Any:
    """Write a latency without end, that of a lead which never came, as JSON can: null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if value == float("inf") else value


def _machine() -> dict[str, Any]:
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpus": os.cpu_count(),
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "memory_gib": round(int(memory[0].split()[1]) / 2**20) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _lines(name: str) -> list[str]:
    path = Path(name)
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
