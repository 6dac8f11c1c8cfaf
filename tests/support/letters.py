"""Dead letters on the in-memory bus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.bus.dead_letters import LettersRefused
from services.bus.memory import MemoryKafka
from services.bus.ports import Record


@dataclass(frozen=True, slots=True)
class MemoryLetters:
    """A `Letters` on the in-memory bus."""

    kafka: MemoryKafka

    def topics(self) -> Sequence[str]:
        """See `Letters`."""
        return sorted(name for name in self.kafka.partitions if name.endswith(".dlq"))

    def read(self, topic: str) -> Iterator[Record]:
        """See `Letters`."""
        if topic not in self.topics():
            raise LettersRefused(f"{topic} is no topic of dead letters")
        return iter(self.kafka.topic(topic))
