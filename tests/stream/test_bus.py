"""The suite of the bus on the in-memory twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from services.bus.memory import MemoryHost, MemoryKafka, MemoryProducer
from services.bus.ports import Message, Producer, TopicPartition, Unacknowledged
from services.contract.events import FailureReason
from tests.support.bus_suite import BATCH_MAX, TOO_LARGE, BusSuite, Hosting, Taker

TURNS_MAX = 1_000


@dataclass(slots=True)
class MemoryHosting:
    """A host that works a turn at a time."""

    host: MemoryHost

    def until(self, what: str, done: Callable[[], bool]) -> None:
        """See `Hosting`."""
        for _ in range(TURNS_MAX):
            if done():
                return
            self.host.turn()
        raise AssertionError(f"not within {TURNS_MAX} turns: {what}")


@dataclass(slots=True)
class MemoryBus:
    """A `BusUnderTest` in memory."""

    kafka: MemoryKafka = field(default_factory=lambda: MemoryKafka({}))
    keeps_all: Producer = field(init=False)
    gives_up: Producer = field(init=False)

    def __post_init__(self) -> None:
        """Give outsiders' messages the refusals that the real producer gives them."""
        self.keeps_all = MemoryProducer(self.kafka)
        self.gives_up = MemoryProducer(self.kafka, refuses=self._refuses)

    def create(self, name: str, partitions: int) -> str:
        """See `BusUnderTest`."""
        self.kafka.partitions[name] = partitions
        return name

    @contextmanager
    def host(self, step: Taker, topic: str) -> Iterator[Hosting]:
        """See `BusUnderTest`."""
        host = MemoryHost(self.kafka, step, batch_max=BATCH_MAX)
        host.assign([TopicPartition(topic, at) for at in range(self.kafka.partitions[topic])])
        yield MemoryHosting(host)

    def _refuses(self, message: Message) -> Unacknowledged | None:
        if message.topic not in self.kafka.partitions:
            return Unacknowledged(0, None, "unknown topic")
        too_large = len(message.value) >= TOO_LARGE
        return Unacknowledged(0, FailureReason.RECORD_TOO_LARGE, "too large") if too_large else None


class TestMemoryBus(BusSuite):
    """All of it."""

    @pytest.fixture
    def bus(self) -> MemoryBus:
        return MemoryBus()
