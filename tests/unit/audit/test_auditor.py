"""The auditor is silent about what the real router did, and finds each planted violation where it was planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.audit.auditor import Auditor
from services.audit.evidence import CloseRow
from services.audit.rules import RULES, Rule
from services.audit.states import SqliteLeadStates
from services.audit.violations import Violation
from services.bus.ports import Record, TopicPartition
from services.contract.cloudevents import outsider_headers
from services.contract.entries import Entry, hash_of
from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    BidOutcome,
    BidPlaced,
    BidVoided,
    Draw,
    ErasureAcknowledged,
    ErasureReason,
    Event,
    LeadClosed,
    LeadErased,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    MoneyKind,
    MoneyMoved,
    OfferMade,
    ReturnApproved,
    ReturnReason,
    StageStarted,
    VoidReason,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from services.contract.ids import account_id_of, partition_of
from services.contract.inputs import (
    AcceptOffer,
    AcknowledgeErasure,
    EraseLead,
    MoveMoney,
    PlaceBid,
    ReturnLead,
    TimerDue,
    UpgradeSale,
)
from services.contract.market import (
    Account,
    Cap,
    Market,
    Mode,
    Paid,
    Period,
    Returns,
    Sell,
    ShareOfRevenue,
    Unit,
    Upgrade,
)
from services.contract.outside_records import read_body
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, iso_time
from services.router.lead import Lead
from services.router.state_bytes import state_of
from tests.support.audit_evidence import (
    Evidence,
    MemoryTables,
    audited,
    by_time,
    evidence_of,
    log_first,
    log_last,
)
from tests.support.deciding import bid_stage, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import PARTITIONS, TOPICS, World, run_until_done, world

REFERENCES = tuple(f"lead-{number}" for number in range(12))
STAGGERED, SHARED, BIDDING = "staggered", "shared", "bidding"


def _market() -> Market:
    """Exclusive by offer, then shared after a wait; shared with an upgrade; an auction. All with money and caps."""
    given = market(
        plan(
            exclusive_stage(9_000, accept_within_ms=MINUTE_MS, exclusive_for_ms=2 * HOUR_MS),
            shared_stage(3_000, 2_500, wait_ms=HOUR_MS),
            name=STAGGERED,
            share_basis_points=3_500,
            expires_after_ms=DAY_MS,
        ),
        plan(
            shared_stage(4_500, 4_000, 3_500, upgrade=Upgrade(per_slot_cents=3_750, within_ms=2 * MINUTE_MS)),
            name=SHARED,
            share_basis_points=5_000,
        ),
        plan(bid_stage(Sell.EITHER, exclusive=5_000, shared=1_800), name=BIDDING),
        orders=(
            order(
                "acme",
                exclusive="list",
                shared="list",
                caps=(Cap(unit=Unit.LEADS, period=Period.DAY, most=50),),
            ),
            order("birch", exclusive="bid", shared="bid", name="bids"),
            order("cedar", exclusive="bid", shared="bid", name="bids"),
            order("delta", shared="list", caps=(Cap(unit=Unit.SPEND, period=Period.WEEK, most=900_000),)),
            order("elm", shared="list"),
        ),
    )
    solar = replace(
        given.lead_types["solar"],
        returns=Returns(within_ms=DAY_MS, reasons=("wrong_person",), quota_basis_points=10_000),
    )
    buyers = {
        **given.buyers,
        "acme": replace(given.buyers["acme"], account=Account(credit_limit_cents=500_000)),
    }
    source = replace(
        given.sources["sunform"], paid=Paid(by=ShareOfRevenue(basis_points=6_000), back_on_return=True)
    )
    return replace(given, lead_types={"solar": solar}, buyers=buyers, sources={"sunform": source})


def _lived(given: World) -> World:
    """Let leads be sold in every way, bid for, upgraded and returned, and money be paid in."""
    host = given.worker()
    given.send(*(lead(reference, received_at_ms=given.clock.now_ms) for reference in REFERENCES))
    account = account_id_of("acme")
    given.send(
        MoveMoney(
            lead_id=account,
            buyer_id="acme",
            kind=MoneyKind.DEPOSIT,
            # A word of the operator's, though a delivery's key is called so too.
            reference="contact",
            amount_cents=500,
            currency="USD",
        )
    )
    run_until_done(host)
    upgrades = 0
    for item in _open(given):
        if item.auction is not None:
            for rank, asked in enumerate(item.auction.invited):
                given.send(
                    PlaceBid(
                        lead_id=item.lead_id,
                        buyer_id=asked.buyer_id,
                        auction_number=item.auction.number,
                        exclusive_cents=6_000 + 500 * rank,
                        shared_cents=2_000 + 100 * rank,
                        answered_at_ms=item.auction.bids_until_ms + (1 if asked.buyer_id == "none" else 0),
                    )
                )
        elif item.offer is not None:
            given.send(
                AcceptOffer(
                    lead_id=item.lead_id,
                    buyer_id=item.offer.buyer_id,
                    offer_number=1,
                    answered_at_ms=given.clock.now_ms,
                )
            )
        elif len(item.sales) == 1 and not upgrades:
            upgrades += 1
            given.send(
                UpgradeSale(lead_id=item.lead_id, buyer_id=item.holders[0], answered_at_ms=given.clock.now_ms)
            )
    run_until_done(host)
    for item in [state for state in _leads(given) if state.sales][:3]:
        given.send(
            ReturnLead(
                lead_id=item.lead_id,
                buyer_id=item.holders[0],
                reason=ReturnReason.WRONG_PERSON,
                answered_at_ms=given.clock.now_ms,
            )
        )
    for _ in range(20):
        run_until_done(host)
        still = _open(given)
        if not still:
            _erase(given)
            run_until_done(host)
            return given
        given.clock.advance(HOUR_MS)
        given.send(
            *(TimerDue(lead_id=item.lead_id, window_number=w.number) for item in still for w in item.windows)
        )
    raise AssertionError("leads are never closed")


def _erase(given: World) -> None:
    """Have a lead forgotten that several hold, and one of them say that it followed."""
    held = next(state for state in _leads(given) if len(state.sales) > 1)
    given.send(EraseLead(lead_id=held.lead_id, reason=ErasureReason.ERASED))
    for buyer_id in held.holders[:1]:
        given.send(AcknowledgeErasure(lead_id=held.lead_id, buyer_id=buyer_id, by_operator=False))


def _leads(given: World) -> list[Lead]:
    return [state for data in given.tables.leads.values() if isinstance(state := state_of(data), Lead)]


def _open(given: World) -> list[Lead]:
    return [item for item in _leads(given) if item.outcome is None]


@cache
def _world() -> World:
    return _lived(world(_market()))


@cache
def _gathered() -> Evidence:
    return evidence_of(_world())


def _evidence() -> Evidence:
    """What the world left behind, a copy for each test to alter."""
    kept = _gathered()
    rows = {name: copy(getattr(kept.tables, name)) for name in MemoryTables.__slots__}
    return Evidence(
        {where: list(records) for where, records in kept.records.items()}, MemoryTables(**rows), kept.markets
    )


def sale_id_of_second(first_sale_id: str) -> str | None:
    """Find the sale that follows a lead's first one; None: none does."""
    sales = [(lead_id, event) for lead_id, event in _world().events() if isinstance(event, LeadSold)]
    seconds = {lead_id: event.sale_id for lead_id, event in sales if event.sale_number == 2}
    first_of = {event.sale_id: lead_id for lead_id, event in sales}
    return seconds.get(first_of[first_sale_id])


