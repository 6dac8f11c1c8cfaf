"""Ids that anyone can compute again; the vectors are for those who do it in another language."""

from __future__ import annotations

import re
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.ids import draw, lead_id_of, partition_of, sale_id_of, trace_id_of

LEAD_NAMESPACE = uuid.UUID("5f0d6a5b-6c1f-5d0e-9a4b-d1a0c3b7e812")
SALE_NAMESPACE = uuid.UUID("8c2f1f0e-7c4b-5a6d-8e9f-0a1b2c3d4e5f")


@given(source_id=st.text(), reference=st.text())
def test_lead_id_is_the_uuid5_of_source_and_reference(source_id: str, reference: str) -> None:
    lead_id = lead_id_of(source_id, reference)
    assert lead_id == str(uuid.uuid5(LEAD_NAMESPACE, f"{source_id}\n{reference}"))
    assert uuid.UUID(lead_id).version == 5
    assert uuid.UUID(lead_id).variant == uuid.RFC_4122


@given(lead_id=st.uuids(), sale_number=st.integers(1, 10))
def test_sale_id_is_the_uuid5_of_lead_and_sale_number(lead_id: uuid.UUID, sale_number: int) -> None:
    assert sale_id_of(str(lead_id), sale_number) == str(
        uuid.uuid5(SALE_NAMESPACE, f"{lead_id}\n{sale_number}")
    )


@given(key=st.text(), partitions=st.integers(1, 1_000))
def test_partition_is_the_crc32_of_the_key(key: str, partitions: int) -> None:
    assert partition_of(key, partitions) == zlib.crc32(key.encode()) % partitions


VECTORS = [
    ("sunform", "1001", "3173f205-f4d6-5f3a-84ed-f2adc38f534f", "6e0d06c3-c9dd-510b-9f2c-a8303706ab56", 8),
    ("quotehub", "a-17", "a0828a8a-3454-51a5-9f5e-056841da6b67", "eff325e7-2654-5955-a9d8-3dbb1773fb88", 7),
    (
        "partnerweb",
        "Zürich 8",
        "0a5dafb6-c970-5316-8596-b5f996e8d9d6",
        "32a2269f-0068-5f4d-a75f-2ac752a2e0ef",
        5,
    ),
]


@pytest.mark.parametrize(("source_id", "reference", "lead_id", "second_sale_id", "partition_of_12"), VECTORS)
def test_vectors(
    source_id: str, reference: str, lead_id: str, second_sale_id: str, partition_of_12: int
) -> None:
    assert lead_id_of(source_id, reference) == lead_id
    assert sale_id_of(lead_id, 2) == second_sale_id
    assert partition_of(lead_id, 12) == partition_of_12


def test_crc32_is_that_of_zlib_png_and_ethernet() -> None:
    assert partition_of("123456789", 2**32) == 0xCBF43926


@pytest.mark.parametrize(
    ("parts", "drawn"), [((), 16476032584258269876), (("lead", "order"), 8516471798679972128)]
)
def test_draw_vectors(parts: tuple[str, ...], drawn: int) -> None:
    assert draw(*parts) == drawn


@given(parts=st.lists(st.text()))
def test_draw_is_64_bits_and_the_same_again(parts: list[str]) -> None:
    assert 0 <= draw(*parts) < 2**64
    assert draw(*parts) == draw(*parts)


def test_a_trace_is_sixteen_bytes_of_lowercase_hex_and_says_which_lead_it_is() -> None:
    """As W3C Trace Context wants it: 32 lowercase hexadecimal digits, not all of them 0."""
    lead_id = lead_id_of("sunform", "reference-1")
    trace_id = trace_id_of(lead_id)
    assert re.fullmatch(r"[0-9a-f]{32}", trace_id)
    assert str(uuid.UUID(trace_id)) == lead_id
