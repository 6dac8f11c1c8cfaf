"""What the orders of a market pay for one sale in one mode, from the highest price down: standing orders and live bids.

Both compete in one ranking, so both answer the same questions here. Which of equal prices is chosen is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

OrderSet: TypeAlias = int
"""A set of orders: an integer with a bit for each, in the order of their ids."""


class Prices(Protocol):
    """Who pays what for one sale in one mode."""

    @property
    def orders(self) -> OrderSet:
        """Everybody who would buy."""
        ...

    def best_of(self, able: OrderSet) -> OrderSet:
        """Keep those that pay most; the empty set of the empty set."""
        ...

    def price_of(self, single: OrderSet) -> int:
        """Say what the order that a set of one consists of pays, in minor units."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPrices:
    """What standing orders pay: amounts in minor units from the highest down, each with its orders."""

    classes: Sequence[tuple[int, OrderSet]]
    orders: OrderSet

    def best_of(self, able: OrderSet) -> OrderSet:
        """Keep those that pay most; the empty set of the empty set."""
        return next((found for _, orders in self.classes if (found := orders & able)), 0)

    def price_of(self, single: OrderSet) -> int:
        """Say what the order that a set of one consists of pays."""
        return next(cents for cents, orders in self.classes if orders & single)


class Bid(NamedTuple):
    """A price that a buyer named for one mode, for its order (a set of one)."""

    cents: int
    order: OrderSet


class Bids(NamedTuple):
    """Live bids by mode, each from the highest down, none of them below the stage's floor."""

    exclusive: tuple[Bid, ...] = ()
    shared: tuple[Bid, ...] = ()


NO_BIDS = Bids()


class PricesWithBids:
    """What standing orders pay, and what others bid; an order that bids in a mode has no standing price in it."""

    __slots__ = ("_bids", "_standing", "orders")

    def __init__(self, standing: RankedPrices, bids: Sequence[Bid]) -> None:
        """Join the bids to the standing prices; `bids` from the highest down, none of them below the floor."""
        self._standing = standing
        self._bids = bids
        self.orders = standing.orders
        for _, order in bids:
            self.orders |= order

    def best_of(self, able: OrderSet) -> OrderSet:
        """Keep those that pay most, whether they stand or bid."""
        best_cents, best = 0, 0
        for cents, order in self._bids:
            if best and cents < best_cents:
                break
            if order & able:
                best_cents, best = cents, best | order
        if not best or self._standing.orders & able:
            for cents, orders in self._standing.classes:
                if best and cents < best_cents:
                    break
                if found := orders & able:
                    return best | found if best and cents == best_cents else found
        return best

    def price_of(self, single: OrderSet) -> int:
        """Say what the order that a set of one consists of pays."""
        for cents, order in self._bids:
            if order == single:
                return cents
        return self._standing.price_of(single)
