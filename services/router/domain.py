"""The decision: what follows for one lead from one input, by the market's rules. Nothing else in Gavel decides.

Pure: time, orders and whatever was found full come in as arguments, events come out. What an event does to a lead is
told by `services.router.lead`; the parts of a decision are in `deciding`, a lead's way through its plan in `course`,
which order a stage sells to in `selling`.
"""

from __future__ import annotations

from typing import assert_never

from services.contract.events import (
    Disposition,
    DispositionReported,
    LeadListed,
    Outcome,
    RefusalReason,
    WindowClosed,
    WindowKind,
    WithdrawalNoted,
)
from services.contract.fields import matches
from services.contract.ids import draw
from services.contract.inputs import (
    AcceptOffer,
    AcknowledgeErasure,
    CloseAuction,
    DecideReturn,
    DeclineToBid,
    EraseLead,
    FailLead,
    Input,
    MoveMoney,
    PlaceBid,
    QualifiedLead,
    RejectOffer,
    ReportDisposition,
    ReportFailedDelivery,
    ReturnLead,
    TimerDue,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import LeadType, Plan
from services.router.accounts import move_money
from services.router.auctions import close_when_due, decline_to_bid, place_bid
from services.router.course import begin, go_on, go_on_after_auction, go_to_stage, outcome_of, sell_on
from services.router.deciding import Conditions, Deciding, Decision
from services.router.erasure import acknowledge_erasure, erase_lead
from services.router.lead import Lead, State, WithdrawnEarly
from services.router.offers import ANSWER_GRACE_MS, accept_offer, expire_offer, reject_offer
from services.router.payouts import listing_payout_cents, paid_of
from services.router.returns import decide_return, report_failed_delivery, return_lead
from services.router.upgrades import upgrade_sale

__all__ = ["ANSWER_GRACE_MS", "Conditions", "Decision", "decide", "fail", "plan_for"]

_SHARE_WHOLE = 10_000


def decide(state: State, subject: Input, conditions: Conditions) -> Decision:
    """Decide what follows from `subject`; no events at all where it changes nothing (a repeat, a stale timer)."""
    deciding = Deciding(state, subject.lead_id, conditions)
    match subject:
        case QualifiedLead():
            _list_lead(deciding, subject)
        case PlaceBid() | DeclineToBid() | CloseAuction():
            _go_through_auction(deciding, subject)
        case AcceptOffer() | RejectOffer():
            _answer_offer(deciding, subject)
        case ReportDisposition():
            _report_disposition(deciding, subject)
        case WithdrawLead():
            _withdraw(deciding, subject)
        case TimerDue():
            _timer_due(deciding, subject)
        case ReportFailedDelivery():
            report_failed_delivery(deciding, subject)
        case FailLead():
            _fail(deciding)
        case UpgradeSale():
            upgrade_sale(deciding, subject)
        case ReturnLead():
            return_lead(deciding, subject)
        case DecideReturn():
            decide_return(deciding, subject)
        case MoveMoney():
            move_money(deciding, subject)
        case EraseLead():
            erase_lead(deciding, subject)
        case AcknowledgeErasure():
            acknowledge_erasure(deciding, subject)
        case _:
            assert_never(subject)
    return deciding.decided()


def fail(state: State, subject: Input, conditions: Conditions) -> Decision:
    """Close as failed the lead whose decision the database refused (protocol.md, rule 9).

    A lead that was about to be listed is listed all the same, since every accepted lead is closed on record.
    """
    deciding = Deciding(state, subject.lead_id, conditions)
    if isinstance(subject, QualifiedLead) and not isinstance(state, Lead):
        _list_only(deciding, subject)
    _fail(deciding)
    if isinstance(subject, ReportFailedDelivery):
        report_failed_delivery(deciding, subject)
    return deciding.decided()


def plan_for(lead_type: LeadType, lead: QualifiedLead, *, now_ms: int) -> Plan | None:
    """Choose the first plan whose `when` fits and whose share the lead falls in (rule 1)."""
    age_ms = now_ms - lead.created_at_ms
    for plan in lead_type.plans:
        fits = matches(plan.when, lead.fields, lead_type.details, lead.quality, age_ms)
        if fits and (
            plan.share_basis_points >= _SHARE_WHOLE
            or draw(lead.lead_id, plan.name) % _SHARE_WHOLE < plan.share_basis_points
        ):
            return plan
    return None


def _list_lead(deciding: Deciding, lead: QualifiedLead) -> None:
    if isinstance(deciding.state, Lead):
        return
    withdrawn = deciding.state is not None
    listed, plan = _list_only(deciding, lead)
    if withdrawn:
        deciding.close(listed, Outcome.WITHDRAWN)
    elif plan is None:
        deciding.close(listed, Outcome.UNSOLD)
    else:
        begin(deciding, listed, plan)


def _list_only(deciding: Deciding, lead: QualifiedLead) -> tuple[Lead, Plan | None]:
    accepted_market = deciding.conditions.accepted_market
    plan = plan_for(accepted_market.lead_types[lead.lead_type], lead, now_ms=deciding.now_ms)
    payout_cents = listing_payout_cents(paid_of(accepted_market, lead.source_id), is_test=lead.is_test)
    listed = deciding.list_as(
        LeadListed(
            source_id=lead.source_id,
            lead_type=lead.lead_type,
            plan=plan.name if plan else None,
            quality=lead.quality,
            fields=lead.fields,
            sales_max=_lowest(plan.sales_max if plan else 1, lead.sales_max),
            never_to=lead.never_to,
            created_at_ms=lead.created_at_ms,
            market_version=accepted_market.version,
            is_test=lead.is_test,
            payout_cents=payout_cents,
            currency=accepted_market.currency if payout_cents else None,
            consented_buyers=lead.consented_buyers,
        )
    )
    return listed, plan


def _answer_offer(deciding: Deciding, answer: AcceptOffer | RejectOffer) -> None:
    command = "accept_offer" if isinstance(answer, AcceptOffer) else "reject_offer"
    lead = deciding.known_lead(command, answer.buyer_id)
    if lead is None:
        return
    if isinstance(answer, AcceptOffer):
        goes_on = accept_offer(deciding, lead, answer)
    else:
        goes_on = reject_offer(deciding, lead, answer)
    if goes_on:
        go_on(deciding, lead)


def _go_through_auction(deciding: Deciding, subject: PlaceBid | DeclineToBid | CloseAuction) -> None:
    lead = deciding.state
    match subject:
        case CloseAuction():
            ended = isinstance(lead, Lead) and close_when_due(deciding, lead, subject)
        case PlaceBid():
            lead = deciding.known_lead("place_bid", subject.buyer_id)
            ended = lead is not None and place_bid(deciding, lead, subject)
        case DeclineToBid():
            lead = deciding.known_lead("decline_to_bid", subject.buyer_id)
            ended = lead is not None and decline_to_bid(deciding, lead, subject)
    if ended and isinstance(lead, Lead):
        go_on_after_auction(deciding, lead)


def _report_disposition(deciding: Deciding, report: ReportDisposition) -> None:
    """A holder may report after the close too; a deal closes a lead that is still open."""
    lead = deciding.state
    sale = lead.sale_of(report.buyer_id) if isinstance(lead, Lead) else None
    if sale is None or not isinstance(lead, Lead):
        deciding.refuse("report_disposition", report.buyer_id, RefusalReason.NOT_A_HOLDER)
        return
    if sale.disposition is report.disposition:
        return
    deciding.record(
        DispositionReported(sale_number=sale.number, buyer_id=report.buyer_id, disposition=report.disposition)
    )
    if report.disposition is Disposition.DEAL and lead.outcome is None:
        deciding.close(lead, Outcome.DEAL)


def _withdraw(deciding: Deciding, command: WithdrawLead) -> None:
    lead = deciding.state
    if lead is None:
        deciding.record(WithdrawalNoted(reason=command.reason))
        deciding.state = WithdrawnEarly(reason=command.reason)
    elif isinstance(lead, WithdrawnEarly):
        return
    elif lead.outcome is not None:
        deciding.refuse("withdraw_lead", None, RefusalReason.ALREADY_CLOSED)
    else:
        deciding.close(lead, Outcome.WITHDRAWN)


def _timer_due(deciding: Deciding, timer: TimerDue) -> None:
    """Whether a timer is due is judged here; the timer that says so again has no effect."""
    lead = deciding.state
    if not isinstance(lead, Lead):
        return
    window = next((item for item in lead.windows if item.number == timer.window_number), None)
    if window is None or deciding.now_ms < window.due_at_ms:
        return
    deciding.record(WindowClosed(window_number=window.number))
    match window.kind:
        case WindowKind.ACCEPTANCE:
            assert lead.offer is not None, "an acceptance window stands beside its offer"
            expire_offer(deciding, lead.offer)
            sell_on(deciding, lead)
        case WindowKind.WAIT | WindowKind.RETRY | WindowKind.UPGRADE:
            sell_on(deciding, lead)
        case WindowKind.EXCLUSIVITY:
            go_to_stage(deciding, lead, lead.stage + 1)
        case WindowKind.EXPIRY:
            deciding.close(lead, outcome_of(lead))
        case _:
            assert_never(window.kind)


def _fail(deciding: Deciding) -> None:
    """The database refused what was decided (protocol.md, rule 9)."""
    lead = deciding.state
    if isinstance(lead, Lead) and lead.outcome is None:
        deciding.close(lead, Outcome.FAILED)


def _lowest(first: int, second: int | None) -> int:
    return first if second is None else min(first, second)
