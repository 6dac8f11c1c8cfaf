"""Tells one lead's story: each event of its entries, and what was sent because of it, in one sentence for people.

Pure: entries and the clock of the reader come in, lines go out. What was sent follows from the log by the router's
own `react`, so a line about a message says what its recipient is told, not that it arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, assert_never

from services.contract.entries import CauseKind, Entry
from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    DispositionReported,
    Event,
    LeadClosed,
    LeadListed,
    LeadSold,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    Outcome,
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
)
from services.contract.market import Mode
from services.contract.times import decimal_amount
from services.router.messages import Channel, Outgoing, duration_for_people, react


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
                return _listed(event)
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
                return self._sold(event, at_ms)
            case WindowOpened():
                return self._window_opened(event, at_ms)
            case WindowClosed(window_number=number):
                return self._window_closed(number, by_timer=by_timer)
            case DispositionReported():
                return f"{event.buyer_id} reported: {_words(event.disposition)} (sale {event.sale_number})."
            case WithdrawalNoted(reason=reason):
                return f"Withdrawn before it was listed ({_words(reason)}): it will be closed on arrival."
            case LeadClosed():
                return _closed(event)
            case DeliveryFailed():
                return _delivery_failed(event)
            case CommandRefused():
                whose = f" of {event.buyer_id}" if event.buyer_id else ""
                return f"Refused: {_words(event.command)}{whose} (reason: {_words(event.reason)})."
            case _:
                assert_never(event)

    def _offered(self, offer: OfferMade, at_ms: int) -> str:
        by = self.clock.time(offer.answer_by_ms, at_ms)
        return (
            f"Offered to {offer.buyer_id} (order {offer.order_id}) without contact details: "
            f"{_offered_mode(offer)}, for {_money(offer.price_cents, offer.currency)}, if it accepts by {by}."
        )

    def _sold(self, sold: LeadSold, at_ms: int) -> str:
        price = _money(sold.price_cents, sold.currency)
        accepted = "" if sold.offer_number is None else ", who accepted its offer"
        return (
            f"Sold to {sold.buyer_id} (order {sold.order_id}){accepted}, for {price}: "
            f"{self._terms(sold, at_ms)}."
        )

    def _terms(self, sold: LeadSold, at_ms: int) -> str:
        number = f"number {sold.sale_number} of at most {sold.sales_max}"
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
    WindowKind.EXPIRY: "The time to sell it was over.",
}

_ENDED: Mapping[Outcome, str] = {
    Outcome.SOLD_OUT: "sold out",
    Outcome.PARTLY_SOLD: "partly sold",
    Outcome.UNSOLD: "unsold",
    Outcome.DEAL: "a holder made the deal",
    Outcome.WITHDRAWN: "withdrawn",
    Outcome.FAILED: "failed, because a promise would have been broken",
}


def _line(entry: Entry, kind: str, sentence: str, fact: Mapping[str, Any]) -> Line:
    return Line(at_ms=entry.decided_at_ms, seq=entry.seq, kind=kind, sentence=sentence, fact=fact)


def _listed(event: LeadListed) -> str:
    test = "test " if event.is_test else ""
    what = f"a {test}lead of type {event.lead_type} from {event.source_id}, quality {event.quality}"
    if event.plan is None:
        return f"Listed: {what}. No plan fits it."
    buyers = "one buyer" if event.sales_max == 1 else f"at most {event.sales_max} buyers"
    never = f", never to {_names(event.never_to)}" if event.never_to else ""
    return f"Listed: {what}, for sale by plan {event.plan} to {buyers}{never}."


def _offered_mode(offer: OfferMade) -> str:
    if offer.mode is Mode.SHARED:
        return f"shared, number {offer.sale_number} of at most {offer.sales_max}"
    if offer.exclusive_for_ms is None:
        return "exclusive, for good"
    return f"exclusive for {duration_for_people(offer.exclusive_for_ms)}"


def _closed(event: LeadClosed) -> str:
    holders = f"held by {_names(event.holders)}" if event.holders else "held by nobody"
    return f"Closed: {_ENDED[event.outcome]}; {holders}."


def _delivery_failed(event: DeliveryFailed) -> str:
    credited = _money(event.price_cents, event.currency)
    return (
        f"The delivery to {event.buyer_id} can never succeed ({_words(event.reason)}): {credited} credited; "
        f"sale {event.sale_number} stays used."
    )


def _kind(outgoing: Outgoing) -> str:
    if outgoing.sale_number is not None:
        return "delivery"
    return "receipt" if outgoing.channel is Channel.SOURCE_RECEIPTS else "notice"


def _told(outgoing: Outgoing) -> str | None:
    """Tell what a recipient is told; offers and their ends have been told as events."""
    body = outgoing.body
    if outgoing.sale_number is not None:
        return f"{outgoing.recipient} gets the lead, and is told: “{body['promise']}”"
    if outgoing.channel is Channel.BUYER_PINGS:
        return None
    happened = "; ".join(map(_happened, body["happened"]))
    if outgoing.channel is Channel.SOURCE_RECEIPTS:
        return f"{outgoing.recipient}, its source, gets a receipt: {happened}."
    held = "1 holds it" if body["holders"] == 1 else f"{body['holders']} hold it"
    return f"{outgoing.recipient}, a holder, gets a notice: {happened}; {held}."


def _happened(item: Mapping[str, Any]) -> str:
    if item["type"] == "closed":
        return f"closed ({_ENDED[Outcome(item['outcome'])]})"
    return f"sold {item['mode']}, number {item['sale_number']} of at most {item['sales_max']}"


def _money(cents: int, currency: str) -> str:
    return f"{decimal_amount(cents)} {currency}"


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _words(code: str) -> str:
    return code.replace("_", " ")
