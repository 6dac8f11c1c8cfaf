"""The gateway's tables as requests need them: keys, stored replies, statuses. Each call is one statement.

Calls come from several threads, each with a connection of its own. Every passing fault leaves as `PassingFault`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from psycopg import Connection

from services.bus.database import Session
from services.gateway.statuses import LeadStatus
from services.gateway.store import status_of
from services.gateway.tokens import Kind, StoredKey

_KEY = """
select prefix, secret_sha256, kind, owner_id, note, created_at_ms, revoked_at_ms
from gateway.keys where prefix = %s
"""
_STATUS = "select lead_id::text, source_id, log_seq, happened from gateway.leads where lead_id = %s and source_id = %s"

# One statement, so that of two requests with one key only one goes on. A claim whose owner is gone is taken over.
_CLAIM = """
insert into gateway.replies as stored (owner, idempotency_key, payload_hash, claimed_at_ms)
values (%(owner)s, %(key)s, %(payload_hash)s, %(now_ms)s)
on conflict (owner, idempotency_key) do update set claimed_at_ms = excluded.claimed_at_ms
where stored.body is null and stored.claimed_at_ms < %(stale_ms)s
    and stored.payload_hash = excluded.payload_hash
returning true
"""
_REPLY = "select payload_hash, body from gateway.replies where owner = %s and idempotency_key = %s"
_STORE_REPLY = (
    "update gateway.replies set body = %s where owner = %s and idempotency_key = %s and body is null"
)
_GIVE_BACK = "delete from gateway.replies where owner = %s and idempotency_key = %s and body is null"

CLAIM_STALE_MS = 30_000
"""A claim of a process that died is taken over after this; no request takes so long."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands under an Idempotency-Key already; no body: in progress."""

    payload_hash: bytes
    body: bytes | None


class DeskStore:
    """What requests read and write."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Take how to connect as `gavel_gateway`, with autocommit."""
        self._connect = connect
        self._own = threading.local()

    def key(self, prefix: str) -> StoredKey | None:
        """Find a key."""
        with self._connected() as connection:
            row = connection.execute(_KEY, (prefix,)).fetchone()
        if row is None:
            return None
        return StoredKey(
            prefix=row[0],
            secret_sha256=bytes(row[1]),
            kind=Kind(row[2]),
            owner_id=row[3],
            note=row[4],
            created_at_ms=row[5],
            revoked_at_ms=row[6],
        )

    def status(self, lead_id: str, source_id: str) -> LeadStatus | None:
        """Read a lead's status, if it is this source's."""
        with self._connected() as connection:
            row = connection.execute(_STATUS, (lead_id, source_id)).fetchone()
        return None if row is None else status_of(row)

    def claim(self, owner: str, key: str, payload_hash: bytes, now_ms: int) -> Stored | None:
        """Begin under an Idempotency-Key; None: go on, else what stands there."""
        values = {"owner": owner, "key": key, "payload_hash": payload_hash, "now_ms": now_ms}
        with self._connected() as connection:
            won = connection.execute(_CLAIM, {**values, "stale_ms": now_ms - CLAIM_STALE_MS}).fetchone()
            if won is not None:
                return None
            row = connection.execute(_REPLY, (owner, key)).fetchone()
        # Given back in between: whoever asks again will get it.
        return Stored(payload_hash, None) if row is None else Stored(bytes(row[0]), row[1])

    def store_reply(self, owner: str, key: str, body: bytes) -> None:
        """Keep what was answered."""
        with self._connected() as connection:
            connection.execute(_STORE_REPLY, (body, owner, key))

    def give_back(self, owner: str, key: str) -> None:
        """Let the same key be used again: nothing was done under it."""
        with self._connected() as connection:
            connection.execute(_GIVE_BACK, (owner, key))

    def answers(self) -> bool:
        """Ask the database for a sign of life."""
        with self._connected() as connection:
            return connection.execute("select true").fetchone() is not None

    def _connected(self) -> AbstractContextManager[Connection]:
        session: Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = Session(self._connect)
        return session.connection()
