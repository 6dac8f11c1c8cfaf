"""What sealing promises: the right key, for the right lead, on unchanged bytes, and nothing else opens a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vault.memory import MemoryVault
from services.vault.sealing import Sealed, Vault, VaultError, Wrapped, key_id_of

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
LEAD = "7e57ab1e-0000-5000-8000-000000000001"
OTHER_LEAD = "7e57ab1e-0000-5000-8000-000000000002"
PAYLOAD = b'{"contact":{"email":"canary@mail.example"}}'


@given(payload=st.binary(max_size=2_000))
def test_opens_what_was_sealed(payload: bytes) -> None:
    vault = Vault(KEY)
    assert vault.open(LEAD, vault.seal(LEAD, payload)) == payload


def test_refuses_another_leads_row() -> None:
    vault = Vault(KEY)
    with pytest.raises(VaultError):
        vault.open(OTHER_LEAD, vault.seal(LEAD, PAYLOAD))


def changed(original: bytes, at: int) -> bytes:
    copy = bytearray(original)
    copy[at] ^= 1
    return bytes(copy)


@pytest.mark.parametrize("at", [0, 12, -1])
def test_refuses_changed_bytes(at: int) -> None:
    vault = Vault(KEY)
    row = vault.seal(LEAD, PAYLOAD)
    with pytest.raises(VaultError):
        vault.open(LEAD, row._replace(sealed=changed(row.sealed, at)))
    with pytest.raises(VaultError):
        vault.open(LEAD, row._replace(wrapped_key=changed(row.wrapped_key, at)))


def test_refuses_bytes_too_short_to_be_sealed() -> None:
    vault = Vault(KEY)
    with pytest.raises(VaultError):
        vault.open(LEAD, vault.seal(LEAD, PAYLOAD)._replace(sealed=b"short"))


def test_refuses_a_row_under_a_key_not_at_hand() -> None:
    with pytest.raises(VaultError, match=key_id_of(KEY)):
        Vault(OTHER_KEY).open(LEAD, Vault(KEY).seal(LEAD, PAYLOAD))


def test_opens_old_rows_after_a_rotation_and_seals_under_the_new_key() -> None:
    rotated = Vault(OTHER_KEY, older_keys=[KEY])
    assert rotated.open(LEAD, Vault(KEY).seal(LEAD, PAYLOAD)) == PAYLOAD
    assert rotated.seal(LEAD, PAYLOAD).key_id == key_id_of(OTHER_KEY)


def test_seals_each_time_under_another_data_key() -> None:
    vault = Vault(KEY)
    first, second = vault.seal(LEAD, PAYLOAD), vault.seal(LEAD, PAYLOAD)
    assert first.wrapped_key != second.wrapped_key
    assert first.sealed != second.sealed


def test_seals_reproducibly_given_the_chance() -> None:
    first, second = (Vault(KEY, random_bytes=lambda count: bytes(count)) for _ in range(2))
    assert first.seal(LEAD, PAYLOAD) == second.seal(LEAD, PAYLOAD)


def test_payload_is_in_nothing_that_is_stored_or_shown() -> None:
    vault = Vault(KEY)
    sealed = vault.seal(LEAD, PAYLOAD)
    assert b"canary" not in sealed.sealed + sealed.wrapped_key
    with pytest.raises(VaultError) as raised:
        vault.open(OTHER_LEAD, sealed)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_refuses_a_master_key_of_another_size(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(bytes(size))


def test_memory_vault_reads_many_and_leaves_out_the_erased() -> None:
    vault = Vault(KEY)
    memory = MemoryVault(vault, {LEAD: vault.seal(LEAD, b"one"), OTHER_LEAD: vault.seal(OTHER_LEAD, b"two")})
    assert memory.read([LEAD, OTHER_LEAD, "unknown"]) == {LEAD: b"one", OTHER_LEAD: b"two"}
    assert memory.erase([LEAD, LEAD, "unknown"]) == 1
    assert memory.read([LEAD, OTHER_LEAD]) == {OTHER_LEAD: b"two"}


def test_wrapped_again_only_the_new_key_opens_and_what_was_sealed_is_unchanged() -> None:
    row = Vault(KEY).seal(LEAD, PAYLOAD)
    again = Vault(OTHER_KEY, older_keys=[KEY]).rewrap(LEAD, Wrapped(row.key_id, row.wrapped_key))
    after = Sealed(again.key_id, again.wrapped_key, row.sealed)
    assert Vault(OTHER_KEY).open(LEAD, after) == PAYLOAD
    with pytest.raises(VaultError, match=key_id_of(OTHER_KEY)):
        Vault(KEY).open(LEAD, after)


def test_old_key_opens_nothing_even_under_the_new_ones_name() -> None:
    row = Vault(KEY).seal(LEAD, PAYLOAD)
    again = Vault(OTHER_KEY, older_keys=[KEY]).rewrap(LEAD, Wrapped(row.key_id, row.wrapped_key))
    with pytest.raises(VaultError, match="changed"):
        Vault(KEY).open(LEAD, Sealed(key_id_of(KEY), again.wrapped_key, row.sealed))


def test_refuses_to_wrap_again_what_is_another_leads_or_under_a_missing_key() -> None:
    row = Vault(KEY).seal(LEAD, PAYLOAD)
    wrapped = Wrapped(row.key_id, row.wrapped_key)
    with pytest.raises(VaultError, match="another lead"):
        Vault(OTHER_KEY, older_keys=[KEY]).rewrap(OTHER_LEAD, wrapped)
    with pytest.raises(VaultError, match="GAVEL_VAULT_OLDER_KEY_FILES"):
        Vault(OTHER_KEY).rewrap(LEAD, wrapped)
