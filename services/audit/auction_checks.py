"""What must be true of offers and auctions: who was asked, what was answered in time, who won, what each was told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from services.audit.findings import At, Findings, Markets
from services.audit.lead_state import LeadState, Listed, Sale
from services.audit.rules import Rule
from services.audit.sale_checks import exclusive_for_ms, floor_of
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidDeclined,
    BidOutcome,
    BidPlaced,
    BidVoided,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    VoidReason,
)
from services.contract.market import Mode, Plan, Selection, Sell, Stage

_EXCLUSIVE = Mode.EXCLUSIVE.value
_SHARED = Mode.SHARED.value


class Open(NamedTuple):
    """The auction that is open, as a lead's state keeps it; `invited`: buyer, order, modes."""

    number: int
    selection: str
    sell: str
    bids_until_ms: int
    closes_at_ms: int
    floor_exclusive_cents: int | None
    floor_shared_cents: int | None
    invited: tuple[tuple[str, str, tuple[str, ...]], ...]
    slots: int
    seq: int
    offset: int


class AuctionChecks:
    """Judges auctions and offers as the log tells them, and keeps in the lead's state what is open."""

    def __init__(self, findings: Findings, markets: Markets) -> None:
        """Report to `findings`."""
        self._findings = findings
        self._markets = markets

    def offered(self, at: At, state: LeadState, listed: Listed, offer: OfferMade) -> None:
        """Judge an offer, and keep it."""
        plan = self._plan(listed)
        stage = _stage(plan, offer.stage)
        holders = tuple(sale.terms.buyer_id for sale in state.sales)
        told = (offer.sale_number, offer.sales_max, offer.holders, offer.stage, offer.is_test, offer.quality)
        true = (len(holders) + 1, listed.sales_max, holders, state.stage, listed.is_test, listed.quality)
        if told != true or dict(offer.fields) != listed.fields or offer.lead_type != listed.lead_type:
            self._broken(at, Rule.TERMS_ARE_TRUE, f"offer {offer.offer_number} tells of another lead")
        if stage is None or stage.accept_within_ms is None:
            self._broken(at, Rule.SOLD_BY_ITS_PLAN, f"stage {offer.stage} makes no offers")
        elif offer.answer_by_ms != at.decided_at_ms + stage.accept_within_ms:
            self._broken(at, Rule.WINDOW_LASTS, f"offer {offer.offer_number} ends at {offer.answer_by_ms}")
        if stage is not None and plan is not None:
            for_ms = (
                exclusive_for_ms(plan, offer.stage, listed.sales_max) if offer.mode == _EXCLUSIVE else None
            )
            if offer.exclusive_for_ms != for_ms:
                self._broken(
                    at,
                    Rule.TERMS_ARE_TRUE,
                    f"offered exclusive for {offer.exclusive_for_ms}, not {for_ms} ms",
                )
        self._asked(at, state, listed, offer.buyer_id, offer.order_id)
        if offer.mode == _EXCLUSIVE and holders:
            self._broken(at, Rule.EXCLUSIVE_IS_THE_FIRST, f"offered exclusive after {len(holders)} sales")
        if state.offer is not None:
            self._broken(
                at, Rule.TERMS_ARE_TRUE, f"two offers at once, {state.offer[0]} and {offer.offer_number}"
            )
        state.offer = (
            offer.offer_number, offer.buyer_id, offer.order_id, str(offer.mode), offer.price_cents, offer.stage,
            at.seq, at.offset,
        )  # fmt: skip

    def offer_ended(
        self, at: At, state: LeadState, event: OfferRejected | OfferExpired | OfferWithdrawn
    ) -> None:
        """Judge the end of an offer that was not accepted."""
        if state.offer is None or state.offer[:2] != (event.offer_number, event.buyer_id):
            self._broken(at, Rule.TERMS_ARE_TRUE, f"offer {event.offer_number} ended, and was not open")
        state.offer = None

    def opened(self, at: At, state: LeadState, listed: Listed, event: AuctionOpened) -> None:
        """Judge the opening of an auction, and keep it."""
        if state.auction is not None or event.auction_number != state.auctions + 1:
            self._broken(
                at, Rule.AUCTION_CLOSED_ONCE, f"auction {event.auction_number} opened after {state.auctions}"
            )
        if state.close is not None:
            self._broken(at, Rule.NOTHING_AFTER_THE_CLOSE, "an auction after the close")
        for what in self._untrue(at, state, listed, event):
            self._broken(at, Rule.AUCTION_AS_ANNOUNCED, what)
        for invitation in event.invited:
            self._asked(at, state, listed, invitation.buyer_id, invitation.order_id)
        state.auctions = max(state.auctions, event.auction_number)
        state.auction = tuple(
            Open(
                event.auction_number,
                str(event.selection),
                str(event.sell),
                event.bids_until_ms,
                event.closes_at_ms,
                event.floor_exclusive_cents,
                event.floor_shared_cents,
                tuple((i.buyer_id, i.order_id, tuple(map(str, i.modes))) for i in event.invited),
                listed.sales_max - len(state.sales),
                at.seq,
                at.offset,
            )
        )
        state.bids, state.declined = {}, []

    def _untrue(self, at: At, state: LeadState, listed: Listed, event: AuctionOpened) -> Iterator[str]:
        plan = self._plan(listed)
        stage = _stage(plan, event.stage)
        if plan is None or stage is None or stage.bid_window_ms is None:
            yield f"stage {event.stage} of plan {listed.plan} asks for no bids"
            return
        holders = tuple(sale.terms.buyer_id for sale in state.sales)
        modes = _modes_for_sale(stage, bool(holders))
        is_alone = _EXCLUSIVE in modes
        told = (
            event.stage, event.selection, event.sell, event.bids_until_ms, event.floor_exclusive_cents,
            event.floor_shared_cents, event.sale_number, event.sales_max, event.exclusive_for_ms, event.lead_type,
            event.quality, dict(event.fields), event.holders, event.is_test,
        )  # fmt: skip
        true = (
            state.stage, stage.selection, stage.sell, at.decided_at_ms + stage.bid_window_ms,
            floor_of(stage, _EXCLUSIVE) if is_alone else None,
            floor_of(stage, _SHARED) if _SHARED in modes else None,
            len(holders) + 1, listed.sales_max,
            exclusive_for_ms(plan, event.stage, listed.sales_max) if is_alone else None,
            listed.lead_type, listed.quality, listed.fields, holders, listed.is_test,
        )  # fmt: skip
        if told != true:
            yield f"auction {event.auction_number} announces what is not so"
        if event.closes_at_ms < event.bids_until_ms:
            yield f"auction {event.auction_number} closes before its deadline"
        buyers = [invitation.buyer_id for invitation in event.invited]
        if len(set(buyers)) != len(buyers):
            yield f"auction {event.auction_number} asks a buyer twice"
        if any(mode not in modes for invitation in event.invited for mode in invitation.modes):
            yield f"auction {event.auction_number} asks for a mode that is not for sale"

    def _asked(self, at: At, state: LeadState, listed: Listed, buyer_id: str, order_id: str) -> None:
        """Judge whether a buyer may be asked: it has the order, does not hold the lead, and is not excluded."""
        order = self._markets.order(at.market_version, order_id)
        if order is None or order.buyer_id != buyer_id or order.lead_type != listed.lead_type:
            self._broken(
                at, Rule.SOLD_BY_ITS_PLAN, f"{buyer_id} is asked for {order_id}, which is no order of it"
            )
        if any(sale.terms.buyer_id == buyer_id for sale in state.sales):
            self._broken(
                at, Rule.NEVER_THE_SAME_BUYER_TWICE, f"{buyer_id} is asked and holds the lead already"
            )
        if buyer_id in listed.never_to:
            self._broken(at, Rule.SOLD_BY_ITS_PLAN, f"{buyer_id} is asked, and the source excludes it")
        if listed.consented_buyers and buyer_id not in listed.consented_buyers:
            self._broken(at, Rule.ONLY_WITH_CONSENT, f"{buyer_id} is asked, and the consent does not name it")

    def answered(self, at: At, state: LeadState, event: BidPlaced | BidDeclined) -> None:
        """Judge an answer that counts, and keep it."""
        auction = _open_of(state)
        number, buyer_id = event.auction_number, event.buyer_id
        if auction is None or auction.number != number or state.bids is None or state.declined is None:
            self._broken(
                at, Rule.AUCTION_AS_ANNOUNCED, f"{buyer_id} answers auction {number}, which is not open"
            )
            return
        asked = next((invited for invited in auction.invited if invited[0] == buyer_id), None)
        if asked is None:
            self._broken(at, Rule.AUCTION_AS_ANNOUNCED, f"{buyer_id} answers and was not invited")
            return
        if event.answered_at_ms > auction.bids_until_ms:
            late_ms = event.answered_at_ms - auction.bids_until_ms
            self._broken(
                at, Rule.AUCTION_AS_ANNOUNCED, f"the answer of {buyer_id} counts, and came {late_ms} ms late"
            )
        if buyer_id in state.bids or buyer_id in state.declined:
            self._broken(at, Rule.AUCTION_AS_ANNOUNCED, f"{buyer_id} answers twice, and both count")
        if isinstance(event, BidDeclined):
            state.declined.append(buyer_id)
            return
        is_beside = (event.exclusive_cents is not None and _EXCLUSIVE not in asked[2]) or (
            event.shared_cents is not None and _SHARED not in asked[2]
        )
        if event.order_id != asked[1] or is_beside:
            self._broken(at, Rule.AUCTION_AS_ANNOUNCED, f"the bid of {buyer_id} is not what it was asked for")
        state.bids[buyer_id] = (event.order_id, event.exclusive_cents, event.shared_cents)

    def voided(self, at: At, state: LeadState, event: BidVoided) -> None:
        """Judge whether a bid that was in time was called late."""
        auction = _open_of(state)
        if (
            event.reason is VoidReason.LATE
            and auction is not None
            and auction.number == event.auction_number
            and event.answered_at_ms <= auction.bids_until_ms
        ):
            self._broken(
                at, Rule.AUCTION_AS_ANNOUNCED, f"the bid of {event.buyer_id} came in time and is called late"
            )

    def closed(self, at: At, state: LeadState, event: AuctionClosed) -> None:
        """Judge the close of an auction by itself; `decided` judges it with its sales."""
        auction = _open_of(state)
        if auction is None or auction.number != event.auction_number:
            self._broken(
                at, Rule.AUCTION_CLOSED_ONCE, f"auction {event.auction_number} is closed and was not open"
            )
            return
        invited = {buyer_id for buyer_id, _, _ in auction.invited}
        answered = {*(state.bids or ()), *(state.declined or ())}
        for what in _wrong_end(at, auction, event, invited == answered):
            self._broken(at, Rule.AUCTION_AS_ANNOUNCED, what)
        silent = invited - answered if event.reason is AuctionEnd.TIME_UP else set()
        results = [result.buyer_id for result in event.results]
        if (
            set(event.silent) != silent
            or len(event.silent) != len(silent)
            or sorted(results) != sorted(state.bids or ())
        ):
            self._broken(
                at,
                Rule.BID_IS_TOLD_RIGHTLY,
                f"the results of auction {auction.number} are not those of its bids",
            )

    def decided(self, at: At, state: LeadState, event: AuctionClosed, sold: list[Sale]) -> None:
        """Judge what an auction that an entry closed has sold: `sold` are the entry's sales; then forget it."""
        auction = _open_of(state)
        if auction is None or auction.number != event.auction_number:
            return
        sales = [sale for sale in state.sales if sale.terms.auction_number == auction.number]
        buyers = {sale.terms.buyer_id: sale for sale in sales}
        for result in event.results:
            sale = buyers.get(result.buyer_id)
            has_won = result.outcome is BidOutcome.WON
            if has_won != (sale is not None) or (sale is not None and result.mode != sale.terms.mode):
                self._broken(
                    at,
                    Rule.BID_IS_TOLD_RIGHTLY,
                    f"{result.buyer_id} is told {result.outcome}, and bought {sale is not None}",
                )
        for what in _not_the_best(auction, event, [sale for sale in sales if sale in sold], state.bids or {}):
            self._broken(at, Rule.BEST_BRINGS_MOST, what)
        state.auction = state.bids = state.declined = None

    def _plan(self, listed: Listed) -> Plan | None:
        return self._markets.plan(listed.market_version, listed.lead_type, listed.plan or "")

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)


