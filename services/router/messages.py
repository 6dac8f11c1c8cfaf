"""What each recipient is told about an entry: deliveries, offers, notices and receipts, all a function of the log.

`react` is pure. It names the lead's sealed part without having it: the shell joins the vault's row to a delivery.
One record goes to each recipient for an entry (protocol.md, rule 19), numbered in the order of the events, so that a
record sent again has the same id and the same content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.contract.entries import Entry
from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Event,
    LeadClosed,
    LeadSold,
    OfferExpired,
    OfferMade,
    OfferWithdrawn,
    WindowKind,
    WindowOpened,
)
from services.contract.market import Mode
from services.contract.records import quickly_made
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, decimal_amount, iso_time


class Channel(StrEnum):
    """Which of an outsider's topics a record goes to."""

    BUYER_LEADS = "buyer_leads"
    BUYER_PINGS = "buyer_pings"
    SOURCE_RECEIPTS = "source_receipts"


@quickly_made
@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record for one recipient, without what only the vault knows.

    `sale_number` is set where the record is a delivery: the lead's sealed part then belongs under `lead`.
    """

    n: int
    channel: Channel
    recipient: str
    type: str
    body: dict[str, Any]
    sale_number: int | None = None


def react(entry: Entry, events: Sequence[Event], partition: int) -> Sequence[Outgoing]:
    """Say who is told what about an entry that stands in `partition` of the log."""
    sold = [event for event in events if isinstance(event, LeadSold)]
    closed = next((event for event in events if isinstance(event, LeadClosed)), None)
    told: list[Outgoing] = []
    next_try_ms = _next_try_ms(events)
    for sale in sold:
        told.append(_delivery(len(told), entry, partition, sale, sold, closed, next_try_ms))
    buyers = {event.buyer_id for event in sold}
    for buyer_id in _holders_before(sold, closed):
        if buyer_id not in buyers:
            told.append(_notice(len(told), entry, partition, buyer_id, sold, closed))
    for event in events:
        answered = _answer(len(told), entry, partition, event)
        if answered is not None and not (isinstance(event, OfferExpired) and _is_refused(event, events)):
            told.append(answered)
    if sold or closed:
        told.append(_receipt(len(told), entry, partition, sold, closed))
    return told


def promise(sold: LeadSold, holders_now: int, closed: LeadClosed | None, next_try_ms: int | None) -> str:
    """Put a sale's terms into one sentence for people (guarantee 5).

    `next_try_ms`: when the lead is tried to be sold again, None if that may be at any time.
    """
    if sold.mode is Mode.EXCLUSIVE:
        if sold.exclusive_until_ms is None:
            return "Exclusive, for good: nobody else has received this lead, and nobody else will."
        return (
            f"Exclusive until {_for_people(sold.exclusive_until_ms)}: nobody else has received this lead; unless you "
            f"report a deal by then, up to {sold.sales_max - sold.sale_number} more may get it."
        )
    others = holders_now - 1
    left = sold.sales_max - holders_now
    if closed is not None or left <= 0:
        following = "nobody else will get it"
    else:
        when = " at any time" if next_try_ms is None else f", not before {_for_people(next_try_ms)}"
        following = f"up to {left} more may get it{when}"
    return (
        f"Shared, number {sold.sale_number} of at most {sold.sales_max}: {_held(sold, others)}; {following}."
    )


def _next_try_ms(events: Sequence[Event]) -> int | None:
    """When selling goes on, where the entry itself says that it waits."""
    waits = (WindowKind.WAIT, WindowKind.RETRY)
    return next(
        (event.due_at_ms for event in events if isinstance(event, WindowOpened) and event.kind in waits), None
    )


def _held(sold: LeadSold, others: int) -> str:
    """Say how many others hold the lead, and since when; those of the same entry got it only now."""
    if others == 0:
        return "nobody else holds it"
    since = "" if sold.held_since_ms is None else f" since {_for_people(sold.held_since_ms)}"
    if others == 1:
        return f"1 other holds it{since}"
    return f"{others} others hold it{', the first' if since else ''}{since}"


def _delivery(
    n: int,
    entry: Entry,
    partition: int,
    sold: LeadSold,
    all_sold: Sequence[LeadSold],
    closed: LeadClosed | None,
    next_try_ms: int | None,
) -> Outgoing:
    holders_now = len(all_sold[-1].holders) + 1
    may_follow = sold.others_may_follow and closed is None
    others_from_ms = next_try_ms if sold.others_from_ms is None else sold.others_from_ms
    exclusive = sold.mode is Mode.EXCLUSIVE
    body = {
        "type": "lead",
        "sale_id": sold.sale_id,
        "lead_id": entry.lead_id,
        "lead_type": sold.lead_type,
        "order": sold.order_id,
        "sold_at": iso_time(entry.decided_at_ms),
        "created_at": iso_time(sold.created_at_ms),
        "price": decimal_amount(sold.price_cents),
        "currency": sold.currency,
        "quality": sold.quality,
        "is_test": sold.is_test,
        "terms": {
            "mode": sold.mode,
            "sale_number": sold.sale_number,
            "sales_max": sold.sales_max,
            "exclusive": exclusive,
            "exclusive_until": _time_or_none(sold.exclusive_until_ms),
            "holders": holders_now,
            "held_since": _time_or_none(sold.held_since_ms),
            "others_may_follow": may_follow,
            "others_from": _time_or_none(others_from_ms) if may_follow else None,
        },
        "promise": promise(sold, holders_now, closed, next_try_ms),
        "log": _log_position(entry, partition),
    }
    return Outgoing(n, Channel.BUYER_LEADS, sold.buyer_id, "gavel.lead.v1", body, sold.sale_number)


def _notice(
    n: int,
    entry: Entry,
    partition: int,
    buyer_id: str,
    sold: Sequence[LeadSold],
    closed: LeadClosed | None,
) -> Outgoing:
    """Tell a holder what happened since its delivery: that others hold the lead too, or that no more will."""
    happened = [_sold_briefly(event) for event in sold]
    if closed is not None:
        happened.append({"type": "closed", "outcome": closed.outcome})
    body = {
        "type": "notice",
        "lead_id": entry.lead_id,
        "at": iso_time(entry.decided_at_ms),
        "holders": len(closed.holders) if closed else len(sold[-1].holders) + 1,
        "happened": happened,
        "log": _log_position(entry, partition),
    }
    return Outgoing(n, Channel.BUYER_LEADS, buyer_id, "gavel.notice.v1", body)


def _receipt(
    n: int, entry: Entry, partition: int, sold: Sequence[LeadSold], closed: LeadClosed | None
) -> Outgoing:
    happened: list[dict[str, Any]] = [_sold_briefly(event) for event in sold]
    if closed is not None:
        happened.append({"type": "closed", "outcome": closed.outcome, "sales": len(closed.holders)})
    source_id = closed.source_id if closed else sold[0].source_id
    body = {
        "type": "receipt",
        "lead_id": entry.lead_id,
        "at": iso_time(entry.decided_at_ms),
        "happened": happened,
        "log": _log_position(entry, partition),
    }
    return Outgoing(n, Channel.SOURCE_RECEIPTS, source_id, "gavel.receipt.v1", body)


def _answer(n: int, entry: Entry, partition: int, event: Event) -> Outgoing | None:
    """Tell one buyer about its offer, its answer, or a delivery that failed."""
    told: dict[str, Any]
    match event:
        case OfferMade():
            told = _offer(event)
        case OfferExpired():
            told = {"type": "offer_ended", "offer_number": event.offer_number, "reason": "no_answer_in_time"}
        case OfferWithdrawn():
            told = {"type": "offer_ended", "offer_number": event.offer_number, "reason": "lead_closed"}
        case CommandRefused(buyer_id=str()):
            told = {"type": "refused", "command": event.command, "reason": event.reason}
        case DeliveryFailed():
            told = {"type": "delivery_failed", "sale_id": event.sale_id, "reason": event.reason}
        case _:
            return None
    body = {"lead_id": entry.lead_id, "at": iso_time(entry.decided_at_ms), **told}
    body["log"] = _log_position(entry, partition)
    assert event.buyer_id is not None
    return Outgoing(n, Channel.BUYER_PINGS, event.buyer_id, f"gavel.{told['type']}.v1", body)


def _is_refused(ended: OfferExpired, events: Sequence[Event]) -> bool:
    """Tell whether the buyer hears of the end of its offer with a refusal: one record to each (rule 19)."""
    return any(isinstance(event, CommandRefused) and event.buyer_id == ended.buyer_id for event in events)


def _offer(offer: OfferMade) -> dict[str, Any]:
    return {
        "type": "offer",
        "offer_number": offer.offer_number,
        "answer_by": iso_time(offer.answer_by_ms),
        "lead_type": offer.lead_type,
        "order": offer.order_id,
        "mode": offer.mode,
        "price": decimal_amount(offer.price_cents),
        "currency": offer.currency,
        "sale_number": offer.sale_number,
        "sales_max": offer.sales_max,
        "exclusive_for_ms": offer.exclusive_for_ms,
        "holders": len(offer.holders),
        "quality": offer.quality,
        "fields": dict(offer.fields),
        "is_test": offer.is_test,
        "promise": _offered_promise(offer),
    }


def _offered_promise(offer: OfferMade) -> str:
    if offer.mode is Mode.SHARED:
        return f"If you accept: shared, number {offer.sale_number} of at most {offer.sales_max}."
    if offer.exclusive_for_ms is None:
        return "If you accept: exclusive, for good."
    return (
        f"If you accept: exclusive for {duration_for_people(offer.exclusive_for_ms)}; without a deal by then, "
        f"up to {offer.sales_max - 1} more may get it."
    )


def duration_for_people(milliseconds: int) -> str:
    """Write a duration in the largest unit that divides it: 72 hours, 90 seconds."""
    for unit_ms, name in ((DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute"), (SECOND_MS, "second")):
        if milliseconds % unit_ms == 0:
            count = milliseconds // unit_ms
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{milliseconds} milliseconds"


def _holders_before(sold: Sequence[LeadSold], closed: LeadClosed | None) -> Iterable[str]:
    if closed is not None:
        return closed.holders
    return sold[0].holders if sold else ()


def _sold_briefly(sold: LeadSold) -> dict[str, Any]:
    """Tell of a sale to those who did not buy: never to whom, nor at which price."""
    return {"type": "sold", "sale_number": sold.sale_number, "sales_max": sold.sales_max, "mode": sold.mode}


def _log_position(entry: Entry, partition: int) -> dict[str, int]:
    return {"partition": partition, "seq": entry.seq}


def _time_or_none(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso_time(at_ms)


def _for_people(at_ms: int) -> str:
    text = iso_time(at_ms)
    return f"{text[:10]} {text[11:19]} UTC"
