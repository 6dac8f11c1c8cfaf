"""The exclusive upgrade: the only holder of a shared lead closes the slots that are left, and has it for good.

It is the one way in which a lead that was disclosed becomes exclusive, and only to the buyer that it was disclosed to.
The fee is what the holder was told with its delivery, however the plans have changed since.
"""

from __future__ import annotations

from services.contract.events import LeadSold, LeadUpgraded, Outcome, RefusalReason, WindowKind
from services.contract.ids import sale_id_of
from services.contract.inputs import UpgradeSale
from services.contract.limits import fee_draws
from services.contract.market import Order
from services.router.deciding import Deciding
from services.router.lead import Lead, Returning, Sale
from services.router.offers import ANSWER_GRACE_MS
from services.router.payouts import share_cents


def leaves_it_to_the_holder(deciding: Deciding, lead: Lead) -> bool:
    """Upgrade what was just sold, where its order always does, or let its buyer have the time to; True: sell no more.

    The time ends a little after its deadline, so that an answer appended in time is still on its way in time.
    """
    sold = deciding.events[-1] if deciding.events else None
    if not isinstance(sold, LeadSold) or sold.upgrade_fee_cents is None:
        return False
    order = deciding.standing_order(lead, sold.order_id)
    if order is not None and order.upgrade_always:
        _upgrade(deciding, lead, lead.sales[0], order)
        return True
    until_ms = sold.upgrade_until_ms
    if until_ms is None:
        return False
    deciding.open_window(lead, WindowKind.UPGRADE, until_ms + ANSWER_GRACE_MS)
    return True


def upgrade_sale(deciding: Deciding, command: UpgradeSale) -> None:
    """Let the only holder close the remaining slots, or say why it may not."""
    lead = deciding.known_lead("upgrade_sale", command.buyer_id)
    if lead is None:
        return
    sale = lead.sale_of(command.buyer_id)
    if sale is None:
        deciding.refuse("upgrade_sale", command.buyer_id, RefusalReason.NOT_A_HOLDER)
        return
    reason = _refusal(lead, sale)
    order = deciding.standing_order(lead, sale.order_id)
    if reason is not None:
        deciding.refuse("upgrade_sale", command.buyer_id, reason)
    elif order is None or order.id in deciding.conditions.no_room:
        deciding.refuse("upgrade_sale", command.buyer_id, RefusalReason.NO_ROOM)
    else:
        _upgrade(deciding, lead, sale, order)


def _refusal(lead: Lead, sale: Sale) -> RefusalReason | None:
    if lead.outcome is not None:
        return RefusalReason.ALREADY_CLOSED
    if sale.returning is Returning.APPROVED:
        return RefusalReason.ALREADY_RETURNED
    if len(lead.sales) > 1:
        return RefusalReason.NOT_THE_ONLY_HOLDER
    if sale.upgrade_fee_cents is None or sale.delivery_failed:
        return RefusalReason.NO_UPGRADE
    return None


def _upgrade(deciding: Deciding, lead: Lead, sale: Sale, order: Order) -> None:
    fee_cents = sale.upgrade_fee_cents
    assert fee_cents is not None, "a fee was told with the sale"
    market = deciding.conditions.market
    draws = fee_draws(market, order, fee_cents=fee_cents, now_ms=deciding.now_ms)
    deciding.record(
        LeadUpgraded(
            sale_number=sale.number,
            sale_id=sale_id_of(lead.lead_id, sale.number),
            buyer_id=sale.buyer_id,
            order_id=sale.order_id,
            source_id=lead.source_id,
            slots_closed=lead.sales_max - len(lead.sales),
            fee_cents=fee_cents,
            currency=sale.currency,
            payout_cents=share_cents(deciding.paid(lead), fee_cents, is_test=lead.is_test),
            draws=() if lead.is_test else draws,
            is_test=lead.is_test,
        )
    )
    deciding.close(lead, Outcome.SOLD_OUT)
