"""What the target format has and this release can't honour is refused by name, never taken silently."""

from __future__ import annotations

import pytest

from services.market.errors import NOT_YET
from tests.unit.market.sample import changed, errors_of

STAGE = "lead_types.solar.plans.staggered.stages.2"
SHARED = "{sell: shared, price: [30.00, 25.00]}"
OAK = "timezone: America/Chicago"
ORDER = "buyers.oak.orders.second"

LATER = [
    (SHARED, "{sell: shared, selection: ping_post, price: 30.00}", f"{STAGE}.selection", "ping_post"),
    (SHARED, "{sell: shared, selection: first_bid, price: 30.00}", f"{STAGE}.selection", "first_bid"),
    (SHARED, "{sell: shared, price: 30.00, bid_window: 500ms}", f"{STAGE}.bid_window", "500ms"),
    (SHARED, "{sell: shared, price: 30.00, floor: {shared: 18.00}}", f"{STAGE}.floor", "{shared: 18.00}"),
    (SHARED, "{sell: shared, price: 30.00, upgrade: {within: 2m}}", f"{STAGE}.upgrade", "{within: 2m}"),
    ("sales_max: 2,", "paid: {per_lead: 8.00},", "sources.sunform.paid", "{per_lead: 8.00}"),
    (OAK, f"{OAK}\n    account: {{prepaid: true}}", "buyers.oak.account", "{prepaid: true}"),
    (OAK, f"{OAK}\n    account: {{credit_limit: 9}}", "buyers.oak.account", "{credit_limit: 9}"),
    (OAK, f"{OAK}\n    deliver: {{kafka: avro}}", "buyers.oak.deliver.kafka", "avro"),
    (OAK, f"{OAK}\n    deliver: {{webhook: 'https://x'}}", "buyers.oak.deliver.webhook", "https://x"),
    ("weight: 3", "caps: {leads_per_day: 25}", f"{ORDER}.caps", "{leads_per_day: 25}"),
    ("weight: 3", "open: {mon-fri: 08:00-18:00}", f"{ORDER}.open", "{mon-fri: 08:00-18:00}"),
    ("weight: 3", "upgrade: always", f"{ORDER}.upgrade", "always"),
    ("{exclusive: list, shared: list}", "{exclusive: list, shared: bid}", f"{ORDER}.takes.shared", "bid"),
    ("{exclusive: list, shared: list}", "{exclusive: bid}", f"{ORDER}.takes.exclusive", "bid"),
]


@pytest.mark.parametrize(("old", "new", "path", "value"), LATER)
def test_refuses_what_a_later_release_adds(old: str, new: str, path: str, value: str) -> None:
    (error,) = errors_of(changed(old, new))
    assert (error.path, error.value, error.expected) == (path, value, NOT_YET)
    assert (error.file, error.line > 0) == ("1.yaml", True)


def test_a_stage_sold_by_bids_is_not_asked_for_a_price_too() -> None:
    text = "{sell: shared, selection: ping_post, bid_window: 500ms, floor: {shared: 18.00}}"
    errors = errors_of(changed(SHARED, text))
    assert {error.expected for error in errors} == {NOT_YET}
    assert len(errors) == 3
