"""Shares of amounts: to the nearest minor unit, and never more than the whole."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.money import share_of

CENTS = st.integers(0, 10**12)
BASIS_POINTS = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("cents", "basis_points", "share"),
    [
        (9_000, 6_000, 5_400),
        (4_500, 10_000, 4_500),
        (4_500, 0, 0),
        (0, 6_000, 0),
        (1, 4_999, 0),
        (1, 5_000, 1),
        (3, 5_000, 2),
        (333, 3_333, 111),
    ],
)
def test_share_is_rounded_to_the_nearest_with_halves_up(cents: int, basis_points: int, share: int) -> None:
    assert share_of(cents, basis_points) == share


@given(CENTS, BASIS_POINTS)
def test_share_is_within_half_a_unit_of_the_exact_one(cents: int, basis_points: int) -> None:
    difference = share_of(cents, basis_points) - Fraction(cents * basis_points, 10_000)
    assert Fraction(-1, 2) < difference <= Fraction(1, 2)


@given(CENTS, BASIS_POINTS)
def test_share_is_between_nothing_and_the_whole(cents: int, basis_points: int) -> None:
    assert 0 <= share_of(cents, basis_points) <= cents


@given(CENTS, CENTS, BASIS_POINTS)
def test_larger_amount_never_has_the_smaller_share(one: int, other: int, basis_points: int) -> None:
    assert share_of(min(one, other), basis_points) <= share_of(max(one, other), basis_points)
