"""Offers across a take-over: an answer given in time counts, whatever is read first (protocol.md, rule 27)."""

from __future__ import annotations

import pytest

from services.bus.memory import MemoryHost
from services.bus.ports import TopicPartition
from services.contract.events import Event, LeadClosed, LeadSold, OfferExpired, Outcome
from services.contract.ids import partition_of
from services.contract.inputs import AcceptOffer, QualifiedLead, TimerDue
from services.contract.times import MINUTE_MS
from tests.support.deciding import exclusive_stage, lead, market, order, plan
from tests.support.routing import PARTITIONS, TOPICS, World, world

pytestmark = pytest.mark.stream

OFFERED = market(
    plan(exclusive_stage(9000, accept_within_ms=MINUTE_MS), sales_max=1),
    orders=(order("a", exclusive="list"),),
)


def _offered() -> tuple[World, QualifiedLead]:
    given, item = world(OFFERED), lead("offered")
    given.send(item)
    given.worker().drain()
    return given, item


def _timer_first(given: World, item: QualifiedLead) -> MemoryHost:
    """Start a successor that is handed the due timer before anything else; then it reads on."""
    given.clock.advance(10 * MINUTE_MS)
    given.send(TimerDue(lead_id=item.lead_id, window_number=1))
    host = given.worker()
    where = TopicPartition(TOPICS.timers, partition_of(item.lead_id, PARTITIONS))
    assert not host.step.handle(given.kafka.records[where])
    host.positions[where] += 1
    host.drain()
    return host


def _events(given: World) -> list[Event]:
    return [event for _, event in given.events()]


def test_offer_accepted_in_time_while_no_router_ran_is_sold_though_its_timer_is_read_first() -> None:
    given, item = _offered()
    given.send(
        AcceptOffer(
            lead_id=item.lead_id, buyer_id="a", offer_number=1, answered_at_ms=given.clock.now_ms + 1_000
        )
    )
    _timer_first(given, item)
    assert [event.buyer_id for event in _events(given) if isinstance(event, LeadSold)] == ["a"]
    assert not [event for event in _events(given) if isinstance(event, OfferExpired)]


def test_offer_that_nobody_answered_meanwhile_ends_with_its_first_timer() -> None:
    given, item = _offered()
    _timer_first(given, item)
    assert [event.outcome for event in _events(given) if isinstance(event, LeadClosed)] == [Outcome.UNSOLD]


def test_offer_whose_timer_came_too_early_after_a_take_over_ends_when_it_is_sent_again() -> None:
    given, item = _offered()
    other = AcceptOffer(lead_id=item.lead_id, buyer_id="a", offer_number=2, answered_at_ms=1)
    given.send(other)
    host = _timer_first(given, item)
    assert not [event for event in _events(given) if isinstance(event, LeadClosed)]
    given.send(TimerDue(lead_id=item.lead_id, window_number=1))
    host.drain()
    assert [event.outcome for event in _events(given) if isinstance(event, LeadClosed)] == [Outcome.UNSOLD]
