"""What a demo ends with: its tables for people, the same for machines, and what to try next.

It shows what was found and computes nothing but percentages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.cli.demo_bidders import BY_HTTP, FAST, SILENT, SLOW, Posted
from services.cli.demo_checks import EXAMPLES_NAMED, Check
from services.cli.demo_evidence import Finances
from services.cli.demo_place import Place
from services.cli.demo_sources import Receipts
from services.cli.lead_commands import Story, say_story, story_json
from services.cli.printing import answers, say, say_table
from services.cli.story import LocalClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a demo found."""

    namespace: str
    sent: int
    receipts: Receipts
    finances: Finances
    story: Story | None
    checks: Sequence[Check]
    heard: Mapping[tuple[str, str], int]
    limits: Mapping[str, str]
    posted: Posted
    answers: int
    selling_s: float
    total_s: float

    @property
    def is_well(self) -> bool:
        """Tell whether all guarantees hold."""
        return all(check.holds for check in self.checks)


def report_json(report: Report) -> dict[str, Any]:
    """Write the report for machines."""
    receipts = report.receipts
    return {
        "namespace": report.namespace,
        "leads": {
            "sent": report.sent,
            "accepted": len(receipts.accepted),
            "sent_again": receipts.repeated,
            "declined": dict(receipts.declined),
            "undecodable": receipts.undecodable,
            "closed": dict(receipts.outcomes),
        },
        "buyers_were_told": [
            {"buyer": buyer, "what": what, "times": times}
            for (buyer, what), times in sorted(report.heard.items())
        ],
        "answers_and_reports": report.answers,
        "posted_by_http": {"pings": report.posted.pings, "leads": report.posted.leads},
        "limits_reached": dict(report.limits),
        "closed_by_lead_type": [dict(row) for row in report.finances.outcomes],
        "plans": [dict(row) for row in report.finances.plans],
        "buyers": [dict(row) for row in report.finances.buyers],
        "sources": [dict(row) for row in report.finances.sources],
        "returns": [dict(row) for row in report.finances.returns],
        "story": story_json(report.story) if report.story else None,
        "checks": [
            {**asdict(check), "holds": check.holds, "against": list(check.against)} for check in report.checks
        ],
        "seconds": {"selling": round(report.selling_s, 1), "total": round(report.total_s, 1)},
    }


def say_report(report: Report, clock: LocalClock) -> None:
    """Answer with the report for people."""
    _say_intake(report)
    _say_outcomes(report)
    _say_plans(report.finances)
    _say_buyers(report.finances)
    _say_auctions(report)
    _say_afterwards(report)
    _say_sources(report.finances)
    if report.story is not None:
        say()
        say("One lead's whole story, from the log")
        say_story(report.story, clock)
    say()
    _say_checks(report.checks)
    say()
    say(
        f"{report.sent:,} submissions, {len(report.receipts.accepted):,} leads, {len(report.receipts.sold):,} sales; "
        f"from the first lead sent to the last one closed {report.selling_s:.0f} s, {report.total_s:.0f} s in all."
    )


def say_next(place: Place, story: Story | None) -> None:
    """Say what to try while everything stays up."""
    lead_id = story.lead_id if story else "LEAD_ID"
    say()
    say("All of it stays up until Ctrl-C. In another terminal:")
    say(f"  source {place.export()}")
    say("  gavel buyer listen gridwatt")
    say(
        "  gavel source send sunform examples/leads/sunform.jsonl   # the same leads again: none is sold twice"
    )
    say("  gavel source receipts sunform --follow")
    say(f"  gavel lead show {lead_id}")
    say("  gavel billing sales --limit 5")
    say("  gavel log verify")
    say("  gavel dlq list")


def _say_intake(report: Report) -> None:
    receipts = report.receipts
    rows: list[tuple[str, str, str]] = [("accepted", "", f"{len(receipts.accepted):,}")]
    if receipts.repeated:
        rows.append(("accepted", "the same submission again", f"{receipts.repeated:,}"))
    rows += [
        ("declined", reason.replace("_", " "), f"{count:,}")
        for reason, count in receipts.declined.most_common()
    ]
    rows.append(("dead letters", "no JSON object", f"{receipts.undecodable:,}"))
    say_table(
        f"What became of {report.sent:,} submissions at the door", ("verdict", "why", "#submissions"), rows
    )


