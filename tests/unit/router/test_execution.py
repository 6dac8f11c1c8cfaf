"""Whatever the log tells of a lead is decided again from what it cites, byte for byte; what was changed is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from services.cli.replaying import Replayed, Verdict, replay
from services.contract.entries import CauseKind
from services.contract.events import (
    AuctionClosed,
    CommandRefused,
    FailureReason,
    LeadClosed,
    LeadListed,
    LimitReached,
    MoneyKind,
    MoneyMoved,
    Outcome,
    RejectionReason,
    ReturnReason,
    WithdrawalReason,
)
from services.contract.ids import account_id_of, lead_id_of
from services.contract.inputs import (
    AcceptOffer,
    FailLead,
    MoveMoney,
    PlaceBid,
    RejectOffer,
    ReportFailedDelivery,
    ReturnLead,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import KeepTrying, Returns, Sell, Upgrade
from services.router.execution import DoesNotFollow
from tests.support.deciding import bid_stage, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.retelling import Chronicle

LEAD = lead_id_of("sunform", "lead-1")


def offers() -> Chronicle:
    """An offer rejected, the next accepted; then the sale's delivery fails."""
    found = market(
        plan(exclusive_stage(accept_within_ms=60_000), sales_max=1),
        orders=(order("oak", exclusive="list"), order("elm", exclusive=9500)),
    )
    told = Chronicle({1: found})
    told.when(lead())
    told.when(RejectOffer(lead_id=LEAD, buyer_id="elm", offer_number=1, reason=RejectionReason.PRICE))
    told.when(AcceptOffer(lead_id=LEAD, buyer_id="oak", offer_number=2, answered_at_ms=told.now_ms))
    told.when(ReportFailedDelivery(lead_id=LEAD, sale_number=1, reason=FailureReason.RECIPIENT_GONE))
    told.when(AcceptOffer(lead_id=LEAD, buyer_id="oak", offer_number=2, answered_at_ms=told.now_ms))
    return told


def retries() -> Chronicle:
    """Nobody has room at first; later one has, under the next version of the market."""
    orders = (order("oak", exclusive="list"),)
    first = market(
        plan(exclusive_stage(keep_trying=KeepTrying(every_ms=60_000, for_ms=3_600_000))), orders=orders
    )
    raised = (order("oak", exclusive=9500), order("elm", exclusive=9900))
    told = Chronicle(
        {1: first, 2: replace(market(*first.lead_types["solar"].plans, orders=raised), version=2)}
    )
    reached = LimitReached(buyer_id="oak", order_id="oak/all", limit="leads_per_day", resumes_at_ms=None)
    told.when(lead(), no_room=("oak/all",), limits_reached=(reached,), version=1)
    told.timer(no_room=("elm/all",))
    return told


def auction() -> Chronicle:
    """Two bid, one is silent; the auction ends by the router's clock, and the slots it left are sold shared."""
    found = market(
        plan(bid_stage(exclusive=5000, shared=1800), shared_stage(1500), sales_max=3),
        orders=(
            order("oak", exclusive="bid", shared="bid"),
            order("elm", exclusive="bid", shared="bid"),
            order("ash", exclusive="bid"),
            order("fir", shared="list"),
        ),
    )
    told = Chronicle({1: found})
    told.when(lead())
    for buyer_id, shared in (("oak", 4000), ("elm", 3500)):
        told.when(
            PlaceBid(
                lead_id=LEAD, buyer_id=buyer_id, auction_number=1, exclusive_cents=6000, shared_cents=shared,
                answered_at_ms=told.now_ms,
            )
        )  # fmt: skip
    told.close_auction()
    return told


def upgrade_and_return() -> Chronicle:
    """The first buyer closes the other slots, and gives the lead back."""
    found = market(
        plan(shared_stage(4500, upgrade=Upgrade(per_slot_cents=3750, within_ms=120_000))),
        orders=(order("oak", shared="list"), order("elm", shared="list")),
    )
    returns = Returns(within_ms=86_400_000, reasons=("duplicate",))
    solar = replace(found.lead_types["solar"], returns=returns)
    told = Chronicle({1: replace(found, lead_types={"solar": solar})})
    told.when(lead())
    buyer_id = told.attempts()[0].sold[0].buyer_id
    told.when(UpgradeSale(lead_id=LEAD, buyer_id=buyer_id, answered_at_ms=told.now_ms))
    told.when(
        ReturnLead(lead_id=LEAD, buyer_id=buyer_id, reason=ReturnReason.DUPLICATE, answered_at_ms=told.now_ms)
    )
    return told


def failed() -> Chronicle:
    """The database refuses what was decided, at the listing."""
    found = market(plan(exclusive_stage()), orders=(order("oak", exclusive="list"),))
    told = Chronicle({1: found})
    told.when(lead(), refused_by_database=True)
    return told


def failed_in_auction() -> Chronicle:
    """The database refuses what was decided when an auction closed."""
    found = market(plan(bid_stage(Sell.EXCLUSIVE)), orders=(order("oak", exclusive="bid"),))
    told = Chronicle({1: found})
    told.when(lead())
    told.when(FailLead(lead_id=LEAD), refused_by_database=True)
    return told


