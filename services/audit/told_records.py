"""What each outsider must be told of an entry, written anew from the log: deliveries, notices, receipts, pings.

Without what the vault holds. Bodies are as JSON has them; `services.contract.outside_records` reads what came in Avro
as the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import orjson

from services.audit.lead_state import (
    LEAD,
    NOTICE,
    RECEIPT,
    UPGRADED,
    Happened,
    LeadState,
    Listed,
    Sale,
    Terms,
)
from services.audit.told_sentences import FOR_GOOD, delivered_sentence, offered_sentence, pinged_sentence
from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    BidOutcome,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    Event,
    Invitation,
    LimitReached,
    MoneyMoved,
    OfferExpired,
    OfferMade,
    OfferWithdrawn,
    ReturnApproved,
    ReturnRefused,
    ReturnRequested,
)
from services.contract.ids import sale_id_of
from services.contract.market import Mode
from services.contract.times import decimal_amount, iso_time

Body = dict[str, Any]

_DIGEST_SIZE: Final = 8
_FIRST_OF_ALL: Final = ("offer", "ping")
_OPERATORS_COMMANDS: Final = ("withdraw_lead", "decide_return", "move_money")
_REACHED_BY: Final = frozenset({"email", "phone"})
_EXCLUSIVE: Final = Mode.EXCLUSIVE.value


def digest_of(value: bytes) -> bytes:
    """Make eight bytes of a record, by which a repeat is known."""
    return blake2b(value, digest_size=_DIGEST_SIZE).digest()


def contact_in(body: Body) -> Body | None:
    """Find the contact details in a body; None where it has none, as only a delivery has some."""
    lead = body.get("lead")
    contact = lead.get("contact") if isinstance(lead, dict) else None
    return contact if isinstance(contact, dict) else None


def digest_of_contact(lead_id: str, contact: Mapping[str, Any]) -> bytes:
    """Make eight bytes of a lead's contact details; another lead of the same person has others."""
    return digest_of(lead_id.encode() + orjson.dumps(contact, option=orjson.OPT_SORT_KEYS))


@lru_cache
def is_contact(names: tuple[str, ...], declared: tuple[str, ...]) -> bool:
    """Tell whether a lead may have these contact details: declared by its type, and a way to reach the person."""
    ways = _REACHED_BY.intersection(declared)
    return set(names) <= set(declared) and (not ways or not ways.isdisjoint(names))


