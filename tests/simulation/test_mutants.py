"""Planted bugs are caught by the simulation or by the tests named for them, and the clean product raises no alarm.

The table of all, with what caught each, is in `docs/guarantees.md`; `python -m tests.simulation.mutants` prints it.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from services.contract.money import share_of
from tests.simulation.hunting import failing_without_a_bug, false_alarms, hunt
from tests.simulation.mutants import MUTANTS, SEEDS_MAX
from tests.simulation.patching import DoesNotApply, function_of, patched_source

pytestmark = pytest.mark.stream

CAUGHT_AT_LEAST = 0.95


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_planted_bug_still_applies_and_is_taken_back(name: str) -> None:
    targets = {change.target for change in MUTANTS[name].changes}
    before = {target: function_of(target).__code__ for target in targets}
    with MUTANTS[name].planted():
        assert all(function_of(target).__code__ is not before[target] for target in targets)
    assert {target: function_of(target).__code__ for target in targets} == before


@pytest.mark.timeout(900)
def test_planted_bugs_are_caught() -> None:
    found = list(hunt(sorted(MUTANTS)))
    missed = sorted(caught.name for caught in found if not caught.is_caught)
    assert len(found) == len(MUTANTS) >= 30
    assert len(missed) <= len(MUTANTS) * (1 - CAUGHT_AT_LEAST), f"nothing sees {missed}"


@pytest.mark.timeout(300)
def test_clean_product_raises_no_alarm() -> None:
    assert false_alarms(range(SEEDS_MAX)) == []


@pytest.mark.timeout(600)
def test_tests_named_for_planted_bugs_pass_without_them() -> None:
    """Run as they are with a bug; the model's own, which take longer, are run by the suite."""
    named = {test for mutant in MUTANTS.values() for test in mutant.tests if "/model/" not in test}
    assert failing_without_a_bug(sorted(named)) == []


def test_docs_have_the_table_of_all_planted_bugs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    told = {name: (what, caught_by) for name, what, caught_by in rows}
    assert {name: told[name][0] for name in MUTANTS if name in told} == {
        name: mutant.what for name, mutant in MUTANTS.items()
    }
    assert all(told[name][1] != "**nothing**" for name in MUTANTS)


def test_planted_bugs_are_of_every_kind() -> None:
    steps = Counter(
        change.target.split(":")[0].split(".")[1] for item in MUTANTS.values() for change in item.changes
    )
    assert steps.keys() >= {"intake", "router", "resale", "billing", "feed", "contract"}


# How a bug is planted


def test_fragment_is_replaced_for_whoever_holds_the_function() -> None:
    with patched_source("services.contract.money:share_of", (" + WHOLE_BASIS_POINTS // 2", "")):
        assert share_of(1, 5_000) == 0
    assert share_of(1, 5_000) == 1


def test_fragment_that_is_not_there_fails_loudly() -> None:
    with pytest.raises(DoesNotApply), patched_source("services.contract.money:share_of", ("not there", "")):
        pass


def test_fragment_that_is_there_twice_fails_loudly() -> None:
    with (
        pytest.raises(DoesNotApply),
        patched_source("services.contract.money:share_of", ("WHOLE_BASIS_POINTS", "1")),
    ):
        pass


def test_target_that_is_no_function_fails_loudly() -> None:
    with pytest.raises(DoesNotApply):
        function_of("services.contract.money:WHOLE_BASIS_POINTS")
