"""How far the feed has published each partition of the log: PostgreSQL and its in-memory twin."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from psycopg import Connection

from services.bus.log_reader import Move, Overtaken
from services.bus.memory import Faults
from services.contract.entries import Position


class FeedPositions(Protocol):
    """Where the positions are held."""

    def read(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read how far each partition has been published; `Position()` where it never was."""
        ...

    def move(self, moves: Mapping[int, Move]) -> None:
        """Move by compare-and-set, all or nothing; raise `Overtaken` where a position is not the move's `before`."""
        ...


class PostgresPositions:
    """The positions in schema `feed`. The connection is autocommitting and this object's alone."""

    def __init__(self, connection: Connection[Any]) -> None:
        """Use the connection."""
        self._connection = connection
        # What a crash of the server takes back is published again, so this reader need not wait for the disk.
        connection.execute("set synchronous_commit = off")

    def read(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the positions, and make the rows that compare-and-set needs."""
        wanted = sorted(partitions)
        self._connection.execute(_BEGIN, [Position().hash, wanted])
        rows = self._connection.execute(_READ, [wanted])
        return {row[0]: Position(offset=row[1], seq=row[2], hash=row[3]) for row in rows}

    def move(self, moves: Mapping[int, Move]) -> None:
        """Compare under lock, then move."""
        partitions = sorted(moves)
        before = {at: (move.before.offset, move.before.seq, move.before.hash) for at, move in moves.items()}
        after = [moves[at].after for at in partitions]
        with self._connection.transaction():
            rows = self._connection.execute(_LOCK, [partitions])
            found = {row[0]: tuple(row[1:]) for row in rows}
            if overtaken := [at for at in partitions if found.get(at) != before[at]]:
                raise Overtaken(overtaken)
            columns = [[to.offset for to in after], [to.seq for to in after], [to.hash for to in after]]
            self._connection.execute(_MOVE, [partitions, *columns])


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


_BEGIN = """
insert into feed.positions (partition, next_offset, seq, hash)
select partition, 0, 0, %s from unnest(%s::int[]) as assigned (partition)
on conflict do nothing
"""
_READ = "select partition, next_offset, seq, hash from feed.positions where partition = any(%s)"
_LOCK = f"{_READ} order by partition for update"
_MOVE = """
update feed.positions as stored set next_offset = moved.next_offset, seq = moved.seq, hash = moved.hash
from unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bytea[]) as moved (partition, next_offset, seq, hash)
where stored.partition = moved.partition
"""
