"""Lets intake's tables forget the marks by which an erased lead's person would be known again.

What stays is no detail: the lead's id, a keyed hash of its content, the fields that pings show, the proof of consent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson
from psycopg import Connection

from services.contract.codec import codec
from services.contract.identity import IdentityKeys
from services.contract.inputs import QualifiedLead
from services.intake.qualification import fingerprints_in, subjects_in

_RECORDS = "select lead_id::text, record from intake.all_leads where lead_id = any(%s::uuid[])"
_FORGET = "delete from intake.fingerprints where fingerprint = any(%s::uuid[]) and lead_id = any(%s::uuid[])"


def forget_fingerprints(connection: Connection[Any], details: Mapping[str, bytes], keys: IdentityKeys) -> int:
    """Delete the fingerprints of these leads, whose details were opened, as `gavel_intake`; return how many."""
    rows = connection.execute(_RECORDS, [list(details)]).fetchall()
    fingerprints = [
        fingerprint.hex()
        for lead_id, record in rows
        for fingerprint in fingerprints_in(_contact(details[lead_id]), _lead_type(record), keys)
    ]
    return connection.execute(_FORGET, [fingerprints, list(details)]).rowcount


def subjects_of_details(details: Collection[bytes], keys: IdentityKeys) -> set[bytes]:
    """Hash every way to reach the persons of leads whose details were opened."""
    return {subject for row in details for subject in subjects_in(_contact(row), keys)}


def _contact(details: bytes) -> Mapping[str, str]:
    contact: Mapping[str, str] = orjson.loads(details)["contact"]
    return contact


def _lead_type(record: bytes) -> str:
    lead = codec().decode(bytes(record))
    assert isinstance(lead, QualifiedLead), "intake keeps the records that it emits"
    return lead.lead_type
