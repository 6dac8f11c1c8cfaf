"""Which lead a submission is, and what may be told by whom from an id."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.identity import IdentityKeys, KeyedHash, is_personal, reference_of
from services.contract.ids import lead_id_of
from tests.support.submissions import KEYS

OTHER_KEYS = IdentityKeys(b"another key".ljust(32))
HASH = bytes(32)


@given(secret=st.binary(max_size=64), purpose=st.binary(max_size=200), message=st.binary(max_size=500))
def test_keyed_hash_is_hmac_sha256(secret: bytes, purpose: bytes, message: bytes) -> None:
    assert KeyedHash(secret, purpose).of(message) == hmac.digest(secret, purpose + message, "sha256")


def test_source_can_compute_the_lead_id_of_its_own_reference() -> None:
    assert KEYS.lead_id("sunform", "ref-1", HASH) == lead_id_of("sunform", "ref-1")


def test_same_reference_of_another_source_is_another_lead() -> None:
    assert KEYS.lead_id("sunform", "ref-1", HASH) != KEYS.lead_id("quotehub", "ref-1", HASH)


@pytest.mark.parametrize("reference", ["canary@mail.example", "+1 (602) 200-0001", "6022000001"])
def test_personal_reference_is_keyed(reference: str) -> None:
    lead_id = KEYS.lead_id("sunform", reference, HASH)
    assert lead_id != lead_id_of("sunform", reference), "anyone could try all phone numbers"
    assert lead_id != OTHER_KEYS.lead_id("sunform", reference, HASH)
    assert lead_id == KEYS.lead_id("sunform", reference, b"x" * 32), (
        "the reference names the lead, not its content"
    )


@pytest.mark.parametrize(
    ("reference", "personal"),
    [("ref-1", False), ("a1b2c3d4e5", False), ("123456", False), ("1234567", True), ("a@b", True)],
)
def test_reference_is_personal_when_it_reads_like_a_phone_or_an_address(
    reference: str, personal: bool
) -> None:
    assert is_personal(reference) is personal


@pytest.mark.parametrize("key", ["jane@example.com", "+1 212 555 0177", "2125550177"])
def test_idempotency_key_that_may_be_personal_is_keyed_for_its_owner_alone(key: str) -> None:
    kept = KEYS.idempotency_key("source:web", key)
    assert key not in kept
    assert kept == KEYS.idempotency_key("source:web", key)
    assert kept != KEYS.idempotency_key("source:forms", key)
    assert kept != OTHER_KEYS.idempotency_key("source:web", key)


def test_idempotency_key_that_is_not_personal_is_kept_as_it_is() -> None:
    assert KEYS.idempotency_key("source:web", "order-17") == "order-17"


def test_without_a_reference_the_content_names_the_lead() -> None:
    first, other = (KEYS.payload_hash(content) for content in (b"one", b"other"))
    assert KEYS.lead_id("sunform", None, first) == KEYS.lead_id("sunform", None, first)
    assert KEYS.lead_id("sunform", None, first) != KEYS.lead_id("sunform", None, other)
    assert KEYS.lead_id("sunform", None, first) != KEYS.lead_id("quotehub", None, first)


def test_fingerprints_differ_by_lead_type_kind_and_key() -> None:
    made = {
        KEYS.fingerprint("solar", "phone", "1"),
        KEYS.fingerprint("roofing", "phone", "1"),
        KEYS.fingerprint("solar", "email", "1"),
        KEYS.fingerprint("solar", "phone", "2"),
        OTHER_KEYS.fingerprint("solar", "phone", "1"),
    }
    assert len(made) == 5
    assert {len(fingerprint) for fingerprint in made} == {16}


@pytest.mark.parametrize("reference", [None, 5, "", "x" * 201, ["a"]])
def test_unusable_reference_is_none(reference: object) -> None:
    assert reference_of({"reference": reference}) is None


def test_a_person_has_one_hash_in_all_lead_types_which_is_none_of_its_fingerprints() -> None:
    subject = KEYS.subject("email", "canary@mail.example")
    assert len(subject) == 16
    assert subject != KEYS.subject("phone", "canary@mail.example")
    assert subject != OTHER_KEYS.subject("email", "canary@mail.example")
    assert subject != KEYS.fingerprint("solar", "email", "canary@mail.example")
