"""Judges a submission by the market: its source, its lead type's fields, contact, score and limits.

It must not know whether the lead was here before, nor say of a value more than that it is not valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from services.contract.fields import QUALITY_MAX, FieldError, canonical, quality_of
from services.contract.identity import IdentityKeys
from services.contract.inputs import QualifiedLead
from services.contract.market import FieldKind, LeadType, Market, ScoreRule, Source
from services.contract.times import DAY_MS, MINUTE_MS, iso_time
from services.intake.domain import Candidate, Declined, DeclineReason, Identity
from services.intake.normalisation import ContactError, email, phone, plain
from services.intake.submission import Consent, Submission

CLOCK_TOLERANCE_MS = 5 * MINUTE_MS
CONSENT_KEPT_MS = 1_827 * DAY_MS
"""Proof of consent is kept for five years, and so are the keyed hashes by which its person is found."""

_YEAR_2000_MS = 946_684_800_000
_SPELLINGS_REMEMBERED = 4_096

# Contact fields by which a person is reached and known again; every other one is plain text.
_REACHED_BY: Mapping[str, tuple[Callable[[str], str], DeclineReason]] = {
    "email": (email, DeclineReason.INVALID_EMAIL),
    "phone": (phone, DeclineReason.INVALID_PHONE),
}
_PLAIN = (plain, DeclineReason.INVALID_FIELD)


class Judge:
    """One version of the market, prepared to judge many submissions."""

    def __init__(self, market: Market, keys: IdentityKeys) -> None:
        """Take the market in force, and the keys of fingerprints."""
        self._market = market
        self._keys = keys
        self._forms = {name: _Form(lead_type) for name, lead_type in market.lead_types.items()}

    @property
    def market_version(self) -> int:
        """Which market this is."""
        return self._market.version

    def judge(self, identity: Identity, submission: Submission) -> Candidate | Declined:
        """Make a candidate of a submission, or say why it is declined."""
        try:
            return self._candidate(identity, submission)
        except _DeclineError as end:
            return end.declined

    def _candidate(self, identity: Identity, submission: Submission) -> Candidate:
        source, form = self._agreed(identity.source_id, submission.lead_type)
        lead_type, received_at_ms = form.lead_type, identity.received_at_ms
        contact = form.contact(submission.contact)
        details = form.details(submission.details)
        consent = _consent(submission.consent, received_at_ms)
        consented = _consented_buyers(submission.consent, lead_type)
        return Candidate(
            lead=QualifiedLead(
                lead_id=identity.lead_id,
                source_id=source.id,
                lead_type=lead_type.name,
                fields={name: details[name] for name in lead_type.ping},
                quality=form.quality(details),
                sales_max=_lowest(submission.sales_max, source.sales_max),
                never_to=_all_of(submission.never_to, source.never_to),
                created_at_ms=_created_at_ms(submission.created_at, received_at_ms),
                received_at_ms=received_at_ms,
                market_version=self._market.version,
                is_test=submission.is_test,
                consented_buyers=consented,
            ),
            details_json=_details_json(contact, details, consent),
            details_kept_until_ms=received_at_ms + lead_type.contact_kept_ms,
            consent_json=_proof_json(consent, consented) if consent else None,
            consent_kept_until_ms=received_at_ms + CONSENT_KEPT_MS,
            fingerprints=() if submission.is_test else self._fingerprints(lead_type, contact),
            duplicate_within_ms=lead_type.duplicate_within_ms,
            subjects=subjects_in(contact, self._keys),
        )

    def _agreed(self, source_id: str, lead_type: str) -> tuple[Source, _Form]:
        source = self._market.sources.get(source_id)
        if source is None:
            raise _DeclineError(DeclineReason.UNKNOWN_SOURCE)
        if source.paused:
            raise _DeclineError(DeclineReason.SOURCE_PAUSED)
        form = self._forms.get(lead_type)
        if form is None:
            raise _DeclineError(DeclineReason.UNKNOWN_LEAD_TYPE, "lead_type")
        if lead_type not in source.lead_types:
            raise _DeclineError(DeclineReason.LEAD_TYPE_NOT_AGREED, "lead_type")
        return source, form

    def _fingerprints(self, lead_type: LeadType, contact: Mapping[str, str]) -> tuple[bytes, ...]:
        if not lead_type.duplicate_within_ms:
            return ()
        return fingerprints_in(contact, lead_type.name, self._keys)


def fingerprints_in(contact: Mapping[str, str], lead_type: str, keys: IdentityKeys) -> tuple[bytes, ...]:
    """Hash each way to reach the person: upper and lower case of an address are the same mailbox."""
    fingerprint = keys.fingerprint
    return tuple([fingerprint(lead_type, way, contact[way].lower()) for way in _REACHED_BY if way in contact])


def subjects_in(contact: Mapping[str, str], keys: IdentityKeys) -> tuple[bytes, ...]:
    """Hash each way in which normalised contact details reach their person; two ways are never one hash."""
    return tuple([keys.subject(way, contact[way].lower()) for way in _REACHED_BY if way in contact])


def subject_of(text: str, keys: IdentityKeys) -> bytes:
    """Hash an email address or a phone number as its leads' are hashed; raise `ContactError`."""
    way = "email" if "@" in text else "phone"
    normalise, _ = _REACHED_BY[way]
    return keys.subject(way, normalise(text.strip()).lower())


