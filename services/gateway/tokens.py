"""API keys: `<prefix>_<secret>`. The prefix finds the key and may be told; of the secret only a hash is kept.

The secret has 256 random bits, so a plain hash is enough: there is nothing to guess that a slow one would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SECRET_BYTES = 32
PREFIX_BYTES = 6
_TOKEN = re.compile(r"([a-z0-9]{8,32})_([A-Za-z0-9_-]{20,100})")


class Kind(StrEnum):
    """Whose a key is."""

    SOURCE = "source"
    BUYER = "buyer"


_LETTERS = {Kind.SOURCE: "src", Kind.BUYER: "buy"}


class Token(NamedTuple):
    """A key as its owner sends it."""

    prefix: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key as it is kept."""

    prefix: str
    secret_sha256: bytes
    kind: Kind
    owner_id: str
    note: str
    created_at_ms: int
    revoked_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: one source or one buyer."""

    kind: Kind
    owner_id: str
    prefix: str

    @property
    def owner(self) -> str:
        """Name it in one word, as no other caller is named."""
        return f"{self.kind}:{self.owner_id}"


def make_token(kind: Kind, *, prefix_bytes: bytes, secret_text: str) -> Token:
    """Make a key of what was drawn for it."""
    return Token(f"{_LETTERS[kind]}{prefix_bytes.hex()}", secret_text)


def read_bearer(header: str | None) -> Token | None:
    """Read an Authorization header; None for anything but a key of ours."""
    scheme, _, credentials = (header or "").strip().partition(" ")
    found = _TOKEN.fullmatch(credentials.strip())
    return Token(found[1], found[2]) if scheme.lower() == "bearer" and found else None


def hash_of(secret: str) -> bytes:
    """Hash a secret for keeping."""
    return hashlib.sha256(secret.encode()).digest()


def caller_of(token: Token, stored: StoredKey | None) -> Caller | None:
    """Say who sends this token; None if it is wrong or revoked. The comparison takes the same time for every token."""
    expected = bytes(32) if stored is None else stored.secret_sha256
    is_right = hmac.compare_digest(hash_of(token.secret), expected)
    if stored is None or not is_right or stored.revoked_at_ms is not None:
        return None
    return Caller(kind=stored.kind, owner_id=stored.owner_id, prefix=stored.prefix)
