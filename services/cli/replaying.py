"""Executes the decisions about a lead again, and says of each whether it is the same, byte for byte.

It reads: entries from the log, inputs from their topics, versions of the market from the database. What is decided is
for the router's own pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from services.bus.kafka import Connection
from services.bus.ports import BusFailed
from services.cli.lead_reading import LeadEntries
from services.contract.avro import compile_encoder
from services.contract.codec import Schema, codec, stored_schemas
from services.contract.entries import Cause, CauseKind
from services.contract.events import Event
from services.contract.inputs import Input
from services.contract.topics import Topics
from services.router.execution import (
    Difference,
    Markets,
    Step,
    difference,
    execute,
    own_input,
    rebuilt_input,
    steps_of,
)

ANSWER_S = 10.0


class Verdict(StrEnum):
    """What came of executing an entry again."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    FORGOTTEN = "forgotten"


class Given(NamedTuple):
    """An input, and where it is from."""

    subject: Input
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One entry, executed again; `given` is None where its input is nowhere any more."""

    step: Step
    given: Given | None
    verdict: Verdict
    difference: Difference | None = None


class InputTopics:
    """Reads the router's inputs where entries say that they stand; close it by leaving its `with`."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        """Take where they are; nothing is read before it is asked for."""
        self._names = {
            CauseKind.QUALIFIED: topics.qualified,
            CauseKind.COMMAND: topics.commands,
            CauseKind.TIMER: topics.timers,
        }
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

    def read(self, cause: Cause, partition: int) -> Given | None:
        """Read an input; None where the topic has forgotten it. Raise `BusFailed` where Kafka does not answer."""
        topic = self._names[cause.kind]
        where = TopicPartition(topic, partition, cause.offset)
        try:
            low, high = self._consumer.get_watermark_offsets(where, timeout=ANSWER_S)
            if not low <= cause.offset < high:
                return None
            self._consumer.assign([where])
            (message,) = self._consumer.consume(1, ANSWER_S) or (None,)
        except KafkaException as error:
            raise BusFailed(f"{topic}: {error}") from error
        if message is None or message.error() is not None:
            raise BusFailed(f"{topic} partition {partition}: offset {cause.offset} did not come")
        if message.offset() != cause.offset:
            return None
        subject: Input = codec().decode(message.value())
        return Given(subject, f"{topic}, offset {cause.offset}")


def input_of(step: Step, partition: int, inputs: Callable[[Cause, int], Given | None]) -> Given | None:
    """Find what an entry decided: in its topic, or as the entry tells it; None where it is nowhere any more."""
    own = own_input(step)
    if own is not None:
        return Given(own, "the router's own")
    read = inputs(step.entry.cause, partition)
    if read is not None:
        return read
    rebuilt = rebuilt_input(step)
    return (
        None if rebuilt is None else Given(rebuilt, "rebuilt from the entry, as its topic has forgotten it")
    )


def replay(
    read: LeadEntries, inputs: Callable[[Cause, int], Given | None], markets: Markets
) -> Iterator[Replayed]:
    """Execute each entry about a lead again, in the order of the log; raise `DoesNotFollow` where it is none."""
    for step in steps_of(read.entries):
        given = input_of(step, read.partition, inputs)
        if given is None:
            yield Replayed(step=step, given=None, verdict=Verdict.FORGOTTEN)
            continue
        found = difference(step, execute(step, given.subject, markets), encode_as)
        verdict = Verdict.IDENTICAL if found is None else Verdict.DIFFERENT
        yield Replayed(step=step, given=given, verdict=verdict, difference=found)


def encode_as(event: Event, schema_id: int) -> bytes | None:
    """Encode an event with the stored schema of this id, an older version's perhaps; None where it has no place."""
    schema = _schemas().get(schema_id)
    if schema is None or schema.type != type(event).__name__:
        return None
    kind: Any = type(event)
    try:
        return _encoder(schema_id, kind)(event)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@lru_cache(maxsize=1)
def _schemas() -> dict[int, Schema]:
    return {schema.id: schema for schema in stored_schemas()}


@lru_cache(maxsize=256)
def _encoder(schema_id: int, kind: Any) -> Callable[[Any], bytes]:
    return compile_encoder(_schemas()[schema_id].parsed, kind)


def counts(replayed: Sequence[Replayed]) -> dict[str, int]:
    """Count the verdicts."""
    return {verdict.value: sum(each.verdict is verdict for each in replayed) for verdict in Verdict}
