"""What a buyer hears of auctions, returns, limits and its account: its own affairs, once an entry, and no contact."""

from __future__ import annotations

from typing import Any

import pytest

from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidDeclined,
    BidOutcome,
    BidPlaced,
    BidVoided,
    CommandRefused,
    Event,
    LimitReached,
    MoneyKind,
    MoneyMoved,
    NoBidReason,
    OfferMade,
    RefusalReason,
    ReturnApproved,
    ReturnReason,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
    VoidReason,
)
from services.contract.ids import sale_id_of
from services.contract.market import Mode, Selection
from services.contract.times import iso_time
from services.router import pings
from services.router.messages import Channel, react
from tests.support.telling import (
    AT_MS,
    BUYERS,
    LEAD_ID,
    SOURCE_ID,
    auction_closed,
    closed,
    complaints,
    entry_of,
    invitation,
    leaks,
    opened,
    result,
    sold,
    sold_exclusive,
    to_buyer,
    told,
)

ACME, ZENITH, QUARTZ, WALNUT = BUYERS
SALE_ID = sale_id_of(LEAD_ID, 1)
REQUESTED = ReturnRequested(
    sale_number=1, sale_id=SALE_ID, buyer_id=ACME, reason=ReturnReason.INVALID_CONTACT
)
REFUSED = ReturnRefused(
    sale_number=1, sale_id=SALE_ID, buyer_id=ACME, reason=ReturnRefusal.REASON_NOT_ACCEPTED
)
LIMIT = LimitReached(
    buyer_id=ACME, order_id="acme/all", limit="leads_per_day", resumes_at_ms=AT_MS + 3_600_000
)


def approved(**changes: Any) -> ReturnApproved:
    values: dict[str, Any] = {
        "sale_number": 1,
        "sale_id": SALE_ID,
        "buyer_id": ACME,
        "source_id": SOURCE_ID,
        "price_cents": 4_501,
        "currency": "USD",
        "automatic": True,
        "payout_cents": 0,
        "draws": (),
        "is_test": False,
        **changes,
    }
    return ReturnApproved(**values)


def test_each_invited_buyer_gets_one_ping_with_what_is_for_sale_and_until_when() -> None:
    found = told(opened(invitation(ACME), invitation(ZENITH, Mode.SHARED)))
    assert [(item.channel, item.recipient) for item in found] == [
        (Channel.BUYER_PINGS, ACME),
        (Channel.BUYER_PINGS, ZENITH),
    ]
    body = to_buyer(found, ACME)
    assert body | {"promise": ""} == {
        "lead_id": LEAD_ID,
        "at": iso_time(AT_MS),
        "type": "ping",
        "auction_number": 1,
        "answer_by": iso_time(AT_MS + 500),
        "lead_type": "solar",
        "order": "acme/all",
        "selection": "ping_post",
        "modes": ["exclusive", "shared"],
        "floor": {"exclusive": "50.00", "shared": "18.00"},
        "currency": "USD",
        "sale_number": 1,
        "sales_max": 3,
        "exclusive_for_ms": None,
        "holders": 0,
        "quality": 60,
        "fields": {"state": "NY"},
        "is_test": False,
        "promise": "",
        "log": {"partition": 3, "seq": 7},
    }


def test_ping_says_nothing_of_a_mode_that_its_order_does_not_take() -> None:
    found = told(opened(invitation(ZENITH, Mode.SHARED), exclusive_for_ms=3_600_000, holders=(ACME,)))
    body = to_buyer(found, ZENITH)
    assert body["modes"] == ["shared"]
    assert body["floor"] == {"exclusive": None, "shared": "18.00"}
    assert (body["exclusive_for_ms"], body["holders"]) == (None, 1)
    assert "exclusive" not in body["promise"]


def test_ping_of_a_first_bid_says_so() -> None:
    body = to_buyer(told(opened(selection=Selection.FIRST_BID, floor_shared_cents=None)), ACME)
    assert body["selection"] == "first_bid"
    assert body["floor"] == {"exclusive": "50.00", "shared": None}


