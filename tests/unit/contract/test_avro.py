"""The compiled encoders and decoders write and read what fastavro does, and nothing else."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from services.contract import avro
from services.contract.avro import compile_decoder, compile_encoder, varint
from tests.support.records import RECORD_TYPES, any_record, newest_version, raw_schema, records

UNREADABLE = (ValueError, LookupError)


class Colour(enum.StrEnum):
    """Two words."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A record within a record."""

    x: int
    colour: Colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """One field of each kind that the contract uses."""

    small: int
    large: int
    text: str
    flag: bool
    blob: bytes
    key: bytes
    colour: Colour
    maybe_large: int | None
    maybe_text: str | None
    maybe_colour: Colour | None
    texts: tuple[str, ...]
    points: tuple[Point, ...]
    point: Point
    pairs: Mapping[str, str]


COLOUR = "string"
POINT = {
    "type": "record",
    "name": "Point",
    "fields": [{"name": "x", "type": "long"}, {"name": "colour", "type": "string"}],
}
EVERYTHING = {
    "type": "record",
    "name": "Everything",
    "fields": [
        {"name": "small", "type": "int"},
        {"name": "large", "type": "long"},
        {"name": "text", "type": "string"},
        {"name": "flag", "type": "boolean"},
        {"name": "blob", "type": "bytes"},
        {"name": "key", "type": {"type": "fixed", "name": "Key", "size": 4}},
        {"name": "colour", "type": COLOUR},
        {"name": "maybe_large", "type": ["null", "long"]},
        {"name": "maybe_text", "type": ["null", "string"]},
        {"name": "maybe_colour", "type": ["null", "string"]},
        {"name": "texts", "type": {"type": "array", "items": "string"}},
        {"name": "points", "type": {"type": "array", "items": POINT}},
        {"name": "point", "type": "Point"},
        {"name": "pairs", "type": {"type": "map", "values": "string"}},
    ],
}
PARSED = parse_schema(EVERYTHING)
encode = compile_encoder(EVERYTHING, Everything)
decode = compile_decoder(EVERYTHING, Everything)

LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(-70_000, 70_000)
COLOURS = st.sampled_from(list(Colour))
POINTS = st.builds(Point, x=LONGS, colour=COLOURS)
EVERYTHINGS = st.builds(
    Everything,
    small=st.integers(-(2**31), 2**31 - 1),
    large=LONGS,
    text=st.text(max_size=80),
    flag=st.booleans(),
    blob=st.binary(max_size=200),
    key=st.binary(min_size=4, max_size=4),
    colour=COLOURS,
    maybe_large=st.none() | LONGS,
    maybe_text=st.none() | st.text(max_size=40),
    maybe_colour=st.none() | COLOURS,
    texts=st.lists(st.text(max_size=5), max_size=70).map(tuple),
    points=st.lists(POINTS, max_size=5).map(tuple),
    point=POINTS,
    pairs=st.dictionaries(st.text(max_size=5), st.text(max_size=40), max_size=5),
)
EXAMPLE = Everything(
    small=-3,
    large=1_790_000_000_000,
    text="Zürich",
    flag=True,
    blob=b"\x00\xff",
    key=b"abcd",
    colour=Colour.BLUE,
    maybe_large=None,
    maybe_text="x" * 70,
    maybe_colour=Colour.RED,
    texts=("a", "b"),
    points=(Point(x=1, colour=Colour.RED),),
    point=Point(x=-(2**63), colour=Colour.BLUE),
    pairs={"state": "AZ"},
)


def _by_fastavro(record: Any, schema: Any) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, schema, asdict(record))
    return stream.getvalue()


@given(record=EVERYTHINGS)
@example(record=EXAMPLE)
def test_writes_the_bytes_of_fastavro(record: Everything) -> None:
    assert encode(record) == _by_fastavro(record, PARSED)


@given(record=EVERYTHINGS)
@example(record=EXAMPLE)
def test_reads_what_fastavro_writes(record: Everything) -> None:
    assert decode(_by_fastavro(record, PARSED), 0) == record


@given(record=EVERYTHINGS, before=st.binary(max_size=9))
def test_reads_from_an_index_to_the_end(record: Everything, before: bytes) -> None:
    assert decode(before + encode(record), len(before)) == record


