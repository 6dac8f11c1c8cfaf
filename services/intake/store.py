"""Intake's tables in PostgreSQL: one transaction a batch, written by COPY and arrays.

No rule of the trade is here: what is a duplicate, `domain` says. Every exception that leaves is `TryAgain`, or means
that the worker must stop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from uuid import UUID

from psycopg import Connection, errors

from services.bus.arrays import Bigints, Uuids, adapt, uuid_bytes, uuids
from services.bus.ports import Stopped
from services.contract.market import Market
from services.intake.domain import KnownLead, Origin, Owner, corrections
from services.intake.ports import Door, Kept, LeadRow, SealedRow, SubjectRow, TryAgain
from services.market.store import Markets, current_version, load

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
_COPY_LEADS = """
copy intake.leads
    (lead_id, source_id, origin_partition, origin_offset, payload_hash, record, received_at_ms)
from stdin (format binary)
"""
_SUPPRESSED = "select uuid_send(person) from vault.suppressed where person = any(%s)"
_COPY_SUBJECTS = "copy vault.people (person, lead_id, kept_until_ms) from stdin (format binary)"
_COPY_SEALED = "copy {} (lead_id, key_id, wrapped_key, sealed, kept_until_ms) from stdin (format binary)"
_COPY_DETAILS = _COPY_SEALED.format("vault.leads")
_COPY_CONSENTS = _COPY_SEALED.format("vault.consents")

# Binary rows are written as the bytes that PostgreSQL reads (a uuid is 16, numbers are big-endian): psycopg copies
# bytes in C, but chooses how to write any other value in Python.

# What is expired is found by walking the primary key; whoever took a fingerprint over in between keeps it, because
# the deletion looks at the row again.
_FORGET_FINGERPRINTS = """
with walked as (
    select fingerprint from intake.fingerprints where fingerprint > %s order by fingerprint limit %s
), forgotten as (
    delete from intake.fingerprints as row
    using walked
    where row.fingerprint = walked.fingerprint
        and row.kept_until_ms < extract(epoch from statement_timestamp()) * 1000
    returning 1
)
select (select count(*) from forgotten), (select fingerprint from walked order by 1 desc limit 1)
"""
_FORGET_SEALED = """
delete from {table} where lead_id = any(array(
    select lead_id from {table}
    where kept_until_ms < extract(epoch from statement_timestamp()) * 1000
    order by kept_until_ms limit %s
))
"""
_FORGET_DETAILS = _FORGET_SEALED.format(table="vault.leads")
_FORGET_CONSENTS = _FORGET_SEALED.format(table="vault.consents")
_FORGET_SUBJECTS = """
with walked as (
    select person, lead_id from vault.people where (person, lead_id) > (%s, %s) order by person, lead_id limit %s
), forgotten as (
    delete from vault.people as row
    using walked
    where row.person = walked.person and row.lead_id = walked.lead_id
        and row.kept_until_ms < extract(epoch from statement_timestamp()) * 1000
    returning 1
)
select (select count(*) from forgotten), w.person, w.lead_id
from (select) one left join (select * from walked order by person desc, lead_id desc limit 1) w on true
"""
_NIL = UUID(int=0)

# Passing faults: deadlocks, locks and timeouts, lost connections (then nobody knows whether a commit took place), and
# a lead that another worker, who believes that it owns our partition, has kept in the same moment.
_PASSING = (
    errors.OperationalError,
    errors.IdleInTransactionSessionTimeout,
    errors.TransactionTimeout,
    errors.UniqueViolation,
)


class PostgresIntakeStore:
    """An `IntakeStore` on one connection, opened when needed and again after it was lost."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Take how to connect as `gavel_intake`, with autocommit."""
        self._connect = connect
        self._connection: Connection | None = None
        self._markets = Markets(self._load_market)
        self._walked_to = _NIL
        self._subjects_walked_to = (_NIL, _NIL)

    @contextmanager
    def open(self) -> Iterator[Door]:
        """Begin a transaction. It raises `TryAgain` from any of its calls, or from its end."""
        with self._passing_faults():
            connection = self._connected()
            with connection.transaction():
                yield _PostgresDoor(connection)

    def forget(self, limit: int) -> int:
        """Delete what was kept long enough, about `limit` rows of each kind at most; say how many. Raise `TryAgain`."""
        with self._passing_faults():
            connection = self._connected()
            details = connection.execute(_FORGET_DETAILS, (limit,)).rowcount
            consents = connection.execute(_FORGET_CONSENTS, (limit,)).rowcount
            hashes = self._forget_fingerprints(connection, limit) + self._forget_subjects(connection, limit)
            return details + consents + hashes

    def market(self) -> Market:
        """Read the market in force. Raise `TryAgain`, or `Stopped` before the first."""
        market = self.market_in_force()
        if market is None:
            raise Stopped("no market is in force yet: gavel market apply FILE, then start intake again")
        return market

    def market_in_force(self) -> Market | None:
        """Read the market in force; None before the first. Raise `TryAgain`."""
        with self._passing_faults():
            version = current_version(self._connected())
            return self._markets.get(version) if version else None

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

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

    @contextmanager
    def _passing_faults(self) -> Iterator[None]:
        try:
            yield
        except _PASSING as error:
            if self._connection is not None and self._connection.closed:
                self._connection = None
            raise TryAgain(
                f"the database did not commit, or did not say so: {type(error).__name__}"
            ) from error

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._connect()
            adapt(connection)
            self._connection = connection
        return self._connection

    def _load_market(self, version: int) -> Market:
        return load(self._connected(), version)