Change = Callable[[Any], Any]


def _retold(
    evidence: Evidence, kind: type, change: Change, nth: int = 0, wanted: Change = lambda _: True
) -> str:
    """Tell the n-th event of a kind otherwise (a list: several events in its place); return its entry's lead id."""
    seen, lead_id = -1, ""

    def retell(entry: Entry, events: list[Event]) -> Sequence[Event] | None:
        nonlocal seen, lead_id
        for index, event in enumerate(events):
            if isinstance(event, kind) and wanted(event):
                seen += 1
                if seen == nth:
                    lead_id = entry.lead_id
                    told = change(event)
                    return [
                        *events[:index],
                        *(told if isinstance(told, list) else [told]),
                        *events[index + 1 :],
                    ]
        return None

    evidence.rewrite_log(retell)
    assert lead_id, f"there is a {kind.__name__} to plant in"
    return lead_id


def _found(evidence: Evidence, **options: Any) -> list[Violation]:
    return audited(evidence, **options)[1]


def _changes(**values: Any) -> Change:
    return lambda event: replace(event, **values)


def _second_sale(event: LeadSold) -> bool:
    return event.sale_number == 2


def _with_draws(event: Any) -> bool:
    return bool(event.draws)


PLANTED_IN_THE_LOG: Sequence[tuple[Rule, type, Change, Change]] = (
    (Rule.SALES_ARE_NUMBERED, LeadSold, _changes(sale_number=3), _second_sale),
    (
        Rule.SALES_ARE_NUMBERED,
        LeadSold,
        _changes(sale_id="7e57ab1e-0000-5000-8000-000000000001"),
        _second_sale,
    ),
    (Rule.NEVER_THE_SAME_BUYER_TWICE, LeadSold, lambda e: replace(e, buyer_id=e.holders[0]), _second_sale),
    (Rule.NO_MORE_THAN_SALES_MAX, LeadListed, _changes(sales_max=4), lambda _: True),
    (Rule.NO_MORE_THAN_SALES_MAX, LeadSold, _changes(sales_max=1), _second_sale),
    (Rule.EXCLUSIVE_IS_THE_FIRST, LeadSold, _changes(mode=Mode.EXCLUSIVE), _second_sale),
    (
        Rule.NOTHING_BESIDE_AN_EXCLUSIVE_SALE,
        LeadSold,
        _changes(exclusive_until_ms=None),
        lambda e: e.exclusive_until_ms is not None,
    ),
    (
        Rule.NOT_BEFORE_THE_TIME_PROMISED,
        LeadSold,
        lambda e: replace(e, others_from_ms=(e.others_from_ms or 0) + DAY_MS),
        lambda e: e.upgrade_until_ms is not None and sale_id_of_second(e.sale_id) is not None,
    ),
    (Rule.UPGRADE_BY_THE_ONLY_HOLDER, LeadUpgraded, _changes(fee_cents=1), lambda _: True),
    (Rule.UPGRADE_BY_THE_ONLY_HOLDER, LeadUpgraded, _changes(slots_closed=1), lambda _: True),
    (
        Rule.WINDOW_LASTS,
        WindowOpened,
        lambda e: replace(e, due_at_ms=e.due_at_ms - 1),
        lambda e: e.kind is WindowKind.WAIT,
    ),
    (
        Rule.WINDOW_LASTS,
        WindowOpened,
        lambda e: replace(e, due_at_ms=e.due_at_ms + DAY_MS),
        lambda e: e.kind is WindowKind.EXCLUSIVITY,
    ),
    (Rule.WINDOW_LASTS, WindowClosed, lambda e: [e, e], lambda _: True),
    (Rule.SOLD_BY_ITS_PLAN, LeadSold, _changes(order_id="acme/none"), lambda e: e.buyer_id == "acme"),
    (Rule.SOLD_BY_ITS_PLAN, StageStarted, _changes(stage=2), lambda _: True),
    (Rule.SOLD_BY_ITS_PLAN, LeadSold, _changes(offer_number=None), lambda e: e.offer_number is not None),
    (Rule.ONLY_WITH_CONSENT, LeadListed, _changes(consented_buyers=("nobody",)), lambda _: True),
    (Rule.LISTED_ONCE, LeadListed, lambda e: [e, e], lambda _: True),
    (Rule.CLOSED_ONCE, LeadClosed, lambda e: [e, e], lambda _: True),
    (Rule.CLOSED_ONCE, LeadClosed, lambda _: [], lambda _: True),
    (Rule.NOTHING_AFTER_THE_CLOSE, LeadClosed, lambda e: [e, StageStarted(stage=1)], lambda _: True),
    (Rule.NOTHING_BEFORE_THE_LISTING, LeadListed, lambda e: [StageStarted(stage=1), e], lambda _: True),
    (Rule.DRAWS_ARE_COMPLETE, LeadSold, _changes(draws=()), _with_draws),
    (
        Rule.DRAWS_ARE_COMPLETE,
        LeadSold,
        lambda e: replace(e, draws=(*e.draws, Draw(counter="account:elm", amount=1))),
        _with_draws,
    ),
    (Rule.DRAWS_ARE_COMPLETE, ReturnApproved, _changes(draws=()), _with_draws),
    (Rule.DRAWS_ARE_COMPLETE, MoneyMoved, _changes(draws=()), lambda _: True),
    (
        Rule.LIMIT_HOLDS,
        LeadSold,
        lambda e: replace(e, draws=tuple(replace(d, amount=d.amount + 10**6) for d in e.draws)),
        lambda e: e.buyer_id == "acme",
    ),
    (Rule.TEST_LEADS_MOVE_NOTHING, LeadSold, _changes(is_test=True), _with_draws),
    (
        Rule.BACK_NO_MORE_THAN_CAME,
        ReturnApproved,
        lambda e: replace(e, price_cents=e.price_cents + 1),
        lambda _: True,
    ),
    (Rule.BACK_NO_MORE_THAN_CAME, ReturnApproved, lambda e: [e, e], lambda _: True),
    (Rule.BACK_NO_MORE_THAN_CAME, ReturnApproved, _changes(payout_cents=0), lambda _: True),
    (
        Rule.SOURCE_EARNS_AS_AGREED,
        LeadSold,
        lambda e: replace(e, payout_cents=e.payout_cents - 1),
        lambda _: True,
    ),
    (Rule.SOURCE_EARNS_AS_AGREED, LeadUpgraded, _changes(payout_cents=1), lambda _: True),
    (Rule.SOURCE_EARNS_AS_AGREED, LeadListed, _changes(payout_cents=100, currency="USD"), lambda _: True),
    (Rule.MONEY_MOVES_ONCE, MoneyMoved, lambda e: [e, e], lambda _: True),
    (Rule.MONEY_MOVES_ONCE, MoneyMoved, _changes(buyer_id="elm"), lambda _: True),
    (Rule.TERMS_ARE_TRUE, LeadSold, _changes(holders=()), _second_sale),
    (Rule.TERMS_ARE_TRUE, LeadSold, lambda e: replace(e, held_since_ms=e.held_since_ms + 1), _second_sale),
    (Rule.TERMS_ARE_TRUE, LeadSold, lambda e: replace(e, created_at_ms=e.created_at_ms + 1), _second_sale),
    (
        Rule.TERMS_ARE_TRUE,
        LeadSold,
        lambda e: replace(e, others_may_follow=not e.others_may_follow),
        _second_sale,
    ),
    (Rule.TERMS_ARE_TRUE, LeadClosed, _changes(holders=("elm",)), lambda _: True),
    (Rule.PRICE_IS_THE_ORDERS, LeadSold, lambda e: replace(e, price_cents=e.price_cents - 1), _second_sale),
    (
        Rule.PRICE_IS_THE_ORDERS,
        LeadSold,
        lambda e: replace(e, price_cents=e.price_cents + 1),
        lambda e: e.offer_number is not None,
    ),
    (
        Rule.WINNER_PAYS_ITS_BID,
        LeadSold,
        lambda e: replace(e, price_cents=e.price_cents - 1),
        lambda e: e.auction_number is not None,
    ),
    (Rule.AUCTION_CLOSED_ONCE, AuctionClosed, lambda e: [e, e], lambda _: True),
    (Rule.AUCTION_CLOSED_ONCE, AuctionClosed, lambda _: [], lambda _: True),
    (Rule.AUCTION_AS_ANNOUNCED, AuctionOpened, _changes(floor_shared_cents=1), lambda _: True),
    (
        Rule.AUCTION_AS_ANNOUNCED,
        BidPlaced,
        lambda e: replace(e, answered_at_ms=e.answered_at_ms + 1),
        lambda _: True,
    ),
    (Rule.AUCTION_AS_ANNOUNCED, BidPlaced, _changes(buyer_id="elm"), lambda _: True),
    (
        Rule.AUCTION_AS_ANNOUNCED,
        BidPlaced,
        lambda e: BidVoided(
            auction_number=e.auction_number,
            buyer_id=e.buyer_id,
            exclusive_cents=e.exclusive_cents,
            shared_cents=e.shared_cents,
            answered_at_ms=e.answered_at_ms,
            reason=VoidReason.LATE,
        ),
        lambda _: True,
    ),
    (
        Rule.BID_IS_TOLD_RIGHTLY,
        AuctionClosed,
        lambda e: replace(e, results=e.results[1:]),
        lambda e: e.results,
    ),
    (
        Rule.BID_IS_TOLD_RIGHTLY,
        AuctionClosed,
        lambda e: replace(e, results=tuple(replace(r, outcome=BidOutcome.WON) for r in e.results)),
        lambda e: any(r.outcome is not BidOutcome.WON for r in e.results),
    ),
    (
        Rule.BEST_BRINGS_MOST,
        AuctionClosed,
        lambda e: replace(e, exclusive_cents=e.shared_cents - 1),
        lambda e: e.mode is Mode.EXCLUSIVE and e.shared_cents,
    ),
    (
        Rule.BEST_BRINGS_MOST,
        BidPlaced,
        lambda e: replace(e, exclusive_cents=10**5),
        lambda e: e.buyer_id == "birch",
    ),
    (Rule.PINGS_SHOW_DECLARED_FIELDS, LeadListed, _changes(fields={"email": "x"}), lambda _: True),
    (Rule.TERMS_ARE_TRUE, OfferMade, _changes(sale_number=2), lambda _: True),
    (Rule.TERMS_ARE_TRUE, LeadErased, lambda e: replace(e, holders=e.holders[1:]), lambda _: True),
    (Rule.TERMS_ARE_TRUE, LeadErased, _changes(acknowledge_by_ms=0), lambda _: True),
    (Rule.TERMS_ARE_TRUE, LeadErased, lambda _: [], lambda _: True),
    (Rule.TERMS_ARE_TRUE, ErasureAcknowledged, lambda e: [e, e], lambda _: True),
    (Rule.TERMS_ARE_TRUE, ErasureAcknowledged, _changes(buyer_id="nobody"), lambda _: True),
)


