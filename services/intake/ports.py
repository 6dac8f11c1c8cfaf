"""What intake needs of its database, as one open transaction, and the rows that it keeps.

`store` is the real thing, `memory_store` its twin with the same constraints; one suite of tests runs on both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from services.contract.market import Market
from services.intake.domain import KnownLead, Owner
from services.vault.sealing import Sealed

NO_CLAIMS: Final[Mapping[bytes, Owner]] = MappingProxyType({})


class LeadRow(NamedTuple):
    """An accepted lead, with the record that is emitted for it."""

    lead_id: str
    source_id: str
    origin_partition: int
    origin_offset: int
    payload_hash: bytes
    record: bytes
    received_at_ms: int


class SealedRow(NamedTuple):
    """A lead's row in the vault, or its consent's."""

    lead_id: str
    sealed: Sealed
    kept_until_ms: int


class SubjectRow(NamedTuple):
    """A way in which an accepted lead's person can be reached, hashed."""

    subject: bytes
    lead_id: str
    kept_until_ms: int


class Kept(NamedTuple):
    """All that a batch leaves in the tables; the owners are those of every fingerprint that the batch claimed."""

    leads: Sequence[LeadRow]
    details: Sequence[SealedRow]
    consents: Sequence[SealedRow]
    owners: Mapping[bytes, Owner]
    subjects: Sequence[SubjectRow] = ()


class Found(NamedTuple):
    """What a batch finds: the market in force (0 before the first), and what is known of its leads and persons."""

    market_version: int
    known: Mapping[str, KnownLead]
    owners: Mapping[bytes, Owner]
    suppressed: frozenset[bytes]


class Door(Protocol):
    """One open transaction; its end commits, an exception takes everything back."""

    def look(
        self,
        lead_ids: Collection[str] = (),
        claims: Mapping[bytes, Owner] = NO_CLAIMS,
        subjects: Collection[bytes] = (),
    ) -> Found:
        """Read which of these leads were accepted before and which of these persons are suppressed.

        None is suppressed between here and the transaction's end. The fingerprints claimed are locked, in sorted order;
        those that have no owner are the claimant's, unless `keep` says otherwise.
        """
        ...

    def keep(self, kept: Kept) -> None:
        """Write the accepted leads, and set right who owns the fingerprints claimed."""
        ...


class IntakeStore(Protocol):
    """The tables of intake, and the vault's that it fills."""

    def market(self) -> Market:
        """Read the market in force. Raise `PassingFault`, or `Stopped` before the first."""
        ...

    def open(self) -> AbstractContextManager[Door]:
        """Begin a transaction. It raises `PassingFault` from any of its calls, or from its end."""
        ...

    def forget(self, limit: int) -> int:
        """Delete what was kept long enough, about `limit` rows of each kind at most; say how many.

        Raise `PassingFault`.
        """
        ...
