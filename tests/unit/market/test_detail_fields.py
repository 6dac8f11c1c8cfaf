"""Details of leads: their canonical text, how they compare, and which leads a filter fits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contract.fields import (
    AGE,
    QUALITY,
    US_STATES,
    FieldError,
    canonical,
    comparable,
    matches,
    quality_of,
)
from services.contract.market import AnyOf, Between, Condition, FieldKind, FieldType, ScoreRule
from services.contract.times import decimal_amount
from services.market.fields import number_text

STATE = FieldKind(type=FieldType.US_STATE)
ZIP = FieldKind(type=FieldType.US_ZIP)
AMOUNT = FieldKind(type=FieldType.AMOUNT)
NUMBER = FieldKind(type=FieldType.NUMBER)
YES_NO = FieldKind(type=FieldType.YES_NO)
CREDIT = FieldKind(type=FieldType.CHOICE, choices=("poor", "good"))

CANONICAL = [
    (STATE, "az", "AZ"),
    (STATE, " AZ ", "AZ"),
    (STATE, "DC", "DC"),
    (STATE, "pr", "PR"),
    (ZIP, "01234", "01234"),
    (AMOUNT, "150", "150.00"),
    (AMOUNT, "0150.5", "150.50"),
    (AMOUNT, "0", "0.00"),
    (AMOUNT, "999999999999.99", "999999999999.99"),
    (NUMBER, "15", "15"),
    (NUMBER, "015.500", "15.5"),
    (NUMBER, "1.050", "1.05"),
    (NUMBER, "-3", "-3"),
    (NUMBER, "-0.0", "0"),
    (YES_NO, "Yes", "yes"),
    (YES_NO, "true", "yes"),
    (YES_NO, "FALSE", "no"),
    (YES_NO, "NO", "no"),
    (CREDIT, " good", "good"),
]
UNFIT = [
    (STATE, "Arizona"),
    (STATE, "ZZ"),
    (STATE, ""),
    (ZIP, "9876"),
    (ZIP, "01234-5678"),
    (ZIP, "0123x"),
    (ZIP, "٠١٢٣٤"),
    (AMOUNT, "1.234"),
    (AMOUNT, "-1"),
    (AMOUNT, "$5"),
    (AMOUNT, "1,000"),
    (AMOUNT, "NaN"),
    (AMOUNT, "1234567890123"),
    (NUMBER, "1e3"),
    (NUMBER, "1.2345"),
    (NUMBER, "+1"),
    (NUMBER, "--1"),
    (NUMBER, "ten"),
    (YES_NO, "maybe"),
    (YES_NO, "1"),
    (CREDIT, "Good"),
    (CREDIT, "fair"),
    (CREDIT, "x" * 201),
]


@pytest.mark.parametrize(("kind", "text", "expected"), CANONICAL)
def test_gives_each_value_one_spelling(kind: FieldKind, text: str, expected: str) -> None:
    assert canonical(kind, text) == expected


@pytest.mark.parametrize(("kind", "text"), UNFIT)
def test_refuses_a_value_without_repeating_it(kind: FieldKind, text: str) -> None:
    with pytest.raises(FieldError, match=r"^expected ") as refused:
        canonical(kind, text)
    assert len(text) < 4 or text not in str(refused.value)


def test_knows_the_states_the_district_and_the_territories() -> None:
    assert len(US_STATES) == 50 + 1 + 5


@settings(deadline=None)
@given(st.sampled_from([STATE, ZIP, AMOUNT, NUMBER, YES_NO, CREDIT]), st.text(max_size=30))
def test_canonical_text_is_its_own_canonical_text(kind: FieldKind, text: str) -> None:
    try:
        once = canonical(kind, text)
    except FieldError:
        return
    assert canonical(kind, once) == once


@settings(deadline=None)
@given(st.integers(0, 10**14 - 1))
def test_amounts_compare_in_cents(cents: int) -> None:
    assert comparable(AMOUNT, canonical(AMOUNT, decimal_amount(cents))) == cents


@settings(deadline=None)
@given(st.integers(-(10**15) + 1, 10**15 - 1))
def test_numbers_compare_in_thousandths(thousandths: int) -> None:
    assert comparable(NUMBER, canonical(NUMBER, number_text(thousandths))) == thousandths


@pytest.mark.parametrize("kind", [STATE, ZIP, YES_NO, CREDIT])
def test_what_has_no_order_does_not_compare(kind: FieldKind) -> None:
    with pytest.raises(FieldError, match="no order"):
        comparable(kind, "yes")


KINDS = {"state": STATE, "bill": AMOUNT, "age_of_roof": NUMBER}
VALUES = {"state": "AZ", "bill": "150.00"}
FITS: list[tuple[str, Condition, bool]] = [
    ("state", AnyOf(values=frozenset({"AZ", "NM"})), True),
    ("state", AnyOf(values=frozenset({"NM"})), False),
    ("bill", AnyOf(values=frozenset({"150.00"})), True),
    ("bill", Between(low=15_000, high=None), True),
    ("bill", Between(low=15_001, high=None), False),
    ("bill", Between(low=None, high=15_000), True),
    ("bill", Between(low=None, high=14_999), False),
    ("bill", Between(low=15_000, high=15_000), True),
    ("age_of_roof", Between(low=None, high=10**9), False),
    ("age_of_roof", AnyOf(values=frozenset({""})), False),
    (QUALITY, Between(low=80, high=100), True),
    (QUALITY, Between(low=81, high=100), False),
    (AGE, Between(low=None, high=60_000), True),
    (AGE, Between(low=60_001, high=None), False),
]


@pytest.mark.parametrize(("name", "condition", "fits"), FITS)
def test_a_condition_holds_with_both_its_ends_and_never_of_what_is_missing(
    name: str, condition: Condition, fits: bool
) -> None:
    assert matches(((name, condition),), VALUES, KINDS, 80, 60_000) is fits


def test_all_conditions_must_hold_and_none_always_holds() -> None:
    in_az = ("state", AnyOf(values=frozenset({"AZ"})))
    cheap = ("bill", Between(low=None, high=1))
    assert not matches((in_az, cheap), VALUES, KINDS, 0, 0)
    assert matches((), {}, {}, 0, 0)


def test_quality_adds_up_the_rules_that_apply_and_stops_at_100() -> None:
    def rule(points: int, state: str) -> ScoreRule:
        return ScoreRule(points=points, when=(("state", AnyOf(values=frozenset({state}))),))

    assert quality_of([rule(40, "AZ"), rule(30, "AZ"), rule(25, "NM")], VALUES, KINDS) == 70
    assert quality_of([rule(90, "AZ"), rule(30, "AZ")], VALUES, KINDS) == 100
    assert quality_of([], VALUES, KINDS) == 0