@pytest.mark.parametrize("order", [by_time, log_first, log_last])
def test_silent_about_what_the_router_did_in_whatever_order_it_is_read(order: Any) -> None:
    auditor, found = audited(_evidence(), order=order)
    assert not found
    assert auditor.leads == len(REFERENCES)
    assert auditor.sales > len(REFERENCES)
    assert auditor.deliveries == auditor.sales
    assert auditor.auctions > 0


def test_history_of_these_tests_has_all_that_is_planted_in() -> None:
    kinds = {type(event) for _, event in _world().events()}
    assert {LeadUpgraded, ReturnApproved, MoneyMoved, AuctionClosed, OfferMade, WindowClosed} <= kinds
    assert {LeadErased, ErasureAcknowledged} <= kinds


@pytest.mark.parametrize(
    ("rule", "kind", "change", "wanted"),
    PLANTED_IN_THE_LOG,
    ids=[f"{rule}-{kind.__name__}-{at}" for at, (rule, kind, _, _) in enumerate(PLANTED_IN_THE_LOG)],
)
def test_finds_what_is_planted_in_the_log_at_its_lead(
    rule: Rule, kind: type, change: Change, wanted: Change
) -> None:
    evidence = _evidence()
    lead_id = _retold(evidence, kind, change, wanted=wanted)
    found = [violation for violation in _found(evidence) if violation.rule == rule]
    assert found, f"{rule} is silent"
    assert all(violation.guarantee == RULES[rule].guarantee for violation in found)
    if rule is Rule.LIMIT_HOLDS:
        assert any("account:acme" in str(place) for violation in found for place in violation.where)
    else:
        partition = partition_of(lead_id, PARTITIONS)
        assert {violation.lead_id for violation in found} == {lead_id}
        assert any(str(place).startswith(f"{TOPICS.log} {partition}:") for place in found[0].where)


