"""Judges a submission by the market: its source, its lead type's fields, contact, score and limits.

It must not know whether the lead was here before, nor say of a value more than that it is not valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

from services.contract.fields import FieldError, canonical, quality_of
from services.contract.inputs import QualifiedLead
from services.contract.market import FieldKind, LeadType, Market, Source
from services.contract.times import DAY_MS, MINUTE_MS, iso_time
from services.intake.domain import Candidate, Declined, DeclineReason, Identity
from services.intake.identity import IdentityKeys
from services.intake.normalisation import ContactError, email, phone, plain
from services.intake.submission import Consent, Submission

CLOCK_TOLERANCE_MS = 5 * MINUTE_MS
CONSENT_KEPT_MS = 1_827 * DAY_MS
"""Proof of consent is kept for five years."""

_YEAR_2000_MS = 946_684_800_000

# Contact fields by which a person is reached and known again; every other one is plain text.
_REACHED_BY: Mapping[str, tuple[Callable[[str], str], DeclineReason]] = {
    "email": (email, DeclineReason.INVALID_EMAIL),
    "phone": (phone, DeclineReason.INVALID_PHONE),
}


class _DeclineError(Exception):
    """Ends the judgement of one submission."""

    def __init__(self, reason: DeclineReason, field: str | None = None) -> None:
        self.declined = Declined(reason=reason, field=field)
        super().__init__(reason)


def qualify(
    identity: Identity, submission: Submission, market: Market, keys: IdentityKeys
) -> Candidate | Declined:
    """Make a candidate of a submission, or say why it is declined."""
    try:
        return _candidate(identity, submission, market, keys)
    except _DeclineError as end:
        return end.declined


def _candidate(identity: Identity, submission: Submission, market: Market, keys: IdentityKeys) -> Candidate:
    source, lead_type = _agreed(identity.source_id, submission.lead_type, market)
    contact = _contact(lead_type, submission.contact)
    details = _details(lead_type, submission.details)
    received_at_ms = identity.received_at_ms
    consent = _consent(submission.consent, received_at_ms)
    return Candidate(
        lead=QualifiedLead(
            lead_id=identity.lead_id,
            source_id=source.id,
            lead_type=lead_type.name,
            fields={name: details[name] for name in lead_type.ping},
            quality=quality_of(lead_type.score, details, lead_type.details),
            sales_max=_lowest(submission.sales_max, source.sales_max),
            never_to=tuple(sorted({*submission.never_to, *source.never_to})),
            created_at_ms=_created_at_ms(submission.created_at, received_at_ms),
            received_at_ms=received_at_ms,
            market_version=market.version,
            is_test=submission.is_test,
        ),
        details_json=_details_json(contact, details, consent),
        details_kept_until_ms=received_at_ms + lead_type.contact_kept_ms,
        consent_json=orjson.dumps(consent) if consent else None,
        consent_kept_until_ms=received_at_ms + CONSENT_KEPT_MS,
        fingerprints=() if submission.is_test else _fingerprints(keys, lead_type, contact),
        duplicate_within_ms=lead_type.duplicate_within_ms,
    )


def _agreed(source_id: str, lead_type_name: str, market: Market) -> tuple[Source, LeadType]:
    source = market.sources.get(source_id)
    if source is None:
        raise _DeclineError(DeclineReason.UNKNOWN_SOURCE)
    if source.paused:
        raise _DeclineError(DeclineReason.SOURCE_PAUSED)
    lead_type = market.lead_types.get(lead_type_name)
    if lead_type is None:
        raise _DeclineError(DeclineReason.UNKNOWN_LEAD_TYPE, "lead_type")
    if lead_type.name not in source.lead_types:
        raise _DeclineError(DeclineReason.LEAD_TYPE_NOT_AGREED, "lead_type")
    return source, lead_type


def _contact(lead_type: LeadType, sent: Mapping[str, Any]) -> dict[str, str]:
    """Normalise what is given; at least one of the declared ways to reach the person must be."""
    _refuse_undeclared(sent, lead_type.contact, "contact")
    contact = {
        name: _contact_text(name, sent[name]) for name in lead_type.contact if _is_given(sent.get(name))
    }
    ways = _REACHED_BY.keys() & set(lead_type.contact)
    if ways and not ways & contact.keys():
        raise _DeclineError(DeclineReason.MISSING_CONTACT)
    return contact


def _contact_text(name: str, value: Any) -> str:
    normalise, reason = _REACHED_BY.get(name, (plain, DeclineReason.INVALID_FIELD))
    if not isinstance(value, str):
        raise _DeclineError(reason, name)
    try:
        return normalise(value)
    except ContactError:
        raise _DeclineError(reason, name) from None


def _details(lead_type: LeadType, sent: Mapping[str, Any]) -> dict[str, str]:
    """Type what is given; what a ping shows must be."""
    _refuse_undeclared(sent, lead_type.details, "details")
    details = {
        name: _detail(name, kind, sent[name])
        for name, kind in lead_type.details.items()
        if _is_given(sent.get(name))
    }
    for name in lead_type.ping:
        if name not in details:
            raise _DeclineError(DeclineReason.MISSING_FIELD, name)
    return details


def _detail(name: str, kind: FieldKind, value: Any) -> str:
    try:
        return canonical(kind, _scalar_text(value))
    except FieldError:
        raise _DeclineError(DeclineReason.INVALID_FIELD, name) from None


def _scalar_text(value: Any) -> str:
    """Write a JSON scalar as the text that a person would have sent; raise FieldError."""
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return repr(value)
        case _:
            raise FieldError("expected a text, a number, true or false")


def _is_given(value: Any) -> bool:
    """Forms send what was left out as null or as empty text."""
    return value is not None and not (isinstance(value, str) and not value.strip())


def _refuse_undeclared(sent: Mapping[str, Any], declared: Iterable[str], where: str) -> None:
    if not sent.keys() <= set(declared):
        raise _DeclineError(DeclineReason.UNKNOWN_FIELD, where)


def _details_json(contact: dict[str, str], details: dict[str, str], consent: dict[str, str]) -> bytes:
    """Write what a buyer will get, the shape that `services.vault.table.read` tells of."""
    given = {"consent": consent} if consent else {}
    return orjson.dumps({"contact": contact, "details": details, **given})


def _consent(consent: Consent | None, received_at_ms: int) -> dict[str, str]:
    if consent is None:
        return {}
    at_ms = _time_ms(consent.at, received_at_ms, "consent.at")
    found = {
        "text": consent.text,
        "at": iso_time(at_ms),
        "url": consent.url,
        "certificate": consent.certificate,
    }
    return {name: value for name, value in found.items() if value}


def _fingerprints(keys: IdentityKeys, lead_type: LeadType, contact: Mapping[str, str]) -> tuple[bytes, ...]:
    """Hash each way to reach the person: upper and lower case of an address are the same mailbox."""
    if not lead_type.duplicate_within_ms:
        return ()
    return tuple(
        keys.fingerprint(lead_type.name, name, contact[name].lower())
        for name in _REACHED_BY
        if name in contact
    )


def _lowest(sent: int | None, agreed: int | None) -> int | None:
    return min((limit for limit in (sent, agreed) if limit is not None), default=None)


def _created_at_ms(text: str | None, received_at_ms: int) -> int:
    return received_at_ms if text is None else _time_ms(text, received_at_ms, "created_at")


def _time_ms(text: str, received_at_ms: int, field: str) -> int:
    """Read a time that says its offset. A clock may be a little fast, but nothing happened after it arrived."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise _DeclineError(DeclineReason.INVALID_FIELD, field) from None
    at_ms = round(at.timestamp() * 1_000) if at.tzinfo else 0
    if at_ms < _YEAR_2000_MS:
        raise _DeclineError(DeclineReason.INVALID_FIELD, field)
    if at_ms > received_at_ms + CLOCK_TOLERANCE_MS:
        raise _DeclineError(DeclineReason.FROM_THE_FUTURE, field)
    return min(at_ms, received_at_ms)
