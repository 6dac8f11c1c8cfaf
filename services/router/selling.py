"""What a stage sells next, to which order, in which mode, at which price: rules 3 and 5 of the market file.

Pure, and without a memory of its own: the same lead, stage and orders always give the same choice. Equal ranks are
dealt by a hash of the lead id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.contract.ids import draw
from services.contract.market import Mode, Order, Ranking, Sell, Stage
from services.router.lead import Lead
from services.router.orders import OrderBook, OrderSet, members_of, nth_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One sale that a stage may make."""

    order: Order
    mode: Mode
    price_cents: int


def candidates(
    book: OrderBook, lead: Lead, stage: Stage, *, no_room: frozenset[str], now_ms: int
) -> OrderSet:
    """Find the orders that may buy this lead in this stage, in any mode.

    Out are those whose filters don't fit, whose buyer holds the lead, passed on it or is excluded by its source,
    those beside the stage's `only`, and those in `no_room`.
    """
    found = book.fitting(
        lead.fields, quality=lead.quality, age_ms=now_ms - lead.created_at_ms, sales_max=lead.sales_max
    )
    if not found:
        return 0
    found &= ~book.of_buyers((*lead.holders, *lead.passed, *lead.never_to))
    if no_room:
        found &= ~book.of_ids(no_room)
    return found & book.of_buyers(stage.only) if stage.only else found


def next_choice(book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet) -> Choice | None:
    """Choose the stage's next sale among the orders `fitting`; None when nobody takes it."""
    if len(lead.sales) >= lead.sales_max:
        return None
    match stage.sell:
        case Sell.EXCLUSIVE:
            return _exclusive(book, lead, stage, fitting)
        case Sell.SHARED:
            return next(_shared(book, lead, stage, fitting), None)
        case Sell.EITHER if stage.by is Ranking.PRICE:
            return _whichever_brings_more(book, lead, stage, fitting)
        case Sell.EITHER:
            return _as_the_first_says(book, lead, stage, fitting)


def _exclusive(book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet) -> Choice | None:
    """A lead that was ever disclosed is from then on sold shared or not at all (rule 3)."""
    return None if lead.sales else _first(book, lead, stage, Mode.EXCLUSIVE, fitting, 0)


def _shared(book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet) -> Iterator[Choice]:
    """Choose sale after sale, as far as `sales_max` goes, each buyer at most once."""
    sold = len(lead.sales)
    in_stage = sum(1 for sale in lead.sales if sale.stage == lead.stage)
    for slot in range(in_stage, in_stage + lead.sales_max - sold):
        choice = _first(book, lead, stage, Mode.SHARED, fitting, slot)
        if choice is None:
            return
        yield choice
        fitting &= ~book.of_buyers((choice.order.buyer_id,))


def _whichever_brings_more(book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet) -> Choice | None:
    """Compare the best exclusive price with the sum of the best shared ones; equal sums go exclusive."""
    alone = _exclusive(book, lead, stage, fitting)
    if alone is None:
        return next(_shared(book, lead, stage, fitting), None)
    together = list(_shared(book, lead, stage, fitting))
    return together[0] if sum(choice.price_cents for choice in together) > alone.price_cents else alone


def _as_the_first_says(book: OrderBook, lead: Lead, stage: Stage, fitting: OrderSet) -> Choice | None:
    """The first in rank takes the lead as its order says: alone where it takes it so, otherwise shared."""
    if lead.sales:
        return next(_shared(book, lead, stage, fitting), None)
    ranked = _ranked_first(book, lead, stage, Mode.EXCLUSIVE, fitting, 0, either=True)
    if not ranked:
        return None
    alone = _first(book, lead, stage, Mode.EXCLUSIVE, ranked, 0)
    return alone or _first(book, lead, stage, Mode.SHARED, ranked, 0)


def _first(
    book: OrderBook, lead: Lead, stage: Stage, mode: Mode, fitting: OrderSet, slot: int
) -> Choice | None:
    chosen = _ranked_first(book, lead, stage, mode, fitting, slot)
    if not chosen:
        return None
    list_cents = list_price(stage, mode, slot)
    order = book.order_of(chosen)
    price = next(priced for priced in book.price_classes(mode) if priced.orders & chosen)
    return Choice(order=order, mode=mode, price_cents=list_cents if price.cents is None else price.cents)


def _ranked_first(
    book: OrderBook,
    lead: Lead,
    stage: Stage,
    mode: Mode,
    fitting: OrderSet,
    slot: int,
    *,
    either: bool = False,
) -> OrderSet:
    """Choose the first in rank, as a set of one; the empty set when nobody is left."""
    able = _affording(book, stage, mode, fitting)
    if either:
        able |= _affording(book, stage, Mode.SHARED, fitting)
    if not able:
        return 0
    match stage.by:
        case Ranking.PRICE:
            able = _best_priced(book, stage, mode, able, slot)
        case Ranking.PRIORITY:
            able = next(found for orders in book.by_priority if (found := orders & able))
            able = able if either else _best_priced(book, stage, mode, able, slot)
        case Ranking.WEIGHT:
            return _by_weight(book, lead, able, slot)
        case Ranking.ROUND_ROBIN:
            pass
    count = able.bit_count()
    return able if count == 1 else nth_of(able, draw(lead.lead_id, str(lead.stage), str(slot)) % count)


def list_price(stage: Stage, mode: Mode, slot: int) -> int:
    """Read the list price of a stage's sale number `slot` (from 0), in minor units; the last one holds on."""
    if mode is Mode.EXCLUSIVE:
        assert stage.prices.exclusive is not None, "an exclusive stage has a price"
        return stage.prices.exclusive
    assert stage.prices.shared, "a shared stage has a price"
    return stage.prices.shared[min(slot, len(stage.prices.shared) - 1)]


def _affording(book: OrderBook, stage: Stage, mode: Mode, fitting: OrderSet) -> OrderSet:
    """Keep those that take the mode at the stage's floor or more, which is its last list price (rule 5)."""
    return fitting & book.paying(mode, list_price(stage, mode, len(stage.prices.shared or ())))


def _best_priced(book: OrderBook, stage: Stage, mode: Mode, able: OrderSet, slot: int) -> OrderSet:
    """Keep those that pay most; an own amount equal to the list is the list's equal."""
    best, best_cents = 0, -1
    for priced in book.price_classes(mode):
        cents = list_price(stage, mode, slot) if priced.cents is None else priced.cents
        if found := priced.orders & able:
            if cents > best_cents:
                best, best_cents = found, cents
            elif cents == best_cents:
                best |= found
    return best


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
