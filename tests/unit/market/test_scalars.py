"""Each kind of scalar in the market file: what it takes, what it refuses, and that it is written as it is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contract.fields import FieldError
from services.contract.times import DAY_MS, decimal_amount
from services.market import fields

DURATIONS = {
    "0s": 0,
    "500ms": 500,
    "10s": 10_000,
    "10m": 600_000,
    "72h": 259_200_000,
    "30d": 30 * DAY_MS,
    "3650d": 3_650 * DAY_MS,
}
PRICES = {
    "90": 9_000,
    "90.5": 9_050,
    "90.00": 9_000,
    "0.01": 1,
    "007.50": 750,
    "999999999.99": 99_999_999_999,
}
SHARES = {"50%": 5_000, "12.5%": 1_250, "0.01%": 1, "100%": 10_000, "100.00%": 10_000}
YES_NO = {"yes": True, "Yes": True, "TRUE": True, "no": False, "NO": False, "false": False}


@pytest.mark.parametrize(("text", "milliseconds"), DURATIONS.items())
def test_reads_durations(text: str, milliseconds: int) -> None:
    assert fields.duration_ms(text) == milliseconds


@pytest.mark.parametrize(("text", "cents"), PRICES.items())
def test_reads_prices_as_cents(text: str, cents: int) -> None:
    assert fields.price_cents(text) == cents


@pytest.mark.parametrize(("text", "basis_points"), SHARES.items())
def test_reads_shares_as_basis_points(text: str, basis_points: int) -> None:
    assert fields.share_basis_points(text) == basis_points


@pytest.mark.parametrize(("text", "value"), YES_NO.items())
def test_reads_yes_and_no_in_any_case(text: str, value: bool) -> None:
    assert fields.yes_no(text) is value


REFUSED: list[tuple[Callable[[str], object], list[str]]] = [
    (
        fields.duration_ms,
        ["", "10", "m", "-1s", "1.5h", "1h30m", "10 m", "3651d", "1w", "٣s", "9" * 40 + "s"],
    ),
    (fields.positive_duration_ms, ["0s", "0ms", "10"]),
    (
        fields.price_cents,
        ["", "0", "0.00", "-1", "+1", "1.234", "1,50", "$5", "1e3", "5.", ".5", "٣", "1 000"],
    ),
    (fields.share_basis_points, ["0%", "0.00%", "50", "101%", "100.01%", "-5%", "1.234%", "%", "half"]),
    (fields.yes_no, ["", "y", "n", "on", "off", "1", "0"]),
    (fields.whole(1, 10), ["", "0", "11", "-1", "2.0", "1_0", "x", "٣"]),
    (fields.identifier, ["", "Sun", "sun_peak", "sun.peak", "-sun", "sun-", "sün", "a" * 64, "a b", "a\n"]),
    (fields.field_name, ["", "1st", "First", "first-name", "a" * 64, "a.b", "_a"]),
    (fields.currency_code, ["", "usd", "US", "XXX", "JPY", "KWD", "BTC"]),
    (fields.timezone_name, ["", "New York", "america/new_york", "../etc/passwd", "/etc/localtime", "UTC+1"]),
    # In zone data, and no place: another time on each machine, or none.
    (fields.timezone_name, ["localtime", "Factory"]),
]


@pytest.mark.parametrize(("read", "text"), [(read, text) for read, texts in REFUSED for text in texts])
def test_refuses_what_is_not_of_the_kind(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(FieldError, match=r"^expected "):
        read(text)


def test_names_are_of_bounded_length() -> None:
    assert fields.identifier("a" * 63) == "a" * 63
    assert fields.identifier("a") == "a"


def test_suggests_the_timezone_that_was_meant() -> None:
    with pytest.raises(FieldError, match="did you mean America/Phoenix"):
        fields.timezone_name("America/Phenix")


def test_a_currency_without_two_decimals_is_refused_for_that_reason() -> None:
    with pytest.raises(FieldError, match="two decimals"):
        fields.currency_code("JPY")


@settings(deadline=None)
@given(st.integers(0, fields.DURATION_MAX_MS))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    assert fields.duration_ms(fields.duration_text(milliseconds)) == milliseconds


@settings(deadline=None)
@given(st.integers(1, 99_999_999_999))
def test_a_written_price_reads_back(cents: int) -> None:
    assert fields.price_cents(decimal_amount(cents)) == cents


@settings(deadline=None)
@given(st.integers(1, 10_000))
def test_a_written_share_reads_back(basis_points: int) -> None:
    assert fields.share_basis_points(fields.share_text(basis_points)) == basis_points


@settings(deadline=None)
@given(st.text(max_size=20))
def test_every_reader_gives_a_value_or_a_field_error(text: str) -> None:
    for read, _ in REFUSED:
        with suppress(FieldError):
            read(text)
