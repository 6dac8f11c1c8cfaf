"""Kafka as sources and buyers have it: through kafka-python, a client that shares nothing with Gavel's own.

It knows topics and bytes, and no record's meaning. Positions are nobody's: every reading says where it begins.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from services.bus.kafka import Connection
from services.cli.complaints import Complaint

CONNECT_MS = 10_000
POLL_MS = 200
POLLED_MAX = 2_000
IN_FLIGHT_MAX = 5_000
_FLUSH_S = 30.0

# It tells its log of every connection refused; what matters of that is raised, and told once.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class Received(NamedTuple):
    """A record as an outsider reads it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes]
    timestamp_ms: int


class Outbox:
    """Sends records to some topics, and counts what was acknowledged."""

    def __init__(self, connection: Connection, topics: Collection[str]) -> None:
        """Connect; raise `Complaint` where there is no such topic."""
        require_topics(connection, topics)
        self._pending: deque[Any] = deque()
        self._producer = KafkaProducer(
            **connection.kafka_python(), client_id="gavel-outsider", max_block_ms=CONNECT_MS, linger_ms=5
        )
        self.acknowledged = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all acknowledgements, unless something went wrong already."""
        try:
            if kind is None:
                self.settle()
        finally:
            self._producer.close(timeout=1.0)

    def send(self, topic: str, value: bytes, *, key: bytes | None = None) -> None:
        """Send one record; now and then, wait for the earlier ones."""
        self._pending.append((topic, self._producer.send(topic, value=value, key=key)))
        while len(self._pending) > IN_FLIGHT_MAX:
            self._settle_one()

    def settle(self) -> None:
        """Wait until everything that was sent is acknowledged; raise `Complaint` where it can't be."""
        self._producer.flush(timeout=_FLUSH_S)
        while self._pending:
            self._settle_one()

    def _settle_one(self) -> None:
        topic, sent = self._pending.popleft()
        try:
            sent.get(timeout=_FLUSH_S)
        except KafkaError as error:
            raise Complaint(
                f"{topic}: a record was not acknowledged after {self.acknowledged} that were: {error}",
                "Sending it all again is safe: a lead sent again is the same lead.",
            ) from error
        self.acknowledged += 1


def require_topics(connection: Connection, topics: Collection[str]) -> None:
    """Raise `Complaint` where there is no such topic, or none that this user may see."""
    consumer = _consumer(connection)
    try:
        for topic in topics:
            _partitions(consumer, topic)
    finally:
        consumer.close()


def read(
    connection: Connection,
    topics: Collection[str],
    *,
    from_beginning: bool = True,
    follow: bool = False,
    ended: Callable[[], bool] = lambda: False,
) -> Iterator[Sequence[Received]]:
    """Read topics as they come, batch by batch; to their end as it is now, or, with `follow`, until `ended`.

    A batch is empty where nothing has come for a moment. Raise `Complaint` where there is no such topic.
    """
    consumer = _consumer(connection)
    try:
        partitions = [where for topic in topics for where in _partitions(consumer, topic)]
        consumer.assign(partitions)
        left = consumer.end_offsets(partitions)
        for where in partitions:
            consumer.seek(where, 0 if from_beginning else left[where])
        if from_beginning:
            consumer.seek_to_beginning(*partitions)
        while follow or any(consumer.position(where) < end for where, end in left.items()):
            polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLLED_MAX)
            yield [
                _received(record)
                for where, records in polled.items()
                for record in records
                if follow or record.offset < left[where]
            ]
            if ended():
                return
    finally:
        consumer.close()


def _consumer(connection: Connection) -> KafkaConsumer:
    return KafkaConsumer(
        **connection.kafka_python(),
        client_id="gavel-outsider",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        bootstrap_timeout_ms=CONNECT_MS,
        fetch_max_wait_ms=50,
    )


def _partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    found = consumer.partitions_for_topic(topic)
    if not found:
        raise Complaint(
            f"There is no topic {topic}.",
            "`gavel market apply` makes the topics of the market's sources and buyers; `gavel market show` has their "
            "names.",
        )
    return [TopicPartition(topic, partition) for partition in sorted(found)]


def _received(record: Any) -> Received:
    return Received(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value or b"",
        dict(record.headers or ()),
        record.timestamp,
    )
