"""Frames, schema ids, and what is no record of ours."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.codec import NotReadable, codec, framed, stored_schemas
from services.contract.entries import EventBody
from services.contract.events import StageStarted, WindowClosed
from tests.support.records import EVENT_TYPES, RECORD_TYPES, any_event, any_record

FRAMED = codec().encode(StageStarted(stage=1))


@given(record=any_record())
def test_every_record_is_read_as_it_was_written(record: Any) -> None:
    assert codec().decode(codec().encode(record)) == record


@given(event=any_event())
def test_body_in_a_frame_of_its_own_is_the_event_encoded(event: Any) -> None:
    body = codec().encode_body(event)
    assert framed(body) == codec().encode(event)
    assert codec().decode_body(body) == event


def test_frame_is_a_zero_byte_and_the_schema_id_in_four() -> None:
    assert FRAMED[:5] == b"\x00\x00\x00\x00\x0b"
    assert FRAMED[5:] == codec().encode_body(StageStarted(stage=1)).body


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "without a Confluent frame"),
        (b"", "without a Confluent frame"),
        (FRAMED[:4], "without a Confluent frame"),
        (b"\x01" + FRAMED[1:], "begins with 1, not 0"),
        (b"\xff" + FRAMED[1:], "begins with 255, not 0"),
        (b"\x00\x00\x00\x01\x0b" + FRAMED[5:], "schema id 267 is not in schemas/registry.yaml"),
        (b"\x00\xff\xff\xff\xff" + FRAMED[5:], "schema id 4294967295 is not in schemas/registry.yaml"),
        (FRAMED[:5], "no StageStarted"),
        (FRAMED + b"\x00", "no StageStarted"),
    ],
)
def test_refuses_what_is_no_record_of_ours(value: bytes | None, complaint: str) -> None:
    with pytest.raises(NotReadable, match=complaint):
        codec().decode(value)


@given(record=any_record(), cut=st.integers(1, 10_000))
def test_refuses_a_record_cut_short(record: Any, cut: int) -> None:
    value = codec().encode(record)
    with pytest.raises(NotReadable):
        codec().decode(value[: -(cut % len(value)) or -1])


@given(record=any_record(), more=st.binary(min_size=1, max_size=5))
def test_refuses_bytes_after_a_record(record: Any, more: bytes) -> None:
    """Two readers that disagree about trailing bytes would disagree about what the log says."""
    with pytest.raises(NotReadable):
        codec().decode(codec().encode(record) + more)


@given(junk=st.binary(max_size=80))
def test_junk_after_a_frame_is_a_record_or_not_readable(junk: bytes) -> None:
    for schema in stored_schemas():
        try:
            record = codec().decode(b"\x00" + schema.id.to_bytes(4) + junk)
        except NotReadable:
            continue
        assert type(record).__name__ == schema.type


def test_entry_is_asked_for_and_nothing_else_taken() -> None:
    with pytest.raises(NotReadable, match="StageStarted where an Entry belongs"):
        codec().decode_entry(FRAMED)


def test_unknown_event_in_an_entry_is_not_readable() -> None:
    with pytest.raises(NotReadable, match="schema id 9999"):
        codec().decode_body(EventBody(schema_id=9_999, body=b""))


def test_ids_tell_events_apart_without_decoding_them() -> None:
    ids = [schema_id for kind in RECORD_TYPES for schema_id in codec().ids_of(kind)]
    assert len(ids) == len(set(ids)) == len(stored_schemas())
    for event_type in EVENT_TYPES:
        assert codec().ids_of(event_type)
    assert codec().encode_body(WindowClosed(window_number=1)).schema_id in codec().ids_of(WindowClosed)
