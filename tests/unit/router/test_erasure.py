"""Forgetting a lead's person: selling ends, every holder is asked to follow, and what each says is on record."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from services.contract.events import (
    CommandRefused,
    ErasureAcknowledged,
    ErasureReason,
    LeadClosed,
    LeadErased,
    LeadListed,
    OfferWithdrawn,
    Outcome,
    RefusalReason,
    WindowOpened,
    WithdrawalNoted,
)
from services.contract.inputs import AcknowledgeErasure, EraseLead, TimerDue
from services.contract.times import DAY_MS
from services.router.erasure import acknowledge_by_ms
from services.router.messages import Channel, react
from tests.support.deciding import NOW_MS, Story, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.telling import complaints, entry_of

LEAD_ID = lead().lead_id
ERASE = EraseLead(lead_id=LEAD_ID, reason=ErasureReason.ERASED)
REVOKE = EraseLead(lead_id=LEAD_ID, reason=ErasureReason.REVOKED)
BOTH = market(
    plan(shared_stage(4_500), sales_max=2), orders=(order("a", shared="list"), order("b", shared="list"))
)
STAGGERED = market(
    plan(exclusive_stage(7_000, exclusive_for_ms=60_000), shared_stage(3_000), sales_max=2),
    orders=(order("a", exclusive="list"), order("b", shared="list")),
)
OFFERED = market(
    plan(exclusive_stage(7_000, accept_within_ms=60_000)), orders=(order("a", exclusive="list"),)
)


def _acknowledge(buyer_id: str = "a", *, by_operator: bool = False) -> AcknowledgeErasure:
    return AcknowledgeErasure(lead_id=LEAD_ID, buyer_id=buyer_id, by_operator=by_operator)


def test_open_lead_is_closed_and_its_holders_are_asked_to_follow() -> None:
    story = Story(STAGGERED)
    story.when(lead())
    closed, erased = story.when(ERASE)
    assert isinstance(closed, LeadClosed)
    assert closed.outcome is Outcome.WITHDRAWN
    assert erased == LeadErased(
        reason=ErasureReason.ERASED, holders=("a",), acknowledge_by_ms=NOW_MS + 30 * DAY_MS
    )
    assert story.when(TimerDue(lead_id=LEAD_ID, window_number=story.all(WindowOpened)[0].window_number)) == []


def test_offer_of_an_erased_lead_ends() -> None:
    story = Story(OFFERED)
    story.when(lead())
    assert [type(event) for event in story.when(ERASE)] == [OfferWithdrawn, LeadClosed, LeadErased]
    assert story.all(LeadErased)[0].holders == ()


def test_closed_lead_is_erased_and_closed_no_second_time() -> None:
    story = Story(BOTH)
    story.when(lead())
    assert [type(event) for event in story.when(ERASE)] == [LeadErased]
    assert story.all(LeadErased)[0].holders == ("a", "b")


@pytest.mark.parametrize("first", [ERASE, REVOKE])
def test_asked_again_nothing_changes(first: EraseLead) -> None:
    story = Story(BOTH)
    story.when(lead())
    story.when(first)
    assert story.when(first) == []


def test_after_a_revocation_there_may_be_an_erasure_and_not_the_other_way_round() -> None:
    story = Story(BOTH)
    story.when(lead())
    story.when(REVOKE)
    story.when(_acknowledge())
    assert [type(event) for event in story.when(ERASE)] == [LeadErased]
    assert story.lead.erased_by == (), "it is asked for more than it has acknowledged"
    assert story.when(REVOKE) == []


@pytest.mark.parametrize("command", [ERASE, REVOKE])
def test_lead_erased_before_it_came_is_closed_on_arrival_and_sold_to_nobody(command: EraseLead) -> None:
    story = Story(BOTH)
    assert [type(event) for event in story.when(command)] == [WithdrawalNoted, LeadErased]
    assert story.when(command) == []
    assert [type(event) for event in story.when(lead())] == [LeadListed, LeadClosed]
    assert story.lead.outcome is Outcome.WITHDRAWN


def test_holder_acknowledges_once() -> None:
    story = Story(BOTH)
    story.when(lead())
    story.when(ERASE)
    assert story.when(_acknowledge("b", by_operator=True)) == [
        ErasureAcknowledged(sale_number=2, buyer_id="b", by_operator=True)
    ]
    assert story.when(_acknowledge("b")) == []
    assert story.lead.erased_by == ("b",)


def test_refuses_who_was_not_asked_and_tells_the_buyer_alone_what_the_buyer_said() -> None:
    story = Story(BOTH)
    story.when(lead())
    for asked, reason in (("a", RefusalReason.ERASURE_NOT_ASKED), ("c", RefusalReason.NOT_A_HOLDER)):
        for by_operator in (False, True):
            assert story.when(_acknowledge(asked, by_operator=by_operator)) == [
                CommandRefused(
                    command="acknowledge_erasure", buyer_id=None if by_operator else asked, reason=reason
                )
            ]


def test_each_holder_is_told_once_with_reason_and_time_and_nobody_else_is() -> None:
    story = Story(STAGGERED)
    story.when(lead())
    events = story.when(REVOKE)
    told = react(entry_of(events), events, 3)
    assert complaints(told) == []
    (notice,) = [outgoing for outgoing in told if outgoing.channel is not Channel.SOURCE_RECEIPTS]
    assert (notice.channel, notice.recipient, notice.sale_number) == (Channel.BUYER_LEADS, "a", None)
    assert notice.body["holders"] == 1
    assert [item["type"] for item in notice.body["happened"]] == ["closed", "erasure"]
    assert notice.body["happened"][1]["reason"] == "revoked"


@pytest.mark.parametrize(
    ("asked", "until"),
    [
        ("2026-11-02T10:00", "2026-11-16T10:00"),  # a Monday
        ("2026-10-30T10:00", "2026-11-13T10:00"),  # a Friday, with the clocks set back on Sunday
        ("2026-11-07T10:00", "2026-11-20T10:00"),  # a Saturday
    ],
)
def test_revocation_is_honoured_within_ten_business_days_of_the_markets_zone(asked: str, until: str) -> None:
    zone = ZoneInfo("America/New_York")
    asked_ms, until_ms = (
        round(datetime.fromisoformat(at).replace(tzinfo=zone).timestamp() * 1_000) for at in (asked, until)
    )
    assert acknowledge_by_ms(ErasureReason.REVOKED, asked_ms, "America/New_York") == until_ms
    assert acknowledge_by_ms(ErasureReason.ERASED, asked_ms, "America/New_York") == asked_ms + 30 * DAY_MS
