"""Sorts what was read from outsiders' topics: submissions, commands, and what is neither.

It must not ask the market or a table. An outsider is who owns the topic, whatever a record says. After too many dead
letters in a row an outsider's topic rests: what stands behind them is left unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.bus.ports import Record, TopicPartition
from services.contract.identity import IdentityKeys, reference_of
from services.contract.topics import Topics
from services.intake.answers import Answered, read_answer
from services.intake.domain import Identity, Origin
from services.intake.submission import Undecodable, read_document

DEAD_LETTERS_IN_A_ROW_MAX = 100


class Submitted(NamedTuple):
    """A JSON object from a source, and which lead it is."""

    identity: Identity
    body: dict[str, Any]
    topic: str


class Dead(NamedTuple):
    """A record that nobody can read, and why, without a word of it."""

    record: Record
    reason: str


@dataclass(slots=True)
class Sorted:
    """A batch, sorted. `next_offsets`: behind the last record taken; `dead_in_a_row` is each topic's count by then."""

    submitted: list[Submitted] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    dead_in_a_row: dict[str, int] = field(default_factory=dict)
    exhausted: set[str] = field(default_factory=set)


def sort(
    records: Iterable[Record], dead_in_a_row: Mapping[str, int], topics: Topics, keys: IdentityKeys
) -> Sorted:
    """Read a batch in its order, up to where the patience with a topic ends."""
    found = Sorted(dead_in_a_row=dict(dead_in_a_row))
    owners: dict[str, tuple[str, str]] = {}
    for record in records:
        topic = record.topic
        if topic in found.exhausted:
            continue
        owner = owners.get(topic) or owners.setdefault(topic, _owner(topics, topic))
        _take(record, owner, keys, found)
        found.next_offsets[TopicPartition(topic, record.partition)] = record.offset + 1
    return found


def _owner(topics: Topics, topic: str) -> tuple[str, str]:
    """Name the outsider that alone may write to a topic."""
    owner = topics.owner_of(topic)
    assert owner is not None, f"{topic} is no outsider's"
    role, outsider_id, _ = owner
    return role, outsider_id


def _take(record: Record, owner: tuple[str, str], keys: IdentityKeys, found: Sorted) -> None:
    role, outsider_id = owner
    try:
        if role == "sources":
            found.submitted.append(_submitted(record, outsider_id, keys))
        else:
            found.answers.append(
                read_answer(record.value, buyer_id=outsider_id, answered_at_ms=record.timestamp_ms)
            )
    except Undecodable as reason:
        _bury(record, str(reason), found)
    else:
        found.dead_in_a_row[record.topic] = 0


def _submitted(record: Record, source_id: str, keys: IdentityKeys) -> Submitted:
    document = read_document(record.value)
    payload_hash = keys.payload_hash(document.canonical)
    reference = reference_of(document.body)
    identity = Identity(
        lead_id=keys.lead_id(source_id, reference, payload_hash),
        source_id=source_id,
        origin=Origin(partition=record.partition, offset=record.offset),
        payload_hash=payload_hash,
        reference=reference,
        received_at_ms=record.timestamp_ms,
    )
    return Submitted(identity, document.body, record.topic)


def _bury(record: Record, reason: str, found: Sorted) -> None:
    found.dead.append(Dead(record, reason))
    in_a_row = found.dead_in_a_row.get(record.topic, 0) + 1
    found.dead_in_a_row[record.topic] = in_a_row
    if in_a_row >= DEAD_LETTERS_IN_A_ROW_MAX:
        found.exhausted.add(record.topic)
