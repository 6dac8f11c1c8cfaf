"""`gavel erase`: a person is forgotten here, and every holder of its leads is asked to follow, against the legal clock.

It decides nothing: each lead's erasure is a command through its partition, ordered with its sales. What the router has
decided and deleted is waited for; what holders have answered is read from the router's table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import psycopg
import typer
from typer.core import TyperGroup

from services.bus.database import connect
from services.bus.ports import BusFailed
from services.bus.settings import StepSettings
from services.cli.admission import Outsiders
from services.cli.asking import DECIDED_WITHIN_S, WaitS, last_seq, place, require, wait_for
from services.cli.complaints import WENT_WRONG, Complaint
from services.cli.people import (
    PERSON_HELP,
    as_operator,
    given,
    hashed,
    have_decided,
    identity_keys,
    lead_id_in,
    lead_ids_of,
)
from services.cli.printing import remark, say, say_json, say_table
from services.cli.retention import forgotten_after_ms, topics_that_keep_longer
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.events import CommandRefused, ErasureReason
from services.contract.inputs import AcknowledgeErasure, EraseLead
from services.contract.times import iso_time
from services.intake.forgetting import forget_fingerprints, subjects_of_details
from services.router.lead import Lead, WithdrawnEarly
from services.router.state_bytes import state_of
from services.vault.people import leads_of, persons_of, suppress
from services.vault.ring import vault_of
from services.vault.table import read


class _PersonUnlessNamed(TyperGroup):
    """Lets `gavel erase PERSON` mean `gavel erase person PERSON`: an address or an id is no command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name where there is none."""
        is_named = not args or args[0] in self.commands or args[0] in ("--help", "-h")
        return super().parse_args(ctx, args if is_named else ["person", *args])


app = typer.Typer(cls=_PersonUnlessNamed, help="Forget a person.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]

_ASK_EACH_S = 0.1

_STATES = """
select l.lead_id::text, l.source_id, r.state, exists (select from vault.leads v where v.lead_id = l.lead_id)
from intake.all_leads l left join router.all_leads r using (lead_id)
where l.lead_id = any(%s::uuid[]) order by l.received_at_ms, l.lead_id
"""
_SEALED = "select count(*) from vault.leads where lead_id = any(%s::uuid[])"
_OPEN = """
select lead_id::text, buyer_id, reason, asked_at_ms, acknowledge_by_ms, acknowledged_at_ms, by_operator,
       acknowledge_by_ms < (extract(epoch from clock_timestamp()) * 1000)::bigint and acknowledged_at_ms is null
from router.erasures where %s or acknowledged_at_ms is null order by acknowledge_by_ms, lead_id, buyer_id limit %s
"""


@app.command(
    epilog="Examples: gavel erase PERSON --dry-run, gavel erase PERSON --suppress, gavel erase LEAD_ID --revoke. "
    "Safe to interrupt, and to repeat."
)
def person(
    person: Annotated[str, typer.Argument(metavar="PERSON", help=PERSON_HELP)],
    revoke: Annotated[
        bool,
        typer.Option(
            "--revoke", help="The person has revoked its consent: holders have 10 business days to follow."
        ),
    ] = False,
    suppressed: Annotated[
        bool, typer.Option("--suppress", help="Decline this person's leads from now on, too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be erased, and change nothing.")
    ] = False,
    wait_s: WaitS = DECIDED_WITHIN_S,
    as_json: AsJson = False,
) -> None:
    """Delete a person's details here, end what is open, and ask every holder to follow."""
    found = settings()
    reason = ErasureReason.REVOKED if revoke else ErasureReason.ERASED
    asked = given(person)
    lead_ids = lead_ids_of(asked, found)
    if suppressed and not dry_run:
        lead_ids = _suppress(found, asked, lead_ids)
    with connect_as_auditor(found.database) as auditor:
        leads = _look(auditor, lead_ids, reason)
        _require_known(leads, lead_ids)
        left = sealed = 0
        if not dry_run:
            _forget_marks(found, [lead["lead_id"] for lead in leads])
            commands = [
                EraseLead(lead_id=lead["lead_id"], reason=reason) for lead in leads if not lead["is_asked"]
            ]
            left = have_decided(found, auditor, commands, wait_s=wait_s) if commands else 0
            sealed = _wait_until_gone(auditor, lead_ids, wait_s)
    answer = {
        "reason": reason,
        "dry_run": dry_run,
        "leads": leads,
        "undecided": left,
        "still_sealed": sealed,
        "topics_forget_by": iso_time(_now_ms() + forgotten_after_ms()),
        "topics_that_keep_longer": _keep_longer(found, leads),
    }
    if as_json:
        say_json(answer)
    else:
        _tell(answer)
    if left or sealed:
        remark("The router has not done all of it yet: is one running? Repeat this to see.")
        raise typer.Exit(WENT_WRONG)


