"""What a buyer may answer, and that nothing else of its record gets through."""

from __future__ import annotations

from typing import Any, get_args

import orjson
import pytest

from services.contract.events import Disposition, NoBidReason, RejectionReason, ReturnReason
from services.contract.inputs import (
    AcceptOffer,
    AcknowledgeErasure,
    Command,
    DecideReturn,
    DeclineToBid,
    EraseLead,
    MoveMoney,
    PlaceBid,
    RejectOffer,
    ReportDisposition,
    ReturnLead,
    UpgradeSale,
    WithdrawLead,
)
from services.intake.answers import ANSWER_BYTES_MAX, BID_CENTS_MAX, Answered, read_answer
from services.intake.submission import Undecodable

LEAD = "7e57ab1e-0000-5000-8000-000000000001"
AT_MS = 1_790_000_000_000


def read(value: bytes | None) -> Command:
    return read_answer(value, buyer_id="acme", answered_at_ms=AT_MS)


def bid(exclusive_cents: int | None = None, shared_cents: int | None = None) -> PlaceBid:
    return PlaceBid(
        lead_id=LEAD,
        buyer_id="acme",
        auction_number=1,
        exclusive_cents=exclusive_cents,
        shared_cents=shared_cents,
        answered_at_ms=AT_MS,
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"type": "accept_offer", "lead_id": LEAD, "offer_number": 1},
            AcceptOffer(lead_id=LEAD, buyer_id="acme", offer_number=1, answered_at_ms=AT_MS),
        ),
        (
            {"type": "accept_offer", "lead_id": LEAD.upper(), "offer_number": 2},
            AcceptOffer(lead_id=LEAD, buyer_id="acme", offer_number=2, answered_at_ms=AT_MS),
        ),
        (
            {"type": "reject_offer", "lead_id": LEAD, "offer_number": 1, "reason": "price"},
            RejectOffer(lead_id=LEAD, buyer_id="acme", offer_number=1, reason=RejectionReason.PRICE),
        ),
        (
            {"type": "disposition", "lead_id": LEAD, "disposition": "no_deal"},
            ReportDisposition(lead_id=LEAD, buyer_id="acme", disposition=Disposition.NO_DEAL),
        ),
        (
            {"type": "bid", "lead_id": LEAD, "auction_number": 1, "exclusive": "85.00", "shared": "34.5"},
            bid(exclusive_cents=8500, shared_cents=3450),
        ),
        ({"type": "bid", "lead_id": LEAD, "auction_number": 1, "shared": "34"}, bid(shared_cents=3400)),
        (
            {"type": "bid", "lead_id": LEAD, "auction_number": 1, "exclusive": "0.01", "shared": None},
            bid(exclusive_cents=1),
        ),
        (
            {"type": "no_bid", "lead_id": LEAD, "auction_number": 2, "reason": "duplicate"},
            DeclineToBid(
                lead_id=LEAD,
                buyer_id="acme",
                auction_number=2,
                reason=NoBidReason.DUPLICATE,
                answered_at_ms=AT_MS,
            ),
        ),
        (
            {"type": "upgrade", "lead_id": LEAD},
            UpgradeSale(lead_id=LEAD, buyer_id="acme", answered_at_ms=AT_MS),
        ),
        (
            {"type": "erased", "lead_id": LEAD},
            AcknowledgeErasure(lead_id=LEAD, buyer_id="acme", by_operator=False),
        ),
        (
            {"type": "return", "lead_id": LEAD, "reason": "wrong_person"},
            ReturnLead(lead_id=LEAD, buyer_id="acme", reason=ReturnReason.WRONG_PERSON, answered_at_ms=AT_MS),
        ),
    ],
)
def test_buyer_is_the_topics_and_time_is_the_appends(answer: dict[str, Any], expected: Command) -> None:
    assert read(orjson.dumps(answer)) == expected


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"type": "canary", "lead_id": LEAD},
        {"type": "accept_offer", "lead_id": "canary", "offer_number": 1},
        {"type": "accept_offer", "lead_id": LEAD},
        {"type": "accept_offer", "lead_id": LEAD, "offer_number": 0},
        {"type": "accept_offer", "lead_id": LEAD, "offer_number": "1"},
        {"type": "accept_offer", "lead_id": LEAD, "offer_number": 1.0},
        {"type": "accept_offer", "lead_id": LEAD, "offer_number": 1_000_001},
        {"type": "accept_offer", "lead_id": LEAD, "offer_number": 1, "buyer_id": "other"},
        {"type": "accept_offer", "lead_id": LEAD, "offer_number": 1, "note": "canary"},
        {"type": "reject_offer", "lead_id": LEAD, "offer_number": 1, "reason": "canary"},
        {"type": "disposition", "lead_id": LEAD, "disposition": "canary"},
        {"type": "withdraw", "lead_id": LEAD, "reason": "erased"},
        {"type": "move_money", "lead_id": LEAD, "amount": "100.00"},
        {"type": "bid", "lead_id": LEAD, "exclusive": "85.00"},
        {"type": "bid", "lead_id": LEAD, "auction_number": 0, "exclusive": "85.00"},
        {"type": "bid", "lead_id": LEAD, "auction_number": "1", "exclusive": "85.00"},
        {"type": "bid", "lead_id": LEAD, "auction_number": 1, "exclusive": "85.00", "currency": "canary"},
        {"type": "bid", "lead_id": LEAD, "auction_number": 1, "exclusive": "85.00", "buyer_id": "other"},
        {"type": "no_bid", "lead_id": LEAD, "auction_number": 1},
        {"type": "no_bid", "lead_id": LEAD, "auction_number": 1, "reason": "canary"},
        {"type": "upgrade", "lead_id": LEAD, "fee": "1.00"},
        {"type": "return", "lead_id": LEAD},
        {"type": "return", "lead_id": LEAD, "reason": "canary"},
        {"type": "return", "lead_id": LEAD, "reason": "other", "note": "canary"},
    ],
)
def test_refuses_any_other_shape_without_quoting_it(answer: dict[str, Any]) -> None:
    with pytest.raises(Undecodable) as raised:
        read(orjson.dumps(answer))
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("value", [None, b"", b"canary", b"[]", b"{}" + b" " * ANSWER_BYTES_MAX])
def test_refuses_what_is_no_answer(value: bytes | None) -> None:
    with pytest.raises(Undecodable):
        read(value)


