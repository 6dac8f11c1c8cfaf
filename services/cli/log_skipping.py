"""`gavel log skip`: lets Gavel go on behind a record in a topic of its own that no release of it can read.

No step skips anything by itself. This moves the positions of those that stand before one named record that it
can't read, each position by compare-and-set and as the role of the step that owns it. The record stays in its
topic, for whoever wants to know where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated

import psycopg
import typer
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from psycopg import sql

from services.bus.database import connect
from services.bus.kafka import record_of
from services.bus.log_positions import LogPositions
from services.bus.log_reader import Move
from services.bus.ports import BusFailed, Record
from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.log_publishing import publish_last_again
from services.cli.printing import say, say_json
from services.cli.surroundings import settings
from services.contract.codec import NotReadable, codec
from services.contract.entries import Position
from services.contract.topics import Topics
from services.router.batch import batches_of

ANSWER_S = 10.0
READERS = ("billing", "resale", "feed")

_SKIP_INPUT = """
update router.heads set {next} = %s, version = version + 1 where partition = %s and {next} = %s
"""


def skip(
    topic: Annotated[str, typer.Argument(help="The topic, as the worker that stopped has named it.")],
    partition: Annotated[int, typer.Argument(min=0)],
    offset: Annotated[int, typer.Argument(min=0)],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at the record, and change nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Go on behind one record that nobody can read, in a topic that only Gavel may write to."""
    found = settings()
    column = _column(found.topics, topic)
    (record,) = _read(found, topic, partition, range(offset, offset + 1))
    why = _require_unreadable(record, found.topics)
    moved: list[str] = []
    if not dry_run:
        moved = (
            _skip_entry(found, partition, offset)
            if column is None
            else _skip_input(found, column, partition, offset)
        )
    answer = {"topic": topic, "partition": partition, "offset": offset, "why": why, "moved": moved}
    if as_json:
        say_json(answer)
        return
    say(f"{why}.")
    say("Nothing was changed." if dry_run else f"Skipped by {', '.join(moved)}. It stays in its topic.")


def _column(topics: Topics, topic: str) -> str | None:
    """Name the column with the router's position in an input topic; None for the log; raise `Complaint` for others."""
    columns: Mapping[str, str | None] = {
        topics.qualified: "next_qualified",
        topics.commands: "next_command",
        topics.timers: "next_timer",
        topics.log: None,
    }
    if topic not in columns:
        raise Complaint(f"{topic} is none of {', '.join(columns)}.", "What outsiders sent: see `gavel dlq`.")
    return columns[topic]


def _read(found: StepSettings, topic: str, partition: int, offsets: range) -> Iterator[Record]:
    """Read these records; raise `Complaint` where one is not there, `BusFailed` where Kafka does not answer."""
    connection = found.as_insider("router").connection()
    consumer = Consumer(
        connection.librdkafka(group_id="none", enable_auto_commit=False, auto_offset_reset="error")
    )
    try:
        consumer.assign([KafkaTopicPartition(topic, partition, offsets.start)])
        for offset in offsets:
            message = consumer.poll(ANSWER_S)
            if message is None or message.error() is not None or message.offset() != offset:
                raise Complaint(
                    f"{topic} partition {partition} has no record {offset}.", "Is it the one that was told?"
                )
            yield record_of(message)
    except KafkaException as error:
        raise BusFailed(f"{topic} partition {partition}: {error}") from error
    finally:
        consumer.close()


def _require_unreadable(record: Record, topics: Topics) -> str:
    """Say what stops the workers there; raise `Complaint` where nothing does: no decision is skipped."""
    if (why := _unreadable(record, topics)) is not None:
        return why
    raise Complaint(
        f"{record.topic} partition {record.partition}, offset {record.offset} can be read: it is not skipped.",
        "Nothing but what no release can read is.",
    )


def _unreadable(record: Record, topics: Topics) -> str | None:
    """Read it as the router, or the log's readers, would."""
    if record.topic != topics.log:
        stopped = batches_of([record], codec(), topics).unreadable
        return None if stopped is None else str(stopped).partition(". ")[0]
    try:
        codec().decode_entry(record.value)
    except NotReadable as error:
        return f"{record.topic} partition {record.partition}, offset {record.offset}: {error}"
    return None


def _skip_input(found: StepSettings, column: str, partition: int, offset: int) -> list[str]:
    """Move the router past it, if it stands before it: an owner at work is overtaken and begins again there."""
    query = sql.SQL(_SKIP_INPUT).format(next=sql.Identifier(column))
    with _as_step(found, "router") as connection:
        moved = connection.execute(query, [offset + 1, partition, offset]).rowcount
    if not moved:
        raise Complaint(
            "The router does not stand before this record.", "Either it has not come to it, or is past it."
        )
    return ["router"]


def _skip_entry(found: StepSettings, partition: int, offset: int) -> list[str]:
    """Move the readers past it that have taken all before it, and end the log with an entry again for the router.

    Each refuses for itself: one that is behind is asked for again once it stands here.
    """
    moved = [reader for reader in READERS if _skip_as(found, reader, partition, offset)]
    publish_last_again(found, partition)
    if not moved:
        raise Complaint(
            "No reader stands before this record.", "Either none has come to it, or all are past it."
        )
    return moved


def _skip_as(found: StepSettings, reader: str, partition: int, offset: int) -> bool:
    positions = LogPositions(reader)
    with _as_step(found, reader) as connection, connection.transaction():
        before = positions.lock(connection, [partition]).get(partition)
        if before is None or not _has_taken_all(found, before, partition, offset):
            return False
        positions.move(connection, {partition: Move(before, replace(before, offset=offset + 1))})
    return True


def _has_taken_all(found: StepSettings, position: Position, partition: int, offset: int) -> bool:
    """Tell whether only repeats lie between a reader's position and the record."""
    if position.offset > offset:
        return False
    between = _read(found, found.topics.log, partition, range(position.offset, offset))
    return all(codec().decode_entry(record.value).seq <= position.seq for record in between)


def _as_step(found: StepSettings, step: str) -> psycopg.Connection:
    return connect(found.database, role=f"gavel_{step}", application_name="gavel log skip")