class _DeclineError(Exception):
    """Ends the judgement of one submission."""

    def __init__(self, reason: DeclineReason, field: str | None = None) -> None:
        self.declined = Declined(reason=reason, field=field)
        super().__init__(reason)


class _Form:
    """A lead type's fields, and how each is read."""

    def __init__(self, lead_type: LeadType) -> None:
        self.lead_type = lead_type
        self._contact = {name: _REACHED_BY.get(name, _PLAIN) for name in lead_type.contact}
        self._details = {name: _speller(kind) for name, kind in lead_type.details.items()}
        self._points = [_scorer(rule, lead_type.details) for rule in lead_type.score]
        self._reaches = not self._contact.keys().isdisjoint(_REACHED_BY)

    def contact(self, sent: Mapping[str, Any]) -> dict[str, str]:
        """Normalise what is given; at least one of the declared ways to reach the person must be."""
        _refuse_undeclared(sent, self._contact.keys(), "contact")
        contact = {}
        for name, (normalise, reason) in self._contact.items():
            value = sent.get(name)
            if _is_given(value):
                contact[name] = _contact_text(name, value, normalise, reason)
        if self._reaches and contact.keys().isdisjoint(_REACHED_BY):
            raise _DeclineError(DeclineReason.MISSING_CONTACT)
        return contact

    def details(self, sent: Mapping[str, Any]) -> dict[str, str]:
        """Type what is given; what a ping shows must be."""
        _refuse_undeclared(sent, self._details.keys(), "details")
        details = {}
        for name, spell in self._details.items():
            value = sent.get(name)
            if _is_given(value):
                details[name] = _detail_text(name, value, spell)
        for name in self.lead_type.ping:
            if name not in details:
                raise _DeclineError(DeclineReason.MISSING_FIELD, name)
        return details

    def quality(self, details: Mapping[str, str]) -> int:
        """Score the details as `quality_of` does."""
        return min(QUALITY_MAX, sum([points(details) for points in self._points]))


def _contact_text(name: str, value: Any, normalise: Callable[[str], str], reason: DeclineReason) -> str:
    if not isinstance(value, str):
        raise _DeclineError(reason, name)
    try:
        return normalise(value)
    except ContactError:
        raise _DeclineError(reason, name) from None


def _detail_text(name: str, value: Any, spell: Callable[[str | float], str]) -> str:
    if not isinstance(value, (str, int, float)):
        raise _DeclineError(DeclineReason.INVALID_FIELD, name)
    try:
        return spell(value)
    except FieldError:
        raise _DeclineError(DeclineReason.INVALID_FIELD, name) from None


def _speller(kind: FieldKind) -> Callable[[str | float], str]:
    """Make what spells a detail of this kind, each value once: most details have few."""

    # Typed, since a dict takes 1 and true for one key.
    @lru_cache(maxsize=_SPELLINGS_REMEMBERED, typed=True)
    def spell(value: str | float) -> str:
        return canonical(kind, _scalar_text(value))

    return spell


def _scorer(rule: ScoreRule, kinds: Mapping[str, FieldKind]) -> Callable[[Mapping[str, str]], int]:
    """Make what scores details by one rule, the same values once: a rule looks at a field or two."""
    names = tuple(name for name, _ in rule.when)

    @lru_cache(maxsize=_SPELLINGS_REMEMBERED)
    def points(*values: str | None) -> int:
        given = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        return quality_of((rule,), given, kinds)

    return lambda details: points(*[details.get(name) for name in names])


def _scalar_text(value: str | float) -> str:
    """Write a JSON scalar as the text that a person would have sent."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value)


def _is_given(value: Any) -> bool:
    """Forms send what was left out as null or as empty text."""
    return value is not None and value != "" and not (isinstance(value, str) and value.isspace())


def _refuse_undeclared(sent: Mapping[str, Any], declared: Iterable[str], where: str) -> None:
    if sent.keys() - declared:
        raise _DeclineError(DeclineReason.UNKNOWN_FIELD, where)


def _details_json(contact: dict[str, str], details: dict[str, str], consent: dict[str, str]) -> bytes:
    """Write what a buyer will get, in the shape that `services.vault.table.read` tells of."""
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


def _consented_buyers(consent: Consent | None, lead_type: LeadType) -> tuple[str, ...]:
    """Read whom the consent names; a list binds, whether or not the lead's type demands one."""
    named = (consent.buyers if consent else None) or ()
    if lead_type.one_to_one_consent and not named:
        raise _DeclineError(DeclineReason.MISSING_FIELD, "consent.buyers")
    return _all_of(named, ())


def _proof_json(consent: Mapping[str, str], buyers: Sequence[str]) -> bytes:
    """Write what is kept as proof. A buyer gets the consent without the list, which would name the others."""
    return orjson.dumps({**consent, "buyers": buyers} if buyers else consent)


def _lowest(sent: int | None, agreed: int | None) -> int | None:
    if sent is None or agreed is None:
        return agreed if sent is None else sent
    return min(sent, agreed)


def _all_of(sent: Sequence[str], agreed: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({*sent, *agreed})) if sent or agreed else ()


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