@app.command(epilog="Example: gavel erase status --all")
def status(
    all_of_them: Annotated[bool, typer.Option("--all", help="Those that have answered, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 1_000,
    as_json: AsJson = False,
) -> None:
    """List the holders that were asked to erase a lead and have not said that they did; exit 1 if one is overdue."""
    with connect_as_auditor(settings().database) as connection:
        rows = [_row(row) for row in connection.execute(_OPEN, [all_of_them, limit])]
    overdue = sum(row["overdue"] for row in rows)
    if as_json:
        say_json({"holders": rows, "overdue": overdue})
    elif rows:
        columns = ("lead_id", "buyer", "reason", "asked_at", "acknowledge_by", "acknowledged_at", "overdue")
        say_table("Asked to erase", columns, [[row[name] or "" for name in columns] for row in rows])
    else:
        say("Every holder that was asked has answered.")
    if overdue:
        raise typer.Exit(WENT_WRONG)


@app.command(epilog="Example: gavel erase acknowledge 3f276050-d4f1-5f5c-bcc4-f72e1c5a5436 sunpeak")
def acknowledge(
    lead_id: Annotated[UUID, typer.Argument(metavar="LEAD_ID", help="The lead that was to be erased.")],
    buyer: Annotated[str, typer.Argument(metavar="BUYER", help="The holder that has erased it.")],
    wait_s: WaitS = DECIDED_WITHIN_S,
    as_json: AsJson = False,
) -> None:
    """Put on record for a holder that it has erased a lead, where it said so by other ways than its topic."""
    found = settings()
    command = AcknowledgeErasure(lead_id=str(lead_id), buyer_id=buyer, by_operator=True)
    with connect_as_auditor(found.database) as connection:
        from_seq = last_seq(connection, command.lead_id)
        placed = place(found, command)
        decided = require(wait_for(connection, placed, from_seq=from_seq, wait_s=wait_s), wait_s)
    refused = next((event for event in decided.events if isinstance(event, CommandRefused)), None)
    if refused is not None:
        raise Complaint(
            f"The router refused it (reason: {str(refused.reason).replace('_', ' ')}).",
            "`gavel erase status` lists who was asked.",
        )
    if as_json:
        say_json({"lead_id": command.lead_id, "buyer": buyer, "repeat": not decided.events})
    else:
        say(f"On record: {buyer} has erased it." if decided.events else "That was on record already.")


def _keep_longer(found: StepSettings, leads: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """Look at the topics that these leads went through as they are; None, and a warning, where that can't be seen."""
    outsiders = Outsiders(
        sources=tuple({lead["source"] for lead in leads}),
        buyers=tuple({holder for lead in leads for holder in lead["holders"]}),
    )
    try:
        longer = topics_that_keep_longer(found, outsiders)
    except BusFailed as error:
        remark(
            f"warning: how long topics keep records is told as declared, for Kafka did not say it: {error}"
        )
        return None
    for line in longer:
        remark(f"warning: {line}. The operator of Kafka can alter its `retention.ms` and `segment.ms`.")
    return longer


def _suppress(found: StepSettings, text: str, lead_ids: Sequence[str]) -> list[str]:
    """Suppress every way to reach the person that is known, and find its leads anew: none comes after."""
    subjects = subjects_of_details(_details(found, lead_ids).values(), identity_keys(found))
    if lead_id_in(text) is None:
        subjects.add(hashed(text, found))
    with as_operator(found) as operator:
        # Of a lead that was erased before, hashes alone are left.
        subjects = subjects or persons_of(operator, lead_ids)
        if not subjects:
            raise Complaint(
                f"Nobody is known by lead {lead_ids[0]}: neither details nor hashes of a person are kept of it.",
                "Name the person by an email address or a phone number.",
            )
        suppress(operator, subjects)
        return sorted({*lead_ids, *leads_of(operator, subjects)})


def _forget_marks(found: StepSettings, lead_ids: Sequence[str]) -> None:
    """Delete fingerprints first: once the details are gone, nobody could say which they were."""
    details = _details(found, lead_ids)
    with connect(found.database, role="gavel_intake", application_name="gavel erase") as connection:
        forget_fingerprints(connection, details, identity_keys(found))


def _details(found: StepSettings, lead_ids: Sequence[str]) -> Mapping[str, bytes]:
    with connect(found.database, role="gavel_router", application_name="gavel erase") as connection:
        return read(connection, lead_ids, vault=vault_of(found))


def _look(
    auditor: psycopg.Connection, lead_ids: Sequence[str], reason: ErasureReason
) -> list[dict[str, Any]]:
    rows = auditor.execute(_STATES, [list(lead_ids)]).fetchall()
    return [
        {
            "lead_id": lead_id,
            "source": source_id,
            "holders": list(state.holders) if isinstance(state, Lead) else [],
            "open": not isinstance(state, Lead) or state.outcome is None,
            "sealed": sealed,
            "is_asked": _is_asked(state, reason),
        }
        for lead_id, source_id, bytes_, sealed in rows
        for state in [None if bytes_ is None else state_of(bytes(bytes_))]
    ]


def _is_asked(state: Lead | WithdrawnEarly | None, reason: ErasureReason) -> bool:
    return isinstance(state, Lead) and state.erasure in (reason, ErasureReason.ERASED)


def _require_known(leads: Sequence[Mapping[str, Any]], lead_ids: Sequence[str]) -> None:
    if not leads:
        what = (
            f"No lead {lead_ids[0]} was ever accepted."
            if lead_ids
            else "No lead of this person was ever accepted."
        )
        raise Complaint(what, "To decline what may come: gavel suppress add PERSON.")


def _wait_until_gone(auditor: psycopg.Connection, lead_ids: Sequence[str], wait_s: float) -> int:
    """Wait until the erasures are published, as the details go with that; return how many are there still."""
    deadline_s = time.monotonic() + wait_s
    while True:
        row = auditor.execute(_SEALED, [list(lead_ids)]).fetchone()
        assert row is not None, "a count has a row"
        if not row[0] or time.monotonic() >= deadline_s:
            return int(row[0])
        time.sleep(_ASK_EACH_S)


def _tell(answer: Mapping[str, Any]) -> None:
    verb = "would be erased" if answer["dry_run"] else "erased"
    for lead in answer["leads"]:
        holders = ", ".join(lead["holders"]) or "nobody"
        say(f"{lead['lead_id']} {verb}; {'was open, ' if lead['open'] else ''}held by {holders}.")
    say(
        "What stays: the record of sales, fields that pings showed, keyed hashes, and the sealed proof of consent. "
        f"Topics of sources and buyers will have forgotten by {answer['topics_forget_by'][:10]}."
    )
    if not answer["dry_run"] and any(lead["holders"] for lead in answer["leads"]):
        say("Every holder is asked to follow: gavel erase status")


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    lead_id, buyer_id, reason, asked_at_ms, by_ms, acknowledged_at_ms, by_operator, overdue = row
    return {
        "lead_id": lead_id,
        "buyer": buyer_id,
        "reason": reason,
        "asked_at": iso_time(asked_at_ms),
        "acknowledge_by": iso_time(by_ms),
        "acknowledged_at": None if acknowledged_at_ms is None else iso_time(acknowledged_at_ms),
        "by_operator": by_operator,
        "overdue": overdue,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
