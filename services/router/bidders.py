"""Which buyers are asked for bids: not those that have been silent for long, and none more often than it wants.

Each worker keeps this for itself and loses it with its life, which it may: the entry says who was left out. Pure; the
time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from services.contract.events import AuctionClosed, AuctionEnd, AuctionOpened, BidDeclined, BidPlaced
from services.contract.market import Market

SILENT_IN_A_ROW_MAX = 20
BROKEN_FOR_S = 30.0
_MINUTE_S = 60

Bidding: TypeAlias = AuctionOpened | BidPlaced | BidDeclined | AuctionClosed


class BreakerChange(NamedTuple):
    """A buyer's breaker opened (it is not asked for a while) or closed (it answers again)."""

    buyer_id: str
    is_open: bool


@dataclass(slots=True)
class _Bidder:
    silent_in_a_row: int = 0
    broken_until_s: float | None = None
    asked: deque[tuple[int, int]] = field(default_factory=deque)
    """Whole seconds, and how often it was asked in each: of the last minute only."""

    def asked_lately(self, now_s: float) -> int:
        while self.asked and self.asked[0][0] <= int(now_s) - _MINUTE_S:
            self.asked.popleft()
        return sum(count for _, count in self.asked)

    def ask(self, now_s: float) -> None:
        second = int(now_s)
        if self.asked and self.asked[-1][0] == second:
            self.asked[-1] = (second, self.asked[-1][1] + 1)
        else:
            self.asked.append((second, 1))
        if self.broken_until_s is not None:
            # This is the probe: the next one may follow only when it has gone unanswered for as long again.
            self.broken_until_s = now_s + BROKEN_FOR_S


class Bidders:
    """How the buyers that this worker asks have answered."""

    def __init__(self) -> None:
        """Begin with nothing held against anybody."""
        self._bidders: dict[str, _Bidder] = {}

    def invitations(self, market: Market, *, owned: int, partitions: int, now_s: float) -> Invitations:
        """Begin a batch of a worker that owns so many of all partitions."""
        return Invitations(self._bidders, market, owned=owned, partitions=partitions, now_s=now_s)

    def follow(self, events: Iterable[Bidding], now_s: float) -> Sequence[BreakerChange]:
        """Learn from what was committed."""
        changes: list[BreakerChange] = []
        for event in events:
            match event:
                case AuctionOpened():
                    for invited in event.invited:
                        self._of(invited.buyer_id).ask(now_s)
                case BidPlaced() | BidDeclined():
                    changes += self._answered(event.buyer_id)
                case AuctionClosed(reason=AuctionEnd.TIME_UP):
                    for buyer_id in event.silent:
                        changes += self._silent(buyer_id, now_s)
                case AuctionClosed():
                    pass
        return changes

    def _of(self, buyer_id: str) -> _Bidder:
        return self._bidders.setdefault(buyer_id, _Bidder())

    def _answered(self, buyer_id: str) -> list[BreakerChange]:
        bidder = self._of(buyer_id)
        was_broken = bidder.broken_until_s is not None
        bidder.silent_in_a_row, bidder.broken_until_s = 0, None
        return [BreakerChange(buyer_id, is_open=False)] if was_broken else []

    def _silent(self, buyer_id: str, now_s: float) -> list[BreakerChange]:
        bidder = self._of(buyer_id)
        bidder.silent_in_a_row += 1
        if bidder.broken_until_s is not None or bidder.silent_in_a_row < SILENT_IN_A_ROW_MAX:
            return []
        bidder.broken_until_s = now_s + BROKEN_FOR_S
        return [BreakerChange(buyer_id, is_open=True)]


class Invitations:
    """Who may still be asked in one batch, auction after auction."""

    def __init__(
        self, bidders: dict[str, _Bidder], market: Market, *, owned: int, partitions: int, now_s: float
    ) -> None:
        """Take what is known, which this changes nothing of."""
        self._bidders = bidders
        self._market = market
        self._owned = owned
        self._partitions = partitions
        self._now_s = now_s
        self._asked: Counter[str] = Counter()

    def withheld(self, opened: AuctionOpened) -> list[str]:
        """Name the orders that must not be asked now."""
        return [invited.order_id for invited in opened.invited if not self._may_ask(invited.buyer_id)]

    def note(self, opened: AuctionOpened) -> None:
        """Count those that are asked."""
        self._asked.update(invited.buyer_id for invited in opened.invited)

    def _may_ask(self, buyer_id: str) -> bool:
        bidder = self._bidders.get(buyer_id)
        asked = self._asked[buyer_id]
        if bidder is not None and bidder.broken_until_s is not None:
            return self._now_s >= bidder.broken_until_s and not asked
        limit = self._limit(buyer_id)
        if limit is None:
            return True
        return asked + (bidder.asked_lately(self._now_s) if bidder else 0) < limit

    def _limit(self, buyer_id: str) -> int | None:
        """Give this worker's share of a buyer's limit: at least one, so that a small limit silences nobody."""
        buyer = self._market.buyers.get(buyer_id)
        if buyer is None or buyer.pings_per_minute is None:
            return None
        return max(1, buyer.pings_per_minute * self._owned // self._partitions)
