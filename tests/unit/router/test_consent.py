"""A consent that names buyers binds: whoever it does not name is neither asked nor sold to, in any way to sell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry
from services.contract.events import (
    AuctionOpened,
    Event,
    LeadClosed,
    LeadSold,
    LeadUpgraded,
    OfferMade,
    Outcome,
    WindowKind,
)
from services.contract.inputs import AcceptOffer, UpgradeSale
from services.contract.market import KeepTrying, Market, Plan, Selection, Upgrade
from services.contract.times import HOUR_MS, MINUTE_MS
from services.router.execution import Step, rebuilt_input
from tests.support.deciding import (
    Story,
    bid_stage,
    either_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)

BUYERS = ("a", "b", "c", "d")
ORDERS = (
    *(order(buyer, exclusive="list", shared="list", name="standing") for buyer in BUYERS),
    *(order(buyer, exclusive="bid", shared="bid", name="bids") for buyer in BUYERS),
)
WAYS: dict[str, Plan] = {
    "exclusive": plan(exclusive_stage(), sales_max=1),
    "shared": plan(shared_stage()),
    "either": plan(either_stage(9_000, 4_000)),
    "offered": plan(shared_stage(accept_within_ms=MINUTE_MS)),
    "staggered": plan(exclusive_stage(exclusive_for_ms=HOUR_MS), shared_stage(), shared_stage(600, wait_ms=HOUR_MS)),
    "tried again": plan(
        shared_stage(only=("a",), keep_trying=KeepTrying(every_ms=MINUTE_MS, for_ms=HOUR_MS)), shared_stage()
    ),
    "ping-post": plan(bid_stage(exclusive=1, shared=1), shared_stage()),
    "first bid": plan(bid_stage(exclusive=1, shared=1, selection=Selection.FIRST_BID), shared_stage()),
    "upgraded": plan(shared_stage(4_000, upgrade=Upgrade(per_slot_cents=3_000, within_ms=MINUTE_MS))),
}  # fmt: skip
RESALE_STEPS_MAX = 80


def reached(events: list[Event]) -> Iterator[str]:
    """Name every buyer that was asked for the lead, or sold it."""
    for event in events:
        match event:
            case OfferMade() | LeadSold() | LeadUpgraded():
                yield event.buyer_id
            case AuctionOpened():
                yield from (invited.buyer_id for invited in event.invited)


def told(of: Market, **options: Any) -> Story:
    """Sell a lead to its close: every buyer accepts, bids and upgrades."""
    story = Story(of)
    story.when(lead(**options))
    for _ in range(RESALE_STEPS_MAX):
        if story.lead.outcome is not None:
            break
        _go_on(story)
    assert story.lead.outcome is not None, "every lead is closed in the end"
    return story


def _go_on(story: Story) -> None:
    known = story.lead
    if known.auction is not None:
        for buyer in BUYERS:
            if story.lead.auction is not None:
                story.bid(buyer, exclusive=5_000, shared=4_000)
        if story.lead.auction is not None:
            story.close_auction()
    elif known.offer is not None:
        story.when(
            AcceptOffer(
                lead_id=known.lead_id,
                buyer_id=known.offer.buyer_id,
                offer_number=known.offer.offer_number,
                answered_at_ms=story.now_ms,
            )
        )
    elif known.window(WindowKind.UPGRADE):
        for buyer in BUYERS:
            story.when(UpgradeSale(lead_id=known.lead_id, buyer_id=buyer, answered_at_ms=story.now_ms))
    else:
        story.fire_next_window()


@pytest.mark.parametrize("way", WAYS)
def test_nobody_but_the_buyers_that_the_consent_names_is_asked_or_sold_to(way: str) -> None:
    story = told(market(WAYS[way], orders=ORDERS), consented_buyers=("b", "d"))
    assert story.all(LeadSold), "those that it names do buy"
    assert set(reached(story.events)) <= {"b", "d"}


@pytest.mark.parametrize("way", WAYS)
def test_without_named_buyers_others_are_asked_so_the_check_above_can_fail(way: str) -> None:
    leads = [told(market(WAYS[way], orders=ORDERS), reference=f"lead-{at}") for at in range(8)]
    assert not {buyer for story in leads for buyer in reached(story.events)} <= {"b", "d"}


def test_a_consent_that_names_no_buyer_of_the_market_leaves_the_lead_unsold() -> None:
    for way in WAYS.values():
        story = told(market(way, orders=ORDERS), consented_buyers=("nobody-here",))
        assert list(reached(story.events)) == []
        assert [closed.outcome for closed in story.all(LeadClosed)] == [Outcome.UNSOLD]


@given(
    named=st.sets(st.sampled_from([*BUYERS, "gone"]), min_size=1),
    never=st.sets(st.sampled_from(BUYERS)),
    way=st.sampled_from(sorted(WAYS)),
    reference=st.sampled_from([f"lead-{at}" for at in range(6)]),
)
def test_consent_and_exclusion_hold_together(
    named: set[str], never: set[str], way: str, reference: str
) -> None:
    story = told(
        market(WAYS[way], orders=ORDERS),
        reference=reference,
        consented_buyers=tuple(sorted(named)),
        never_to=tuple(sorted(never)),
    )
    assert set(reached(story.events)) <= named - never


def test_the_listing_names_the_buyers_so_that_the_decision_is_rebuilt_from_the_log_alone() -> None:
    story = Story(market(WAYS["shared"], orders=ORDERS))
    first = lead(consented_buyers=("b", "d"))
    events = story.when(first)
    entry = Entry(
        seq=1,
        prev_hash=GENESIS_HASH,
        cause=Cause(kind=CauseKind.QUALIFIED, offset=0),
        market_version=1,
        no_room=(),
        lead_id=first.lead_id,
        decided_at_ms=story.now_ms,
        events=tuple(map(codec().encode_body, events)),
    )
    read = codec().decode_entry(codec().encode(entry))
    rebuilt = rebuilt_input(Step(entry=read, told=codec().events_of(read), before=None))
    assert rebuilt is not None
    assert Story(story.market).when(rebuilt) == events