def _say_outcomes(report: Report) -> None:
    outcomes = report.receipts.outcomes
    counts: dict[str, dict[str, int]] = {}
    for row in report.finances.outcomes:
        counts.setdefault(row["lead_type"], {})[row["outcome"]] = row["leads"]
    names = sorted({outcome for of_type in counts.values() for outcome in of_type})
    all_leads = sum(outcomes.values())
    rows: list[tuple[object, ...]] = [
        (lead_type, *(f"{of_type.get(name, 0):,}" for name in names), f"{sum(of_type.values()):,}")
        for lead_type, of_type in counts.items()
    ]
    totals = [sum(of_type.get(name, 0) for of_type in counts.values()) for name in names]
    rows.append(("all", *(_share(total, all_leads) for total in totals), f"{sum(totals):,}"))
    say_table(
        "How the leads closed",
        ("lead type", *(f"#{name.replace('_', ' ')}" for name in names), "#leads"),
        rows,
    )


def _say_plans(finances: Finances) -> None:
    say_table(
        "What each plan brought (finance.revenue_by_plan)",
        ("lead type", "plan", "#accepted", "#sold", "#sales", "#revenue", "#per accepted lead"),
        (
            (
                row["lead_type"],
                row["plan"] or "(none fitted)",
                f"{row['leads_accepted']:,}",
                f"{row['leads_sold']:,}",
                f"{row['sales']:,}",
                f"{row['revenue']:,} {row['currency']}",
                f"{row['revenue_per_accepted_lead']:,} {row['currency']}",
            )
            for row in finances.plans
        ),
    )


def _say_buyers(finances: Finances) -> None:
    say_table(
        "What each buyer bought (finance.buyers)",
        ("buyer", "#leads", "#exclusive", "#shared", "#spend"),
        (
            (
                row["buyer"],
                f"{row['leads']:,}",
                f"{row['exclusive_leads']:,}",
                f"{row['shared_leads']:,}",
                f"{row['spend']:,} {row['currency']}",
            )
            for row in finances.buyers
        ),
    )


def _say_auctions(report: Report) -> None:
    ways = {
        FAST: "answers at once",
        SLOW: "answers late",
        SILENT: "never answers",
        BY_HTTP: "answers by HTTP",
    }
    outcomes = ("outbid", "other_mode", "below_floor", "no_answer")

    def times(buyer: str, what: str) -> int:
        return report.heard.get((buyer, what), 0)

    say_table(
        "How the bidders did (buyers' topics)",
        (
            "bidder",
            "which",
            "#pings",
            "#void bids",
            *(f"#{name.replace('_', ' ')}" for name in outcomes),
            "#won",
        ),
        (
            (
                buyer,
                way,
                f"{times(buyer, 'ping'):,}",
                f"{times(buyer, 'bid_void'):,}",
                *(f"{times(buyer, f'auction_result: {name}'):,}" for name in outcomes),
                f"{times(buyer, 'lead'):,}",
            )
            for buyer, way in ways.items()
        ),
    )


def _say_afterwards(report: Report) -> None:
    """Tell of upgrades, returns and limits."""
    upgraded = sum(times for (_, what), times in report.heard.items() if what == "upgraded")
    rows = [("upgraded to exclusive when its buyer asked", f"{upgraded:,}", "")]
    rows += [
        (f"return {row['decision']}", f"{row['returns']:,}", f"{row['refund'] or 0:,} credited")
        for row in report.finances.returns
    ]
    rows += [
        ("limit reached", order, limit.replace("_", " ")) for order, limit in sorted(report.limits.items())
    ]
    say_table(
        "What happened after the sale, and where limits held",
        ("what", "#how many, or which order", "which"),
        rows,
    )


def _say_sources(finances: Finances) -> None:
    say_table(
        "What each source earned (finance.margin)",
        ("source", "#revenue", "#paid to it", "#margin"),
        (
            (
                row["source"],
                *(f"{row[name]:,} {row['currency']}" for name in ("revenue", "payouts", "margin")),
            )
            for row in finances.sources
        ),
    )


def _say_checks(checks: Sequence[Check]) -> None:
    from rich.text import Text

    say("Guarantees, checked from outside: buyers' and sources' topics by kafka-python, and finance's tables")
    for check in checks:
        verdict = Text("  holds  ", style="green") if check.holds else Text("  BROKEN ", style="bold red")
        answers().print(verdict.append(f"{check.guarantee} ({check.looked_at})", style="default"))
        for against in check.against[:EXAMPLES_NAMED]:
            say(f"         {against}")
        if len(check.against) > EXAMPLES_NAMED:
            say(f"         and {len(check.against) - EXAMPLES_NAMED:,} more")


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.0%})" if whole else "0"
