"""Reads and erases rows of the vault, by batch, in the caller's transaction.

Intake alone writes rows, in the transaction that accepts their leads; the router reads and erases them. Nothing here
commits, and nothing here keeps what it opened.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from psycopg import Connection

from services.vault.sealing import Sealed, Vault

_READ = """
select lead_id::text, key_id, wrapped_key, sealed
from vault.leads
where lead_id = any(%s::text[]::uuid[])
"""
_ERASE = "delete from vault.leads where lead_id = any(%s::text[]::uuid[])"


def read(connection: Connection[Any], lead_ids: Collection[str], *, vault: Vault) -> dict[str, bytes]:
    """Open the rows of these leads in one query; an erased or unknown lead is missing. Raise `VaultError`.

    Each value is JSON: `{"contact": {...}, "details": {...}, "consent": {...}}`, the last only if it was given.
    """
    if not lead_ids:
        return {}
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(_READ, (list(lead_ids),)).fetchall()
    return {
        lead_id: vault.open(lead_id, Sealed(key_id=key_id, wrapped_key=wrapped_key, sealed=sealed))
        for lead_id, key_id, wrapped_key, sealed in rows
    }


def erase(connection: Connection[Any], lead_ids: Collection[str]) -> int:
    """Delete the rows of these leads, and with them their data keys; return how many there were."""
    if not lead_ids:
        return 0
    return connection.execute(_ERASE, (list(lead_ids),)).rowcount
