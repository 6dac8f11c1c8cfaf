"""Makes, lists and revokes API keys, and keeps which secret of a buyer signs its webhooks; for the command line.

Each call is one statement on the caller's connection, as `gavel_gateway`.
"""

from __future__ import annotations

from psycopg import Connection

from services.gateway.store import SECRETS_OVERLAP_MS
from services.gateway.tokens import Kind, StoredKey

_ADD = """
insert into gateway.keys (prefix, secret_sha256, kind, owner_id, note, created_at_ms) values (%s, %s, %s, %s, %s, %s)
"""
_LIST = """
select prefix, secret_sha256, kind, owner_id, note, created_at_ms, revoked_at_ms
from gateway.keys order by kind, owner_id, created_at_ms
"""
_REVOKE = """
update gateway.keys set revoked_at_ms = coalesce(revoked_at_ms, greatest(%s, created_at_ms)) where prefix = %s
"""
_ROTATE = """
insert into gateway.endpoints as stored (buyer_id, secret_number, previous_until_ms)
values (%s, 2, %s)
on conflict (buyer_id) do update
set secret_number = stored.secret_number + 1, previous_until_ms = excluded.previous_until_ms
"""
_CALL_AGAIN = "update gateway.endpoints set disabled_url = null, disabled_at_ms = null where buyer_id = %s"
_NUMBER = "select secret_number from gateway.endpoints where buyer_id = %s"


def add_key(connection: Connection, key: StoredKey) -> None:
    """Keep a new key."""
    connection.execute(
        _ADD, (key.prefix, key.secret_sha256, key.kind, key.owner_id, key.note, key.created_at_ms)
    )


def list_keys(connection: Connection) -> list[StoredKey]:
    """List all keys, revoked ones, too."""
    return [
        StoredKey(
            prefix=prefix,
            secret_sha256=bytes(secret_sha256),
            kind=Kind(kind),
            owner_id=owner_id,
            note=note,
            created_at_ms=created_at_ms,
            revoked_at_ms=revoked_at_ms,
        )
        for prefix, secret_sha256, kind, owner_id, note, created_at_ms, revoked_at_ms in connection.execute(
            _LIST
        )
    ]


def revoke_key(connection: Connection, prefix: str, now_ms: int) -> bool:
    """End a key; False where there is none. One that was revoked stays revoked since then."""
    return connection.execute(_REVOKE, (now_ms, prefix)).rowcount == 1


def secret_number(connection: Connection, buyer_id: str) -> int:
    """Read which secret signs a buyer's webhooks."""
    row = connection.execute(_NUMBER, (buyer_id,)).fetchone()
    return 1 if row is None else int(row[0])


def rotate_secret(connection: Connection, buyer_id: str, now_ms: int) -> None:
    """Have the next secret sign from now on, and the present one beside it for a day."""
    connection.execute(_ROTATE, (buyer_id, now_ms + SECRETS_OVERLAP_MS))


def call_again(connection: Connection, buyer_id: str) -> None:
    """Forget that the buyer's URL said it was gone."""
    connection.execute(_CALL_AGAIN, (buyer_id,))
