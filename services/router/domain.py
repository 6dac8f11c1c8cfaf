"""The decision: what follows for one lead from one input, by the market's rules. Nothing else in Gavel decides.

Pure: time, orders and whatever was found full come in as arguments, events come out. What an event does to a lead is
told by `services.router.lead`; which order a stage sells to, by `services.router.selling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import assert_never

from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Disposition,
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
    RefusalReason,
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
)
from services.contract.fields import matches
from services.contract.ids import draw, sale_id_of
from services.contract.inputs import (
    AcceptOffer,
    FailLead,
    Input,
    QualifiedLead,
    RejectOffer,
    ReportDisposition,
    ReportFailedDelivery,
    TimerDue,
    WithdrawLead,
)
from services.contract.market import LeadType, Market, Mode, Plan, Sell, Stage
from services.contract.records import quickly_made
from services.router.lead import Lead, State, WithdrawnEarly, apply, listed
from services.router.orders import OrderBook, OrderSet
from services.router.selling import Choice, candidates, next_choice

ANSWER_GRACE_MS = 50
"""An offer ends this long after its deadline, so that an answer appended in time is still on its way in time."""

_SHARE_WHOLE = 10_000


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The events that were decided, and the state after them (which is `evolve` of the state before)."""

    events: Sequence[Event]
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All that a decision depends on beside the lead and the input.

    `market` is the version it is decided under and `books` its orders by lead type; `accepted_market` is the version
    that the lead was accepted under, whose plans it keeps. `no_room`: orders found full, paused or broken.
    """

    market: Market
    books: Mapping[str, OrderBook]
    accepted_market: Market
    no_room: frozenset[str]
    now_ms: int


def decide(state: State, subject: Input, conditions: Conditions) -> Decision:
    """Decide what follows from `subject`; no events at all where it changes nothing (a repeat, a stale timer)."""
    decision = _Deciding(state, subject.lead_id, conditions)
    match subject:
        case QualifiedLead():
            decision.list_lead(subject)
        case AcceptOffer():
            decision.accept_offer(subject)
        case RejectOffer():
            decision.reject_offer(subject)
        case ReportDisposition():
            decision.report_disposition(subject)
        case WithdrawLead():
            decision.withdraw(subject)
        case TimerDue():
            decision.timer_due(subject)
        case ReportFailedDelivery():
            decision.report_failed_delivery(subject)
        case FailLead():
            decision.fail()
        case _:
            assert_never(subject)
    return Decision(events=decision.events, state=decision.state)


def fail(state: State, subject: Input, conditions: Conditions) -> Decision:
    """Close as failed the lead whose decision the database refused (protocol.md, rule 9).

    A lead that was about to be listed is listed all the same, since every accepted lead is closed on record.
    """
    decision = _Deciding(state, subject.lead_id, conditions)
    if isinstance(subject, QualifiedLead) and not isinstance(state, Lead):
        decision.list_only(subject)
    decision.fail()
    if isinstance(subject, ReportFailedDelivery):
        decision.report_failed_delivery(subject)
    return Decision(events=decision.events, state=decision.state)


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


class _Deciding:
    """One decision in the making: a copy of the lead's state, changed by each event that is recorded."""

    def __init__(self, state: State, lead_id: str, conditions: Conditions) -> None:
        self.state: State = copy(state) if isinstance(state, Lead) else state
        self.events: list[Event] = []
        self._lead_id = lead_id
        self._conditions = conditions
        self._now_ms = conditions.now_ms

    # Inputs

    def list_lead(self, lead: QualifiedLead) -> None:
        if isinstance(self.state, Lead):
            return
        withdrawn = self.state is not None
        state, plan = self.list_only(lead)
        if withdrawn:
            self._close(state, Outcome.WITHDRAWN)
        elif plan is None:
            self._close(state, Outcome.UNSOLD)
        else:
            self._begin(state, plan)

    def list_only(self, lead: QualifiedLead) -> tuple[Lead, Plan | None]:
        lead_type = self._conditions.accepted_market.lead_types[lead.lead_type]
        plan = plan_for(lead_type, lead, now_ms=self._now_ms)
        event = LeadListed(
            source_id=lead.source_id,
            lead_type=lead.lead_type,
            plan=plan.name if plan else None,
            quality=lead.quality,
            fields=lead.fields,
            sales_max=_lowest(plan.sales_max if plan else 1, lead.sales_max),
            never_to=lead.never_to,
            created_at_ms=lead.created_at_ms,
            market_version=self._conditions.accepted_market.version,
            is_test=lead.is_test,
        )
        self.events.append(event)
        self.state = state = listed(self._lead_id, event, self._now_ms)
        return state, plan

    def accept_offer(self, answer: AcceptOffer) -> None:
        lead = self._open_lead("accept_offer", answer.buyer_id)
        if lead is None or not self._is_answer_to_offer(lead, answer, "accept_offer"):
            return
        offer = lead.offer
        assert offer is not None
        if answer.answered_at_ms > offer.answer_by_ms:
            self._refuse("accept_offer", answer.buyer_id, RefusalReason.OFFER_TOO_LATE)
            return
        self._close_window(lead, WindowKind.ACCEPTANCE)
        if offer.order_id in self._conditions.no_room or not self._stands(lead, offer.order_id):
            self._refuse("accept_offer", answer.buyer_id, RefusalReason.NO_ROOM)
            self._record(OfferExpired(offer_number=offer.offer_number, buyer_id=offer.buyer_id))
            self._sell_on(lead)
        else:
            self._sell_offered(lead, offer)

    def reject_offer(self, answer: RejectOffer) -> None:
        lead = self._open_lead("reject_offer", answer.buyer_id)
        if lead is None or not self._is_answer_to_offer(lead, answer, "reject_offer"):
            return
        self._close_window(lead, WindowKind.ACCEPTANCE)
        self._record(
            OfferRejected(offer_number=answer.offer_number, buyer_id=answer.buyer_id, reason=answer.reason)
        )
        self._sell_on(lead)

    def report_disposition(self, report: ReportDisposition) -> None:
        """A holder may report after the close too; a deal closes a lead that is still open."""
        sale = self.state.sale_of(report.buyer_id) if isinstance(self.state, Lead) else None
        if sale is None or not isinstance(self.state, Lead):
            self._refuse("report_disposition", report.buyer_id, RefusalReason.NOT_A_HOLDER)
            return
        if sale.disposition is report.disposition:
            return
        self._record(
            DispositionReported(
                sale_number=sale.number, buyer_id=report.buyer_id, disposition=report.disposition
            )
        )
        if report.disposition is Disposition.DEAL and self.state.outcome is None:
            self._close(self.state, Outcome.DEAL)

    def withdraw(self, command: WithdrawLead) -> None:
        if self.state is None:
            self._record(WithdrawalNoted(reason=command.reason))
            self.state = WithdrawnEarly(reason=command.reason)
        elif isinstance(self.state, WithdrawnEarly):
            return
        elif self.state.outcome is not None:
            self._refuse("withdraw_lead", None, RefusalReason.ALREADY_CLOSED)
        else:
            self._close(self.state, Outcome.WITHDRAWN)

    def timer_due(self, timer: TimerDue) -> None:
        """Whether a timer is due is judged here; the timer that says so again has no effect."""
        if not isinstance(self.state, Lead):
            return
        lead = self.state
        window = next((item for item in lead.windows if item.number == timer.window_number), None)
        if window is None or self._now_ms < window.due_at_ms:
            return
        self._record(WindowClosed(window_number=window.number))
        match window.kind:
            case WindowKind.ACCEPTANCE:
                assert lead.offer is not None, "an acceptance window stands beside its offer"
                self._record(OfferExpired(offer_number=lead.offer.offer_number, buyer_id=lead.offer.buyer_id))
                self._sell_on(lead)
            case WindowKind.WAIT | WindowKind.RETRY:
                self._sell_on(lead)
            case WindowKind.EXCLUSIVITY:
                self._go_to_stage(lead, lead.stage + 1)
            case WindowKind.EXPIRY:
                self._close(lead, _outcome_of(lead))
            case _:
                assert_never(window.kind)

    def report_failed_delivery(self, report: ReportFailedDelivery) -> None:
        """The sale is credited; its number and its disclosure stay used (protocol.md, rule 18)."""
        if not isinstance(self.state, Lead):
            return
        sale = self.state.sales[report.sale_number - 1]
        if sale.delivery_failed:
            return
        self._record(
            DeliveryFailed(
                sale_number=sale.number,
                sale_id=sale_id_of(self._lead_id, sale.number),
                buyer_id=sale.buyer_id,
                price_cents=sale.price_cents,
                currency=sale.currency,
                reason=report.reason,
                is_test=self.state.is_test,
            )
        )

    def fail(self) -> None:
        """The database refused what was decided (protocol.md, rule 9)."""
        if isinstance(self.state, Lead) and self.state.outcome is None:
            self._close(self.state, Outcome.FAILED)

    # Selling

    def _begin(self, lead: Lead, plan: Plan) -> None:
        if plan.expires_after_ms is not None:
            self._open_window(lead, WindowKind.EXPIRY, self._now_ms + plan.expires_after_ms)
        self._enter_stage(lead, plan.stages[0])

    def _go_to_stage(self, lead: Lead, index: int) -> None:
        plan = self._plan(lead)
        if index >= len(plan.stages) or len(lead.sales) >= lead.sales_max:
            self._close(lead, _outcome_of(lead))
            return
        self._record(StageStarted(stage=index))
        self._enter_stage(lead, plan.stages[index])

    def _enter_stage(self, lead: Lead, stage: Stage) -> None:
        if stage.wait_ms is not None:
            self._open_window(lead, WindowKind.WAIT, self._now_ms + stage.wait_ms)
        else:
            self._sell_on(lead)

    def _sell_on(self, lead: Lead) -> None:
        """Sell what the current stage can sell now, then wait, go on, or close."""
        plan = self._plan(lead)
        stage = plan.stages[lead.stage]
        book = self._book(lead)
        fitting = self._fitting(book, lead, stage)
        while book is not None and fitting:
            choice = next_choice(book, lead, stage, fitting)
            if choice is None:
                break
            fitting &= ~book.of_buyers((choice.order.buyer_id,))
            if stage.accept_within_ms is not None:
                self._offer(lead, choice, stage.accept_within_ms)
                return
            self._sell(lead, choice.order.buyer_id, choice.order.id, choice.mode, choice.price_cents, None)
            if choice.mode is Mode.EXCLUSIVE:
                self._after_exclusive(lead)
                return
        self._leave_stage(lead, stage)

    def _fitting(self, book: OrderBook | None, lead: Lead, stage: Stage) -> OrderSet:
        if book is None:
            return 0
        return candidates(book, lead, stage, no_room=self._conditions.no_room, now_ms=self._now_ms)

    def _leave_stage(self, lead: Lead, stage: Stage) -> None:
        if len(lead.sales) >= lead.sales_max:
            self._close(lead, Outcome.SOLD_OUT)
            return
        again = stage.keep_trying
        if again is not None and self._now_ms + again.every_ms <= lead.stage_began_ms + again.for_ms:
            self._open_window(lead, WindowKind.RETRY, self._now_ms + again.every_ms)
        else:
            self._go_to_stage(lead, lead.stage + 1)

    def _sell_offered(self, lead: Lead, offer: OfferMade) -> None:
        self._sell(lead, offer.buyer_id, offer.order_id, offer.mode, offer.price_cents, offer.offer_number)
        if offer.mode is Mode.EXCLUSIVE:
            self._after_exclusive(lead)
        else:
            self._sell_on(lead)

    def _after_exclusive(self, lead: Lead) -> None:
        until_ms = lead.sales[0].exclusive_until_ms
        if until_ms is None:
            self._close(lead, Outcome.SOLD_OUT)
        else:
            self._open_window(lead, WindowKind.EXCLUSIVITY, until_ms)

    def _sell(
        self, lead: Lead, buyer_id: str, order_id: str, mode: Mode, price_cents: int, offer_number: int | None
    ) -> None:
        number = len(lead.sales) + 1
        exclusive_for_ms = self._exclusive_for_ms(lead) if mode is Mode.EXCLUSIVE else None
        until_ms = None if exclusive_for_ms is None else self._now_ms + exclusive_for_ms
        self._record(
            LeadSold(
                sale_number=number,
                sale_id=sale_id_of(self._lead_id, number),
                buyer_id=buyer_id,
                order_id=order_id,
                source_id=lead.source_id,
                lead_type=lead.lead_type,
                plan=lead.plan or "",
                stage=lead.stage,
                mode=mode,
                price_cents=price_cents,
                currency=self._conditions.market.currency,
                sales_max=lead.sales_max,
                exclusive_until_ms=until_ms,
                others_may_follow=number < lead.sales_max if mode is Mode.SHARED else until_ms is not None,
                others_from_ms=until_ms,
                holders=lead.holders,
                held_since_ms=lead.sales[0].sold_at_ms if lead.sales else None,
                offer_number=offer_number,
                quality=lead.quality,
                created_at_ms=lead.created_at_ms,
                is_test=lead.is_test,
            )
        )

    def _exclusive_for_ms(self, lead: Lead) -> int | None:
        """Exclusive for a time only where somebody may follow; otherwise it is for good, and said so."""
        plan = self._plan(lead)
        others_can_follow = lead.sales_max > 1 and any(
            stage.sell is not Sell.EXCLUSIVE for stage in plan.stages[lead.stage + 1 :]
        )
        return plan.stages[lead.stage].exclusive_for_ms if others_can_follow else None

    def _offer(self, lead: Lead, choice: Choice, accept_within_ms: int) -> None:
        answer_by_ms = self._now_ms + accept_within_ms
        exclusive = choice.mode is Mode.EXCLUSIVE
        self._record(
            OfferMade(
                offer_number=lead.offers_made + 1,
                buyer_id=choice.order.buyer_id,
                order_id=choice.order.id,
                stage=lead.stage,
                mode=choice.mode,
                price_cents=choice.price_cents,
                currency=self._conditions.market.currency,
                sale_number=len(lead.sales) + 1,
                sales_max=lead.sales_max,
                exclusive_for_ms=self._exclusive_for_ms(lead) if exclusive else None,
                answer_by_ms=answer_by_ms,
                lead_type=lead.lead_type,
                quality=lead.quality,
                fields=lead.fields,
                holders=lead.holders,
                is_test=lead.is_test,
            )
        )
        self._open_window(lead, WindowKind.ACCEPTANCE, answer_by_ms + ANSWER_GRACE_MS)

    # Parts

    def _record(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(self.state, Lead):
            apply(self.state, event, self._now_ms)

    def _close(self, lead: Lead, outcome: Outcome) -> None:
        if lead.offer is not None:
            self._record(OfferWithdrawn(offer_number=lead.offer.offer_number, buyer_id=lead.offer.buyer_id))
        self._record(
            LeadClosed(
                outcome=outcome,
                source_id=lead.source_id,
                lead_type=lead.lead_type,
                plan=lead.plan,
                holders=lead.holders,
                is_test=lead.is_test,
            )
        )

    def _open_window(self, lead: Lead, kind: WindowKind, due_at_ms: int) -> None:
        self._record(WindowOpened(window_number=lead.windows_opened + 1, kind=kind, due_at_ms=due_at_ms))

    def _close_window(self, lead: Lead, kind: WindowKind) -> None:
        window = lead.window(kind)
        assert window is not None, f"no {kind} window is open"
        self._record(WindowClosed(window_number=window.number))

    def _plan(self, lead: Lead) -> Plan:
        plans = self._conditions.accepted_market.lead_types[lead.lead_type].plans
        return next(plan for plan in plans if plan.name == lead.plan)

    def _book(self, lead: Lead) -> OrderBook | None:
        """Find the orders for a lead; none in a market of another currency, where its prices would be others."""
        conditions = self._conditions
        if conditions.market.currency != conditions.accepted_market.currency:
            return None
        return conditions.books.get(lead.lead_type)

    def _stands(self, lead: Lead, order_id: str) -> bool:
        book = self._book(lead)
        return book is not None and bool(book.of_ids((order_id,)))

    def _open_lead(self, command: str, buyer_id: str) -> Lead | None:
        if not isinstance(self.state, Lead):
            self._refuse(command, buyer_id, RefusalReason.UNKNOWN_LEAD)
            return None
        return self.state

    def _is_answer_to_offer(self, lead: Lead, answer: AcceptOffer | RejectOffer, command: str) -> bool:
        offer = lead.offer
        if (
            offer is not None
            and offer.offer_number == answer.offer_number
            and offer.buyer_id == answer.buyer_id
        ):
            return True
        self._refuse(command, answer.buyer_id, RefusalReason.OFFER_NOT_OPEN)
        return False

    def _refuse(self, command: str, buyer_id: str | None, reason: RefusalReason) -> None:
        self._record(CommandRefused(command=command, buyer_id=buyer_id, reason=reason))


def _lowest(first: int, second: int | None) -> int:
    return first if second is None else min(first, second)


def _outcome_of(lead: Lead) -> Outcome:
    if not lead.sales:
        return Outcome.UNSOLD
    return Outcome.SOLD_OUT if len(lead.sales) >= lead.sales_max else Outcome.PARTLY_SOLD
