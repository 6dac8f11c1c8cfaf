"""A lead's story says what was decided, in sentences with the reader's own time, and what everybody was told."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from services.cli.story import Chapter, Line, LocalClock, tell
from services.contract.entries import Cause, CauseKind, Entry
from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Disposition,
    DispositionReported,
    Event,
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
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
    WithdrawalReason,
)
from services.contract.ids import sale_id_of
from services.contract.market import Mode

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
