"""What competes in an auction, and what becomes of each bid: live bids and standing orders in one ranking.

Pure, and without effect: `services.router.auctions` asks here, and records what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.contract.events import BidOutcome, BidResult
from services.contract.market import Mode, Selection, Sell, Stage
from services.contract.records import quickly_made
from services.router.lead import Auction, Lead, PlacedBid, cents_of
from services.router.orders import OrderBook, OrderSet
from services.router.prices import NO_BIDS, Bid, Bids
from services.router.selling import Choice, Comparison, all_shared, candidates, compared, floor_cents


def modes_for_sale(stage: Stage, lead: Lead) -> tuple[Mode, ...]:
    """Say in which modes a stage can still sell the lead: shared or not at all, once it was disclosed (rule 3)."""
    match stage.sell:
        case Sell.SHARED:
            return (Mode.SHARED,)
        case Sell.EXCLUSIVE:
            return () if lead.sales else (Mode.EXCLUSIVE,)
        case Sell.EITHER:
            return (Mode.SHARED,) if lead.sales else (Mode.EXCLUSIVE, Mode.SHARED)


def least_cents(stage: Stage, mode: Mode) -> int:
    """Give the lowest price that counts in a mode: a bid of nothing is none."""
    return max(floor_cents(stage, mode) or 0, 1)


class Term(NamedTuple):
    """What counts as a bid in one mode: the lowest price, and the fitting orders that bid in it."""

    mode: Mode
    least_cents: int
    bidders: OrderSet


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """An auction that is to be decided.

    `fitting`: the orders that still stand and have room, bidding or not. `bids`: those that count, where the best wins.
    `terms`: one for each mode that is for sale.
    """

    book: OrderBook | None
    lead: Lead
    stage: Stage
    auction: Auction
    terms: Sequence[Term]
    fitting: OrderSet
    bids: Bids = NO_BIDS

    def compared(self) -> Comparison:
        """Choose what is sold, at which price, to whom."""
        if self.book is None:
            return Comparison()
        return compared(self.book, self.lead, self.stage, self.fitting, self.bids)

    def order_of(self, bid: PlacedBid) -> OrderSet:
        """Find the order that a bid is for, as a set of one; empty where it stands no longer or has no room."""
        return 0 if self.book is None else self.book.of_ids((bid.order_id,)) & self.fitting

    def sale_of(self, bid: PlacedBid) -> Choice | None:
        """Make a sale of one bid, where the first wins: alone if it says so, otherwise shared; None: it can't win."""
        order = self.order_of(bid)
        for mode, least, bidders in self.terms:
            cents = cents_of(bid, mode)
            if self.book is not None and cents is not None and cents >= least and order & bidders:
                return Choice(order=self.book.order_of(order), mode=mode, price_cents=cents)
        return None


def contest_of(
    book: OrderBook | None, lead: Lead, stage: Stage, auction: Auction, *, no_room: frozenset[str]
) -> Contest:
    """Find what competes: who fitted when the auction opened, and fits now but for age and hours.

    What a buyer answered in a mode that its order no longer bids in counts no more.
    """
    fitting = 0
    if book is not None:
        fitting = candidates(book, lead, stage, no_room=no_room, now_ms=auction.opened_at_ms)
    terms = [
        Term(mode, least_cents(stage, mode), book.bidders(mode) & fitting if book is not None else 0)
        for mode in modes_for_sale(stage, lead)
    ]
    return Contest(
        book=book,
        lead=lead,
        stage=stage,
        auction=auction,
        terms=terms,
        fitting=fitting,
        bids=NO_BIDS if book is None else _live_bids(book, auction, terms),
    )


def results(contest: Contest, sold: Comparison) -> tuple[BidResult, ...]:
    """Say what became of each bid of an auction that the best won."""
    won = {choice.order.buyer_id: choice.mode for choice in sold.choices}
    return tuple(_result(contest, sold, won, bid) for bid in contest.auction.bids)


def first_bid_results(contest: Contest, won: Mapping[str, Mode]) -> tuple[BidResult, ...]:
    """Say what became of each bid of an auction that the first won; a bid that was enough in time had no room."""
    return tuple(_first_bid_result(contest, won, bid) for bid in contest.auction.bids)


