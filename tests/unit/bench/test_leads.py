"""The leads that are sent are all different, always the same, and what both pipelines take."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bench.leads import LEAD_TYPE, NUMBERS, SOURCE_ID, submission
from bench.per_event_faust import router
from bench.per_event_faust.records import AcceptedLead
from bench.per_event_faust.submissions import Submission
from bench.pipeline import BUYERS
from services.contract.ids import lead_id_of

CREATED_AT_MS = 1_790_000_000_000
SOME = (*range(2_000), *range(0, NUMBERS, NUMBERS // 500), NUMBERS - 1)


def body(number: int) -> dict[str, Any]:
    """The document of a lead."""
    found: dict[str, Any] = orjson.loads(submission(number, CREATED_AT_MS).value)
    return found


@pytest.mark.parametrize("path", [("reference",), ("contact", "phone"), ("contact", "email")])
def test_no_two_leads_share_what_duplicates_are_known_by(path: tuple[str, ...]) -> None:
    values = set()
    for number in SOME:
        value = body(number)
        for key in path:
            value = value[key]
        values.add(str(value))
    assert len(values) == len(set(SOME))


def test_lead_of_a_number_is_the_same_each_time() -> None:
    assert submission(42, CREATED_AT_MS) == submission(42, CREATED_AT_MS)


def test_control_takes_every_lead() -> None:
    for number in SOME:
        assert Submission.model_validate_json(submission(number, CREATED_AT_MS).value).lead_type == LEAD_TYPE


def accepted(number: int) -> AcceptedLead:
    """A lead as the control's router gets it."""
    found = body(number)
    return AcceptedLead(
        lead_id=lead_id_of(SOURCE_ID, found["reference"]),
        source_id=SOURCE_ID,
        reference=found["reference"],
        lead_type=LEAD_TYPE,
        contact=found["contact"],
        details=found["details"],
        quality=0,
        created_at=found["created_at"],
    )


def test_control_sells_every_lead_to_all_three_buyers_the_best_price_first() -> None:
    for number in SOME:
        sales = router.decide(accepted(number)).sales
        assert [sale.sale_number for sale in sales] == [1, 2, 3]
        assert {sale.buyer_id for sale in sales} == set(BUYERS)
        assert [sale.price_cents for sale in sales] == [48_00, 46_00, 35_00]
