"""What a stage may say of floors, bids and upgrades, and a lead type of returns; and what is said of each mistake."""

from __future__ import annotations

import pytest

from services.contract.market import Floor, LeadType, Prices, Returns, Selection, Stage, Upgrade
from services.contract.times import DAY_MS, MINUTE_MS
from tests.unit.market.sample import changed, errors_of, market_of

SHARED = "{sell: shared, price: [30.00, 25.00]}"
STAGE = "lead_types.solar.plans.staggered.stages.2"
KEPT = "contact_kept: 180d"
RETURNS = "lead_types.solar.returns"


def stage_of(text: str) -> Stage:
    return market_of(changed(SHARED, text)).lead_types["solar"].plans[1].stages[1]


def lead_type_of(returns: str) -> LeadType:
    return market_of(changed(KEPT, f"{KEPT}\n    returns: {returns}")).lead_types["solar"]


def test_a_stage_is_sold_directly_unless_it_says_otherwise() -> None:
    stage = stage_of(SHARED)
    assert (stage.selection, stage.bid_window_ms, stage.floor, stage.upgrade) == (
        Selection.DIRECT,
        None,
        Floor(),
        None,
    )


@pytest.mark.parametrize("selection", [Selection.PING_POST, Selection.FIRST_BID])
def test_a_stage_that_asks_for_bids_needs_no_price(selection: Selection) -> None:
    stage = stage_of(f"{{sell: shared, selection: {selection}, bid_window: 500ms}}")
    assert (stage.selection, stage.bid_window_ms, stage.prices) == (selection, 500, Prices())


def test_a_price_beside_bids_is_the_list_and_may_be_for_one_mode_alone() -> None:
    either = "{sell: either, selection: ping_post, bid_window: 1s, price: %s}"
    assert stage_of(either % "{shared: [30.00, 20.00]}").prices == Prices(shared=(3_000, 2_000))
    assert stage_of(either % "{exclusive: 60.00}").prices == Prices(exclusive=6_000)


FLOORS = [
    ("{sell: shared, price: 30.00, floor: 18.00}", Floor(shared=1_800)),
    ("{sell: shared, price: 30.00, floor: {shared: 18.00}}", Floor(shared=1_800)),
    ("{sell: exclusive, price: 90.00, floor: 50.00}", Floor(exclusive=5_000)),
    ("{sell: either, price: {exclusive: 90, shared: 30}, floor: {shared: 18}}", Floor(shared=1_800)),
    (
        "{sell: either, price: {exclusive: 90, shared: 30}, floor: {exclusive: 50, shared: 18}}",
        Floor(exclusive=5_000, shared=1_800),
    ),
]


@pytest.mark.parametrize(("text", "floor"), FLOORS)
def test_reads_each_form_of_a_floor(text: str, floor: Floor) -> None:
    assert stage_of(text).floor == floor


def test_reads_an_upgrade_with_and_without_a_time_to_think() -> None:
    stage = stage_of("{sell: shared, price: 45.00, upgrade: {per_slot: 37.50, within: 2m}}")
    assert stage.upgrade == Upgrade(per_slot_cents=3_750, within_ms=2 * MINUTE_MS)
    assert stage_of("{sell: shared, price: 45.00, upgrade: {per_slot: 37.50}}").upgrade == Upgrade(
        per_slot_cents=3_750
    )


def test_reads_returns_and_what_they_are_by_default() -> None:
    assert lead_type_of("{within: 7d, reasons: [wrong_person, duplicate]}").returns == Returns(
        within_ms=7 * DAY_MS, reasons=("duplicate", "wrong_person")
    )
    assert lead_type_of("{within: 7d, reasons: [other], quota: 12.5%, approve: operator}").returns == Returns(
        within_ms=7 * DAY_MS, reasons=("other",), quota_basis_points=1_250, automatic=False
    )
    assert market_of(changed(KEPT, KEPT)).lead_types["solar"].returns is None