def test_those_that_did_not_win_hear_the_result_and_the_winner_its_delivery_alone() -> None:
    ended = auction_closed(
        result(ACME, BidOutcome.WON), result(ZENITH, BidOutcome.OUTBID, 8_504), silent=(QUARTZ,)
    )
    found = told(ended, sold_exclusive(price_cents=8_503, auction_number=1), closed(ACME))
    assert [item.channel for item in found if item.recipient == ACME] == [Channel.BUYER_LEADS]
    lost = to_buyer(found, ZENITH)
    assert (lost["type"], lost["auction_number"], lost["ended_by"]) == ("auction_result", 1, "time_up")
    assert (lost["outcome"], lost["mode"], lost["minimum_to_win"]) == ("outbid", "exclusive", "85.04")
    silent = to_buyer(found, QUARTZ)
    assert (silent["outcome"], silent["mode"], silent["minimum_to_win"]) == ("no_answer", None, None)


@pytest.mark.parametrize("outcome", [outcome for outcome in BidOutcome if outcome is not BidOutcome.WON])
@pytest.mark.parametrize("reason", AuctionEnd)
def test_every_way_not_to_win_has_its_word(outcome: BidOutcome, reason: AuctionEnd) -> None:
    ended = auction_closed(result(ZENITH, outcome), reason=reason, mode=None)
    body = to_buyer(told(ended), ZENITH)
    assert (body["outcome"], body["ended_by"], body["minimum_to_win"]) == (outcome, reason, None)


def test_loser_that_is_asked_again_at_once_gets_one_record_with_the_new_ping_first() -> None:
    """One record to each (rule 19); what it should answer must not hide behind what is over."""
    ended = auction_closed(result(ACME, BidOutcome.BELOW_FLOOR, 5_000), mode=None)
    body = to_buyer(told(ended, opened(auction_number=2)), ACME)
    assert (body["type"], body["auction_number"]) == ("ping", 2)
    (also,) = body["also"]
    assert (also["type"], also["auction_number"], also["outcome"]) == ("auction_result", 1, "below_floor")


def test_loser_that_then_buys_gets_its_delivery_and_its_result_on_their_own_topics() -> None:
    ended = auction_closed(result(ACME, BidOutcome.BELOW_FLOOR, 5_000), mode=None)
    found = told(ended, sold(price_cents=1_500))
    assert to_buyer(found, ACME)["outcome"] == "below_floor"
    assert to_buyer(found, ACME, Channel.BUYER_LEADS)["price"] == "15.00"


def test_own_bid_and_own_refusal_to_bid_are_not_told_back() -> None:
    placed = BidPlaced(
        auction_number=1,
        buyer_id=ACME,
        order_id="acme/all",
        exclusive_cents=8_500,
        shared_cents=None,
        answered_at_ms=AT_MS,
    )
    declined = BidDeclined(
        auction_number=1, buyer_id=ZENITH, reason=NoBidReason.CAPACITY, answered_at_ms=AT_MS
    )
    assert told(placed, declined) == []


@pytest.mark.parametrize("reason", VoidReason)
def test_buyer_of_a_void_bid_is_told_why(reason: VoidReason) -> None:
    voided = BidVoided(
        auction_number=1,
        buyer_id=ACME,
        exclusive_cents=8_500,
        shared_cents=None,
        answered_at_ms=AT_MS,
        reason=reason,
    )
    body = to_buyer(told(voided), ACME)
    assert (body["type"], body["auction_number"], body["reason"]) == ("bid_void", 1, reason)


def test_return_that_waits_for_an_operator_is_pending() -> None:
    body = to_buyer(told(REQUESTED), ACME)
    assert (body["type"], body["sale_id"], body["reason"]) == ("return_pending", SALE_ID, "invalid_contact")


def test_return_that_is_approved_at_once_is_told_as_approved_alone() -> None:
    body = to_buyer(told(REQUESTED, approved()), ACME)
    assert (body["type"], body["credited"], body["automatic"]) == ("return_approved", "45.01", True)
    assert "also" not in body


@pytest.mark.parametrize("reason", ReturnRefusal)
def test_return_that_is_refused_is_told_why(reason: ReturnRefusal) -> None:
    refused = ReturnRefused(sale_number=1, sale_id=SALE_ID, buyer_id=ACME, reason=reason)
    body = to_buyer(told(REQUESTED, refused), ACME)
    assert (body["type"], body["reason"]) == ("return_refused", reason)


