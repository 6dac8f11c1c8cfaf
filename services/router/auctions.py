"""Auctions: a stage asks buyers for bids, and sells to the best of them, or to the first, at their own prices.

Bids reserve nothing: whether an order stands and has room is asked when the auction closes (protocol.md, rule 28). Who
was asked, and which orders fitted, is judged by the time of the opening, so that nobody's hours end between ping and
close. What comes after an auction is for the caller to say: each function here tells whether it ended one.
"""

from __future__ import annotations

from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    BidVoided,
    Invitation,
    VoidReason,
)
from services.contract.inputs import CloseAuction, DeclineToBid, PlaceBid
from services.contract.market import Mode, Selection, Stage
from services.router.bidding import Contest, contest_of, first_bid_results, modes_for_sale, results
from services.router.deciding import Deciding
from services.router.lead import Auction, Lead, cents_of
from services.router.orders import OrderBook, OrderSet, members_of
from services.router.selling import Choice, floor_cents

BID_GRACE_MS = 50
"""An auction closes this long after its deadline, so that a bid appended in time is here in time."""


def open_auction(deciding: Deciding, lead: Lead, stage: Stage, book: OrderBook, fitting: OrderSet) -> bool:
    """Ask for bids whoever of the orders `fitting` bids for what is for sale; False where there is nobody to ask."""
    modes = modes_for_sale(stage, lead)
    invited = _invitations(book, fitting, modes)
    if not invited or len(lead.sales) >= lead.sales_max:
        return False
    assert stage.bid_window_ms is not None, "a stage that asks for bids says how long"
    bids_until_ms = deciding.now_ms + stage.bid_window_ms
    deciding.record(
        AuctionOpened(
            auction_number=lead.auctions_opened + 1,
            stage=lead.stage,
            selection=stage.selection,
            sell=stage.sell,
            bids_until_ms=bids_until_ms,
            closes_at_ms=bids_until_ms + BID_GRACE_MS,
            floor_exclusive_cents=floor_cents(stage, Mode.EXCLUSIVE) if Mode.EXCLUSIVE in modes else None,
            floor_shared_cents=floor_cents(stage, Mode.SHARED) if Mode.SHARED in modes else None,
            currency=deciding.conditions.market.currency,
            invited=invited,
            sale_number=len(lead.sales) + 1,
            sales_max=lead.sales_max,
            exclusive_for_ms=deciding.exclusive_for_ms(lead) if Mode.EXCLUSIVE in modes else None,
            lead_type=lead.lead_type,
            quality=lead.quality,
            fields=lead.fields,
            holders=lead.holders,
            is_test=lead.is_test,
        )
    )
    return True


def place_bid(deciding: Deciding, lead: Lead, bid: PlaceBid) -> bool:
    """Put a bid on record, void or in the modes that it was asked for; True where it ended its auction."""
    asked, void = _asked(lead, bid)
    if asked is not None and not _names_a_price(asked, bid):
        void = VoidReason.NO_PRICE
    if void is not None or asked is None:
        _void(deciding, bid, bid.exclusive_cents, bid.shared_cents, void or VoidReason.NOT_INVITED)
        return False
    deciding.record(
        BidPlaced(
            auction_number=bid.auction_number,
            buyer_id=bid.buyer_id,
            order_id=asked.order_id,
            exclusive_cents=bid.exclusive_cents if Mode.EXCLUSIVE in asked.modes else None,
            shared_cents=bid.shared_cents if Mode.SHARED in asked.modes else None,
            answered_at_ms=bid.answered_at_ms,
        )
    )
    auction = lead.auction
    assert auction is not None, "a bid that counts leaves its auction open"
    if auction.selection is Selection.FIRST_BID:
        choice = _contest(deciding, lead, auction).sale_of(auction.bids[-1])
        if choice is not None:
            return _sell_to_first(deciding, lead, auction, choice)
    return _close_if_all_have_answered(deciding, lead, auction)


def decline_to_bid(deciding: Deciding, lead: Lead, answer: DeclineToBid) -> bool:
    """Record that a buyer does not bid; True where nobody was left to wait for."""
    asked, void = _asked(lead, answer)
    if asked is None or void is not None:
        _void(deciding, answer, None, None, void or VoidReason.NOT_INVITED)
        return False
    deciding.record(
        BidDeclined(
            auction_number=answer.auction_number,
            buyer_id=answer.buyer_id,
            reason=answer.reason,
            answered_at_ms=answer.answered_at_ms,
        )
    )
    auction = lead.auction
    assert auction is not None, "an answer that counts leaves its auction open"
    return _close_if_all_have_answered(deciding, lead, auction)


def close_when_due(deciding: Deciding, lead: Lead, clock: CloseAuction) -> bool:
    """Close an auction whose time is up; a clock that is early, or late for another one, does nothing."""
    auction = lead.auction
    if auction is None or auction.number != clock.auction_number or deciding.now_ms < auction.closes_at_ms:
        return False
    _close(deciding, lead, auction, AuctionEnd.TIME_UP)
    return True


def _contest(deciding: Deciding, lead: Lead, auction: Auction) -> Contest:
    return contest_of(
        deciding.book(lead), lead, deciding.stage(lead), auction, no_room=deciding.conditions.no_room
    )


