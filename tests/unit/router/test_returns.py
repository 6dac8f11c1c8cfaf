"""Returns and failed deliveries: who gets its money back, and that a disclosure stays one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Draw,
    FailureReason,
    LeadSold,
    Outcome,
    RefusalReason,
    ReturnApproved,
    ReturnReason,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
    WindowKind,
)
from services.contract.ids import sale_id_of
from services.contract.inputs import DecideReturn, Input, ReportFailedDelivery, ReturnLead, UpgradeSale
from services.contract.limits import WHOLE_RETURN, account_counter, returns_counter
from services.contract.market import Market, Mode, Order, Returns, Stage, Upgrade
from services.contract.times import DAY_MS
from services.router.lead import Returning
from tests.support.deciding import NOW_MS, Story, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.terms import BY_OPERATOR, CAPS, RETURNS, SHARE_BACK, WITH_QUOTA, on_terms, used

LEAD_ID = lead().lead_id
MONTH_MS = 31 * DAY_MS


def _market(
    returns: Returns | None = RETURNS,
    *stages: Stage,
    orders: tuple[Order, ...] = (order("a", shared=5_000, caps=CAPS), order("b", shared="list")),
) -> Market:
    plans = plan(*(stages or (shared_stage(4_500, 4_000),)), sales_max=2)
    return on_terms(market(plans, orders=orders), returns=returns, accounts={"a": 0}, paid=SHARE_BACK)


def _sold(market: Market, *, is_test: bool = False) -> Story:
    story = Story(market)
    story.when(lead(is_test=is_test))
    assert story.lead.holders == ("a", "b")
    return story


def _return(
    buyer_id: str = "a", *, reason: ReturnReason = ReturnReason.WRONG_PERSON, after_ms: int = 0
) -> ReturnLead:
    return ReturnLead(lead_id=LEAD_ID, buyer_id=buyer_id, reason=reason, answered_at_ms=NOW_MS + after_ms)


def _decide(*, approve: bool, sale_number: int = 1) -> DecideReturn:
    return DecideReturn(lead_id=LEAD_ID, sale_number=sale_number, approve=approve)


def _failed_delivery(sale_number: int = 1) -> ReportFailedDelivery:
    return ReportFailedDelivery(
        lead_id=LEAD_ID, sale_number=sale_number, reason=FailureReason.RECORD_TOO_LARGE
    )


def _refusal(story: Story, request: Input) -> ReturnRefusal:
    """The reason why a return is refused: asked and refused in one entry, the sale as it was."""
    before = [(sale.price_cents, sale.draws) for sale in story.lead.sales]
    requested, refused = story.when(request)
    assert isinstance(requested, ReturnRequested)
    assert isinstance(refused, ReturnRefused)
    assert (refused.sale_number, refused.buyer_id) == (requested.sale_number, requested.buyer_id)
    assert [(sale.price_cents, sale.draws) for sale in story.lead.sales] == before
    return refused.reason


def _command_refusal(story: Story, command: Input) -> tuple[str, str | None, RefusalReason]:
    before = story.state
    (event,) = story.when(command)
    assert isinstance(event, CommandRefused)
    assert story.state == before
    return event.command, event.buyer_id, event.reason


# Approved at once


def test_return_within_the_rules_is_approved_at_once() -> None:
    story = _sold(_market())
    requested, approved = story.when(_return(), after_ms=1_000)
    assert requested == ReturnRequested(
        sale_number=1, sale_id=sale_id_of(LEAD_ID, 1), buyer_id="a", reason=ReturnReason.WRONG_PERSON
    )
    assert isinstance(approved, ReturnApproved)
    assert (approved.sale_id, approved.buyer_id, approved.source_id) == (
        sale_id_of(LEAD_ID, 1),
        "a",
        "sunform",
    )
    assert (approved.price_cents, approved.currency, approved.automatic) == (5_000, "USD", True)
    assert story.lead.sales[0].returning is Returning.APPROVED


def test_return_gives_back_what_the_sale_drew_and_nothing_else() -> None:
    story = _sold(_market())
    assert used(story.events)["account:a"] == 5_000
    story.when(_return(), after_ms=MONTH_MS - 24 * DAY_MS)
    assert set(used(story.events).values()) == {0}


def test_return_is_drawn_on_the_quota_of_the_month_it_is_asked_in() -> None:
    story = _sold(_market(replace(WITH_QUOTA, within_ms=60 * DAY_MS)))
    buyer = story.market.buyers["a"]
    story.when(_return(after_ms=MONTH_MS), after_ms=MONTH_MS)
    sold_in, asked_in = (returns_counter(buyer, "solar", at_ms) for at_ms in (NOW_MS, story.now_ms))
    assert sold_in != asked_in
    assert Draw(counter=sold_in, amount=0, granted=1_000) in story.all(LeadSold)[0].draws
    assert Draw(counter=asked_in, amount=WHOLE_RETURN) in story.all(ReturnApproved)[0].draws
    assert used(story.events)[sold_in] == 0


def test_return_after_an_upgrade_credits_the_fee_too() -> None:
    stage = shared_stage(4_500, upgrade=Upgrade(per_slot_cents=3_750, within_ms=60_000))
    story = Story(_market(RETURNS, stage))
    story.when(lead())
    story.when(UpgradeSale(lead_id=LEAD_ID, buyer_id="a", answered_at_ms=NOW_MS))
    story.when(_return())
    approved = story.all(ReturnApproved)[0]
    assert approved.price_cents == 5_000 + 3_750
    assert approved.payout_cents == 3_000 + 2_250
    assert set(used(story.events).values()) == {0}
    assert story.lead.sales[0].mode is Mode.EXCLUSIVE


def test_return_of_a_test_lead_draws_nothing() -> None:
    story = _sold(_market(WITH_QUOTA), is_test=True)
    story.when(_return())
    approved = story.all(ReturnApproved)[0]
    assert (approved.draws, approved.payout_cents, approved.is_test) == ((), 0, True)


# What a return does not do


def test_disclosure_stays_counted_and_a_closed_lead_stays_closed() -> None:
    story = _sold(_market())
    assert story.lead.outcome is Outcome.SOLD_OUT
    story.when(_return())
    assert story.lead.outcome is Outcome.SOLD_OUT
    assert story.lead.holders == ("a", "b")
    assert len(story.all(LeadSold)) == 2


def test_open_lead_goes_on_by_its_plan_and_never_to_who_returned_it() -> None:
    stages = (exclusive_stage(7_000, exclusive_for_ms=DAY_MS), shared_stage(4_500))
    orders = (order("a", exclusive="list", shared="list"), order("b", shared="list"))
    story = Story(_market(RETURNS, *stages, orders=orders))
    story.when(lead())
    story.when(_return())
    assert [window.kind for window in story.lead.windows] == [WindowKind.EXCLUSIVITY]
    story.fire_next_window()
    assert [(sold.sale_number, sold.buyer_id, sold.mode) for sold in story.all(LeadSold)] == [
        (1, "a", Mode.EXCLUSIVE),
        (2, "b", Mode.SHARED),
    ]
    assert story.all(LeadSold)[1].holders == ("a",)


def test_return_frees_no_slot() -> None:
    stages = (exclusive_stage(7_000, exclusive_for_ms=DAY_MS), shared_stage(4_500))
    orders = (order("a", exclusive="list"), order("b", shared="list"), order("c", shared="list"))
    story = Story(_market(RETURNS, *stages, orders=orders))
    story.when(lead())
    story.when(_return())
    story.fire_next_window()
    assert [sold.sale_number for sold in story.all(LeadSold)] == [1, 2]
    assert story.lead.outcome is Outcome.SOLD_OUT


# Refused by the rules


def test_return_where_the_lead_type_takes_none_back_is_refused() -> None:
    assert _refusal(_sold(_market(None)), _return()) is ReturnRefusal.NOT_RETURNABLE


def test_return_is_judged_by_the_version_that_the_lead_was_accepted_under() -> None:
    story = _sold(_market())
    story.accepted_market = story.market
    story.market = replace(_market(None), version=2)
    story.when(_return())
    assert len(story.all(ReturnApproved)) == 1


def test_request_that_was_appended_in_time_counts_though_it_is_read_late() -> None:
    story = _sold(_market())
    story.when(_return(after_ms=RETURNS.within_ms), after_ms=RETURNS.within_ms + 5_000)
    assert len(story.all(ReturnApproved)) == 1


def test_request_appended_too_late_is_refused() -> None:
    story = _sold(_market())
    late = _return(after_ms=RETURNS.within_ms + 1)
    assert _refusal(story, late) is ReturnRefusal.TOO_LATE


def test_reason_that_the_lead_type_does_not_accept_is_refused_and_another_may_be_named() -> None:
    story = _sold(_market())
    refused = _refusal(story, _return(reason=ReturnReason.OTHER))
    assert refused is ReturnRefusal.REASON_NOT_ACCEPTED
    story.when(_return())
    assert len(story.all(ReturnApproved)) == 1


def test_return_without_room_in_the_quota_is_refused() -> None:
    story = _sold(_market(WITH_QUOTA))
    story.no_room = frozenset({"a/all"})
    assert _refusal(story, _return()) is ReturnRefusal.QUOTA_USED_UP
    assert story.lead.sales[0].returning is None


def test_lead_asked_for_again_next_month_is_drawn_on_that_month() -> None:
    story = _sold(_market(replace(WITH_QUOTA, within_ms=60 * DAY_MS)))
    story.no_room = frozenset({"a/all"})
    story.when(_return())
    story.no_room = frozenset()
    story.when(_return(after_ms=MONTH_MS), after_ms=MONTH_MS)
    asked_in = returns_counter(story.market.buyers["a"], "solar", story.now_ms)
    assert Draw(counter=asked_in, amount=WHOLE_RETURN) in story.all(ReturnApproved)[0].draws


def test_lead_that_never_reached_its_buyer_is_not_returned() -> None:
    story = _sold(_market())
    story.when(_failed_delivery())
    assert _refusal(story, _return()) is ReturnRefusal.NOT_RETURNABLE


def test_return_by_somebody_who_does_not_hold_the_lead_is_refused() -> None:
    assert _command_refusal(_sold(_market()), _return("c")) == (
        "return_lead",
        "c",
        RefusalReason.NOT_A_HOLDER,
    )


def test_return_of_an_unknown_lead_is_refused() -> None:
    assert _command_refusal(Story(_market()), _return()) == ("return_lead", "a", RefusalReason.UNKNOWN_LEAD)


def test_lead_is_returned_once() -> None:
    story = _sold(_market())
    story.when(_return())
    assert _command_refusal(story, _return()) == ("return_lead", "a", RefusalReason.ALREADY_RETURNED)


def test_each_holder_returns_for_itself() -> None:
    story = _sold(_market())
    story.when(_return("a"))
    story.when(_return("b"))
    assert [(event.sale_number, event.price_cents) for event in story.all(ReturnApproved)] == [
        (1, 5_000),
        (2, 4_000),
    ]


# Decided by an operator


def test_return_waits_for_the_operator_where_the_lead_type_says_so() -> None:
    story = _sold(_market(BY_OPERATOR))
    assert [type(event) for event in story.when(_return())] == [ReturnRequested]
    assert story.lead.sales[0].returning is Returning.PENDING
    assert used(story.events)["account:a"] == 5_000


def test_request_that_is_pending_is_not_recorded_twice() -> None:
    story = _sold(_market(BY_OPERATOR))
    story.when(_return())
    assert story.when(_return()) == []


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (_return(reason=ReturnReason.OTHER), ReturnRefusal.REASON_NOT_ACCEPTED),
        (_return(after_ms=RETURNS.within_ms + 1), ReturnRefusal.TOO_LATE),
    ],
)
def test_what_the_rules_refuse_is_no_work_for_an_operator(
    request_: ReturnLead, reason: ReturnRefusal
) -> None:
    assert _refusal(_sold(_market(BY_OPERATOR)), request_) is reason


def test_operator_approves() -> None:
    story = _sold(_market(BY_OPERATOR))
    story.when(_return())
    (approved,) = story.when(_decide(approve=True), after_ms=DAY_MS)
    assert isinstance(approved, ReturnApproved)
    assert (approved.automatic, approved.price_cents, approved.payout_cents) == (False, 5_000, 3_000)
    assert set(used(story.events).values()) == {0}


def test_operators_word_comes_late_and_the_quota_is_still_that_of_the_request() -> None:
    story = _sold(_market(replace(WITH_QUOTA, automatic=False)))
    story.when(_return())
    story.when(_decide(approve=True), after_ms=MONTH_MS)
    asked_in = returns_counter(story.market.buyers["a"], "solar", NOW_MS)
    assert Draw(counter=asked_in, amount=WHOLE_RETURN) in story.all(ReturnApproved)[0].draws


def test_operator_cannot_approve_beyond_the_quota() -> None:
    story = _sold(_market(replace(WITH_QUOTA, automatic=False)))
    story.when(_return())
    story.no_room = frozenset({"a/all"})
    (refused,) = story.when(_decide(approve=True))
    assert isinstance(refused, ReturnRefused)
    assert refused.reason is ReturnRefusal.QUOTA_USED_UP


def test_operator_refuses_for_good() -> None:
    story = _sold(_market(BY_OPERATOR))
    story.when(_return())
    (refused,) = story.when(_decide(approve=False))
    assert isinstance(refused, ReturnRefused)
    assert refused.reason is ReturnRefusal.OPERATOR
    assert _refusal(story, _return()) is ReturnRefusal.OPERATOR
    assert used(story.events)["account:a"] == 5_000


@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.parametrize("sale_number", [0, 1, 3])
def test_operator_decides_only_what_was_asked(sale_number: int, *, approve: bool) -> None:
    story = _sold(_market(BY_OPERATOR))
    command = _decide(approve=approve, sale_number=sale_number)
    assert _command_refusal(story, command) == ("decide_return", None, RefusalReason.RETURN_NOT_ASKED)


def test_operator_decides_once() -> None:
    story = _sold(_market(BY_OPERATOR))
    story.when(_return())
    story.when(_decide(approve=False))
    assert _command_refusal(story, _decide(approve=True))[2] is RefusalReason.RETURN_NOT_ASKED


@pytest.mark.parametrize("approve", [True, False])
def test_operator_decides_nothing_about_what_is_returned_already(*, approve: bool) -> None:
    story = _sold(_market())
    story.when(_return())
    assert _command_refusal(story, _decide(approve=approve))[2] is RefusalReason.ALREADY_RETURNED


def test_operators_word_on_an_unknown_lead_is_refused() -> None:
    assert _command_refusal(Story(_market()), _decide(approve=True)) == (
        "decide_return",
        None,
        RefusalReason.UNKNOWN_LEAD,
    )


# Failed deliveries


def test_failed_delivery_gives_back_all_that_the_sale_cost_drew_and_earned() -> None:
    stage = shared_stage(4_500, upgrade=Upgrade(per_slot_cents=3_750, within_ms=60_000))
    story = Story(_market(WITH_QUOTA, stage))
    story.when(lead())
    story.when(UpgradeSale(lead_id=LEAD_ID, buyer_id="a", answered_at_ms=NOW_MS))
    (failed,) = story.when(_failed_delivery())
    assert isinstance(failed, DeliveryFailed)
    assert (failed.price_cents, failed.payout_cents, failed.source_id) == (8_750, 5_250, "sunform")
    assert set(used(story.events).values()) == {0}
    assert Draw(counter=account_counter("a"), amount=-3_750) in failed.draws


def test_failed_delivery_of_what_was_returned_credits_nothing_twice() -> None:
    story = _sold(_market())
    story.when(_return())
    (failed,) = story.when(_failed_delivery())
    assert isinstance(failed, DeliveryFailed)
    assert (failed.price_cents, failed.payout_cents, failed.draws) == (0, 0, ())


def test_failed_delivery_ends_a_return_that_is_pending() -> None:
    story = _sold(_market(BY_OPERATOR))
    story.when(_return())
    failed, refused = story.when(_failed_delivery())
    assert isinstance(failed, DeliveryFailed)
    assert isinstance(refused, ReturnRefused)
    assert (failed.price_cents, refused.reason) == (5_000, ReturnRefusal.NOT_RETURNABLE)
    assert _command_refusal(story, _decide(approve=True))[2] is RefusalReason.RETURN_NOT_ASKED
