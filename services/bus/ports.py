"""What a step sees of Kafka: records in, messages out, and nothing that belongs to one client library.

A step is synchronous and single-threaded: it is handed batches, keeps no position of its own in memory that its
database does not have, and can be dropped on any line. `services.bus.hosting` runs a step in a Faust worker on real
Kafka, `services.bus.memory` runs the same step on the in-memory bus.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from services.contract.events import FailureReason


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """A record as it was read. `timestamp_ms` is the time of its append where the topic says LogAppendTime."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


class Message(NamedTuple):
    """A record to be written, its partition always explicit."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Unacknowledged:
    """A message of a batch that was not acknowledged in time; `permanent` says why it never can be."""

    index: int
    permanent: FailureReason | None
    error: str


class Sending(Protocol):
    """A batch on its way."""

    def wait(self) -> Sequence[Unacknowledged]:
        """Wait until each of its messages is acknowledged, or its time is up, and say which are not; ask once.

        Raise `BusFailed` where what must not be lost cannot be written.
        """
        ...


class Producer(Protocol):
    """Writes batches and counts acknowledgements."""

    def send(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> Sending:
        """Begin to write all messages in order, and go on; one batch at a time, so wait for it before the next.

        `timeout_s` counts from here. Whether they were written is known only after `Sending.wait`.
        """
        ...

    def publish(
        self, messages: Sequence[Message], *, timeout_s: float | None = None
    ) -> Sequence[Unacknowledged]:
        """Write all messages in order and wait until each is acknowledged, for `timeout_s` at most: `send` and `wait`.

        With no timeout (a producer that must not lose anything) it returns only when all are acknowledged, and
        raises `BusFailed` where that cannot happen. What is not acknowledged within the timeout may still arrive.
        """
        ...


class Step(Protocol):
    """A step of Gavel that works on batches."""

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin, or begin again, with these partitions of the subscribed topics.

        Return every partition to read, partners of the assigned ones included, with the offset to read next (None:
        from the partition's beginning). What was known of them before is forgotten.
        """
        ...

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Forget these partitions of the subscribed topics; another owner may have them already."""
        ...

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Work on a batch; return the subscribed partitions that must begin again with `take_over`."""
        ...

    def idle(self) -> Collection[TopicPartition]:
        """Do what is due when nothing comes in (called at least each 50 ms); return as `handle` does."""
        ...


@runtime_checkable
class Timed(Protocol):
    """What a step has besides that knows when it must be called, and so is not called at the host's leisure."""

    def due_in_s(self) -> float | None:
        """Say in how many seconds at most `handle` or `idle` must be called; None where nothing is waited for.

        Asked after each call of these two, in the same thread.
        """
        ...


class PassingFault(Exception):
    """A server did not answer, or not in time: what was asked was not done, or nobody knows whether it was.

    To begin all partitions again, at the stored positions, is safe and may succeed: `services.bus.patience` does that.
    """


class BusFailed(Exception):
    """Kafka refused for good, or answered what cannot be: the worker stops, nothing acknowledged."""


class Stopped(Exception):
    """A broken invariant that only an operator can resolve: the worker stops and says why."""
