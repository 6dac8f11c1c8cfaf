"""Makes the messages that follow from a committed batch: records for the router, receipts, dead letters.

Everything here is a function of what was committed and read; a replay makes the same messages again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from services.bus.dead_letters import attempts_of, dead_letter
from services.bus.ports import Message, TopicPartition
from services.contract.codec import Codec
from services.contract.ids import partition_of
from services.contract.topics import Topics, partitions_declared
from services.intake.answers import Answered
from services.intake.domain import Accepted, Replayed, Verdict
from services.intake.reading import Dead, Submitted
from services.intake.receipts import receipt_headers, receipt_json

RECEIPTS_PARTITION = 0
"""A source's receipts have one partition: one order for all that it is told."""

STAGE = "intake"


class Letter(NamedTuple):
    """A message to an outsider, and the partition whose record it answers."""

    message: Message
    answers: TopicPartition


def qualified(
    decided: Iterable[tuple[Submitted, Verdict]],
    records: Mapping[str, bytes],
    topics: Topics,
    partitions: int,
) -> list[Message]:
    """Emit the leads of a batch: those accepted, and those accepted before that may not have been emitted."""
    messages = []
    for submitted, verdict in decided:
        lead_id = submitted.identity.lead_id
        match verdict:
            case Accepted():
                messages.append(_inside(topics.qualified, lead_id, records[lead_id], partitions))
            case Replayed(record):
                messages.append(_inside(topics.qualified, lead_id, record, partitions))
            case _:
                pass
    return messages


def commands(answers: Iterable[Answered], codec: Codec, topics: Topics, partitions: int) -> list[Message]:
    """Pass on the answers of buyers, re-keyed by lead."""
    return [_inside(topics.commands, answer.lead_id, codec.encode(answer), partitions) for answer in answers]


def receipts(decided: Iterable[tuple[Submitted, Verdict]], topics: Topics) -> list[Letter]:
    """Tell each source what became of each of its submissions."""
    return [
        Letter(
            Message(
                topics.source_receipts(submitted.identity.source_id),
                RECEIPTS_PARTITION,
                submitted.identity.lead_id.encode(),
                receipt_json(submitted.identity, verdict),
                receipt_headers(submitted.identity, verdict),
            ),
            TopicPartition(submitted.topic, submitted.identity.origin.partition),
        )
        for submitted, verdict in decided
    ]


def dead_letters(dead: Iterable[Dead], topics: Topics, at_ms: int) -> list[Letter]:
    """Put aside what nobody can read, byte for byte."""
    return [
        Letter(
            dead_letter(
                record,
                topic=topics.dead_letters(record.topic),
                partitions=_letters_partitions(topics, record.topic),
                stage=STAGE,
                error_class="Undecodable",
                message=reason,
                attempts=attempts_of(record),
                at_ms=at_ms,
            ),
            TopicPartition(record.topic, record.partition),
        )
        for record, reason in dead
    ]


def _letters_partitions(topics: Topics, topic: str) -> int:
    """Give the partition count that a topic's dead letters are declared with, whatever the topic itself has by now."""
    owner = topics.owner_of(topic)
    assert owner is not None, f"{topic} is no outsider's"
    return partitions_declared(f"{owner[0]}.<id>.{owner[2]}")


def _inside(topic: str, lead_id: str, record: bytes, partitions: int) -> Message:
    return Message(topic, partition_of(lead_id, partitions), lead_id.encode(), record)
