"""Reads the log for people: from the router's table or from the topic, and always by the contract's one rule.

What is in the database is the origin, and what is in the topic is what every reader gets; whoever asks is told which
it was. Nothing is written here, and no position is kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition

from services.bus.kafka import Connection
from services.bus.ports import BusFailed
from services.contract.codec import Codec, NotReadable
from services.contract.entries import Ahead, Broken, Entry, Position, Repeat, Taken, take
from services.contract.events import Event

ROWS_AT_ONCE = 2_000
ANSWER_S = 10.0
SILENT_FOR_AT_MOST_S = 30.0
_POLL_S = 0.05


class Value(NamedTuple):
    """A record's value, and its offset in the topic (in the table, its place there)."""

    offset: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Where a reader can't go on: `seq` is the entry that it needed."""

    seq: int
    offset: int | None
    why: str
    is_missing: bool = False


@dataclass(slots=True, kw_only=True)
class Reader:
    """One reader of one partition, as protocol.md's rule 20 has it, which counts what it takes and drops."""

    codec: Codec
    position: Position = field(default_factory=Position)
    records: int = 0
    repeats: int = 0
    ahead: int = 0
    highest_seq: int = 0
    events: Counter[str] = field(default_factory=Counter)
    broken: Break | None = None

    def taken(self, values: Iterable[Value]) -> Iterator[tuple[Entry, Value]]:
        """Take what is next and drop what is not, until the end or the first break."""
        for item in values:
            self.records += 1
            try:
                entry = self.codec.decode_entry(item.value)
            except NotReadable as error:
                self._break(item.offset, f"a record that can't be read: {error}")
                return
            reading = take(
                self.position,
                seq=entry.seq,
                prev_hash=entry.prev_hash,
                value=item.value,
                offset=item.offset,
            )
            match reading:
                case Taken(position=position):
                    self.position = position
                    yield entry, item
                case Repeat():
                    self.repeats += 1
                case Ahead():
                    self.ahead += 1
                    self.highest_seq = max(self.highest_seq, entry.seq)
                case Broken():
                    self._break(
                        item.offset, f"entry {entry.seq} does not follow its predecessor: history was changed"
                    )
                    return

    def count_events(self, entry: Entry) -> None:
        """Count an entry's events by type, decoding each; an event that can't be read is a break."""
        try:
            self.events.update(type(event).__name__ for event in self.codec.events_of(entry))
        except NotReadable as error:
            self._break(None, f"entry {entry.seq} has an event that can't be read: {error}")

    def miss(self) -> None:
        """At the end: an entry that never came, while later ones did, is a break."""
        if self.broken is None and self.highest_seq > self.position.seq:
            why = f"the entry is missing, while there are later ones, up to {self.highest_seq}"
            self.broken = Break(seq=self.position.seq + 1, offset=None, why=why, is_missing=True)

    def _break(self, offset: int | None, why: str) -> None:
        self.broken = Break(seq=self.position.seq + 1, offset=offset, why=why)


class LogTopic:
    """Reads partitions of `leads.log`, each from its beginning to its end as it is when the reading begins."""

    def __init__(self, connection: Connection, topic: str) -> None:
        """Take where it is; close it by leaving its `with`."""
        self.topic = topic
        self._consumer = Consumer(
            connection.librdkafka(
                group_id="none",  # required by the client; nothing is subscribed or committed
                enable_auto_commit=False,
                auto_offset_reset="error",
                fetch_wait_max_ms=20,
            )
        )

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def partitions(self) -> int:
        """Count the partitions; 0 where there is no such topic."""
        found = self._consumer.list_topics(self.topic, timeout=ANSWER_S).topics.get(self.topic)
        return len(found.partitions) if found is not None and found.error is None else 0

    def read(self, partition: int) -> Iterator[Value]:
        """Read one partition; raise `BusFailed` where Kafka does not answer."""
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), timeout=ANSWER_S
            )
            self._consumer.assign([TopicPartition(self.topic, partition, low)])
            yield from self._until(partition, low, high)
        except KafkaException as error:
            raise BusFailed(f"{self.topic}: {error}") from error

    def _until(self, partition: int, low: int, high: int) -> Iterator[Value]:
        at, heard_at_s = low, time.monotonic()
        while at < high:
            messages = self._consumer.consume(ROWS_AT_ONCE, _POLL_S)
            if messages:
                heard_at_s = time.monotonic()
            elif time.monotonic() - heard_at_s > SILENT_FOR_AT_MOST_S:
                raise BusFailed(
                    f"{self.topic} partition {partition}: nothing came for {SILENT_FOR_AT_MOST_S:.0f} s"
                )
            for message in messages:
                error, offset = message.error(), message.offset()
                if error is not None or offset is None:
                    raise BusFailed(f"{self.topic} partition {partition}: {error}")
                if offset < high:
                    yield Value(offset, message.value() or b"")
                at = offset + 1


class LogTable:
    """Reads partitions of `router.log`, the origin, as far back as it goes."""

    def __init__(self, connection: psycopg.Connection) -> None:
        """Take a connection that may read it."""
        self._connection = connection

    def has_all(self, partition: int) -> bool:
        """Tell whether the partition's first entry is there still (older ranges are dropped in time)."""
        row = self._connection.execute(
            "select h.seq = 0 or exists (select from router.log where partition = h.partition and seq = 1) "
            "from router.heads h where h.partition = %s",
            [partition],
        ).fetchone()
        return row is not None and bool(row[0])

    def read(self, partition: int, *, from_seq: int = 1) -> Iterator[Value]:
        """Read a partition's entries in order."""
        after = from_seq - 1
        while rows := self._page(partition, after):
            for seq, value in rows:
                yield Value(seq, value)
            after = rows[-1][0]

    def read_lead(self, partition: int, lead_id: str) -> Iterator[Value]:
        """Read the entries about one lead that are there still, in order."""
        rows = self._connection.execute(
            "select seq, value from router.log where partition = %s and lead_id = %s order by seq",
            [partition, lead_id],
        )
        for seq, value in rows:
            yield Value(seq, bytes(value))

    def _page(self, partition: int, after: int) -> Sequence[tuple[int, bytes]]:
        found = self._connection.execute(
            "select seq, value from router.log where partition = %s and seq > %s order by seq limit %s",
            [partition, after, ROWS_AT_ONCE],
        ).fetchall()
        return [(seq, bytes(value)) for seq, value in found]


def entries_of(lead_id: str, values: Iterable[Value], reader: Reader) -> list[tuple[Entry, Sequence[Event]]]:
    """Take a whole partition, and keep what is about one lead."""
    return [
        (entry, reader.codec.events_of(entry))
        for entry, _ in reader.taken(values)
        if entry.lead_id == lead_id
    ]
