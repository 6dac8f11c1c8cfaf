"""Finds the leads of a person, and keeps the list of those who are not to be asked again: by keyed hashes alone.

It never sees an address, and decides nothing about a lead. Whoever calls connects as `gavel_vault`, autocommit on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from psycopg import Connection

_LEADS = "select distinct lead_id::text from vault.people where person = any(%s::uuid[]) order by 1"
_PERSONS = "select distinct person from vault.people where lead_id = any(%s::uuid[])"
_LOCK = "lock table vault.suppressed in access exclusive mode"
_ADD = """
insert into vault.suppressed (person, added_at_ms)
select person, (extract(epoch from clock_timestamp()) * 1000)::bigint from unnest(%s::uuid[]) as person
on conflict do nothing
"""
_REMOVE = "delete from vault.suppressed where person = any(%s::uuid[])"
_COUNT = "select count(*) from vault.suppressed"
_IS = "select count(*) from vault.suppressed where person = any(%s::uuid[])"


def leads_of(connection: Connection[Any], subjects: Collection[bytes]) -> list[str]:
    """Name all leads of these persons that were ever accepted, archived and erased ones too."""
    return [lead_id for (lead_id,) in connection.execute(_LEADS, [_texts(subjects)])]


def persons_of(connection: Connection[Any], lead_ids: Collection[str]) -> set[bytes]:
    """Give what hashes are kept of these leads' persons; it reads the whole table, whose order is by person."""
    return {person.bytes for (person,) in connection.execute(_PERSONS, [list(lead_ids)])}


def suppress(connection: Connection[Any], subjects: Collection[bytes]) -> int:
    """Put persons on the list; return how many are new there.

    The lock waits for the batches at the door that have looked at the list already: so their leads are there to be
    found when this returns, and every later batch sees the addition. Raise psycopg.errors.LockNotAvailable.
    """
    with connection.transaction():
        connection.execute(_LOCK)
        return connection.execute(_ADD, [_texts(subjects)]).rowcount


def unsuppress(connection: Connection[Any], subjects: Collection[bytes]) -> int:
    """Take persons off the list; return how many stood there."""
    return connection.execute(_REMOVE, [_texts(subjects)]).rowcount


def suppressed_count(connection: Connection[Any], subjects: Collection[bytes] | None = None) -> int:
    """Count the persons on the list, or how many of these are."""
    asked = (_COUNT, None) if subjects is None else (_IS, [_texts(subjects)])
    row = connection.execute(*asked).fetchone()
    assert row is not None, "a count has a row"
    return int(row[0])


def _texts(subjects: Collection[bytes]) -> list[str]:
    return [subject.hex() for subject in subjects]
