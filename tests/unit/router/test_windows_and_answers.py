"""Offers, exclusivity for a time, dispositions, withdrawal, failures: what may follow a sale, and what may not."""

from __future__ import annotations

import pytest

from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Disposition,
    DispositionReported,
    FailureReason,
    LeadClosed,
    LeadListed,
    LeadSold,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    Outcome,
    RefusalReason,
    RejectionReason,
    WindowKind,
    WithdrawalNoted,
    WithdrawalReason,
)
from services.contract.inputs import (
    AcceptOffer,
    FailLead,
    RejectOffer,
    ReportDisposition,
    ReportFailedDelivery,
    TimerDue,
    WithdrawLead,
)
from services.contract.market import Market, Mode
from services.router.domain import ANSWER_GRACE_MS
from tests.support.deciding import NOW_MS, Story, exclusive_stage, lead, market, order, plan, shared_stage

LEAD_ID = lead().lead_id


def _staggered(*, sales_max: int = 3) -> Market:
    stages = (
        exclusive_stage(7000, accept_within_ms=600_000, exclusive_for_ms=3_600_000),
        shared_stage(3000, 2500),
        shared_stage(600, wait_ms=86_400_000),
    )
    orders = (
        order("a", exclusive=7200, shared="list"),
        order("b", exclusive=7100),
        order("c", shared="list"),
        order("d", shared="list"),
    )
    return market(plan(*stages, sales_max=sales_max), orders=orders)


def _accept(buyer_id: str, number: int, at_ms: int = NOW_MS) -> AcceptOffer:
    return AcceptOffer(lead_id=LEAD_ID, buyer_id=buyer_id, offer_number=number, answered_at_ms=at_ms)


def _reject(buyer_id: str, number: int) -> RejectOffer:
    return RejectOffer(lead_id=LEAD_ID, buyer_id=buyer_id, offer_number=number, reason=RejectionReason.PRICE)


def _listed(story: Story) -> Story:
    story.when(lead())
    return story


def test_offer_goes_to_the_first_in_rank_and_sells_nothing_yet() -> None:
    story = _listed(Story(_staggered()))
    offer = story.all(OfferMade)[0]
    assert (offer.buyer_id, offer.price_cents, offer.answer_by_ms) == ("a", 7200, NOW_MS + 600_000)
    assert story.all(LeadSold) == []
    assert [window.kind for window in story.lead.windows] == [WindowKind.ACCEPTANCE]


def test_accepting_is_the_sale() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1), after_ms=1_000)
    sold = story.all(LeadSold)[0]
    assert (sold.buyer_id, sold.mode, sold.offer_number, sold.exclusive_until_ms) == (
        "a",
        Mode.EXCLUSIVE,
        1,
        story.now_ms + 3_600_000,
    )
    assert (sold.others_may_follow, sold.others_from_ms) == (True, sold.exclusive_until_ms)
    assert [window.kind for window in story.lead.windows] == [WindowKind.EXCLUSIVITY]


def test_rejection_passes_to_the_next_and_does_not_ask_again() -> None:
    story = _listed(Story(_staggered()))
    story.when(_reject("a", 1))
    assert [offer.buyer_id for offer in story.all(OfferMade)] == ["a", "b"]
    assert story.all(OfferRejected)[0].reason is RejectionReason.PRICE
    story.when(_reject("b", 2))
    assert {sale.buyer_id for sale in story.all(LeadSold)} == {"c", "d"}


def test_silence_passes_to_the_next_only_after_the_grace() -> None:
    story = _listed(Story(_staggered()))
    timer = TimerDue(lead_id=LEAD_ID, window_number=1)
    assert story.when(timer, after_ms=600_000 + ANSWER_GRACE_MS - 1) == []
    story.when(timer, after_ms=1)
    assert story.all(OfferExpired)[0].buyer_id == "a"
    assert story.all(OfferMade)[1].buyer_id == "b"


def test_answer_appended_in_time_counts_though_it_is_read_late() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1, NOW_MS + 600_000), after_ms=600_000 + ANSWER_GRACE_MS)
    assert len(story.all(LeadSold)) == 1


def test_answer_appended_too_late_is_refused() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1, NOW_MS + 600_001), after_ms=600_002)
    assert story.all(CommandRefused)[0].reason is RefusalReason.OFFER_TOO_LATE
    assert story.all(LeadSold) == []


@pytest.mark.parametrize(("buyer_id", "number"), [("b", 1), ("a", 2), ("nobody", 1)])
def test_answer_to_no_open_offer_of_the_buyer_is_refused(buyer_id: str, number: int) -> None:
    story = _listed(Story(_staggered()))
    for answer in (_accept(buyer_id, number), _reject(buyer_id, number)):
        events = story.when(answer)
        assert [type(event) for event in events] == [CommandRefused]
        assert story.all(CommandRefused)[-1].reason is RefusalReason.OFFER_NOT_OPEN
    assert story.lead.offer is not None


def test_acceptance_is_not_taken_twice() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1))
    story.when(_accept("a", 1))
    assert len(story.all(LeadSold)) == 1
    assert story.all(CommandRefused)[0].reason is RefusalReason.OFFER_NOT_OPEN


def test_acceptance_without_room_passes_to_the_next() -> None:
    story = _listed(Story(_staggered()))
    story.no_room = frozenset({"a/all"})
    story.when(_accept("a", 1))
    assert story.all(CommandRefused)[0].reason is RefusalReason.NO_ROOM
    assert [offer.buyer_id for offer in story.all(OfferMade)] == ["a", "b"]


