"""`gavel subject`: who received a person's data, when, and under which promise, as the log tells it.

It shows what is known about the person's leads, and none of what is sealed. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import psycopg
import typer

from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.lead_reading import LeadEntries, read_about
from services.cli.people import PERSON_HELP, given, lead_ids_of
from services.cli.printing import say, say_json
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.events import (
    DeliveryFailed,
    ErasureAcknowledged,
    LeadClosed,
    LeadErased,
    LeadListed,
    LeadUpgraded,
    ReturnApproved,
)
from services.contract.times import iso_time
from services.router.messages import Outgoing, react

_ACCEPTED = """
select l.lead_id::text, l.source_id, l.received_at_ms,
       exists (select from vault.leads v where v.lead_id = l.lead_id),
       (select c.kept_until_ms from vault.consents c where c.lead_id = l.lead_id)
from intake.all_leads l where l.lead_id = any(%s::uuid[]) order by l.received_at_ms, l.lead_id
"""
# The migration that made vault.people: leads from before it have no hash there.
_KNOWN_SINCE = """
select since_ms from (
    select (extract(epoch from applied_at) * 1000)::bigint as since_ms from gavel.migrations
    where step = 'vault' and number = 2
) as made where exists (select from intake.all_leads where received_at_ms < since_ms)
"""


def subject(
    person: Annotated[str, typer.Argument(metavar="PERSON", help=PERSON_HELP)],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List every lead of a person, and who received it: archived and erased leads too."""
    found = settings()
    leads = leads_known(found, lead_ids_of(given(person), found))
    known_since_ms = _known_since_ms(found)
    since = None if known_since_ms is None else iso_time(known_since_ms)
    if as_json:
        say_json({"leads": leads, "known_since": since})
        return
    _say(leads)
    if not leads:
        say("No lead of this person was ever accepted, or all were forgotten long ago.")
    if since is not None:
        say(f"Leads accepted before {since} have no hash of their person: name such a lead by its id.")


def leads_known(found: StepSettings, lead_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Tell of each lead what tables and log know of it."""
    with connect_as_auditor(found.database) as connection:
        accepted = _accepted(connection, lead_ids)
    return [{**lead, **_told(read_about(found, lead["lead_id"]))} for lead in accepted]


def _known_since_ms(found: StepSettings) -> int | None:
    """Say since when leads are found by their person; None where there are none from before."""
    with connect_as_auditor(found.database) as connection:
        row = connection.execute(_KNOWN_SINCE).fetchone()
    return None if row is None else int(row[0])


def _accepted(connection: psycopg.Connection, lead_ids: Sequence[str]) -> list[dict[str, Any]]:
    rows = connection.execute(_ACCEPTED, [list(lead_ids)]).fetchall()
    if len(lead_ids) == 1 and not rows:
        raise Complaint(f"No lead {lead_ids[0]} was ever accepted.", "Is the id right?")
    return [
        {
            "lead_id": lead_id,
            "source": source_id,
            "received_at": iso_time(received_at_ms),
            "details": "sealed in the vault" if is_sealed else "gone",
            "consent_kept_until": None if kept_until_ms is None else iso_time(kept_until_ms),
        }
        for lead_id, source_id, received_at_ms, is_sealed, kept_until_ms in rows
    ]


def _told(lead: LeadEntries) -> dict[str, Any]:
    """Fold a lead's entries into what its person may know."""
    told: dict[str, Any] = {
        "lead_type": None,
        "consented_buyers": [],
        "closed": None,
        "erasure": None,
        "read_from": lead.read_from,
    }
    recipients: dict[str, dict[str, Any]] = {}
    for entry, events in lead.entries:
        at = iso_time(entry.decided_at_ms)
        for outgoing in react(entry, events, lead.partition):
            if outgoing.sale_number is not None:
                recipients[outgoing.recipient] = _recipient(outgoing)
        for event in events:
            match event:
                case LeadListed(lead_type=lead_type, consented_buyers=consented):
                    told |= {"lead_type": lead_type, "consented_buyers": list(consented)}
                case LeadClosed(outcome=outcome):
                    told["closed"] = {"at": at, "outcome": outcome}
                case LeadErased(reason=reason, acknowledge_by_ms=by_ms):
                    told["erasure"] = {"at": at, "reason": reason, "acknowledge_by": iso_time(by_ms)}
                    _note(recipients.values(), erased_at=None)
                case ErasureAcknowledged(buyer_id=buyer_id):
                    _note([recipients[buyer_id]], erased_at=at)
                case LeadUpgraded(buyer_id=buyer_id):
                    _note([recipients[buyer_id]], exclusive_for_good_since=at)
                case ReturnApproved(buyer_id=buyer_id):
                    _note([recipients[buyer_id]], returned_at=at)
                case DeliveryFailed(buyer_id=buyer_id, reason=reason):
                    _note([recipients[buyer_id]], not_delivered={"at": at, "reason": reason})
                case _:
                    pass
    return {**told, "recipients": list(recipients.values())}


def _recipient(delivery: Outgoing) -> dict[str, Any]:
    body = delivery.body
    return {
        "buyer": delivery.recipient,
        "order": body["order"],
        "sale_id": body["sale_id"],
        "received_at": body["sold_at"],
        "promise": body["promise"],
        "terms": body["terms"],
    }


def _note(recipients: Iterable[dict[str, Any]], **facts: Any) -> None:
    for recipient in recipients:
        recipient.update(facts)


def _say(leads: Sequence[Mapping[str, Any]]) -> None:
    for lead in leads:
        what = f"{lead['lead_type']} lead" if lead["lead_type"] else "Lead, not listed yet"
        say(f"{lead['lead_id']}: {what} from {lead['source']}, received {lead['received_at']}.")
        say(f"  Its contact and other details are {lead['details']}.")
        if lead["consented_buyers"]:
            say(f"  Its consent names {', '.join(lead['consented_buyers'])}, and nobody else may have it.")
        erasure = lead["erasure"]
        if erasure is not None:
            say(f"  {erasure['reason']} {erasure['at']}; holders answer by {erasure['acknowledge_by']}")
        for recipient in lead["recipients"]:
            say(
                f"  {recipient['buyer']} (order {recipient['order']}) received it {recipient['received_at']}:"
            )
            say(f"    {recipient['promise']}")
            for fact in ("exclusive_for_good_since", "returned_at", "not_delivered"):
                if fact in recipient:
                    say(f"    {fact.replace('_', ' ')}: {recipient[fact]}")
            if "erased_at" in recipient:
                say(f"    erased there: {recipient['erased_at'] or 'not acknowledged yet'}")
        if not lead["recipients"]:
            say("  Nobody received it.")
