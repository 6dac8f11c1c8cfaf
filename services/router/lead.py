"""A lead's state, and how each event changes it: the fold of the log, for one lead.

Everything that affects the state is in this file. `Lead` is changed only by `apply`; whoever folds works on a copy of
its own, so that a value that was read from the database is never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias, assert_never

from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    Disposition,
    DispositionReported,
    Draw,
    ErasureAcknowledged,
    ErasureReason,
    Event,
    Invitation,
    LeadClosed,
    LeadErased,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    LimitReached,
    MoneyMoved,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    Outcome,
    ReturnApproved,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
    WithdrawalReason,
)
from services.contract.inputs import PlaceBid
from services.contract.market import Mode, Selection
from services.contract.records import quick_copier, quickly_made


class Returning(StrEnum):
    """How far a buyer has come in giving a lead back; `REFUSED` is an operator's word, which is final."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """One buyer's purchase of the lead, and so one disclosure.

    `upgrade_fee_cents` is what the buyer was told that closing the other slots costs, `fee_cents` what it paid for
    that. `payout_cents`, which the source earned by the sale, and `draws`, the limits used, include an upgrade's.
    """

    number: int
    buyer_id: str
    order_id: str
    mode: Mode
    stage: int
    price_cents: int
    currency: str
    sold_at_ms: int
    exclusive_until_ms: int | None
    disposition: Disposition | None = None
    delivery_failed: bool = False
    upgrade_fee_cents: int | None = None
    fee_cents: int = 0
    payout_cents: int = 0
    draws: tuple[Draw, ...] = ()
    returning: Returning | None = None
    return_asked_ms: int | None = None


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Something that is due for the lead later."""

    number: int
    kind: WindowKind
    due_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedBid:
    """A buyer's prices in the modes it was asked for; whether they are enough is judged when the auction closes."""

    buyer_id: str
    order_id: str
    exclusive_cents: int | None
    shared_cents: int | None


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Auction:
    """The auction that is open: who was asked, and who has answered what. `declined` are the buyers that don't bid."""

    number: int
    selection: Selection
    opened_at_ms: int
    bids_until_ms: int
    closes_at_ms: int
    invited: tuple[Invitation, ...]
    bids: tuple[PlacedBid, ...] = ()
    declined: tuple[str, ...] = ()

    def invitation_of(self, buyer_id: str) -> Invitation | None:
        """Find what a buyer was asked for."""
        for asked in self.invited:
            if asked.buyer_id == buyer_id:
                return asked
        return None

    def has_answered(self, buyer_id: str) -> bool:
        """Tell whether a buyer has placed its bid or declined to."""
        for bid in self.bids:
            if bid.buyer_id == buyer_id:
                return True
        return buyer_id in self.declined

    @property
    def all_have_answered(self) -> bool:
        """Tell whether there is nobody left to wait for."""
        return len(self.bids) + len(self.declined) == len(self.invited)


