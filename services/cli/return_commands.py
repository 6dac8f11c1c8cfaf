"""`gavel return`: what buyers want to give back, and an operator's word on what waits for one.

It decides nothing: approving and refusing are commands for the router. The list is billing's, which folds the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import psycopg
import typer

from services.cli.asking import DECIDED_WITHIN_S, Decided, WaitS, last_seq, place, require, wait_for
from services.cli.complaints import Complaint
from services.cli.printing import say, say_json, say_table
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.events import (
    CommandRefused,
    RefusalReason,
    ReturnApproved,
    ReturnRefusal,
    ReturnRefused,
)
from services.contract.inputs import DecideReturn
from services.contract.times import decimal_amount

app = typer.Typer(help="Leads that buyers want to give back.", no_args_is_help=True)

LeadId = Annotated[UUID, typer.Argument(metavar="LEAD_ID", help="The lead, as the list names it.")]
SaleNumber = Annotated[
    int,
    typer.Argument(metavar="SALE_NUMBER", min=1, max=1_000, help="Which of its sales, as the list has it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]

_SHOWN = ("lead_id", "sale_number", "buyer", "source", "reason", "requested_at", "decision", "refund")

_REFUSED: dict[RefusalReason, tuple[str, str]] = {
    RefusalReason.UNKNOWN_LEAD: (
        "The router knows no such lead.",
        "`gavel return list` has what is pending.",
    ),
    RefusalReason.RETURN_NOT_ASKED: (
        "Its buyer has not asked to give this sale back.",
        "`gavel return list` has what is pending.",
    ),
    RefusalReason.ALREADY_RETURNED: ("This sale is returned and credited already.", ""),
}
"""What the router's refusals mean here, and what to do about each."""


class Which(StrEnum):
    """Which returns are listed."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"
    ALL = "all"


@app.command("list", epilog="Example: gavel return list --which all --buyer sunpeak")
def list_returns(
    which: Annotated[
        Which, typer.Option("--which", help="By default, those that wait for an operator.")
    ] = Which.PENDING,
    buyer: Annotated[str | None, typer.Option("--buyer", help="Of this buyer only.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List returns, the oldest pending ones first, as billing knows them from the log."""
    with connect_as_auditor(settings().database) as connection:
        rows = _returns(connection, which, buyer, limit)
    if as_json:
        say_json({"returns": rows})
    elif rows:
        say_table(
            "Returns", _SHOWN, [["" if row[name] is None else row[name] for name in _SHOWN] for row in rows]
        )
    else:
        say("No return waits for an operator." if which is Which.PENDING else "There is none.")


@app.command(epilog="Example: gavel return approve 3f276050-d4f1-5f5c-bcc4-f72e1c5a5436 1")
def approve(
    lead_id: LeadId, sale_number: SaleNumber, wait_s: WaitS = DECIDED_WITHIN_S, as_json: AsJson = False
) -> None:
    """Take a lead back: its buyer is credited, and what was disclosed stays counted."""
    _decide(str(lead_id), sale_number, approve=True, wait_s=wait_s, as_json=as_json)


@app.command(epilog="Example: gavel return refuse 3f276050-d4f1-5f5c-bcc4-f72e1c5a5436 1")
def refuse(
    lead_id: LeadId, sale_number: SaleNumber, wait_s: WaitS = DECIDED_WITHIN_S, as_json: AsJson = False
) -> None:
    """Leave a lead with its buyer, who is told so."""
    _decide(str(lead_id), sale_number, approve=False, wait_s=wait_s, as_json=as_json)


def _decide(lead_id: str, sale_number: int, *, approve: bool, wait_s: float, as_json: bool) -> None:
    found = settings()
    with connect_as_auditor(found.database) as connection:
        from_seq = last_seq(connection, lead_id)
        placed = place(found, DecideReturn(lead_id=lead_id, sale_number=sale_number, approve=approve))
        decided = require(wait_for(connection, placed, from_seq=from_seq, wait_s=wait_s), wait_s)
    answer = outcome_of(decided, approve=approve)
    if as_json:
        say_json({"lead_id": lead_id, "sale_number": sale_number, **answer})
    elif answer["decision"] == "approved":
        say(f"Returned: {answer['buyer']} is credited {answer['refund']} {answer['currency']}.")
    else:
        say(f"Not returned: {answer['buyer']} is told so, and keeps the lead.")


def outcome_of(decided: Decided, *, approve: bool) -> dict[str, Any]:
    """Put into words what the router decided; raise `Complaint` where that is not what was asked for."""
    for event in decided.events:
        match event:
            case CommandRefused(reason=reason):
                what, advice = _REFUSED.get(reason, (f"The router refused it (reason: {reason}).", ""))
                raise Complaint(what, advice)
            case ReturnApproved():
                return {
                    "decision": "approved",
                    "buyer": event.buyer_id,
                    "refund": decimal_amount(event.price_cents),
                    "currency": event.currency,
                }
            case ReturnRefused() if approve:
                raise Complaint(_not_approved(event))
            case ReturnRefused():
                return {"decision": "refused", "buyer": event.buyer_id, "reason": event.reason}
            case _:
                pass
    raise Complaint("The router decided nothing about it.", "`gavel lead show LEAD_ID` tells what it did.")


def _not_approved(refused: ReturnRefused) -> str:
    if refused.reason is ReturnRefusal.QUOTA_USED_UP:
        return f"It can't be approved: {refused.buyer_id}'s quota of returns is used up, and it is refused for that."
    return f"It was refused (reason: {str(refused.reason).replace('_', ' ')})."


def _returns(
    connection: psycopg.Connection, which: Which, buyer: str | None, limit: int
) -> Sequence[dict[str, Any]]:
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(
            """
            select s.lead_id::text as lead_id, s.sale_number, r.sale_id::text as sale_id, s.buyer_id as buyer,
                   s.source_id as source, s.lead_type, s.plan, r.reason, r.requested_at, r.decision, r.decided_at,
                   r.refusal, r.automatic, s.currency, s.is_test,
                   case r.decision when 'approved' then (r.refund_cents / 100.0)::numeric(14, 2) end as refund
            from billing.returns r join billing.sales s using (sale_id)
            where (%(which)s = 'all' or r.decision = %(which)s)
              and (%(buyer)s::text is null or s.buyer_id = %(buyer)s)
            order by r.decision <> 'pending', r.requested_at, r.sale_id, r.seq limit %(limit)s
            """,
            {"which": which.value, "buyer": buyer, "limit": limit},
        ).fetchall()