def test_limit_that_is_used_up_is_told_with_when_it_counts_anew() -> None:
    body = to_buyer(told(LIMIT), ACME)
    assert (body["order"], body["limit"]) == ("acme/all", "leads_per_day")
    assert body["resumes_at"] == iso_time(AT_MS + 3_600_000)


def test_several_limits_of_one_buyer_stand_in_one_record() -> None:
    credit = LimitReached(buyer_id=ACME, order_id="acme/all", limit="account", resumes_at_ms=None)
    body = to_buyer(told(LIMIT, credit), ACME)
    assert [body["limit"], *(also["limit"] for also in body["also"])] == ["leads_per_day", "account"]


@pytest.mark.parametrize(
    ("kind", "cents", "amount"),
    [(MoneyKind.DEPOSIT, 500_000, "5000.00"), (MoneyKind.ADJUSTMENT, -250, "-2.50")],
)
def test_movement_of_money_is_told_to_its_account(kind: MoneyKind, cents: int, amount: str) -> None:
    moved = MoneyMoved(
        buyer_id=ACME, kind=kind, reference="wire-77", amount_cents=cents, currency="USD", draws=()
    )
    body = to_buyer(told(moved), ACME)
    assert (body["type"], body["kind"], body["amount"], body["reference"]) == (
        "account",
        kind,
        amount,
        "wire-77",
    )
    assert "lead_id" not in body


@pytest.mark.parametrize("command", ["place_bid", "upgrade_sale", "return_lead"])
def test_refused_command_of_a_buyer_is_told(command: str) -> None:
    refused = CommandRefused(command=command, buyer_id=ACME, reason=RefusalReason.NOT_A_HOLDER)
    assert to_buyer(told(refused), ACME)["command"] == command


@pytest.mark.parametrize("command", ["move_money", "decide_return", "withdraw_lead"])
def test_refused_command_of_an_operator_is_not_told_to_a_buyer(command: str) -> None:
    assert told(CommandRefused(command=command, buyer_id=ACME, reason=RefusalReason.WRONG_CURRENCY)) == []


# Planted bugs: what the checks in `tests.support.telling` would find.

AUCTION = (
    auction_closed(result(ACME, BidOutcome.WON), result(ZENITH, BidOutcome.OUTBID, 8_504)),
    sold_exclusive(price_cents=8_503),
    closed(ACME),
)


def test_price_told_to_a_loser_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pings._result
    monkeypatch.setattr(
        pings, "_result", lambda ended, *rest: {**honest(ended, *rest), "winning_price": "85.03"}
    )
    assert leaks(react(entry_of(AUCTION), AUCTION, 3), AUCTION)


def test_winner_named_to_a_loser_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pings._result
    monkeypatch.setattr(pings, "_result", lambda ended, *rest: {**honest(ended, *rest), "won_by": ACME})
    assert leaks(react(entry_of(AUCTION), AUCTION, 3), AUCTION) == ["zenith is told of acme"]


def test_rivals_named_in_a_ping_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pings._ping
    monkeypatch.setattr(
        pings,
        "_ping",
        lambda auction, own: {**honest(auction, own), "invited": [each.buyer_id for each in auction.invited]},
    )
    events: tuple[Event, ...] = (opened(invitation(ACME), invitation(ZENITH)),)
    assert leaks(react(entry_of(events), events, 3), events)


def test_record_that_its_schema_does_not_know_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pings, "_amount_or_none", lambda cents: cents)
    assert complaints(react(entry_of(AUCTION), AUCTION, 3))


def test_every_event_that_is_told_on_pings_is_listed_there() -> None:
    """`PINGED` keeps the hot path from looking at events that nobody hears of; none may be missing from it."""
    examples: tuple[Event, ...] = (opened(), auction_closed(), REQUESTED, approved(), REFUSED, LIMIT)
    assert {type(event) for event in examples} <= pings.PINGED
    assert {AuctionOpened, AuctionClosed, OfferMade, BidVoided, MoneyMoved, CommandRefused} <= pings.PINGED
    assert not {BidPlaced, BidDeclined} & pings.PINGED
