"""Returns and failed deliveries: a buyer's money back, while what was disclosed stays disclosed.

Whether a lead can be returned is told by the terms that it was accepted under. Whoever asks gets an answer in the same
entry, or waits for an operator's. Nothing is sold again: a closed lead stays closed, an open one goes on by its plan.
"""

from __future__ import annotations

from services.contract.events import (
    DeliveryFailed,
    Draw,
    RefusalReason,
    ReturnApproved,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
)
from services.contract.ids import sale_id_of
from services.contract.inputs import DecideReturn, ReportFailedDelivery, ReturnLead
from services.contract.limits import restored, return_draws
from services.contract.market import Returns
from services.router.deciding import Deciding
from services.router.lead import Lead, Returning, Sale
from services.router.payouts import taken_back_cents


def return_lead(deciding: Deciding, request: ReturnLead) -> None:
    """Take a lead back, or say why not, or leave it to an operator; a repeat of what is pending changes nothing."""
    lead = deciding.known_lead("return_lead", request.buyer_id)
    sale = lead.sale_of(request.buyer_id) if lead is not None else None
    if lead is None:
        return
    if sale is None:
        deciding.refuse("return_lead", request.buyer_id, RefusalReason.NOT_A_HOLDER)
    elif sale.returning is Returning.APPROVED:
        deciding.refuse("return_lead", request.buyer_id, RefusalReason.ALREADY_RETURNED)
    elif sale.returning is not Returning.PENDING:
        _ask(deciding, lead, sale, request)


def decide_return(deciding: Deciding, command: DecideReturn) -> None:
    """Let an operator's word end what is pending."""
    lead = deciding.known_lead("decide_return", None)
    if lead is None:
        return
    sale = next((sale for sale in lead.sales if sale.number == command.sale_number), None)
    if sale is not None and sale.returning is Returning.APPROVED:
        deciding.refuse("decide_return", None, RefusalReason.ALREADY_RETURNED)
    elif sale is None or sale.returning is not Returning.PENDING:
        deciding.refuse("decide_return", None, RefusalReason.RETURN_NOT_ASKED)
    elif command.approve:
        _approve(deciding, lead, sale, automatic=False)
    else:
        _refuse(deciding, sale, ReturnRefusal.OPERATOR)


def report_failed_delivery(deciding: Deciding, report: ReportFailedDelivery) -> None:
    """Credit the sale; its number and its disclosure stay used (protocol.md, rule 18).

    A sale that was returned before is credited already: of that there is nothing more to give back.
    """
    lead = deciding.state
    if not isinstance(lead, Lead):
        return
    sale = lead.sales[report.sale_number - 1]
    if sale.delivery_failed:
        return
    was_credited = sale.returning is Returning.APPROVED
    deciding.record(
        DeliveryFailed(
            sale_number=sale.number,
            sale_id=sale_id_of(lead.lead_id, sale.number),
            buyer_id=sale.buyer_id,
            price_cents=0 if was_credited else sale.price_cents + sale.fee_cents,
            currency=sale.currency,
            reason=report.reason,
            is_test=lead.is_test,
            source_id=lead.source_id,
            payout_cents=0 if was_credited else sale.payout_cents,
            draws=() if was_credited else restored(sale.draws),
        )
    )
    if sale.returning is Returning.PENDING:
        _refuse(deciding, sale, ReturnRefusal.NOT_RETURNABLE)


def _ask(deciding: Deciding, lead: Lead, sale: Sale, request: ReturnLead) -> None:
    deciding.record(
        ReturnRequested(
            sale_number=sale.number,
            sale_id=sale_id_of(lead.lead_id, sale.number),
            buyer_id=sale.buyer_id,
            reason=request.reason,
        )
    )
    returns = deciding.lead_type(lead).returns
    refusal = _refusal(returns, sale, request)
    if refusal is not None:
        _refuse(deciding, sale, refusal)
    elif returns is not None and returns.automatic:
        _approve(deciding, lead, lead.sales[sale.number - 1], automatic=True)


def _refusal(returns: Returns | None, sale: Sale, request: ReturnLead) -> ReturnRefusal | None:
    if returns is None or sale.delivery_failed:
        return ReturnRefusal.NOT_RETURNABLE
    if sale.returning is Returning.REFUSED:
        return ReturnRefusal.OPERATOR
    if request.answered_at_ms > sale.sold_at_ms + returns.within_ms:
        return ReturnRefusal.TOO_LATE
    if request.reason not in returns.reasons:
        return ReturnRefusal.REASON_NOT_ACCEPTED
    return None


def _approve(deciding: Deciding, lead: Lead, sale: Sale, *, automatic: bool) -> None:
    """Credit what the sale and its upgrade cost, unless the buyer's quota of returns is used up."""
    if sale.order_id in deciding.conditions.no_room:
        _refuse(deciding, sale, ReturnRefusal.QUOTA_USED_UP)
        return
    deciding.record(
        ReturnApproved(
            sale_number=sale.number,
            sale_id=sale_id_of(lead.lead_id, sale.number),
            buyer_id=sale.buyer_id,
            source_id=lead.source_id,
            price_cents=sale.price_cents + sale.fee_cents,
            currency=sale.currency,
            automatic=automatic,
            payout_cents=taken_back_cents(deciding.paid(lead), lead, sale),
            draws=restored(sale.draws) + _quota_draws(deciding, lead, sale),
            is_test=lead.is_test,
        )
    )


def _quota_draws(deciding: Deciding, lead: Lead, sale: Sale) -> tuple[Draw, ...]:
    """Draw on the month that the return was asked in; a buyer that the market no longer knows has no quota."""
    buyer = deciding.conditions.market.buyers.get(sale.buyer_id)
    if buyer is None or lead.is_test:
        return ()
    assert sale.return_asked_ms is not None, "only what was asked for is approved"
    return return_draws(buyer, deciding.lead_type(lead), now_ms=sale.return_asked_ms)


def _refuse(deciding: Deciding, sale: Sale, reason: ReturnRefusal) -> None:
    deciding.record(
        ReturnRefused(
            sale_number=sale.number,
            sale_id=sale_id_of(deciding.lead_id, sale.number),
            buyer_id=sale.buyer_id,
            reason=reason,
        )
    )
