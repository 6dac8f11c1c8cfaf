"""What buyers are told stays true: whole lives of leads under markets of all kinds, held against what came after.

Nothing here knows how promises are made. Each life is drawn by its number, so that one that fails can be lived again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import orjson
import pytest

from services.contract.codec import codec
from services.contract.events import (
    Disposition,
    Event,
    FailureReason,
    LeadSold,
    LeadUpgraded,
    ReturnReason,
)
from services.contract.inputs import (
    AcceptOffer,
    Input,
    ReportDisposition,
    ReportFailedDelivery,
    ReturnLead,
    UpgradeSale,
)
from services.contract.market import KeepTrying, Market, Mode, Ranking, Selection, Sell, Stage, Upgrade
from services.contract.outside_records import read_body
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, decimal_amount, time_in_ms
from services.router import deliveries, promises
from services.router.domain import decide
from services.router.messages import Channel, Outgoing, react
from services.router.outside_values import avro_value, json_value
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
from tests.support.telling import BUYERS, complaints, entry_of, leaks

LIVES = 300
SEALED = orjson.dumps({"contact": {"email": "canary@example.com"}, "details": {}})
OF_A_SALE = ("gavel.lead.v1", "gavel.upgraded.v1")


@dataclass(slots=True)
class Told:
    """A record, and when it was written: the number of its entry, and its time."""

    entry: int
    at_ms: int
    outgoing: Outgoing


@dataclass(slots=True)
class Life:
    """A lead's life, what was told in it, and what of that was not true."""

    story: Story
    random: Random
    told: list[Told] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)

    def go_on(self, subject: Input, after_ms: int = 0) -> None:
        """Decide an input, now and then with orders that are full, and hold what is told at once."""
        full = [f"{buyer_id}/all" for buyer_id in BUYERS if self.random.random() < 0.07]
        self.story.no_room = frozenset(full)
        self.tell(self.story.when(subject, after_ms=after_ms))

    def tell(self, events: Sequence[Event]) -> None:
        """Say who is told what, in records that fit their schemas, in both encodings, and that name nobody else."""
        entry = replace(entry_of(events), decided_at_ms=self.story.now_ms, lead_id=self.story.lead.lead_id)
        found = react(entry, codec().events_of(entry), 3)
        self.untrue += complaints(found)
        # Amounts are those of one list, so that they don't tell whose they are.
        self.untrue += [leak for leak in leaks(found, events) if "is told of" in leak]
        number = len(self.story.entries) - 1
        for outgoing in found:
            self.told.append(Told(number, self.story.now_ms, outgoing))
            if outgoing.channel is Channel.BUYER_LEADS:
                self._hold_delivery(outgoing)

    def _hold_delivery(self, outgoing: Outgoing) -> None:
        sealed = SEALED if outgoing.sale_number is not None else None
        in_json, in_avro = json_value(outgoing.body, sealed), avro_value(outgoing.body, sealed, codec())
        self.require(read_body(in_json) == read_body(in_avro), "Avro says what JSON does", outgoing)
        upgrade = outgoing.body["terms"]["upgrade"] if outgoing.type == "gavel.lead.v1" else None
        if upgrade is not None:
            self.require(self._upgrade_fee(outgoing) == upgrade["fee"], "the upgrade is to be had", outgoing)

    def _upgrade_fee(self, outgoing: Outgoing) -> str | None:
        """Ask for the upgrade, as if the buyer did so at once."""
        story = self.story
        asked = UpgradeSale(
            lead_id=story.lead.lead_id, buyer_id=outgoing.recipient, answered_at_ms=story.now_ms
        )
        decision = decide(story.state, asked, replace(story.conditions(), no_room=frozenset()))
        fees = [event.fee_cents for event in decision.events if isinstance(event, LeadUpgraded)]
        return decimal_amount(fees[0]) if fees else None

    def require(self, is_true: bool, what: str, outgoing: Outgoing) -> None:
        """Note what is not so."""
        if not is_true:
            self.untrue.append(f"not so: {what}: {outgoing.body}")

    def sales(self) -> list[tuple[int, int, LeadSold]]:
        """List the sales with the numbers of their entries, and their times."""
        return [
            (number, at_ms, event)
            for number, (at_ms, events) in enumerate(self.story.entries)
            for event in events
            if isinstance(event, LeadSold)
        ]


def lived(number: int) -> Life:
    """Live a life, and hold all that was told against how it went on."""
    random = Random(number)
    drawn = _market(random)
    life = Life(Story(drawn, accepted_market=drawn), random)
    life.go_on(lead(sales_max=random.choice([None, None, 1, 2])))
    for _ in range(random.randint(3, 25)):
        _step(life)
    for told in life.told:
        _hold(life, told)
    return life


