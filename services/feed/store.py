"""How far the feed has published each partition of the log: PostgreSQL and its in-memory twin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from psycopg import Connection

from services.bus.database import Session
from services.bus.log_positions import LogPositions
from services.bus.log_reader import Move, Overtaken
from services.bus.memory import Faults
from services.contract.entries import Position


class FeedPositions(Protocol):
    """Where the positions are held. Each call may raise `PassingFault`."""

    def read(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read how far each partition has been published; `Position()` where it never was."""
        ...

    def move(self, moves: Mapping[int, Move]) -> None:
        """Move by compare-and-set, all or nothing; raise `Overtaken` where a position is not the move's `before`."""
        ...


class PostgresPositions:
    """The positions in schema `feed`."""

    def __init__(self, connect: Callable[[], Connection[Any]]) -> None:
        """Take how to connect as `gavel_feed`, with autocommit."""
        # What a crash of the server takes back is published again, so this reader need not wait for the disk.
        self._session = Session(
            connect, on_opened=lambda connection: connection.execute("set synchronous_commit = off")
        )
        self._positions = LogPositions("feed")

    def read(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the positions, and make the rows that compare-and-set needs."""
        with self._session.connection() as connection:
            return self._positions.read(connection, partitions)

    def move(self, moves: Mapping[int, Move]) -> None:
        """Compare under lock, then move."""
        with self._session.connection() as connection, connection.transaction():
            self._positions.move(connection, moves)


@dataclass(slots=True)
class MemoryPositions:
    """The in-memory twin, shared by all owners that a test makes."""

    faults: Faults = field(default_factory=Faults)
    stored: dict[int, Position] = field(default_factory=dict)

    def read(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the positions."""
        return {at: self.stored.setdefault(at, Position()) for at in partitions}

    def move(self, moves: Mapping[int, Move]) -> None:
        """Compare and move."""
        self.faults.edge("move of the feed")
        if overtaken := [at for at, move in moves.items() if self.stored.get(at) != move.before]:
            raise Overtaken(overtaken)
        self.stored.update({at: move.after for at, move in moves.items()})
        self.faults.edge("feed moved")
