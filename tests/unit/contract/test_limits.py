"""Limits and their periods: on the days when clocks change, too, and by names that anyone can compute again."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.contract.events import Draw
from services.contract.limits import (
    WHOLE_RETURN,
    Limit,
    Span,
    account_counter,
    fee_draws,
    limits_of,
    money_draws,
    period_of,
    restored,
    return_draws,
    returns_counter,
    returns_limit,
    sale_draws,
)
from services.contract.market import (
    Account,
    Buyer,
    Cap,
    LeadType,
    Market,
    Order,
    Period,
    Returns,
    Takes,
    Unit,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ZONES = (
    "UTC",
    "America/New_York",
    "America/Phoenix",
    "America/Santiago",
    "America/Havana",
    "America/St_Johns",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
)


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1_000)


def _local(at_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_ms // 1_000, tz=ZoneInfo(zone))


NOON_MS = _ms("2026-11-18T17:00:00+00:00")


# Periods


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Period.HOUR, "2026-11-18T12:00:00-05:00", "2026-11-18T13:00:00-05:00"),
        (Period.DAY, "2026-11-18T00:00:00-05:00", "2026-11-19T00:00:00-05:00"),
        (Period.WEEK, "2026-11-16T00:00:00-05:00", "2026-11-23T00:00:00-05:00"),
        (Period.MONTH, "2026-11-01T00:00:00-04:00", "2026-12-01T00:00:00-05:00"),
    ],
)
def test_period_is_the_one_that_clocks_there_show(period: Period, start: str, end: str) -> None:
    assert period_of("America/New_York", period, NOON_MS + 61_001) == Span(_ms(start), _ms(end))


def test_total_has_no_end() -> None:
    assert period_of("America/New_York", Period.TOTAL, NOON_MS) == Span(0, None)


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [
        ("America/New_York", "2026-03-08T12:00:00-04:00", 23),
        ("America/New_York", "2026-11-01T12:00:00-05:00", 25),
        ("America/Phoenix", "2026-03-08T12:00:00-07:00", 24),
        ("Australia/Lord_Howe", "2026-04-05T12:00:00+10:30", 24.5),
        ("Australia/Lord_Howe", "2026-10-04T12:00:00+11:00", 23.5),
        ("America/Santiago", "2026-09-06T12:00:00-03:00", 23),
        ("America/Santiago", "2026-04-04T12:00:00-03:00", 25),
        ("America/Havana", "2026-03-08T12:00:00-04:00", 23),
        ("Atlantic/Azores", "2026-10-25T12:00:00-01:00", 25),
    ],
)
def test_day_has_as_many_hours_as_clocks_give_it(zone: str, noon: str, hours: float) -> None:
    start_ms, end_ms = period_of(zone, Period.DAY, _ms(noon))
    assert end_ms is not None
    assert end_ms - start_ms == hours * HOUR_MS


def test_day_whose_midnight_is_skipped_begins_with_its_first_moment() -> None:
    start_ms, _ = period_of("America/Santiago", Period.DAY, _ms("2026-09-06T12:00:00-03:00"))
    assert start_ms == _ms("2026-09-06T01:00:00-03:00")
    assert _local(start_ms - 1_000, "America/Santiago").day == 5


def test_day_whose_midnight_comes_twice_begins_with_the_first() -> None:
    twice = [_ms("2026-10-25T00:30:00+00:00"), _ms("2026-10-25T00:30:00-01:00")]
    spans = {period_of("Atlantic/Azores", Period.DAY, moment_ms) for moment_ms in twice}
    assert [span.start_ms for span in spans] == [_ms("2026-10-25T00:00:00+00:00")]


def test_hour_that_is_shown_twice_is_two() -> None:
    first, second = (_ms(f"2026-11-01T01:30:00-0{offset}:00") for offset in (4, 5))
    spans = [period_of("America/New_York", Period.HOUR, moment_ms) for moment_ms in (first, second)]
    assert [span.start_ms for span in spans] == [first - HOUR_MS // 2, second - HOUR_MS // 2]
    assert spans[0].end_ms == spans[1].start_ms


def test_hour_after_a_skipped_one_follows_at_once() -> None:
    before, after = _ms("2026-03-08T01:59:59-05:00"), _ms("2026-03-08T03:00:00-04:00")
    assert period_of("America/New_York", Period.HOUR, before).end_ms == after
    assert period_of("America/New_York", Period.HOUR, after).start_ms == after


@pytest.mark.parametrize(("zone", "minutes"), [("Asia/Kolkata", 30), ("Asia/Kathmandu", 45)])
def test_hour_begins_where_clocks_show_a_full_one(zone: str, minutes: int) -> None:
    start_ms, _ = period_of(zone, Period.HOUR, NOON_MS)
    assert _local(start_ms, zone).minute == 0
    assert start_ms % HOUR_MS == (60 - minutes) % 60 * 60_000


@pytest.mark.parametrize("day", [16, 17, 18, 19, 20, 21, 22])
def test_week_begins_on_monday(day: int) -> None:
    start_ms, end_ms = period_of("America/Denver", Period.WEEK, _ms(f"2026-11-{day}T23:59:59-07:00"))
    assert (start_ms, end_ms) == (_ms("2026-11-16T00:00:00-07:00"), _ms("2026-11-23T00:00:00-07:00"))


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2026-12-31T23:59:59-05:00", "2026-12-01T00:00:00-05:00", "2027-01-01T00:00:00-05:00"),
        ("2028-02-29T12:00:00-05:00", "2028-02-01T00:00:00-05:00", "2028-03-01T00:00:00-05:00"),
        ("2026-01-31T12:00:00-05:00", "2026-01-01T00:00:00-05:00", "2026-02-01T00:00:00-05:00"),
    ],
)
def test_month_is_the_calendars(moment: str, start: str, end: str) -> None:
    assert period_of("America/New_York", Period.MONTH, _ms(moment)) == Span(_ms(start), _ms(end))


def test_same_moment_falls_on_the_days_of_two_timezones() -> None:
    late_ms = _ms("2026-11-18T23:30:00-05:00")
    assert _local(period_of("America/New_York", Period.DAY, late_ms).start_ms, "America/New_York").day == 18
    assert _local(period_of("Pacific/Auckland", Period.DAY, late_ms).start_ms, "Pacific/Auckland").day == 19


@given(
    zone=st.sampled_from(ZONES),
    period=st.sampled_from(list(Period)),
    now_ms=st.integers(_ms("2020-01-01T00:00:00+00:00"), _ms("2035-01-01T00:00:00+00:00")),
)
@example(zone="Australia/Lord_Howe", period=Period.HOUR, now_ms=_ms("2026-04-04T15:10:00+00:00"))
def test_moment_is_within_its_period_and_the_next_period_begins_where_it_ends(
    zone: str, period: Period, now_ms: int
) -> None:
    start_ms, end_ms = period_of(zone, period, now_ms)
    assert start_ms <= now_ms
    if end_ms is None:
        return
    assert now_ms < end_ms
    assert period_of(zone, period, end_ms - 1).end_ms == end_ms
    following = period_of(zone, period, end_ms)
    if period is not Period.HOUR:
        assert following.start_ms == end_ms
    assert following.start_ms != start_ms


# What draws on what


CAPS = (
    Cap(unit=Unit.LEADS, period=Period.DAY, most=25),
    Cap(unit=Unit.SPEND, period=Period.MONTH, most=4_000_000),
    Cap(unit=Unit.SPEND, period=Period.TOTAL, most=9_000_000),
)
DAY_START_MS = _ms("2026-11-18T00:00:00-07:00")
MONTH_START_MS = _ms("2026-11-01T00:00:00-07:00")
RETURNS = Returns(within_ms=7 * DAY_MS, reasons=("other",), quota_basis_points=1_000)


def _order(*caps: Cap) -> Order:
    return Order(id="acme/solar", buyer_id="acme", lead_type="solar", takes=Takes(), caps=caps)


def _buyer(account: Account | None = None) -> Buyer:
    return Buyer(id="acme", timezone="America/Phoenix", account=account)


def _market(account: Account | None = None) -> Market:
    return Market(version=1, currency="USD", timezone="America/New_York", buyers={"acme": _buyer(account)})


def _lead_type(returns: Returns | None) -> LeadType:
    return LeadType(name="solar", contact=(), details={}, ping=(), plans=(), returns=returns)


def _sale_draws(market: Market, order: Order, *, quota: int | None = None) -> dict[str, tuple[int, int]]:
    draws = sale_draws(market, order, price_cents=4_500, now_ms=NOON_MS, returns_quota_basis_points=quota)
    return {draw.counter: (draw.amount, draw.granted) for draw in draws}


def test_sale_draws_on_each_cap_of_its_order_in_the_buyers_own_periods() -> None:
    assert _sale_draws(_market(), _order(*CAPS)) == {
        f"order:acme/solar:leads_per_day:{DAY_START_MS}": (1, 0),
        f"order:acme/solar:spend_per_month:{MONTH_START_MS}": (4_500, 0),
        "order:acme/solar:spend_total:0": (4_500, 0),
    }


def test_sale_draws_on_the_account_that_all_orders_of_a_buyer_have_in_common() -> None:
    account = Account(credit_limit_cents=0)
    assert _sale_draws(_market(account), _order()) == {"account:acme": (4_500, 0)}


def test_sale_earns_a_part_of_a_return_where_returns_have_a_quota() -> None:
    assert _sale_draws(_market(), _order(), quota=1_000) == {
        f"returns:acme:solar:{MONTH_START_MS}": (0, 1_000)
    }


def test_sale_without_caps_account_and_quota_draws_nothing() -> None:
    assert _sale_draws(_market(), _order()) == {}


def test_fee_draws_on_money_and_is_no_lead() -> None:
    draws = fee_draws(_market(Account(credit_limit_cents=0)), _order(*CAPS), fee_cents=7_500, now_ms=NOON_MS)
    assert {draw.counter: draw.amount for draw in draws} == {
        f"order:acme/solar:spend_per_month:{MONTH_START_MS}": 7_500,
        "order:acme/solar:spend_total:0": 7_500,
        "account:acme": 7_500,
    }


def test_limits_of_a_purchase_are_those_that_a_sale_draws_on() -> None:
    market, order = _market(Account(credit_limit_cents=1_000_000)), _order(*CAPS)
    limits = limits_of(market, order, NOON_MS)
    assert set(limits) == set(_sale_draws(market, order))
    assert all(counter == limit.counter for counter, limit in limits.items())
    assert {(limit.name, limit.most, limit.ends_at_ms) for limit in limits.values()} == {
        ("leads_per_day", 25, DAY_START_MS + DAY_MS),
        ("spend_per_month", 4_000_000, _ms("2026-12-01T00:00:00-07:00")),
        ("spend_total", 9_000_000, None),
        ("account", 1_000_000, None),
    }


def test_return_draws_one_return_of_the_month_that_it_is_asked_in() -> None:
    next_month_ms = _ms("2026-12-01T00:00:00-07:00")
    draws = return_draws(_buyer(), _lead_type(RETURNS), now_ms=next_month_ms)
    assert draws == (Draw(counter=f"returns:acme:solar:{next_month_ms}", amount=WHOLE_RETURN),)


@pytest.mark.parametrize("returns", [None, Returns(within_ms=1, reasons=())])
def test_return_without_a_quota_draws_nothing(returns: Returns | None) -> None:
    assert return_draws(_buyer(), _lead_type(returns), now_ms=NOON_MS) == ()


def test_limit_of_returns_is_what_purchases_have_earned() -> None:
    assert returns_limit(_buyer(), "solar", NOON_MS) == Limit(
        returns_counter(_buyer(), "solar", NOON_MS), "returns", 0, _ms("2026-12-01T00:00:00-07:00")
    )


def test_ten_purchases_at_a_quota_of_a_tenth_earn_a_whole_return() -> None:
    earned = [
        draw
        for _ in range(10)
        for draw in sale_draws(
            _market(), _order(), price_cents=1, now_ms=NOON_MS, returns_quota_basis_points=1_000
        )
    ]
    returned = return_draws(_buyer(), _lead_type(RETURNS), now_ms=NOON_MS)
    assert {draw.counter for draw in (*earned, *returned)} == {returns_counter(_buyer(), "solar", NOON_MS)}
    assert sum(draw.granted for draw in earned) == sum(draw.amount for draw in returned)


@pytest.mark.parametrize("cents", [50_000, -50_000])
def test_money_is_granted_to_the_account(cents: int) -> None:
    assert money_draws("acme", cents) == (Draw(counter=account_counter("acme"), amount=0, granted=cents),)


@given(st.lists(st.builds(Draw, counter=st.sampled_from("abc"), amount=st.integers(0, 9_000))))
def test_restoring_leaves_nothing_used(draws: list[Draw]) -> None:
    used = dict.fromkeys("abc", 0)
    for draw in (*draws, *restored(draws)):
        used[draw.counter] += draw.amount
    assert used == dict.fromkeys("abc", 0)


def test_restoring_goes_to_the_period_that_was_drawn_on_and_leaves_what_was_earned() -> None:
    market, order = _market(), _order(*CAPS[:1])
    draws = sale_draws(market, order, price_cents=1, now_ms=NOON_MS, returns_quota_basis_points=1_000)
    assert restored(draws) == (Draw(counter=f"order:acme/solar:leads_per_day:{DAY_START_MS}", amount=-1),)
