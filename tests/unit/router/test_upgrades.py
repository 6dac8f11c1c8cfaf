"""The exclusive upgrade: who may close the remaining slots of a shared lead, for how long, and for what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.contract.events import (
    CommandRefused,
    Disposition,
    FailureReason,
    LeadClosed,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    OfferMade,
    OfferWithdrawn,
    Outcome,
    RefusalReason,
    RejectionReason,
    ReturnReason,
    WindowKind,
    WindowOpened,
    WithdrawalReason,
)
from services.contract.inputs import (
    AcceptOffer,
    RejectOffer,
    ReportDisposition,
    ReportFailedDelivery,
    ReturnLead,
    TimerDue,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import KeepTrying, Market, Mode, Order, Stage, Upgrade
from services.router.domain import ANSWER_GRACE_MS
from tests.support.deciding import (
    NOW_MS,
    Story,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)
from tests.support.terms import CAPS, RETURNS, SHARE, drawn, on_terms

LEAD_ID = lead().lead_id
WITHIN_MS = 120_000
UPGRADE = Upgrade(per_slot_cents=3_750, within_ms=WITHIN_MS)
PRICES = (4_500, 4_000, 3_500)
FIRST_PAYS_MOST = (order("a", shared=5_000), order("b", shared="list"), order("c", shared="list"))


def _market(
    *stages: Stage, orders: tuple[Order, ...] = FIRST_PAYS_MOST, sales_max: int = 3, **options: Any
) -> Market:
    stages = stages or (shared_stage(*PRICES, upgrade=UPGRADE),)
    return market(plan(*stages, sales_max=sales_max, **options), orders=orders)


def _listed(market: Market, **options: Any) -> Story:
    story = Story(market)
    story.when(lead(**options))
    return story


def _upgrade(buyer_id: str = "a") -> UpgradeSale:
    return UpgradeSale(lead_id=LEAD_ID, buyer_id=buyer_id, answered_at_ms=NOW_MS)


def _refused(story: Story, buyer_id: str = "a") -> RefusalReason:
    """The reason why an upgrade is refused, which must be all that happens."""
    before = story.state
    (event,) = story.when(_upgrade(buyer_id))
    assert isinstance(event, CommandRefused)
    assert (event.command, event.buyer_id) == ("upgrade_sale", buyer_id)
    assert story.state == before
    return event.reason


# The first sale


def test_first_buyer_is_told_the_fee_for_the_slots_left_and_until_when_nobody_else_is_asked() -> None:
    story = _listed(_market())
    (sold,) = story.all(LeadSold)
    assert (sold.buyer_id, sold.mode, sold.sale_number) == ("a", Mode.SHARED, 1)
    assert (sold.upgrade_fee_cents, sold.upgrade_until_ms) == (2 * 3_750, NOW_MS + WITHIN_MS)
    assert (sold.others_may_follow, sold.others_from_ms) == (True, NOW_MS + WITHIN_MS)
    assert [window.kind for window in story.lead.windows] == [WindowKind.UPGRADE]


def test_lower_sales_max_of_a_lead_leaves_fewer_slots_to_pay_for() -> None:
    story = _listed(_market(), sales_max=2)
    assert story.all(LeadSold)[0].upgrade_fee_cents == 3_750


def test_lead_for_one_buyer_only_has_no_slot_to_close() -> None:
    story = _listed(_market(), sales_max=1)
    sold = story.all(LeadSold)[0]
    assert (sold.upgrade_fee_cents, sold.upgrade_until_ms, sold.others_may_follow) == (None, None, False)
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_stage_without_an_upgrade_sells_all_slots_at_once() -> None:
    story = _listed(_market(shared_stage(*PRICES)))
    assert [sold.upgrade_fee_cents for sold in story.all(LeadSold)] == [None, None, None]
    assert story.all(WindowOpened) == []


def test_upgrade_without_a_time_is_told_and_waits_for_nobody() -> None:
    story = _listed(_market(shared_stage(*PRICES, upgrade=replace(UPGRADE, within_ms=None))))
    first, *others = story.all(LeadSold)
    assert (first.upgrade_fee_cents, first.upgrade_until_ms, first.others_from_ms) == (7_500, None, None)
    assert [sold.upgrade_fee_cents for sold in others] == [None, None]
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_selling_goes_on_when_the_time_is_up_and_not_before() -> None:
    story = _listed(_market())
    timer = TimerDue(lead_id=LEAD_ID, window_number=1)
    assert story.when(timer, after_ms=WITHIN_MS + ANSWER_GRACE_MS - 1) == []
    story.when(timer, after_ms=1)
    assert [sold.price_cents for sold in story.all(LeadSold)] == [5_000, 4_000, 3_500]
    assert [sold.upgrade_fee_cents for sold in story.all(LeadSold)] == [7_500, None, None]
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_accepted_offer_leaves_its_buyer_the_same_time() -> None:
    story = _listed(_market(shared_stage(*PRICES, upgrade=UPGRADE, accept_within_ms=60_000)))
    story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, answered_at_ms=NOW_MS))
    assert story.all(LeadSold)[0].upgrade_fee_cents == 7_500
    assert [window.kind for window in story.lead.windows] == [WindowKind.UPGRADE]
    assert len(story.all(OfferMade)) == 1
    story.fire_next_window()
    assert len(story.all(OfferMade)) == 2


def test_later_sale_waits_for_no_upgrade() -> None:
    story = _listed(_market(shared_stage(*PRICES, upgrade=UPGRADE, accept_within_ms=60_000)))
    story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, answered_at_ms=NOW_MS))
    story.fire_next_window()
    assert story.lead.offer is not None
    second = story.lead.offer.buyer_id
    story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id=second, offer_number=2, answered_at_ms=story.now_ms))
    assert story.all(LeadSold)[1].upgrade_fee_cents is None
    assert [window.kind for window in story.lead.windows] == [WindowKind.ACCEPTANCE]


def test_rejected_offer_opens_no_second_time_for_the_upgrade() -> None:
    story = _listed(_market(shared_stage(*PRICES, upgrade=UPGRADE, accept_within_ms=60_000)))
    story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, answered_at_ms=NOW_MS))
    story.fire_next_window()
    assert story.lead.offer is not None
    rejecting = story.lead.offer.buyer_id
    story.when(RejectOffer(lead_id=LEAD_ID, buyer_id=rejecting, offer_number=2, reason=RejectionReason.PRICE))
    assert [window.kind for window in story.lead.windows] == [WindowKind.ACCEPTANCE]


def test_exclusive_sale_of_a_stage_that_may_upgrade_has_none() -> None:
    story = _listed(
        _market(
            exclusive_stage(7_000, exclusive_for_ms=1_000),
            shared_stage(*PRICES, upgrade=UPGRADE),
            orders=(order("a", exclusive="list"), order("b", shared="list")),
        )
    )
    story.fire_next_window()
    assert [sold.upgrade_fee_cents for sold in story.all(LeadSold)] == [None, None]


# The upgrade


def test_only_holder_closes_the_remaining_slots_for_good() -> None:
    story = _listed(_market())
    upgraded, closed = story.when(_upgrade(), after_ms=1_000)
    assert isinstance(upgraded, LeadUpgraded)
    assert (upgraded.sale_number, upgraded.buyer_id, upgraded.order_id) == (1, "a", "a/all")
    assert (upgraded.slots_closed, upgraded.fee_cents, upgraded.currency) == (2, 7_500, "USD")
    assert isinstance(closed, LeadClosed)
    assert closed.outcome is Outcome.SOLD_OUT
    (sale,) = story.lead.sales
    assert (sale.mode, sale.exclusive_until_ms, sale.fee_cents) == (Mode.EXCLUSIVE, None, 7_500)
    assert story.lead.windows == ()
    assert story.when(TimerDue(lead_id=LEAD_ID, window_number=1), after_ms=WITHIN_MS * 2) == []


def test_only_holder_may_upgrade_after_its_time_as_long_as_nobody_else_holds_the_lead() -> None:
    stage = shared_stage(*PRICES, upgrade=UPGRADE, keep_trying=KeepTrying(every_ms=60_000, for_ms=3_600_000))
    story = _listed(_market(stage, orders=FIRST_PAYS_MOST[:1]))
    story.fire_next_window()
    assert [window.kind for window in story.lead.windows] == [WindowKind.RETRY]
    story.when(_upgrade(), after_ms=1_000)
    assert story.all(LeadUpgraded)[0].fee_cents == 7_500
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_upgrade_withdraws_what_is_offered_to_others() -> None:
    story = _listed(_market(shared_stage(*PRICES, upgrade=UPGRADE, accept_within_ms=60_000)))
    story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id="a", offer_number=1, answered_at_ms=NOW_MS))
    story.fire_next_window()
    events = story.when(_upgrade())
    assert [type(event) for event in events] == [LeadUpgraded, OfferWithdrawn, LeadClosed]
    assert story.lead.offer is None


def test_fee_is_the_one_that_was_told_whatever_the_market_says_now() -> None:
    story = _listed(_market())
    dearer = replace(UPGRADE, per_slot_cents=9_000)
    story.accepted_market = story.market
    story.market = replace(_market(shared_stage(*PRICES, upgrade=dearer)), version=2)
    story.when(_upgrade())
    assert story.all(LeadUpgraded)[0].fee_cents == 7_500


def test_fee_is_drawn_as_money_and_earns_the_source_its_share() -> None:
    orders = (order("a", shared=5_000, caps=CAPS),)
    story = _listed(on_terms(_market(orders=orders), accounts={"a": 0}, paid=SHARE))
    story.when(_upgrade())
    upgraded = story.all(LeadUpgraded)[0]
    assert sorted((draw.counter.split(":")[-2], draw.amount) for draw in upgraded.draws) == [
        ("account", 7_500),
        ("spend_per_month", 7_500),
    ]
    assert upgraded.payout_cents == 4_500
    (sale,) = story.lead.sales
    assert sale.payout_cents == 3_000 + 4_500
    assert sale.draws == drawn(story.events)


def test_upgrade_of_a_test_lead_draws_and_earns_nothing() -> None:
    orders = (order("a", shared=5_000, caps=CAPS),)
    story = _listed(on_terms(_market(orders=orders), accounts={"a": 0}, paid=SHARE), is_test=True)
    story.when(_upgrade())
    upgraded = story.all(LeadUpgraded)[0]
    assert (upgraded.draws, upgraded.payout_cents, upgraded.is_test) == ((), 0, True)


# Refusals


def test_upgrade_of_an_unknown_lead_is_refused() -> None:
    assert _refused(Story(_market())) is RefusalReason.UNKNOWN_LEAD


def test_upgrade_by_somebody_who_does_not_hold_the_lead_is_refused() -> None:
    assert _refused(_listed(_market()), "b") is RefusalReason.NOT_A_HOLDER


def test_upgrade_where_the_stage_has_none_is_refused() -> None:
    stage = shared_stage(*PRICES, keep_trying=KeepTrying(every_ms=60_000, for_ms=3_600_000))
    story = _listed(_market(stage, orders=FIRST_PAYS_MOST[:1]))
    assert _refused(story) is RefusalReason.NO_UPGRADE


@pytest.mark.parametrize("buyer_id", ["a", "b"])
def test_upgrade_with_two_holders_is_refused_to_both(buyer_id: str) -> None:
    stage = shared_stage(*PRICES, upgrade=UPGRADE, keep_trying=KeepTrying(every_ms=60_000, for_ms=3_600_000))
    story = _listed(_market(stage, orders=FIRST_PAYS_MOST[:2]))
    story.fire_next_window()
    assert story.lead.holders == ("a", "b")
    assert story.lead.outcome is None
    assert _refused(story, buyer_id) is RefusalReason.NOT_THE_ONLY_HOLDER


def test_upgrade_comes_once() -> None:
    story = _listed(_market())
    story.when(_upgrade())
    assert _refused(story) is RefusalReason.ALREADY_CLOSED


@pytest.mark.parametrize(
    "ending",
    [
        WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.REVOKED),
        ReportDisposition(lead_id=LEAD_ID, buyer_id="a", disposition=Disposition.DEAL),
    ],
)
def test_closed_lead_is_not_upgraded(ending: WithdrawLead | ReportDisposition) -> None:
    story = _listed(_market())
    story.when(ending)
    assert _refused(story) is RefusalReason.ALREADY_CLOSED


def test_upgrade_that_the_limits_have_no_room_for_is_refused_and_selling_goes_on() -> None:
    story = _listed(_market())
    story.no_room = frozenset({"a/all"})
    assert _refused(story) is RefusalReason.NO_ROOM
    story.no_room = frozenset()
    story.fire_next_window()
    assert len(story.lead.sales) == 3


def test_upgrade_for_an_order_that_is_paused_by_now_is_refused() -> None:
    story = _listed(_market())
    story.market = _market(orders=(order("a", shared=5_000, paused=True), *FIRST_PAYS_MOST[1:]))
    assert _refused(story) is RefusalReason.NO_ROOM


def test_returned_lead_is_not_upgraded() -> None:
    story = _listed(on_terms(_market(), returns=RETURNS))
    story.when(
        ReturnLead(
            lead_id=LEAD_ID, buyer_id="a", reason=ReturnReason.WRONG_PERSON, answered_at_ms=story.now_ms
        )
    )
    assert _refused(story) is RefusalReason.ALREADY_RETURNED


def test_lead_that_never_reached_its_buyer_is_not_upgraded() -> None:
    story = _listed(_market())
    story.when(ReportFailedDelivery(lead_id=LEAD_ID, sale_number=1, reason=FailureReason.RECORD_TOO_LARGE))
    assert _refused(story) is RefusalReason.NO_UPGRADE


# Booked ahead


ALWAYS = order("z", shared=5_000, upgrade_always=True)


def test_order_that_always_upgrades_has_the_lead_to_itself_in_the_same_entry() -> None:
    story = Story(_market(orders=(ALWAYS, *FIRST_PAYS_MOST[1:])))
    events = story.when(lead())
    assert [type(event) for event in events] == [LeadListed, LeadSold, LeadUpgraded, LeadClosed]
    assert (story.all(LeadSold)[0].buyer_id, story.all(LeadUpgraded)[0].fee_cents) == ("z", 7_500)
    assert story.lead.sales[0].mode is Mode.EXCLUSIVE
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_order_that_always_upgrades_does_so_when_it_accepts_an_offer() -> None:
    stage = shared_stage(*PRICES, upgrade=UPGRADE, accept_within_ms=60_000)
    story = _listed(_market(stage, orders=(ALWAYS, *FIRST_PAYS_MOST[1:])))
    events = story.when(AcceptOffer(lead_id=LEAD_ID, buyer_id="z", offer_number=1, answered_at_ms=NOW_MS))
    assert [type(event) for event in events[1:]] == [LeadSold, LeadUpgraded, LeadClosed]


def test_order_that_always_upgrades_passes_where_it_is_not_the_only_holder() -> None:
    story = _listed(_market(orders=(order("a", shared=6_000), ALWAYS, order("b", shared="list"))))
    story.fire_next_window()
    assert story.lead.holders == ("a", "b")


@pytest.mark.parametrize("within_ms", [None, 0])
def test_order_that_always_upgrades_takes_no_second_slot_in_the_same_entry(within_ms: int | None) -> None:
    stage = shared_stage(*PRICES, upgrade=replace(UPGRADE, within_ms=within_ms))
    story = _listed(_market(stage, orders=(order("a", shared=6_000), ALWAYS)))
    assert story.lead.holders == ("a",)


def test_order_that_always_upgrades_passes_where_an_earlier_stage_sold_the_lead() -> None:
    stages = (exclusive_stage(7_000, exclusive_for_ms=1_000), shared_stage(*PRICES, upgrade=UPGRADE))
    orders = (order("a", exclusive="list"), ALWAYS, order("b", shared="list"))
    story = _listed(_market(*stages, orders=orders))
    story.fire_next_window()
    assert story.lead.holders == ("a", "b")


def test_order_that_always_upgrades_passes_where_the_stage_has_no_upgrade() -> None:
    story = _listed(_market(shared_stage(*PRICES), orders=(ALWAYS, order("b", shared="list"))))
    assert story.lead.holders == ("b",)


def test_order_that_always_upgrades_passes_where_no_slot_is_left_to_close() -> None:
    story = _listed(_market(orders=(ALWAYS, order("b", shared="list"))), sales_max=1)
    assert story.lead.holders == ("b",)


def test_order_that_always_upgrades_takes_an_exclusive_lead_as_it_is() -> None:
    both = order("z", exclusive="list", shared="list", upgrade_always=True)
    story = _listed(_market(exclusive_stage(9_000), orders=(both,), sales_max=1))
    assert story.all(LeadUpgraded) == []
    assert story.lead.outcome is Outcome.SOLD_OUT


def test_order_that_always_upgrades_and_has_no_room_for_the_fee_has_none_at_all() -> None:
    story = Story(_market(orders=(ALWAYS, order("b", shared="list"))), no_room=frozenset({"z/all"}))
    story.when(lead())
    assert story.lead.holders == ("b",)
