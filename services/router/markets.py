"""The versions of the market that decisions are made under, with the orders of the latest ones indexed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

from services.contract.market import Encoding, Market
from services.market.store import Markets
from services.router.orders import OrderBook, order_books


class IndexedMarkets:
    """Reads versions through `load`; they never change, so the latest used ones are kept."""

    def __init__(self, load: Callable[[int], Market]) -> None:
        """Take how a version is read."""
        self._markets = Markets(load)
        self._books: tuple[int, Mapping[str, OrderBook]] = (0, {})
        self._avro_buyers = lru_cache(maxsize=64)(lambda version: avro_buyers_of(self.market(version)))

    def market(self, version: int) -> Market:
        """Read a version."""
        return self._markets.get(version)

    def books(self, version: int) -> Mapping[str, OrderBook]:
        """Index a version's orders, by lead type; all decisions of a batch are made under one version."""
        if self._books[0] != version:
            self._books = (version, order_books(self._markets.get(version)))
        return self._books[1]

    def avro_buyers(self, version: int) -> Collection[str]:
        """Name the buyers that a version writes their leads to in Avro."""
        return self._avro_buyers(version)


def avro_buyers_of(market: Market) -> frozenset[str]:
    """Name the buyers of a market that want their leads in Avro."""
    return frozenset(buyer.id for buyer in market.buyers.values() if buyer.deliver.encoding is Encoding.AVRO)
