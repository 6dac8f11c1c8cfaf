"""The demo's checks can fail: each sees the one thing that would break its guarantee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.cli.demo_checks import Check, Evidence, check
from services.cli.demo_sales import Bill, Delivery
from services.contract.market import Mode

CLOSED, CAP, EXCLUSIVE, LIMITS, DELIVERED, BILLED, LEDGER, INSIDE, LOG = range(9)


def delivery(lead: str, number: int, buyer: str) -> Delivery:
    return Delivery(
        buyer_id=buyer,
        lead_id=lead,
        sale_id=f"{lead}-{number}",
        order_id=f"{buyer}/all",
        mode=Mode.SHARED,
        sale_number=number,
        sales_max=3,
        sold_at=f"2026-11-22T10:00:0{number}.000Z",
        exclusive_until=None,
        price="40.00",
        content=f"{lead} {number}".encode(),
        has_contact=True,
    )


SHARED = (delivery("shared", 1, "oak"), delivery("shared", 2, "elm"))
ALONE = replace(delivery("alone", 1, "oak"), mode=Mode.EXCLUSIVE, sales_max=1)
FIRST = replace(
    delivery("staggered", 1, "oak"), mode=Mode.EXCLUSIVE, exclusive_until="2026-11-22T10:00:02.000Z"
)
SECOND = delivery("staggered", 2, "elm")
LEADS = ("shared", "alone", "staggered", "unsold")


def evidence(deliveries: Sequence[Delivery] = (*SHARED, ALONE, FIRST, SECOND)) -> Evidence:
    return Evidence(
        accepted=frozenset(LEADS),
        closes={lead: frozenset({(0, at)}) for at, lead in enumerate(LEADS, start=1)},
        deliveries=deliveries,
        bills=[
            Bill(sale_id=each.sale_id, lead_id=each.lead_id, buyer_id=each.buyer_id, price=each.price)
            for each in {each.sale_id: each for each in deliveries}.values()
        ],
        discrepancies=(),
        unbalanced=(),
        leaks=(),
        broken=(),
        over_limits=(),
        records_inside=10,
        entries=5,
    )


def broken(found: Sequence[Check]) -> list[int]:
    return [number for number, each in enumerate(found) if not each.holds]


def test_a_market_that_kept_its_promises_passes_every_check() -> None:
    assert broken(check(evidence())) == []


def test_a_delivery_that_came_twice_with_the_same_content_is_no_second_sale() -> None:
    assert broken(check(evidence((*SHARED, SHARED[0], ALONE, FIRST, SECOND)))) == []


@pytest.mark.parametrize(
    ("closes", "why"),
    [
        ({"shared": frozenset({(0, 1), (0, 9)})}, "closed 2 times"),
        ({"shared": frozenset[tuple[int, int]]()}, "closed 0 times"),
        ({"unknown": frozenset({(0, 7)})}, "never accepted"),
    ],
    ids=["twice", "never", "not accepted"],
)
def test_sees_a_lead_not_closed_exactly_once(closes: dict[str, frozenset[tuple[int, int]]], why: str) -> None:
    good = evidence()
    found = check(replace(good, closes={**good.closes, **closes}))
    assert broken(found) == [CLOSED]
    assert why in found[CLOSED].against[0]


def test_sees_one_buyer_too_many() -> None:
    extra = [delivery("shared", 3, "pine"), delivery("shared", 4, "harbor")]
    assert broken(check(evidence((*SHARED, *extra, ALONE)))) == [CAP]


def test_sees_a_cap_that_a_source_has_lowered() -> None:
    lowered = [replace(each, sales_max=1) for each in SHARED]
    assert broken(check(evidence(lowered))) == [CAP]


def test_sees_the_same_buyer_twice() -> None:
    twice = [SHARED[0], replace(SHARED[1], buyer_id="oak")]
    assert broken(check(evidence(twice))) == [CAP]


def test_sees_a_sale_number_used_twice() -> None:
    assert broken(check(evidence([SHARED[0], replace(SHARED[1], sale_number=1)]))) == [CAP]


def test_sees_a_second_holder_of_an_exclusive_lead() -> None:
    second = replace(delivery("alone", 2, "elm"), sales_max=3)
    assert broken(check(evidence([replace(ALONE, sales_max=3), second]))) == [EXCLUSIVE]


def test_sees_a_second_holder_before_the_exclusive_time_is_over() -> None:
    early = replace(SECOND, sold_at="2026-11-22T10:00:01.999Z")
    assert broken(check(evidence([FIRST, early]))) == [EXCLUSIVE]


def test_sees_a_disclosed_lead_sold_as_exclusive() -> None:
    late = replace(SHARED[1], mode=Mode.EXCLUSIVE)
    assert broken(check(evidence([SHARED[0], late]))) == [EXCLUSIVE]


def test_sees_a_repeat_with_other_content() -> None:
    repeat = replace(SHARED[0], content=b"another price")
    assert broken(check(evidence((*SHARED, repeat)))) == [DELIVERED]


def test_sees_a_sale_that_came_to_two_buyers() -> None:
    assert DELIVERED in broken(check(evidence((*SHARED, replace(SHARED[0], buyer_id="pine")))))


def test_sees_a_lead_without_its_contact_details() -> None:
    assert broken(check(evidence([replace(SHARED[0], has_contact=False)]))) == [DELIVERED]


def test_sees_a_sale_billed_twice_or_not_or_at_another_price() -> None:
    good = evidence()
    first, *rest = good.bills
    assert broken(check(replace(good, bills=rest))) == [BILLED]
    assert broken(check(replace(good, bills=[*good.bills, first]))) == [BILLED]
    assert broken(check(replace(good, bills=[replace(first, price="41.00"), *rest]))) == [BILLED]
    assert broken(check(replace(good, bills=[replace(first, buyer_id="pine"), *rest]))) == [BILLED]


def test_sees_what_the_ledger_the_topics_and_the_log_have_against_them() -> None:
    good = evidence()
    assert broken(check(replace(good, discrepancies=["account total: buyer:oak"]))) == [LEDGER]
    assert broken(check(replace(good, unbalanced=["all balances in USD add up to 1"]))) == [LEDGER]
    assert broken(check(replace(good, leaks=["leads.log has 1 record with contact details"]))) == [INSIDE]
    assert broken(check(replace(good, broken=["partition 1: entry 4: missing"]))) == [LOG]
