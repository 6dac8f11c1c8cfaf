"""Puts an operator's command before the router, and waits a while for what is decided about it.

It decides nothing: the command goes through its lead's (its account's) partition like any other, so it is ordered with
the sales. What was decided is read from the router's table, where a decision exists as soon as it is committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import psycopg
import typer
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from services.bus.ports import BusFailed
from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.contract.codec import codec
from services.contract.entries import CauseKind, Entry
from services.contract.events import Event
from services.contract.ids import partition_of
from services.contract.inputs import Command
from services.contract.topics import partitions_declared

ACKNOWLEDGED_WITHIN_S = 10.0
DECIDED_WITHIN_S = 30.0
_ASK_EACH_S = 0.1

WaitS = Annotated[
    float,
    typer.Option("--wait", min=0.0, max=600.0, help="So many seconds at most for the router's decision."),
]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a command stands in `leads.commands`."""

    lead_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about a command; no `entry` where it changed nothing, such as a repeat."""

    entry: Entry | None
    events: Sequence[Event]


def partitions_inside() -> int:
    """Say how many partitions the topics inside have, which is declared, and fixed for good."""
    return partitions_declared("leads.log")


def place(found: StepSettings, command: Command) -> Placed:
    """Write a command into its lead's partition; raise `BusFailed` where it is not acknowledged in time."""
    (placed,) = place_all(found, [command])
    return placed


def place_all(found: StepSettings, commands: Sequence[Command]) -> list[Placed]:
    """Write each command into its lead's partition; raise `BusFailed` where one is not acknowledged in time."""
    placed: list[Placed] = []
    failed: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None:
            failed.append(error)
        else:
            key = message.key() or b""
            placed.append(Placed(key.decode(), message.partition() or 0, message.offset() or 0))

    producer = Producer(
        found.connection().librdkafka(
            client_id="gavel-cli",
            enable_idempotence=True,
            acks="all",
            message_timeout_ms=int(ACKNOWLEDGED_WITHIN_S * 1_000),
            linger_ms=0,
        )
    )
    topic = found.topics.commands
    try:
        for command in commands:
            partition = partition_of(command.lead_id, partitions_inside())
            value, key = codec().encode(command), command.lead_id.encode()
            producer.produce(topic, value, key, partition, on_delivery=on_delivery)
            producer.poll(0)
    except (KafkaException, BufferError) as error:
        raise BusFailed(f"{topic}: {error}") from error
    producer.flush(ACKNOWLEDGED_WITHIN_S + 1.0)
    if len(placed) < len(commands):
        raise BusFailed(f"{topic}: {failed[0] if failed else 'a command was not acknowledged in time'}")
    return placed


def wait_for_all(connection: psycopg.Connection, placed: Sequence[Placed], *, wait_s: float) -> Iterator[int]:
    """Tell how many commands are still to be decided, until none is, or the time is up."""
    deadline_s = time.monotonic() + wait_s
    while True:
        heads: dict[int, int] = dict(
            connection.execute("select partition, next_command from router.heads").fetchall()
        )
        left = sum(heads.get(each.partition, 0) <= each.offset for each in placed)
        yield left
        if not left or time.monotonic() >= deadline_s:
            return
        time.sleep(_ASK_EACH_S)


def wait_for(
    connection: psycopg.Connection, placed: Placed, *, from_seq: int, wait_s: float
) -> Decided | None:
    """Wait until the router has decided a command, in the entries after `from_seq`; None where it has not in time."""
    deadline_s = time.monotonic() + wait_s
    while True:
        taken = _next_command(connection, placed.partition) > placed.offset
        # The head was read first: an entry of a command that it has passed is there.
        decided = _entry_of(connection, placed, from_seq)
        if decided is not None or taken:
            return decided or Decided(None, ())
        if time.monotonic() >= deadline_s:
            return None
        time.sleep(_ASK_EACH_S)


def require(decided: Decided | None, wait_s: float) -> Decided:
    """Raise `Complaint` where nothing was decided in time."""
    if decided is None:
        raise Complaint(
            f"The command was sent, and the router has not decided it within {wait_s:g} s.",
            "Is one running (gavel step run router)? The command stands in leads.commands and will be decided.",
        )
    return decided


def last_seq(connection: psycopg.Connection, lead_id: str) -> int:
    """Read the number of the last entry in a lead's partition."""
    row = connection.execute(
        "select seq from router.heads where partition = %s", [partition_of(lead_id, partitions_inside())]
    ).fetchone()
    if row is None:
        raise Complaint("The database has no partitions yet.", "Run `gavel setup`.")
    return int(row[0])


def _next_command(connection: psycopg.Connection, partition: int) -> int:
    row = connection.execute(
        "select next_command from router.heads where partition = %s", [partition]
    ).fetchone()
    return int(row[0]) if row else 0


def _entry_of(connection: psycopg.Connection, placed: Placed, from_seq: int) -> Decided | None:
    rows = connection.execute(
        "select value from router.log where partition = %s and seq > %s and lead_id = %s order by seq",
        [placed.partition, from_seq, placed.lead_id],
    ).fetchall()
    for (value,) in rows:
        entry = codec().decode_entry(bytes(value))
        if entry.cause.kind is CauseKind.COMMAND and entry.cause.offset == placed.offset:
            return Decided(entry, codec().events_of(entry))
    return None
