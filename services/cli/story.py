"""Tells one lead's story: each event of its entries, and what was sent because of it, in one sentence for people.

Pure: entries and the clock of the reader come in, lines go out. What was sent follows from the log by the router's
own `react`, so a line about a message says what its recipient is told, not that it arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeAlias, assert_never

from services.cli import sentences
from services.cli.sentences import happened, money, words
from services.contract.entries import CauseKind, Entry
from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    DispositionReported,
    ErasureAcknowledged,
    Event,
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
    ReturnApproved,
    ReturnRefused,
    ReturnRequested,
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
)
from services.contract.market import Mode
from services.router.messages import Channel, Outgoing, react

MarketEvent: TypeAlias = (
    AuctionOpened
    | BidPlaced
    | BidDeclined
    | BidVoided
    | AuctionClosed
    | LeadUpgraded
    | ReturnRequested
    | ReturnApproved
    | ReturnRefused
    | MoneyMoved
    | LimitReached
    | LeadErased
    | ErasureAcknowledged
)
"""What is told of auctions, and of what comes after a sale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One entry of the log about the lead, and its events."""

    entry: Entry
    events: Sequence[Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened: `kind` is the event's type, or for a message `delivery`, `notice` or `receipt`."""

    at_ms: int
    seq: int
    kind: str
    sentence: str
    fact: Mapping[str, Any]

    @property
    def is_message(self) -> bool:
        """Tell whether this is what somebody is told, rather than what was decided."""
        return not self.kind[0].isupper()


