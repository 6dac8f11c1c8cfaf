"""Intake's tables in PostgreSQL: one transaction a batch, in two round trips: what there is, and what is kept.

No rule of the trade is here: what is a duplicate, `domain` says. Every exception that leaves is `PassingFault`, or
means that the worker must stop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, TypeAlias
from uuid import UUID

from psycopg import Connection, errors
from psycopg import Cursor as PsycopgCursor
from psycopg.rows import TupleRow

from services.bus.arrays import Bigints, Byteas, Texts, Uuids, adapt, uuids
from services.bus.database import NOW_MS, Session
from services.bus.ports import PassingFault, Stopped
from services.contract.market import Market
from services.intake.domain import KnownLead, Origin, Owner, corrections
from services.intake.ports import NO_CLAIMS, Door, Found, Kept, LeadRow, SealedRow, SubjectRow
from services.market.store import Markets, current_version, load

Column: TypeAlias = Bigints | Byteas | Texts | Uuids
Cursor: TypeAlias = PsycopgCursor[TupleRow]

# One statement, and so one view of both tables: a lead that is being archived is in one of them.
_KNOWN = """
select lead_id::text, origin_partition, origin_offset, payload_hash, record
from intake.leads
where lead_id = any(%s)
union all
select lead_id::text, origin_partition, origin_offset, payload_hash, record
from intake.archived_leads
where lead_id = any(%s)
"""
_CLAIM = """
insert into intake.fingerprints (fingerprint, lead_id, received_at_ms, kept_until_ms)
select * from unnest(%s, %s, %s, %s)
on conflict do nothing
returning uuid_send(fingerprint)
"""
_LOCK = """
select uuid_send(fingerprint), lead_id::text, received_at_ms, kept_until_ms
from intake.fingerprints
where fingerprint = any(%s)
order by fingerprint
for update
"""
_CHANGE_OWNER = """
update intake.fingerprints as row
set lead_id = owner.lead_id, received_at_ms = owner.received_at_ms, kept_until_ms = owner.kept_until_ms
from unnest(%s, %s, %s, %s) as owner (fingerprint, lead_id, received_at_ms, kept_until_ms)
where row.fingerprint = owner.fingerprint
"""
_GIVE_UP = "delete from intake.fingerprints where fingerprint = any(%s)"
_KEEP_LEADS = """
insert into intake.leads
    (lead_id, source_id, origin_partition, origin_offset, payload_hash, record, received_at_ms)