WRONG_STAGES = [
    (
        "{sell: shared, selection: ping_pots, bid_window: 1s}",
        "selection",
        "ping_pots",
        "did you mean ping_post?",
    ),
    ("{sell: shared, selection: direct}", "", None, "expected the key price"),
    ("{sell: shared, selection: ping_post, bid_window: soon}", "bid_window", "soon", "expected a duration"),
    ("{sell: shared, selection: ping_post, bid_windw: 1s}", "bid_windw", "1s", "did you mean bid_window?"),
    ("{sell: shared, price: 30, floor: none}", "floor", "none", "expected an amount over zero"),
    ("{sell: shared, price: 30, floor: 0}", "floor", "0", "expected an amount over zero"),
    ("{sell: shared, price: 30, floor: [9, 8]}", "floor", "[9, 8]", "expected a single value"),
    ("{sell: shared, price: 30, floor: {}}", "floor", "{}", "expected shared"),
    (
        "{sell: shared, price: 30, floor: {exclusive: 9}}",
        "floor.exclusive",
        "9",
        "unknown key: expected one of shared",
    ),
    (
        "{sell: either, price: {exclusive: 90, shared: 30}, floor: 18}",
        "floor",
        "18",
        "expected a price for each mode",
    ),
    (
        "{sell: either, selection: ping_post, bid_window: 1s, price: {}}",
        "price",
        "{}",
        "expected exclusive or shared",
    ),
    (
        "{sell: shared, price: 30, upgrade: {within: 2m}}",
        "upgrade",
        "{within: 2m}",
        "expected the key per_slot",
    ),
    (
        "{sell: shared, price: 30, upgrade: {per_slot: 0}}",
        "upgrade.per_slot",
        "0",
        "expected an amount over zero",
    ),
    (
        "{sell: shared, price: 30, upgrade: {per_slot: 1, within: 0s}}",
        "upgrade.within",
        "0s",
        "longer than nothing",
    ),
    (
        "{sell: shared, price: 30, upgrade: always}",
        "upgrade",
        "always",
        "a mapping with the keys per_slot, within",
    ),
]


@pytest.mark.parametrize(("text", "key", "value", "expected"), WRONG_STAGES)
def test_says_what_is_wrong_with_a_stage(text: str, key: str, value: str | None, expected: str) -> None:
    errors = errors_of(changed(SHARED, text))
    path = f"{STAGE}.{key}" if key else STAGE
    found = [error for error in errors if error.path == path and expected in error.expected]
    assert found, [str(error) for error in errors]
    assert value is None or found[0].value == value


WRONG_RETURNS = [
    ("{reasons: [other]}", "", "expected the key within"),
    ("{within: 7d}", "", "expected the key reasons"),
    ("{within: 0d, reasons: [other]}", ".within", "longer than nothing"),
    ("{within: 7d, reasons: []}", ".reasons", "expected a list of at least one"),
    ("{within: 7d, reasons: [wrong_persn]}", ".reasons.1", "did you mean wrong_person?"),
    ("{within: 7d, reasons: [other, other]}", ".reasons.2", "only once"),
    ("{within: 7d, reasons: [other], quota: 0%}", ".quota", "a share over 0%"),
    ("{within: 7d, reasons: [other], quota: 101%}", ".quota", "up to 100%"),
    ("{within: 7d, reasons: [other], approve: me}", ".approve", "expected one of automatic, operator"),
    ("no", "", "expected a mapping with the keys within, reasons, quota, approve"),
]


@pytest.mark.parametrize(("text", "key", "expected"), WRONG_RETURNS)
def test_says_what_is_wrong_with_returns(text: str, key: str, expected: str) -> None:
    errors = errors_of(changed(KEPT, f"{KEPT}\n    returns: {text}"))
    found = [error for error in errors if error.path == f"{RETURNS}{key}" and expected in error.expected]
    assert found, [str(error) for error in errors]
    assert found[0].line > 0