PRICES = [
    ("0.01", 1),
    ("0.10", 10),
    ("85", 8_500),
    ("85.5", 8_550),
    ("999999.99", 99_999_999),
    ("1000000", BID_CENTS_MAX),
    ("1000000.00", BID_CENTS_MAX),
]


@pytest.mark.parametrize(("price", "cents"), PRICES)
def test_price_is_a_decimal_string_and_becomes_minor_units(price: str, cents: int) -> None:
    body = {"type": "bid", "lead_id": LEAD, "auction_number": 1, "exclusive": price, "shared": price}
    assert read(orjson.dumps(body)) == bid(cents, cents)


@pytest.mark.parametrize("price", [85, 85.0, 0, True, ["85.00"], {"amount": "85.00"}])
@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_price_that_is_no_string_is_refused_and_told_why(mode: str, price: Any) -> None:
    body = {"type": "bid", "lead_id": LEAD, "auction_number": 1, mode: price}
    with pytest.raises(Undecodable, match=r'a price is to be a string such as "85.00", not a number'):
        read(orjson.dumps(body))


@pytest.mark.parametrize(
    "price",
    [
        "0", "0.00", "0.001", "85.000", "1000000.01", "1000001", "10000000", "-1.00", "+1.00", "1e3", "1,000.00", ".50",
        "85.", "085.00", " 85.00", "85.00 ", "85.00\n", "$85.00", "canary", "", "٨٥", "85.00\x00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["exclusive", "shared"])
def test_price_beyond_its_bounds_or_shape_is_refused_without_quoting_it(mode: str, price: str) -> None:
    body = {"type": "bid", "lead_id": LEAD, "auction_number": 1, mode: price}
    with pytest.raises(Undecodable) as raised:
        read(orjson.dumps(body))
    assert (
        str(raised.value) == "a price is to be a decimal from 0.01 to 1000000.00, with at most two decimals"
    )


@pytest.mark.parametrize("prices", [{}, {"exclusive": None}, {"exclusive": None, "shared": None}])
def test_bid_without_a_price_is_refused_and_told_why(prices: dict[str, Any]) -> None:
    body = {"type": "bid", "lead_id": LEAD, "auction_number": 1, **prices}
    with pytest.raises(Undecodable, match="a bid is to name a price: exclusive, shared or both"):
        read(orjson.dumps(body))


def test_every_command_of_a_buyer_can_be_sent_and_no_operators() -> None:
    operators = {WithdrawLead, DecideReturn, MoveMoney, EraseLead}
    assert set(get_args(Answered)) == set(get_args(Command)) - operators
