"""Names a submission's lead, and knows the same person again, by keyed hashes that only the key's holder can make.

Nothing here keeps what it hashed, and no hash is made without the key.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any

from services.contract.ids import lead_id_of

FINGERPRINT_BYTES = 16
REFERENCE_MAX = 200
_ALL_DIGITS = re.compile(r"[+0-9 ()./-]{7,}")


@dataclass(frozen=True, slots=True)
class IdentityKeys:
    """One secret; what each hash is for is hashed with it, so that no two kinds of hash can meet."""

    secret: bytes

    def payload_hash(self, canonical: bytes) -> bytes:
        """Hash a submission's content, in its canonical spelling (32 bytes)."""
        return self._hash(b"payload\n", canonical)

    def lead_id(self, source_id: str, reference: str | None, payload_hash: bytes) -> str:
        """Name the lead by the source's reference, keyed where it may be personal; by its content without one."""
        if reference is None:
            return lead_id_of(source_id, f"payload:{payload_hash.hex()}")
        if is_personal(reference):
            keyed = self._hash(b"reference\n", f"{source_id}\n{reference}".encode())
            return lead_id_of(source_id, f"keyed:{keyed.hex()}")
        return lead_id_of(source_id, reference)

    def fingerprint(self, lead_type: str, kind: str, value: str) -> bytes:
        """Hash what a person is known again by, within a lead type (16 bytes)."""
        return self._hash(b"person\n", f"{lead_type}\n{kind}\n{value}".encode())[:FINGERPRINT_BYTES]

    def _hash(self, purpose: bytes, message: bytes) -> bytes:
        return hmac.digest(self.secret, purpose + message, "sha256")


def is_personal(reference: str) -> bool:
    """Tell whether a reference may be an email address or a phone number."""
    return "@" in reference or _ALL_DIGITS.fullmatch(reference) is not None


def reference_of(body: dict[str, Any]) -> str | None:
    """Read the source's own reference, where it gave a usable one."""
    reference = body.get("reference")
    is_usable = isinstance(reference, str) and 0 < len(reference) <= REFERENCE_MAX
    return reference if is_usable else None
