"""What an order's limits and hours leave of it is told from the market and the counters, in its buyer's own time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.cli.accounts import Standing, standing_json, standing_text
from services.cli.order_commands import OrderNow, caps_now, next_change_ms, order_json
from services.contract.limits import limits_of
from services.contract.market import Account, Cap, Market, OpenHours, Period, Unit
from services.router.hours import is_open
from tests.support.deciding import market, order, plan, shared_stage

NEW_YORK = "America/New_York"
CAPS = (
    Cap(unit=Unit.LEADS, period=Period.DAY, most=10),
    Cap(unit=Unit.SPEND, period=Period.MONTH, most=40_000),
)
WEEKDAYS = (OpenHours(days=(0, 1, 2, 3, 4), from_minute=8 * 60, to_minute=18 * 60),)


def at(*when: int) -> int:
    """A moment by New York's clocks."""
    return int(datetime(*when, tzinfo=ZoneInfo(NEW_YORK)).timestamp() * 1_000)  # type: ignore[misc,arg-type]  # numbers of a date


WEDNESDAY_MS = at(2026, 11, 18, 12)


def a_market(**options: Any) -> Market:
    made = market(plan(shared_stage(4000)), orders=(order("oak", shared="list", **options),))
    oak = replace(made.buyers["oak"], account=Account(credit_limit_cents=50_000))
    return replace(made, buyers={"oak": oak})


def standing(spent: int = 0, paid: int = 0, limit: int | None = 50_000) -> Standing:
    return Standing(
        buyer_id="oak", currency="USD", spent_cents=spent, paid_in_cents=paid, credit_limit_cents=limit
    )


def now(
    found: Market, *, at_ms: int = WEDNESDAY_MS, account: Standing | None = None, used: int = 0
) -> OrderNow:
    (each,) = found.buyers["oak"].orders
    counted = dict.fromkeys(limits_of(found, each, at_ms), (used, 0, False))
    opening = (NEW_YORK, each.open)
    return OrderNow(
        order=each,
        market=found,
        says={},
        now_ms=at_ms,
        caps=caps_now(found, each, at_ms, counted),
        account=account or standing(),
        is_open=is_open(opening, at_ms),
        changes_at_ms=next_change_ms(opening, at_ms),
    )


def test_each_cap_stands_beside_what_is_counted_of_its_current_period() -> None:
    found = a_market(caps=CAPS)
    (each,) = found.buyers["oak"].orders
    counters = {limit.name: name for name, limit in limits_of(found, each, WEDNESDAY_MS).items()}
    counted = {counters["leads_per_day"]: (4, 0, True), "order:oak/all:leads_per_day:0": (9, 0, False)}
    day, month = caps_now(found, each, WEDNESDAY_MS, counted)
    assert (day.name, day.used, day.most, day.left, day.is_reached) == ("leads_per_day", 4, 10, 6, True)
    assert day.ends_at_ms == at(2026, 11, 19)
    assert (month.name, month.used, month.text(month.left)) == ("spend_per_month", 0, "400.00")
    assert month.ends_at_ms == at(2026, 12, 1)


def test_an_order_that_nothing_hinders_buys() -> None:
    assert list(now(a_market(caps=CAPS)).hindrances()) == []


def test_every_hindrance_is_named_with_its_end() -> None:
    found = a_market(caps=CAPS, paused=True, open=WEEKDAYS)
    found = replace(found, buyers={"oak": replace(found.buyers["oak"], paused=True)})
    saturday = at(2026, 11, 21, 9)
    hindrances = list(now(found, at_ms=saturday, account=standing(spent=50_000), used=10).hindrances())
    assert hindrances == [
        "it is paused",
        "its buyer is paused",
        "it is closed until 2026-11-23 08:00 in America/New_York",
        "leads_per_day is used up until 2026-11-22 00:00 in America/New_York",
        "its buyer's account is used up",
    ]


def test_a_cap_that_was_lowered_below_its_use_leaves_nothing() -> None:
    (day, _) = now(a_market(caps=CAPS), used=12).caps
    assert (day.used, day.most, day.left) == (12, 10, 0)


@pytest.mark.parametrize(
    ("at_ms", "change_ms"),
    [
        (at(2026, 11, 18, 12), at(2026, 11, 18, 18)),
        (at(2026, 11, 18, 18), at(2026, 11, 19, 8)),
        (at(2026, 11, 20, 19), at(2026, 11, 23, 8)),
        # Clocks go back on 1 November, and so the night from Friday to Monday has an hour more.
        (at(2026, 10, 30, 18), at(2026, 11, 2, 8)),
    ],
)
def test_hours_change_when_the_buyers_clocks_say_so(at_ms: int, change_ms: int) -> None:
    assert next_change_ms((NEW_YORK, WEEKDAYS), at_ms) == change_ms


def test_an_order_without_hours_is_always_open() -> None:
    assert next_change_ms((NEW_YORK, ()), WEDNESDAY_MS) is None


def test_machines_get_the_same() -> None:
    answer = order_json(now(a_market(caps=CAPS), used=10))
    assert answer["buys_now"] is False
    assert answer["caps"][0] == {
        "cap": "leads_per_day",
        "used": 10,
        "most": 10,
        "left": 0,
        "until": datetime.fromtimestamp(at(2026, 11, 19) / 1_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "passed_over": False,
    }
    assert answer["account"]["room"] == "500.00"


@pytest.mark.parametrize(
    ("account", "balance", "room", "words"),
    [
        (standing(spent=12_000), "-120.00", "380.00", "credit limit 500.00: 380.00 may be spent still"),
        (standing(paid=5_000, limit=0), "50.00", "50.00", "prepaid: 50.00 may be spent still"),
        (standing(spent=5_000, limit=0), "-50.00", "-50.00", "prepaid: over it by 50.00"),
        (standing(spent=5_000, limit=None), "-50.00", None, "no limit"),
    ],
)
def test_an_account_is_told_with_what_may_be_spent_still(
    account: Standing, balance: str, room: str | None, words: str
) -> None:
    answer = standing_json(account)
    assert (answer["balance"], answer["room"]) == (balance, room)
    assert words in standing_text(account)