select * from unnest(%s, %s, %s::bigint[]::int[], %s, %s, %s, %s)
"""
_KEEP_SUBJECTS = "insert into vault.people (person, lead_id, kept_until_ms) select * from unnest(%s, %s, %s)"
_KEEP_SEALED = """
insert into {} (lead_id, key_id, wrapped_key, sealed, kept_until_ms) select * from unnest(%s, %s, %s, %s, %s)
"""
_KEEP_DETAILS = _KEEP_SEALED.format("vault.leads")
_KEEP_CONSENTS = _KEEP_SEALED.format("vault.consents")
_SUPPRESSED = "select uuid_send(person) from vault.suppressed where person = any(%s)"
_CURRENT_VERSION = "select coalesce(max(version), 0) from market.versions"

# What is expired of fingerprints and persons is found by walking the primary key; whoever took a fingerprint over in
# between keeps it, because the deletion looks at the row again.
_FORGET_FINGERPRINTS = f"""
with walked as (
    select fingerprint from intake.fingerprints where fingerprint > %s order by fingerprint limit %s
), forgotten as (
    delete from intake.fingerprints as row
    using walked
    where row.fingerprint = walked.fingerprint
        and row.kept_until_ms < {NOW_MS}
    returning 1
)
select (select count(*) from forgotten), (select fingerprint from walked order by 1 desc limit 1)
"""
_FORGET_SEALED = f"""
delete from {{table}} where lead_id = any(array(
    select lead_id from {{table}}
    where kept_until_ms < {NOW_MS}
    order by kept_until_ms limit %s
))
"""
FORGET_DETAILS = _FORGET_SEALED.format(table="vault.leads")
FORGET_CONSENTS = _FORGET_SEALED.format(table="vault.consents")
_FORGET_SUBJECTS = f"""
with walked as (
    select person, lead_id from vault.people where (person, lead_id) > (%s, %s) order by person, lead_id limit %s
), forgotten as (
    delete from vault.people as row
    using walked
    where row.person = walked.person and row.lead_id = walked.lead_id
        and row.kept_until_ms < {NOW_MS}
    returning 1
)
select (select count(*) from forgotten), w.person, w.lead_id
from (select) one left join (select * from walked order by person desc, lead_id desc limit 1) w on true
"""
_NIL = UUID(int=0)


class PostgresIntakeStore:
    """An `IntakeStore`."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Take how to connect as `gavel_intake`, with autocommit."""
        self._session = Session(connect, on_opened=adapt)
        self._markets = Markets(self._load_market)
        self._walked_to = _NIL
        self._subjects_walked_to = (_NIL, _NIL)

    @contextmanager
    def open(self) -> Iterator[Door]:
        """Begin a transaction. It raises `PassingFault` from any of its calls, or from its end."""
        with self._session.connection() as connection:
            try:
                # Not psycopg's `transaction`, which would wait for an answer before and after the commit.
                with connection.pipeline():
                    connection.execute("begin")
                    yield _PostgresDoor(connection)
                    connection.execute("commit")
            except BaseException as error:
                with suppress(errors.Error):
                    connection.rollback()
                if isinstance(error, errors.UniqueViolation):
                    # Another worker, who believes that it owns our partition, has kept the same lead in this moment.
                    raise PassingFault("a lead was kept by another worker") from error
                raise

    def forget(self, limit: int) -> int:
        """Delete what was kept long enough, about `limit` rows of each kind at most; say how many.

        Raise `PassingFault`.
        """
        with self._session.connection() as connection:
            details = connection.execute(FORGET_DETAILS, (limit,)).rowcount
            consents = connection.execute(FORGET_CONSENTS, (limit,)).rowcount
            hashes = self._forget_fingerprints(connection, limit) + self._forget_subjects(connection, limit)
            return details + consents + hashes

    def market(self) -> Market:
        """Read the market in force. Raise `PassingFault`, or `Stopped` before the first."""
        market = self.market_in_force()
        if market is None:
            raise Stopped("no market is in force yet: gavel market apply FILE, then start intake again")
        return market

    def market_in_force(self) -> Market | None:
        """Read the market in force; None before the first. Raise `PassingFault`."""
        with self._session.connection() as connection:
            version = current_version(connection)
            return self._markets.get(version) if version else None

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._session.close()

    def _forget_fingerprints(self, connection: Connection, limit: int) -> int:
        row = connection.execute(_FORGET_FINGERPRINTS, (self._walked_to, limit)).fetchone()
        assert row is not None, "a select without from has a row"
        forgotten, last = row
        self._walked_to = last or _NIL
        return int(forgotten)

    def _forget_subjects(self, connection: Connection, limit: int) -> int:
        row = connection.execute(_FORGET_SUBJECTS, (*self._subjects_walked_to, limit)).fetchone()
        assert row is not None, "an outer join from one row has a row"
        forgotten, person, lead_id = row
        self._subjects_walked_to = (person or _NIL, lead_id or _NIL)
        return int(forgotten)

    def _load_market(self, version: int) -> Market:
        return load(self._session.opened(), version)


