"""What one version of the market may not change of the one before it, and what it changes at its author's risk."""

from __future__ import annotations

import pytest

from services.market.documents import MarketFile
from services.market.errors import MarketRefused
from services.market.review import Reviewed, review
from tests.unit.market.sample import SMALL, changed, market_of


def reviewed(text: str) -> Reviewed:
    return review([MarketFile("next.yaml", text)])


def test_the_currency_stays_for_good() -> None:
    with pytest.raises(MarketRefused) as refused:
        reviewed(changed("currency: USD", "currency: EUR")).after(market_of(SMALL))
    (error,) = refused.value.errors
    assert (error.file, error.line, error.path, error.value) == ("next.yaml", 1, "market.currency", "EUR")
    assert "expected USD, as before" in error.expected


def test_the_first_market_chooses_its_currency() -> None:
    assert reviewed(changed("currency: USD", "currency: EUR")).after(None).market.currency == "EUR"


UNCHANGED = [
    ("zip: us_zip", "zip: us_zip, phase: number"),
    ("[poor, good]}", "[good, fair, poor]}"),
    ("timezone: America/New_York}", "timezone: UTC}"),
    ("weight: 3", "weight: 4"),
]


@pytest.mark.parametrize(("old", "new"), UNCHANGED)
def test_is_silent_about_what_changes_no_lead_that_was_accepted(old: str, new: str) -> None:
    assert reviewed(changed(old, new)).after(market_of(SMALL)).warnings == ()


CHANGED = [
    ("zip: us_zip", "zip: number", "zip", "number", "it was us_zip"),
    ("[poor, good]}", "[good, fair]}", "credit", "[good, fair]", "may say poor"),
    ("credit: [poor, good]}", "credit: yes_no}", "credit", "yes_no", "it was choice"),
]


@pytest.mark.parametrize(("old", "new", "field", "value", "reason"), CHANGED)
def test_warns_of_a_field_that_is_read_otherwise_from_now_on(
    old: str, new: str, field: str, value: str, reason: str
) -> None:
    (warning,) = reviewed(changed(old, new)).after(market_of(SMALL)).warnings
    assert (warning.path, warning.value) == (f"lead_types.solar.details.{field}", value)
    assert reason in warning.reason
    assert warning.line > 1


ROOFING = """\
  roofing:
    {contact: [phone], details: {zip: number}, ping: [zip], contact_kept: 1d, plans:
      [{name: a, stages: [{sell: exclusive, price: 1.00}]}]}
  solar:
"""


def test_a_field_that_goes_and_a_lead_type_that_comes_are_no_change_of_a_kind() -> None:
    text = changed("  solar:\n", ROOFING).replace("zip: us_zip, ", "")
    found = reviewed(text).after(market_of(SMALL)).warnings
    assert [warning for warning in found if ".details." in warning.path] == []


def test_it_keeps_the_warnings_of_the_market_itself() -> None:
    odd = changed("takes: {exclusive: 95.00}", "takes: {exclusive: 8.99}").replace(
        "zip: us_zip", "zip: number"
    )
    assert [warning.path for warning in reviewed(odd).after(market_of(SMALL)).warnings] == [
        "buyers.oak.orders.first",
        "lead_types.solar.details.zip",
    ]
