"""Shares of amounts: the one place where a minor unit may be rounded."""

from __future__ import annotations

WHOLE_BASIS_POINTS = 10_000


def share_of(cents: int, basis_points: int) -> int:
    """Give this share of an amount of 0 or more, rounded to the nearest minor unit, halves up."""
    return (cents * basis_points + WHOLE_BASIS_POINTS // 2) // WHOLE_BASIS_POINTS
