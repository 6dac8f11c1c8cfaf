"""A small market, and submissions to it, for tests of intake. Every personal detail holds the word `canary`."""

from __future__ import annotations

from typing import Any

import orjson

from services.bus.ports import Record
from services.contract.identity import IdentityKeys
from services.contract.market import (
    AnyOf,
    Between,
    Buyer,
    FieldKind,
    FieldType,
    LeadType,
    Market,
    Plan,
    Prices,
    ScoreRule,
    Sell,
    Source,
    Stage,
)
from services.contract.times import DAY_MS

RECEIVED_AT_MS = 1_790_000_000_000
KEYS = IdentityKeys(b"fingerprint key of the tests".ljust(32))
DUPLICATE_WITHIN_MS = 30 * DAY_MS
CONTACT_KEPT_MS = 180 * DAY_MS

_PLANS = (Plan(name="alone", stages=(Stage(sell=Sell.EXCLUSIVE, prices=Prices(exclusive=9_000)),)),)

SOLAR = LeadType(
    name="solar",
    contact=("first_name", "last_name", "email", "phone", "street"),
    details={
        "state": FieldKind(type=FieldType.US_STATE),
        "zip": FieldKind(type=FieldType.US_ZIP),
        "monthly_bill": FieldKind(type=FieldType.AMOUNT),
        "owns_home": FieldKind(type=FieldType.YES_NO),
        "roof_age_years": FieldKind(type=FieldType.NUMBER),
    },
    ping=("state", "monthly_bill", "owns_home"),
    score=(
        ScoreRule(points=40, when=(("owns_home", AnyOf(values=frozenset({"yes"}))),)),
        ScoreRule(points=30, when=(("monthly_bill", Between(low=15_000, high=None)),)),
        ScoreRule(points=40, when=(("roof_age_years", Between(low=None, high=15_000)),)),
    ),
    duplicate_within_ms=DUPLICATE_WITHIN_MS,
    contact_kept_ms=CONTACT_KEPT_MS,
    plans=_PLANS,
)
ANONYMOUS = LeadType(
    name="anonymous",
    contact=("nickname",),
    details={"state": FieldKind(type=FieldType.US_STATE)},
    ping=("state",),
    plans=_PLANS,
    contact_kept_ms=CONTACT_KEPT_MS,
)
MARKET = Market(
    version=7,
    currency="USD",
    timezone="America/New_York",
    lead_types={"solar": SOLAR, "anonymous": ANONYMOUS},
    sources={
        "sunform": Source(id="sunform", lead_types=("solar", "anonymous")),
        "partnerweb": Source(id="partnerweb", lead_types=("solar",), sales_max=2, never_to=("gridwatt",)),
        "asleep": Source(id="asleep", lead_types=("solar",), paused=True),
    },
    buyers={"acme": Buyer(id="acme", timezone="UTC"), "gridwatt": Buyer(id="gridwatt", timezone="UTC")},
)


def submission(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Make a valid solar lead of person `number`; a change to None leaves the key out."""
    body: dict[str, Any] = {
        "lead_type": "solar",
        "reference": f"ref-{number}",
        "contact": contact(number),
        "details": {
            "state": "az",
            "zip": "85001",
            "monthly_bill": 180.5,
            "owns_home": True,
            "roof_age_years": 12,
        },
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def contact(number: int, **changes: Any) -> dict[str, Any]:
    """Make the contact details of person `number`."""
    return {
        "first_name": "Canary",
        "last_name": f"Canaryson{number}",
        "email": f"canary{number}@mail.example",
        "phone": phone_text(number),
        "street": f"{number} Canary Street",
        **changes,
    }


def phone_text(number: int) -> str:
    """Write the phone of person `number` as people do."""
    digits = f"{2_000_000 + number:07d}"
    return f"(602) {digits[:3]}-{digits[3:]}"


def record(
    body: dict[str, Any] | bytes | None,
    *,
    offset: int = 0,
    partition: int = 0,
    topic: str = "sources.sunform.leads",
    timestamp_ms: int = RECEIVED_AT_MS,
) -> Record:
    """Put a submission, or raw bytes, into a source's topic."""
    value = orjson.dumps(body) if isinstance(body, dict) else body
    return Record(topic, partition, offset, b"any", value, (("canary-header", b"canary"),), timestamp_ms)
