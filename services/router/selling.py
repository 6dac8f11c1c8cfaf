"""What a stage sells next, to which order, in which mode, at which price: rules 3 and 5 of the market file.

Pure, and without a memory of its own: the same lead, stage and orders always give the same choice. Equal ranks are
dealt by a hash of the lead id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from services.contract.ids import draw
from services.contract.market import (
    BidPrice,
    FixedPrice,
    ListPrice,
    Mode,
    Order,
    Plan,
    Price,
    Ranking,
    Selection,
    Sell,
    Stage,
)
from services.contract.records import quickly_made
from services.router.lead import Lead
from services.router.orders import OrderBook, OrderSet, members_of, nth_of, price_in
from services.router.prices import NO_BIDS, Bids, Prices, PricesWithBids


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One sale that a stage may make."""

    order: Order
    mode: Mode
    price_cents: int


class Comparison(NamedTuple):
    """All that a stage sells at once, and, where it could sell either way, what each way would have brought."""

    choices: tuple[Choice, ...] = ()
    exclusive_cents: int | None = None
    shared_cents: int | None = None


def candidates(
    book: OrderBook, lead: Lead, stage: Stage, *, no_room: frozenset[str], now_ms: int
) -> OrderSet:
    """Find the orders that may buy this lead in this stage, in any mode.

    Out are those whose filters don't fit, that are outside their hours, whose buyer holds the lead, passed on it, is
    excluded by its source or not named by its consent, those beside the stage's `only`, and those in `no_room`.
    """
    found = book.fitting(
        lead.fields, quality=lead.quality, age_ms=now_ms - lead.created_at_ms, sales_max=lead.sales_max
    )
    if not found:
        return 0
    found &= ~book.of_buyers((*lead.holders, *lead.passed, *lead.never_to))
    if lead.consented_buyers:
        found &= book.of_buyers(lead.consented_buyers)
    if closed := book.closed(now_ms):
        found &= ~closed
    if no_room:
        found &= ~book.of_ids(no_room)
    return found & book.of_buyers(stage.only) if stage.only else found


def next_choice(
    book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet, bids: Bids = NO_BIDS
) -> Choice | None:
    """Choose the stage's next sale among the orders `fitting`; None when nobody takes it."""
    if len(lead.sales) >= lead.sales_max:
        return None
    match stage.sell:
        case Sell.EXCLUSIVE:
            return _exclusive(book, lead, stage, fitting, bids)
        case Sell.SHARED:
            return _shared(book, lead, stage, fitting, bids)
        case Sell.EITHER if stage.by is Ranking.PRICE:
            return next(iter(compared(book, lead, stage, fitting, bids).choices), None)
        case Sell.EITHER:
            return _as_the_first_says(book, lead, stage, fitting, bids)


def compared(
    book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet, bids: Bids = NO_BIDS
) -> Comparison:
    """Choose all that a stage ranked by price sells among the orders `fitting`.

    Either: the best exclusive price against the sum of the best shared ones; equal sums go exclusive.
    """
    alone = None if stage.sell is Sell.SHARED else _exclusive(book, lead, stage, fitting, bids)
    if stage.sell is Sell.EXCLUSIVE:
        return Comparison(choices=(alone,) if alone else ())
    together = tuple(all_shared(book, lead, stage, fitting, bids))
    if stage.sell is Sell.SHARED or lead.sales:
        return Comparison(choices=together)
    shared_cents = sum(choice.price_cents for choice in together) if together else None
    if alone is None:
        return Comparison(choices=together, shared_cents=shared_cents)
    chosen = together if shared_cents is not None and shared_cents > alone.price_cents else (alone,)
    return Comparison(choices=chosen, exclusive_cents=alone.price_cents, shared_cents=shared_cents)


def all_shared(
    book: OrderBook,
    lead: Lead,
    stage: Stage,
    fitting: OrderSet,
    bids: Bids = NO_BIDS,
    *,
    taken: int = 0,
) -> Iterator[Choice]:
    """Choose sale after sale, as far as `sales_max` goes, each buyer at most once.

    `taken`: so many slots are thought to be gone already.
    """
    first = _sold_in_stage(lead)
    for slot in range(first + taken, first + lead.sales_max - len(lead.sales)):
        choice = _first(book, lead, stage, Mode.SHARED, fitting, slot, bids)
        if choice is None:
            return
        yield choice
        fitting &= ~book.of_buyers((choice.order.buyer_id,))


def _exclusive(book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet, bids: Bids) -> Choice | None:
    """A lead that was ever disclosed is from then on sold shared or not at all (rule 3)."""
    return None if lead.sales else _first(book, lead, stage, Mode.EXCLUSIVE, fitting, 0, bids)


def _shared(book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet, bids: Bids) -> Choice | None:
    return _first(book, lead, stage, Mode.SHARED, fitting, _sold_in_stage(lead), bids)


def _sold_in_stage(lead: Lead) -> int:
    return sum(sale.stage == lead.stage for sale in lead.sales) if lead.sales else 0


def _as_the_first_says(
    book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet, bids: Bids
) -> Choice | None:
    """The first in rank takes the lead as its order says: alone where it takes it so, otherwise shared."""
    if lead.sales:
        return _shared(book, lead, stage, fitting, bids)
    alone, together = (_prices(book, stage, mode, 0, bids) for mode in (Mode.EXCLUSIVE, Mode.SHARED))
    shared = together.orders & _takers(book, lead, stage, Mode.SHARED, fitting)
    able = fitting & alone.orders | shared
    if not able:
        return None
    chosen = _dealt(lead, _by_rank(book, lead, stage, able, 0), 0)
    if chosen & alone.orders:
        return _choice(book, Mode.EXCLUSIVE, alone, chosen)
    return _choice(book, Mode.SHARED, together, chosen)