class _PostgresDoor:
    """The open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._claims: Mapping[bytes, Owner] = {}
        self._before: Mapping[bytes, Owner] = {}

    def look(
        self,
        lead_ids: Collection[str] = (),
        claims: Mapping[bytes, Owner] = NO_CLAIMS,
        subjects: Collection[bytes] = (),
    ) -> Found:
        asked = uuids(lead_ids)
        version = self._execute(_CURRENT_VERSION)
        known = self._execute(_KNOWN, (asked, asked))
        # Whoever adds one locks the table against readers, and so waits for our end; from then on all see it.
        suppressed = self._execute(_SUPPRESSED, (Uuids(subjects),)) if subjects else ()
        claimed = self._execute(_CLAIM, _owner_arrays(claims)) if claims else None
        (in_force,) = version.fetchone() or (0,)
        owners = self._owners(claims, claimed.fetchall()) if claimed else {}
        return Found(
            in_force, {row[0]: _known(row) for row in known}, owners, frozenset(row[0] for row in suppressed)
        )

    def keep(self, kept: Kept) -> None:
        # In the order of their ids, so that two workers that hold one partition wait, and don't deadlock.
        leads = sorted(kept.leads)
        if leads:
            self._execute(_KEEP_LEADS, _lead_arrays(leads))
        self._keep_subjects(kept.subjects)
        self._keep_sealed(_KEEP_DETAILS, kept.details)
        self._keep_sealed(_KEEP_CONSENTS, kept.consents)
        self._correct(kept.owners)

    def _execute(self, statement: str, columns: Sequence[Column] = ()) -> Cursor:
        """Send a statement; the first answer that is looked at brings those of all."""
        return self._connection.execute(statement, columns, binary=True)

    def _owners(
        self, claims: Mapping[bytes, Owner], claimed: Iterable[tuple[bytes]]
    ) -> Mapping[bytes, Owner]:
        others = claims.keys() - {fingerprint for (fingerprint,) in claimed}
        self._claims, self._before = claims, self._lock(others) if others else {}
        return self._before

    def _lock(self, fingerprints: Collection[bytes]) -> Mapping[bytes, Owner]:
        rows = self._execute(_LOCK, (Uuids(sorted(fingerprints)),)).fetchall()
        if len(rows) < len(fingerprints):
            raise PassingFault("a fingerprint expired between finding and locking it")
        return {
            fingerprint: Owner(lead_id=lead_id, received_at_ms=received_at_ms, kept_until_ms=kept_until_ms)
            for fingerprint, lead_id, received_at_ms, kept_until_ms in rows
        }

    def _keep_subjects(self, rows: Sequence[SubjectRow]) -> None:
        if rows:
            subjects, lead_ids, kept_until_ms = zip(*rows, strict=True)
            self._execute(_KEEP_SUBJECTS, (Uuids(subjects), uuids(lead_ids), Bigints(kept_until_ms)))

    def _keep_sealed(self, statement: str, rows: Sequence[SealedRow]) -> None:
        if rows:
            self._execute(statement, _sealed_arrays(rows))

    def _correct(self, after: Mapping[bytes, Owner]) -> None:
        wrong = corrections(self._claims, self._before, after)
        if wrong.changed:
            self._execute(_CHANGE_OWNER, _owner_arrays(wrong.changed))
        if wrong.given_up:
            self._execute(_GIVE_UP, (Uuids(wrong.given_up),))


def _known(row: Sequence[Any]) -> KnownLead:
    _, partition, offset, payload_hash, record = row
    return KnownLead(
        origin=Origin(partition=partition, offset=offset), payload_hash=payload_hash, record=record
    )


def _lead_arrays(rows: Sequence[LeadRow]) -> tuple[Column, ...]:
    lead_ids, source_ids, partitions, offsets, hashes, records, received = zip(*rows, strict=True)
    return (
        uuids(lead_ids),
        Texts(source_ids),
        Bigints(partitions),
        Bigints(offsets),
        Byteas(hashes),
        Byteas(records),
        Bigints(received),
    )


def _sealed_arrays(rows: Sequence[SealedRow]) -> tuple[Column, ...]:
    lead_ids, sealed, kept_until_ms = zip(*rows, strict=True)
    key_ids, wrapped_keys, values = zip(*sealed, strict=True)
    return (
        uuids(lead_ids),
        Texts(key_ids),
        Byteas(wrapped_keys),
        Byteas(values),
        Bigints(kept_until_ms),
    )


def _owner_arrays(owners: Mapping[bytes, Owner]) -> tuple[Uuids, Uuids, Bigints, Bigints]:
    """Write owners as arrays, sorted by fingerprint: the order in which all workers lock them."""
    rows = sorted(owners.items(), key=itemgetter(0))
    return (
        Uuids(fingerprint for fingerprint, _ in rows),
        uuids(owner.lead_id for _, owner in rows),
        Bigints(owner.received_at_ms for _, owner in rows),
        Bigints(owner.kept_until_ms for _, owner in rows),
    )