def _live_bids(book: OrderBook, auction: Auction, terms: Sequence[Term]) -> Bids:
    """Rank the bids that count, by mode; none where they don't compete, because the first wins."""
    if auction.selection is Selection.FIRST_BID:
        return NO_BIDS
    exclusive: list[Bid] = []
    shared: list[Bid] = []
    for bid in auction.bids:
        order = book.of_ids((bid.order_id,))
        for mode, least, bidders in terms:
            cents = cents_of(bid, mode)
            if cents is not None and cents >= least and order & bidders:
                (exclusive if mode is Mode.EXCLUSIVE else shared).append(Bid(cents, order))
    return Bids(tuple(sorted(exclusive, reverse=True)), tuple(sorted(shared, reverse=True)))


def _result(contest: Contest, sold: Comparison, won: Mapping[str, Mode], bid: PlacedBid) -> BidResult:
    if bid.buyer_id in won:
        return _told(bid, BidOutcome.WON, won[bid.buyer_id])
    able, enough = _modes_of(contest, bid)
    if not able:
        return _told(bid, BidOutcome.NO_ROOM, None)
    sold_mode = sold.choices[0].mode if sold.choices else None
    asked = enough or able
    mode = sold_mode if sold_mode in asked else asked[0]
    if not enough:
        outcome = BidOutcome.BELOW_FLOOR
    else:
        outcome = BidOutcome.OUTBID if mode is sold_mode else BidOutcome.OTHER_MODE
    return _told(bid, outcome, mode, _minimum_to_win(contest, sold, bid, mode))


def _modes_of(contest: Contest, bid: PlacedBid) -> tuple[list[Mode], list[Mode]]:
    """Find the modes that a bid names and could win in, and of these the ones in which it is not under the floor."""
    able, enough = [], []
    order = contest.order_of(bid)
    for mode, least, bidders in contest.terms:
        cents = cents_of(bid, mode)
        if cents is not None and order & bidders:
            able.append(mode)
            if cents >= least:
                enough.append(mode)
    return able, enough


def _minimum_to_win(contest: Contest, sold: Comparison, bid: PlacedBid, mode: Mode) -> int:
    """Give a price in `mode` that would have won, all else being as it was.

    It is the least one but for two cases. A price equal to another's may win too, where the lead id deals it so. And
    where list prices fall, a shared bid is taken to push all others one slot on, which they may not have paid less in.
    """
    least = least_cents(contest.stage, mode)
    if not sold.choices:
        return least
    if mode is sold.choices[0].mode:
        slots = 1 if mode is Mode.EXCLUSIVE else contest.lead.sales_max - len(contest.lead.sales)
        return max(least, sold.choices[-1].price_cents + 1) if len(sold.choices) == slots else least
    if mode is Mode.EXCLUSIVE:
        return max(least, sum(choice.price_cents for choice in sold.choices))
    return max(least, sold.choices[0].price_cents - _others_cents(contest, bid) + 1)


def _others_cents(contest: Contest, bid: PlacedBid) -> int:
    """Add up what the best other buyers pay for the slots beside a bid's own."""
    book = contest.book
    assert book is not None, "something was sold"
    others = contest.fitting & ~book.of_buyers((bid.buyer_id,))
    beside = all_shared(book, contest.lead, contest.stage, others, contest.bids, taken=1)
    return sum(choice.price_cents for choice in beside)


def _first_bid_result(contest: Contest, won: Mapping[str, Mode], bid: PlacedBid) -> BidResult:
    if bid.buyer_id in won:
        return _told(bid, BidOutcome.WON, won[bid.buyer_id])
    named = [mode for mode in (Mode.EXCLUSIVE, Mode.SHARED) if cents_of(bid, mode) is not None]
    enough = [mode for mode in named if (cents_of(bid, mode) or 0) >= least_cents(contest.stage, mode)]
    if not enough:
        return _told(bid, BidOutcome.BELOW_FLOOR, named[0], least_cents(contest.stage, named[0]))
    for_sale = [term.mode for term in contest.terms]
    if all(mode not in for_sale for mode in enough):
        return _told(bid, BidOutcome.OTHER_MODE, enough[0])
    return _told(bid, BidOutcome.NO_ROOM, None)


def _told(
    bid: PlacedBid, outcome: BidOutcome, mode: Mode | None, minimum_to_win_cents: int | None = None
) -> BidResult:
    return BidResult(
        buyer_id=bid.buyer_id, outcome=outcome, mode=mode, minimum_to_win_cents=minimum_to_win_cents
    )