def _wrong_end(at: At, auction: Open, event: AuctionClosed, all_answered: bool) -> Iterator[str]:
    """Judge whether what is said to have ended the auction could have."""
    match event.reason:
        case AuctionEnd.TIME_UP:
            if at.decided_at_ms < auction.closes_at_ms:
                yield f"auction {auction.number} is closed by time before its end"
        case AuctionEnd.ALL_ANSWERED:
            if not all_answered:
                yield f"auction {auction.number} is closed, and not all have answered"
        case AuctionEnd.FIRST_BID:
            if auction.selection != Selection.FIRST_BID:
                yield f"auction {auction.number} is not for the first bid"
        case AuctionEnd.LEAD_CLOSED:
            return


def _not_the_best(
    auction: Open, event: AuctionClosed, sales: list[Sale], bids: dict[str, tuple[Any, ...]]
) -> Iterator[str]:
    """Judge the choice among those that were ranked by price: best of each mode, and the mode that brings more."""
    if auction.selection != Selection.PING_POST or event.reason is AuctionEnd.LEAD_CLOSED:
        return
    modes = {sale.terms.mode for sale in sales}
    if modes != ({str(event.mode)} if event.mode is not None else set()):
        yield f"auction {auction.number} says that it sold {event.mode}, and sold {sorted(modes)}"
        return
    brought_cents = sum(sale.terms.price_cents for sale in sales)
    alone, together = event.exclusive_cents, event.shared_cents
    said = alone if event.mode == _EXCLUSIVE else together
    if sales and said is not None and said != brought_cents:
        yield f"auction {auction.number} says that it brings {said}, and brings {brought_cents}"
    if alone is not None and together is not None and (event.mode == _SHARED) != (together > alone):
        yield f"auction {auction.number} sold {event.mode}: exclusive {alone}, shared {together}"
    slots = 1 if event.mode == _EXCLUSIVE else auction.slots
    prices = [sale.terms.price_cents for sale in sales]
    for result in event.results:
        if result.outcome is BidOutcome.WON or result.buyer_id not in bids:
            continue
        cents = _named(bids[result.buyer_id], result.mode)
        floor_cents = (
            auction.floor_exclusive_cents if result.mode == _EXCLUSIVE else auction.floor_shared_cents
        )
        least_cents = max(floor_cents or 0, 1)
        if result.outcome is BidOutcome.BELOW_FLOOR and (cents is None or cents >= least_cents):
            yield f"the bid of {result.buyer_id} is told to be below the floor, and is {cents}"
        is_ranked = result.outcome is BidOutcome.OUTBID and cents is not None
        if is_ranked and cents is not None and (len(prices) < slots or cents > min(prices)):
            yield f"{result.buyer_id} bid {cents} and is told to be outbid, sold at {prices} in {slots} slots"


def _named(bid: tuple[Any, ...], mode: str | None) -> int | None:
    cents: int | None = bid[1] if mode == _EXCLUSIVE else bid[2]
    return cents


def _open_of(state: LeadState) -> Open | None:
    return None if state.auction is None else Open._make(state.auction)


def _stage(plan: Plan | None, index: int) -> Stage | None:
    return plan.stages[index] if plan is not None and 0 <= index < len(plan.stages) else None


def _modes_for_sale(stage: Stage, is_held: bool) -> tuple[str, ...]:
    match stage.sell:
        case Sell.SHARED:
            return (_SHARED,)
        case Sell.EXCLUSIVE:
            return () if is_held else (_EXCLUSIVE,)
        case Sell.EITHER:
            return (_SHARED,) if is_held else (_EXCLUSIVE, _SHARED)
