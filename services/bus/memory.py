"""The in-memory twin of Kafka: topics, partitions, offsets, a host for steps, and faults at any effect.

It keeps what Gavel relies on (order within a partition, offsets without gaps, at-least-once) and nothing else. Every
effect is announced to `Faults` before and after it happens, so that a test can end a worker between any two effects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from services.bus.patience import PatientStep
from services.bus.ports import Message, Record, Step, TopicPartition, Unacknowledged


class Crash(BaseException):
    """The worker is gone; BaseException, as no code of ours may catch it."""


@dataclass(slots=True)
class VirtualClock:
    """A clock that moves only when told."""

    now_ms: int = 1_790_000_000_000

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds

    def monotonic_s(self) -> float:
        """Read it as a monotonic clock in seconds."""
        return self.now_ms / 1_000


@dataclass(slots=True)
class Faults:
    """Counts effects, and crashes at the one chosen. Each effect has two edges: just before it, and just after."""

    crash_at: int | None = None
    edges: int = 0
    names: list[str] = field(default_factory=list)

    def edge(self, name: str) -> None:
        """Pass one edge of an effect."""
        self.names.append(name)
        self.edges += 1
        if self.crash_at == self.edges:
            raise Crash(name)


@dataclass(slots=True)
class MemoryKafka:
    """All topics of a cluster. `partitions` gives each topic's count; an undeclared topic is an error, as with ours."""

    partitions: dict[str, int]
    clock: VirtualClock = field(default_factory=VirtualClock)
    records: dict[TopicPartition, list[Record]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)

    def append(self, message: Message) -> Record:
        """Append one message and give it its offset."""
        count = self.partitions[message.topic]
        assert 0 <= message.partition < count, (
            f"{message.topic} has {count} partitions, not {message.partition}"
        )
        where = TopicPartition(message.topic, message.partition)
        record = Record(
            message.topic,
            message.partition,
            len(self.records[where]),
            message.key,
            message.value,
            message.headers,
            message.timestamp_ms or self.clock.now_ms,
        )
        self.records[where].append(record)
        return record

    def topic(self, name: str) -> list[Record]:
        """Read a whole topic, partition by partition."""
        return [
            record for at in range(self.partitions[name]) for record in self.records[TopicPartition(name, at)]
        ]


@dataclass(slots=True)
class MemoryProducer:
    """A producer whose messages are appended at once, save those that `refuses` holds back."""

    kafka: MemoryKafka
    faults: Faults = field(default_factory=Faults)
    refuses: Callable[[Message], Unacknowledged | None] = lambda _: None

    def publish(
        self, messages: Sequence[Message], *, timeout_s: float | None = None
    ) -> Sequence[Unacknowledged]:
        """See `Producer`."""
        return self.send(messages, timeout_s=timeout_s).wait()

    def send(
        self,
        messages: Sequence[Message],
        *,
        timeout_s: float | None = None,  # noqa: ARG002  # the port's; what is appended is acknowledged
    ) -> MemorySending:
        """Append in order; a crash may come between any two messages, and before they are known to be written."""
        unacknowledged = []
        for index, message in enumerate(messages):
            self.faults.edge(f"produce {message.topic}")
            refused = self.refuses(message)
            if refused is None:
                self.kafka.append(message)
            else:
                unacknowledged.append(Unacknowledged(index, refused.permanent, refused.error))
        return MemorySending(self.faults, unacknowledged, is_empty=not messages)


@dataclass(frozen=True, slots=True)
class MemorySending:
    """What became of a batch, told when asked."""

    faults: Faults
    unacknowledged: Sequence[Unacknowledged]
    is_empty: bool

    def wait(self) -> Sequence[Unacknowledged]:
        """See `Sending`."""
        if not self.is_empty:
            self.faults.edge("flushed")
        return self.unacknowledged


@dataclass(slots=True)
class MemoryHost:
    """Hosts one step, as `services.bus.hosting` does on real Kafka: positions from the step, batches to it.

    When the step has to wait for what passes, the time of the bus passes.
    """

    kafka: MemoryKafka
    step: Step
    batch_max: int = 500
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    patient: PatientStep = field(init=False)

    def __post_init__(self) -> None:
        """Wait out the step's passing faults as the real host does."""
        self.patient = PatientStep(self.step, monotonic_s=self.kafka.clock.monotonic_s)

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Give the step these partitions of its subscribed topics."""
        self._start(self.patient.take_over(partitions))

    def revoke(self, partitions: Collection[TopicPartition], partners: Collection[str] = ()) -> None:
        """Take them away, with the same partitions of the partner topics."""
        self.patient.release(partitions)
        for where in partitions:
            for topic in (where.topic, *partners):
                self.positions.pop(TopicPartition(topic, where.partition), None)

    def turn(self) -> int:
        """Poll once and let the step handle it; return how many records there were."""
        self.kafka.clock.advance(ceil(1_000 * self.patient.pause_s()))
        polled: list[Record] = []
        for where, offset in self.positions.items():
            found = self.kafka.records[where][offset : offset + self.batch_max - len(polled)]
            polled += found
            self.positions[where] = offset + len(found)
        again = self.patient.handle(polled) if polled else self.patient.idle()
        if again:
            self._start(self.patient.take_over(again))
        return len(polled)

    def drain(self, limit: int = 1_000) -> None:
        """Turn until nothing comes in any more, and once idle."""
        for _ in range(limit):
            has_waited = self.patient.waits()
            if self.turn() == 0 and not has_waited:
                self.turn()
                return
        raise AssertionError(f"the step was not done after {limit} turns")

    def _start(self, positions: Mapping[TopicPartition, int | None]) -> None:
        self.positions.update({where: offset or 0 for where, offset in positions.items()})
