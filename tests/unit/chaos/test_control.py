"""The control's own small checker sees each way of losing a lead, and is silent where nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bench.per_event_faust.settings import BUYERS
from chaos.control import broken_promises, deliveries_of

LEADS = {"lead-1", "lead-2"}


def _told(lead_id: str, number: int, price: str = "40.00") -> dict[str, Any]:
    return {"lead_id": lead_id, "sale_id": f"{lead_id}-{number}", "sale_number": number, "price": price}


def _records() -> dict[str, list[Mapping[str, Any]]]:
    return {
        buyer: [_told(lead, number) for lead in sorted(LEADS)] for number, buyer in enumerate(BUYERS, start=1)
    }


def _bills() -> list[tuple[Any, ...]]:
    return [
        (lead, f"{lead}-{number}", buyer, 40_00)
        for lead in sorted(LEADS)
        for number, buyer in enumerate(BUYERS, start=1)
    ]


def _rules(records: Mapping[str, Sequence[Mapping[str, Any]]], bills: Sequence[tuple[Any, ...]]) -> set[str]:
    return {rule for rule, _ in broken_promises(LEADS, deliveries_of(records), bills)}


def test_silent_where_every_lead_is_delivered_and_billed() -> None:
    assert _rules(_records(), _bills()) == set()


def test_repeat_with_the_same_content_is_counted_and_breaks_nothing() -> None:
    records = _records()
    records[BUYERS[0]].append(records[BUYERS[0]][0])
    assert deliveries_of(records).repeats == 1
    assert _rules(records, _bills()) == set()


@pytest.mark.parametrize(
    ("rule", "records", "bills"),
    [
        ("lead lost", {buyer: told[1:] for buyer, told in _records().items()}, _bills()[3:]),
        (
            "delivery lost",
            {**_records(), BUYERS[2]: _records()[BUYERS[2]][1:]},
            [*_bills()[:2], *_bills()[3:]],
        ),
        (
            "delivered as different sales",
            {**_records(), BUYERS[0]: [*_records()[BUYERS[0]], _told("lead-1", 1, "35.00")]},
            _bills(),
        ),
        ("delivered and not billed", _records(), _bills()[1:]),
        ("billed and not delivered", {**_records(), BUYERS[2]: _records()[BUYERS[2]][1:]}, _bills()),
        ("billed twice", _records(), [*_bills(), _bills()[0]]),
    ],
)
def test_sees_what_is_broken(
    rule: str, records: Mapping[str, Sequence[Mapping[str, Any]]], bills: Sequence[tuple[Any, ...]]
) -> None:
    assert rule in _rules(records, bills)