def digest_of_body(body: Body) -> bytes:
    """Make eight bytes of what a ping says, in whichever order."""
    return digest_of(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def record_body(
    lead_id: str,
    partition: int,
    seq: int,
    state: LeadState,
    happened: Happened,
    kind: str,
    number: int | None,
) -> Body:
    """Write the body of a delivery, an upgrade, a notice or a receipt."""
    match kind:
        case kinds if kinds == LEAD:
            assert number is not None
            assert state.listed is not None
            body = _delivery(lead_id, state, state.listed, state.sales[number - 1], happened)
        case kinds if kinds == UPGRADED:
            body = _upgrade(lead_id, state.sales[0], happened)
        case kinds if kinds == NOTICE:
            body = _notice(lead_id, state, happened)
        case kinds if kinds == RECEIPT:
            body = _receipt(lead_id, state, happened)
        case _:
            raise ValueError(f"no record of kind {kind}")
    body["log"] = {"partition": partition, "seq": seq}
    return body


def _delivery(lead_id: str, state: LeadState, listed: Listed, sale: Sale, happened: Happened) -> Body:
    terms = sale.terms
    body = {
        "type": "lead",
        "sale_id": sale_id_of(lead_id, terms.sale_number),
        "lead_id": lead_id,
        "lead_type": terms.lead_type,
        "order": terms.order_id,
        "sold_at": iso_time(happened.decided_at_ms),
        "created_at": iso_time(listed.created_at_ms),
        "price": decimal_amount(terms.price_cents),
        "currency": terms.currency,
        "quality": terms.quality,
        "is_test": terms.is_test,
    }
    if happened.upgraded and sale.fee is not None:
        body["upgrade_fee"] = decimal_amount(sale.fee[0])
        body["total"] = decimal_amount(terms.price_cents + sale.fee[0])
        body["terms"], body["promise"] = _alone(terms), FOR_GOOD
    else:
        told = body["terms"] = _terms(state, terms, happened)
        body["promise"] = delivered_sentence(
            told, is_closed=happened.outcome is not None, next_try_ms=happened.next_try_ms
        )
    return body


def others_from_ms(terms: Terms, happened: Happened) -> int | None:
    """Say before when nobody follows, as a sale's delivery tells it; None: at any time, or never."""
    may_follow = terms.others_may_follow and happened.outcome is None and happened.holders < terms.sales_max
    if not may_follow:
        return None
    return happened.next_try_ms if terms.others_from_ms is None else terms.others_from_ms


def _terms(state: LeadState, terms: Terms, happened: Happened) -> Body:
    may_follow = terms.others_may_follow and happened.outcome is None and happened.holders < terms.sales_max
    upgrade = None
    if terms.upgrade_fee_cents is not None and happened.holders == 1 and happened.outcome is None:
        upgrade = {"fee": decimal_amount(terms.upgrade_fee_cents), "until": _time(terms.upgrade_until_ms)}
    return {
        "mode": terms.mode,
        "sale_number": terms.sale_number,
        "sales_max": terms.sales_max,
        "exclusive": terms.mode == _EXCLUSIVE,
        "exclusive_until": None if happened.outcome is not None else _time(terms.exclusive_until_ms),
        "holders": happened.holders,
        "held_since": _time(state.sales[0].sold_at_ms) if terms.sale_number > 1 else None,
        "others_may_follow": may_follow,
        "others_from": _time(others_from_ms(terms, happened)),
        "upgrade": upgrade,
    }


def _alone(terms: Terms) -> Body:
    return {
        "mode": _EXCLUSIVE,
        "sale_number": terms.sale_number,
        "sales_max": terms.sales_max,
        "exclusive": True,
        "exclusive_until": None,
        "holders": 1,
        "held_since": None,
        "others_may_follow": False,
        "others_from": None,
        "upgrade": None,
    }


def _upgrade(lead_id: str, sale: Sale, happened: Happened) -> Body:
    return {
        "type": "upgraded",
        "sale_id": sale_id_of(lead_id, sale.terms.sale_number),
        "lead_id": lead_id,
        "order": sale.terms.order_id,
        "at": iso_time(happened.decided_at_ms),
        "fee": decimal_amount(0 if sale.fee is None else sale.fee[0]),
        "currency": sale.terms.currency,
        "is_test": sale.terms.is_test,
        "terms": _alone(sale.terms),
        "promise": FOR_GOOD,
    }


def _notice(lead_id: str, state: LeadState, happened: Happened) -> Body:
    told = [_sold(state.sales[number - 1].terms) for number in happened.sold]
    if happened.outcome is not None:
        told.append({"type": "closed", "outcome": happened.outcome})
    if happened.erasure is not None:
        reason, by_ms = happened.erasure
        told.append({"type": "erasure", "reason": reason, "acknowledge_by": iso_time(by_ms)})
    return {
        "type": "notice",
        "lead_id": lead_id,
        "at": iso_time(happened.decided_at_ms),
        "holders": happened.holders,
        "happened": told,
    }


def _sold(terms: Terms) -> Body:
    return {
        "type": "sold",
        "sale_number": terms.sale_number,
        "sales_max": terms.sales_max,
        "mode": terms.mode,
    }


def _receipt(lead_id: str, state: LeadState, happened: Happened) -> Body:
    return {
        "type": "receipt",
        "lead_id": lead_id,
        "at": iso_time(happened.decided_at_ms),
        "happened": [_receipted(state, happened, item) for item in happened.told],
    }


def _receipted(state: LeadState, happened: Happened, item: Any) -> Body:
    match item:
        case int():
            terms = state.sales[item - 1].terms
            return _sold(terms) | _amount("payout", terms.payout_cents, terms.currency)
        case "closed":
            return {"type": "closed", "outcome": happened.outcome, "sales": happened.holders}
        case "earned":
            assert state.listed is not None
            return {"type": "earned"} | _amount(
                "payout", state.listed.payout_cents, state.listed.currency or ""
            )
        case "upgraded":
            sale = state.sales[0]
            payout_cents = 0 if sale.fee is None else sale.fee[1]
            told = {"type": "upgraded", "sale_number": sale.terms.sale_number}
            return told | _amount("payout", payout_cents, sale.terms.currency)
        case (kind, number, cents):
            currency = state.sales[number - 1].terms.currency
            return {"type": kind, "sale_number": number} | _amount("taken_back", cents, currency)
        case _:
            raise ValueError(f"nothing that a source hears: {item}")


def _amount(name: str, cents: int, currency: str) -> Body:
    return {name: decimal_amount(cents), "currency": currency} if cents else {}


def pinged(
    lead_id: str, partition: int, seq: int, decided_at_ms: int, events: Sequence[Event]
) -> tuple[tuple[str, bytes], ...]:
    """Write what each buyer reads of an entry on its topic of pings, as digests, in the order of the records."""
    told: dict[str, list[Body]] = {}
    for event in events:
        if not _is_said_otherwise(event, events):
            for buyer_id, body in _addressed(event):
                told.setdefault(buyer_id, []).append(body)
    return tuple(
        (buyer_id, digest_of_body(_ping_record(lead_id, partition, seq, decided_at_ms, bodies)))
        for buyer_id, bodies in told.items()
    )


def _ping_record(lead_id: str, partition: int, seq: int, decided_at_ms: int, bodies: list[Body]) -> Body:
    first, *others = sorted(bodies, key=lambda body: body["type"] not in _FIRST_OF_ALL)
    subject = "account_id" if first["type"] == "account" else "lead_id"
    body = {
        subject: lead_id,
        "at": iso_time(decided_at_ms),
        **first,
        "log": {"partition": partition, "seq": seq},
    }
    return {**body, "also": others} if others else body


def _is_said_otherwise(event: Event, events: Sequence[Event]) -> bool:
    if isinstance(event, OfferExpired):
        return any(isinstance(other, CommandRefused) and other.buyer_id == event.buyer_id for other in events)
    if isinstance(event, ReturnRequested):
        decided = (ReturnApproved, ReturnRefused)
        return any(isinstance(other, decided) and other.sale_id == event.sale_id for other in events)
    return False


def _addressed(event: Event) -> Iterator[tuple[str, Body]]:
    match event:
        case OfferMade():
            yield event.buyer_id, _offer(event)
        case OfferExpired():
            yield event.buyer_id, _offer_ended(event.offer_number, "no_answer_in_time")
        case OfferWithdrawn():
            yield event.buyer_id, _offer_ended(event.offer_number, "lead_closed")
        case CommandRefused(buyer_id=str(buyer_id)) if event.command not in _OPERATORS_COMMANDS:
            yield buyer_id, {"type": "refused", "command": event.command, "reason": event.reason}
        case DeliveryFailed():
            yield (
                event.buyer_id,
                {"type": "delivery_failed", "sale_id": event.sale_id, "reason": event.reason},
            )
        case AuctionOpened():
            for invitation in event.invited:
                yield invitation.buyer_id, _ping(event, invitation)
        case AuctionClosed():
            for result in event.results:
                if result.outcome is not BidOutcome.WON:
                    yield (
                        result.buyer_id,
                        _result(event, result.outcome, result.mode, result.minimum_to_win_cents),
                    )
            for buyer_id in event.silent:
                yield buyer_id, _result(event, "no_answer", None, None)
        case BidVoided():
            body = {"type": "bid_void", "auction_number": event.auction_number, "reason": event.reason}
            yield event.buyer_id, body
        case ReturnRequested():
            yield event.buyer_id, {"type": "return_pending", "sale_id": event.sale_id, "reason": event.reason}
        case ReturnRefused():
            yield event.buyer_id, {"type": "return_refused", "sale_id": event.sale_id, "reason": event.reason}
        case ReturnApproved():
            body = {
                "type": "return_approved",
                "sale_id": event.sale_id,
                "credited": decimal_amount(event.price_cents),
            }
            more = {"currency": event.currency, "automatic": event.automatic, "is_test": event.is_test}
            yield event.buyer_id, body | more
        case LimitReached():
            body = {"type": "limit_reached", "order": event.order_id, "limit": event.limit}
            yield event.buyer_id, body | {"resumes_at": _time(event.resumes_at_ms)}
        case MoneyMoved():
            body = {"type": "account", "kind": event.kind, "reference": event.reference}
            yield (
                event.buyer_id,
                body | {"amount": decimal_amount(event.amount_cents), "currency": event.currency},
            )
        case _:
            return


def _offer(offer: OfferMade) -> Body:
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
        "promise": offered_sentence(offer),
    }