@dataclass(slots=True, kw_only=True)
class Lead:
    """A listed lead: what it is, how it is sold, and to whom it was.

    `payout_cents` is what its source was paid for the lead itself and keeps. `erased_by` are the holders that have
    erased it since it was asked for. `consented_buyers`: if there are any, nobody else may have it.
    """

    lead_id: str
    source_id: str
    lead_type: str
    plan: str | None
    quality: int
    fields: Mapping[str, str]
    sales_max: int
    never_to: tuple[str, ...]
    created_at_ms: int
    market_version: int
    is_test: bool
    stage: int
    stage_began_ms: int
    sales: tuple[Sale, ...] = ()
    offer: OfferMade | None = None
    offers_made: int = 0
    passed: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    windows_opened: int = 0
    outcome: Outcome | None = None
    payout_cents: int = 0
    auction: Auction | None = None
    auctions_opened: int = 0
    erasure: ErasureReason | None = None
    erased_by: tuple[str, ...] = ()
    consented_buyers: tuple[str, ...] = ()

    @property
    def holders(self) -> tuple[str, ...]:
        """The buyers that had the contact details disclosed, in the order of their sales."""
        return tuple([sale.buyer_id for sale in self.sales]) if self.sales else ()

    def window(self, kind: WindowKind) -> Window | None:
        """Find the open window of a kind; there is at most one of each."""
        return next((window for window in self.windows if window.kind is kind), None)

    def sale_of(self, buyer_id: str) -> Sale | None:
        """Find what a buyer bought; a buyer never buys the same lead twice."""
        return next((sale for sale in self.sales if sale.buyer_id == buyer_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawnEarly:
    """A lead that was withdrawn before it was listed; on arrival it is closed."""

    reason: WithdrawalReason


State: TypeAlias = Lead | WithdrawnEarly | None

copy_of_lead = quick_copier(Lead)
"""Copies a lead's state, so that what was read is never changed."""


def evolve(state: State, lead_id: str, events: Iterable[Event], at_ms: int) -> State:
    """Fold the events of one entry, decided at `at_ms`, into the state before it; the argument stays unchanged."""
    lead = copy_of_lead(state) if isinstance(state, Lead) else state
    for event in events:
        if isinstance(event, LeadListed):
            lead = listed(lead_id, event, at_ms)
        elif isinstance(event, WithdrawalNoted):
            lead = WithdrawnEarly(reason=event.reason)
        elif isinstance(event, LeadErased) and not isinstance(lead, Lead):
            lead = WithdrawnEarly(reason=WithdrawalReason(event.reason))
        elif isinstance(lead, Lead):
            apply(lead, event, at_ms)
    return lead


def listed(lead_id: str, event: LeadListed, at_ms: int) -> Lead:
    """Make the state of a lead that has just been listed."""
    return Lead(
        lead_id=lead_id,
        source_id=event.source_id,
        lead_type=event.lead_type,
        plan=event.plan,
        quality=event.quality,
        fields=event.fields,
        sales_max=event.sales_max,
        never_to=event.never_to,
        created_at_ms=event.created_at_ms,
        market_version=event.market_version,
        is_test=event.is_test,
        stage=0,
        stage_began_ms=at_ms,
        payout_cents=event.payout_cents,
        consented_buyers=event.consented_buyers,
    )


def apply(lead: Lead, event: Event, at_ms: int) -> None:
    """Change `lead` by one event; raise AssertionError for one that cannot follow."""
    match event:
        case LeadSold():
            _sell(lead, event, at_ms)
        case BidPlaced() | BidDeclined():
            _answer_auction(lead, event)
        case LeadClosed(outcome=outcome):
            assert lead.outcome is None, f"lead {lead.lead_id} is closed twice"
            assert lead.auction is None, f"lead {lead.lead_id} has an auction open"
            lead.outcome, lead.windows, lead.offer = outcome, (), None
        case StageStarted(stage=stage):
            lead.stage, lead.stage_began_ms = stage, at_ms
        case WindowOpened(window_number=number, kind=kind, due_at_ms=due_at_ms):
            lead.windows = (*lead.windows, Window(number=number, kind=kind, due_at_ms=due_at_ms))
            lead.windows_opened = number
        case WindowClosed(window_number=number):
            _close_window(lead, number, at_ms)
        case OfferMade():
            lead.offer, lead.offers_made = event, event.offer_number
        case OfferRejected(buyer_id=buyer_id) | OfferExpired(buyer_id=buyer_id):
            lead.offer, lead.passed = None, (*lead.passed, buyer_id)
        case OfferWithdrawn():
            lead.offer = None
        case DispositionReported(sale_number=number, disposition=disposition):
            lead.sales = _changed(lead.sales, number, disposition=disposition)
        case DeliveryFailed(sale_number=number):
            lead.sales = _changed(lead.sales, number, delivery_failed=True)
        case LeadUpgraded():
            lead.sales = _upgraded(lead.sales, event)
        case ReturnRequested(sale_number=number):
            lead.sales = _changed(lead.sales, number, returning=Returning.PENDING, return_asked_ms=at_ms)
        case ReturnApproved():
            _take_back(lead, event)
        case ReturnRefused(sale_number=number, reason=reason):
            final = Returning.REFUSED if reason is ReturnRefusal.OPERATOR else None
            lead.sales = _changed(lead.sales, number, returning=final)
        case AuctionOpened():
            _open_auction(lead, event, at_ms)
        case AuctionClosed(auction_number=number, silent=silent):
            assert _open_number(lead) == number, f"auction {number} is not open"
            lead.auction, lead.passed = None, (*lead.passed, *silent)
        case LeadErased(reason=reason):
            lead.erasure, lead.erased_by = reason, ()
        case ErasureAcknowledged(buyer_id=buyer_id):
            lead.erased_by = (*lead.erased_by, buyer_id)
        case BidVoided() | LimitReached():
            pass
        case CommandRefused():
            pass
        case LeadListed() | WithdrawalNoted():
            raise AssertionError(f"lead {lead.lead_id} is listed already")
        case MoneyMoved():
            raise AssertionError(f"lead {lead.lead_id} is no account")
        case _:
            assert_never(event)


def _sell(lead: Lead, event: LeadSold, at_ms: int) -> None:
    assert event.sale_number == len(lead.sales) + 1, f"lead {lead.lead_id} has {len(lead.sales)} sales"
    lead.offer = None
    lead.sales = (
        *lead.sales,
        Sale(
            number=event.sale_number,
            buyer_id=event.buyer_id,
            order_id=event.order_id,
            mode=event.mode,
            stage=event.stage,
            price_cents=event.price_cents,
            currency=event.currency,
            sold_at_ms=at_ms,
            exclusive_until_ms=event.exclusive_until_ms,
            upgrade_fee_cents=event.upgrade_fee_cents,
            payout_cents=event.payout_cents,
            draws=event.draws,
        ),
    )


def _upgraded(sales: tuple[Sale, ...], event: LeadUpgraded) -> tuple[Sale, ...]:
    """From here on the lead is its only holder's, for good."""
    assert len(sales) == 1, f"{len(sales)} buyers hold a lead that one of them closes to others"
    sale = sales[0]
    return (
        replace(
            sale,
            mode=Mode.EXCLUSIVE,
            exclusive_until_ms=None,
            fee_cents=event.fee_cents,
            payout_cents=sale.payout_cents + event.payout_cents,
            draws=sale.draws + event.draws,
        ),
    )


def _take_back(lead: Lead, event: ReturnApproved) -> None:
    """Only one of the two was ever paid: for the lead, or a share of the sale."""
    lead.sales = _changed(lead.sales, event.sale_number, returning=Returning.APPROVED)
    if lead.payout_cents:
        lead.payout_cents -= event.payout_cents


def cents_of(bid: PlacedBid | BidPlaced | PlaceBid, mode: Mode) -> int | None:
    """Give what a bid names for a mode, in minor units."""
    return bid.exclusive_cents if mode is Mode.EXCLUSIVE else bid.shared_cents


def _open_number(lead: Lead) -> int | None:
    return None if lead.auction is None else lead.auction.number


def _open_auction(lead: Lead, event: AuctionOpened, at_ms: int) -> None:
    assert lead.auction is None, f"lead {lead.lead_id} has an auction open"
    lead.auctions_opened = event.auction_number
    lead.auction = Auction(
        number=event.auction_number,
        selection=event.selection,
        opened_at_ms=at_ms,
        bids_until_ms=event.bids_until_ms,
        closes_at_ms=event.closes_at_ms,
        invited=event.invited,
    )


def _answer_auction(lead: Lead, event: BidPlaced | BidDeclined) -> None:
    """A bid is kept until the close; who doesn't bid has passed on the lead."""
    auction = lead.auction
    assert auction is not None, f"auction {event.auction_number} is not open"
    bids, declined = auction.bids, auction.declined
    if isinstance(event, BidDeclined):
        declined = (*declined, event.buyer_id)
        lead.passed = (*lead.passed, event.buyer_id)
    else:
        placed = PlacedBid(
            buyer_id=event.buyer_id,
            order_id=event.order_id,
            exclusive_cents=event.exclusive_cents,
            shared_cents=event.shared_cents,
        )
        bids = (*bids, placed)
    lead.auction = Auction(
        number=auction.number,
        selection=auction.selection,
        opened_at_ms=auction.opened_at_ms,
        bids_until_ms=auction.bids_until_ms,
        closes_at_ms=auction.closes_at_ms,
        invited=auction.invited,
        bids=bids,
        declined=declined,
    )


def _close_window(lead: Lead, number: int, at_ms: int) -> None:
    closed = next(window for window in lead.windows if window.number == number)
    lead.windows = tuple(window for window in lead.windows if window.number != number)
    if closed.kind is WindowKind.WAIT:
        lead.stage_began_ms = at_ms


def _changed(sales: tuple[Sale, ...], number: int, **changes: object) -> tuple[Sale, ...]:
    return tuple(replace(sale, **changes) if sale.number == number else sale for sale in sales)  # type: ignore[arg-type]  # the names are Sale's own
