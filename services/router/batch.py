"""From polled records to a partition's inputs: only what starts at the head's positions is ever decided (rule 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from services.bus.ports import Record, Stopped
from services.contract.codec import Codec, NotReadable
from services.contract.entries import Cause, CauseKind
from services.contract.inputs import Command, Input, QualifiedLead, TimerDue
from services.contract.topics import Topics
from services.router.ports import Head

_TAKEN: Mapping[CauseKind, frozenset[type]] = {
    CauseKind.QUALIFIED: frozenset({QualifiedLead}),
    CauseKind.COMMAND: frozenset(get_args(Command)),
    CauseKind.TIMER: frozenset({TimerDue}),
}
OWN = Cause(kind=CauseKind.ROUTER, offset=-1)


class Caused(NamedTuple):
    """An input, and where it came from."""

    cause: Cause
    subject: Input


@dataclass(slots=True)
class PartitionBatch:
    """What was polled of one partition, by input topic, in the order of their offsets."""

    qualified: list[Caused] = field(default_factory=list)
    commands: list[Caused] = field(default_factory=list)
    timers: list[Caused] = field(default_factory=list)
    own: list[Caused] = field(default_factory=list)
    closings: list[Caused] = field(default_factory=list)

    def inputs(self) -> Sequence[Caused]:
        """Put the inputs into the order of their decision: commands and timers before new leads (rule 13).

        Auctions that are due close after the commands, among which bids may stand that were made in time.
        """
        return (*self.own, *self.commands, *self.closings, *self.timers, *self.qualified)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A batch that starts at the head's positions, and the positions after it."""

    inputs: Sequence[Caused]
    next_qualified: int
    next_command: int
    next_timer: int


@dataclass(slots=True)
class Polled:
    """What was polled, by partition. `unreadable` says of which record nothing behind it was taken, if of any."""

    batches: dict[int, PartitionBatch] = field(default_factory=dict)
    unreadable: Stopped | None = None


def batches_of(records: Iterable[Record], codec: Codec, topics: Topics) -> Polled:
    """Decode records and sort them by partition, and of each partition of a topic only what can be read in a row.

    So everything before a record that stops the worker is decided, and the position stands at that record.
    """
    kinds = {
        topics.qualified: CauseKind.QUALIFIED,
        topics.commands: CauseKind.COMMAND,
        topics.timers: CauseKind.TIMER,
    }
    polled = Polled()
    batches = polled.batches
    ended: set[tuple[str, int]] = set()
    for record in records:
        if ended and (record.topic, record.partition) in ended:
            continue
        kind = kinds[record.topic]
        try:
            subject = _decoded(record, kind, codec)
        except Stopped as unreadable:
            ended.add((record.topic, record.partition))
            polled.unreadable = polled.unreadable or unreadable
            continue
        batch = batches.get(record.partition)
        if batch is None:
            batch = batches[record.partition] = PartitionBatch()
        caused = Caused(Cause(kind=kind, offset=record.offset), subject)
        (
            batch.qualified
            if kind is CauseKind.QUALIFIED
            else batch.commands
            if kind is CauseKind.COMMAND
            else batch.timers
        ).append(caused)
    return polled


def start(batch: PartitionBatch, head: Head) -> Started | None:
    """Drop what is decided already; None where something between the head and the batch is missing."""
    qualified = _from(batch.qualified, head.next_qualified)
    commands = _from(batch.commands, head.next_command)
    timers = _from(batch.timers, head.next_timer)
    if qualified is None or commands is None or timers is None:
        return None
    fresh = PartitionBatch(
        qualified=qualified, commands=commands, timers=timers, own=batch.own, closings=batch.closings
    )
    return Started(
        inputs=fresh.inputs(),
        next_qualified=head.next_qualified + len(qualified),
        next_command=head.next_command + len(commands),
        next_timer=head.next_timer + len(timers),
    )


def _from(inputs: list[Caused], next_offset: int) -> list[Caused] | None:
    fresh = inputs if not inputs or inputs[0].cause.offset == next_offset else _later(inputs, next_offset)
    if fresh and (
        fresh[0].cause.offset != next_offset or fresh[-1].cause.offset != next_offset + len(fresh) - 1
    ):
        return None
    return fresh


def _later(inputs: list[Caused], next_offset: int) -> list[Caused]:
    return [caused for caused in inputs if caused.cause.offset >= next_offset]


def _decoded(record: Record, kind: CauseKind, codec: Codec) -> Input:
    try:
        subject: Input = codec.decode(record.value)
    except NotReadable as error:
        raise Stopped(_complaint(record, str(error))) from error
    if type(subject) not in _TAKEN[kind]:
        raise Stopped(_complaint(record, f"{type(subject).__name__} does not belong there"))
    return subject


def _complaint(record: Record, what: str) -> str:
    return (
        f"{record.topic} partition {record.partition}, offset {record.offset}: {what}. "
        "A topic of ours holds what we cannot read, and no step skips it. If a newer release wrote it, start that one; "
        "if nobody of ours did, find out who may write there, then go on behind it: "
        f"gavel log skip {record.topic} {record.partition} {record.offset}"
    )
