"""The billing step: folds entries of the log into a ledger, batch by batch.

It must not know where the ledger keeps its rows, nor what an entry means in money.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from services.billing.changes import Contradiction
from services.billing.domain import WITHOUT_MONEY, ReadEntry, postings
from services.billing.rows import Postings
from services.bus.log_reader import Move, TakenEntry
from services.bus.ports import Stopped
from services.contract.codec import Codec
from services.contract.entries import Position


class Ledger(Protocol):
    """Where rows and positions are kept, together. Each call may raise `PassingFault`."""

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions; a partition never read has `Position()`."""
        ...

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Store the rows and move the positions by compare-and-set, in one transaction.

        Raise `Overtaken` with nothing stored where a stored position is not the move's `before`, and `Stopped` where
        the rows contradict what is stored.
        """
        ...


class Billing:
    """A `LogFold` that bills."""

    def __init__(self, ledger: Ledger, codec: Codec) -> None:
        """Fold into `ledger`."""
        self._ledger = ledger
        self._codec = codec

        # What is not known to mean nothing is decoded, so that an event of a type unknown to us stops the worker.
        self._passed_over = frozenset[int]().union(*map(codec.ids_of, WITHOUT_MONEY))

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions."""
        return self._ledger.positions(partitions)

    def apply(self, taken: Sequence[TakenEntry], moves: Mapping[int, Move]) -> None:
        """Record what the entries mean in money."""
        try:
            rows = postings(map(self._read, taken))
        except Contradiction as error:
            raise Stopped(f"the log contradicts itself: {error}") from error
        self._ledger.record(rows, moves)

    def idle(self) -> None:
        """Nothing is due: money moves when the log says so."""

    def _read(self, taken: TakenEntry) -> ReadEntry:
        entry, passed_over, decode = taken.entry, self._passed_over, self._codec.decode_body
        events = [decode(event) for event in entry.events if event.schema_id not in passed_over]
        return ReadEntry(taken.partition, entry, events)