@pytest.mark.parametrize("record_type", RECORD_TYPES, ids=lambda kind: kind.__name__)
def test_every_type_of_the_contract_is_written_and_read_as_by_fastavro(record_type: type) -> None:
    name = record_type.__name__
    raw = raw_schema(name, newest_version(name))
    parsed, own_encode, own_decode = (
        parse_schema(raw),
        compile_encoder(raw, record_type),
        compile_decoder(raw, record_type),
    )

    @given(record=records(record_type))
    def check(record: Any) -> None:
        value = own_encode(record)
        assert value == _by_fastavro(record, parsed)
        assert own_decode(value, 0) == record
        assert own_decode(value, 0).__class__ is record_type

    check()


def test_records_read_are_frozen_as_those_made() -> None:
    record = decode(encode(EXAMPLE), 0)
    with pytest.raises(AttributeError):
        record.small = 4
    with pytest.raises(AttributeError):
        record.point.x = 4
    assert hash(record.point) == hash(EXAMPLE.point)
    assert repr(record) == repr(EXAMPLE)


def test_refuses_bytes_cut_anywhere() -> None:
    value = encode(EXAMPLE)
    for size in range(len(value)):
        with pytest.raises(UNREADABLE):
            decode(value[:size], 0)


@given(after=st.binary(min_size=1, max_size=3))
def test_refuses_bytes_left_over(after: bytes) -> None:
    with pytest.raises(ValueError, match="not as long as it says"):
        decode(encode(EXAMPLE) + after, 0)


@given(record=any_record(), at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_changed_byte_gives_another_record_or_an_error_that_is_expected(
    record: Any, at: int, byte: int
) -> None:
    name = type(record).__name__
    raw = raw_schema(name, newest_version(name))
    value = bytearray(compile_encoder(raw, type(record))(record))
    value[at % len(value) : at % len(value) + 1] = bytes([byte])
    try:
        read = compile_decoder(raw, type(record))(bytes(value), 0)
    except UNREADABLE:
        return
    assert type(read) is type(record)


@given(junk=st.binary(max_size=60))
def test_junk_gives_an_error_that_is_expected_or_a_record(junk: bytes) -> None:
    with suppress(*UNREADABLE):
        assert type(decode(junk, 0)) is Everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Nothing but an array."""

    texts: tuple[str, ...]


def test_reads_blocks_that_tell_their_size_as_other_writers_write_them() -> None:
    array = {"type": "array", "items": "string"}
    schema = {"type": "record", "name": "Texts", "fields": [{"name": "texts", "type": array}]}
    blocks = varint(-2) + varint(4) + b"\x02a\x02b" + varint(1) + b"\x02c" + b"\x00"
    assert compile_decoder(schema, Texts)(blocks, 0) == Texts(texts=("a", "b", "c"))
    assert schemaless_reader(BytesIO(blocks), parse_schema(schema), None) == {"texts": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (-64, "7f"),
        (64, "8001"),
        (8_191, "fe7f"),
        (8_192, "808001"),
        (1_790_000_000_000, "80b083c59868"),
        (2**63 - 1, "feffffffffffffffff01"),
        (-(2**63), "ffffffffffffffffff01"),
    ],
)
def test_numbers_are_zigzag_varints(number: int, encoded: str) -> None:
    assert varint(number).hex() == encoded


@pytest.mark.parametrize(
    "change",
    [
        {"small": 2**31},
        {"small": -(2**31) - 1},
        {"large": 2**63},
        {"key": b"abc"},
        {"text": None},
        {"maybe_large": "1"},
        {"flag": None},
    ],
    ids=str,
)
def test_refuses_a_value_that_the_schema_has_no_room_for(change: dict[str, Any]) -> None:
    values = {name: getattr(EXAMPLE, name) for name in Everything.__slots__}
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        encode(Everything(**(values | change)))


@pytest.mark.parametrize(
    "kind", ["double", "float", ["string", "null"], ["null", "string", "long"], ["string"]], ids=str
)
def test_does_not_compile_what_the_contract_does_not_use(kind: Any) -> None:
    schema = {"type": "record", "name": "Texts", "fields": [{"name": "x", "type": kind}]}
    with pytest.raises(NotImplementedError):
        compile_encoder(schema, Point)
    with pytest.raises(NotImplementedError):
        compile_decoder(schema, Point)


def test_remembers_a_bounded_number_of_short_encodings() -> None:
    remembered = avro._Encodings(str.encode)
    for number in range(3 * avro.REMEMBERED_MAX):
        assert remembered[str(number)] == str(number).encode()
        assert len(remembered) <= avro.REMEMBERED_MAX
    remembered["x" * 1_000]
    assert "x" * 1_000 not in remembered
