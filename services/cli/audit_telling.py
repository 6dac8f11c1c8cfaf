"""What an audit has found, in words and as JSON: it says where to look, and never what stood there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.audit.app import Audit
from services.audit.found import violation_json
from services.audit.violations import Violation
from services.cli.printing import remark, say, say_table

SHOWN_MAX: Final = 100

GUARANTEES: Final = {
    1: "Exclusive is exclusive, shared is bounded",
    2: "Every accepted lead is closed once",
    3: "Caps, budgets and credit hold",
    4: "Billed once, and the ledger is the log's",
    5: "Each buyer is told the truth",
    6: "Contact details are where they belong",
    7: "The log is whole, and the database's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An audit that came to its end. `rebuilt`: how many entries the ledger was made again from, if it was."""

    audit: Audit
    reading_s: float
    total_s: float
    entries_read: int
    rebuilt: int | None
    remarks: Sequence[str]

    @property
    def holds(self) -> bool:
        """Tell whether nothing was found."""
        return not self.audit.found.count

    @property
    def entries_per_s(self) -> int:
        """How many entries were judged a second, all other records and the tables included."""
        return round(self.entries_read / self.reading_s) if self.reading_s > 0 else 0


def counts(audit: Audit) -> dict[str, int]:
    """Count what was judged."""
    auditor = audit.auditor
    return {
        "leads": auditor.leads,
        "sales": auditor.sales,
        "deliveries": auditor.deliveries,
        "auctions": auditor.auctions,
        "entries": auditor.entries,
    }


def told_json(told: Told) -> dict[str, Any]:
    """Write everything for machines, the violations included."""
    found = told.audit.found
    return {
        "holds": told.holds,
        "at_rest": told.audit.compared is not None and told.audit.compared.at_rest,
        "under_way": list(told.audit.compared.under_way) if told.audit.compared else [],
        **counts(told.audit),
        "records": told.audit.secrecy.records,
        "entries_read": told.entries_read,
        "entries_per_s": told.entries_per_s,
        "reading_s": round(told.reading_s, 3),
        "total_s": round(told.total_s, 3),
        "ledger_rebuilt_from_entries": told.rebuilt,
        "guarantees": [
            {"guarantee": number, "says": says, "violations": found.by_guarantee[number]}
            for number, says in GUARANTEES.items()
        ],
        "rules_broken": dict(sorted(found.by_rule.items())),
        "violations_found": found.count,
        "violations": [violation_json(each) for each in found.listed],
        "remarks": list(told.remarks),
    }


def say_told(told: Told) -> None:
    """Say it to people: what was judged, what holds, and what does not."""
    found = told.audit.found
    say_table(
        "What was judged",
        ("what", "#count"),
        [
            *((name, f"{count:,}") for name, count in counts(told.audit).items()),
            ("entries per second", f"{told.entries_per_s:,}"),
        ],
    )
    say_table(
        "What Gavel promises",
        ("#", "guarantee", "result"),
        ((number, says, _result(found.by_guarantee[number])) for number, says in GUARANTEES.items()),
    )
    for violation in found.listed[:SHOWN_MAX]:
        say(line_of(violation))
    if found.count > SHOWN_MAX:
        say(f"... and {found.count - SHOWN_MAX:,} more: --json lists them.")
    for each in told.remarks:
        remark(each)
    say(verdict(told))


def verdict(told: Told) -> str:
    """Say in a line what came of it."""
    if not told.holds:
        broken = sum(1 for count in told.audit.found.by_guarantee.values() if count)
        return f"audit: {told.audit.found.count:,} violations of {broken} guarantees"
    rest = told.audit.compared is not None and told.audit.compared.at_rest
    how = "nothing was under way" if rest else "what is under way has its grace of 5 minutes"
    return f"audit: every guarantee holds, over {told.audit.auditor.entries:,} entries; {how}"


def line_of(violation: Violation) -> str:
    """Write a violation in a line."""
    lead = "" if violation.lead_id is None else f" lead {violation.lead_id}:"
    where = "; ".join(map(str, violation.where))
    return f"guarantee {violation.guarantee}, {violation.rule}:{lead} {violation.what} [{where}]"


def remarks_of(audit: Audit) -> Iterator[str]:
    """Say what could not be looked at, and why something may still come."""
    yield from audit.rounds.notes.values()
    if audit.closed_columns:
        yield f"Not searched, as the auditor may not read them: {', '.join(audit.closed_columns)}."
    if audit.compared is not None and audit.compared.under_way:
        yield f"Not at rest: {'; '.join(audit.compared.under_way)}."


def _result(violations: int) -> str:
    if not violations:
        return "held"
    return f"{violations:,} violation{'s' if violations > 1 else ''}"
