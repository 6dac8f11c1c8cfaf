"""What could not be processed: how a record becomes a dead letter, how letters are read, and how they go back.

A letter has its record's key and identical bytes, its headers, and what went wrong in headers of ours. Of a record that
is too large for that it has our headers alone. The topic remembers by itself what went back: a marker stands behind a
letter that was redriven. Apart from `KafkaLetters` this module does no IO; nothing here quotes a record.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from services.bus.kafka import Connection, record_of
from services.bus.liveness import monotonic_s
from services.bus.ports import BusFailed, Message, Producer, Record
from services.contract.times import iso_time
from services.contract.topics import DEAD_LETTERS_SUFFIX, Topics

MESSAGE_MAX = 300
"""So many characters of a message are kept."""

LETTER_BYTES_MAX = 900_000
"""A record with more, key, value and headers together, is not copied: brokers take about a megabyte by default."""

REDRIVEN_AT_ONCE = 100
"""So many letters go back before their markers are written: as many may go back twice after a crash in between."""

_ERRORS = "dlq.errors."
_LEFT_OUT = _ERRORS + "left.out.bytes"
_REDRIVE_ATTEMPTS = "dlq.redrive.attempts"
_REDRIVE_ORIGIN = "dlq.redrive.origin"
_REDRIVEN_OFFSET = "dlq.redriven.offset"
_OURS = "dlq."
_DIGITS_MAX = 19
_REDRIVE_WITHIN_S = 30.0
_READ_BATCH = 1_000
_SILENT_FOR_AT_MOST_S = 10.0


class LettersRefused(ValueError):
    """What was asked about dead letters can't be done; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A letter and what its headers say of the record that it was."""

    record: Record
    topic: str
    partition: int
    offset: int
    stage: str
    error_class: str
    message: str
    attempts: int
    at: str
    redriven: bool
    left_out_bytes: int = 0
    """So many bytes the record has that the letter has not: it can be read, and sent again, only from its own topic."""

    @property
    def original_headers(self) -> tuple[tuple[str, bytes], ...]:
        """The headers that the record came with."""
        return tuple(header for header in self.record.headers if not header[0].startswith(_OURS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which letters of a topic are meant: all that no field rules out. Offsets are those of the letters."""

    partition: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    error_class: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Say whether this letter is meant."""
        at = letter.record
        return (
            (self.partition is None or at.partition == self.partition)
            and (self.from_offset is None or at.offset >= self.from_offset)
            and (self.to_offset is None or at.offset <= self.to_offset)
            and (self.error_class is None or letter.error_class == self.error_class)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """How many letters of a topic have the same reason, and when the first and the last of them came."""

    topic: str
    stage: str
    error_class: str
    letters: int
    redriven: int
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What a redrive did, or would do: letters sent back, and those left as they went back before or have no bytes."""

    sent: tuple[DeadLetter, ...]
    sent_before: tuple[DeadLetter, ...]
    left_out: tuple[DeadLetter, ...]
    more: bool


class Letters(Protocol):
    """Where dead letters are read."""

    def topics(self) -> Sequence[str]:
        """Name every topic of dead letters, in order."""
        ...

    def read(self, topic: str) -> Iterator[Record]:
        """Read a topic from its beginning to where it ends now; raise `LettersRefused` if there is none."""
        ...


def attempts_of(record: Record) -> int:
    """Count how often this record was tried, this time included: a redriven one was tried before."""
    return _number(dict(record.headers).get(_REDRIVE_ATTEMPTS, b"")) + 1


def bytes_of(record: Record) -> int:
    """Count a record's bytes as a broker does, but for the frame."""
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def dead_letter(
    record: Record,
    *,
    topic: str,
    partitions: int,
    stage: str,
    error_class: str,
    message: str,
    attempts: int,
    at_ms: int,
) -> Message:
    """Make the letter that goes to `topic`: same key, partition and bytes, the record's headers, and ours.

    `topic` has so many `partitions`: where the record's has been given more, a letter goes to one of them. Of a
    record that is too large, key, bytes and headers are left out. `message` is the caller's own words, and quotes
    nothing of the record. A record without a value, which a message can't be, becomes an empty one.
    """
    words = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "stage": stage,
        "exception.class.name": error_class,
        "exception.message": message[:MESSAGE_MAX],
        "attempts": str(attempts),
        "at": iso_time(at_ms),
    }
    ours = tuple((_ERRORS + name, value.encode()) for name, value in words.items())
    at = record.partition % partitions
    if (size := bytes_of(record)) > LETTER_BYTES_MAX:
        return Message(topic, at, None, b"", (*ours, (_LEFT_OUT, str(size).encode())))
    theirs = tuple(header for header in record.headers if not header[0].startswith(_OURS))
    return Message(topic, at, record.key, record.value or b"", (*theirs, *ours))


def letters_in(records: Iterable[Record]) -> list[DeadLetter]:
    """Read a topic's letters, in order, without their values, each with whether a marker says that it went back.

    What is no letter is passed over.
    """
    kept = [record._replace(value=None) for record in records]
    redriven = {
        (record.partition, _number(offset))
        for record in kept
        if (offset := dict(record.headers).get(_REDRIVEN_OFFSET)) is not None
    }
    letters = (_letter(record, redriven) for record in kept)
    return [letter for letter in letters if letter is not None]


def reasons(letters: Iterable[DeadLetter]) -> tuple[Reason, ...]:
    """Count letters by topic, stage and kind of error."""
    groups: dict[tuple[str, str, str], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.record.topic, letter.stage, letter.error_class), []).append(letter)
    return tuple(
        Reason(
            topic=topic,
            stage=stage,
            error_class=error_class,
            letters=len(group),
            redriven=sum(letter.redriven for letter in group),
            first_at=min(letter.at for letter in group),
            last_at=max(letter.at for letter in group),
        )
        for (topic, stage, error_class), group in sorted(groups.items())
    )


def show(letters: Letters, topic: str, choice: Choice, *, limit: int) -> tuple[DeadLetter, ...]:
    """Read the chosen letters of a topic, with their values, the first `limit` of them."""
    chosen = [letter for letter in letters_in(letters.read(topic)) if choice.takes(letter)][:limit]
    return tuple(_with_values(letters, topic, chosen))


def redrive(
    letters: Letters,
    producer: Producer,
    topic: str,
    choice: Choice,
    *,
    at_ms: int,
    limit: int,
    again: bool = False,
    dry_run: bool = False,
) -> Redriven:
    """Send the chosen letters back to the topic that they came from, the first `limit` of them.

    A letter that went back before is left where it is, unless `again`; one without its bytes always is. Raises what
    `producer` raises; what was sent by then is marked, but for the last `REDRIVEN_AT_ONCE`, which intake takes for the
    same leads when they come twice.
    """
    chosen = [letter for letter in letters_in(letters.read(topic)) if choice.takes(letter)]
    left_out = tuple(letter for letter in chosen if letter.left_out_bytes)
    whole = [letter for letter in chosen if not letter.left_out_bytes]
    before = tuple(letter for letter in whole if letter.redriven and not again)
    due = [letter for letter in whole if again or not letter.redriven]
    sent = due[:limit]
    if not dry_run:
        for start in range(0, len(sent), REDRIVEN_AT_ONCE):
            part = list(_with_values(letters, topic, sent[start : start + REDRIVEN_AT_ONCE]))
            producer.publish([_sent_back(letter) for letter in part], timeout_s=_REDRIVE_WITHIN_S)
            producer.publish([_marker(letter, at_ms) for letter in part], timeout_s=_REDRIVE_WITHIN_S)
    return Redriven(sent=tuple(sent), sent_before=before, left_out=left_out, more=len(due) > limit)


def _with_values(letters: Letters, topic: str, chosen: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
    wanted = {(letter.record.partition, letter.record.offset): letter for letter in chosen}
    for record in letters.read(topic) if wanted else ():
        letter = wanted.get((record.partition, record.offset))
        if letter is not None:
            yield replace(letter, record=record)


def _sent_back(letter: DeadLetter) -> Message:
    origin = f"{letter.record.topic}-{letter.record.partition}-{letter.record.offset}"
    headers = (
        *letter.original_headers,
        (_REDRIVE_ORIGIN, origin.encode()),
        (_REDRIVE_ATTEMPTS, str(letter.attempts).encode()),
    )
    return Message(letter.topic, letter.partition, letter.record.key, letter.record.value or b"", headers)


def _marker(letter: DeadLetter, at_ms: int) -> Message:
    headers = (
        (_REDRIVEN_OFFSET, str(letter.record.offset).encode()),
        ("dlq.redriven.at", iso_time(at_ms).encode()),
    )
    return Message(letter.record.topic, letter.record.partition, None, b"", headers)


def _letter(record: Record, redriven: Container[tuple[int, int]]) -> DeadLetter | None:
    headers = dict(record.headers)
    if _word(headers, "topic") + DEAD_LETTERS_SUFFIX != record.topic:
        # Nor may a header send a record anywhere but where its letter stands.
        return None
    return DeadLetter(
        record=record,
        topic=_word(headers, "topic"),
        partition=_number(headers.get(_ERRORS + "partition", b"")),
        offset=_number(headers.get(_ERRORS + "offset", b"")),
        stage=_word(headers, "stage"),
        error_class=_word(headers, "exception.class.name"),
        message=_word(headers, "exception.message"),
        attempts=_number(headers.get(_ERRORS + "attempts", b"")),
        at=_word(headers, "at"),
        redriven=(record.partition, record.offset) in redriven,
        left_out_bytes=_number(headers.get(_LEFT_OUT, b"")),
    )


def _word(headers: Mapping[str, bytes], name: str) -> str:
    return headers.get(_ERRORS + name, b"").decode(errors="replace")


def _number(digits: bytes) -> int:
    """Read a number that somebody outside may have written: nonsense is 0."""
    return int(digits) if digits.isdigit() and len(digits) < _DIGITS_MAX else 0


class KafkaLetters:
    """The topics of dead letters of one Gavel on real Kafka."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        """Connect at the first call."""
        self._connection = connection
        self._topics = topics

    def topics(self) -> Sequence[str]:
        """See `Letters`."""
        try:
            found = AdminClient(self._connection.librdkafka()).list_topics(timeout=_SILENT_FOR_AT_MOST_S)
        except KafkaException as error:
            raise BusFailed(f"Kafka at {self._connection.bootstrap} does not answer: {error}") from error
        return sorted(name for name in found.topics if self._is_ours(name))

    def read(self, topic: str) -> Iterator[Record]:
        """See `Letters`; raise `BusFailed` when Kafka falls silent."""
        if not self._is_ours(topic):
            raise LettersRefused(f"{topic} is no topic of dead letters; `gavel dlq list` names them")
        consumer = Consumer(
            self._connection.librdkafka(
                client_id="gavel-dlq",
                group_id="none",  # required by the client; nothing is subscribed or committed
                enable_auto_commit=False,
                auto_offset_reset="error",
                queued_max_messages_kbytes=16_384,
            )
        )
        try:
            yield from _read(consumer, topic)
        except KafkaException as error:
            raise BusFailed(f"{topic}: {error}") from error
        finally:
            consumer.close()

    def _is_ours(self, topic: str) -> bool:
        return (
            topic.endswith(DEAD_LETTERS_SUFFIX)
            and self._topics.owner_of(topic.removesuffix(DEAD_LETTERS_SUFFIX)) is not None
        )


def _read(consumer: Consumer, topic: str) -> Iterator[Record]:
    ends = _ends(consumer, topic)
    consumer.assign([KafkaTopicPartition(topic, at, low) for at, (low, _) in ends.items()])
    heard_at_s = monotonic_s()
    while ends:
        for message in consumer.consume(_READ_BATCH, 0.5):
            if (error := message.error()) is not None:
                raise BusFailed(f"{topic}: {error.name()}: {error.str()}")
            heard_at_s = monotonic_s()
            record = record_of(message)
            end = ends.get(record.partition)
            if end is not None and record.offset < end[1]:
                yield record
                if record.offset == end[1] - 1:
                    del ends[record.partition]
        if monotonic_s() - heard_at_s > _SILENT_FOR_AT_MOST_S:
            raise BusFailed(f"{topic}: Kafka has sent nothing for {_SILENT_FOR_AT_MOST_S:.0f} s")


def _ends(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    """Find the first and the end offset of each partition that has records."""
    found = consumer.list_topics(topic, timeout=_SILENT_FOR_AT_MOST_S).topics[topic]
    if found.error is not None:
        raise LettersRefused(f"{topic}: there is no such topic; `gavel dlq list` names them")
    ends = {
        at: consumer.get_watermark_offsets(KafkaTopicPartition(topic, at), timeout=_SILENT_FOR_AT_MOST_S)
        for at in found.partitions
    }
    return {at: (low, high) for at, (low, high) in ends.items() if high > low}