def _first(
    book: OrderBook, lead: Lead, stage: Stage, mode: Mode, fitting: OrderSet, slot: int, bids: Bids
) -> Choice | None:
    """Choose the first in rank of those that take the mode."""
    prices = _prices(book, stage, mode, slot, bids)
    able = _takers(book, lead, stage, mode, fitting, slot) & prices.orders
    if not able:
        return None
    if stage.by is not Ranking.PRICE:
        able = _by_rank(book, lead, stage, able, slot)
    if stage.by is Ranking.PRICE or stage.by is Ranking.PRIORITY:
        able = prices.best_of(able)
    return _choice(book, mode, prices, _dealt(lead, able, slot))


def _takers(
    book: OrderBook, lead: Lead, stage: Stage, mode: Mode, fitting: OrderSet, slot: int = 0
) -> OrderSet:
    """Leave out who wants a shared lead for itself (`upgrade: always`), where it can't have that at once."""
    if mode is Mode.EXCLUSIVE or not book.alone_or_upgraded:
        return fitting
    upgrades = stage.upgrade is not None and stage.selection is Selection.DIRECT and lead.sales_max > 1
    at_once = upgrades and not lead.sales and slot == 0
    return fitting if at_once else fitting & ~book.alone_or_upgraded


def _by_rank(book: OrderBook, lead: Lead, stage: Stage, able: OrderSet, slot: int) -> OrderSet:
    """Keep those that come first by what ranks beside the price."""
    match stage.by:
        case Ranking.PRIORITY:
            return next(found for orders in book.by_priority if (found := orders & able))
        case Ranking.WEIGHT:
            return _by_weight(book, lead, able, slot)
        case Ranking.PRICE | Ranking.ROUND_ROBIN:
            return able


def _dealt(lead: Lead, able: OrderSet, slot: int) -> OrderSet:
    """Deal one of equal rank by lead id."""
    count = able.bit_count()
    return able if count == 1 else nth_of(able, draw(lead.lead_id, str(lead.stage), str(slot)) % count)


def _choice(book: OrderBook, mode: Mode, prices: Prices, chosen: OrderSet) -> Choice:
    return Choice(order=book.order_of(chosen), mode=mode, price_cents=prices.price_of(chosen))


def _prices(book: OrderBook, stage: Stage, mode: Mode, slot: int, bids: Bids) -> Prices:
    """What each order pays for this sale; own amounts and bids count from the stage's floor up (rule 5)."""
    standing = book.prices(mode, list_price(stage, mode, slot), floor_cents(stage, mode) or 0)
    live = bids.exclusive if mode is Mode.EXCLUSIVE else bids.shared
    return PricesWithBids(standing, live) if live else standing


def list_price(stage: Stage, mode: Mode, slot: int | None) -> int | None:
    """Read the list price, in minor units, of a stage's sale `slot` (from 0; None is the last, which also holds on).

    None where the stage has no list for the mode, as one that asks for bids need not.
    """
    if mode is Mode.EXCLUSIVE:
        return stage.prices.exclusive
    prices = stage.prices.shared
    if not prices:
        return None
    return prices[-1] if slot is None or slot >= len(prices) else prices[slot]


def floor_cents(stage: Stage, mode: Mode) -> int | None:
    """Read the least that a stage sells for in a mode, in minor units; None: anything."""
    own = stage.floor.exclusive if mode is Mode.EXCLUSIVE else stage.floor.shared
    return list_price(stage, mode, None) if own is None else own


_MODES: Mapping[Sell, tuple[Mode, ...]] = {
    Sell.EXCLUSIVE: (Mode.EXCLUSIVE,),
    Sell.SHARED: (Mode.SHARED,),
    Sell.EITHER: (Mode.EXCLUSIVE, Mode.SHARED),
}


def cheapest_cents(plan: Plan, order: Order) -> int | None:
    """Say the least, in minor units, that an order could buy a lead for in any stage of a plan; None: it never buys."""
    found = (
        _cheapest_in(stage, mode, price_in(order, mode))
        for stage in plan.stages
        for mode in _MODES[stage.sell]
    )
    return min((cents for cents in found if cents is not None), default=None)


def _cheapest_in(stage: Stage, mode: Mode, price: Price | None) -> int | None:
    match price:
        case None:
            return None
        case FixedPrice(cents=cents):
            return cents
        case ListPrice():
            return list_price(stage, mode, None)
        case BidPrice():
            return max(floor_cents(stage, mode) or 0, 1)


def _by_weight(book: OrderBook, lead: Lead, able: OrderSet, slot: int) -> OrderSet:
    """Deal by weight, in whole numbers, so that every machine deals alike."""
    members = list(members_of(able))
    weights = [book.orders[bit].weight for bit in members]
    left = draw(lead.lead_id, str(lead.stage), str(slot)) % sum(weights)
    for bit, weight in zip(members, weights, strict=True):
        if left < weight:
            return 1 << bit
        left -= weight
    raise AssertionError("a draw below the sum of the weights falls on one of them")