def failed_with_a_delivery() -> Chronicle:
    """The database refuses what was decided when a delivery failed, while an auction for the other slots was open."""
    found = market(
        plan(shared_stage(4500), bid_stage(Sell.SHARED)),
        orders=(order("oak", shared="list"), order("elm", shared="bid")),
    )
    told = Chronicle({1: found})
    told.when(lead())
    told.when(
        ReportFailedDelivery(lead_id=LEAD, sale_number=1, reason=FailureReason.RECIPIENT_GONE),
        refused_by_database=True,
    )
    return told


def withdrawn_early() -> Chronicle:
    """Withdrawn before it was listed."""
    told = Chronicle({1: market(plan(exclusive_stage()), orders=(order("oak", exclusive="list"),))})
    told.when(WithdrawLead(lead_id=LEAD, reason=WithdrawalReason.ERASED))
    told.when(lead())
    return told


def account() -> Chronicle:
    """A deposit, and one in another currency."""
    told = Chronicle({1: market(plan(exclusive_stage()), orders=(order("oak", exclusive="list"),))})
    for currency in ("USD", "EUR"):
        told.when(
            MoveMoney(
                lead_id=account_id_of("oak"), buyer_id="oak", kind=MoneyKind.DEPOSIT, reference="r-1",
                amount_cents=5000, currency=currency,
            )
        )  # fmt: skip
    return told


EACH: Sequence[Callable[[], Chronicle]] = (
    offers, retries, auction, upgrade_and_return, failed, failed_in_auction,
    failed_with_a_delivery, withdrawn_early, account,
)  # fmt: skip


def replayed(told: Chronicle) -> list[Replayed]:
    return list(replay(told.read(), told.given, told.versions()))


def verdicts(told: Chronicle) -> list[Verdict]:
    return [each.verdict for each in replayed(told)]


@pytest.mark.parametrize("made", EACH)
def test_every_decision_is_the_same_again_byte_for_byte(made: Callable[[], Chronicle]) -> None:
    told = made()
    assert len(told.entries) >= 1
    assert set(verdicts(told)) == {Verdict.IDENTICAL}


def test_these_stories_hold_what_they_say() -> None:
    kinds = {type(event) for made in EACH for _, events in made().entries for event in events}
    assert {AuctionClosed, LimitReached, MoneyMoved, CommandRefused} <= kinds


@pytest.mark.parametrize("made", EACH)
def test_inputs_that_nothing_tells_any_more_are_said_and_not_guessed(made: Callable[[], Chronicle]) -> None:
    """Leads, timers and the router's own are told by their entries; a command's time of answer is not."""
    told = made()
    told.inputs.clear()
    for each in replayed(told):
        is_command = each.step.entry.cause.kind is CauseKind.COMMAND
        assert each.verdict is (Verdict.FORGOTTEN if is_command else Verdict.IDENTICAL)
        assert (each.given is None) == is_command


def test_an_event_that_was_changed_is_found() -> None:
    """A planted bug: the lead's quality is raised afterwards, and the entry's bytes with it."""
    told = retries()
    listed = told.entries[0][1][0]
    assert isinstance(listed, LeadListed)
    told.change(0, replace(listed, quality=51))
    first, _ = replayed(told)
    assert first.verdict is Verdict.DIFFERENT
    assert first.difference is not None
    assert (first.difference.number, first.difference.decided) == (1, listed)


def test_an_event_that_was_left_out_is_found() -> None:
    told = offers()
    entry, events = told.entries[2]
    told.entries[2] = (replace(entry, events=entry.events[:-1]), events[:-1])
    assert verdicts(told)[2:] == [Verdict.DIFFERENT, Verdict.IDENTICAL, Verdict.IDENTICAL]


def test_an_entry_that_cannot_follow_the_others_is_named() -> None:
    """A planted bug: the offer's window is left out, which the next entry closes."""
    told = offers()
    entry, events = told.entries[0]
    told.entries[0] = (replace(entry, events=entry.events[:-1]), events[:-1])
    with pytest.raises(DoesNotFollow, match="entry 2 "):
        replayed(told)


def test_a_no_room_that_was_left_out_is_found() -> None:
    """A planted bug: the entry does not say that the order had no room."""
    told = retries()
    entry, events = told.entries[0]
    told.entries[0] = (replace(entry, no_room=()), events)
    assert replayed(told)[0].verdict is Verdict.DIFFERENT


def test_a_decision_under_another_market_than_it_cites_is_found() -> None:
    told = retries()
    entry, events = told.entries[1]
    told.entries[1] = (replace(entry, market_version=1), events)
    assert replayed(told)[1].verdict is Verdict.DIFFERENT


def test_a_lead_that_failed_is_failed_again() -> None:
    (_, events), = failed().entries  # fmt: skip
    assert isinstance(events[-1], LeadClosed)
    assert events[-1].outcome is Outcome.FAILED
