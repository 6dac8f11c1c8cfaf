"""Seals what is personal, with a data key per lead that the master key wraps.

Nothing here reads a file, a table or a clock; chance comes in as a function. No message here repeats what was
sealed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
_DRAWN_BYTES = KEY_BYTES + 2 * NONCE_BYTES


class VaultError(Exception):
    """A row that no key at hand opens, or that was changed, or that belongs to another lead."""


class Sealed(NamedTuple):
    """What the table keeps of one lead: both byte strings begin with their nonce; `key_id` is the master key's."""

    key_id: str
    wrapped_key: bytes
    sealed: bytes


class Wrapped(NamedTuple):
    """A lead's data key under a master key; it begins with its nonce."""

    key_id: str
    wrapped_key: bytes


class Vault:
    """Seals under the newest master key, opens under any that it was given."""

    def __init__(
        self,
        master_key: bytes,
        *,
        older_keys: Sequence[bytes] = (),
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Take the master key to seal with, and those it replaced, each of 32 bytes."""
        self._masters = {key_id_of(key): AESGCM(key) for key in (*older_keys, master_key)}
        self._key_id = key_id_of(master_key)
        self._random_bytes = random_bytes

    @property
    def key_id(self) -> str:
        """Name the master key that seals."""
        return self._key_id

    @property
    def key_ids(self) -> frozenset[str]:
        """Name the master keys that open."""
        return frozenset(self._masters)

    def seal(self, lead_id: str, payload: bytes) -> Sealed:
        """Seal a lead's payload with a new data key; the lead's id is bound to both."""
        drawn = self._random_bytes(_DRAWN_BYTES)
        data_key, wrap_nonce = drawn[:KEY_BYTES], drawn[KEY_BYTES:-NONCE_BYTES]
        nonce, owner = drawn[-NONCE_BYTES:], lead_id.encode()
        wrapped = self._masters[self._key_id].encrypt(wrap_nonce, data_key, owner)
        return Sealed(
            key_id=self._key_id,
            wrapped_key=wrap_nonce + wrapped,
            sealed=nonce + AESGCM(data_key).encrypt(nonce, payload, owner),
        )

    def open(self, lead_id: str, sealed: Sealed) -> bytes:
        """Give back what was sealed for this lead; raise `VaultError`."""
        owner = lead_id.encode()
        master = self._master(lead_id, sealed.key_id)
        try:
            data_key = _decrypt(master, sealed.wrapped_key, owner)
            return _decrypt(AESGCM(data_key), sealed.sealed, owner)
        except (InvalidTag, ValueError) as error:
            raise VaultError(f"lead {lead_id}: its vault row was changed, or is another lead's") from error

    def rewrap(self, lead_id: str, wrapped: Wrapped) -> Wrapped:
        """Wrap a lead's data key with the key that seals; what it sealed stays as it is. Raise `VaultError`."""
        owner = lead_id.encode()
        master = self._master(lead_id, wrapped.key_id)
        try:
            data_key = _decrypt(master, wrapped.wrapped_key, owner)
        except (InvalidTag, ValueError) as error:
            raise VaultError(f"lead {lead_id}: its vault row was changed, or is another lead's") from error
        nonce = self._random_bytes(NONCE_BYTES)
        return Wrapped(self._key_id, nonce + self._masters[self._key_id].encrypt(nonce, data_key, owner))

    def _master(self, lead_id: str, key_id: str) -> AESGCM:
        master = self._masters.get(key_id)
        if master is None:
            raise VaultError(
                f"lead {lead_id} was sealed under master key {key_id}, which is not at hand (there is "
                f"{', '.join(sorted(self._masters))}): name its file in GAVEL_VAULT_OLDER_KEY_FILES"
            )
        return master


def key_id_of(key: bytes) -> str:
    """Name a master key by a hash of it, so that a row finds its key after a rotation. Raise ValueError."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a vault key has {KEY_BYTES} bytes, not {len(key)}")
    return hashlib.sha256(b"gavel vault key id\n" + key).hexdigest()[:16]


def _decrypt(cipher: AESGCM, nonce_and_text: bytes, owner: bytes) -> bytes:
    return cipher.decrypt(nonce_and_text[:NONCE_BYTES], nonce_and_text[NONCE_BYTES:], owner)
