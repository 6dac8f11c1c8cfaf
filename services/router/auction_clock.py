"""The open auctions of a worker's partitions, and when the next one is due: the router's own clock (rule 27).

It closes nothing: whether an auction is over is judged by the decision, at the database's time. No IO.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable

from services.router.ports import AuctionRow

DUE_AT_ONCE_MAX = 500


class AuctionClock:
    """Knows the open auctions by the time at which they close."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: dict[str, AuctionRow] = {}
        self._due: dict[int, list[tuple[int, str, int]]] = {}

    def begin(self, partition: int, rows: Iterable[AuctionRow]) -> None:
        """Know of a partition's auctions these, and no others."""
        self.drop(partition)
        self._due[partition] = []
        for row in rows:
            self.opened(row)

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        for _, lead_id, _ in self._due.pop(partition, ()):
            self._open.pop(lead_id, None)

    def opened(self, row: AuctionRow) -> None:
        """Take note of an auction that was opened."""
        self._open[row.lead_id] = row
        heapq.heappush(self._due[row.partition], (row.closes_at_ms, row.lead_id, row.auction_number))

    def ended(self, lead_id: str) -> None:
        """Take note that a lead's auction is over."""
        self._open.pop(lead_id, None)

    def closes_at_ms(self, lead_id: str) -> int | None:
        """Say when a lead's open auction closes."""
        row = self._open.get(lead_id)
        return None if row is None else row.closes_at_ms

    def next_ms(self, partitions: Collection[int]) -> int | None:
        """Say when the first auction of these partitions closes."""
        first = [row.closes_at_ms for partition in partitions if (row := self._first(partition)) is not None]
        return min(first, default=None)

    def due(self, partition: int, now_ms: int) -> list[AuctionRow]:
        """Take a partition's auctions that close by `now_ms`, the earliest first, as many as one turn may take.

        They stay open, and due, until they are said to be over.
        """
        found: list[AuctionRow] = []
        while len(found) < DUE_AT_ONCE_MAX:
            row = self._first(partition)
            if row is None or row.closes_at_ms > now_ms:
                break
            heapq.heappop(self._due[partition])
            found.append(row)
        for row in found:
            heapq.heappush(self._due[partition], (row.closes_at_ms, row.lead_id, row.auction_number))
        return found

    def _first(self, partition: int) -> AuctionRow | None:
        """Find the first that is still open; those that are over stay in the heap until their time comes."""
        heap = self._due.get(partition)
        while heap:
            closes_at_ms, lead_id, number = heap[0]
            row = self._open.get(lead_id)
            if row is not None and (row.closes_at_ms, row.auction_number) == (closes_at_ms, number):
                return row
            heapq.heappop(heap)
        return None