def test_answer_for_an_unknown_lead_is_refused() -> None:
    story = Story(_staggered())
    story.when(_accept("a", 1))
    assert story.all(CommandRefused)[0].reason is RefusalReason.UNKNOWN_LEAD
    assert story.state is None


def test_exclusivity_ends_and_the_lead_is_sold_on_shared() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1))
    early = TimerDue(lead_id=LEAD_ID, window_number=story.lead.windows[0].number)
    assert story.when(early, after_ms=3_599_999) == []
    story.when(early, after_ms=1)
    assert story.lead.sales[0].buyer_id == "a"
    assert {sale.buyer_id for sale in story.lead.sales[1:]} == {"c", "d"}
    assert [sale.price_cents for sale in story.lead.sales[1:]] == [3000, 2500]
    assert story.all(LeadSold)[1].holders == ("a",)
    assert story.all(LeadSold)[1].held_since_ms == NOW_MS
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_deal_of_the_exclusive_holder_closes_the_lead() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1))
    story.when(ReportDisposition(lead_id=LEAD_ID, buyer_id="a", disposition=Disposition.DEAL))
    assert story.lead.outcome is Outcome.DEAL
    assert story.lead.windows == ()
    assert story.when(TimerDue(lead_id=LEAD_ID, window_number=2), after_ms=4_000_000) == []


def test_contacted_is_recorded_and_closes_nothing() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1))
    story.when(ReportDisposition(lead_id=LEAD_ID, buyer_id="a", disposition=Disposition.CONTACTED))
    assert story.all(DispositionReported)[0].disposition is Disposition.CONTACTED
    assert story.lead.outcome is None


def test_repeated_disposition_changes_nothing() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1))
    report = ReportDisposition(lead_id=LEAD_ID, buyer_id="a", disposition=Disposition.CONTACTED)
    assert len(story.when(report)) == 1
    assert story.when(report) == []


def test_disposition_of_a_buyer_that_holds_nothing_is_refused() -> None:
    story = _listed(Story(_staggered()))
    story.when(ReportDisposition(lead_id=LEAD_ID, buyer_id="c", disposition=Disposition.DEAL))
    assert story.all(CommandRefused)[0].reason is RefusalReason.NOT_A_HOLDER
    assert story.lead.outcome is None


def test_exclusive_for_a_time_is_for_good_where_nobody_can_follow() -> None:
    stages = (exclusive_stage(7000, exclusive_for_ms=3_600_000), shared_stage(3000))
    story = Story(market(plan(*stages), orders=(order("a", exclusive="list"),)))
    story.when(lead(sales_max=1))
    assert story.all(LeadSold)[0].exclusive_until_ms is None
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_expiry_closes_an_open_lead_and_withdraws_its_offer() -> None:
    stages = (exclusive_stage(7000, accept_within_ms=600_000),)
    story = Story(
        market(plan(*stages, sales_max=1, expires_after_ms=1_000), orders=(order("a", exclusive="list"),))
    )
    story.when(lead())
    story.fire_next_window()
    assert story.all(OfferWithdrawn)[0].buyer_id == "a"
    assert story.lead.outcome is Outcome.UNSOLD
    story.when(_accept("a", 1))
    assert story.all(CommandRefused)[0].reason is RefusalReason.OFFER_NOT_OPEN


def test_withdrawn_lead_is_closed_and_stays_closed() -> None:
    story = _listed(Story(_staggered()))
    story.when(WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.REVOKED))
    assert story.lead.outcome is Outcome.WITHDRAWN
    story.when(WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.REVOKED))
    assert story.all(CommandRefused)[0].reason is RefusalReason.ALREADY_CLOSED
    assert len(story.all(LeadClosed)) == 1


def test_lead_withdrawn_before_it_came_is_closed_on_arrival_and_sold_to_nobody() -> None:
    story = Story(_staggered())
    withdraw = WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.ERASED)
    assert [type(event) for event in story.when(withdraw)] == [WithdrawalNoted]
    assert story.when(withdraw) == []
    assert [type(event) for event in story.when(lead())] == [LeadListed, LeadClosed]
    assert story.lead.outcome is Outcome.WITHDRAWN


def test_lead_is_listed_once() -> None:
    story = _listed(Story(_staggered()))
    assert story.when(lead()) == []


def test_failed_delivery_is_reported_once_and_keeps_number_and_disclosure() -> None:
    story = _listed(Story(_staggered()))
    story.when(_accept("a", 1))
    report = ReportFailedDelivery(lead_id=LEAD_ID, sale_number=1, reason=FailureReason.RECORD_TOO_LARGE)
    story.when(report)
    assert story.all(DeliveryFailed)[0].price_cents == 7200
    assert story.when(report) == []
    story.fire_next_window()
    assert story.all(LeadSold)[1].sale_number == 2
    assert story.all(LeadSold)[1].holders == ("a",)


def test_failing_closes_an_open_lead_only() -> None:
    story = _listed(Story(_staggered()))
    story.when(FailLead(lead_id=LEAD_ID))
    assert story.lead.outcome is Outcome.FAILED
    assert story.when(FailLead(lead_id=LEAD_ID)) == []


def test_expired_offer_of_every_buyer_closes_unsold_after_the_last_stage() -> None:
    stages = (exclusive_stage(7000, accept_within_ms=1_000),)
    orders = (order("a", exclusive=7200), order("b", exclusive=7100))
    story = Story(market(plan(*stages, sales_max=1), orders=orders))
    story.when(lead())
    story.fire_next_window()
    story.fire_next_window()
    assert [offer.buyer_id for offer in story.all(OfferExpired)] == ["a", "b"]
    assert story.lead.outcome is Outcome.UNSOLD
