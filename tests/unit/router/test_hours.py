"""Orders buy in their hours, by the clocks of their buyer: on days of 23 and 25 hours too."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.events import LeadSold
from services.contract.market import OpenHours
from services.router.hours import OpeningTimes, is_open
from tests.support.deciding import Story, lead, market, order, plan, shared_stage

WEEKDAYS = OpenHours(days=(0, 1, 2, 3, 4), from_minute=8 * 60, to_minute=18 * 60)
SATURDAY = OpenHours(days=(5,), from_minute=9 * 60, to_minute=13 * 60)
EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)
NEW_YORK = "America/New_York"


def _ms(timezone: str, text: str, fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold)
    return int(local.timestamp()) * 1_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-09-21T07:59:59", False),
        ("2026-09-21T08:00:00", True),
        ("2026-09-25T17:59:59", True),
        ("2026-09-25T18:00:00", False),
        ("2026-09-26T08:59:00", False),
        ("2026-09-26T09:00:00", True),
        ("2026-09-26T13:00:00", False),
        ("2026-09-27T10:00:00", False),
    ],
)
def test_order_is_open_from_the_first_minute_until_before_the_last(text: str, expected: bool) -> None:
    for timezone in (NEW_YORK, "America/Phoenix", "Asia/Kathmandu"):
        assert is_open((timezone, (WEEKDAYS, SATURDAY)), _ms(timezone, text)) is expected


def test_hours_until_midnight_end_with_the_day() -> None:
    hours = (OpenHours(days=(6,), from_minute=22 * 60, to_minute=24 * 60),)
    assert is_open((NEW_YORK, hours), _ms(NEW_YORK, "2026-09-27T23:59:59"))
    assert not is_open((NEW_YORK, hours), _ms(NEW_YORK, "2026-09-28T00:00:00"))


def _open_minutes(hours: OpenHours, day: str) -> int:
    start = _ms(NEW_YORK, f"{day}T00:00:00")
    after = (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()
    end = _ms(NEW_YORK, f"{after}T00:00:00")
    return sum(is_open((NEW_YORK, (hours,)), now_ms) for now_ms in range(start, end, 60_000))


@pytest.mark.parametrize(
    ("day", "from_hour", "to_hour", "minutes"),
    [
        ("2026-03-08", 1, 4, 2 * 60),  # clocks skip 02:00 to 03:00
        ("2026-03-08", 2, 3, 0),
        ("2026-03-08", 0, 24, 23 * 60),
        ("2026-11-01", 1, 2, 2 * 60),  # clocks show 01:00 to 02:00 twice
        ("2026-11-01", 0, 24, 25 * 60),
        ("2026-11-02", 0, 24, 24 * 60),
    ],
)
def test_skipped_hour_never_comes_and_a_repeated_one_is_open_twice(
    day: str, from_hour: int, to_hour: int, minutes: int
) -> None:
    hours = OpenHours(days=EVERY_DAY, from_minute=from_hour * 60, to_minute=to_hour * 60)
    assert _open_minutes(hours, day) == minutes


def test_shop_opens_at_the_same_time_of_the_clock_after_clocks_change() -> None:
    hours = (OpenHours(days=EVERY_DAY, from_minute=8 * 60, to_minute=9 * 60),)
    for day in ("2026-03-07", "2026-03-08", "2026-03-09", "2026-10-31", "2026-11-01", "2026-11-02"):
        opens_ms = _ms(NEW_YORK, f"{day}T08:00:00")
        assert is_open((NEW_YORK, hours), opens_ms)
        assert not is_open((NEW_YORK, hours), opens_ms - 1_000)


@given(
    minute=st.integers(0, 366 * 24 * 60),
    timezone=st.sampled_from([NEW_YORK, "America/Phoenix", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_what_was_kept_for_a_minute_is_what_a_look_at_each_order_finds(minute: int, timezone: str) -> None:
    openings = [(("UTC", ()), 1), ((timezone, (WEEKDAYS,)), 2), ((timezone, (SATURDAY,)), 4)]
    times = OpeningTimes(openings)
    for second in (0, 59, 60, 3_600, 1):
        now_ms = _ms("UTC", "2026-01-01T00:00:00") + minute * 60_000 + second * 1_000
        assert times.closed(now_ms) == sum(bit for opening, bit in openings if not is_open(opening, now_ms))


def test_closed_order_buys_nothing_and_the_next_in_rank_does() -> None:
    opens_ms = _ms(NEW_YORK, "2026-09-21T08:00:00")
    orders = (order("a", shared=5_000, open=(WEEKDAYS,)), order("b", shared=4_000))
    given_market = market(plan(shared_stage(4_000), sales_max=1), orders=orders)
    for now_ms, buyer_id in ((opens_ms - 1, "b"), (opens_ms, "a")):
        story = Story(given_market, now_ms=now_ms)
        story.when(lead(received_at_ms=now_ms))
        assert [sale.buyer_id for sale in story.all(LeadSold)] == [buyer_id]


def test_hours_are_those_of_the_order_s_own_buyer() -> None:
    given_market = market(
        plan(shared_stage(4_000), sales_max=2),
        orders=(order("a", shared="list", open=(WEEKDAYS,)), order("b", shared="list", open=(WEEKDAYS,))),
    )
    buyers = {**given_market.buyers, "b": replace(given_market.buyers["b"], timezone="America/Los_Angeles")}
    now_ms = _ms(NEW_YORK, "2026-09-21T08:00:00")
    story = Story(replace(given_market, buyers=buyers), now_ms=now_ms)
    story.when(lead(received_at_ms=now_ms))
    assert [sale.buyer_id for sale in story.all(LeadSold)] == ["a"]
