"""Publishes committed entries again, from the bytes that the database has (protocol.md, rule 20).

It sends nothing but what was published before, so that a reader drops what it has and finds what it missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import psycopg

from services.bus.kafka import LogProducer
from services.bus.ports import Message
from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.log_reading import ROWS_AT_ONCE, LogTable, Value
from services.cli.surroundings import connect_as_auditor
from services.contract.codec import codec
from services.contract.entries import Entry, Position, hash_of

PUBLISH_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the database says of a partition."""

    seq: int
    hash: bytes
    published_seq: int


def publish_last_again(found: StepSettings, partition: int) -> int:
    """Publish a partition's last published entry again, so that its topic ends with an entry; count it, if any."""
    with connect_as_auditor(found.database) as connection:
        head = heads_of(connection).get(partition)
        if head is None or not head.published_seq:
            return 0
        last = head.published_seq
        return publish(found, messages_of(LogTable(connection), found.topics.log, partition, last, last))


def chained(values: Iterator[Value], from_seq: int) -> Iterator[tuple[Entry, bytes]]:
    """Let a table's entries through as long as each follows its predecessor; raise `Complaint` where one does not."""
    position: Position | None = None
    for offset, value in values:
        entry = codec().decode_entry(value)
        expected = from_seq if position is None else position.seq + 1
        if entry.seq != expected or (position is not None and entry.prev_hash != position.hash):
            raise Complaint(
                f"router.log has no entry {expected} that follows its predecessor: nothing from there on is published.",
                "Rows are dropped a week after they were published; then the topic is the only copy.",
            )
        position = Position(offset=offset, seq=entry.seq, hash=hash_of(value))
        yield entry, value


def messages_of(table: LogTable, topic: str, partition: int, from_seq: int, to_seq: int) -> Iterator[Message]:
    """Write a partition's entries as records, from one to another."""
    values = (item for item in table.read(partition, from_seq=from_seq))
    for entry, value in chained(values, from_seq):
        if entry.seq > to_seq:
            return
        yield Message(topic, partition, entry.lead_id.encode(), value)


def publish(found: StepSettings, messages: Iterator[Message]) -> int:
    """Send them to the log, and count them; raise `BusFailed`."""
    # Nobody else may write the log.
    producer = LogProducer(found.as_insider("router").connection(), client_id="gavel-republish")
    count = 0
    while batch := list(islice(messages, ROWS_AT_ONCE)):
        producer.publish(batch, timeout_s=PUBLISH_S)
        count += len(batch)
    return count


def heads_of(connection: psycopg.Connection) -> Mapping[int, Head]:
    """Read all heads."""
    rows = connection.execute("select partition, seq, hash, published_seq from router.heads")
    return {
        partition: Head(seq=seq, hash=bytes(digest), published_seq=published_seq)
        for partition, seq, digest, published_seq in rows
    }
