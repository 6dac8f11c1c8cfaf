"""Kafka through confluent-kafka: how clients are set up, and the two producers that write batches.

It knows no step and no rule of the trade. `services.bus.pump` reads with the consumer that is set up here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
)
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from services.bus.faults import answer_to
from services.bus.ports import (
    BusFailed,
    Message,
    PassingFault,
    Record,
    Sending,
    TopicPartition,
    Unacknowledged,
)
from services.contract.events import FailureReason

OUTSIDERS_TIMEOUT_S = 1.0
"""What a buyer's or source's topic has not acknowledged by then counts as not delivered (protocol.md, rule 17)."""

_FLUSH_SLICE_S = 1.0
_PURGE_FOR_AT_MOST_S = 1.0
_REPORTED_WITHIN_S = 0.05
_CHUNK = 2_000
"""So many messages are in a producer's queue at most: it never fills up, which would break their order."""

_LIBRARY_LOG = logging.getLogger("librdkafka")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach a cluster: brokers to begin with, and librdkafka properties for SASL and TLS."""

    bootstrap: str
    properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def librdkafka(self, **own: Any) -> dict[str, Any]:
        """Configure a confluent-kafka client; `own` properties are written with `_` for `.` and win."""
        return {
            **dict(self.properties),
            "bootstrap.servers": self.bootstrap,
            "allow.auto.create.topics": False,
            "log_level": 4,
            "logger": _LIBRARY_LOG,
            **{name if callable(value) else name.replace("_", "."): value for name, value in own.items()},
        }

    def kafka_python(self) -> dict[str, Any]:
        """Configure a kafka-python client; raise `ValueError` for a property that it has no word for."""
        own = {_KAFKA_PYTHON[name]: value for name, value in _known(self.properties, _KAFKA_PYTHON).items()}
        return {"bootstrap_servers": self.bootstrap.split(","), **own}


_KAFKA_PYTHON: Mapping[str, str] = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
}


def _known(properties: tuple[tuple[str, str], ...], words: Mapping[str, str]) -> dict[str, str]:
    unknown = [name for name, _ in properties if name not in words]
    if unknown:
        raise ValueError(f"Kafka properties that not every client of Gavel understands: {', '.join(unknown)}")
    return dict(properties)


def read_properties(text: str) -> tuple[tuple[str, str], ...]:
    """Read librdkafka properties, `key=value` a line, `#` for comments; raise `ValueError` with the line's number."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"line {number} is not key=value")
        found.append((name.strip(), value.strip()))
    return tuple(found)


