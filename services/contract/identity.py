"""Names a submission's lead, and knows the same person again, by keyed hashes that only the key's holder can make.

Nothing here keeps what it hashed, and no hash is made without the key.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from services.contract.ids import lead_id_of

FINGERPRINT_BYTES = 16
REFERENCE_MAX = 200
_BLOCK_BYTES = 64
_ALL_DIGITS = re.compile(r"[+0-9 ()./-]{7,}")


class IdentityKeys:
    """One secret; what each hash is for is hashed with it, so that no two kinds of hash can meet."""

    def __init__(self, secret: bytes) -> None:
        """Take the fingerprint key; its owner keeps it for good, or every lead is new."""
        self._payload = KeyedHash(secret, b"payload\n")
        self._reference = KeyedHash(secret, b"reference\n")
        self._idempotency = KeyedHash(secret, b"idempotency\n")
        self._person = KeyedHash(secret, b"person\n")
        self._subject = KeyedHash(secret, b"subject\n")

    def payload_hash(self, canonical: bytes) -> bytes:
        """Hash a submission's content, in its canonical spelling (32 bytes)."""
        return self._payload.of(canonical)

    def lead_id(self, source_id: str, reference: str | None, payload_hash: bytes) -> str:
        """Name the lead by the source's reference, keyed where it may be personal; by its content without one."""
        if reference is None:
            return lead_id_of(source_id, f"payload:{payload_hash.hex()}")
        if is_personal(reference):
            keyed = self._reference.of(f"{source_id}\n{reference}".encode())
            return lead_id_of(source_id, f"keyed:{keyed.hex()}")
        return lead_id_of(source_id, reference)

    def idempotency_key(self, owner: str, key: str) -> str:
        """Give what an Idempotency-Key of this owner's is kept as: itself, or keyed where it may be personal."""
        if not is_personal(key):
            return key
        return f"keyed:{self._idempotency.of(f'{owner} {key}'.encode()).hex()}"

    def fingerprint(self, lead_type: str, kind: str, value: str) -> bytes:
        """Hash what a person is known again by, within a lead type (16 bytes)."""
        return self._person.of(f"{lead_type}\n{kind}\n{value}".encode())[:FINGERPRINT_BYTES]

    def subject(self, kind: str, value: str) -> bytes:
        """Hash what a person is found by in all lead types, to be answered, erased or suppressed (16 bytes)."""
        return self._subject.of(f"{kind}\n{value}".encode())[:FINGERPRINT_BYTES]


class KeyedHash:
    """HMAC-SHA256 (RFC 2104) of a purpose and a message: a third of hmac.digest's time, as the key is hashed once."""

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        """Take a secret of at most 64 bytes."""
        key = secret.ljust(_BLOCK_BYTES, b"\0")
        assert len(key) == _BLOCK_BYTES, "a longer secret would have to be hashed first"
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + purpose)
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def of(self, message: bytes) -> bytes:
        """Hash a message (32 bytes)."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def is_personal(reference: str) -> bool:
    """Tell whether a reference may be an email address or a phone number."""
    return "@" in reference or _ALL_DIGITS.fullmatch(reference) is not None


def reference_of(body: dict[str, Any]) -> str | None:
    """Read the source's own reference, where it gave a usable one."""
    reference = body.get("reference")
    is_usable = isinstance(reference, str) and 0 < len(reference) <= REFERENCE_MAX
    return reference if is_usable else None
