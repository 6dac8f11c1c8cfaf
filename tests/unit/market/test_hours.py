"""When an order is open, as people write it: the same hours are the same value, and no mistake is taken for hours."""

from __future__ import annotations

import pytest
from hypothesis import given

from services.contract.market import OpenHours
from services.market.hours import days_text, range_text
from tests.unit.market.sample import changed, errors_of, market_of
from tests.unit.market.strategies import few, open_hours

PATH = "buyers.oak.orders.second.open"
WORKDAYS = (0, 1, 2, 3, 4)


def hours_of(text: str) -> tuple[OpenHours, ...]:
    return market_of(changed("weight: 3", f"open: {text}")).buyers["oak"].orders[1].open


def hours(days: tuple[int, ...], start: int, end: int) -> OpenHours:
    return OpenHours(days=days, from_minute=start * 60, to_minute=end * 60)


READ = [
    ("{mon-fri: 08:00-18:00, sat: 09:00-13:00}", (hours(WORKDAYS, 8, 18), hours((5,), 9, 13))),
    ("{mon-fri: [08:00-12:00, 13:00-18:00]}", (hours(WORKDAYS, 8, 12), hours(WORKDAYS, 13, 18))),
    ("{'mon,wed, fri': 8:00-18:00}", (hours((0, 2, 4), 8, 18),)),
    ("{'mon-tue,sun': 08:00-18:00}", (hours((0, 1, 6), 8, 18),)),
    ("{sun: 00:00-24:00}", (hours((6,), 0, 24),)),
    ("{mon-sun: 00:00-24:00}", (hours((0, 1, 2, 3, 4, 5, 6), 0, 24),)),
    ("{fri: 22:00-24:00, sat: 00:00-02:00}", (hours((4,), 22, 24), hours((5,), 0, 2))),
    ("{mon: [08:00-12:00, 12:00-13:00]}", (hours((0,), 8, 12), hours((0,), 12, 13))),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_reads_days_and_hours(text: str, expected: tuple[OpenHours, ...]) -> None:
    assert hours_of(text) == expected


def test_minutes_count_to_the_minute() -> None:
    (span,) = hours_of("{mon: 08:01-18:59}")
    assert (span.from_minute, span.to_minute) == (8 * 60 + 1, 18 * 60 + 59)


def test_an_order_without_hours_is_always_open() -> None:
    assert market_of(changed("weight: 3", "weight: 3")).buyers["oak"].orders[1].open == ()


SAME = [
    ("{mon-wed: 08:00-18:00}", "{tue: 08:00-18:00, 'mon,wed': 08:00-18:00}"),
    ("{mon: [08:00-12:00, 13:00-18:00]}", "{mon: [13:00-18:00, 08:00-12:00]}"),
    ("{mon: 08:00-12:00, tue: 13:00-18:00}", "{tue: 13:00-18:00, mon: 08:00-12:00}"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_hours_are_the_same_market_however_they_are_written(one: str, other: str) -> None:
    assert hours_of(one) == hours_of(other)


WRONG = [
    ("{}", "", "{}", "expected a day with its hours"),
    ("always", "", "always", "expected a mapping"),
    ("{monday: 08:00-18:00}", ".monday", "08:00-18:00", "did you mean mon?"),
    ("{mon-fry: 08:00-18:00}", ".mon-fry", "08:00-18:00", "did you mean fri?"),
    ("{Mon: 08:00-18:00}", ".Mon", "08:00-18:00", "expected days"),
    ("{mon-: 08:00-18:00}", ".mon-", "08:00-18:00", "expected days"),
    ("{fri-mon: 08:00-18:00}", ".fri-mon", "08:00-18:00", "fri-mon is 'fri-sun,mon'"),
    ("{'mon,mon': 08:00-18:00}", ".mon,mon", "08:00-18:00", "expected each day once"),
    ("{'mon-wed,tue': 08:00-18:00}", ".mon-wed,tue", "08:00-18:00", "expected each day once"),
    ("{mon,tue: 08:00-18:00}", ".mon", "", "expected hours from 00:00 to 24:00"),
    ("{mon: all day}", ".mon", "all day", "as in 08:00-18:00"),
    ("{mon: 8-18}", ".mon", "8-18", "as in 08:00-18:00"),
    ("{mon: 08:00-24:01}", ".mon", "08:00-24:01", "to 24:00"),
    ("{mon: 08:60-18:00}", ".mon", "08:60-18:00", "to 24:00"),
    ("{mon: 08:00-08:00}", ".mon", "08:00-08:00", "a whole day is 00:00-24:00"),
    ("{fri: 22:00-02:00}", ".fri", "22:00-02:00", "{fri: 22:00-24:00, sat: 00:00-02:00}"),
    ("{mon: []}", ".mon", "[]", "expected a list of at least one"),
    ("{mon: [08:00-12:00, noon]}", ".mon.2", "noon", "as in 08:00-18:00"),
    ("{mon: [08:00-12:00, 11:59-13:00]}", ".mon", "[08:00-12:00, 11:59-13:00]", "open at once on mon"),
    ("{mon-fri: 08:00-18:00, wed: 17:00-20:00}", ".wed", "17:00-20:00", "open at once on wed"),
    ("{mon-fri: 08:00-18:00, wed: 08:00-18:00}", ".wed", "08:00-18:00", "open at once on wed"),
]


@pytest.mark.parametrize(("text", "key", "value", "expected"), WRONG)
def test_says_what_is_wrong_with_hours(text: str, key: str, value: str, expected: str) -> None:
    errors = errors_of(changed("weight: 3", f"open: {text}"))
    found = [error for error in errors if error.path == f"{PATH}{key}" and expected in error.expected]
    assert found, [str(error) for error in errors]
    assert found[0].value == value


@few
@given(open_hours())
def test_hours_that_are_written_read_back_as_themselves(spans: tuple[OpenHours, ...]) -> None:
    by_days: dict[str, list[str]] = {}
    for span in spans:
        by_days.setdefault(days_text(span.days), []).append(range_text(span))
    written = ", ".join(f"'{days}': [{', '.join(ranges)}]" for days, ranges in by_days.items())
    if spans:
        assert hours_of(f"{{{written}}}") == spans
