"""Lets a batch of submissions in: judged before the transaction, decided and kept in it.

No rule is here: `qualification` judges each submission, `domain` the batch. Nothing leaves the house from here. The
transaction is short, as others wait for its locks: what takes time (judging, encoding, sealing) is done before it, and
holds if the market is still the same in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from services.bus.ports import PassingFault
from services.contract.codec import Codec
from services.contract.identity import IdentityKeys
from services.intake.domain import (
    Accepted,
    Assessed,
    Candidate,
    Decision,
    Declined,
    Identity,
    Verdict,
    claims_of,
    decide,
    subjects_of,
)
from services.intake.ports import IntakeStore, Kept, LeadRow, SealedRow, SubjectRow
from services.intake.qualification import Judge
from services.intake.reading import Submitted
from services.intake.submission import read_submission
from services.vault.sealing import Vault


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was committed: a verdict for each submission, and the record of each lead accepted."""

    verdicts: Sequence[Verdict]
    records: Mapping[str, bytes]


class _MarketChanged(Exception):
    """A batch was judged by a market that is not in force any more."""


_MARKETS_MAX = 3


class _Rows(NamedTuple):
    """What will be kept of a candidate if it is accepted."""

    lead: LeadRow
    details: SealedRow
    consent: SealedRow | None
    subjects: Sequence[SubjectRow]


class Admission:
    """Admits batches into a store."""

    def __init__(self, store: IntakeStore, codec: Codec, vault: Vault, keys: IdentityKeys) -> None:
        """Wire it; nothing is read before the first batch."""
        self.store = store
        self.codec = codec
        self.keys = keys
        self._vault = vault
        self._judge: Judge | None = None

    def admit(self, submitted: Sequence[Submitted]) -> Admitted:
        """Decide and commit a batch; raise `PassingFault`, also if the market changes again and again."""
        for _ in range(_MARKETS_MAX):
            with suppress(_MarketChanged):
                return self._admit(submitted, self._judge or self._judge_in_force())
            self._judge = None
        raise PassingFault("the market keeps changing")

    def _admit(self, submitted: Sequence[Submitted], judge: Judge) -> Admitted:
        batch = [_assess(each, judge) for each in submitted]
        rows = [self._rows(assessed) for assessed in batch]
        claims = claims_of(batch)
        subjects = subjects_of(batch)
        with self.store.open() as door:
            found = door.look({each.identity.lead_id for each in submitted}, claims, subjects)
            if found.market_version != judge.market_version:
                raise _MarketChanged
            decision = decide(batch, found.known, found.owners, found.suppressed)
            kept = _kept(rows, decision)
            if claims or kept.leads:
                door.keep(kept)
        return Admitted(decision.verdicts, {row.lead_id: row.record for row in kept.leads})

    def _judge_in_force(self) -> Judge:
        """Prepare the market once, as long as it is in force."""
        self._judge = Judge(self.store.market(), self.keys)
        return self._judge

    def _rows(self, assessed: Assessed) -> _Rows | None:
        identity, candidate = assessed.identity, assessed.outcome
        if not isinstance(candidate, Candidate):
            return None
        return _Rows(
            lead=_lead_row(identity, self.codec.encode(candidate.lead)),
            details=self._sealed(identity, candidate.details_json, candidate.details_kept_until_ms),
            consent=(
                None
                if candidate.consent_json is None
                else self._sealed(identity, candidate.consent_json, candidate.consent_kept_until_ms)
            ),
            subjects=[
                SubjectRow(subject, identity.lead_id, candidate.consent_kept_until_ms)
                for subject in candidate.subjects
            ],
        )

    def _sealed(self, identity: Identity, payload: bytes, kept_until_ms: int) -> SealedRow:
        return SealedRow(identity.lead_id, self._vault.seal(identity.lead_id, payload), kept_until_ms)


def _assess(submitted: Submitted, judge: Judge) -> Assessed:
    identity = submitted.identity
    submission = read_submission(submitted.body)
    if isinstance(submission, Declined):
        return Assessed(identity, submission)
    return Assessed(identity, judge.judge(identity, submission))


def _lead_row(identity: Identity, record: bytes) -> LeadRow:
    return LeadRow(
        lead_id=identity.lead_id,
        source_id=identity.source_id,
        origin_partition=identity.origin.partition,
        origin_offset=identity.origin.offset,
        payload_hash=identity.payload_hash,
        record=record,
        received_at_ms=identity.received_at_ms,
    )


def _kept(rows: Sequence[_Rows | None], decision: Decision) -> Kept:
    accepted = [
        each
        for each, verdict in zip(rows, decision.verdicts, strict=True)
        if each is not None and isinstance(verdict, Accepted)
    ]
    return Kept(
        leads=[each.lead for each in accepted],
        details=[each.details for each in accepted],
        consents=[each.consent for each in accepted if each.consent is not None],
        owners=decision.owners,
        subjects=[row for each in accepted for row in each.subjects],
    )
