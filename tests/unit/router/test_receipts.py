"""A source hears what its leads earn and what is taken back, in one receipt an entry; never who bought."""

from __future__ import annotations

from typing import Any

import pytest

from services.contract.events import DeliveryFailed, Event, FailureReason, LeadListed, Outcome
from services.contract.ids import sale_id_of
from services.router import deliveries, messages, receipts
from services.router.messages import Channel, react
from tests.support.telling import (
    AT_MS,
    BUYERS,
    LEAD_ID,
    SOURCE_ID,
    closed,
    entry_of,
    leaks,
    sold,
    to_source,
    told,
    upgraded,
)
from tests.unit.router.test_pings import REFUSED, REQUESTED, approved


def listed(**changes: Any) -> LeadListed:
    values: dict[str, Any] = {
        "source_id": SOURCE_ID,
        "lead_type": "solar",
        "plan": "standard",
        "quality": 80,
        "fields": {"state": "AZ"},
        "sales_max": 3,
        "never_to": (),
        "created_at_ms": AT_MS,
        "market_version": 1,
        "is_test": False,
        **changes,
    }
    return LeadListed(**values)


def failed(**changes: Any) -> DeliveryFailed:
    values: dict[str, Any] = {
        "sale_number": 1,
        "sale_id": sale_id_of(LEAD_ID, 1),
        "buyer_id": BUYERS[0],
        "price_cents": 4_501,
        "currency": "USD",
        "reason": FailureReason.VAULT_ERASED,
        "is_test": False,
        **changes,
    }
    return DeliveryFailed(**values)


def test_source_that_is_paid_per_lead_hears_it_with_the_listing() -> None:
    found = told(listed(payout_cents=1_200, currency="USD"), closed(outcome=Outcome.UNSOLD))
    assert to_source(found) == [
        {"type": "earned", "payout": "12.00", "currency": "USD"},
        {"type": "closed", "outcome": "unsold", "sales": 0},
    ]


def test_listing_that_earns_nothing_gets_no_receipt() -> None:
    """Neither a test lead, nor one of a source that is paid otherwise; intake has said that it was accepted."""
    assert told(listed()) == []
    assert told(listed(currency="USD", is_test=True)) == []


def test_share_of_each_sale_is_on_the_receipt_and_not_the_price() -> None:
    found = told(sold(1, payout_cents=2_700), sold(2, payout_cents=2_550, earlier=0))
    assert to_source(found) == [
        {
            "type": "sold",
            "sale_number": 1,
            "sales_max": 3,
            "mode": "shared",
            "payout": "27.00",
            "currency": "USD",
        },
        {
            "type": "sold",
            "sale_number": 2,
            "sales_max": 3,
            "mode": "shared",
            "payout": "25.50",
            "currency": "USD",
        },
    ]


def test_upgrade_is_on_the_receipt_with_its_share_of_the_fee() -> None:
    found = told(sold(), upgraded(payout_cents=4_500), closed(BUYERS[0]))
    assert [item["type"] for item in to_source(found)] == ["sold", "upgraded", "closed"]
    assert to_source(found)[1] == {
        "type": "upgraded",
        "sale_number": 1,
        "payout": "45.00",
        "currency": "USD",
    }


def test_return_tells_the_source_what_is_taken_back() -> None:
    assert to_source(told(REQUESTED, approved(payout_cents=2_700))) == [
        {"type": "returned", "sale_number": 1, "taken_back": "27.00", "currency": "USD"}
    ]
    assert to_source(told(approved())) == [{"type": "returned", "sale_number": 1}]


def test_return_that_is_asked_for_or_refused_is_no_affair_of_the_source() -> None:
    for events in ((REQUESTED,), (REQUESTED, REFUSED)):
        assert not [item for item in told(*events) if item.channel is Channel.SOURCE_RECEIPTS]


def test_delivery_that_failed_tells_the_source_what_is_taken_back_if_anything_is() -> None:
    assert to_source(told(failed(source_id=SOURCE_ID, payout_cents=2_700))) == [
        {"type": "delivery_failed", "sale_number": 1, "taken_back": "27.00", "currency": "USD"}
    ]
    for event in (failed(), failed(source_id=SOURCE_ID)):
        assert not [item for item in told(event) if item.channel is Channel.SOURCE_RECEIPTS]


def test_one_receipt_tells_all_of_an_entry_from_the_listing_to_the_close() -> None:
    found = told(listed(payout_cents=800, currency="USD"), sold(), sold(2, earlier=0), closed(*BUYERS[:2]))
    assert [item["type"] for item in to_source(found)] == ["earned", "sold", "sold", "closed"]


# Planted bugs.


def test_buyer_named_to_a_source_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = deliveries.sold_briefly
    monkeypatch.setattr(receipts, "sold_briefly", lambda sale: {**honest(sale), "buyer": sale.buyer_id})
    events: tuple[Event, ...] = (sold(),)
    assert leaks(react(entry_of(events), events, 3), events) == ["sunform is told of acme"]


def test_price_told_to_a_source_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = deliveries.sold_briefly
    monkeypatch.setattr(receipts, "sold_briefly", lambda sale: {**honest(sale), "price": "45.01"})
    events: tuple[Event, ...] = (sold(),)
    assert leaks(react(entry_of(events), events, 3), events)


def test_price_told_to_another_holder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = deliveries.sold_briefly
    monkeypatch.setattr(messages, "sold_briefly", lambda sale: {**honest(sale), "price": "42.51"})
    events: tuple[Event, ...] = (sold(2),)
    assert leaks(react(entry_of(events), events, 3), events)
