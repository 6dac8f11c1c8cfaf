"""The router while the market changes under open leads: lead types, orders, buyers and sources come and go."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import pytest

from services.bus.ports import Stopped, Unacknowledged
from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Event,
    FailureReason,
    LeadClosed,
    LeadSold,
    OfferMade,
    Outcome,
    RefusalReason,
)
from services.contract.inputs import AcceptOffer, QualifiedLead, TimerDue
from services.contract.market import Between, FieldKind, FieldType, Market
from services.contract.times import MINUTE_MS
from services.router.ports import Head
from tests.support.deciding import exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import PARTITIONS, TOPICS, World, world

pytestmark = pytest.mark.stream

_E = TypeVar("_E", bound=Event)

OFFERED = market(
    plan(exclusive_stage(9000, accept_within_ms=MINUTE_MS), sales_max=1),
    orders=(order("a", exclusive="list"), order("b", exclusive=8000)),
)
SHARED = market(plan(shared_stage(4500)), orders=(order("a", shared="list"),))


def _apply(given: World, changed: Market) -> None:
    given.earlier[given.market.version] = given.market
    given.market = replace(changed, version=given.market.version + 1)


def _offered() -> tuple[World, QualifiedLead]:
    """A lead on offer to one buyer."""
    given, item = world(OFFERED), lead("offered")
    given.send(item)
    given.worker().drain()
    assert [event.buyer_id for event in _all(given, OfferMade)] == ["a"]
    return given, item


def _all(given: World, kind: type[_E]) -> list[_E]:
    return [event for _, event in given.events() if isinstance(event, kind)]


def _outcomes(given: World) -> list[Outcome]:
    return [event.outcome for event in _all(given, LeadClosed)]


def _accept(item: QualifiedLead, given: World, buyer_id: str = "a") -> AcceptOffer:
    return AcceptOffer(
        lead_id=item.lead_id, buyer_id=buyer_id, offer_number=1, answered_at_ms=given.clock.now_ms
    )


@pytest.mark.parametrize("kind", [FieldType.NUMBER, FieldType.AMOUNT])
def test_lead_of_a_field_s_former_kind_meets_no_bound_on_it(kind: FieldType) -> None:
    """A field was a text when the lead was accepted, and is a number now: no order's bounds can mean it."""
    given = world(SHARED)
    wants = order("a", shared="list", where=(("state", Between(low=1, high=None)),))
    kinds = {**SHARED.lead_types["solar"].details, "state": FieldKind(type=kind)}
    retyped = replace(SHARED.lead_types["solar"], details=kinds)
    buyers = {"a": replace(SHARED.buyers["a"], orders=(wants,))}
    _apply(given, replace(SHARED, lead_types={"solar": retyped}, buyers=buyers))
    given.send(lead("old"))
    given.worker().drain()
    assert _outcomes(given) == [Outcome.UNSOLD]


def test_lead_whose_type_is_gone_is_closed_when_its_offer_ends() -> None:
    given, item = _offered()
    _apply(given, replace(OFFERED, lead_types={}, buyers={}))
    given.clock.advance(MINUTE_MS + 1_000)
    given.send(TimerDue(lead_id=item.lead_id, window_number=1))
    given.worker().drain()
    assert _outcomes(given) == [Outcome.UNSOLD]


def test_offer_of_an_order_that_is_gone_cannot_be_accepted_and_the_next_buyer_is_asked() -> None:
    given, item = _offered()
    _apply(given, replace(OFFERED, buyers={"b": OFFERED.buyers["b"]}))
    given.send(_accept(item, given))
    given.worker().drain()
    assert [event.reason for event in _all(given, CommandRefused)] == [RefusalReason.NO_ROOM]
    assert _all(given, LeadSold) == []


def test_offer_in_another_currency_cannot_be_accepted_nor_its_lead_be_sold_on() -> None:
    """What was 80.00 in one currency is another price in the next: such a lead is sold no more."""
    given, item = _offered()
    _apply(given, replace(OFFERED, currency="EUR"))
    given.send(_accept(item, given))
    given.worker().drain()
    assert _all(given, LeadSold) == []
    assert _outcomes(given) == [Outcome.UNSOLD]


def test_sale_s_delivery_fails_for_good_once_its_buyer_is_gone() -> None:
    given = world(SHARED)
    given.refuses = lambda message: (
        Unacknowledged(0, None, "no such topic") if message.topic.startswith("buyers.") else None
    )
    given.send(lead("sold"))
    given.worker().drain()
    assert _all(given, DeliveryFailed) == []
    _apply(given, replace(SHARED, buyers={}))
    given.clock.advance(2_000)
    given.worker().drain()
    assert [event.reason for event in _all(given, DeliveryFailed)] == [FailureReason.RECIPIENT_GONE]
    assert given.tables.undelivered == {}


def test_receipt_for_a_source_that_is_gone_is_dropped_and_nothing_is_retried() -> None:
    given = world(SHARED)
    given.send(lead("sold"))
    _apply(given, replace(SHARED, sources={}))
    given.refuses = lambda message: (
        Unacknowledged(0, None, "no such topic") if message.topic.startswith("sources.") else None
    )
    given.worker().drain()
    assert _outcomes(given) == [Outcome.PARTLY_SOLD]
    assert given.tables.undelivered == {}


def test_market_older_than_the_head_s_stops_the_worker() -> None:
    given = world(SHARED)
    given.tables.heads = {at: Head(partition=at, market_version=2) for at in range(PARTITIONS)}
    given.send(lead("any"))
    with pytest.raises(Stopped, match="was decided under 2 before"):
        given.worker().drain()
    assert given.kafka.topic(TOPICS.log) == []


def test_market_older_than_the_one_an_input_was_accepted_under_stops_the_worker() -> None:
    given = world(SHARED)
    given.send(lead("ahead", market_version=2))
    with pytest.raises(Stopped, match="accepted under market version 2"):
        given.worker().drain()
    assert given.kafka.topic(TOPICS.log) == []


def test_batch_is_decided_under_one_version_and_each_lead_keeps_the_plan_it_was_accepted_under() -> None:
    given = world(SHARED)
    dearer = market(plan(shared_stage(6000)), orders=(order("a", shared="list"),))
    given.send(lead("old"))
    _apply(given, dearer)
    given.send(lead("new", market_version=2))
    given.worker().drain()
    prices = {lead_id: event.price_cents for lead_id, event in given.events() if isinstance(event, LeadSold)}
    assert prices == {lead("old").lead_id: 4500, lead("new").lead_id: 6000}
    assert {entry.market_version for entries in given.log().values() for entry in entries} == {2}
