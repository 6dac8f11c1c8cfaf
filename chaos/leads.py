"""The leads of the campaign: all different and the same each time, with a word that must turn up nowhere inside.

Lead `number` is a pure function of that number. Some are declined, and some are sent twice: what becomes of those is
part of what is checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from bench.leads import submission as bench_submission
from services.contract.ids import draw

CANARY = "canary"
"""Stands in every name and address."""

SOURCES = ("web", "partner")
LEAD_TYPES = ("alone", "falling", "staggered", "offered", "auction", "claim", "upgraded", "capped")

_SAME_PERSON_EACH = 97
_INVALID_EACH = 101
_AGAIN_EACH = 89
_NAMES_BUYERS_EACH = 12
NAMED = (("ann", "keen", "whole"), ("bob", "cyd", "calm"), ("dan", "standing", "credit"))
"""The buyers that a person consented to, where its consent names any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One submission: whose, under which reference, and its bytes."""

    source_id: str
    reference: str
    value: bytes


def sent(number: int, created_at_ms: int) -> Sent:
    """Write submission `number`: a new lead, a known person, an invalid one, or the one before once more.

    `created_at_ms` must be the same for all of a campaign, or what is sent again would not be the same.
    """
    if number and number % _AGAIN_EACH == 0:
        return _lead(number - 1, created_at_ms)
    return _lead(number, created_at_ms)


def _lead(number: int, created_at_ms: int) -> Sent:
    person = number - 1 if number and number % _SAME_PERSON_EACH == 0 else number
    known = orjson.loads(bench_submission(person, created_at_ms).value)
    reference = f"chaos-{number:08d}"
    phone = known["contact"]["phone"] if number % _INVALID_EACH != _INVALID_EACH - 1 else "no number"
    document = {
        "reference": reference,
        # Who is the same person must ask for the same, or nobody would know it again.
        "lead_type": LEAD_TYPES[draw("lead type", str(person)) % len(LEAD_TYPES)],
        "contact": {
            "first_name": f"{CANARY}-{person}",
            "last_name": known["contact"]["last_name"],
            "email": f"{CANARY}{person}@example.com",
            "phone": phone,
        },
        "details": {"state": known["details"]["state"]},
        "consent": {"text": known["consent"]["text"], "at": known["consent"]["at"], **_named(number)},
    }
    source_id = SOURCES[draw("source", str(number)) % len(SOURCES)]
    return Sent(source_id=source_id, reference=reference, value=orjson.dumps(document))


def _named(number: int) -> dict[str, tuple[str, ...]]:
    drawn = draw("consent", str(number))
    if drawn % _NAMES_BUYERS_EACH:
        return {}
    return {"buyers": NAMED[drawn // _NAMES_BUYERS_EACH % len(NAMED)]}
