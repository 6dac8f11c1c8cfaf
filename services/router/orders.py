"""The standing orders of one market version, indexed so that those that fit a lead are found without looking at each.

A set of orders is an integer with a bit for each, in the order of their ids: filters, modes, holders and prices are
each one `&` away, however many orders stand. It knows which orders could buy, and not who should: that is `selling`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import TypeAlias, TypeVar

from services.contract.fields import AGE, ORDERED, QUALITY, comparable
from services.contract.market import (
    AnyOf,
    BidPrice,
    FieldKind,
    FieldType,
    FixedPrice,
    LeadType,
    ListPrice,
    Market,
    Mode,
    Order,
    Price,
)
from services.router.hours import OpeningTimes
from services.router.prices import OrderSet, RankedPrices

__all__ = ["OrderBook", "OrderSet", "members_of", "nth_of", "order_books", "price_in"]

_Key = TypeVar("_Key")
_KeptPrices: TypeAlias = dict[tuple[int | None, int], RankedPrices]


def nth_of(orders: OrderSet, n: int) -> OrderSet:
    """Choose the n-th member of a set (from 0), in time logarithmic in the number of orders."""
    width, base = orders.bit_length(), 0
    while width > 1:
        half = width // 2
        low = orders & ((1 << half) - 1)
        count = low.bit_count()
        if n < count:
            orders, width = low, half
        else:
            n, orders, base, width = n - count, orders >> half, base + half, width - half
    return 1 << base


def members_of(orders: OrderSet) -> Iterable[int]:
    """List the bit numbers of a set, ascending."""
    while orders:
        lowest = orders & -orders
        yield lowest.bit_length() - 1
        orders ^= lowest


@dataclass(slots=True)
class _FieldIndex:
    """Which orders accept which value of one field."""

    unconditional: OrderSet
    by_text: dict[str, OrderSet] = field(default_factory=lambda: defaultdict(int))
    bounds: list[int] = field(default_factory=list)
    by_interval: list[OrderSet] = field(default_factory=list)

    def accepting(self, text: str | None, number: int | None) -> OrderSet:
        found = self.unconditional
        if text is not None:
            found |= self.by_text.get(text, 0)
        if number is not None and self.by_interval:
            found |= self.by_interval[bisect_right(self.bounds, number)]
        return found


class OrderBook:
    """The orders that stand for one lead type."""

    def __init__(
        self, lead_type: LeadType, orders: Iterable[Order], timezones: Mapping[str, str] | None = None
    ) -> None:
        """Index `orders`, all of `lead_type`; those that are paused are to be left out by the caller.

        `timezones`: those of their buyers, by id, needed for orders that keep hours.
        """
        self.orders: Sequence[Order] = tuple(sorted(orders, key=lambda order: order.id))
        self._kinds = lead_type.details
        self._fields = {
            name: self._index(name)
            for name in sorted({name for order in self.orders for name, _ in order.where})
        }
        self._by_buyer = self._group(lambda order: order.buyer_id)
        self._by_id = {order.id: 1 << bit for bit, order in enumerate(self.orders)}
        self._by_holders_max = self._group(lambda order: order.holders_max)
        self._prices: tuple[_KeptPrices, _KeptPrices] = ({}, {})
        self.by_priority: Sequence[OrderSet] = [
            found for _, found in sorted(self._group(lambda o: o.priority).items())
        ]
        self._bid_exclusive = self._those(lambda order: isinstance(order.takes.exclusive, BidPrice))
        self._bid_shared = self._those(
            lambda order: isinstance(order.takes.shared, BidPrice) and not order.upgrade_always
        )
        self.alone_or_upgraded = self._those(lambda order: order.upgrade_always)
        self._hours = OpeningTimes(
            (((timezones or {}).get(order.buyer_id, "UTC"), order.open), 1 << bit)
            for bit, order in enumerate(self.orders)
        )

    def fitting(self, fields: Mapping[str, str], *, quality: int, age_ms: int, sales_max: int) -> OrderSet:
        """Find the orders whose filters and `holders_max` the lead meets."""
        found = (1 << len(self.orders)) - 1
        for name, index in self._fields.items():
            if name == QUALITY:
                found &= index.accepting(None, quality)
            elif name == AGE:
                found &= index.accepting(None, age_ms)
            else:
                text = fields.get(name)
                found &= index.accepting(text, self._number(name, text))
        for holders_max, orders in self._by_holders_max.items():
            if holders_max is not None and holders_max < sales_max:
                found &= ~orders
        return found

    def bidders(self, mode: Mode) -> OrderSet:
        """Find the orders that bid in a mode; who always upgrades can't in an auction, which sells slots at once."""
        return self._bid_exclusive if mode is Mode.EXCLUSIVE else self._bid_shared

    def closed(self, now_ms: int) -> OrderSet:
        """Find the orders that are outside their hours."""
        return self._hours.closed(now_ms)

    def prices(self, mode: Mode, list_cents: int | None, floor_cents: int) -> RankedPrices:
        """Rank what is paid in a mode: the list price by orders that take it, own amounts from the floor up.

        Without a list price (None) nobody takes it. Kept, because a market has few list prices.
        """
        # By place, since an enum's hash is Python's own to compute, for each sale again.
        kept = self._prices[0 if mode is Mode.EXCLUSIVE else 1]
        key = (list_cents, floor_cents)
        found = kept.get(key)
        if found is None:
            found = kept[key] = self._ranked(mode, list_cents, floor_cents)
        return found

    def of_buyers(self, buyer_ids: Iterable[str]) -> OrderSet:
        """Find the orders of these buyers."""
        found = 0
        for buyer_id in buyer_ids:
            found |= self._by_buyer.get(buyer_id, 0)
        return found

    def of_ids(self, order_ids: Iterable[str]) -> OrderSet:
        """Find the orders with these ids; ids that stand no longer are passed over."""
        found = 0
        for order_id in order_ids:
            found |= self._by_id.get(order_id, 0)
        return found

    def order_of(self, single: OrderSet) -> Order:
        """Name the order that a set of one consists of."""
        return self.orders[single.bit_length() - 1]

    def _number(self, name: str, text: str | None) -> int | None:
        kind = self._kinds.get(name)
        if text is None or kind is None or kind.type not in ORDERED:
            return None
        return _comparable_or_none(kind, text)

    def _index(self, name: str) -> _FieldIndex:
        conditions = [(bit, dict(order.where).get(name)) for bit, order in enumerate(self.orders)]
        index = _FieldIndex(unconditional=sum(1 << bit for bit, condition in conditions if condition is None))
        ranges: list[tuple[int, int | None, int | None]] = []
        for bit, condition in conditions:
            if isinstance(condition, AnyOf):
                for value in condition.values:
                    index.by_text[value] |= 1 << bit
            elif condition is not None:
                ranges.append((bit, condition.low, None if condition.high is None else condition.high + 1))
        if ranges:
            self._index_ranges(index, ranges)
        return index

    @staticmethod
    def _index_ranges(index: _FieldIndex, ranges: Sequence[tuple[int, int | None, int | None]]) -> None:
        """Cut the number line where any range begins or ends, and say for each interval who accepts it."""
        index.bounds = sorted({cut for _, low, end in ranges for cut in (low, end) if cut is not None})
        index.by_interval = [0] * (len(index.bounds) + 1)
        for bit, low, end in ranges:
            first = 0 if low is None else bisect_right(index.bounds, low)
            last = len(index.bounds) if end is None else bisect_right(index.bounds, end) - 1
            for interval in range(first, last + 1):
                index.by_interval[interval] |= 1 << bit

    def _group(self, key: Callable[[Order], _Key]) -> dict[_Key, OrderSet]:
        groups: dict[_Key, OrderSet] = defaultdict(int)
        for bit, order in enumerate(self.orders):
            groups[key(order)] |= 1 << bit
        return dict(groups)

    def _those(self, holds: Callable[[Order], bool]) -> OrderSet:
        return self._group(holds).get(True, 0)

    def _ranked(self, mode: Mode, list_cents: int | None, floor_cents: int) -> RankedPrices:
        paid: dict[int, OrderSet] = defaultdict(int)
        for price, orders in self._group(lambda order: price_in(order, mode)).items():
            cents = _standing_cents(price, list_cents)
            if cents is not None and cents >= floor_cents:
                paid[cents] |= orders
        classes = sorted(paid.items(), reverse=True)
        return RankedPrices(classes=classes, orders=reduce(or_, paid.values(), 0))