def _hold(life: Life, told: Told) -> None:
    outgoing, body = told.outgoing, told.outgoing.body
    before = [sold for number, _, sold in life.sales() if number <= told.entry]
    later_ms = [at_ms for number, at_ms, _ in life.sales() if number > told.entry]
    if outgoing.type in OF_A_SALE:
        held = _terms_are_true(body["terms"], len(before), later_ms)
        said = _sentence_is_true(body["promise"], body["terms"], len(before), later_ms)
        for what, is_true in {**held, **said}.items():
            life.require(is_true, what, outgoing)
    if outgoing.type == "gavel.notice.v1":
        life.require(body["holders"] == len(before), "so many hold it", outgoing)
    for number, at_ms, sold in life.sales():
        if number > told.entry and _follows(outgoing, sold):
            for_ms = None if sold.exclusive_until_ms is None else sold.exclusive_until_ms - at_ms
            is_same = sold.mode is Mode.SHARED or for_ms == body["exclusive_for_ms"]
            life.require(is_same and sold.sales_max == body["sales_max"], "it is sold as shown", outgoing)


def _follows(outgoing: Outgoing, sold: LeadSold) -> bool:
    """Tell whether a sale came of what its buyer was offered or pinged, in a mode that it was asked for."""
    body = outgoing.body
    if sold.buyer_id != outgoing.recipient:
        return False
    if outgoing.type == "gavel.offer.v1":
        return bool(sold.offer_number == body["offer_number"])
    is_ping = outgoing.type == "gavel.ping.v1"
    return bool(is_ping and sold.auction_number == body["auction_number"] and sold.mode in body["modes"])


def _terms_are_true(terms: dict[str, Any], holders: int, later_ms: list[int]) -> dict[str, bool]:
    until, others_from = terms["exclusive_until"], terms["others_from"]
    alone_until_ms = time_in_ms(until) if until else None
    others_from_ms = time_in_ms(others_from) if others_from else 0
    return {
        "so many hold it": terms["holders"] == holders,
        "others may follow": terms["others_may_follow"] or not later_ms,
        "others follow from then": all(at_ms >= others_from_ms for at_ms in later_ms),
        "at most so many": holders + len(later_ms) <= terms["sales_max"],
        "exclusive": not terms["exclusive"]
        or (holders == 1 and all(alone_until_ms is not None and at >= alone_until_ms for at in later_ms)),
    }


def _sentence_is_true(
    promise: str, terms: dict[str, Any], holders: int, later_ms: list[int]
) -> dict[str, bool]:
    more = re.search(r"up to (\d+) more may get it", promise)
    others = re.search(r"(\d+) others? holds? it", promise)
    waits = re.search(r"(?:not before|[Uu]ntil) ([0-9-]+) ([0-9:]+) UTC", promise)
    from_ms = time_in_ms(f"{waits[1]}T{waits[2]}.000Z") if waits else 0
    return {
        "its kind": promise.startswith("Exclusive" if terms["exclusive"] else "Shared"),
        "more": len(later_ms) <= (int(more[1]) if more else 0),
        "more, as the terms say": bool(more) is terms["others_may_follow"],
        "others": (int(others[1]) if others else 0) == holders - 1,
        "from when": all(at_ms >= from_ms for at_ms in later_ms),
        "upgrade": ("yourself" in promise) is (terms["upgrade"] is not None),
    }


# What happens


def _market(random: Random) -> Market:
    sales_max = random.choice([1, 2, 3, 3, 4])
    stages = [_stage(random) for _ in range(random.randint(1, 4))]
    if sales_max == 1:
        stages = [replace(stage, upgrade=None) for stage in stages]
    expires_after_ms = random.choice([None, None, 2 * DAY_MS])
    exclusive: list[int | str | None] = [None, "list", "bid", 8_000]
    shared: list[int | str | None] = ["list", "list", "bid", 4_100]
    orders = tuple(
        order(
            buyer_id,
            exclusive=random.choice(exclusive),
            shared=random.choice(shared),
            upgrade_always=random.random() < 0.2,
            holders_max=random.choice([None, None, None, 2]),
            priority=random.randint(0, 3),
        )
        for buyer_id in BUYERS
    )
    return market(plan(*stages, sales_max=sales_max, expires_after_ms=expires_after_ms), orders=orders)


def _stage(random: Random) -> Stage:
    options: dict[str, Any] = {
        "wait_ms": random.choice([None, None, 0, MINUTE_MS, DAY_MS]),
        "keep_trying": random.choice([None, None, KeepTrying(every_ms=MINUTE_MS, for_ms=3 * MINUTE_MS)]),
    }
    alone: dict[str, Any] = {"exclusive_for_ms": random.choice([None, HOUR_MS, 3 * DAY_MS])}
    direct = {
        "accept_within_ms": random.choice([None, None, 10 * MINUTE_MS]),
        "by": random.choice(list(Ranking)),
    }
    match random.choice(["exclusive", "shared", "shared", "either", "bids"]):
        case "exclusive":
            return exclusive_stage(9_001, **options, **alone, **direct)
        case "shared":
            upgrade = Upgrade(per_slot_cents=3_701, within_ms=random.choice([None, 2 * MINUTE_MS]))
            return shared_stage(4_501, 4_007, upgrade=random.choice([None, upgrade]), **options, **direct)
        case "either":
            return either_stage(9_001, 4_501, 4_007, **options, **alone, **direct)
    selection = random.choice([Selection.PING_POST, Selection.FIRST_BID])
    sell = random.choice(list(Sell))
    return bid_stage(
        sell, exclusive=2_003, selection=selection, **options, **({} if sell is Sell.SHARED else alone)
    )


