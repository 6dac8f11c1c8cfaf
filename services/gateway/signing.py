"""Webhook secrets and signatures, as Standard Webhooks 1.0 (standardwebhooks.com) has them.

A secret is kept nowhere: it follows from the fingerprint key, the buyer and the secret's number, and so there is
nothing to steal from the database, and nothing lost with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from services.contract.identity import KeyedHash

_PURPOSE = b"webhook secret\n"
_PREFIX = "whsec_"


class WebhookSecrets:
    """Gives each buyer's secrets."""

    def __init__(self, fingerprint_key: bytes) -> None:
        """Take the key that they follow from; with another one, all are others."""
        self._secrets = KeyedHash(fingerprint_key, _PURPOSE)

    def secret(self, buyer_id: str, number: int) -> str:
        """Write a secret as buyers are given it: `whsec_` and base64."""
        return _PREFIX + base64.b64encode(self._secrets.of(f"{buyer_id}\n{number}".encode())).decode()


def signature_headers(message_id: str, *, at_s: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """Sign a request with each secret in force: one, or two while the buyer changes over."""
    signed = f"{message_id}.{at_s}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{_signature(secret, signed)}" for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
