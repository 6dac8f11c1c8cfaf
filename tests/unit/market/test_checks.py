"""Promises that a market could not keep are refused with the reason; the same market without the breach is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry
from services.contract.events import AuctionClosed, AuctionEnd, BidOutcome, BidResult, LimitReached
from services.contract.market import Market, Mode
from services.market.checks import ORDERS_MAX, errors
from services.market.fields import ID_MAX
from tests.unit.market.sample import SMALL, changed, errors_of, market_of

RECORD_BYTES_MAX = 1_048_588

PLAN = "lead_types.solar.plans.staggered"
PREMIUM = "lead_types.solar.plans.premium"
FIRST = "buyers.oak.orders.first"
WHERE = "where: {state: [AZ, NV]}"
TRYING = "keep_trying: {every: 15m, for: 8h}"
SHARED = "{sell: shared, price: [30.00, 25.00]}"
EITHER = "{exclusive: 9.00, shared: 6.00}"

BROKEN = [
    (
        "price: [30.00, 25.00]",
        "price: [30.00, 30.01]",
        f"{PLAN}.stages.2.price",
        "[30.00, 30.01]",
        "never rise",
    ),
    (
        EITHER,
        "{exclusive: 9.00, shared: [6.00, 7.00]}",
        f"{PLAN}.stages.3.price.shared",
        "[6.00, 7.00]",
        "never rise",
    ),
    (
        WHERE,
        "where: {zip: 01234}",
        f"{FIRST}.where.zip",
        "zip",
        "expected a field that pings show (state, bill",
    ),
    (
        "{quality: {from: 30}}",
        "{roof_age: {to: 5}}",
        f"{PREMIUM}.when.roof_age",
        "roof_age",
        "lead_types.solar.ping",
    ),
    ("sales_max: 3\n", "sales_max: 0\n", f"{PLAN}.sales_max", "0", "1 to 10"),
    ("sales_max: 3\n", "sales_max: 11\n", f"{PLAN}.sales_max", "11", "1 to 10"),
    (
        "name: premium\n",
        "name: premium\n        sales_max: 2\n",
        f"{PREMIUM}.sales_max",
        "2",
        "all stages sell exclusive",
    ),
    ("sales_max: 2,", "sales_max: 0,", "sources.sunform.sales_max", "0", "1 to 10"),
    ("sales_max: 2,", "sales_max: 11,", "sources.sunform.sales_max", "11", "1 to 10"),
    (
        "[30.00, 25.00]}",
        "[30.00, 25.00], exclusive_for: 1h}",
        f"{PLAN}.stages.2.exclusive_for",
        "1h",
        "nobody's alone",
    ),
    (TRYING, "keep_trying: {every: 0s, for: 8h}", f"{PREMIUM}.stages.1.keep_trying.every", "0s", "a pause"),
    (TRYING, "keep_trying: {every: 1s, for: 0s}", f"{PREMIUM}.stages.1.keep_trying.for", "0s", "some time"),
    (
        TRYING,
        "keep_trying: {every: 1s, for: 8h}",
        f"{PREMIUM}.stages.1.keep_trying.for",
        "8h",
        "at most 10000 tries",
    ),
    ("only: [oak]", "only: [oak, oka]", f"{PLAN}.stages.3.only", "oka", "did you mean oak?"),
    (
        "never_to: [oak]",
        "never_to: [ok]",
        "sources.sunform.never_to",
        "ok",
        "expected a buyer of this market",
    ),
    (
        "{lead_types: [solar]",
        "{lead_types: [solr]",
        "sources.sunform.lead_types",
        "solr",
        "did you mean solar?",
    ),
    (
        "first: {lead_type: solar",
        "first: {lead_type: roofs",
        f"{FIRST}.lead_type",
        "roofs",
        "expected a lead type",
    ),
    ("holders_max: 3", "holders_max: 0", "buyers.oak.orders.second.holders_max", "0", "expected at least 1"),
    # floors
    (
        "[30.00, 25.00]}",
        "[30.00, 25.00], floor: 25.01}",
        f"{PLAN}.stages.2.floor",
        "25.01",
        "last list price, 25.00",
    ),
    (
        "price: 70.00",
        "price: 70.00, floor: 70.01",
        f"{PLAN}.stages.1.floor",
        "70.01",
        "last list price, 70.00",
    ),
    (
        f"price: {EITHER}",
        f"price: {EITHER}, floor: {{exclusive: 9.01}}",
        f"{PLAN}.stages.3.floor.exclusive",
        "9.01",
        "last list price, 9.00",
    ),
    # auctions
    (
        SHARED,
        "{sell: shared, selection: ping_post}",
        f"{PLAN}.stages.2.selection",
        "ping_post",
        "the key bid_window",
    ),
    (
        SHARED,
        "{sell: shared, selection: first_bid}",
        f"{PLAN}.stages.2.selection",
        "first_bid",
        "the key bid_window",
    ),
    (
        SHARED,
        "{sell: shared, price: 30.00, bid_window: 500ms}",
        f"{PLAN}.stages.2.bid_window",
        "500ms",
        "only with selection: ping_post or first_bid",
    ),
    (
        SHARED,
        "{sell: shared, selection: ping_post, bid_window: 9ms}",
        f"{PLAN}.stages.2.bid_window",
        "9ms",
        "expected 10ms to 1d",
    ),
    (
        SHARED,
        "{sell: shared, selection: first_bid, bid_window: 25h}",
        f"{PLAN}.stages.2.bid_window",
        "25h",
        "expected 10ms to 1d",
    ),
    (
        SHARED,
        "{sell: shared, selection: first_bid, bid_window: 1s, accept_within: 10m}",
        f"{PLAN}.stages.2.accept_within",
        "10m",
        "a bid is binding",
    ),
    (
        SHARED,
        "{sell: shared, selection: ping_post, bid_window: 1s, by: weight}",
        f"{PLAN}.stages.2.by",
        "weight",
        "the best bid wins",
    ),
    # upgrades
    (
        "price: 70.00",
        "price: 70.00, upgrade: {per_slot: 9.00}",
        f"{PLAN}.stages.1.upgrade",
        "{per_slot: 9.00}",
        "only where the stage sells shared",
    ),
    (
        f"price: {EITHER}",
        f"price: {EITHER}, upgrade: {{per_slot: 9.00}}",
        f"{PLAN}.stages.3.upgrade",
        "{per_slot: 9.00}",
        "only where the stage sells shared",
    ),
    (
        SHARED,
        "{sell: shared, selection: ping_post, bid_window: 1s, upgrade: {per_slot: 9.00}}",
        f"{PLAN}.stages.2.upgrade",
        "{per_slot: 9.00}",
        "sold at once",
    ),
    # returns
    (
        "contact_kept: 180d",
        "contact_kept: 180d\n    returns: {within: 181d, reasons: [other]}",
        "lead_types.solar.returns.within",
        "181d",
        "at most contact_kept, 180d",
    ),
    (
        "contact_kept: 180d",
        "contact_kept: 33d",
        "lead_types.solar.contact_kept",
        "33d",
        "than plan staggered may sell",
    ),
]


@pytest.mark.parametrize(("old", "new", "path", "value", "reason"), BROKEN)
def test_refuses_what_could_not_be_kept(old: str, new: str, path: str, value: str, reason: str) -> None:
    (error,) = errors_of(changed(old, new))
    assert (error.path, error.value) == (path, value)
    assert reason in error.expected
    assert SMALL.splitlines()[error.line - 1], "it names a line of the file"


KEPT = [
    ("price: [30.00, 25.00]", "price: [30.00, 30.00, 29.99]"),
    (WHERE, "where: {bill: {from: 1}, quality: {from: 1}, age: {to: 5d}}"),
    ("sales_max: 3\n", "sales_max: 1\n"),
    ("sales_max: 3\n", "sales_max: 10\n"),
    ("name: premium\n", "name: premium\n        sales_max: 1\n"),
    ("sales_max: 2,", "sales_max: 10,"),
    (TRYING, "keep_trying: {every: 1ms, for: 10s}"),
    (TRYING, "wait: 5m"),
    ("only: [oak]", "by: round_robin"),
    ("never_to: [oak]", "paused: yes"),
    ("holders_max: 3", "holders_max: 1"),
    ("contact_kept: 180d", "contact_kept: 34d"),
    ("[30.00, 25.00]}", "[30.00, 25.00], floor: 25.00}"),
    ("price: 70.00", "price: 70.00, floor: {exclusive: 1.00}"),
    (SHARED, "{sell: shared, selection: ping_post, bid_window: 10ms, by: price}"),
    (SHARED, "{sell: shared, selection: ping_post, bid_window: 24h, floor: 90.00}"),
    (SHARED, "{sell: shared, selection: first_bid, bid_window: 30s, by: priority, price: [30.00, 20.00]}"),
    (SHARED, "{sell: shared, price: 30.00, upgrade: {per_slot: 9.00, within: 1d}}"),
    ("contact_kept: 180d", "contact_kept: 180d\n    returns: {within: 180d, reasons: [other]}"),
]


@pytest.mark.parametrize(("old", "new"), KEPT)
def test_takes_what_can_be_kept(old: str, new: str) -> None:
    market_of(changed(old, new))


def test_a_score_may_use_a_detail_that_pings_hide() -> None:
    assert "roof_age" not in market_of(SMALL).lead_types["solar"].ping


def test_an_expiry_bounds_how_long_the_vault_must_remember() -> None:
    text = changed("contact_kept: 180d", "contact_kept: 33d").replace(
        "expires_after: 60d", "expires_after: 32d"
    )
    market_of(text)


def test_an_upgrade_needs_a_slot_to_close() -> None:
    text = changed(SHARED, "{sell: shared, price: 30.00, upgrade: {per_slot: 9.00}}")
    (error,) = errors_of(text.replace("sales_max: 3\n", "sales_max: 1\n"))
    assert (error.path, error.value) == (f"{PLAN}.stages.2.upgrade", "{per_slot: 9.00}")
    assert "sales_max over 1" in error.expected


@pytest.mark.parametrize(
    "stage",
    [
        "{sell: shared, price: 30.00, upgrade: {per_slot: 9.00, within: 2d}}",
        "{sell: shared, selection: first_bid, bid_window: 1d, keep_trying: {every: 1d, for: 1d}}",
    ],
)
def test_the_vault_must_remember_for_as_long_as_upgrades_and_auctions_may_take(stage: str) -> None:
    kept = changed(SHARED, stage)
    market_of(kept.replace("contact_kept: 180d", "contact_kept: 36d"))
    (error,) = errors_of(kept.replace("contact_kept: 180d", "contact_kept: 35d"))
    assert error.path == "lead_types.solar.contact_kept"


def test_plans_and_stages_are_of_bounded_number() -> None:
    stage = "          - {sell: shared, price: [30.00, 25.00]}\n"
    (error,) = errors_of(changed(stage, stage * 20))
    assert (error.path, error.expected) == (f"{PLAN}.stages", "expected at most 20 stages")
    plan = "      - {name: plan-%d, stages: [{sell: exclusive, price: 1.00}]}\n"
    plans = "".join(plan % number for number in range(99))
    (error,) = errors_of(changed("    plans:\n", f"    plans:\n{plans}"))
    assert (error.path, error.expected) == ("lead_types.solar.plans", "expected at most 100 plans")


def test_orders_of_a_lead_type_are_of_bounded_number() -> None:
    market = market_of(SMALL)
    oak = market.buyers["oak"]
    known = [order for order in oak.orders if order.lead_type == "solar"][:1]

    def with_orders(count: int) -> Market:
        return replace(market, buyers={"oak": replace(oak, orders=tuple(known * count))})

    assert not list(errors(with_orders(ORDERS_MAX)))
    (breach,) = errors(with_orders(ORDERS_MAX + 1))
    assert (breach.path, breach.value) == ("lead_types.solar", "2001")


def test_largest_entry_that_so_many_orders_may_cause_fits_into_a_record() -> None:
    """All bid, all are under the floor, and all are found used up: with the longest names that there may be."""
    assert len(_entry_of(ORDERS_MAX)) < RECORD_BYTES_MAX
    assert len(_entry_of(2 * ORDERS_MAX)) > RECORD_BYTES_MAX


def _entry_of(orders: int) -> bytes:
    buyers = [f"{number:0{ID_MAX}d}" for number in range(orders)]
    order_ids = [f"{buyer_id}/{buyer_id}" for buyer_id in buyers]
    results = tuple(
        BidResult(
            buyer_id=buyer_id,
            outcome=BidOutcome.BELOW_FLOOR,
            mode=Mode.EXCLUSIVE,
            minimum_to_win_cents=99_999_999_999,
        )
        for buyer_id in buyers
    )
    ended = AuctionClosed(
        auction_number=1,
        reason=AuctionEnd.ALL_ANSWERED,
        mode=None,
        exclusive_cents=None,
        shared_cents=None,
        results=results,
        silent=(),
    )
    reached = [
        LimitReached(
            buyer_id=buyer_id, order_id=order_id, limit="spend_per_month", resumes_at_ms=2_000_000_000_000
        )
        for buyer_id, order_id in zip(buyers, order_ids, strict=True)
    ]
    entry = Entry(
        seq=1,
        prev_hash=GENESIS_HASH,
        cause=Cause(kind=CauseKind.ROUTER, offset=0),
        market_version=1,
        no_room=tuple(order_ids),
        lead_id="7e57ab1e-0000-5000-8000-000000000001",
        decided_at_ms=2_000_000_000_000,
        events=tuple(map(codec().encode_body, (ended, *reached))),
    )
    return codec().encode(entry)


def test_every_order_and_every_plan_is_checked() -> None:
    text = changed(WHERE, "where: {zip: 01234}").replace(
        "second: {lead_type: solar", "second: {lead_type: wind"
    )
    text = text.replace("[30.00, 25.00]", "[1.00, 2.00]").replace("only: [oak]", "only: [elm]")
    assert [error.path for error in errors_of(text)] == [
        f"{PLAN}.stages.2.price",
        f"{PLAN}.stages.3.only",
        f"{FIRST}.where.zip",
        "buyers.oak.orders.second.lead_type",
    ]
