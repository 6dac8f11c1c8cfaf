"""The in-memory twin of intake's tables: the same transaction and the same constraints, without a database.

`MemoryIntakeTables` is what survives a crash; each worker has a `MemoryIntakeStore` of its own on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from services.bus.memory import Faults, VirtualClock
from services.bus.ports import PassingFault
from services.contract.market import Market
from services.intake.domain import KnownLead, Origin, Owner, corrections
from services.intake.ports import NO_CLAIMS, Door, Found, Kept, LeadRow, SealedRow
from services.vault.sealing import Sealed


@dataclass(slots=True)
class MemoryIntakeTables:
    """The tables; `details` has the shape of a `MemoryVault`'s rows, so that a router can read it."""

    leads: dict[str, LeadRow] = field(default_factory=dict)
    fingerprints: dict[bytes, Owner] = field(default_factory=dict)
    details: dict[str, Sealed] = field(default_factory=dict)
    consents: dict[str, Sealed] = field(default_factory=dict)
    kept_until_ms: dict[tuple[str, str], int] = field(default_factory=dict)
    subjects: dict[tuple[bytes, str], int] = field(default_factory=dict)
    suppressed: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class MemoryIntakeStore:
    """An `IntakeStore` on tables in memory. A crash at "committed" is a commit whose answer was lost."""

    tables: MemoryIntakeTables
    clock: VirtualClock
    market_in_force: Callable[[], Market]
    faults: Faults = field(default_factory=Faults)

    def market(self) -> Market:
        """Read the market in force."""
        return self.market_in_force()

    @contextmanager
    def open(self) -> Iterator[Door]:
        """Begin a transaction: nothing of it is in the tables before its end."""
        door = _MemoryDoor(self.tables, self.market_in_force)
        yield door
        self.faults.edge("commit")
        door.commit()
        self.faults.edge("committed")

    def forget(self, limit: int) -> int:
        """Delete what was kept long enough, at most `limit` rows of each kind; return how many."""
        now_ms, tables = self.clock.now_ms, self.tables
        old = [key for key, until_ms in tables.kept_until_ms.items() if until_ms < now_ms][:limit]
        expired = [key for key, owner in tables.fingerprints.items() if owner.kept_until_ms < now_ms][:limit]
        for table, lead_id in old:
            rows = tables.details if table == "details" else tables.consents
            rows.pop(lead_id, None)
            del tables.kept_until_ms[table, lead_id]
        for fingerprint in expired:
            del tables.fingerprints[fingerprint]
        over = [key for key, until_ms in tables.subjects.items() if until_ms < now_ms][:limit]
        for subject in over:
            del tables.subjects[subject]
        return len(old) + len(expired) + len(over)


@dataclass(slots=True)
class _MemoryDoor:
    tables: MemoryIntakeTables
    market_in_force: Callable[[], Market]
    claims: Mapping[bytes, Owner] = field(default_factory=dict)
    before: Mapping[bytes, Owner] = field(default_factory=dict)
    kept: Kept | None = None

    def look(
        self,
        lead_ids: Collection[str] = (),
        claims: Mapping[bytes, Owner] = NO_CLAIMS,
        subjects: Collection[bytes] = (),
    ) -> Found:
        suppressed = frozenset(self.tables.suppressed.intersection(subjects))
        return Found(self.market_in_force().version, self._known(lead_ids), self._claim(claims), suppressed)

    def _known(self, lead_ids: Collection[str]) -> Mapping[str, KnownLead]:
        rows = (self.tables.leads[lead_id] for lead_id in lead_ids if lead_id in self.tables.leads)
        return {
            row.lead_id: KnownLead(
                origin=Origin(partition=row.origin_partition, offset=row.origin_offset),
                payload_hash=row.payload_hash,
                record=row.record,
            )
            for row in rows
        }

    def _claim(self, claims: Mapping[bytes, Owner]) -> Mapping[bytes, Owner]:
        owners = self.tables.fingerprints
        self.claims = claims
        self.before = {fingerprint: owners[fingerprint] for fingerprint in claims if fingerprint in owners}
        return self.before

    def keep(self, kept: Kept) -> None:
        if any(row.lead_id in self.tables.leads for row in kept.leads):
            raise PassingFault("a lead was kept by another worker")
        self.kept = kept

    def commit(self) -> None:
        tables, kept = self.tables, self.kept or Kept((), (), (), {})
        tables.leads |= {row.lead_id: row for row in kept.leads}
        self._seal("details", tables.details, kept.details)
        self._seal("consents", tables.consents, kept.consents)
        tables.subjects |= {(subject, lead_id): until_ms for subject, lead_id, until_ms in kept.subjects}
        wrong = corrections(self.claims, self.before, kept.owners)
        tables.fingerprints |= {**self.claims, **self.before, **wrong.changed}
        for fingerprint in wrong.given_up:
            del tables.fingerprints[fingerprint]

    def _seal(self, table: str, rows: dict[str, Sealed], kept: Collection[SealedRow]) -> None:
        for lead_id, sealed, kept_until_ms in kept:
            rows[lead_id] = sealed
            self.tables.kept_until_ms[table, lead_id] = kept_until_ms