class LogProducer:
    """The producer that loses nothing: for our own topics.

    Idempotent, without a timeout of its own; any delivery error ends the worker (`BusFailed`), which starts again from
    its database, because librdkafka may skip a message that failed and still send the next.
    """

    def __init__(self, connection: Connection, *, client_id: str = "gavel") -> None:
        """Connect in the background; the first `publish` finds out whether Kafka answers."""
        self._errors: list[KafkaError] = []
        self._producer = Producer(
            connection.librdkafka(
                client_id=client_id,
                enable_idempotence=True,
                acks="all",
                message_timeout_ms=0,
                topic_metadata_propagation_max_ms=10_000,
                delivery_report_only_error=True,
                on_delivery=self._on_delivery,
                error_cb=self._on_error,
                **_BATCHES,
            )
        )

    def publish(
        self, messages: Sequence[Message], *, timeout_s: float | None = None
    ) -> Sequence[Unacknowledged]:
        """Write all in order and return when all are acknowledged; raise `BusFailed` where that cannot be.

        A `timeout_s` is a limit after which it raises, too: nothing may be left behind here.
        """
        return self.send(messages, timeout_s=timeout_s).wait()

    def send(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> Sending:
        """Begin to write all in order; see `publish` for what waiting for it does."""
        ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s
        for start in range(0, len(messages), _CHUNK):
            if start:
                self._flush(ends_at_s)
            self._write(messages[start : start + _CHUNK])
        return _Sending(lambda: self._flushed(ends_at_s))

    def _flushed(self, ends_at_s: float | None) -> Sequence[Unacknowledged]:
        self._flush(ends_at_s)
        return ()

    def _write(self, messages: Sequence[Message]) -> None:
        """Queue them one by one: `produce_batch` is cheaper and ignores the partition of a message (2.16)."""
        produce = self._producer.produce
        for topic, partition, key, value, headers, timestamp_ms in messages:
            try:
                produce(topic, value, key, partition, timestamp=timestamp_ms, headers=list(headers))
            except (KafkaException, BufferError) as error:
                raise BusFailed(f"{topic}: Kafka's client did not take a record: {error}") from error

    def _flush(self, ends_at_s: float | None) -> None:
        while True:
            left = self._producer.flush(_slice_s(ends_at_s))
            if self._errors:
                raise BusFailed(f"a record could not be written: {self._errors[0]}")
            if not left:
                return
            if ends_at_s is not None and time.monotonic() >= ends_at_s:
                raise BusFailed(f"{left} records were not acknowledged in time")

    def _on_delivery(self, error: KafkaError | None, _message: KafkaMessage) -> None:
        if error is not None:
            self._errors.append(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._errors.append(error)


class OutsiderProducer:
    """The producer that gives up in time: for topics of sources and buyers.

    After `publish` every message is either acknowledged or reported. Nothing is tried again here: what failed is
    retried from the database alone, in its order, so that no late retry of librdkafka overtakes a later record. A
    paused process that wakes up sends at most the request to each broker that it was just writing; the rest is too old.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout_s: float = OUTSIDERS_TIMEOUT_S,
        client_id: str = "gavel",
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        """Connect in the background. `timeout_s` must be below the group's session timeout (protocol.md, rule 15).

        `may_send` (a worker's `Liveness.alive`) is asked at every record, since a worker may be paused on any line.
        """
        self._timeout_s = timeout_s
        self._may_send = may_send
        self._producer = Producer(
            connection.librdkafka(
                client_id=client_id,
                acks="all",
                retries=0,
                message_timeout_ms=int(timeout_s * 1_000),
                topic_metadata_propagation_max_ms=0,
                delivery_report_only_error=True,
                **_BATCHES,
            )
        )

    def publish(
        self, messages: Sequence[Message], *, timeout_s: float | None = None
    ) -> Sequence[Unacknowledged]:
        """Write all in order; return those not acknowledged within `timeout_s` (the producer's own by default)."""
        return self.send(messages, timeout_s=timeout_s).wait()

    def send(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> Sending:
        """Begin to write all in order; see `publish` for what waiting for it does."""
        ends_at_s = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        failed: dict[int, KafkaError] = {}
        for start in range(0, len(messages), _CHUNK):
            if start:
                self._flush(ends_at_s)
            self._write(messages, range(start, min(start + _CHUNK, len(messages))), failed)
        return _Sending(lambda: self._sent(messages, failed, ends_at_s))

    def _sent(
        self, messages: Sequence[Message], failed: dict[int, KafkaError], ends_at_s: float
    ) -> Sequence[Unacknowledged]:
        self._flush(ends_at_s)
        permanent = self._too_large(messages, failed, ends_at_s) if failed else frozenset()
        return [_unacknowledged(index, failed[index], index in permanent) for index in sorted(failed)]

    def _too_large(
        self, messages: Sequence[Message], failed: dict[int, KafkaError], ends_at_s: float
    ) -> frozenset[int]:
        """Find which records are too large by themselves: a broker refuses all that travel in one request with it."""
        refused = [index for index, error in failed.items() if error.code() == KafkaError.MSG_SIZE_TOO_LARGE]
        found = []
        for index in sorted(refused):
            if time.monotonic() >= ends_at_s:
                break
            del failed[index]
            self._write(messages, range(index, index + 1), failed)
            self._flush(ends_at_s)
            if index in failed and failed[index].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                found.append(index)
        return frozenset(found)

    def _write(self, messages: Sequence[Message], indexes: range, failed: dict[int, KafkaError]) -> None:
        produce, may_send = self._producer.produce, self._may_send
        for index in indexes:
            topic, partition, key, value, headers, timestamp_ms = messages[index]
            if not may_send():
                failed[index] = KafkaError(
                    KafkaError._FENCED, "this worker may not be its partitions' owner any more"
                )
                continue
            try:
                produce(
                    topic,
                    value,
                    key,
                    partition,
                    partial(_note, failed, index),
                    timestamp=timestamp_ms,
                    headers=list(headers),
                )
            except KafkaException as error:
                failed[index] = error.args[0]
            except BufferError:
                failed[index] = KafkaError(KafkaError._QUEUE_FULL)

    def _flush(self, ends_at_s: float) -> None:
        """Wait until nothing is left; at the deadline take back what is (what is in flight may still arrive).

        Whoever asks after the deadline is told what has become of it by then, which is all: no message lives longer.
        """
        if self._producer.flush(max(_REPORTED_WITHIN_S, ends_at_s - time.monotonic())):
            self._producer.purge()
            if self._producer.flush(_PURGE_FOR_AT_MOST_S):
                raise BusFailed("Kafka's client does not give back what it could not send")


@dataclass(frozen=True, slots=True)
class _Sending:
    """A batch that librdkafka has in its queue."""

    wait: Callable[[], Sequence[Unacknowledged]]


def _note(
    failed: dict[int, KafkaError], index: int, error: KafkaError | None, _message: KafkaMessage
) -> None:
    if error is not None:
        failed[index] = error


def _unacknowledged(index: int, error: KafkaError, too_large: bool) -> Unacknowledged:
    permanent = FailureReason.RECORD_TOO_LARGE if too_large else None
    return Unacknowledged(index, permanent, f"{error.name()}: {error.str()}")


def _slice_s(ends_at_s: float | None) -> float:
    """Wait in slices, so that a signal is noticed."""
    return (
        _FLUSH_SLICE_S if ends_at_s is None else min(_FLUSH_SLICE_S, max(0.0, ends_at_s - time.monotonic()))
    )


_BATCHES: Mapping[str, Any] = {
    # A flush sends at once, whatever the linger; without it the first records of a batch would travel one by one.
    # Nobody may be waiting yet (`send`), so it is short.
    "linger_ms": 1,
    "queue_buffering_max_messages": 10 * _CHUNK,
    "queue_buffering_max_kbytes": 1_048_576,
    "socket_nagle_disable": True,
    "metadata_max_age_ms": 60_000,
}


_ASKS_EVERY_MS = 50
_GATHERS_BYTES = 131_072
"""Some hundred entries of the log: as many as make a step's batch."""


def open_consumer(
    connection: Connection,
    *,
    group: str,
    client_id: str,
    session_timeout_ms: int,
    max_poll_interval_ms: int,
    gathers_ms: int = 0,
    **callbacks: Any,
) -> Consumer:
    """Make the consumer of a hosted step: positions are the step's, so nothing is committed or reset by itself.

    `gathers_ms`: so long the broker may wait for more before it answers (0: not at all).
    """
    return Consumer(
        connection.librdkafka(
            client_id=client_id,
            group_id=group,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=max(100, session_timeout_ms // 4),
            max_poll_interval_ms=max_poll_interval_ms,
            partition_assignment_strategy="cooperative-sticky",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="error",
            isolation_level="read_committed",
            # Enough data ends the wait at once; this is how often an idle consumer asks, and how soon a new partition
            # is read.
            fetch_wait_max_ms=gathers_ms or _ASKS_EVERY_MS,
            fetch_min_bytes=_GATHERS_BYTES if gathers_ms else 1,
            fetch_queue_backoff_ms=1,
            # Small, because what is fetched stands in one queue: a command would wait behind all leads before it.
            fetch_message_max_bytes=262_144,
            fetch_max_bytes=4_194_304,
            queued_max_messages_kbytes=4_096,
            queued_min_messages=5_000,
            # The default, 5 minutes, is how long a new topic would go unnoticed.
            topic_metadata_refresh_interval_ms=5_000,
            socket_nagle_disable=True,
            **callbacks,
        )
    )


def record_of(message: KafkaMessage) -> Record:
    """Take a record out of the client's message."""
    headers = message.headers()
    return Record(
        message.topic(),  # type: ignore[arg-type]  # None only for events, which are not records
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        message.key(),
        message.value(),
        tuple((name, _bytes(value)) for name, value in _pairs(headers)) if headers else (),
        message.timestamp()[1],
    )


def _pairs(headers: Any) -> Iterator[tuple[str, bytes | str | None]]:
    return iter(headers)


def _bytes(value: bytes | str | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def start_of(where: TopicPartition, offset: int | None) -> KafkaTopicPartition:
    """Name a position for the client; None is the partition's beginning, said explicitly."""
    return KafkaTopicPartition(where.topic, where.partition, OFFSET_BEGINNING if offset is None else offset)


def last_record(connection: Connection, where: TopicPartition, *, timeout_s: float = 10.0) -> Record | None:
    """Read the last record of a partition (None: it has none); raise `PassingFault` or `BusFailed`."""
    asked = f"the end of {where.topic} partition {where.partition}"
    consumer = Consumer(connection.librdkafka(group_id="none", enable_auto_commit=False, fetch_wait_max_ms=5))
    try:
        low, high = consumer.get_watermark_offsets(KafkaTopicPartition(*where), timeout=timeout_s)
        if high <= low:
            return None
        consumer.assign([KafkaTopicPartition(where.topic, where.partition, high - 1)])
        message = consumer.poll(timeout_s)
        if message is None:
            raise PassingFault(f"{asked}: record {high - 1} was not sent within {timeout_s:.0f} s")
        error = message.error()
        if error is not None:
            raise answer_to(asked, error)
        return record_of(message)
    except KafkaException as error:
        raise answer_to(asked, error) from error
    finally:
        consumer.close()


def topic_id(connection: Connection, topic: str, *, timeout_s: float = 10.0) -> str:
    """Read the id that a topic was given when it was created: a topic made again has another one.

    Raise `PassingFault` or `BusFailed`.
    """
    admin = AdminClient(connection.librdkafka())
    found = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)
    try:
        return str(found[topic].result().topic_id)
    except KafkaException as error:
        raise answer_to(f"the id of {topic}", error) from error