def _step(life: Life) -> None:
    """Let the next thing happen: mostly an answer that is waited for, or a time that comes."""
    story, random = life.story, life.random
    known, drawn = story.lead, random.random()
    if drawn < 0.6 and known.auction is not None:
        _answer_auction(life)
    elif drawn < 0.6 and known.offer is not None:
        offer = known.offer
        accepted = AcceptOffer(
            lead_id=known.lead_id,
            buyer_id=offer.buyer_id,
            offer_number=offer.offer_number,
            answered_at_ms=story.now_ms,
        )
        life.go_on(accepted, after_ms=random.randint(0, 50))
    elif drawn < 0.7 and known.windows:
        life.tell(story.fire_next_window())
    else:
        life.go_on(_something_else(life))


def _answer_auction(life: Life) -> None:
    story, random = life.story, life.random
    asked = random.choice(story.auction.invited).buyer_id
    match random.choice(["bid", "bid", "bid", "no bid", "time"]):
        case "bid":
            exclusive, shared = random.randint(1_000, 12_000), random.randint(500, 6_000)
            life.tell(story.bid(asked, exclusive=random.choice([None, exclusive]), shared=shared))
        case "no bid":
            life.tell(story.no_bid(asked))
        case _:
            life.tell(story.close_auction())


def _something_else(life: Life) -> Input:
    """What holders ask for and report, and what fails."""
    known, random, now_ms = life.story.lead, life.random, life.story.now_ms
    buyer_id = random.choice((*known.holders, *known.holders, *BUYERS))
    upgrade = UpgradeSale(lead_id=known.lead_id, buyer_id=buyer_id, answered_at_ms=now_ms)
    if len(known.sales) == 1 and known.outcome is None:
        return upgrade
    choices: list[Input] = [
        upgrade,
        ReturnLead(
            lead_id=known.lead_id, buyer_id=buyer_id, reason=ReturnReason.OTHER, answered_at_ms=now_ms
        ),
        ReportDisposition(
            lead_id=known.lead_id, buyer_id=buyer_id, disposition=random.choice(list(Disposition))
        ),
    ]
    if known.sales:
        number = random.randint(1, len(known.sales))
        choices.append(
            ReportFailedDelivery(
                lead_id=known.lead_id, sale_number=number, reason=FailureReason.RECIPIENT_GONE
            )
        )
    return random.choice(choices)


# The rule


def test_all_that_buyers_are_told_stays_true_however_a_lead_goes_on() -> None:
    assert [untrue for number in range(LIVES) for untrue in lived(number).untrue] == []


def test_these_lives_tell_of_everything_that_can_be_told_of_a_sale() -> None:
    types: Counter[str] = Counter()
    said: Counter[str] = Counter()
    for number in range(LIVES):
        for told in lived(number).told:
            types[told.outgoing.type] += 1
            promise = told.outgoing.body.get("promise", "")
            said.update(re.findall(r"for good|Exclusive until|nobody else will get it|yourself", promise))
            said.update(re.findall(r"not before|at any time|after that|others? holds? it", promise))
    assert {*OF_A_SALE, "gavel.notice.v1", "gavel.offer.v1", "gavel.ping.v1"} <= types.keys()
    assert len(said) >= 9


@pytest.mark.parametrize("bug", ["nobody follows", "not so soon", "closed to others", "fee"])
def test_planted_untruth_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest_terms, honest_following = deliveries._terms, promises._following
    match bug:
        case "nobody follows":
            monkeypatch.setattr(promises, "_following", lambda *_: "nobody else will get it")
        case "not so soon":
            monkeypatch.setattr(
                promises,
                "_following",
                lambda sold, standing: honest_following(sold, replace(standing, next_try_ms=DAY_MS * 99_999)),
            )
        case "closed to others":
            monkeypatch.setattr(
                deliveries, "_terms", lambda *given: honest_terms(*given) | {"others_may_follow": False}
            )
        case "fee":
            monkeypatch.setattr(
                deliveries,
                "_terms",
                lambda sold, standing: honest_terms(
                    replace(sold, upgrade_fee_cents=sold.upgrade_fee_cents and sold.upgrade_fee_cents + 1),
                    standing,
                ),
            )
    assert any(lived(number).untrue for number in range(LIVES))
