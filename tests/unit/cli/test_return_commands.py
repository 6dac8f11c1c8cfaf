"""What an operator is told of a return follows from what the router decided, and from nothing else."""

from __future__ import annotations

import pytest

from services.cli.asking import Decided
from services.cli.complaints import Complaint
from services.cli.return_commands import outcome_of
from services.contract.events import (
    CommandRefused,
    Event,
    RefusalReason,
    ReturnApproved,
    ReturnRefusal,
    ReturnRefused,
)

SALE = "8026069e-f1ce-5bdc-9d44-102175d9a432"
APPROVED = ReturnApproved(
    sale_number=1,
    sale_id=SALE,
    buyer_id="oak",
    source_id="web",
    price_cents=9000,
    currency="USD",
    automatic=False,
    payout_cents=0,
    draws=(),
    is_test=False,
)


def refused(reason: ReturnRefusal) -> ReturnRefused:
    return ReturnRefused(sale_number=1, sale_id=SALE, buyer_id="oak", reason=reason)


def outcome(*events: Event, approve: bool = True) -> dict[str, object]:
    return outcome_of(Decided(None, events), approve=approve)


def test_an_approved_return_tells_what_its_buyer_is_credited() -> None:
    assert outcome(APPROVED) == {
        "decision": "approved",
        "buyer": "oak",
        "refund": "90.00",
        "currency": "USD",
    }


def test_a_refused_return_is_done_where_refusing_was_asked() -> None:
    assert outcome(refused(ReturnRefusal.OPERATOR), approve=False)["decision"] == "refused"


def test_a_return_that_cannot_be_approved_is_a_complaint_with_its_reason() -> None:
    with pytest.raises(Complaint, match="quota of returns is used up"):
        outcome(refused(ReturnRefusal.QUOTA_USED_UP))


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (RefusalReason.RETURN_NOT_ASKED, "has not asked"),
        (RefusalReason.ALREADY_RETURNED, "credited already"),
        (RefusalReason.UNKNOWN_LEAD, "no such lead"),
    ],
)
@pytest.mark.parametrize("approve", [True, False])
def test_what_the_router_refuses_is_a_complaint_in_words(
    reason: RefusalReason, words: str, approve: bool
) -> None:
    with pytest.raises(Complaint, match=words):
        outcome(CommandRefused(command="decide_return", buyer_id=None, reason=reason), approve=approve)


def test_a_command_without_effect_is_a_complaint() -> None:
    with pytest.raises(Complaint, match="decided nothing"):
        outcome()
