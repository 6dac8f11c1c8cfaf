"""Writes what a source is told when its submission came in; what becomes of the lead later, the router tells.

A receipt names the lead and the source's own reference, and quotes nothing else that was sent.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, assert_never

import orjson

from services.contract.cloudevents import outsider_headers
from services.contract.times import iso_time
from services.intake.domain import Accepted, Declined, Identity, Repeated, Replayed, Verdict

# The records of a batch were appended within a few milliseconds.
_iso_time = lru_cache(maxsize=1_000)(iso_time)

TYPE = "gavel.receipt.v1"
SOURCE = "gavel/intake"


def receipt_json(identity: Identity, verdict: Verdict) -> bytes:
    """Write a receipt; `schemas/json/receipt.schema.json` has its shape."""
    receipt: dict[str, Any] = {
        "type": "receipt",
        "lead_id": identity.lead_id,
        "at": _iso_time(identity.received_at_ms),
        "happened": [_happened(verdict)],
    }
    if identity.reference is not None:
        receipt["reference"] = identity.reference
    return orjson.dumps(receipt)


def receipt_headers(identity: Identity, verdict: Verdict) -> tuple[tuple[str, bytes], ...]:
    """Write its headers. A market may change between a crash and the replay: then the answers differ, and their ids."""
    origin = identity.origin
    return outsider_headers(
        id=f"{origin.partition}:{origin.offset}:{_happened(verdict)['type']}",
        type=TYPE,
        source=SOURCE,
        at_ms=identity.received_at_ms,
    )


def _happened(verdict: Verdict) -> dict[str, str]:
    match verdict:
        case Accepted() | Replayed() | Repeated():
            return {"type": "accepted"}
        case Declined(reason=reason, field=field):
            place = {} if field is None else {"field": field}
            return {"type": "declined", "reason": reason, **place}
        case _:
            assert_never(verdict)
