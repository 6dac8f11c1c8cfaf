"""Times and amounts as people write them, and the headers that carry them to outsiders."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.cloudevents import outsider_headers
from services.contract.times import amount_in_cents, decimal_amount, duration_for_people, iso_time


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_790_000_000_007, "2026-09-21T14:13:20.007Z")],
)
def test_time_is_utc_with_milliseconds(at_ms: int, text: str) -> None:
    assert iso_time(at_ms) == text


@given(at_ms=st.integers(0, 4_102_444_800_000))
def test_time_says_what_it_was_made_of(at_ms: int) -> None:
    read = datetime.strptime(iso_time(at_ms), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert round(read.timestamp() * 1_000) == at_ms


@given(cents=st.integers(-(10**12), 10**12))
def test_amount_has_two_decimals_and_says_what_it_was_made_of(cents: int) -> None:
    text = decimal_amount(cents)
    assert text[-3] == "."
    assert Decimal(text) * 100 == cents
    assert amount_in_cents(text) == cents


@pytest.mark.parametrize(("text", "cents"), [("90", 9_000), ("-0.5", -50), ("0", 0)])
def test_amount_is_read_with_fewer_decimals_too(text: str, cents: int) -> None:
    assert amount_in_cents(text) == cents


@pytest.mark.parametrize("text", ["", "1.000", "1e3", ".5", "5.", "1,000", " 1", "1\n", "+1", "9" * 13, "٨٥"])
def test_anything_else_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="at most two decimals"):
        amount_in_cents(text)


def test_headers_of_outsiders_are_cloudevents() -> None:
    headers = dict(outsider_headers(id="3:41:0", type="lead.sold", source="gavel", at_ms=1_790_000_000_007))
    assert headers == {
        "ce_specversion": b"1.0",
        "content-type": b"application/json",
        "ce_id": b"3:41:0",
        "ce_type": b"lead.sold",
        "ce_source": b"gavel",
        "ce_time": b"2026-09-21T14:13:20.007Z",
    }


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (259_200_000, "3 days"),
        (86_400_000, "1 day"),
        (90_000, "90 seconds"),
        (7_200_000, "2 hours"),
        (60_000, "1 minute"),
        (1_500, "1500 milliseconds"),
    ],
)
def test_duration_is_said_in_its_largest_whole_unit(milliseconds: int, words: str) -> None:
    assert duration_for_people(milliseconds) == words
