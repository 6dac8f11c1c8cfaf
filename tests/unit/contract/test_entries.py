"""The one rule by which every reader takes the log (protocol.md, rule 20), and the chain that it checks."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.codec import codec
from services.contract.entries import (
    GENESIS_HASH,
    Ahead,
    Broken,
    Entry,
    Position,
    Reading,
    Repeat,
    Taken,
    hash_of,
    take,
)
from services.contract.events import StageStarted
from tests.support.written_log import WrittenLog

ENTRIES = 8


def _log(first_stage: int = 0) -> list[bytes]:
    log = WrittenLog(partitions=1)
    return [log.next_value("lead-1", StageStarted(stage=first_stage + number)) for number in range(ENTRIES)]


VALUES = _log()
FORGED = _log(first_stage=100)


def _take(position: Position, value: bytes, offset: int = 0) -> Reading:
    entry = codec().decode_entry(value)
    return take(position, seq=entry.seq, prev_hash=entry.prev_hash, value=value, offset=offset)


def _position_after(count: int) -> Position:
    position = Position()
    for offset, value in enumerate(VALUES[:count]):
        reading = _take(position, value, offset)
        assert isinstance(reading, Taken)
        position = reading.position
    return position


def test_first_entry_follows_the_genesis_hash() -> None:
    assert Position() == Position(offset=0, seq=0, hash=GENESIS_HASH)
    assert bytes(32) == GENESIS_HASH
    assert _take(Position(), VALUES[0], offset=5) == Taken(
        position=Position(offset=6, seq=1, hash=hashlib.sha256(VALUES[0]).digest())
    )


def test_hash_is_of_the_whole_value_frame_included() -> None:
    assert hash_of(VALUES[0]) == hashlib.sha256(VALUES[0]).digest()
    assert codec().decode_entry(VALUES[1]).prev_hash == hash_of(VALUES[0])


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_lower_seq_is_a_repeat_whatever_its_hash(seq: int) -> None:
    position = _position_after(3)
    assert _take(position, VALUES[seq - 1]) == Repeat()
    assert take(position, seq=seq, prev_hash=b"?" * 32, value=b"?", offset=9) == Repeat()


@pytest.mark.parametrize("seq", [5, 6, 8])
def test_higher_seq_is_ahead_and_names_the_missing_one(seq: int) -> None:
    assert _take(_position_after(3), VALUES[seq - 1]) == Ahead(missing_seq=4)


def test_next_seq_with_another_hash_is_a_broken_chain() -> None:
    position = _position_after(3)
    found = codec().decode_entry(FORGED[3]).prev_hash
    assert _take(position, FORGED[3]) == Broken(expected_hash=position.hash, found_hash=found)


def test_next_seq_with_the_hash_is_taken_and_the_offset_is_the_one_to_read_next() -> None:
    reading = _take(_position_after(3), VALUES[3], offset=70)
    assert reading == Taken(position=Position(offset=71, seq=4, hash=hash_of(VALUES[3])))


def _read(values: list[bytes]) -> list[Entry]:
    """Take what is next and drop the rest, as every reader does."""
    position, taken = Position(), []
    for offset, value in enumerate(values):
        match _take(position, value, offset):
            case Taken(position=position):
                taken.append(codec().decode_entry(value))
            case Broken():
                return taken
            case Repeat() | Ahead():
                pass
    return taken


@given(order=st.lists(st.integers(0, ENTRIES - 1), max_size=60))
def test_any_interleaving_of_repeats_and_gaps_keeps_a_prefix(order: list[int]) -> None:
    taken = _read([VALUES[at] for at in order])
    assert taken == [codec().decode_entry(value) for value in VALUES[: len(taken)]]


@given(order=st.lists(st.tuples(st.booleans(), st.integers(0, ENTRIES - 1)), max_size=60))
def test_two_histories_are_never_mixed(order: list[tuple[bool, int]]) -> None:
    taken = _read([(FORGED if forged else VALUES)[at] for forged, at in order])
    histories = [
        [codec().decode_entry(value) for value in values[: len(taken)]] for values in (VALUES, FORGED)
    ]
    assert taken in histories


@given(lost=st.sets(st.integers(0, ENTRIES - 1)))
def test_whatever_is_lost_and_published_again_the_whole_log_is_taken_once(lost: set[int]) -> None:
    first = [value for at, value in enumerate(VALUES) if at not in lost]
    assert _read(first + VALUES) == [codec().decode_entry(value) for value in VALUES]


@given(at=st.integers(0, ENTRIES - 2), byte=st.integers(5, 10_000), flip=st.integers(1, 255))
def test_changed_byte_of_the_past_is_noticed(at: int, byte: int, flip: int) -> None:
    """Whatever is changed in an entry, the next one does not follow it any more."""
    changed = bytearray(VALUES[at])
    changed[byte % len(changed)] ^= flip
    following = codec().decode_entry(VALUES[at + 1])
    assert following.prev_hash != hash_of(bytes(changed))


def test_forged_log_is_a_good_chain_of_its_own() -> None:
    assert len(_read(FORGED)) == ENTRIES
