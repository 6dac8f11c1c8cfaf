"""Numbers and times are written as the contract's codec writes them, and only such bytes are taken for a time."""

from __future__ import annotations

import pytest

from services.audit.avro_times import avro_long, is_six_bytes, milliseconds_of, six_bytes
from services.contract.codec import codec
from services.contract.entries import Cause, CauseKind, Entry
from services.contract.ids import lead_id_of, sale_id_of, sale_ids_of

FRAME = 5
HASH = b"\xff" * 32
TIMES = (1 << 34, 1_790_000_000_000, 1_790_000_000_001, (1 << 41) - 1)


def _encoded(seq: int) -> bytes:
    cause = Cause(kind=CauseKind.QUALIFIED, offset=0)
    entry = Entry(
        seq=seq,
        prev_hash=HASH,
        cause=cause,
        market_version=1,
        no_room=(),
        lead_id="",
        decided_at_ms=0,
        events=(),
    )
    value = codec().encode(entry)
    return value[FRAME : value.index(HASH, FRAME)]


@pytest.mark.parametrize("number", [0, 1, 63, 64, 8_191, 8_192, 1_048_575, 1_048_576, 1 << 40])
def test_number_is_written_as_the_codec_writes_it(number: int) -> None:
    assert _encoded(number) == avro_long(number)


@pytest.mark.parametrize("at_ms", TIMES)
def test_time_has_six_bytes_and_is_read_again(at_ms: int) -> None:
    encoded = six_bytes(at_ms)
    assert encoded is not None
    assert encoded == avro_long(at_ms)
    assert is_six_bytes(encoded)
    assert milliseconds_of(encoded) == at_ms


@pytest.mark.parametrize("at_ms", [0, (1 << 34) - 1, 1 << 41])
def test_other_times_have_none(at_ms: int) -> None:
    assert six_bytes(at_ms) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x80\x80\x80\x01",
        b"\x80\x80\x80\x80\x80\x80",
        b"\x80\x80\x01\x80\x80\x01",
        b"\x81\x80\x80\x80\x80\x01",
        b"\x80\x80\x80\x80\x80\x80\x01",
    ],
)
def test_bytes_that_are_not_one_number_of_six_are_no_time(data: bytes) -> None:
    assert not is_six_bytes(data)


def test_ids_of_sales_are_those_that_each_has() -> None:
    lead_id = lead_id_of("quotehub", "one")
    expected = [sale_id_of(lead_id, number).encode() for number in range(1, 12)]
    assert sale_ids_of(lead_id.encode(), 11) == expected
