"""The fold of the feed: publishes a batch, and only then moves the positions, so that a crash skips nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from services.bus.log_reader import Move, TakenEntry
from services.bus.ports import BusFailed, Message, Producer
from services.contract.entries import Position
from services.contract.topics import Topics
from services.feed.domain import values_of
from services.feed.store import FeedPositions


class EventFeed:
    """A `LogFold` that publishes every event of the log on `leads.events`, in the partition of its entry."""

    def __init__(self, positions: FeedPositions, producer: Producer, topics: Topics) -> None:
        """Publish with `producer`, and keep the positions in `positions`."""
        self._positions = positions
        self._producer = producer
        self._topic = topics.events

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions."""
        return self._positions.read(partitions)

    def apply(self, taken: Sequence[TakenEntry], moves: Mapping[int, Move]) -> None:
        """Publish, wait for all acknowledgements, move."""
        messages: list[Message] = []
        for partition, entry in taken:
            key, timestamp_ms = entry.lead_id.encode(), entry.decided_at_ms
            messages += [
                Message(self._topic, partition, key, value, (), timestamp_ms) for value in values_of(entry)
            ]
        if unacknowledged := self._producer.publish(messages):
            raise BusFailed(f"{self._topic} did not take all events: {unacknowledged[0].error}")
        self._positions.move(moves)

    def idle(self) -> None:
        """Do nothing: the feed has nothing of its own to say."""