def _offer_ended(offer_number: int, reason: str) -> Body:
    return {"type": "offer_ended", "offer_number": offer_number, "reason": reason}


def _ping(auction: AuctionOpened, invitation: Invitation) -> Body:
    is_alone, is_shared = Mode.EXCLUSIVE in invitation.modes, Mode.SHARED in invitation.modes
    return {
        "type": "ping",
        "auction_number": auction.auction_number,
        "answer_by": iso_time(auction.bids_until_ms),
        "lead_type": auction.lead_type,
        "order": invitation.order_id,
        "selection": auction.selection,
        "modes": list(invitation.modes),
        "floor": {
            "exclusive": _cents(auction.floor_exclusive_cents) if is_alone else None,
            "shared": _cents(auction.floor_shared_cents) if is_shared else None,
        },
        "currency": auction.currency,
        "sale_number": auction.sale_number,
        "sales_max": auction.sales_max,
        "exclusive_for_ms": auction.exclusive_for_ms if is_alone else None,
        "holders": len(auction.holders),
        "quality": auction.quality,
        "fields": dict(auction.fields),
        "is_test": auction.is_test,
        "promise": pinged_sentence(auction, invitation.modes),
    }


def _result(closed: AuctionClosed, outcome: str, mode: Mode | None, minimum_cents: int | None) -> Body:
    return {
        "type": "auction_result",
        "auction_number": closed.auction_number,
        "ended_by": closed.reason,
        "outcome": outcome,
        "mode": mode,
        "minimum_to_win": _cents(minimum_cents),
    }


def _cents(cents: int | None) -> str | None:
    return None if cents is None else decimal_amount(cents)


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso_time(at_ms)
