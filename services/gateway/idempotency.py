"""Idempotency-Key, as draft-ietf-httpapi-idempotency-key-header-07 has it: one answer to one key, however often.

Lead ids make a lead sent again the same lead anyway; the key makes the answer the same one, too, and catches the client
that uses it for something else.
"""

from __future__ import annotations

import re

from services.gateway.desk import Desk
from services.gateway.problems import Problem
from services.gateway.tokens import Caller

KEY_MAX = 255
_KEY = re.compile(rf'"?([\x21\x23-\x7e]{{1,{KEY_MAX}}})"?')


def key_of(header: str | None) -> str:
    """Read the header, quoted as the draft has it or not; raise `Problem` 400."""
    if header is None:
        raise Problem("no-idempotency-key", 400, "Send an Idempotency-Key of your own for each lead.")
    found = _KEY.fullmatch(header.strip())
    if found is None:
        raise Problem(
            "idempotency-key", 400, f"An Idempotency-Key has 1 to {KEY_MAX} printable characters, no spaces."
        )
    return found[1]


async def claim(desk: Desk, caller: Caller, key: str, payload_hash: bytes) -> bytes | None:
    """Begin under a key; give what was answered before, None to go on. Raise `Problem` 409 or 422."""
    now_ms = desk.now_ms()
    stored = await desk.ask(lambda store: store.claim(caller.owner, key, payload_hash, now_ms))
    if stored is None:
        return None
    if stored.payload_hash != payload_hash:
        raise Problem("idempotency-key-reused", 422, "This Idempotency-Key was used for another body.")
    if stored.body is None:
        raise Problem(
            "in-progress",
            409,
            "The first request with this Idempotency-Key is in progress.",
            {"Retry-After": "1"},
        )
    return stored.body
