"""Offers: a stage with `accept_within` asks one buyer after the other, and accepting is the sale.

An offer reserves nothing: whether its order still has room is asked when it is accepted (protocol.md, rule 28). What
follows an answer that leaves the lead unsold is for the caller to say.
"""

from __future__ import annotations

from services.contract.events import (
    OfferExpired,
    OfferMade,
    OfferRejected,
    RefusalReason,
    WindowKind,
)
from services.contract.inputs import AcceptOffer, RejectOffer
from services.contract.market import Mode
from services.router.deciding import Deciding
from services.router.lead import Lead
from services.router.selling import Choice

ANSWER_GRACE_MS = 50
"""An offer ends this long after its deadline, so that an answer appended in time is still on its way in time."""


def make_offer(deciding: Deciding, lead: Lead, choice: Choice, accept_within_ms: int) -> None:
    """Offer the lead to one buyer."""
    answer_by_ms = deciding.now_ms + accept_within_ms
    exclusive = choice.mode is Mode.EXCLUSIVE
    deciding.record(
        OfferMade(
            offer_number=lead.offers_made + 1,
            buyer_id=choice.order.buyer_id,
            order_id=choice.order.id,
            stage=lead.stage,
            mode=choice.mode,
            price_cents=choice.price_cents,
            currency=deciding.conditions.market.currency,
            sale_number=len(lead.sales) + 1,
            sales_max=lead.sales_max,
            exclusive_for_ms=deciding.exclusive_for_ms(lead) if exclusive else None,
            answer_by_ms=answer_by_ms,
            lead_type=lead.lead_type,
            quality=lead.quality,
            fields=lead.fields,
            holders=lead.holders,
            is_test=lead.is_test,
        )
    )
    deciding.open_window(lead, WindowKind.ACCEPTANCE, answer_by_ms + ANSWER_GRACE_MS)


def accept_offer(deciding: Deciding, lead: Lead, answer: AcceptOffer) -> bool:
    """Sell what was offered, if it still may be; True where the lead goes on, sold or not."""
    if not _is_answer_to_offer(deciding, lead, answer, "accept_offer"):
        return False
    offer = lead.offer
    assert offer is not None
    if answer.answered_at_ms > offer.answer_by_ms:
        deciding.refuse("accept_offer", answer.buyer_id, RefusalReason.OFFER_TOO_LATE)
        return False
    deciding.close_window(lead, WindowKind.ACCEPTANCE)
    order = deciding.standing_order(lead, offer.order_id)
    if order is None or order.id in deciding.conditions.no_room:
        deciding.refuse("accept_offer", answer.buyer_id, RefusalReason.NO_ROOM)
        expire_offer(deciding, offer)
    else:
        deciding.sell(lead, order, offer.mode, offer.price_cents, offer_number=offer.offer_number)
    return True


def reject_offer(deciding: Deciding, lead: Lead, answer: RejectOffer) -> bool:
    """Record that a buyer passed; False where it was not asked."""
    if not _is_answer_to_offer(deciding, lead, answer, "reject_offer"):
        return False
    deciding.close_window(lead, WindowKind.ACCEPTANCE)
    deciding.record(
        OfferRejected(offer_number=answer.offer_number, buyer_id=answer.buyer_id, reason=answer.reason)
    )
    return True


def expire_offer(deciding: Deciding, offer: OfferMade) -> None:
    """Record that an offer ended without a sale."""
    deciding.record(OfferExpired(offer_number=offer.offer_number, buyer_id=offer.buyer_id))


def _is_answer_to_offer(
    deciding: Deciding, lead: Lead, answer: AcceptOffer | RejectOffer, command: str
) -> bool:
    offer = lead.offer
    if offer is not None and offer.offer_number == answer.offer_number and offer.buyer_id == answer.buyer_id:
        return True
    deciding.refuse(command, answer.buyer_id, RefusalReason.OFFER_NOT_OPEN)
    return False
