"""What a campaign is written down as: a document of plain values, and tables for people. It computes nothing else."""

from __future__ import annotations

import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from chaos.campaign import Outcome
from chaos.faults import Told
from chaos.plan import FaultKind

VIOLATIONS_KEPT = 100
_SHOWN = 20


def document(outcomes: Sequence[Outcome], arguments: Mapping[str, Any], *, at: str) -> dict[str, Any]:
    """Write all outcomes of a run: the machine without its name, the arguments, and a summary first."""
    return {
        "at": at,
        "machine": {
            "cpus": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 1024**3),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "arguments": dict(arguments),
        "summary": {outcome.subject: _summary(outcome) for outcome in outcomes},
        "campaigns": [_campaign(outcome) for outcome in outcomes],
    }


def _summary(outcome: Outcome) -> dict[str, Any]:
    recovered = [fault.recovered_s for fault in outcome.faults if fault.recovered_s is not None]
    judgement = outcome.judgement
    return {
        "submissions_acknowledged": outcome.acknowledged,
        "faults": len(outcome.faults),
        "faults_not_recovered_from": len(outcome.unrecovered),
        "recovery_s_p50": round(statistics.median(recovered), 2) if recovered else None,
        "recovery_s_max": round(max(recovered), 2) if recovered else None,
        "violations": len(judgement.violations) if judgement else None,
        "violations_by_rule": dict(judgement.by_rule) if judgement else None,
        "at_rest": not outcome.missing,
        "is_well": outcome.is_well,
    }


def _campaign(outcome: Outcome) -> dict[str, Any]:
    judgement = outcome.judgement
    return {
        "subject": outcome.subject,
        "sent": outcome.sent,
        "acknowledged": outcome.acknowledged,
        "refused": list(outcome.refused)[:VIOLATIONS_KEPT],
        "load_seconds": round(outcome.seconds, 1),
        "load_held_back_seconds": round(outcome.held_back_s, 1),
        "rest_after_seconds": None if outcome.rest_s is None else round(outcome.rest_s, 1),
        "missing": list(outcome.missing),
        "faults_left_out": outcome.left_out,
        "by_kind": by_kind(outcome.faults),
        "workers_started": outcome.starts,
        "workers_ended_by_themselves": [
            {"worker": worker, "code": code, "said": said, "times": times}
            for (worker, code, said), times in _endings(outcome).items()
        ],
        "judge": judgement.judge if judgement else None,
        "counts": dict(judgement.counts) if judgement else {},
        "violations": list(judgement.violations)[:VIOLATIONS_KEPT] if judgement else None,
        "judge_said": dict(judgement.details) if judgement else {},
        "faults": [_fault(fault) for fault in outcome.faults],
    }


def _endings(outcome: Outcome) -> Counter[tuple[str, int, str]]:
    """Count the workers' ends by step and reason."""
    return Counter((each.worker.partition("-")[0], each.code, each.said) for each in outcome.ended)


def _fault(fault: Told) -> dict[str, Any]:
    return {
        "number": fault.number,
        "kind": fault.kind.value,
        "target": fault.target,
        "planned_s": round(fault.planned_s, 1),
        "began_s": round(fault.began_s, 1),
        "ended_s": round(fault.ended_s, 1),
        "recovered_s": None if fault.recovered_s is None else round(fault.recovered_s, 2),
        "after_its_end_s": None if fault.again_s is None else round(fault.again_s, 2),
        "standing": list(fault.standing),
        "note": fault.note,
    }


def by_kind(faults: Sequence[Told]) -> list[dict[str, Any]]:
    """Put faults together by kind: how many, and how long until all went on, from their beginning and their end."""
    groups: dict[FaultKind, list[Told]] = defaultdict(list)
    for fault in faults:
        groups[fault.kind].append(fault)
    return [
        {
            "kind": kind.value,
            "faults": len(groups[kind]),
            "recovery_s": _spread([fault.recovered_s for fault in groups[kind]]),
            "after_its_end_s": _spread([fault.again_s for fault in groups[kind]]),
        }
        for kind in FaultKind
        if kind in groups
    ]


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    return {
        "p50": round(statistics.median(known), 2) if known else None,
        "max": round(max(known), 2) if known else None,
        "not_in_time": len(values) - len(known),
    }


def show(console: Console, outcome: Outcome) -> None:
    """Say it to people."""
    table = Table(
        title=f"{outcome.subject}: {len(outcome.faults)} faults, and seconds until all went on, from their beginning "
        "and from their end",
        title_justify="left",
        box=box.SIMPLE,
        padding=(0, 1),
    )
    for column in ("fault", "times", "p50", "max", "p50", "max", "never"):
        table.add_column(column, justify="left" if column == "fault" else "right", no_wrap=True)
    for row in by_kind(outcome.faults):
        recovery, again = row["recovery_s"], row["after_its_end_s"]
        table.add_row(
            row["kind"],
            str(row["faults"]),
            *(_seconds(spread[which]) for spread in (recovery, again) for which in ("p50", "max")),
            str(again["not_in_time"]),
        )
    console.print(table)
    _show_counts(console, outcome)
    _show_endings(console, outcome)
    _show_verdict(console, outcome)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _show_counts(console: Console, outcome: Outcome) -> None:
    rest = "never" if outcome.rest_s is None else f"{outcome.rest_s:.0f} s after the last"
    console.print(
        f"{outcome.acknowledged:,} submissions acknowledged in {outcome.seconds:.0f} s "
        f"({outcome.held_back_s:.0f} s held back); at rest {rest}."
    )
    if outcome.judgement is not None:
        for name, count in outcome.judgement.counts.items():
            console.print(f"  {name}: {count:,}", markup=False)


def _show_endings(console: Console, outcome: Outcome) -> None:
    if outcome.ended:
        console.print(f"Workers that ended by themselves and were started again: {len(outcome.ended)}")
    for (step, code, said), times in _endings(outcome).most_common(_SHOWN):
        console.print(f"  {times} x {step}, code {code}: {said}", markup=False, style="dim")


def _show_verdict(console: Console, outcome: Outcome) -> None:
    judgement = outcome.judgement
    for line in (
        *(f"Not at rest: {each}" for each in outcome.missing[:_SHOWN]),
        *(f"Refused by Kafka: {each}" for each in outcome.refused[:_SHOWN]),
        *(
            f"No recovery from fault {each.number}: {', '.join(each.standing[:5])}"
            for each in outcome.unrecovered
        ),
        *([f"{outcome.left_out} faults were left out for lack of time"] if outcome.left_out else []),
    ):
        console.print(line, style="red", markup=False)
    if judgement is None:
        return
    for violation in judgement.violations[:_SHOWN]:
        console.print(f"Violation: {violation}", style="red", markup=False)
    for rule, times in judgement.by_rule.items():
        console.print(f"  {times} x {rule}", style="red", markup=False)
    console.print(
        f"Judged by {judgement.judge}: {len(judgement.violations)} violations.",
        style="green" if outcome.is_well else "red",
        markup=False,
    )
