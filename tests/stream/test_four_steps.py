"""Intake, router, resale and billing together: what a source submits is sold, delivered and billed as promised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.bus.memory import Crash, Faults
from services.contract.events import Outcome
from tests.support.deciding import exclusive_stage, market, order, plan, shared_stage
from tests.support.whole import STEPS, Whole

pytestmark = pytest.mark.stream

STAGGERED = market(
    plan(
        exclusive_stage(7000, accept_within_ms=5_000, exclusive_for_ms=60_000),
        shared_stage(3000, 2500),
        shared_stage(600, wait_ms=120_000),
        expires_after_ms=86_400_000,
    ),
    orders=(
        order("a", exclusive=7200),
        order("b", exclusive="list"),
        order("c", shared="list"),
        order("d", shared=600),
    ),
)
SHARED = market(
    plan(shared_stage(4500, 4000, 3500)), orders=tuple(order(f"b{n}", shared="list") for n in range(4))
)


def _submission(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "lead_type": "solar",
        "reference": f"r{number}",
        "contact": {"email": f"canary{number}@example.com", "phone": f"+1212{2_000_000 + number}"},
        "details": {"state": "AZ", "bill": "150", "owner": "yes"},
        **changes,
    }


def _accepting(offer: dict[str, Any]) -> dict[str, Any] | None:
    """Some accept, some reject, some are silent: by the lead's id."""
    if offer["type"] != "offer":
        return None
    choice = int(offer["lead_id"][:2], 16) % 3
    answer = {"lead_id": offer["lead_id"], "offer_number": offer["offer_number"]}
    return [{"type": "accept_offer", **answer}, {"type": "reject_offer", **answer, "reason": "price"}, None][
        choice
    ]


def _whole(given_market: Any, leads: int) -> Whole:
    whole = Whole(given_market, answer=_accepting)
    for number in range(leads):
        whole.submit(_submission(number))
    return whole


@pytest.mark.parametrize("given_market", [SHARED, STAGGERED])
def test_every_lead_is_sold_delivered_and_billed_as_promised(given_market: Any) -> None:
    whole = _whole(given_market, 12)
    whole.run({step: whole.start(step) for step in STEPS})
    whole.check(12)


def test_staggered_lead_is_exclusive_first_then_shared_then_aged() -> None:
    whole = _whole(STAGGERED, 12)
    began_ms = whole.clock.now_ms
    whole.run({step: whole.start(step) for step in STEPS})
    whole.check(12)
    assert whole.clock.now_ms >= began_ms + 120_000, "the aged stage came after its wait"
    modes = {(sale.sale_number, sale.mode.value) for sale in whole.router.sales.values()}
    assert {(1, "exclusive"), (2, "shared"), (3, "shared")} <= modes
    assert {close.outcome for close in whole.router.closes.values()} == {
        Outcome.SOLD_OUT,
        Outcome.PARTLY_SOLD,
    }


@pytest.mark.parametrize("victim", STEPS)
@pytest.mark.parametrize("given_market", [SHARED, STAGGERED])
def test_crash_of_a_step_between_any_two_effects_breaks_no_promise(given_market: Any, victim: str) -> None:
    for edge in range(1, 500):
        whole = _whole(given_market, 3)
        hosts = {step: whole.start(step) for step in STEPS if step != victim}
        faults = Faults(crash_at=edge)
        try:
            whole.run({**hosts, victim: whole.start(victim, faults)})
        except Crash:
            whole.run({**hosts, victim: whole.start(victim)})
            whole.check(3)
        else:
            whole.check(3)
            assert edge > 2, "there are effects to crash at"
            return
    raise AssertionError("the run never got to its end")


@pytest.mark.parametrize("zombie", STEPS)
def test_zombie_of_any_step_changes_nothing(zombie: str) -> None:
    """The zombie read its partitions before its successor did it all; then it wakes up and does it again."""
    whole = _whole(STAGGERED, 6)
    asleep = whole.start(zombie)
    hosts = {step: whole.start(step) for step in STEPS}
    whole.run(hosts)
    asleep.drain()
    whole.run({**hosts, f"{zombie}, awake": asleep})
    whole.check(6)


def test_submission_sent_again_is_the_same_lead_and_the_same_person_is_declined() -> None:
    whole = _whole(SHARED, 4)
    for number in range(4):
        whole.submit(_submission(number))
        whole.submit(_submission(number, reference=f"another-{number}"))
    whole.run({step: whole.start(step) for step in STEPS})
    whole.check(4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    crashes=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 40)), max_size=4),
    again=st.lists(st.integers(0, 3), max_size=4),
    staggered=st.booleans(),
)
def test_any_crashes_and_repeats_break_no_promise(
    crashes: list[tuple[str, int]], again: list[int], staggered: bool
) -> None:
    whole = _whole(STAGGERED if staggered else SHARED, 4)
    for number in again:
        whole.submit(_submission(number))
    hosts = {step: whole.start(step) for step in STEPS}
    for step, edge in crashes:
        hosts[step] = whole.start(step, Faults(crash_at=edge))
        try:
            whole.run(hosts)
        except Crash:
            hosts[step] = whole.start(step)
    whole.run(hosts)
    whole.check(4)
