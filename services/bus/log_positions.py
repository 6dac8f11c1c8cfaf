"""How far a reader has taken each partition of the log, in a table `positions` of the reader's own schema.

The compare-and-set is one rule for every reader (protocol.md, rule 20); in which transaction it is made, each reader
says. It must be the transaction of what the reader did with the entries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from psycopg import Connection, sql

from services.bus.log_reader import Move, Overtaken
from services.contract.entries import Position

_BEGIN = """
insert into {table} (partition, next_offset, seq, hash)
select partition, 0, 0, %s from unnest(%s::int[]) as assigned (partition)
on conflict do nothing
"""
_READ = "select partition, next_offset, seq, hash from {table} where partition = any(%s)"
_LOCK = f"{_READ} order by partition for update"
_MOVE = """
update {table} as stored set next_offset = moved.next_offset, seq = moved.seq, hash = moved.hash
from unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bytea[]) as moved (partition, next_offset, seq, hash)
where stored.partition = moved.partition
"""


class LogPositions:
    """The positions in one schema, by whatever connection is given."""

    def __init__(self, schema: str) -> None:
        """Use `<schema>.positions`."""
        table = sql.Identifier(schema, "positions")
        self._begin, self._read, self._lock, self._move = (
            sql.SQL(text).format(table=table) for text in (_BEGIN, _READ, _LOCK, _MOVE)
        )

    def read(self, connection: Connection[Any], partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the positions, and make the rows that compare-and-set needs."""
        wanted = sorted(partitions)
        connection.execute(self._begin, [Position().hash, wanted])
        rows = connection.execute(self._read, [wanted])
        return {row[0]: Position(offset=row[1], seq=row[2], hash=row[3]) for row in rows}

    def lock(self, connection: Connection[Any], partitions: Collection[int]) -> Mapping[int, Position]:
        """Lock the rows, in the order of partitions, until the caller's transaction ends."""
        rows = connection.execute(self._lock, [sorted(partitions)])
        return {row[0]: Position(offset=row[1], seq=row[2], hash=row[3]) for row in rows}

    def move(self, connection: Connection[Any], moves: Mapping[int, Move]) -> None:
        """Compare under lock, then move, in the caller's transaction; raise `Overtaken` with nothing moved."""
        found = self.lock(connection, moves)
        partitions = sorted(moves)
        if overtaken := [at for at in partitions if found.get(at) != moves[at].before]:
            raise Overtaken(overtaken)
        after = [moves[at].after for at in partitions]
        columns = [[to.offset for to in after], [to.seq for to in after], [to.hash for to in after]]
        connection.execute(self._move, [partitions, *columns])
