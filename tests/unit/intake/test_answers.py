"""What a buyer may answer, and that nothing else of its record gets through."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.contract.events import Disposition, RejectionReason
from services.contract.inputs import AcceptOffer, Command, RejectOffer, ReportDisposition
from services.intake.answers import ANSWER_BYTES_MAX, read_answer
from services.intake.submission import Undecodable

LEAD = "7e57ab1e-0000-5000-8000-000000000001"
AT_MS = 1_790_000_000_000


def read(value: bytes | None) -> Command:
    return read_answer(value, buyer_id="acme", answered_at_ms=AT_MS)


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