class _PostgresDoor:
    """The open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor(binary=True)
        self._claims: Mapping[bytes, Owner] = {}
        self._before: Mapping[bytes, Owner] = {}

    def market_version(self) -> int:
        return current_version(self._connection)

    def known(self, lead_ids: Collection[str]) -> Mapping[str, KnownLead]:
        asked = uuids(lead_ids)
        rows = self._cursor.execute(_KNOWN, (asked, asked))
        return {
            lead_id: KnownLead(
                origin=Origin(partition=partition, offset=offset), payload_hash=payload_hash, record=record
            )
            for lead_id, partition, offset, payload_hash, record in rows
        }

    def claim(self, claims: Mapping[bytes, Owner]) -> Mapping[bytes, Owner]:
        if not claims:
            return {}
        claimed = self._cursor.execute(_CLAIM, _owner_arrays(claims)).fetchall()
        others = claims.keys() - {fingerprint for (fingerprint,) in claimed}
        self._claims, self._before = claims, self._lock(others) if others else {}
        return self._before

    def suppressed(self, subjects: Collection[bytes]) -> frozenset[bytes]:
        """Whoever adds one locks the table against readers, and so waits for our end; from then on all see it."""
        if not subjects:
            return frozenset()
        rows = self._cursor.execute(_SUPPRESSED, (Uuids(subjects),)).fetchall()
        return frozenset(subject for (subject,) in rows)

    def keep(self, kept: Kept) -> None:
        self._copy_leads(kept.leads)
        self._copy_subjects(kept.subjects)
        self._copy_sealed(_COPY_DETAILS, kept.details)
        self._copy_sealed(_COPY_CONSENTS, kept.consents)
        self._correct(kept.owners)

    def _lock(self, fingerprints: Collection[bytes]) -> Mapping[bytes, Owner]:
        rows = self._cursor.execute(_LOCK, (Uuids(sorted(fingerprints)),)).fetchall()
        if len(rows) < len(fingerprints):
            raise TryAgain("a fingerprint expired between finding and locking it")
        return {
            fingerprint: Owner(lead_id=lead_id, received_at_ms=received_at_ms, kept_until_ms=kept_until_ms)
            for fingerprint, lead_id, received_at_ms, kept_until_ms in rows
        }

    def _copy_leads(self, rows: Iterable[LeadRow]) -> None:
        """Write leads in the order of their ids: two workers that hold one partition wait, and don't deadlock."""
        with self._cursor.copy(_COPY_LEADS) as copy:
            for row in sorted(rows):
                lead_id, source_id, partition, offset, payload_hash, record, received_at_ms = row
                copy.write_row(
                    (
                        uuid_bytes(lead_id),
                        source_id.encode(),
                        partition.to_bytes(4, "big"),
                        offset.to_bytes(8, "big"),
                        payload_hash,
                        record,
                        received_at_ms.to_bytes(8, "big"),
                    )
                )

    def _copy_subjects(self, rows: Sequence[SubjectRow]) -> None:
        if not rows:
            return
        with self._cursor.copy(_COPY_SUBJECTS) as copy:
            for subject, lead_id, kept_until_ms in rows:
                copy.write_row((subject, uuid_bytes(lead_id), kept_until_ms.to_bytes(8, "big")))

    def _copy_sealed(self, statement: str, rows: Sequence[SealedRow]) -> None:
        if not rows:
            return
        with self._cursor.copy(statement) as copy:
            for lead_id, (key_id, wrapped_key, sealed), kept_until_ms in rows:
                copy.write_row(
                    (
                        uuid_bytes(lead_id),
                        key_id.encode(),
                        wrapped_key,
                        sealed,
                        kept_until_ms.to_bytes(8, "big"),
                    )
                )

    def _correct(self, after: Mapping[bytes, Owner]) -> None:
        wrong = corrections(self._claims, self._before, after)
        if wrong.changed:
            self._cursor.execute(_CHANGE_OWNER, _owner_arrays(wrong.changed))
        if wrong.given_up:
            self._cursor.execute(_GIVE_UP, (Uuids(wrong.given_up),))


def _owner_arrays(owners: Mapping[bytes, Owner]) -> tuple[Uuids, Uuids, Bigints, Bigints]:
    """Write owners as arrays, sorted by fingerprint: the order in which all workers lock them."""
    rows = sorted(owners.items(), key=itemgetter(0))
    return (
        Uuids(fingerprint for fingerprint, _ in rows),
        uuids(owner.lead_id for _, owner in rows),
        Bigints(owner.received_at_ms for _, owner in rows),
        Bigints(owner.kept_until_ms for _, owner in rows),
    )
