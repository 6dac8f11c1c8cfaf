"""Lets a batch of submissions in: one transaction, in which everything that decides is read, decided and kept.

No rule is here: `qualification` judges each submission, `domain` the batch. Nothing leaves the house from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.contract.codec import Codec
from services.contract.market import Market
from services.intake.domain import (
    Accepted,
    Assessed,
    Candidate,
    Decision,
    Declined,
    Identity,
    KnownLead,
    Verdict,
    claims_of,
    decide,
)
from services.intake.identity import IdentityKeys
from services.intake.ports import IntakeStore, Kept, LeadRow, SealedRow
from services.intake.qualification import qualify
from services.intake.reading import Submitted
from services.intake.submission import read_submission
from services.vault.sealing import Vault


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was committed: a verdict for each submission, and the record of each lead accepted."""

    verdicts: Sequence[Verdict]
    records: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Admission:
    """Admits batches into a store."""

    store: IntakeStore
    codec: Codec
    vault: Vault
    keys: IdentityKeys

    def admit(self, submitted: Sequence[Submitted]) -> Admitted:
        """Decide and commit a batch; raise `TryAgain`."""
        with self.store.open() as door:
            market = door.market()
            known = door.known({each.identity.lead_id for each in submitted})
            batch = [self._assess(each, known, market) for each in submitted]
            claims = claims_of(batch)
            decision = decide(batch, known, door.claim(claims))
            kept = self._kept(batch, decision)
            if claims or kept.leads:
                door.keep(kept)
        return Admitted(decision.verdicts, {row.lead_id: row.record for row in kept.leads})

    def _assess(self, submitted: Submitted, known: Mapping[str, KnownLead], market: Market) -> Assessed:
        """Judge what is new; a lead that was accepted is never judged by a later market."""
        identity = submitted.identity
        if identity.lead_id in known:
            return Assessed(identity, None)
        submission = read_submission(submitted.body)
        if isinstance(submission, Declined):
            return Assessed(identity, submission)
        return Assessed(identity, qualify(identity, submission, market, self.keys))

    def _kept(self, batch: Sequence[Assessed], decision: Decision) -> Kept:
        accepted = [
            (assessed.identity, verdict.candidate)
            for assessed, verdict in zip(batch, decision.verdicts, strict=True)
            if isinstance(verdict, Accepted)
        ]
        return Kept(
            leads=[self._lead_row(identity, candidate) for identity, candidate in accepted],
            details=[
                self._sealed(identity, candidate.details_json, candidate.details_kept_until_ms)
                for identity, candidate in accepted
            ],
            consents=[
                self._sealed(identity, candidate.consent_json, candidate.consent_kept_until_ms)
                for identity, candidate in accepted
                if candidate.consent_json is not None
            ],
            owners=decision.owners,
        )

    def _lead_row(self, identity: Identity, candidate: Candidate) -> LeadRow:
        return LeadRow(
            lead_id=identity.lead_id,
            source_id=identity.source_id,
            origin_partition=identity.origin.partition,
            origin_offset=identity.origin.offset,
            payload_hash=identity.payload_hash,
            record=self.codec.encode(candidate.lead),
            received_at_ms=identity.received_at_ms,
        )

    def _sealed(self, identity: Identity, payload: bytes, kept_until_ms: int) -> SealedRow:
        return SealedRow(identity.lead_id, self.vault.seal(identity.lead_id, payload), kept_until_ms)
