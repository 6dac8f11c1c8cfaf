"""Whatever happens around a lead's sales, in any order: what is drawn, paid and promised stays right.

Each check is seen to fail at the end: a bug is planted, and the same check finds it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.codec import codec
from services.contract.events import (
    DeliveryFailed,
    Disposition,
    Draw,
    Event,
    FailureReason,
    LeadClosed,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    RejectionReason,
    ReturnApproved,
    ReturnReason,
    WithdrawalReason,
)
from services.contract.inputs import (
    AcceptOffer,
    DecideReturn,
    Input,
    RejectOffer,
    ReportDisposition,
    ReportFailedDelivery,
    ReturnLead,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import KeepTrying, Market, Mode, Stage, Upgrade
from services.contract.times import DAY_MS
from services.router import payouts, returns, upgrades
from services.router.deciding import Deciding
from services.router.lead import Lead
from services.router.state_bytes import state_bytes, state_of
from tests.support.deciding import NOW_MS, Story, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.terms import (
    BY_OPERATOR,
    CAPS,
    PER_LEAD_BACK,
    RETURNS,
    SHARE,
    SHARE_BACK,
    WITH_QUOTA,
    on_terms,
)

LEAD_ID = lead().lead_id
BUYERS = ("a", "b", "c", "d")
Move: TypeAlias = Callable[[Story], Input | None]
Check: TypeAlias = Callable[[Sequence[Event]], None]

# What may happen


def _of_holder(make: Callable[[str, int], Input]) -> st.SearchStrategy[Move]:
    """Let a holder do something, or, where nobody is that far, somebody who holds nothing."""

    def move(place: int) -> Move:
        return lambda story: make((*story.lead.holders, *BUYERS)[place], story.now_ms)

    return st.integers(0, 2).map(move)


def _answer(*, accept: bool) -> Move:
    def move(story: Story) -> Input | None:
        offer = story.state.offer if isinstance(story.state, Lead) else None
        if offer is None:
            return None
        named: dict[str, Any] = {
            "lead_id": LEAD_ID,
            "buyer_id": offer.buyer_id,
            "offer_number": offer.offer_number,
        }
        if accept:
            return AcceptOffer(answered_at_ms=offer.answer_by_ms, **named)
        return RejectOffer(reason=RejectionReason.PRICE, **named)

    return move


def _failed(number: int) -> Move:
    def move(story: Story) -> Input | None:
        if len(story.lead.sales) < number:
            return None
        return ReportFailedDelivery(
            lead_id=LEAD_ID, sale_number=number, reason=FailureReason.RECORD_TOO_LARGE
        )

    return move


def _decided(number: int, approve: bool) -> Move:
    return lambda _: DecideReturn(lead_id=LEAD_ID, sale_number=number, approve=approve)


def _time_passes(story: Story) -> None:
    if story.lead.windows:
        story.fire_next_window()


OFTEN: st.SearchStrategy[Move] = st.one_of(
    st.just(_time_passes),
    st.booleans().map(lambda accept: _answer(accept=accept)),
    _of_holder(lambda buyer, at: UpgradeSale(lead_id=LEAD_ID, buyer_id=buyer, answered_at_ms=at)),
    _of_holder(
        lambda buyer, at: ReturnLead(
            lead_id=LEAD_ID, buyer_id=buyer, reason=ReturnReason.WRONG_PERSON, answered_at_ms=at
        )
    ),
)
SELDOM: st.SearchStrategy[Move] = st.one_of(
    st.builds(_decided, st.integers(1, 3), st.booleans()),
    st.builds(_failed, st.integers(1, 3)),
    _of_holder(
        lambda buyer, _: ReportDisposition(lead_id=LEAD_ID, buyer_id=buyer, disposition=Disposition.CONTACTED)
    ),
    st.just(lambda _: WithdrawLead(lead_id=LEAD_ID, reason=WithdrawalReason.REVOKED)),
)
MOVES = st.one_of(OFTEN, OFTEN, OFTEN, SELDOM)
ROOM = st.one_of(
    st.just(frozenset[str]()),
    st.sets(st.sampled_from([f"{b}/all" for b in BUYERS]), max_size=2).map(frozenset),
)


def _shared_stages() -> st.SearchStrategy[Stage]:
    return st.builds(
        lambda within, upgrade, again, accept: shared_stage(
            4_501,
            4_001,
            upgrade=Upgrade(per_slot_cents=3_333, within_ms=within) if upgrade else None,
            keep_trying=KeepTrying(every_ms=60_000, for_ms=600_000) if again else None,
            accept_within_ms=30_000 if accept else None,
        ),
        st.sampled_from([60_000, 60_000, None]),
        st.sampled_from([True, True, False]),
        st.booleans(),
        st.sampled_from([False, False, True]),
    )


@st.composite
def _markets(draw: st.DrawFn) -> Market:
    stages = [draw(_shared_stages())]
    if draw(st.sampled_from([False, False, True])):
        stages.insert(0, exclusive_stage(7_000, exclusive_for_ms=3_600_000))
    always = draw(st.booleans())
    orders = (
        order("a", shared=5_001, caps=CAPS, upgrade_always=always),
        order("b", exclusive="list", shared="list", caps=CAPS[:1]),
        order("c", shared="list"),
        order("d", shared=4_200),
    )
    return on_terms(
        market(plan(*stages, sales_max=draw(st.integers(2, 3))), orders=orders),
        accounts={"a": 0, "c": 10_000},
        returns=draw(st.sampled_from([None, RETURNS, WITH_QUOTA, BY_OPERATOR])),
        paid=draw(st.sampled_from([None, SHARE, SHARE_BACK, PER_LEAD_BACK])),
    )


def _play(story: Story, moves: Sequence[tuple[Move, frozenset[str]]]) -> None:
    """Let it happen; the story itself holds that evolve makes the state that decide says."""
    for move, no_room in moves:
        story.no_room = no_room
        subject = move(story)
        if subject is not None:
            story.when(subject)


# What must hold of the events, in their order


def _draws_never_below_zero(events: Sequence[Event]) -> None:
    """No sale ever gives back more to a limit than it took."""
    left: Counter[tuple[int, str]] = Counter()
    for event in events:
        if not isinstance(event, LeadSold | LeadUpgraded | ReturnApproved | DeliveryFailed):
            continue
        for draw in event.draws:
            if draw.counter.startswith("returns:"):
                assert draw.amount >= 0
                assert draw.granted >= 0
                continue
            left[event.sale_number, draw.counter] += draw.amount
            assert left[event.sale_number, draw.counter] >= 0, f"{draw} gives back too much"


def _each_sale_is_credited_once_and_in_full(events: Sequence[Event]) -> None:
    charged: Counter[int] = Counter()
    credited: dict[int, list[int]] = defaultdict(list)
    for event in events:
        match event:
            case LeadSold():
                charged[event.sale_number] += event.price_cents
            case LeadUpgraded():
                charged[event.sale_number] += event.fee_cents
            case ReturnApproved() | DeliveryFailed():
                credited[event.sale_number].append(event.price_cents)
            case _:
                pass
    for number, amounts in credited.items():
        assert sorted(amounts, reverse=True)[:1] == [charged[number]]
        assert sum(amounts) == charged[number], f"sale {number} was credited {amounts}"


def _source_never_loses_more_than_it_earned(events: Sequence[Event]) -> None:
    earned: Counter[int] = Counter()
    for_lead_cents = 0
    for event in events:
        match event:
            case LeadListed():
                for_lead_cents = event.payout_cents
            case LeadSold() | LeadUpgraded():
                earned[event.sale_number] += event.payout_cents
            case ReturnApproved() | DeliveryFailed():
                if for_lead_cents or not earned[event.sale_number]:
                    for_lead_cents -= event.payout_cents
                else:
                    earned[event.sale_number] -= event.payout_cents
            case _:
                pass
        assert for_lead_cents >= 0
        assert min(earned.values(), default=0) >= 0


def _disclosed_lead_is_exclusive_to_its_only_holder_or_to_nobody(events: Sequence[Event]) -> None:
    """Guarantee 1."""
    holders: list[str] = []
    is_alone = False
    for event in events:
        match event:
            case LeadSold():
                assert not is_alone, "sold beside a buyer that has it for good"
                assert event.mode is Mode.SHARED or not holders, "sold exclusive after a disclosure"
                assert event.buyer_id not in holders
                assert tuple(holders) == event.holders
                holders.append(event.buyer_id)
                is_alone = event.mode is Mode.EXCLUSIVE and event.exclusive_until_ms is None
            case LeadUpgraded():
                assert holders == [event.buyer_id], "upgraded beside others"
                is_alone = True
            case _:
                pass


def _upgraded_lead_is_closed_in_the_same_breath(events: Sequence[Event]) -> None:
    for number, event in enumerate(events):
        if isinstance(event, LeadUpgraded):
            assert any(isinstance(later, LeadClosed) for later in events[number + 1 :])
    assert sum(isinstance(event, LeadClosed) for event in events) <= 1


CHECKS = (
    _draws_never_below_zero,
    _each_sale_is_credited_once_and_in_full,
    _source_never_loses_more_than_it_earned,
    _disclosed_lead_is_exclusive_to_its_only_holder_or_to_nobody,
    _upgraded_lead_is_closed_in_the_same_breath,
)


@given(_markets(), st.lists(st.tuples(MOVES, ROOM), min_size=6, max_size=16), st.booleans())
def test_money_limits_and_promises_stay_right_in_any_order_of_inputs(
    market: Market, moves: list[tuple[Move, frozenset[str]]], is_test: bool
) -> None:
    story = Story(market)
    story.when(lead(is_test=is_test))
    _play(story, moves)
    for check in CHECKS:
        check(story.events)
    assert state_of(state_bytes(story.lead)) == story.lead
    assert all(codec().decode_body(codec().encode_body(event)) == event for event in story.events)
    if is_test:
        assert not any(getattr(event, "draws", ()) for event in story.events)


# Planted bugs


def _staggered(paid: Any = SHARE_BACK) -> Story:
    """A lead that `a` has exclusive for a day, and `b` may have after that."""
    stages = (exclusive_stage(7_000, exclusive_for_ms=DAY_MS), shared_stage(4_500))
    orders = (order("a", exclusive="list", caps=CAPS), order("b", shared="list"))
    story = Story(on_terms(market(plan(*stages), orders=orders), returns=RETURNS, paid=paid))
    story.when(lead())
    return story


def _upgradable(*buyers: str) -> Story:
    stage = shared_stage(
        4_500,
        upgrade=Upgrade(per_slot_cents=3_750, within_ms=1_000),
        keep_trying=KeepTrying(every_ms=60_000, for_ms=600_000),
    )
    orders = tuple(order(buyer, shared="list") for buyer in buyers)
    story = Story(market(plan(stage), orders=orders))
    story.when(lead())
    return story


def _return(buyer_id: str) -> ReturnLead:
    return ReturnLead(
        lead_id=LEAD_ID, buyer_id=buyer_id, reason=ReturnReason.WRONG_PERSON, answered_at_ms=NOW_MS
    )


def _folded(story: Story, **changes: Any) -> None:
    """Plant a bug in the fold: the state forgets what happened to the first sale."""
    first, *others = story.lead.sales
    story.state = replace(story.lead, sales=(replace(first, **changes), *others))


def _holds_until(check: Check, story: Story, *happening: Callable[[], object]) -> None:
    """Require that the check holds, and finds what is wrong after all of this."""
    check(story.events)
    for happens in happening:
        happens()
    with pytest.raises(AssertionError):
        check(story.events)


def test_limits_that_are_given_back_twice_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(draws: Sequence[Draw]) -> tuple[Draw, ...]:
        return tuple(replace(draw, amount=-2 * draw.amount) for draw in draws)

    monkeypatch.setattr(returns, "restored", twice)
    story = _staggered()
    _holds_until(_draws_never_below_zero, story, lambda: story.when(_return("a")))


def test_sale_that_is_credited_twice_is_found() -> None:
    story = _staggered()
    story.when(_return("a"))
    _folded(story, returning=None)
    _holds_until(_each_sale_is_credited_once_and_in_full, story, lambda: story.when(_return("a")))


def test_fee_that_is_not_credited_is_found() -> None:
    story = _upgradable("a")
    story.when(UpgradeSale(lead_id=LEAD_ID, buyer_id="a", answered_at_ms=NOW_MS))
    _folded(story, fee_cents=0)
    report = ReportFailedDelivery(lead_id=LEAD_ID, sale_number=1, reason=FailureReason.RECIPIENT_GONE)
    _holds_until(_each_sale_is_credited_once_and_in_full, story, lambda: story.when(report))


def test_payout_that_is_taken_back_twice_is_found() -> None:
    story = _staggered(PER_LEAD_BACK)
    story.when(_return("a"))
    story.state = replace(story.lead, payout_cents=1_200)
    _holds_until(
        _source_never_loses_more_than_it_earned,
        story,
        story.fire_next_window,
        lambda: story.when(_return("b")),
    )


def test_share_that_is_rounded_up_when_it_is_taken_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = payouts.taken_back_cents
    monkeypatch.setattr(returns, "taken_back_cents", lambda *terms: exact(*terms) + 1)
    story = _staggered()
    _holds_until(_source_never_loses_more_than_it_earned, story, lambda: story.when(_return("a")))


@pytest.mark.parametrize(
    "check",
    [
        _disclosed_lead_is_exclusive_to_its_only_holder_or_to_nobody,
        _upgraded_lead_is_closed_in_the_same_breath,
    ],
)
def test_lead_that_stays_open_after_its_upgrade_is_found(
    monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    story = _upgradable("a", "b")
    monkeypatch.setattr(Deciding, "close", lambda *_: None)
    upgrade = UpgradeSale(lead_id=LEAD_ID, buyer_id=story.lead.holders[0], answered_at_ms=NOW_MS)
    _holds_until(check, story, lambda: story.when(upgrade), story.fire_next_window)


def test_upgrade_beside_another_holder_cannot_be_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    story = _upgradable("a", "b")
    story.fire_next_window()
    monkeypatch.setattr(upgrades, "_refusal", lambda *_: None)
    first = story.lead.holders[0]
    with pytest.raises(AssertionError, match="2 buyers hold"):
        story.when(UpgradeSale(lead_id=LEAD_ID, buyer_id=first, answered_at_ms=NOW_MS))
