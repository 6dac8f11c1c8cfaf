"""Shows people and machines what was measured: lines while it goes on, tables and a JSON document at the end."""

from __future__ import annotations

import dataclasses
import os
import platform
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
    runs: Sequence[Run], *, pipeline: str, control: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Put everything that was measured into one JSON object, the medians under `summary`."""
    found = {
        "summary": figures.summary(runs, pipeline=pipeline, control=control),
        "cpu_us_per_lead": {name: figures.cpu_us_per_lead(runs, name) for name in (pipeline, control)},
        "peak_memory_mib": {name: figures.peak_memory_mib(runs, name) for name in (pipeline, control)},
        "machine": _machine(),
        "arguments": dict(arguments),
        "runs": [_run(run) for run in runs],
    }
    return {name: _finite(value) for name, value in found.items()}


def show_run(console: Console, number: int, of: int, run: Run) -> None:
    """Show one run on a line or two."""
    one = run.throughput
    unfinished = "" if one.is_complete else ", [bold]broken off when the time was up[/bold]"
    repeats = f", {one.repeats} deliveries repeated" if one.repeats else ""
    busy = f", [bold]{one.elsewhere:.0%} of the CPUs busy elsewhere[/bold]" if one.elsewhere > _QUIET else ""
    console.print(
        f"{number}/{of} {run.pipeline}: {one.leads:,} leads in {one.seconds:.1f} s, "
        f"[bold]{one.leads_per_s:,.0f} leads/s[/bold]{repeats}{unfinished}{busy}",
        soft_wrap=True,
    )
    if run.latency:
        shown = ", ".join(
            f"p{percent:g} {value:.0f} ms" for percent, value in run.latency.percentiles_ms.items()
        )
        console.print(
            f"    at {run.latency.rate_per_s:,.0f} leads/s: {shown} ({run.latency.leads:,} leads, "
            f"{run.latency.lost} lost, load late by {run.latency.sent_late_ms:.0f} ms at most)",
            soft_wrap=True,
        )


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Show the medians as tables."""
    console.print(_summary(found["summary"]))
    for pipeline, cpu_us in found["cpu_us_per_lead"].items():
        if cpu_us:
            console.print(_processes(pipeline, cpu_us, found["peak_memory_mib"][pipeline]))


def _summary(values: Mapping[str, float | None]) -> Table:
    table = Table("median of all runs", title="Summary")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, "never" if value is None else f"{value:,.1f}")
    return table


def _processes(pipeline: str, cpu_us: Mapping[str, float], memory_mib: Mapping[str, float]) -> Table:
    table = Table("process", title=pipeline)
    table.add_column("CPU us a lead", justify="right")
    table.add_column("peak memory MiB", justify="right")
    for name, value in cpu_us.items():
        table.add_row(name, f"{value:,.0f}", f"{memory_mib[name]:,.0f}" if name in memory_mib else "")
    table.add_row("all together", f"{sum(cpu_us.values()):,.0f}", "")
    return table


def _run(run: Run) -> dict[str, Any]:
    row = dataclasses.asdict(run)
    row["throughput"]["leads_per_s"] = run.throughput.leads_per_s
    if row["latency"]:
        row["latency"]["percentiles_ms"] = {
            f"p{at:g}": ms for at, ms in row["latency"]["percentiles_ms"].items()
        }
    return row


def _finite(value: Any) -> Any:
    """Write a latency without end, that of a lead which never came, as JSON can: null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if value == float("inf") else value


def _machine() -> dict[str, Any]:
    names = [line for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpus": os.cpu_count(),
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
