"""The example markets are right, show every key of this release, and are twins, one of them in a hurry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import pytest

from services.contract.market import FieldType, Market, Ranking, Sell
from services.market import parsing, plans
from services.market.fields import duration_ms
from services.market.reading import open_files
from services.market.review import Reviewed, review
from services.market.writing import Plain, market_text, plain

EXAMPLES = Path(__file__).parents[2] / "examples"
REAL = EXAMPLES / "market.yaml"
DEMO = EXAMPLES / "market-demo.yaml"

Leaves: TypeAlias = dict[str, str]


def reviewed(path: Path) -> Reviewed:
    return review(open_files([path]))


def leaves_of(value: Plain, path: str = "") -> Leaves:
    if isinstance(value, str):
        return {path: value}
    items = value.items() if not isinstance(value, list | tuple) else enumerate(value)  # type: ignore[union-attr]
    found: Leaves = {}
    for key, item in items:
        found |= leaves_of(item, f"{path}.{key}")
    return found


@pytest.mark.parametrize("path", [REAL, DEMO], ids=lambda path: path.name)
def test_an_example_is_applied_without_a_warning(path: Path) -> None:
    assert reviewed(path).warnings == ()


@pytest.mark.parametrize("path", [REAL, DEMO], ids=lambda path: path.name)
def test_an_example_reads_back_as_it_is_written(path: Path, tmp_path: Path) -> None:
    market = reviewed(path).market
    written = tmp_path / "written.yaml"
    written.write_text(market_text(market))
    assert reviewed(written).market == market


def test_the_two_differ_in_durations_only() -> None:
    real, demo = (leaves_of(plain(reviewed(path).market)) for path in (REAL, DEMO))
    assert real.keys() == demo.keys()
    differing = {path for path in real if real[path] != demo[path]}
    assert differing, "the demo is in no hurry"
    for path in differing:
        assert duration_ms(real[path]) > duration_ms(demo[path]), path


def test_the_demo_is_over_in_a_minute() -> None:
    for lead_type in reviewed(DEMO).market.lead_types.values():
        for plan in lead_type.plans:
            trying = [stage.keep_trying.for_ms for stage in plan.stages if stage.keep_trying]
            waits = [stage.wait_ms or 0 for stage in plan.stages]
            held = [(stage.accept_within_ms or 0) + (stage.exclusive_for_ms or 0) for stage in plan.stages]
            assert sum(trying) + sum(waits) + sum(held) < (plan.expires_after_ms or 60_000) <= 60_000


def test_the_demo_resells_the_staggered_lead_to_the_buyer_of_aged_leads() -> None:
    market = reviewed(DEMO).market
    first, second, third = market.lead_types["roofing"].plans[0].stages
    (_, aged), *_ = next(
        order.where for order in market.buyers["rooftop-coop"].orders if order.id.endswith("aged")
    )
    low_ms = getattr(aged, "low", None)
    assert low_ms is not None
    shared_at_latest = (first.accept_within_ms or 0) + (first.exclusive_for_ms or 0)
    aged_at_earliest = (first.exclusive_for_ms or 0) + (third.wait_ms or 0)
    assert second.wait_ms is None
    assert shared_at_latest <= low_ms < aged_at_earliest


KEYS = {
    *parsing.SECTIONS,
    *parsing.SOURCE_KEYS,
    *parsing.BUYER_KEYS,
    *parsing.ORDER_KEYS,
    *plans.LEAD_TYPE_KEYS,
    *plans.PLAN_KEYS,
    *plans.STAGE_KEYS,
}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_example_shows_and_the_demo_repeats_every_key(key: str) -> None:
    for path in (REAL, DEMO):
        assert re.search(rf"(^|[{{,\s]){key}: ", path.read_text() + " ", re.MULTILINE) or re.search(
            rf"(^|\s){key}:\n", path.read_text()
        ), f"{path.name} has no {key}"


@pytest.mark.parametrize(
    "key", [*parsing.ORDER_KEYS_LATER, *parsing.SOURCE_KEYS_LATER, *plans.STAGE_KEYS_LATER]
)
def test_the_example_has_no_key_of_a_later_release(key: str) -> None:
    assert f"{key}:" not in REAL.read_text() + DEMO.read_text()


def test_the_example_shows_every_way_to_sell_and_kind_of_field() -> None:
    market: Market = reviewed(REAL).market
    stages = [stage for kind in market.lead_types.values() for plan in kind.plans for stage in plan.stages]
    fields = [field.type for kind in market.lead_types.values() for field in kind.details.values()]
    assert {stage.sell for stage in stages} == set(Sell)
    assert {stage.by for stage in stages} >= {Ranking.PRICE, Ranking.PRIORITY, Ranking.WEIGHT}
    assert set(fields) == set(FieldType)
