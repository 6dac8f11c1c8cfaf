"""What is asked for is measured, in turns, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest

from bench import plan
from bench.amounts import QUICK, Amounts

REPEATED = ["raw-forward", "faust", "row-lock", "pipeline", "scaling-2", "scaling-3", "auctions"]
ONCE = {"takeover", "timers", "core"}


def names(*only: str, amounts: Amounts = QUICK) -> list[str]:
    """The names of the steps that are planned."""
    return [step.name for step in plan.steps(only, amounts)]


def test_everything_is_measured_when_nothing_is_named() -> None:
    assert set(names()) == {*REPEATED, *ONCE}


def test_repeats_are_made_in_turns() -> None:
    amounts = dataclasses.replace(QUICK, repeats=2)
    assert names("faust", "pipeline", amounts=amounts) == ["faust", "pipeline", "faust", "pipeline"]


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
def test_what_repeats_within_itself_is_made_once(repeats: int) -> None:
    found = names(amounts=dataclasses.replace(QUICK, repeats=repeats))
    assert {name: found.count(name) for name in ONCE} == dict.fromkeys(ONCE, 1)
    assert {name: found.count(name) for name in REPEATED} == dict.fromkeys(REPEATED, repeats)


@pytest.mark.parametrize("part", ["latency", "log"])
def test_a_part_of_the_pipeline_brings_the_pipeline(part: str) -> None:
    assert names(part) == ["pipeline"]


def test_every_name_plans_something() -> None:
    for name in plan.NAMES:
        assert names(name), name
