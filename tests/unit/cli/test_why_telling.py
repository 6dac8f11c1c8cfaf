"""Why a buyer got a lead or not is told attempt by attempt, with what the log says of the buyer besides."""

from __future__ import annotations

from typing import Any

from services.cli.why_telling import Why, why_json, why_of
from services.contract.events import LimitReached, NoBidReason, RejectionReason, WithdrawalReason
from services.contract.ids import lead_id_of
from services.contract.inputs import AcceptOffer, DeclineToBid, PlaceBid, RejectOffer, WithdrawLead
from services.contract.market import Sell
from tests.support.deciding import (
    BID_WINDOW_MS,
    bid_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)
from tests.support.retelling import Chronicle

LEAD = lead_id_of("sunform", "lead-1")


def told_of(*stages: Any, orders: Any, **options: Any) -> Chronicle:
    told = Chronicle({1: market(plan(*stages, sales_max=2), orders=orders)})
    told.when(lead(), **options)
    return told


def why(told: Chronicle, buyer_id: str) -> Why:
    return why_of(told.read(), buyer_id, told.versions())


def sentences(told: Chronicle, buyer_id: str) -> list[str]:
    """What is told, an attempt as its orders with what decided."""
    answers = why_json(why(told, buyer_id))["answers"]
    return [
        answer["sentence"]
        if answer["kind"] != "attempt"
        else ", ".join(f"{each['order']}: {each['decisive']}" for each in answer["orders"])
        for answer in answers
    ]


def test_every_order_of_the_buyer_is_told_of_in_every_attempt() -> None:
    told = told_of(
        exclusive_stage(),
        shared_stage(4000),
        orders=(order("oak", exclusive=100, name="a"), order("oak", shared=4100, name="b")),
    )
    assert sentences(told, "oak") == ["oak/a: price, oak/b: mode", "oak/a: mode, oak/b: sold"]


def test_a_limit_that_was_reached_is_told_beside_the_attempt() -> None:
    reached = LimitReached(buyer_id="oak", order_id="oak/all", limit="leads_per_day", resumes_at_ms=None)
    told = told_of(
        exclusive_stage(),
        orders=(order("oak", exclusive="list"),),
        no_room=("oak/all",),
        limits_reached=(reached,),
    )
    first, second = sorted(sentences(told, "oak"))
    assert first == "oak/all was passed over for the first time since its leads_per_day is used up"
    assert second == "oak/all: no_room"
    assert why_json(why(told, "oak"))["answers"][-1]["no_room"] == ["oak/all"]


def test_what_a_buyer_did_with_its_offer_is_told() -> None:
    told = told_of(exclusive_stage(accept_within_ms=60_000), orders=(order("oak", exclusive="list"),))
    told.when(AcceptOffer(lead_id=LEAD, buyer_id="oak", offer_number=9, answered_at_ms=told.now_ms))
    told.when(RejectOffer(lead_id=LEAD, buyer_id="oak", offer_number=1, reason=RejectionReason.PRICE))
    assert sentences(told, "oak") == [
        "oak/all: offered",
        "oak was refused: accept offer (reason: offer not open)",
        "oak rejected its offer (reason: price), and is not asked again",
        "oak/all: passed",
    ]
    assert sentences(told, "elm") == ["", ""]


def test_bids_and_void_bids_are_told_with_how_late_they_were() -> None:
    told = told_of(
        bid_stage(Sell.EXCLUSIVE),
        orders=tuple(order(buyer_id, exclusive="bid") for buyer_id in ("oak", "elm", "ash")),
    )

    def place(buyer_id: str, cents: int, late_ms: int = 0) -> None:
        told.when(
            PlaceBid(
                lead_id=LEAD,
                buyer_id=buyer_id,
                auction_number=1,
                exclusive_cents=cents,
                shared_cents=None,
                answered_at_ms=opened_at_ms + (BID_WINDOW_MS + late_ms if late_ms else 0),
            )
        )

    opened_at_ms = told.now_ms
    place("oak", 5000)
    place("oak", 6000)
    told.when(
        DeclineToBid(
            lead_id=LEAD,
            buyer_id="ash",
            auction_number=1,
            reason=NoBidReason.CAPACITY,
            answered_at_ms=opened_at_ms,
        )
    )
    place("elm", 9900, late_ms=7)
    told.close_auction()
    assert sentences(told, "oak") == [
        "oak/all: asked",
        "oak/all bid 50.00 exclusive",
        "oak's answer in auction 1 counted for nothing (answered before)",
        "oak/all: sold",
    ]
    assert sentences(told, "elm") == [
        "elm/all: asked",
        "elm's answer in auction 1 counted for nothing (late, by 7 ms)",
        "elm/all: bid",
    ]
    assert "ash answered that it does not bid (reason: capacity)" in sentences(told, "ash")


def test_a_buyer_without_an_order_for_such_leads_is_seen() -> None:
    told = told_of(exclusive_stage(), orders=(order("oak", exclusive="list"),))
    assert why(told, "oak").has_orders
    assert not why(told, "nobody").has_orders
    assert why(told, "nobody").lead_type == "solar"


def test_a_lead_that_nobody_was_asked_for_has_no_attempt() -> None:
    told = Chronicle({1: market(plan(exclusive_stage()), orders=(order("oak", exclusive="list"),))})
    told.when(WithdrawLead(lead_id=LEAD, reason=WithdrawalReason.ERASED))
    told.when(lead())
    assert why(told, "oak").tried == []
    assert why(told, "oak").lead_type == "solar"
