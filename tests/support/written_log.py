"""A log as the router writes it, for tests of those who read it: chained entries on the in-memory bus or as bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.bus.memory import MemoryKafka
from services.bus.ports import Message, Record
from services.contract.codec import Codec, codec
from services.contract.entries import Cause, CauseKind, Entry, Position, hash_of
from services.contract.events import Event
from services.contract.ids import partition_of

DECIDED_AT_MS = 1_790_000_000_000


@dataclass(slots=True)
class WrittenLog:
    """Makes the next record's value of each partition; `positions` is how far a reader of all of it would be."""

    partitions: int = 4
    codec: Codec = field(default_factory=codec)
    positions: dict[int, Position] = field(default_factory=dict)

    def partition_of(self, lead_id: str) -> int:
        """Say where the lead's entries stand."""
        return partition_of(lead_id, self.partitions)

    def next_value(self, lead_id: str, *events: Event, decided_at_ms: int = DECIDED_AT_MS) -> bytes:
        """Write the next entry of the lead's partition."""
        partition = self.partition_of(lead_id)
        before = self.positions.get(partition, Position())
        entry = Entry(
            seq=before.seq + 1,
            prev_hash=before.hash,
            cause=Cause(kind=CauseKind.COMMAND, offset=before.offset),
            market_version=1,
            no_room=(),
            lead_id=lead_id,
            decided_at_ms=decided_at_ms,
            events=tuple(self.codec.encode_body(event) for event in events),
        )
        value = self.codec.encode(entry)
        self.positions[partition] = Position(offset=before.offset + 1, seq=entry.seq, hash=hash_of(value))
        return value

    def append(self, kafka: MemoryKafka, topic: str, lead_id: str, *events: Event) -> Record:
        """Write the next entry and append it to the in-memory topic."""
        value = self.next_value(lead_id, *events, decided_at_ms=kafka.clock.now_ms)
        return kafka.append(Message(topic, self.partition_of(lead_id), lead_id.encode(), value))
