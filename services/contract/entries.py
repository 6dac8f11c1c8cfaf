"""Entries of the log, how they are chained, and the one rule by which every reader takes them.

The rule (`take`) is protocol.md's rule 20 and the only way in which Gavel reads its log: the next `seq` whose
`prev_hash` is the reader's, and nothing else. This module does no IO and knows no clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from services.contract.records import quickly_made

GENESIS_HASH = bytes(32)
"""`prev_hash` of a partition's first entry."""


class CauseKind(StrEnum):
    """Which input an entry decides."""

    QUALIFIED = "qualified"
    COMMAND = "command"
    TIMER = "timer"
    ROUTER = "router"


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The input that an entry decides: its topic by kind, and its offset there (-1 for the router's own)."""

    kind: CauseKind
    offset: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class EventBody:
    """An event as bytes: the id of the schema it was written with, and its Avro body without a frame.

    Not a union in the entry's schema, because old readers of a union break at the first new event type.
    """

    schema_id: int
    body: bytes


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One atomic record of the log: all that was decided about one lead for one cause."""

    seq: int
    prev_hash: bytes
    cause: Cause
    market_version: int
    no_room: tuple[str, ...]
    lead_id: str
    decided_at_ms: int
    events: tuple[EventBody, ...]


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a reader has taken one partition: the offset to read next, and the last entry's seq and hash."""

    offset: int = 0
    seq: int = 0
    hash: bytes = GENESIS_HASH


@dataclass(frozen=True, slots=True)
class Taken:
    """The record is the next entry; the reader's position is now this."""

    position: Position


@dataclass(frozen=True, slots=True)
class Repeat:
    """The record repeats an entry taken before: drop it."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """The record is further than the next entry: drop it, and stop if the next does not come."""

    missing_seq: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The record claims to be the next entry and does not follow the last one: stop at once."""

    expected_hash: bytes
    found_hash: bytes


Reading: TypeAlias = Taken | Repeat | Ahead | Broken


def hash_of(value: bytes) -> bytes:
    """Hash a record's value, frame included: the next entry's `prev_hash` (SHA-256, 32 bytes)."""
    return hashlib.sha256(value).digest()


def take(position: Position, *, seq: int, prev_hash: bytes, value: bytes, offset: int) -> Reading:
    """Say what a reader at `position` does with the record at `offset` (protocol.md, rule 20)."""
    if seq <= position.seq:
        return Repeat()
    if seq > position.seq + 1:
        return Ahead(missing_seq=position.seq + 1)
    if prev_hash != position.hash:
        return Broken(expected_hash=position.hash, found_hash=prev_hash)
    return Taken(position=Position(offset=offset + 1, seq=seq, hash=hash_of(value)))