def _sell_to_first(deciding: Deciding, lead: Lead, auction: Auction, choice: Choice) -> bool:
    """Sell to the bidder that came first; the auction goes on while it has slots and somebody to wait for."""
    is_last = choice.mode is Mode.EXCLUSIVE or len(lead.sales) + 1 >= lead.sales_max
    ends = is_last or auction.all_have_answered
    if ends:
        _end(deciding, lead, auction, AuctionEnd.FIRST_BID if is_last else AuctionEnd.ALL_ANSWERED, choice)
    deciding.sell(lead, choice.order, choice.mode, choice.price_cents, auction_number=auction.number)
    return ends


def _close_if_all_have_answered(deciding: Deciding, lead: Lead, auction: Auction) -> bool:
    if not auction.all_have_answered:
        return False
    _close(deciding, lead, auction, AuctionEnd.ALL_ANSWERED)
    return True


def _close(deciding: Deciding, lead: Lead, auction: Auction, reason: AuctionEnd) -> None:
    """Sell to the best of standing orders and bids; where the first bid wins, all that could be sold is sold."""
    if auction.selection is Selection.FIRST_BID:
        _end(deciding, lead, auction, reason, None)
        return
    contest = _contest(deciding, lead, auction)
    comparison = contest.compared()
    deciding.record(
        AuctionClosed(
            auction_number=auction.number,
            reason=reason,
            mode=comparison.choices[0].mode if comparison.choices else None,
            exclusive_cents=comparison.exclusive_cents,
            shared_cents=comparison.shared_cents,
            results=results(contest, comparison),
            silent=_silent(auction, reason),
        )
    )
    for choice in comparison.choices:
        deciding.sell(lead, choice.order, choice.mode, choice.price_cents, auction_number=auction.number)


def _end(deciding: Deciding, lead: Lead, auction: Auction, reason: AuctionEnd, last: Choice | None) -> None:
    """End an auction that the first bids win; `last` is the sale that ends it."""
    won = {sale.buyer_id: sale.mode for sale in lead.sales}
    if last is not None:
        won[last.order.buyer_id] = last.mode
    contest = _contest(deciding, lead, auction)
    deciding.record(
        AuctionClosed(
            auction_number=auction.number,
            reason=reason,
            mode=next((won[bid.buyer_id] for bid in auction.bids if bid.buyer_id in won), None),
            exclusive_cents=None,
            shared_cents=None,
            results=first_bid_results(contest, won),
            silent=_silent(auction, reason),
        )
    )


def _silent(auction: Auction, reason: AuctionEnd) -> tuple[str, ...]:
    """Name those that had all the time there was, and did not answer."""
    if reason is not AuctionEnd.TIME_UP:
        return ()
    return tuple(asked.buyer_id for asked in auction.invited if not auction.has_answered(asked.buyer_id))


def _invitations(book: OrderBook, fitting: OrderSet, modes: tuple[Mode, ...]) -> tuple[Invitation, ...]:
    """Ask each buyer once, for the order that it puts first, of these the one that bids in more modes."""
    bidding = [(mode, fitting & book.bidders(mode)) for mode in modes]
    best: dict[str, tuple[tuple[int, int], Invitation]] = {}
    everybody = 0
    for _, orders in bidding:
        everybody |= orders
    for bit in members_of(everybody):
        order = book.orders[bit]
        asked = tuple(mode for mode, orders in bidding if orders >> bit & 1)
        rank = (order.priority, -len(asked))
        known = best.get(order.buyer_id)
        if known is None or rank < known[0]:
            best[order.buyer_id] = (
                rank,
                Invitation(buyer_id=order.buyer_id, order_id=order.id, modes=asked),
            )
    return tuple(invitation for _, invitation in best.values())


def _asked(lead: Lead, answer: PlaceBid | DeclineToBid) -> tuple[Invitation | None, VoidReason | None]:
    """Find the invitation that an answer is to, or say why it is to none that is open."""
    auction = lead.auction
    if auction is None or answer.auction_number != auction.number:
        was_open = 1 <= answer.auction_number <= lead.auctions_opened
        return None, VoidReason.LATE if was_open else VoidReason.NOT_INVITED
    asked = auction.invitation_of(answer.buyer_id)
    if asked is None:
        return None, VoidReason.NOT_INVITED
    if answer.answered_at_ms > auction.bids_until_ms:
        return asked, VoidReason.LATE
    if auction.has_answered(answer.buyer_id):
        return asked, VoidReason.ANSWERED_BEFORE
    return asked, None


def _names_a_price(asked: Invitation, bid: PlaceBid) -> bool:
    return any((cents_of(bid, mode) or 0) > 0 for mode in asked.modes)


def _void(
    deciding: Deciding,
    answer: PlaceBid | DeclineToBid,
    exclusive_cents: int | None,
    shared_cents: int | None,
    reason: VoidReason,
) -> None:
    deciding.record(
        BidVoided(
            auction_number=answer.auction_number,
            buyer_id=answer.buyer_id,
            exclusive_cents=exclusive_cents,
            shared_cents=shared_cents,
            answered_at_ms=answer.answered_at_ms,
            reason=reason,
        )
    )