def test_finds_each_buyer_that_was_asked_or_sold_to_and_that_the_consent_does_not_name() -> None:
    evidence = _evidence()

    def name_nobody_here(_: Entry, events: list[Event]) -> Sequence[Event] | None:
        return [
            replace(event, consented_buyers=("nobody",)) if isinstance(event, LeadListed) else event
            for event in events
        ]

    evidence.rewrite_log(name_nobody_here)
    found = [violation for violation in _found(evidence) if violation.rule is Rule.ONLY_WITH_CONSENT]
    told = [event for _, event in _world().events()]
    asked = sum(len(event.invited) for event in told if isinstance(event, AuctionOpened))
    asked += sum(isinstance(event, OfferMade) for event in told)
    assert asked
    assert sum("is asked" in violation.what for violation in found) == asked
    assert sum("is not named" in violation.what for violation in found) == sum(
        isinstance(event, LeadSold) for event in told
    )


def _demanding(given: Market) -> Market:
    types = {name: replace(each, one_to_one_consent=True) for name, each in given.lead_types.items()}
    return replace(given, lead_types=types)


def test_finds_a_lead_that_is_listed_without_the_consented_buyers_that_its_type_demands() -> None:
    evidence = _evidence()
    evidence.markets = {version: _demanding(each) for version, each in evidence.markets.items()}
    found = [violation for violation in _found(evidence) if violation.rule is Rule.ONLY_WITH_CONSENT]
    assert {violation.lead_id for violation in found} == {
        lead_id for lead_id, event in _world().events() if isinstance(event, LeadListed)
    }


# What is planted in the topics and tables besides


def _buyer_record(evidence: Evidence, type: str = "lead") -> tuple[TopicPartition, int]:
    for buyer_id in evidence.markets[1].buyers:
        topic = TOPICS.buyer_leads(buyer_id)
        if any(read_body(record.value or b"")["type"] == type for record in evidence.topic(topic)):
            return evidence.find(topic, lambda record: read_body(record.value or b"")["type"] == type)
    raise AssertionError(f"nobody got a {type}")


def _told_otherwise(evidence: Evidence, where: TopicPartition, index: int, **values: Any) -> None:
    record = evidence.records[where][index]
    body = {**orjson.loads(record.value or b""), **values}
    evidence.records[where][index] = record._replace(value=orjson.dumps(body))


