"""A lead's story says what was decided, in sentences with the reader's own time, and what everybody was told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.cli.story import Chapter, Line, LocalClock, tell
from services.contract.entries import Cause, CauseKind, Entry
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidDeclined,
    BidOutcome,
    BidPlaced,
    BidResult,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    Disposition,
    DispositionReported,
    Event,
    FailureReason,
    Invitation,
    LeadClosed,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    LimitReached,
    MoneyKind,
    MoneyMoved,
    NoBidReason,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    Outcome,
    RefusalReason,
    RejectionReason,
    ReturnApproved,
    ReturnReason,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
    StageStarted,
    VoidReason,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
    WithdrawalReason,
)
from services.contract.ids import sale_id_of
from services.contract.market import Mode, Selection, Sell

LEAD = "3f276050-d4f1-5f5c-bcc4-f72e1c5a5436"
AT_MS = 1_790_000_000_123  # 2026-09-21 14:13:20.123 UTC
HOUR_MS = 3_600_000
LISTED = LeadListed(
    source_id="sunform",
    lead_type="roofing",
    plan="staggered",
    quality=40,
    fields={"state": "AZ"},
    sales_max=3,
    never_to=(),
    created_at_ms=AT_MS,
    market_version=1,
    is_test=False,
)
OFFER = OfferMade(
    offer_number=1,
    buyer_id="brightroof",
    order_id="brightroof/storm-roofs",
    stage=0,
    mode=Mode.EXCLUSIVE,
    price_cents=7_000,
    currency="USD",
    sale_number=1,
    sales_max=3,
    exclusive_for_ms=72 * HOUR_MS,
    answer_by_ms=AT_MS + 600_000,
    lead_type="roofing",
    quality=40,
    fields={"state": "AZ"},
    holders=(),
    is_test=False,
)


def sold(
    number: int = 1,
    *,
    buyer_id: str = "brightroof",
    mode: Mode = Mode.SHARED,
    exclusive_until_ms: int | None = None,
    offer_number: int | None = None,
    holders: tuple[str, ...] = (),
) -> LeadSold:
    return LeadSold(
        sale_number=number,
        sale_id=sale_id_of(LEAD, number),
        buyer_id=buyer_id,
        order_id=f"{buyer_id}/roofs",
        source_id="sunform",
        lead_type="roofing",
        plan="staggered",
        stage=0,
        mode=mode,
        price_cents=7_000,
        currency="USD",
        sales_max=3,
        exclusive_until_ms=exclusive_until_ms,
        others_may_follow=True,
        others_from_ms=exclusive_until_ms,
        holders=holders,
        held_since_ms=AT_MS if holders else None,
        offer_number=offer_number,
        quality=40,
        created_at_ms=AT_MS,
        is_test=False,
    )


def closed(outcome: Outcome = Outcome.SOLD_OUT, holders: tuple[str, ...] = ("brightroof",)) -> LeadClosed:
    return LeadClosed(
        outcome=outcome,
        source_id="sunform",
        lead_type="roofing",
        plan="staggered",
        holders=holders,
        is_test=False,
    )


def chapter(
    *events: Event, at_ms: int = AT_MS, seq: int = 1, cause: CauseKind = CauseKind.QUALIFIED
) -> Chapter:
    entry = Entry(
        seq=seq,
        prev_hash=bytes(32),
        cause=Cause(kind=cause, offset=7),
        market_version=1,
        no_room=(),
        lead_id=LEAD,
        decided_at_ms=at_ms,
        events=(),
    )
    return Chapter(entry=entry, events=events)


def told(*chapters: Chapter, zone: str = "UTC") -> list[Line]:
    return tell(chapters, partition=4, clock=LocalClock(ZoneInfo(zone)))


def sentences(*events: Event, cause: CauseKind = CauseKind.QUALIFIED) -> list[str]:
    return [line.sentence for line in told(chapter(*events, cause=cause)) if not line.is_message]


def messages(*events: Event) -> dict[str, str]:
    return {line.kind: line.sentence for line in told(chapter(*events)) if line.is_message}


def test_tells_what_was_listed_and_how_it_is_sold() -> None:
    assert sentences(LISTED) == [
        "Listed: a lead of type roofing from sunform, quality 40, for sale by plan staggered to at most 3 buyers."
    ]


def test_an_offer_is_told_with_its_deadline_in_the_readers_time() -> None:
    (line,) = told(chapter(OFFER), zone="America/New_York")
    assert line.sentence == (
        "Offered to brightroof (order brightroof/storm-roofs) without contact details: exclusive for 3 days, for "
        "70.00 USD, if it accepts by 10:23:20."
    )


def test_a_time_on_another_day_has_its_date() -> None:
    window = WindowOpened(window_number=1, kind=WindowKind.EXCLUSIVITY, due_at_ms=AT_MS + 72 * HOUR_MS)
    assert sentences(window) == ["Nobody else may get it before 2026-09-24 14:13:20."]


@pytest.mark.parametrize(
    ("sale", "terms"),
    [
        (sold(mode=Mode.EXCLUSIVE), "exclusive, for good"),
        (
            sold(mode=Mode.EXCLUSIVE, exclusive_until_ms=AT_MS + HOUR_MS),
            "exclusive until 15:13:20, number 1 of at most 3",
        ),
        (sold(2, buyer_id="gridwatt", holders=("brightroof",)), "shared, number 2 of at most 3"),
    ],
    ids=["for good", "for a time", "shared"],
)
def test_a_sale_is_told_with_its_terms(sale: LeadSold, terms: str) -> None:
    (sentence,) = sentences(sale)
    assert sentence == f"Sold to {sale.buyer_id} (order {sale.buyer_id}/roofs), for 70.00 USD: {terms}."


def test_a_sale_by_offer_says_so() -> None:
    (sentence,) = sentences(sold(offer_number=1))
    assert ", who accepted its offer, for" in sentence


def test_every_outcome_has_its_words() -> None:
    for outcome in Outcome:
        (sentence,) = sentences(closed(outcome))
        assert sentence.startswith("Closed: ")
    assert sentences(closed(Outcome.UNSOLD, holders=())) == ["Closed: unsold; held by nobody."]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (StageStarted(stage=1), "Selling went on to stage 2 of the plan."),
        (
            OfferRejected(offer_number=1, buyer_id="oak", reason=RejectionReason.PRICE),
            "oak rejected the offer (reason: price).",
        ),
        (OfferExpired(offer_number=1, buyer_id="oak"), "oak is not asked again."),
        (OfferWithdrawn(offer_number=1, buyer_id="oak"), "was withdrawn, because the selling ended."),
        (
            DispositionReported(sale_number=2, buyer_id="oak", disposition=Disposition.NO_DEAL),
            "oak reported: no deal (sale 2).",
        ),
        (WithdrawalNoted(reason=WithdrawalReason.OPERATOR), "Withdrawn before it was listed (operator)"),
        (
            CommandRefused(command="accept_offer", buyer_id="oak", reason=RefusalReason.OFFER_TOO_LATE),
            "Refused: accept offer of oak (reason: offer too late).",
        ),
        (
            DeliveryFailed(
                sale_number=1,
                sale_id="s",
                buyer_id="oak",
                price_cents=4_000,
                currency="USD",
                reason=FailureReason.RECORD_TOO_LARGE,
                is_test=False,
            ),
            "(record too large): 40.00 USD credited; sale 1 stays used.",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_every_event_has_its_sentence(event: Event, words: str) -> None:
    (sentence,) = sentences(event)
    assert words in sentence


@pytest.mark.parametrize("kind", WindowKind)
def test_a_window_that_time_closed_is_told_by_what_it_was(kind: WindowKind) -> None:
    opened = chapter(WindowOpened(window_number=3, kind=kind, due_at_ms=AT_MS + 1_000))
    due = chapter(WindowClosed(window_number=3), seq=2, cause=CauseKind.TIMER)
    lines = [line for line in told(opened, due) if line.kind == "WindowClosed"]
    assert len(lines) == (0 if kind is WindowKind.ACCEPTANCE else 1)


def test_a_window_that_is_no_longer_needed_goes_without_saying() -> None:
    opened = chapter(WindowOpened(window_number=1, kind=WindowKind.ACCEPTANCE, due_at_ms=AT_MS + 1_000))
    answered = chapter(WindowClosed(window_number=1), seq=2, cause=CauseKind.COMMAND)
    assert told(opened, answered) == []


def test_a_delivery_quotes_the_promise_that_the_buyer_got() -> None:
    found = messages(sold(mode=Mode.EXCLUSIVE, exclusive_until_ms=AT_MS + HOUR_MS))
    assert found["delivery"].startswith(
        "brightroof gets the lead, and is told: “Exclusive until 2026-09-21 15:13:20 UTC"
    )
    assert found["receipt"] == "sunform, its source, gets a receipt: sold exclusive, number 1 of at most 3."


def test_holders_are_told_of_further_sales_and_of_the_close() -> None:
    found = messages(
        sold(2, buyer_id="gridwatt", holders=("brightroof",)), closed(holders=("brightroof", "gridwatt"))
    )
    assert found["notice"] == (
        "brightroof, a holder, gets a notice: sold shared, number 2 of at most 3; closed (sold out); 2 hold it."
    )


def test_an_offers_message_is_not_told_twice() -> None:
    assert messages(OFFER) == {}


def test_lines_are_in_the_order_of_the_log_with_their_times_and_facts() -> None:
    lines = told(chapter(LISTED), chapter(closed(Outcome.UNSOLD, ()), at_ms=AT_MS + 5, seq=2))
    assert [(line.kind, line.seq, line.at_ms) for line in lines] == [
        ("LeadListed", 1, AT_MS),
        ("LeadClosed", 2, AT_MS + 5),
        ("receipt", 2, AT_MS + 5),
    ]
    assert lines[0].fact["plan"] == "staggered"


def test_a_moment_is_written_with_date_and_milliseconds() -> None:
    assert LocalClock(UTC).moment(AT_MS) == "2026-09-21 14:13:20.123"
    assert LocalClock(ZoneInfo("America/New_York")).name(AT_MS) == "EDT"


# Auctions, and what comes after a sale.

AUCTION = AuctionOpened(
    auction_number=1,
    stage=0,
    selection=Selection.PING_POST,
    sell=Sell.EITHER,
    bids_until_ms=AT_MS + 500,
    closes_at_ms=AT_MS + 550,
    floor_exclusive_cents=5_000,
    floor_shared_cents=1_800,
    currency="USD",
    invited=tuple(
        Invitation(buyer_id=buyer_id, order_id=f"{buyer_id}/all", modes=(Mode.EXCLUSIVE,))
        for buyer_id in ("oak", "elm", "pine")
    ),
    sale_number=1,
    sales_max=3,
    exclusive_for_ms=None,
    lead_type="mortgage",
    quality=60,
    fields={"state": "NY"},
    holders=(),
    is_test=False,
)
RETURN: dict[str, Any] = {"sale_number": 1, "sale_id": sale_id_of(LEAD, 1), "buyer_id": "oak"}
AFTER_SALES: list[tuple[Event, str]] = [
    (
        AUCTION,
        "Auction 1: asked oak, elm and pine for bids by 14:13:20, from 50.00 USD exclusive or 18.00 USD shared.",
    ),
    (
        replace(AUCTION, selection=Selection.FIRST_BID, floor_shared_cents=None),
        "Auction 1: asked oak, elm and pine for bids by 14:13:20, from 50.00 USD exclusive, the first of which wins.",
    ),
    (
        BidPlaced(
            auction_number=1,
            buyer_id="oak",
            order_id="oak/all",
            exclusive_cents=8_500,
            shared_cents=3_400,
            answered_at_ms=AT_MS,
        ),
        "oak bid 85.00 exclusive or 34.00 shared.",
    ),
    (
        BidDeclined(auction_number=1, buyer_id="elm", reason=NoBidReason.CAPACITY, answered_at_ms=AT_MS),
        "elm does not bid (reason: capacity).",
    ),
    (
        BidVoided(
            auction_number=1,
            buyer_id="elm",
            exclusive_cents=None,
            shared_cents=None,
            answered_at_ms=AT_MS,
            reason=VoidReason.ANSWERED_BEFORE,
        ),
        "The bid of elm counts for nothing (reason: answered before).",
    ),
    (
        AuctionClosed(
            auction_number=1,
            reason=AuctionEnd.TIME_UP,
            mode=Mode.EXCLUSIVE,
            exclusive_cents=8_500,
            shared_cents=6_800,
            results=(
                BidResult(
                    buyer_id="oak", outcome=BidOutcome.WON, mode=Mode.EXCLUSIVE, minimum_to_win_cents=None
                ),
                BidResult(
                    buyer_id="elm",
                    outcome=BidOutcome.OUTBID,
                    mode=Mode.EXCLUSIVE,
                    minimum_to_win_cents=8_501,
                ),
            ),
            silent=("pine",),
        ),
        "Auction 1 closed, because the time was up: it went exclusive; 85.00 exclusive against 68.00 shared in all; "
        "oak won; elm was outbid (85.01 exclusive would have won); no answer from pine.",
    ),
    (
        AuctionClosed(
            auction_number=1,
            reason=AuctionEnd.ALL_ANSWERED,
            mode=None,
            exclusive_cents=None,
            shared_cents=None,
            results=(),
            silent=(),
        ),
        "Auction 1 closed, because all had answered: nothing was sold.",
    ),
    (
        LeadUpgraded(
            **RETURN,
            order_id="oak/all",
            source_id="sunform",
            slots_closed=2,
            fee_cents=7_500,
            currency="USD",
            payout_cents=4_500,
            draws=(),
            is_test=False,
        ),
        "oak closed the remaining 2 slots for 75.00 USD: exclusive from here on, for good; "
        "its source earns 45.00 USD.",
    ),
    (
        ReturnRequested(**RETURN, reason=ReturnReason.WRONG_PERSON),
        "oak wants to give sale 1 back (reason: wrong person).",
    ),
    (
        ReturnApproved(
            **RETURN,
            source_id="sunform",
            price_cents=4_500,
            currency="USD",
            automatic=True,
            payout_cents=2_700,
            draws=(),
            is_test=False,
        ),
        "The return of sale 1 was approved by the rules: 45.00 USD credited to oak, 27.00 USD taken back from its "
        "source; its disclosure stays counted.",
    ),
    (
        ReturnRefused(**RETURN, reason=ReturnRefusal.TOO_LATE),
        "The return of sale 1 was refused (reason: too late).",
    ),
    (
        MoneyMoved(
            buyer_id="oak",
            kind=MoneyKind.ADJUSTMENT,
            reference="note-7",
            amount_cents=-250,
            currency="USD",
            draws=(),
        ),
        "Account of oak: adjustment of -2.50 USD (note-7).",
    ),
    (
        LimitReached(
            buyer_id="oak", order_id="oak/all", limit="leads_per_day", resumes_at_ms=AT_MS + 12 * HOUR_MS
        ),
        "Order oak/all was passed over: leads per day is used up, until 2026-09-22 02:13:20.",
    ),
    (
        LimitReached(buyer_id="oak", order_id="oak/all", limit="account", resumes_at_ms=None),
        "Order oak/all was passed over: account is used up.",
    ),
]


@pytest.mark.parametrize(("event", "sentence"), AFTER_SALES, ids=lambda value: type(value).__name__)
def test_auctions_and_what_comes_after_a_sale_have_their_sentences(event: Event, sentence: str) -> None:
    assert sentences(event) == [sentence]


def test_every_end_of_an_auction_and_of_a_bid_has_its_words() -> None:
    for reason, outcome in product(AuctionEnd, BidOutcome):
        result = BidResult(buyer_id="oak", outcome=outcome, mode=None, minimum_to_win_cents=None)
        event = AuctionClosed(
            auction_number=2,
            reason=reason,
            mode=None,
            exclusive_cents=None,
            shared_cents=None,
            results=(result,),
            silent=(),
        )
        assert len(sentences(event)) == 1


def test_a_sale_by_auction_says_so_and_what_its_source_earns() -> None:
    (sentence,) = sentences(replace(sold(), auction_number=2, payout_cents=4_200))
    assert ", who won auction 2, for 70.00 USD: " in sentence
    assert sentence.endswith("; its source earns 42.00 USD.")


def test_a_sale_that_may_be_upgraded_tells_the_fee() -> None:
    (sentence,) = sentences(replace(sold(), upgrade_fee_cents=7_500))
    assert sentence.endswith("shared, number 1 of at most 3, to be had alone for 75.00 USD more.")


def test_listing_tells_whom_its_consent_names() -> None:
    (sentence,) = sentences(replace(LISTED, consented_buyers=("brightroof", "gridwatt")))
    assert "at most 3 buyers, only to brightroof and gridwatt, by its consent." in sentence


def test_a_listing_tells_what_its_source_earns_by_it() -> None:
    (sentence,) = sentences(replace(LISTED, payout_cents=1_200, currency="USD"))
    assert sentence.endswith("to at most 3 buyers; its source earns 12.00 USD.")


def test_an_upgrade_quotes_the_promise_that_its_holder_got() -> None:
    (upgrade,) = [event for event, _ in AFTER_SALES if isinstance(event, LeadUpgraded)]
    found = messages(upgrade)
    assert found["notice"].startswith("oak, its holder, is told: “Exclusive, for good")
    assert found["receipt"] == (
        "sunform, its source, gets a receipt: upgraded, sale 1, which earns 45.00 USD."
    )


def test_a_receipt_tells_what_is_taken_back() -> None:
    (approved,) = [event for event, _ in AFTER_SALES if isinstance(event, ReturnApproved)]
    assert messages(approved)["receipt"].endswith("returned, sale 1, which takes back 27.00 USD.")
