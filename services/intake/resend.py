"""Emits again the leads that were accepted and that the log has not listed (protocol.md, rule 24).

It reads the log by the contract's rule, however long that is, in bounded memory: which leads are listed is put into
the database, and compared there. To emit a lead once too often is harmless; the router refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import psycopg
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from services.bus.database import NOW_MS
from services.bus.kafka import Connection, record_of
from services.bus.liveness import monotonic_s
from services.bus.ports import BusFailed, Message, Producer, Record, Stopped
from services.contract.codec import Codec, stored_schemas
from services.contract.entries import Broken, Entry, Position, Taken, take
from services.contract.ids import partition_of
from services.contract.topics import Topics

AT_ONCE = 1_000
_POLL_S = 0.2
_SILENT_FOR_AT_MOST_S = 30.0
_ANSWER_S = 10.0

_CREATE = "create temporary table listed (lead_id uuid not null)"
_COPY = "copy listed (lead_id) from stdin"
_COUNT = f"""
select count(*) from intake.all_leads
where received_at_ms < {NOW_MS} - %s
"""
_UNLISTED = f"""
select lead_id::text, record from intake.all_leads as lead
where received_at_ms < {NOW_MS} - %s
    and not exists (select from listed where listed.lead_id = lead.lead_id)
order by received_at_ms, lead_id
"""


class Unlisted(NamedTuple):
    """An accepted lead that the log has not listed, and its record."""

    lead_id: str
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resent:
    """What a resend found: leads accepted long enough ago, and those of them that the log has not listed."""

    accepted: int
    unlisted: int


class Accepted(Protocol):
    """The accepted leads, and a place to note which of them are listed."""

    def note_listed(self, lead_ids: Sequence[str]) -> None:
        """Note that the log lists these leads."""
        ...

    def count(self) -> int:
        """Count the leads that were accepted long enough ago to be listed."""
        ...

    def unlisted(self) -> Iterator[Sequence[Unlisted]]:
        """Read those that were not noted, oldest first, by batch."""
        ...


def resend(
    listed: Iterable[Sequence[str]],
    accepted: Accepted,
    producer: Producer,
    topics: Topics,
    partitions: int,
    *,
    dry_run: bool = False,
) -> Resent:
    """Emit what `listed` (the log's lead ids, by batch) leaves out; with `dry_run` only count it."""
    for lead_ids in listed:
        accepted.note_listed(lead_ids)
    count = 0
    for batch in accepted.unlisted():
        count += len(batch)
        if not dry_run:
            producer.publish([_message(lead, topics, partitions) for lead in batch])
    return Resent(accepted=accepted.count(), unlisted=count)


def _message(lead: Unlisted, topics: Topics, partitions: int) -> Message:
    partition = partition_of(lead.lead_id, partitions)
    return Message(topics.qualified, partition, lead.lead_id.encode(), lead.record)


def listed_leads(batches: Iterable[Sequence[Record]], codec: Codec) -> Iterator[Sequence[str]]:
    """Take the entries of the log, and name the leads that they list; raise `Stopped` where history was changed."""
    positions: dict[int, Position] = {}
    listings = frozenset(schema.id for schema in stored_schemas() if schema.type == "LeadListed")
    for records in batches:
        entries = (_taken(record, positions, codec) for record in records)
        yield [
            entry.lead_id
            for entry in entries
            if entry is not None and any(event.schema_id in listings for event in entry.events)
        ]


def _taken(record: Record, positions: dict[int, Position], codec: Codec) -> Entry | None:
    entry = codec.decode_entry(record.value)
    assert record.value is not None
    reading = take(
        positions.get(record.partition, Position()),
        seq=entry.seq,
        prev_hash=entry.prev_hash,
        value=record.value,
        offset=record.offset,
    )
    match reading:
        case Taken(position=position):
            positions[record.partition] = position
            return entry
        case Broken():
            raise Stopped(
                f"{record.topic} partition {record.partition}, offset {record.offset}: entry {entry.seq} does not "
                "follow its predecessor. History was changed: find out by whom before you go on"
            )
        case _:
            return None


class AcceptedLeads:
    """`Accepted` in the database, as far as one connection sees it."""

    def __init__(self, connection: psycopg.Connection, older_than_ms: int) -> None:
        """Take a connection as `gavel_intake` without a limit on its transactions; make the place for notes."""
        self._connection = connection
        self._older_than_ms = older_than_ms
        connection.execute(_CREATE)

    def note_listed(self, lead_ids: Sequence[str]) -> None:
        """See `Accepted`."""
        with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write("".join(f"{lead_id}\n" for lead_id in lead_ids))

    def count(self) -> int:
        """See `Accepted`."""
        row = self._connection.execute(_COUNT, (self._older_than_ms,)).fetchone()
        assert row is not None, "a count has a row"
        return int(row[0])

    def unlisted(self) -> Iterator[Sequence[Unlisted]]:
        """See `Accepted`."""
        self._connection.execute("analyze listed")
        with self._connection.transaction(), self._connection.cursor(name="unlisted") as cursor:
            cursor.execute(_UNLISTED, (self._older_than_ms,))
            while rows := cursor.fetchmany(AT_ONCE):
                yield [Unlisted(lead_id, bytes(record)) for lead_id, record in rows]


@contextmanager
def open_log(connection: Connection, topic: str) -> Iterator[Iterator[Sequence[Record]]]:
    """Read the log from its beginning to where it ends now, by batch; raise `BusFailed` when Kafka falls silent."""
    consumer = Consumer(
        connection.librdkafka(
            client_id="gavel-resend",
            group_id="none",  # required by the client; nothing is subscribed or committed
            enable_auto_commit=False,
            auto_offset_reset="error",
            queued_max_messages_kbytes=16_384,
        )
    )
    try:
        yield _batches(consumer, topic)
    except KafkaException as error:
        raise BusFailed(f"{topic}: {error}") from error
    finally:
        consumer.close()


def _batches(consumer: Consumer, topic: str) -> Iterator[Sequence[Record]]:
    ends = _ends(consumer, topic)
    consumer.assign([KafkaTopicPartition(topic, at, 0) for at in ends])
    left = {at for at, end in ends.items() if end > 0}
    heard_at_s = monotonic_s()
    while left:
        records = _consumed(consumer, topic)
        if records:
            heard_at_s = monotonic_s()
            yield [record for record in records if record.offset < ends[record.partition]]
            left -= {record.partition for record in records if record.offset >= ends[record.partition] - 1}
        elif monotonic_s() - heard_at_s > _SILENT_FOR_AT_MOST_S:
            raise BusFailed(f"{topic}: Kafka has sent nothing for {_SILENT_FOR_AT_MOST_S:.0f} s")


def _ends(consumer: Consumer, topic: str) -> dict[int, int]:
    found = consumer.list_topics(topic, timeout=_ANSWER_S).topics.get(topic)
    if found is None or found.error is not None:
        raise BusFailed(f"{topic} is missing")
    return {
        at: consumer.get_watermark_offsets(KafkaTopicPartition(topic, at), timeout=_ANSWER_S)[1]
        for at in found.partitions
    }


def _consumed(consumer: Consumer, topic: str) -> list[Record]:
    messages = consumer.consume(AT_ONCE, _POLL_S)
    for message in messages:
        error = message.error()
        if error is not None:
            raise BusFailed(f"{topic}: {error.str()}")
    return [record_of(message) for message in messages]
