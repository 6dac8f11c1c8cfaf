"""The leads that the benchmark sends: realistic, all different, and the same each time.

Lead `number` is a pure function of that number, so that both pipelines get the same leads and a repeat gets them again.
Every person here is made up; nothing here knows Kafka or the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from services.contract.times import iso_time

SOURCE_ID = "bench-source"
LEAD_TYPE = "solar"

_FIRST_NAMES = (
    *("James", "Maria", "Robert", "Linda", "Luis", "Patricia", "David", "Jennifer", "Wei", "Susan"),
    *("Ahmed", "Karen", "Thomas", "Nancy", "Carlos", "Sandra", "Daniel", "Ashley", "Anthony", "Emily"),
)
_LAST_NAMES = (
    *("Smith", "Garcia", "Johnson", "Nguyen", "Williams", "Martinez", "Brown", "Patel", "Jones", "Lopez"),
    *("Miller", "Kim", "Davis", "Clark", "Wilson", "Lewis", "Anderson", "Walker", "Taylor", "Young"),
)
_STREETS = ("Oak St", "Mesa Dr", "Pine Ave", "Canyon Rd", "Sunset Blvd", "Cactus Ln", "Main St", "Ridge Way")
_STATES = (
    *(("AZ", 602, 85003), ("AZ", 480, 85201), ("AZ", 520, 85701), ("NM", 505, 87102)),
    *(("NV", 702, 89101), ("NV", 775, 89501), ("CA", 916, 94203), ("CO", 303, 80202)),
)
_PROVIDERS = 12
_FIRMS = 5_000
_LINES = 10_000
_EXCHANGES = 800
NUMBERS = len(_STATES) * _EXCHANGES * _LINES
"""How many different leads there are: from then on a telephone number would come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One lead as its source sends it."""

    reference: str
    value: bytes


def submission(number: int, created_at_ms: int) -> Submission:
    """Write lead `number` as a record of `sources.<id>.leads`."""
    assert 0 <= number < NUMBERS, f"there are {NUMBERS} different leads, and number {number} is none of them"
    reference = f"bench-{number:08d}"
    document = {
        "reference": reference,
        "lead_type": LEAD_TYPE,
        "created_at": iso_time(created_at_ms),
        "contact": _contact(number),
        "details": _details(number),
        "consent": {
            "text": "By pressing Get quotes I agree that up to three installers call or write me about solar panels.",
            "at": iso_time(created_at_ms),
            "url": "https://forms.example.com/solar/quote",
            "certificate": f"https://certificates.example.com/{number:08x}",
        },
    }
    return Submission(reference=reference, value=orjson.dumps(document))


def _contact(number: int) -> dict[str, str]:
    first, last = _pick(_FIRST_NAMES, number), _pick(_LAST_NAMES, number // len(_FIRST_NAMES))
    return {
        "first_name": first,
        "last_name": last,
        "email": f"{first}.{last}.{number}@{_domain(number)}".lower(),
        "phone": _phone(number),
        "street": f"{100 + number % 9_000} {_pick(_STREETS, number // 7)}",
    }


def _details(number: int) -> dict[str, str]:
    state, _, zip_code = _STATES[number % len(_STATES)]
    return {
        "state": state,
        "zip": str(zip_code),
        "monthly_bill": f"{60 + number % 240}.00",
        "owns_home": "yes" if number % 4 else "no",
        "roof_age_years": str(number % 40),
    }


def _domain(number: int) -> str:
    """Three in four addresses are with a few large providers, the rest with firms of their own."""
    return (
        f"mail{number % _PROVIDERS}.example.com" if number % 4 else f"firm{number // 4 % _FIRMS}.example.net"
    )


def _phone(number: int) -> str:
    _, area, _ = _STATES[number % len(_STATES)]
    rest = number // len(_STATES)
    return f"({area}) {200 + rest // _LINES}-{rest % _LINES:04d}"


def _pick(choices: tuple[str, ...], number: int) -> str:
    return choices[number % len(choices)]
