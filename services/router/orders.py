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
    FieldKind,
    FieldType,
    LeadType,
    ListPrice,
    Market,
    Mode,
    Order,
    Price,
)

OrderSet: TypeAlias = int
_Key = TypeVar("_Key")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPrices:
    """What orders pay for one sale in one mode: amounts in minor units from the highest down, each with its orders."""

    classes: Sequence[tuple[int, OrderSet]]
    orders: OrderSet

    def best_of(self, able: OrderSet) -> OrderSet:
        """Keep those that pay most; the empty set of the empty set."""
        return next((found for _, orders in self.classes if (found := orders & able)), 0)

    def price_of(self, single: OrderSet) -> int:
        """Say what the order that a set of one consists of pays."""
        return next(cents for cents, orders in self.classes if orders & single)


class OrderBook:
    """The orders that stand for one lead type."""

    def __init__(self, lead_type: LeadType, orders: Iterable[Order]) -> None:
        """Index `orders`, all of `lead_type`; those that are paused are to be left out by the caller."""
        self.orders: Sequence[Order] = tuple(sorted(orders, key=lambda order: order.id))
        self._kinds = lead_type.details
        self._fields = {
            name: self._index(name)
            for name in sorted({name for order in self.orders for name, _ in order.where})
        }
        self._by_buyer = self._group(lambda order: order.buyer_id)
        self._by_id = {order.id: 1 << bit for bit, order in enumerate(self.orders)}
        self._by_holders_max = self._group(lambda order: order.holders_max)
        self._prices: dict[tuple[Mode, int, int], RankedPrices] = {}
        self.by_priority: Sequence[OrderSet] = [
            found for _, found in sorted(self._group(lambda o: o.priority).items())
        ]

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

    def prices(self, mode: Mode, *, list_cents: int, floor_cents: int) -> RankedPrices:
        """Rank what is paid in a mode: the list price by orders that take it, own amounts from the floor up.

        Kept, because a market has few list prices.
        """
        key = (mode, list_cents, floor_cents)
        found = self._prices.get(key)
        if found is None:
            found = self._prices[key] = self._ranked(mode, list_cents, floor_cents)
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

    def _ranked(self, mode: Mode, list_cents: int, floor_cents: int) -> RankedPrices:
        paid: dict[int, OrderSet] = defaultdict(int)
        for price, orders in self._group(lambda order: _price_in(order, mode)).items():
            cents = list_cents if isinstance(price, ListPrice) else price.cents if price is not None else -1
            if cents >= floor_cents:
                paid[cents] |= orders
        classes = sorted(paid.items(), reverse=True)
        return RankedPrices(classes=classes, orders=reduce(or_, paid.values(), 0))


def _price_in(order: Order, mode: Mode) -> Price | None:
    return order.takes.exclusive if mode is Mode.EXCLUSIVE else order.takes.shared


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
    standing: dict[str, list[Order]] = {name: [] for name in market.lead_types}
    for buyer in market.buyers.values():
        for order in buyer.orders:
            if not buyer.paused and not order.paused:
                standing[order.lead_type].append(order)
    return {name: OrderBook(market.lead_types[name], orders) for name, orders in standing.items()}
