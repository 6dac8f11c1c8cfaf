"""A thousand random markets with faults everywhere keep every promise; and a run is the same whenever it is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from services.bus.ports import Sending
from services.contract.market import Market
from services.market.checks import errors
from services.router import course, memory_store
from services.router.ports import CounterDraw, CounterRow
from services.router.relay import Relay, _Letter
from tests.simulation.__main__ import main
from tests.simulation.campaign import Summary, command_of, results
from tests.simulation.faults import STRIKES, FaultKind
from tests.simulation.markets import first_market, next_market
from tests.simulation.schedule import FAULTS, LEADS, schedule_of
from tests.simulation.shrinking import shrink
from tests.simulation.simulation import Outcome, run

SEEDS = 1_000
PROCESSES = 2
TOLD_MAX = 10
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1_200)
def test_every_promise_holds_in_a_thousand_markets_whatever_goes_wrong() -> None:
    summary = Summary()
    for result in results(range(SEEDS), processes=PROCESSES):
        summary.add(result)
        if len(summary.failed) >= TOLD_MAX:
            break
    told = [
        f"{command_of(result.seed)}  # {result.violations[0].rule}: {result.violations[0].what}"
        for result in summary.failed
    ]
    assert not told, "\n".join(told)
    assert summary.fewest_leads >= LEADS
    assert summary.fewest_faults >= FAULTS
    assert summary.faults.keys() == STRIKES.keys() == set(FaultKind)


def test_same_seed_is_the_same_run_to_the_byte() -> None:
    first, second = run(7), run(7)
    assert first.digest == second.digest
    assert first.faults == second.faults
    assert run(8).digest != first.digest


def test_same_seed_is_the_same_run_in_another_process_whatever_its_hashes() -> None:
    program = "from tests.simulation.simulation import run; print([run(seed).digest for seed in (3, 5, 11)])"
    told = {_printed_by(program, hashes) for hashes in ("0", "1", "4711")}
    assert len(told) == 1


def _printed_by(program: str, hashes: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # our own program
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--seeds", "0"], ["--leads", "-5"], ["--faults", "0"], ["--processes", "0"], ["--trace"]],
)
def test_a_run_of_nothing_is_refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_every_market_of_a_run_is_one_that_could_be_applied() -> None:
    for seed in range(40):
        market: Market = first_market(seed)
        for _ in range(10):
            assert [str(error) for error in errors(market)] == []
            market = next_market(seed, market)


def test_every_fault_can_strike_and_is_planned_in_some_of_a_hundred_seeds() -> None:
    planned = {fault.kind for seed in range(100) for fault in schedule_of(seed).faults}
    assert planned == set(FaultKind)


# Planted bugs that must be seen (many more are in mutants.py)


@contextmanager
def _nothing_comes_back() -> Iterator[None]:
    original = memory_store._drawn

    def drawn(row: CounterRow, draw: CounterDraw, version: int) -> CounterRow:
        return original(row, draw._replace(amount=max(0, draw.amount)), version)

    with patch.object(memory_store, "_drawn", drawn):
        yield


@contextmanager
def _nobody_waits_for_an_upgrade() -> Iterator[None]:
    with patch.object(course, "leaves_it_to_the_holder", lambda *_: False):
        yield


@contextmanager
def _relay_forgets_the_last_letter() -> Iterator[None]:
    original = Relay._send

    def send(self: Relay, letters: Sequence[_Letter]) -> Sending:
        return original(self, letters[:-1] if len(letters) > 2 else letters)

    with patch.object(Relay, "_send", send):
        yield


@contextmanager
def _vault_hands_out_anothers_row() -> Iterator[None]:
    from services.vault.memory import MemoryVault

    def read(self: MemoryVault, lead_ids: Collection[str]) -> Mapping[str, bytes]:
        rows = sorted(self.rows)
        return {lead_id: self.vault.open(rows[0], self.rows[rows[0]]) for lead_id in lead_ids if rows}

    with patch.object(MemoryVault, "read", read):
        yield


Plant = Callable[[], AbstractContextManager[None]]
PLANTS: Mapping[Plant, str] = {
    _nothing_comes_back: "counter",
    _nobody_waits_for_an_upgrade: "promised|follow|upgrade",
    _relay_forgets_the_last_letter: "told|delivered",
    _vault_hands_out_anothers_row: "told_what_is_logged",
}
"""Each with what the rule speaks of that sees it."""


def _first_caught(plant: Plant, seeds: int = 15) -> Outcome | None:
    return next((found for seed in range(seeds) if (found := run(seed, plant)).caught), None)


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_bug_is_caught_by_its_rule(plant: Plant) -> None:
    found = _first_caught(plant)
    assert found is not None
    assert any(re.search(PLANTS[plant], finding.rule) for finding in found.violations), found.violations


def test_details_of_another_are_seen_though_a_lead_has_one_delivery_alone() -> None:
    """The auditor compares a lead's deliveries with each other; only the judge knows what its source sent."""
    outcomes = (run(seed, _vault_hands_out_anothers_row) for seed in range(15))
    rules = {finding.rule for outcome in outcomes for finding in outcome.violations}
    assert any(re.search("details", rule) for rule in rules), rules


def test_failing_run_is_made_smaller_and_still_fails() -> None:
    found = _first_caught(_relay_forgets_the_last_letter)
    assert found is not None
    smaller = shrink(found, _relay_forgets_the_last_letter, tries_max=60)
    assert {finding.rule for finding in smaller.violations} & {finding.rule for finding in found.violations}
    assert len(smaller.schedule.faults) < len(found.schedule.faults)
    assert len(smaller.schedule.arrivals) < len(found.schedule.arrivals)
    assert smaller.trace
