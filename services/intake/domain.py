"""What the door decides about each submission, in the order of arrival: accept, decline, or know it already.

It must not look at the market (`qualification` has), nor at a table (the step hands over what was found there). What is
made once for every submission is a named tuple: these take a third of a frozen dataclass's time to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from services.contract.inputs import QualifiedLead


class DeclineReason(StrEnum):
    """Why a submission was declined, as its source is told."""

    UNKNOWN_SOURCE = "unknown_source"
    SOURCE_PAUSED = "source_paused"
    UNKNOWN_LEAD_TYPE = "unknown_lead_type"
    LEAD_TYPE_NOT_AGREED = "lead_type_not_agreed"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    INVALID_FIELD = "invalid_field"
    MISSING_CONTACT = "missing_contact"
    INVALID_PHONE = "invalid_phone"
    INVALID_EMAIL = "invalid_email"
    FROM_THE_FUTURE = "from_the_future"
    DUPLICATE = "duplicate"
    OTHER_PAYLOAD = "other_payload"
    SUPPRESSED = "suppressed"


class Origin(NamedTuple):
    """Where a submission stands in its source's topic."""

    partition: int
    offset: int


class Identity(NamedTuple):
    """Which lead a submission is, and where and when it came in; `reference` is the source's own, if it gave one."""

    lead_id: str
    source_id: str
    origin: Origin
    payload_hash: bytes
    reference: str | None
    received_at_ms: int


class Candidate(NamedTuple):
    """A valid submission: what is sold, what is sealed, and by what the same person is known again.

    `fingerprints` is empty where nobody looks for duplicates (test leads, types without `duplicate_within`). `subjects`
    are the person's keyed hashes, whatever the lead type.
    """

    lead: QualifiedLead
    details_json: bytes
    details_kept_until_ms: int
    consent_json: bytes | None
    consent_kept_until_ms: int
    fingerprints: tuple[bytes, ...]
    duplicate_within_ms: int
    subjects: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """The submission is not taken; `field` is a name that Gavel or the market declares, never one that was sent."""

    reason: DeclineReason
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The submission is a new lead."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Replayed:
    """This very submission was accepted before, and may not have been told to anyone: emit its record again."""

    record: bytes


@dataclass(frozen=True, slots=True)
class Repeated:
    """The lead was accepted from another submission with the same content."""


Verdict: TypeAlias = Accepted | Replayed | Repeated | Declined


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLead:
    """An accepted lead, as the table has it."""

    origin: Origin
    payload_hash: bytes
    record: bytes


class Owner(NamedTuple):
    """The accepted lead that a fingerprint belongs to, until another may take it."""

    lead_id: str
    received_at_ms: int
    kept_until_ms: int


class Assessed(NamedTuple):
    """A submission with what `qualification` made of it, which matters only if the lead is new."""

    identity: Identity
    outcome: Candidate | Declined


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict for each submission of the batch, in its order, and the owners of the fingerprints after it."""

    verdicts: tuple[Verdict, ...]
    owners: Mapping[bytes, Owner]


def claims_of(batch: Iterable[Assessed]) -> dict[bytes, Owner]:
    """Say who would own each fingerprint if the first to bring it were accepted."""
    claims: dict[bytes, Owner] = {}
    for assessed in batch:
        if isinstance(assessed.outcome, Candidate) and assessed.outcome.fingerprints:
            owner = owner_of(assessed.identity, assessed.outcome)
            for fingerprint in assessed.outcome.fingerprints:
                claims.setdefault(fingerprint, owner)
    return claims


def subjects_of(batch: Iterable[Assessed]) -> set[bytes]:
    """Name the persons of a batch by their hashes."""
    return {
        subject
        for assessed in batch
        if isinstance(assessed.outcome, Candidate)
        for subject in assessed.outcome.subjects
    }


def decide(
    batch: Iterable[Assessed],
    known: Mapping[str, KnownLead],
    owners: Mapping[bytes, Owner],
    suppressed: frozenset[bytes] = frozenset(),
) -> Decision:
    """Decide a batch in its order: `known` leads by id, and `owners` of fingerprints, as they were before it.

    `suppressed`: those of its persons whose leads are not taken.
    """
    accepted: dict[str, Identity] = {}
    after = dict(owners)
    verdicts = tuple(_verdict(assessed, known, accepted, after, suppressed) for assessed in batch)
    return Decision(verdicts, after)


def owner_of(identity: Identity, candidate: Candidate) -> Owner:
    """Make a candidate the owner of its fingerprints."""
    return Owner(
        lead_id=identity.lead_id,
        received_at_ms=identity.received_at_ms,
        kept_until_ms=identity.received_at_ms + candidate.duplicate_within_ms,
    )


def _verdict(
    assessed: Assessed,
    known: Mapping[str, KnownLead],
    accepted: dict[str, Identity],
    owners: dict[bytes, Owner],
    suppressed: frozenset[bytes],
) -> Verdict:
    identity, outcome = assessed.identity, assessed.outcome
    before = known.get(identity.lead_id)
    if before is not None:
        return _again(identity, before)
    twin = accepted.get(identity.lead_id)
    if twin is not None:
        return _repeated(identity.payload_hash == twin.payload_hash)
    if isinstance(outcome, Declined):
        return outcome
    if suppressed and not suppressed.isdisjoint(outcome.subjects):
        return Declined(reason=DeclineReason.SUPPRESSED)
    if _is_duplicate(identity, outcome, owners):
        return Declined(reason=DeclineReason.DUPLICATE)
    accepted[identity.lead_id] = identity
    if outcome.fingerprints:
        owners.update(dict.fromkeys(outcome.fingerprints, owner_of(identity, outcome)))
    return Accepted(outcome)


def _again(identity: Identity, before: KnownLead) -> Verdict:
    if identity.payload_hash == before.payload_hash and identity.origin == before.origin:
        return Replayed(before.record)
    return _repeated(identity.payload_hash == before.payload_hash)


def _repeated(is_same_payload: bool) -> Verdict:
    return Repeated() if is_same_payload else Declined(reason=DeclineReason.OTHER_PAYLOAD)


def _is_duplicate(identity: Identity, candidate: Candidate, owners: Mapping[bytes, Owner]) -> bool:
    for fingerprint in candidate.fingerprints:
        owner = owners.get(fingerprint)
        if owner is None or owner.lead_id == identity.lead_id:
            continue
        if identity.received_at_ms - owner.received_at_ms < candidate.duplicate_within_ms:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Corrections:
    """What the table of fingerprints must change after the claims: other owners, and claims to be given up."""

    changed: Mapping[bytes, Owner]
    given_up: frozenset[bytes]


def corrections(
    claims: Mapping[bytes, Owner], before: Mapping[bytes, Owner], after: Mapping[bytes, Owner]
) -> Corrections:
    """Compare the rows as claiming left them (`before` where there was one, else the claim) with what was decided."""
    rows = {**claims, **before}
    changed = {
        fingerprint: after[fingerprint]
        for fingerprint, row in rows.items()
        if fingerprint in after and after[fingerprint] != row
    }
    return Corrections(changed, frozenset(rows.keys() - after.keys()))