def price_in(order: Order, mode: Mode) -> Price | None:
    """Say what an order pays in a mode; None: it never takes a lead that way."""
    return order.takes.exclusive if mode is Mode.EXCLUSIVE else order.takes.shared


def _standing_cents(price: Price | None, list_cents: int | None) -> int | None:
    """Say what a price is before anybody is asked; None for a bid, which only an answer makes a price."""
    match price:
        case FixedPrice(cents=cents):
            return cents
        case ListPrice():
            return list_cents
        case BidPrice() | None:
            return None


def _comparable_or_none(kind: FieldKind, text: str) -> int | None:
    """Compare, unless the text is of another kind, which the field was of when the lead was accepted."""
    if kind.type is FieldType.AMOUNT and text[-3:-2] != ".":
        return None
    try:
        return comparable(kind, text)
    except ValueError:
        return None


def order_books(market: Market) -> Mapping[str, OrderBook]:
    """Index all orders of a market that are not paused, by lead type."""
    timezones = {buyer.id: buyer.timezone for buyer in market.buyers.values()}
    standing: dict[str, list[Order]] = {name: [] for name in market.lead_types}
    for buyer in market.buyers.values():
        for order in buyer.orders:
            if not buyer.paused and not order.paused:
                standing[order.lead_type].append(order)
    return {name: OrderBook(market.lead_types[name], orders, timezones) for name, orders in standing.items()}
