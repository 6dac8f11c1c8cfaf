"""Limits as the log tells of them: what fits is let pass in whatever order it is read, what was oversold is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.findings import At, Findings, Markets
from services.audit.limit_checks import VERSIONS_MAX, Limits
from services.audit.rules import Rule
from services.audit.violations import Violation
from services.contract.market import Account, Cap, Market, Period, Unit
from services.router.memory_store import MemoryRouterTables
from services.router.ports import AS_STORED, NOTHING_TAKEN, CounterDraw, Draws, LimitsShort
from tests.support.deciding import market, order
from tests.support.routing import TOPICS

CAP = "order:acme/all:leads_total:0"
ACCOUNT = "account:acme"

Drawn: TypeAlias = tuple[int, int, int, int]
"""Partition, version, amount, granted."""


def _markets(mosts: Mapping[int, int | None]) -> Mapping[int, Market]:
    """Markets whose cap and credit are these, by version; None: the order and the account are not there."""
    return {version: _market(version, most) for version, most in mosts.items()}


def _market(version: int, most: int | None) -> Market:
    if most is None:
        return market(version=version, orders=(order("birch"),))
    cap = Cap(unit=Unit.LEADS, period=Period.TOTAL, most=most)
    made = market(version=version, orders=(order("acme", caps=(cap,)),))
    acme = replace(made.buyers["acme"], account=Account(credit_limit_cents=most))
    return replace(made, buyers={"acme": acme})


def _limits(mosts: Mapping[int, int | None]) -> tuple[Limits, list[Violation]]:
    found: list[Violation] = []
    return Limits(Findings(found.append, TOPICS), Markets(_markets(mosts).__getitem__)), found


def _judged(
    mosts: Mapping[int, int | None], drawn: Sequence[Drawn], counter: str = CAP
) -> list[tuple[str, str]]:
    limits, found = _limits(mosts)
    for seq, (partition, version, amount, granted) in enumerate(drawn, 1):
        at = At(partition, seq, seq, "", version, "", 0)
        limits.draw(at, [(counter, amount, granted)])
    limits.take_together()
    limits.judge()
    return [(violation.rule, violation.what) for violation in found]


def _sales(version: int, count: int) -> list[Drawn]:
    return [(0, version, 1, 0)] * count


def test_finds_what_a_lowered_cap_does_not_hold_though_an_earlier_one_would() -> None:
    found = _judged({1: 5, 2: 2}, [*_sales(1, 1), *_sales(2, 4)])
    assert found == [(Rule.LIMIT_HOLDS, "4 used of 2 and 0 granted, since market 2")]


@pytest.mark.parametrize(
    ("mosts", "drawn"),
    [
        ({1: 5, 2: 2}, [*_sales(1, 5)]),
        ({1: 5, 2: 2}, [*_sales(1, 3), *_sales(2, 2)]),
        # A worker still decides under the first version, and is held to the second one's limit.
        ({1: 2, 2: 5}, [*_sales(2, 1), *_sales(1, 4)]),
        # The second version drew nothing and told that its limit is used up, which the first is held to since.
        ({1: 2, 2: 5}, _sales(1, 4)),
        ({1: 5, 2: 2}, [*_sales(1, 1), *_sales(2, 2), (0, 2, -1, 0), *_sales(2, 1)]),
        ({1: 5, 2: None, 3: 5}, [*_sales(1, 5), (0, 2, -1, 0), *_sales(3, 1)]),
        ({1: None}, _sales(1, 3)),
    ],
)
def test_silent_about_what_a_cap_of_its_time_holds(
    mosts: Mapping[int, int | None], drawn: Sequence[Drawn]
) -> None:
    assert not _judged(mosts, drawn)
    assert not _judged(mosts, drawn[::-1])


def test_what_was_given_back_makes_room_once() -> None:
    drawn = [*_sales(2, 3), (0, 2, -1, 0)]
    assert not _judged({1: 5, 2: 2}, drawn)
    assert _judged({1: 5, 2: 2}, [*drawn, *_sales(2, 1)])


def test_credit_that_is_lowered_holds_what_is_bought_since_and_deposits_hold_more() -> None:
    mosts = {1: 500, 2: 100}
    assert not _judged(mosts, [(0, 1, 200, 0), (1, 2, 0, 50), (0, 2, 150, 0)], ACCOUNT)
    assert _judged(mosts, [(0, 1, 200, 0), (1, 2, 0, 50), (0, 2, 151, 0)], ACCOUNT)


def test_more_versions_than_are_kept_apart_are_told_by_their_limits() -> None:
    mosts = {1: 50, **dict.fromkeys(range(2, 40), 20)}
    held = [*_sales(1, 30), *(sale for version in range(2, 22) for sale in _sales(version, 1))]
    assert not _judged(mosts, held)
    found = _judged(mosts, [*held, *_sales(22, 1)])
    assert found == [(Rule.LIMIT_HOLDS, "21 used of 20 and 0 granted, since market 2")]


def test_goes_on_from_what_was_kept_and_keeps_no_more_versions_than_its_bound() -> None:
    mosts = {version: 100 - version for version in range(1, 60)}
    limits, found = _limits(mosts)
    for version in mosts:
        limits.draw(At(0, version, version, "", version, "", 0), [(CAP, 1, 0)])
    limits.take_together()
    again, _ = _limits(mosts)
    again.resume(limits.kept())
    assert (again.uses[CAP].used, len(again.uses[CAP].drawn)) == (59, VERSIONS_MAX)
    assert again.kept() == limits.kept()
    again.judge()
    assert not found


VERSIONS = {1: 4, 2: 1, 3: 6, 4: 3}
WHAT = ("buy", "give back", "grant")
STEP = st.tuples(
    st.integers(0, 2), st.booleans(), st.integers(1, 3), st.integers(-3, 3), st.sampled_from(WHAT)
)


@given(steps=st.lists(STEP, max_size=40), order_of_reading=st.permutations(range(3)))
def test_silent_about_whatever_the_router_s_table_lets_pass(
    steps: Sequence[tuple[int, bool, int, int, str]], order_of_reading: Sequence[int]
) -> None:
    """Three workers, each a version behind at times, buy, give back and move money on one account."""
    tables, newest = MemoryRouterTables(), 1
    version_of, held = dict.fromkeys(range(3), 1), {at: list[int]() for at in range(3)}
    drawn: list[Drawn] = []
    for partition, is_changed, amount, moved, what in steps:
        if is_changed:
            newest = min(newest + 1, len(VERSIONS))
        else:
            version_of[partition] = newest
        version = version_of[partition]
        if what == "give back" and not held[partition]:
            continue
        draws = {"buy": (amount, 0), "give back": (-sum(held[partition][-1:]), 0), "grant": (0, moved)}[what]
        try:
            tables.draw(_of_batch(version, *draws))
        except LimitsShort:
            continue
        if what == "buy":
            held[partition].append(amount)
        elif what == "give back":
            held[partition].pop()
        drawn.append((partition, version, *draws))
    read = [each for at in order_of_reading for each in drawn if each[0] == at]
    assert not _judged(VERSIONS, read, ACCOUNT)


def _of_batch(version: int, amount: int, granted: int) -> Draws:
    return Draws(
        market_version=version,
        rows=[
            CounterDraw(
                counter=ACCOUNT,
                peak=amount if amount > 0 else NOTHING_TAKEN,
                amount=amount,
                granted=granted,
                withdrawn=max(0, -granted),
                most=AS_STORED if amount < 0 else VERSIONS[version],
                ends_at_ms=None,
                tells=False,
            )
        ],
    )
