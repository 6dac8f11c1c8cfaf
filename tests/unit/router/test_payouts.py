"""What a source earns by a lead, and what of that is taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.events import (
    DeliveryFailed,
    FailureReason,
    LeadListed,
    LeadSold,
    ReturnApproved,
    ReturnReason,
    WithdrawalReason,
)
from services.contract.inputs import ReportFailedDelivery, ReturnLead, WithdrawLead
from services.contract.market import Market, Paid, ShareOfRevenue, Source
from tests.support.deciding import Story, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.terms import PER_LEAD, PER_LEAD_BACK, RETURNS, SHARE, SHARE_BACK, on_terms

LEAD_ID = lead().lead_id
DAY_MS = 86_400_000


def _market(paid: Paid | None, *, staggered: bool = False) -> Market:
    stages = (exclusive_stage(7_000, exclusive_for_ms=DAY_MS),) if staggered else ()
    orders = (order("a", exclusive="list", shared=5_000), order("b", shared="list"))
    plans = plan(*stages, shared_stage(4_501, 4_001), sales_max=2)
    return on_terms(market(plans, orders=orders), returns=RETURNS, paid=paid)


def _listed(market: Market, *, is_test: bool = False) -> Story:
    story = Story(market)
    story.when(lead(is_test=is_test))
    return story


def _give_back(story: Story, buyer_id: str) -> int:
    """Let a buyer return the lead, and say what is taken back from its source."""
    request = ReturnLead(
        lead_id=LEAD_ID, buyer_id=buyer_id, reason=ReturnReason.WRONG_PERSON, answered_at_ms=story.now_ms
    )
    _, approved = story.when(request)
    assert isinstance(approved, ReturnApproved)
    return approved.payout_cents


def _fail_delivery(story: Story, sale_number: int) -> int:
    report = ReportFailedDelivery(
        lead_id=LEAD_ID, sale_number=sale_number, reason=FailureReason.RECORD_TOO_LARGE
    )
    (failed,) = story.when(report)
    assert isinstance(failed, DeliveryFailed)
    return failed.payout_cents


# Earned


def test_source_that_is_paid_per_lead_earns_by_the_listing_alone() -> None:
    story = _listed(_market(PER_LEAD))
    listed = story.all(LeadListed)[0]
    assert (listed.payout_cents, listed.currency) == (1_200, "USD")
    assert [sold.payout_cents for sold in story.all(LeadSold)] == [0, 0]


def test_source_that_is_paid_per_lead_earns_whether_the_lead_is_sold_or_not() -> None:
    story = Story(_market(PER_LEAD), no_room=frozenset({"a/all", "b/all"}))
    story.when(lead())
    assert story.all(LeadSold) == []
    assert story.all(LeadListed)[0].payout_cents == 1_200


def test_source_that_is_paid_per_lead_earns_when_no_plan_fits() -> None:
    story = Story(on_terms(market(), paid=PER_LEAD))
    story.when(lead())
    assert story.all(LeadListed)[0].payout_cents == 1_200


def test_source_that_is_paid_per_lead_earns_for_a_lead_that_was_withdrawn_before_it_came() -> None:
    story = Story(_market(PER_LEAD))
    story.when(WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.REVOKED))
    story.when(lead())
    assert story.all(LeadListed)[0].payout_cents == 1_200


def test_source_that_is_paid_a_share_earns_it_of_each_sale() -> None:
    story = _listed(_market(SHARE))
    assert story.all(LeadListed)[0].payout_cents == 0
    assert [(sold.price_cents, sold.payout_cents) for sold in story.all(LeadSold)] == [
        (5_000, 3_000),
        (4_001, 2_401),
    ]


def test_source_without_terms_earns_nothing() -> None:
    story = _listed(_market(None))
    listed = story.all(LeadListed)[0]
    assert (listed.payout_cents, listed.currency) == (0, None)
    assert [sold.payout_cents for sold in story.all(LeadSold)] == [0, 0]


@pytest.mark.parametrize("paid", [PER_LEAD, SHARE])
def test_test_lead_earns_nothing(paid: Paid) -> None:
    story = _listed(_market(paid), is_test=True)
    assert story.all(LeadListed)[0].payout_cents == 0
    assert [sold.payout_cents for sold in story.all(LeadSold)] == [0, 0]


def test_share_is_the_one_that_the_lead_was_accepted_under() -> None:
    story = _listed(_market(SHARE, staggered=True))
    story.accepted_market = story.market
    story.market = replace(
        story.market,
        version=2,
        sources={
            "sunform": Source(
                id="sunform", lead_types=("solar",), paid=Paid(by=ShareOfRevenue(basis_points=1))
            )
        },
    )
    story.fire_next_window()
    assert [sold.payout_cents for sold in story.all(LeadSold)] == [4_200, 2_701]


# Taken back


def test_share_of_a_returned_sale_is_taken_back_where_declared() -> None:
    story = _listed(_market(SHARE_BACK))
    assert [_give_back(story, buyer_id) for buyer_id in ("b", "a")] == [2_401, 3_000]


@pytest.mark.parametrize("paid", [SHARE, PER_LEAD, None])
def test_nothing_is_taken_back_with_a_return_where_it_is_not_declared(paid: Paid | None) -> None:
    story = _listed(_market(paid))
    assert [_give_back(story, buyer_id) for buyer_id in ("a", "b")] == [0, 0]


def test_pay_per_lead_is_taken_back_with_the_return_of_the_last_sale() -> None:
    story = _listed(_market(PER_LEAD_BACK))
    assert _give_back(story, "b") == 0
    assert story.lead.payout_cents == 1_200
    assert _give_back(story, "a") == 1_200
    assert story.lead.payout_cents == 0


def test_pay_per_lead_is_taken_back_once_though_the_lead_is_sold_again() -> None:
    story = _listed(_market(PER_LEAD_BACK, staggered=True))
    assert _give_back(story, "a") == 1_200
    story.fire_next_window()
    assert story.lead.holders == ("a", "b")
    assert _give_back(story, "b") == 0


@pytest.mark.parametrize("paid", [SHARE, SHARE_BACK])
def test_share_of_a_sale_that_never_reached_its_buyer_is_always_taken_back(paid: Paid) -> None:
    assert _fail_delivery(_listed(_market(paid)), 1) == 3_000


@pytest.mark.parametrize("paid", [PER_LEAD, PER_LEAD_BACK])
def test_pay_per_lead_is_kept_though_a_delivery_failed(paid: Paid) -> None:
    story = _listed(_market(paid))
    assert [_fail_delivery(story, number) for number in (1, 2)] == [0, 0]
    assert story.lead.payout_cents == 1_200