def _lost_delivery(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    del evidence.records[where][index]


def _delivery_to_another(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    record = evidence.records[where][index]
    other = TopicPartition(TOPICS.buyer_leads("elm"), 0)
    assert other != where
    evidence.records[other].append(record._replace(topic=other.topic, offset=len(evidence.records[other])))


def _delivery_to_another_of_its_buyers(evidence: Evidence) -> None:
    """By its number the record is another's, though its reader has one of the same entry too."""
    topics = [TOPICS.buyer_leads(buyer_id) for buyer_id in evidence.markets[1].buyers]
    first_of: dict[str, Record] = {}
    for record in [record for topic in topics for record in evidence.topic(topic)]:
        body = read_body(record.value or b"")
        first = first_of.setdefault(str(body["log"]), record) if body["type"] == "lead" else record
        if first.topic != record.topic:
            kept = evidence.records[TopicPartition(record.topic, 0)]
            kept.append(first._replace(topic=record.topic, offset=len(kept)))
            return
    raise AssertionError("no entry sells to two buyers")


def _delivery_of_no_sale(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    record = evidence.records[where][index]
    body = orjson.loads(record.value or b"")
    body["log"]["seq"] = 10_000
    headers = (("ce_id", f"{body['log']['partition']}:10000:0".encode()),)
    again = record._replace(value=orjson.dumps(body), headers=headers, offset=len(evidence.records[where]))
    evidence.records[where].append(again)


def _other_price(evidence: Evidence) -> None:
    _told_otherwise(evidence, *_buyer_record(evidence), price="0.01")


def _other_terms(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    terms = orjson.loads(evidence.records[where][index].value or b"")["terms"]
    _told_otherwise(
        evidence, where, index, terms={**terms, "others_may_follow": not terms["others_may_follow"]}
    )


def _other_sentence(evidence: Evidence) -> None:
    _told_otherwise(evidence, *_buyer_record(evidence), promise="All yours.")


def _more_after_the_sentence(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    promise = orjson.loads(evidence.records[where][index].value or b"")["promise"]
    _told_otherwise(evidence, where, index, promise=f"{promise} But ten others have received this lead.")


def _upgrade_with_another_sentence(evidence: Evidence) -> None:
    _told_otherwise(evidence, *_buyer_record(evidence, "upgraded"), promise="Exclusive, for good: perhaps.")


def _no_contact(evidence: Evidence) -> None:
    _told_otherwise(evidence, *_buyer_record(evidence), lead={})


def _empty_contact(evidence: Evidence) -> None:
    _told_otherwise(evidence, *_buyer_record(evidence), lead={"contact": {}})


def _contact_that_its_type_does_not_declare(evidence: Evidence) -> None:
    _told_otherwise(evidence, *_buyer_record(evidence), lead={"contact": {"phone": "1", "mother": "Eve"}})


def _contact_of_another(evidence: Evidence) -> None:
    """The second buyer of a lead gets another person than the first."""
    for buyer_id in evidence.markets[1].buyers:
        where = TopicPartition(TOPICS.buyer_leads(buyer_id), 0)
        for index, record in enumerate(evidence.records.get(where, ())):
            if read_body(record.value or b"").get("terms", {}).get("sale_number") == 2:
                _told_otherwise(evidence, where, index, lead={"contact": {"email": "another@example.com"}})
                return
    raise AssertionError("no lead has a second buyer")


def _other_repeat(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    record = evidence.records[where][index]
    body = {**orjson.loads(record.value or b""), "lead": {"contact": {"email": "another@example.com"}}}
    evidence.records[where].append(
        record._replace(value=orjson.dumps(body), offset=len(evidence.records[where]))
    )


def _told_with_other_headers(evidence: Evidence, where: TopicPartition, index: int, **values: bytes) -> None:
    """The record comes again, and only its headers are otherwise."""
    records = evidence.records[where]
    headers = tuple(({**dict(records[index].headers), **values}).items())
    records.append(records[index]._replace(headers=headers, offset=len(records)))


def _repeat_of_another_type(evidence: Evidence) -> None:
    _told_with_other_headers(evidence, *_buyer_record(evidence), ce_type=b"gavel.upgraded.v1")


def _repeat_of_another_time(evidence: Evidence) -> None:
    _told_with_other_headers(evidence, *_buyer_record(evidence), ce_time=b"zzz")


def _repeat_with_a_header_more(evidence: Evidence) -> None:
    _told_with_other_headers(evidence, *_buyer_record(evidence), ce_subject=b"anybody")


def _receipt_of_intake_named_otherwise(evidence: Evidence) -> None:
    _receipt_of_intake(evidence, DECLINED)
    _told_with_other_headers(evidence, RECEIPTS, len(evidence.records[RECEIPTS]) - 1, ce_id=b"0:7:accepted")


def _unreadable_record(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    evidence.records[where][index] = evidence.records[where][index]._replace(value=b"{")


def _other_ce_id(evidence: Evidence) -> None:
    where, index = _buyer_record(evidence)
    evidence.records[where][index] = evidence.records[where][index]._replace(headers=(("ce_id", b"0:1:99"),))


RECEIPTS = TopicPartition(TOPICS.source_receipts("sunform"), 0)


def _contact_in_a_receipt(evidence: Evidence) -> None:
    _told_otherwise(evidence, RECEIPTS, 0, lead={"contact": {"email": "x@example.com"}})


def _receipt_of_another_payout(evidence: Evidence) -> None:
    where = RECEIPTS
    index = next(
        at for at, record in enumerate(evidence.records[where]) if b"payout" in (record.value or b"")
    )
    happened = orjson.loads(evidence.records[where][index].value or b"")["happened"]
    _told_otherwise(evidence, where, index, happened=[{**item, "payout": "0.01"} for item in happened])


def _ping_with_more_fields(evidence: Evidence) -> None:
    topic = TOPICS.buyer_pings("birch")
    where, index = evidence.find(topic, lambda record: b'"ping"' in (record.value or b""))
    fields = orjson.loads(evidence.records[where][index].value or b"")["fields"]
    _told_otherwise(evidence, where, index, fields={**fields, "street": "High Street 1"})


def _ping_with_another_sentence(evidence: Evidence) -> None:
    topic = TOPICS.buyer_pings("birch")
    where, index = evidence.find(topic, lambda record: b'"ping"' in (record.value or b""))
    _told_otherwise(evidence, where, index, promise="If you win: exclusive, for good. You pay what you like.")


def _lost_ping(evidence: Evidence) -> None:
    evidence.records[TopicPartition(TOPICS.buyer_pings("birch"), 0)].pop(0)


def _log_partition(evidence: Evidence) -> TopicPartition:
    return max(
        (where for where in evidence.records if where.topic == TOPICS.log),
        key=lambda where: len(evidence.records[where]),
    )


def _changed_byte(evidence: Evidence) -> None:
    records = evidence.records[_log_partition(evidence)]
    value = bytearray(records[2].value or b"")
    value[-2] ^= 1
    records[2] = records[2]._replace(value=bytes(value))


def _appended_by_another(evidence: Evidence) -> None:
    records = evidence.records[_log_partition(evidence)]
    records.append(records[-1]._replace(value=b"\x00\x00\x00\x00\x01nonsense", offset=len(records)))


def _written_by_another_in_the_middle(evidence: Evidence) -> None:
    records = evidence.records[_log_partition(evidence)]
    foreign = records[2]._replace(value=b"\x00\x00\x00\x00\x01nonsense")
    records[2:] = [foreign, *(record._replace(offset=record.offset + 1) for record in records[2:])]


def _forked_entry(evidence: Evidence) -> None:
    records = evidence.records[_log_partition(evidence)]
    value = bytearray(records[2].value or b"")
    value[-2] ^= 1
    records.append(records[2]._replace(value=bytes(value), offset=len(records)))


def _lost_entry(evidence: Evidence) -> None:
    del evidence.records[_log_partition(evidence)][3]


def _lost_tail(evidence: Evidence) -> None:
    evidence.records[_log_partition(evidence)].pop()


def _other_key(evidence: Evidence) -> None:
    records = evidence.records[_log_partition(evidence)]
    records[0] = records[0]._replace(key=b"7e57ab1e-0000-5000-8000-000000000001")


def _head_of_another_history(evidence: Evidence) -> None:
    at = _log_partition(evidence).partition
    evidence.tables.head_rows[at] = evidence.tables.head_rows[at]._replace(hash=bytes(32))


def _head_gone(evidence: Evidence) -> None:
    del evidence.tables.head_rows[_log_partition(evidence).partition]


def _head_of_yesterday(evidence: Evidence) -> None:
    rows, at = evidence.tables.head_rows, _log_partition(evidence).partition
    yesterdays = hash_of(evidence.records[_log_partition(evidence)][-2].value or b"")
    seq = rows[at].seq - 1
    rows[at] = rows[at]._replace(seq=seq, published_seq=seq, hash=yesterdays)


def _lead_never_listed(evidence: Evidence) -> None:
    evidence.tables.accepted_rows.append(("7e57ab1e-0000-5000-8000-000000000001", 1))


def _receipt_of_intake(evidence: Evidence, happened: Mapping[str, Any], **more: Any) -> None:
    body = {
        "type": "receipt",
        "lead_id": "7e57ab1e-0000-5000-8000-000000000002",
        "at": iso_time(1),
        "happened": [happened],
        "reference": "contact",
        **more,
    }
    headers = outsider_headers(
        id=f"0:7:{happened['type']}", type="gavel.receipt.v1", source="gavel/intake", at_ms=1
    )
    records = evidence.records[RECEIPTS]
    records.append(Record(RECEIPTS.topic, 0, len(records), None, orjson.dumps(body), headers, 1))


DECLINED = {"type": "declined", "reason": "missing_field", "field": "contact"}


def _accepted_in_a_receipt_alone(evidence: Evidence) -> None:
    _receipt_of_intake(evidence, {"type": "accepted"})


def _contact_in_a_receipt_of_intake(evidence: Evidence) -> None:
    _receipt_of_intake(evidence, DECLINED, contact={"email": "x@example.com"})


def _receipt_of_intake_with_more(evidence: Evidence) -> None:
    _receipt_of_intake(evidence, DECLINED, remark="Ask again.")


def _sale_in_a_receipt_of_intake(evidence: Evidence) -> None:
    _receipt_of_intake(evidence, {"type": "sold", "payout": "100.00", "currency": "USD"})


def _qualified_alone(evidence: Evidence) -> None:
    where = TopicPartition(TOPICS.qualified, 0)
    records = evidence.records[where]
    records.append(records[0]._replace(key=b"7e57ab1e-0000-5000-8000-000000000003", offset=len(records)))


def _never_accepted(evidence: Evidence) -> None:
    evidence.tables.accepted_rows.pop()


def _not_on_qualified(evidence: Evidence) -> None:
    evidence.records[TopicPartition(TOPICS.qualified, 0)].clear()


def _other_counter(evidence: Evidence) -> None:
    used, granted = evidence.tables.counter_rows["account:acme"]
    evidence.tables.counter_rows["account:acme"] = (used - 1, granted)


def _counter_of_nothing(evidence: Evidence) -> None:
    evidence.tables.counter_rows["account:elm"] = (1, 0)


def _other_sale_row(evidence: Evidence) -> None:
    rows = evidence.tables.sale_rows
    rows[0] = rows[0]._replace(price_cents=1)


def _lost_sale_row(evidence: Evidence) -> None:
    evidence.tables.sale_rows.pop()


def _sold_by_another_order(evidence: Evidence) -> None:
    rows = evidence.tables.sale_rows
    rows[0] = rows[0]._replace(order_id="acme/another")


def _exclusivity_cut_short(evidence: Evidence) -> None:
    rows = evidence.tables.sale_rows
    at = next(at for at, row in enumerate(rows) if row.mode == "exclusive" and row.sales_max > 1)
    rows[at] = rows[at]._replace(closed_until_ms=(rows[at].closed_until_ms or 0) - 1)


def _lost_close(evidence: Evidence) -> None:
    evidence.tables.close_rows.pop()


def _other_outcome(evidence: Evidence) -> None:
    rows = evidence.tables.close_rows
    rows[0] = rows[0]._replace(outcome="failed")


def _close_of_no_lead(evidence: Evidence) -> None:
    evidence.tables.close_rows.append(CloseRow("7e57ab1e-0000-5000-8000-000000000005", "failed"))


def _lost_transfer(evidence: Evidence) -> None:
    evidence.tables.transfer_rows.pop(0)


def _posted_twice(evidence: Evidence) -> None:
    rows = evidence.tables.transfer_rows
    rows.append(rows[0]._replace(transfer_id="7e57ab1e-0000-5000-8000-000000000004"))


def _other_amount(evidence: Evidence) -> None:
    rows = evidence.tables.transfer_rows
    rows[-1] = rows[-1]._replace(amount_cents=rows[-1].amount_cents + 1)


def _other_account(evidence: Evidence) -> None:
    rows = evidence.tables.transfer_rows
    at = next(at for at, row in enumerate(rows) if row.kind == "sale_charge")
    rows[at] = rows[at]._replace(debit_account="buyer:nobody")


def _lost_deposit(evidence: Evidence) -> None:
    rows = evidence.tables.transfer_rows
    rows.remove(next(row for row in rows if row.kind == "deposit"))


def _to_itself(evidence: Evidence) -> None:
    rows = evidence.tables.transfer_rows
    rows[0] = rows[0]._replace(credit_account=rows[0].debit_account)


PLANTED_BESIDE_THE_LOG: Sequence[tuple[Rule, Callable[[Evidence], None], str]] = (
    (Rule.DELIVERED, _lost_delivery, TOPICS.log),
    (Rule.DELIVERED, _lost_ping, TOPICS.buyer_pings("birch")),
    (Rule.TOLD_TO_ITS_RECIPIENT, _delivery_to_another, TOPICS.buyer_leads("elm")),
    (Rule.TOLD_TO_ITS_RECIPIENT, _delivery_to_another_of_its_buyers, "buyers."),
    (Rule.NOTHING_TOLD_WITHOUT_THE_LOG, _delivery_of_no_sale, "buyers."),
    (Rule.NOTHING_TOLD_WITHOUT_THE_LOG, _receipt_of_intake_with_more, "sources."),
    (Rule.NOTHING_TOLD_WITHOUT_THE_LOG, _sale_in_a_receipt_of_intake, "sources."),
    (Rule.TOLD_WHAT_IS_LOGGED, _other_price, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _other_terms, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _other_sentence, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _more_after_the_sentence, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _upgrade_with_another_sentence, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _no_contact, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _empty_contact, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _contact_that_its_type_does_not_declare, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _contact_of_another, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _repeat_of_another_type, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _repeat_of_another_time, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _repeat_with_a_header_more, "buyers."),
    (Rule.TOLD_WHAT_IS_LOGGED, _receipt_of_intake_named_otherwise, "sources."),
    (Rule.TOLD_WHAT_IS_LOGGED, _receipt_of_another_payout, "sources."),
    (Rule.TOLD_WHAT_IS_LOGGED, _ping_with_more_fields, TOPICS.buyer_pings("birch")),
    (Rule.TOLD_WHAT_IS_LOGGED, _ping_with_another_sentence, TOPICS.buyer_pings("birch")),
    (Rule.REPEATED_ALIKE, _other_repeat, "buyers."),
    (Rule.RECORD_IS_READABLE, _unreadable_record, "buyers."),
    (Rule.RECORD_IS_READABLE, _other_ce_id, "buyers."),
    (Rule.CONTACT_FOR_BUYERS_ALONE, _contact_in_a_receipt, "sources."),
    (Rule.CONTACT_FOR_BUYERS_ALONE, _contact_in_a_receipt_of_intake, "sources."),
    (Rule.LOG_IS_CHAINED, _changed_byte, TOPICS.log),
    (Rule.LOG_IS_CHAINED, _forked_entry, TOPICS.log),
    (Rule.LOG_IS_READABLE, _appended_by_another, TOPICS.log),
    (Rule.HEAD_IS_THE_LOG, _lost_entry, "router.heads"),
    (Rule.HEAD_IS_THE_LOG, _lost_tail, "router.heads"),
    (Rule.HEAD_IS_THE_LOG, _head_of_another_history, "router.heads"),
    (Rule.HEAD_IS_THE_LOG, _head_gone, "router.heads"),
    (Rule.HEAD_IS_THE_LOG, _head_of_yesterday, "router.heads"),
    (Rule.ENTRY_IN_ITS_PARTITION, _other_key, TOPICS.log),
    (Rule.ACCEPTED_IS_LISTED, _lead_never_listed, "intake.leads"),
    (Rule.ACCEPTED_IS_LISTED, _accepted_in_a_receipt_alone, "sources."),
    (Rule.ACCEPTED_IS_LISTED, _qualified_alone, TOPICS.qualified),
    (Rule.LISTED_WAS_ACCEPTED, _never_accepted, "intake.leads"),
    (Rule.LISTED_WAS_ACCEPTED, _not_on_qualified, TOPICS.log),
    (Rule.COUNTER_IS_THE_LOG, _other_counter, "router.counters account:acme"),
    (Rule.COUNTER_IS_THE_LOG, _counter_of_nothing, "router.counters account:elm"),
    (Rule.SALES_TABLE_IS_THE_LOG, _other_sale_row, "router.sales"),
    (Rule.SALES_TABLE_IS_THE_LOG, _lost_sale_row, "router.sales"),
    (Rule.SALES_TABLE_IS_THE_LOG, _sold_by_another_order, "router.sales"),
    (Rule.SALES_TABLE_IS_THE_LOG, _exclusivity_cut_short, "router.sales"),
    (Rule.CLOSES_TABLE_IS_THE_LOG, _lost_close, "router.closes"),
    (Rule.CLOSES_TABLE_IS_THE_LOG, _other_outcome, "router.closes"),
    (Rule.CLOSES_TABLE_IS_THE_LOG, _close_of_no_lead, "router.closes"),
    (Rule.TRANSFERS_ARE_THE_LOG, _lost_transfer, TOPICS.log),
    (Rule.TRANSFERS_ARE_THE_LOG, _posted_twice, "billing.transfers"),
    (Rule.TRANSFERS_ARE_THE_LOG, _other_amount, "billing.transfers"),
    (Rule.TRANSFERS_ARE_THE_LOG, _other_account, "billing.transfers"),
    (Rule.TRANSFERS_ARE_THE_LOG, _lost_deposit, TOPICS.log),
    (Rule.TRANSFER_IS_PROPER, _to_itself, "billing.transfers"),
)


@pytest.mark.parametrize("order", [by_time, log_last])
@pytest.mark.parametrize(
    ("rule", "plant", "place"),
    PLANTED_BESIDE_THE_LOG,
    ids=[f"{rule}-{plant.__name__}" for rule, plant, _ in PLANTED_BESIDE_THE_LOG],
)
def test_finds_what_is_planted_in_topics_and_tables(
    rule: Rule, plant: Callable[[Evidence], None], place: str, order: Any
) -> None:
    evidence = _evidence()
    plant(evidence)
    found = [violation for violation in _found(evidence, order=order) if violation.rule == rule]
    assert found, f"{rule} is silent"
    assert any(str(where).startswith(place) for violation in found for where in violation.where)


def test_every_rule_is_seen_to_be_broken() -> None:
    planted = {rule for rule, *_ in PLANTED_IN_THE_LOG} | {rule for rule, *_ in PLANTED_BESIDE_THE_LOG}
    assert planted == set(Rule)


# How it reads, keeps and waits


def test_a_foreign_record_in_the_log_is_one_violation_and_all_behind_it_is_judged() -> None:
    evidence = _evidence()
    _written_by_another_in_the_middle(evidence)
    (violation,) = _found(evidence)
    assert (violation.rule, str(violation.where[0]).startswith(TOPICS.log)) == (Rule.LOG_IS_READABLE, True)


def test_repeated_records_change_nothing() -> None:
    evidence = _evidence()
    for records in evidence.records.values():
        records += [record._replace(offset=len(records) + at) for at, record in enumerate(records)]
    auditor, found = audited(evidence)
    assert not found
    assert auditor.leads == len(REFERENCES)


@pytest.mark.parametrize("order", [by_time, log_first, log_last])
def test_states_in_a_file_say_what_states_in_memory_say(order: Any, tmp_path: Path) -> None:
    clean = SqliteLeadStates(tmp_path / "clean", kept_max=1)
    assert not _found(_evidence(), order=order, states=clean)
    evidence = _evidence()
    _other_price(evidence)
    _lost_transfer(evidence)
    in_file = _found(evidence, order=order, states=SqliteLeadStates(tmp_path / "states", kept_max=1))
    assert sorted(map(str, in_file)) == sorted(map(str, _found(evidence, order=order)))


@pytest.mark.parametrize("order", [by_time, log_last])
def test_goes_on_from_what_was_kept_as_if_it_had_never_stopped(order: Any, tmp_path: Path) -> None:
    evidence = _evidence()
    _other_price(evidence)
    records = order([record for kept in evidence.records.values() for record in kept])
    whole, found = audited(evidence, order=order)
    path = tmp_path / "states"
    told: list[Violation] = []
    for first in range(0, len(records), 17):
        states = SqliteLeadStates(path)
        auditor = Auditor(
            markets=evidence.markets.__getitem__,
            topics=TOPICS,
            partitions=PARTITIONS,
            states=states,
            report=told.append,
        )
        if first:
            auditor.resume(states.kept("auditor") or b"")
        auditor.take(records[first : first + 17])
        kept = auditor.kept()
        if first + 17 >= len(records):
            auditor.finish(evidence.tables, at_rest=True)
        states.commit(auditor=kept)
        states.close()
    counts = (auditor.entries, auditor.leads, auditor.sales, auditor.auctions, auditor.deliveries)
    assert counts == (whole.entries, whole.leads, whole.sales, whole.auctions, whole.deliveries)
    assert sorted(map(str, told)) == sorted(map(str, found))
    assert auditor.violations == whole.violations


def test_headers_of_whatever_carries_records_say_nothing() -> None:
    evidence = _evidence()
    for records in evidence.records.values():
        records[:] = [
            record._replace(headers=(("traceparent", b"00-1"), *record.headers)) for record in records
        ]
    assert not _found(evidence)


def test_what_is_missing_has_its_grace_while_things_are_under_way() -> None:
    evidence = _evidence()
    for plant in (_lost_delivery, _lost_transfer, _lead_never_listed):
        plant(evidence)
    late = {violation.rule for violation in _found(evidence, at_rest=False)}
    assert late == {Rule.DELIVERED, Rule.TRANSFERS_ARE_THE_LOG, Rule.ACCEPTED_IS_LISTED}
    now_ms = max(record.timestamp_ms for record in evidence.topic(TOPICS.log))
    fresh = _evidence()
    newest = max(record.timestamp_ms for record in fresh.topic(TOPICS.buyer_leads("elm")))
    fresh.records[TopicPartition(TOPICS.buyer_leads("elm"), 0)].pop()
    fresh.tables.accepted_rows.append(("7e57ab1e-0000-5000-8000-000000000001", now_ms))
    expected = {Rule.DELIVERED} if newest < now_ms - 5 * MINUTE_MS else set()
    assert {violation.rule for violation in _found(fresh, at_rest=False)} == expected


@pytest.mark.parametrize("plant", [_head_gone, _head_of_yesterday])
def test_a_database_behind_the_log_has_no_grace(plant: Callable[[Evidence], None]) -> None:
    evidence = _evidence()
    plant(evidence)
    assert Rule.HEAD_IS_THE_LOG in {violation.rule for violation in _found(evidence, at_rest=False)}


def test_rows_may_be_ahead_of_a_log_that_is_not_read_to_the_heads() -> None:
    evidence = _evidence()
    heads, rows = evidence.tables.head_rows, evidence.tables.sale_rows
    heads[0] = heads[0]._replace(seq=heads[0].seq + 1, hash=bytes(32))
    at = next(at for at, row in enumerate(rows) if (row.mode, row.sale_number) == ("shared", 1))
    rows[at] = rows[at]._replace(mode="exclusive", closed_until_ms=2**63 - 1)
    _close_of_no_lead(evidence)
    assert not _found(evidence, at_rest=False)
    rows[at] = rows[at]._replace(closed_until_ms=0)
    _other_outcome(evidence)
    found = {violation.rule for violation in _found(evidence, at_rest=False)}
    assert found == {Rule.SALES_TABLE_IS_THE_LOG, Rule.CLOSES_TABLE_IS_THE_LOG}


def test_limits_are_judged_by_the_whole_log_alone() -> None:
    evidence = _evidence()
    _retold(
        evidence,
        LeadSold,
        lambda e: replace(e, draws=tuple(replace(draw, amount=10**6) for draw in e.draws)),
        wanted=lambda e: e.buyer_id == "acme",
    )
    assert Rule.LIMIT_HOLDS in {violation.rule for violation in _found(evidence, at_rest=False)}
    heads = evidence.tables.head_rows
    heads[0] = heads[0]._replace(seq=heads[0].seq + 1, hash=bytes(32))
    assert Rule.LIMIT_HOLDS not in {violation.rule for violation in _found(evidence, at_rest=False)}


def test_what_intake_says_of_a_submission_that_it_declined_concerns_nobody_else() -> None:
    evidence = _evidence()
    _receipt_of_intake(evidence, DECLINED)
    _receipt_of_intake(evidence, {"type": "declined", "reason": "duplicate"})
    assert not _found(evidence)


def test_records_that_are_no_longer_kept_are_not_missed() -> None:
    evidence = _evidence()
    topic = TOPICS.buyer_leads("elm")
    evidence.records[TopicPartition(topic, 0)].clear()
    found: list[Violation] = []
    auditor = Auditor(
        markets=evidence.markets.__getitem__,
        topics=TOPICS,
        partitions=PARTITIONS,
        states=SqliteLeadStates(":memory:"),
        report=found.append,
    )
    for records in evidence.records.values():
        auditor.take(records)
    auditor.gone(topic, 2**60)
    auditor.finish(evidence.tables, at_rest=True)
    assert not found


def test_what_is_undelivered_is_not_missing() -> None:
    evidence = _evidence()
    where, index = _buyer_record(evidence)
    record = evidence.records[where].pop(index)
    partition, seq, n = map(int, dict(record.headers)["ce_id"].split(b":"))
    evidence.tables.undelivered_rows.append((partition, seq, n, where.topic))
    assert not _found(evidence)


def test_no_violation_quotes_contact_details() -> None:
    for _, plant, _ in PLANTED_BESIDE_THE_LOG:
        evidence = _evidence()
        plant(evidence)
        assert not any(
            "@" in str(violation) or "High Street" in str(violation) for violation in _found(evidence)
        )