@dataclass(frozen=True, slots=True)
class LocalClock:
    """Writes times as the reader's clock showed them."""

    zone: tzinfo

    def moment(self, at_ms: int) -> str:
        """Write date and time, with milliseconds."""
        at = self._at(at_ms)
        return f"{at:%Y-%m-%d %H:%M:%S}.{at_ms % 1_000:03d}"

    def time(self, at_ms: int, seen_from_ms: int) -> str:
        """Write the time, and the date where that is another day's than the one it is seen from."""
        at = self._at(at_ms)
        is_today = at.date() == self._at(seen_from_ms).date()
        return f"{at:%H:%M:%S}" if is_today else f"{at:%Y-%m-%d %H:%M:%S}"

    def name(self, at_ms: int) -> str:
        """Name the zone, as in EST."""
        return f"{self._at(at_ms):%Z}"

    def _at(self, at_ms: int) -> datetime:
        return datetime.fromtimestamp(at_ms // 1_000, tz=UTC).astimezone(self.zone)


def tell(chapters: Iterable[Chapter], *, partition: int, clock: LocalClock) -> list[Line]:
    """Tell the story of a lead whose entries stand in `partition` of the log, in the order of the log."""
    teller = _Teller(clock)
    return [line for chapter in chapters for line in teller.lines(chapter, partition)]


@dataclass(slots=True)
class _Teller:
    """What must be remembered from one line to the next: which window is which."""

    clock: LocalClock
    windows: dict[int, WindowKind] = field(default_factory=dict)

    def lines(self, chapter: Chapter, partition: int) -> Iterator[Line]:
        entry = chapter.entry
        by_timer = entry.cause.kind is CauseKind.TIMER
        for event in chapter.events:
            sentence = self._sentence(event, entry.decided_at_ms, by_timer=by_timer)
            if sentence is not None:
                yield _line(entry, type(event).__name__, sentence, asdict(event))
        for outgoing in react(entry, chapter.events, partition):
            told = _told(outgoing)
            if told is not None:
                yield _line(entry, _kind(outgoing), told, outgoing.body)

    def _sentence(self, event: Event, at_ms: int, *, by_timer: bool) -> str | None:
        match event:
            case LeadListed():
                return sentences.listed(event)
            case StageStarted(stage=stage):
                return f"Selling went on to stage {stage + 1} of the plan."
            case OfferMade():
                return self._offered(event, at_ms)
            case OfferRejected(buyer_id=buyer_id, reason=reason):
                return f"{buyer_id} rejected the offer (reason: {reason})."
            case OfferExpired(buyer_id=buyer_id):
                return f"The offer to {buyer_id} ended without a sale; {buyer_id} is not asked again."
            case OfferWithdrawn(buyer_id=buyer_id):
                return f"The offer to {buyer_id} was withdrawn, because the selling ended."
            case LeadSold():
                return sentences.sold(event, self._terms(event, at_ms))
            case WindowOpened():
                return self._window_opened(event, at_ms)
            case WindowClosed(window_number=number):
                return self._window_closed(number, by_timer=by_timer)
            case DispositionReported():
                return f"{event.buyer_id} reported: {words(event.disposition)} (sale {event.sale_number})."
            case WithdrawalNoted(reason=reason):
                return f"Withdrawn before it was listed ({words(reason)}): it will be closed on arrival."
            case LeadClosed():
                return sentences.closed(event)
            case DeliveryFailed():
                return sentences.delivery_failed(event)
            case CommandRefused():
                whose = f" of {event.buyer_id}" if event.buyer_id else ""
                return f"Refused: {words(event.command)}{whose} (reason: {words(event.reason)})."
            case _:
                return self._market_sentence(event, at_ms)

    def _market_sentence(self, event: MarketEvent, at_ms: int) -> str:
        """Tell of auctions, and of what comes after a sale."""
        match event:
            case AuctionOpened():
                return sentences.auction_opened(event, self.clock.time(event.bids_until_ms, at_ms))
            case BidPlaced():
                return sentences.bid_placed(event)
            case BidDeclined(buyer_id=buyer_id, reason=reason):
                return f"{buyer_id} does not bid (reason: {words(reason)})."
            case BidVoided(buyer_id=buyer_id, reason=reason):
                return f"The bid of {buyer_id} counts for nothing (reason: {words(reason)})."
            case AuctionClosed():
                return sentences.auction_closed(event)
            case LeadUpgraded():
                return sentences.upgraded(event)
            case ReturnRequested(buyer_id=buyer_id, reason=reason):
                return f"{buyer_id} wants to give sale {event.sale_number} back (reason: {words(reason)})."
            case ReturnApproved():
                return sentences.return_approved(event)
            case ReturnRefused():
                return f"The return of sale {event.sale_number} was refused (reason: {words(event.reason)})."
            case MoneyMoved():
                amount = money(event.amount_cents, event.currency)
                return f"Account of {event.buyer_id}: {event.kind} of {amount} ({event.reference})."
            case LimitReached():
                return self._limit_reached(event, at_ms)
            case LeadErased():
                return sentences.erased(event)
            case ErasureAcknowledged(buyer_id=buyer_id):
                return f"{buyer_id} has erased it{', as an operator says' if event.by_operator else ''}."
            case _:
                assert_never(event)

    def _limit_reached(self, reached: LimitReached, at_ms: int) -> str:
        resumes = reached.resumes_at_ms
        until = "" if resumes is None else f", until {self.clock.time(resumes, at_ms)}"
        return f"Order {reached.order_id} was passed over: {words(reached.limit)} is used up{until}."

    def _offered(self, offer: OfferMade, at_ms: int) -> str:
        by = self.clock.time(offer.answer_by_ms, at_ms)
        return (
            f"Offered to {offer.buyer_id} (order {offer.order_id}) without contact details: "
            f"{sentences.offered_mode(offer)}, for {money(offer.price_cents, offer.currency)}, if it accepts by {by}."
        )

    def _terms(self, sold: LeadSold, at_ms: int) -> str:
        number = f"number {sold.sale_number} of at most {sold.sales_max}"
        if sold.mode is Mode.SHARED and sold.upgrade_fee_cents is not None:
            fee = money(sold.upgrade_fee_cents, sold.currency)
            return f"shared, {number}, to be had alone for {fee} more"
        if sold.mode is Mode.SHARED:
            return f"shared, {number}"
        if sold.exclusive_until_ms is None:
            return "exclusive, for good"
        return f"exclusive until {self.clock.time(sold.exclusive_until_ms, at_ms)}, {number}"

    def _window_opened(self, opened: WindowOpened, at_ms: int) -> str | None:
        self.windows[opened.window_number] = opened.kind
        due = self.clock.time(opened.due_at_ms, at_ms)
        match opened.kind:
            case WindowKind.ACCEPTANCE:
                return None  # the offer has said by when
            case WindowKind.EXCLUSIVITY:
                return f"Nobody else may get it before {due}."
            case WindowKind.WAIT:
                return f"The next attempt to sell it waits until {due}."
            case WindowKind.RETRY:
                return f"Nobody takes it now; the next attempt is at {due}."
            case WindowKind.UPGRADE:
                return f"Nobody else is sold to before {due}, so that its holder may have it alone."
            case WindowKind.EXPIRY:
                return f"Whatever is unsold at {due} stays unsold."
            case _:
                assert_never(opened.kind)

    def _window_closed(self, number: int, *, by_timer: bool) -> str | None:
        """Tell that time has run out; that a window is no longer needed goes without saying."""
        kind = self.windows.get(number)
        return _TIME_IS_UP[kind] if by_timer and kind is not None else None


_TIME_IS_UP: Mapping[WindowKind, str | None] = {
    WindowKind.ACCEPTANCE: None,  # the offer's own end says it
    WindowKind.EXCLUSIVITY: "The exclusive time was over, without a deal.",
    WindowKind.WAIT: "The wait was over.",
    WindowKind.RETRY: "It was time to try again.",
    WindowKind.UPGRADE: "The time that its holder had to itself was over.",
    WindowKind.EXPIRY: "The time to sell it was over.",
}


def _line(entry: Entry, kind: str, sentence: str, fact: Mapping[str, Any]) -> Line:
    return Line(at_ms=entry.decided_at_ms, seq=entry.seq, kind=kind, sentence=sentence, fact=fact)


def _kind(outgoing: Outgoing) -> str:
    if outgoing.sale_number is not None:
        return "delivery"
    return "receipt" if outgoing.channel is Channel.SOURCE_RECEIPTS else "notice"


def _told(outgoing: Outgoing) -> str | None:
    """Tell what a recipient is told; what stands on pings has been told as events."""
    body = outgoing.body
    if outgoing.sale_number is not None:
        return f"{outgoing.recipient} gets the lead, and is told: “{body['promise']}”"
    if outgoing.channel is Channel.BUYER_PINGS:
        return None
    if body["type"] == "upgraded":
        return f"{outgoing.recipient}, its holder, is told: “{body['promise']}”"
    what = "; ".join(map(happened, body["happened"]))
    if outgoing.channel is Channel.SOURCE_RECEIPTS:
        return f"{outgoing.recipient}, its source, gets a receipt: {what}."
    held = "1 holds it" if body["holders"] == 1 else f"{body['holders']} hold it"
    return f"{outgoing.recipient}, a holder, gets a notice: {what}; {held}."
