"""What hardly anybody means is told as a warning, and only that."""

from __future__ import annotations

import pytest

from tests.unit.market.sample import SMALL, changed, warnings_of

PLAN = "lead_types.solar.plans.staggered"
PREMIUM = "lead_types.solar.plans.premium"
SECOND = "buyers.oak.orders.second"
FIRST = "buyers.oak.orders.first"
SHARED = "{sell: shared, price: [30.00, 25.00]}"
LAST_PLAN = "      - name: last\n        stages: [{sell: exclusive, price: 5.00}]\n\nsources:"

MEANT = [
    # what a lead's quality and identity are made of
    ("points: 40", "points: 100"),
    ("[first_name, email, phone]", "[first_name, phone]"),
    # stages
    (SHARED, "{sell: shared, price: [30.00, 25.00, 20.00]}"),
    ("expires_after: 60d", "expires_after: 31d"),
    ("keep_trying: {every: 15m, for: 8h}", "keep_trying: {every: 8h, for: 8h}"),
    # orders
    ("takes: {exclusive: 95.00}", "takes: {exclusive: 9.00}"),
    ("takes: {exclusive: 95.00}", "takes: {shared: 6.00}"),
    ("holders_max: 3", "holders_max: 2"),
    ("weight: 3", "caps: {leads_per_hour: 5, leads_per_day: 6, spend_per_hour: 60.00}"),
    # A week may lie in two months.
    ("weight: 3", "caps: {leads_per_week: 90, leads_per_month: 60}"),
    ("sales_max: 2, ", "sales_max: 2, paid: {per_lead: 190.00}, "),
    ("sales_max: 2, ", "paid: {share_of_revenue: 100%}, "),
]


def test_the_small_market_has_no_warnings() -> None:
    assert warnings_of(SMALL) == ()


@pytest.mark.parametrize(("old", "new"), MEANT)
def test_is_silent_about_what_makes_sense(old: str, new: str) -> None:
    assert warnings_of(changed(old, new)) == ()


ODD = [
    (
        "{points: 40, when: {roof_age: {to: 15}}}",
        "{points: 60, when: {state: AZ}}, {points: 41, when: {state: NV}}",
        "lead_types.solar.score",
        "add up to more than 100",
    ),
    (
        "[first_name, email, phone]",
        "[first_name]",
        "lead_types.solar.duplicate_within",
        "this lead type has neither",
    ),
    ("when: {quality: {from: 30}}", "share: 100%", PLAN, "no lead gets as far: plan premium"),
    (
        "sales_max: 3\n",
        "sales_max: 3\n        share: 99%\n",
        "lead_types.solar.plans",
        "no plan takes every lead",
    ),
    ("\nsources:", LAST_PLAN, "lead_types.solar.plans.last", "no lead gets as far: plan staggered"),
    (
        SHARED,
        f"{SHARED}\n          - {{sell: exclusive, price: 5.00}}",
        f"{PLAN}.stages.3",
        "it sells only what the shared stages before it left wholly unsold",
    ),
    (
        "wait: 30d, only: [oak], price: {exclusive: 9.00, shared: 6.00}}",
        "price: {exclusive: 9.00, shared: 6.00}, exclusive_for: 1h}",
        f"{PLAN}.stages.3.exclusive_for",
        "nothing can follow",
    ),
    (
        "keep_trying: {every: 15m, for: 8h}",
        "exclusive_for: 72h",
        f"{PREMIUM}.stages.1.exclusive_for",
        "nothing can",
    ),
    ("sales_max: 3\n", "sales_max: 1\n", f"{PLAN}.stages.1.exclusive_for", "nothing can follow"),
    (
        "expires_after: 60d",
        "expires_after: 30d",
        f"{PLAN}.stages.3",
        "it never starts: the plan expires after 30d",
    ),
    (
        "{every: 15m, for: 8h}",
        "{every: 9h, for: 8h}",
        f"{PREMIUM}.stages.1.keep_trying",
        "the first repetition",
    ),
    (
        SHARED,
        "{sell: shared, price: [4.00, 3.00, 2.00, 1.00]}",
        f"{PLAN}.stages.2.price",
        "longer than the plan's 3",
    ),
    ("takes: {exclusive: 95.00}", "takes: {exclusive: 8.99}", FIRST, "no plan can serve it"),
    ("takes: {exclusive: 95.00}", "takes: {exclusive: bid}", f"{FIRST}.takes.exclusive", "asks for bids"),
    (
        "exclusive: list, shared: list",
        "exclusive: list, shared: bid",
        f"{SECOND}.takes.shared",
        "asks for bids",
    ),
    (
        SHARED,
        "{sell: shared, selection: ping_post, bid_window: 1s, price: 30.00}",
        f"{PLAN}.stages.2.selection",
        "standing orders decide at once",
    ),
    (
        SHARED,
        "{sell: shared, selection: ping_post, bid_window: 1s}",
        f"{PLAN}.stages.2",
        "no order of this market",
    ),
    ("weight: 3", "upgrade: always", f"{SECOND}.upgrade", "no stage of solar has an upgrade"),
    (
        "{exclusive: 95.00}",
        "{exclusive: 95.00}, upgrade: always",
        f"{FIRST}.upgrade",
        "it takes no shared lead",
    ),
    (
        "takes: {exclusive: list, shared: list}",
        "takes: {exclusive: list, shared: bid}, upgrade: always",
        f"{SECOND}.upgrade",
        "an auction sells all slots at once",
    ),
    (
        "weight: 3",
        "caps: {leads_per_hour: 25, leads_per_day: 25}",
        f"{SECOND}.caps.leads_per_hour",
        "leads_per_day is no more",
    ),
    (
        "weight: 3",
        "caps: {spend_per_week: 100.00, spend_total: 90.00}",
        f"{SECOND}.caps.spend_per_week",
        "spend_total is no more",
    ),
    (
        "sales_max: 2, ",
        "sales_max: 2, paid: {per_lead: 190.01}, ",
        "sources.sunform.paid.per_lead",
        "190.00 at most",
    ),
    ("takes: {exclusive: 95.00}", "takes: {shared: 5.99}", FIRST, "no plan can serve it"),
]


@pytest.mark.parametrize(("old", "new", "path", "reason"), ODD)
def test_warns_of_what_is_probably_not_meant(old: str, new: str, path: str, reason: str) -> None:
    found = {warning.path: warning.reason for warning in warnings_of(changed(old, new))}
    assert reason in found[path]


ONE_PLAN = """\
market: {{currency: USD, timezone: UTC}}
lead_types:
  solar:
    contact: [phone]
    details: {{state: us_state}}
    ping: [state]
    contact_kept: 180d
    plans:
      - {{name: one, sales_max: 2, stages: [{stage}]}}
sources: {{sunform: {source}}}
buyers:
  oak: {{timezone: UTC, orders: {{a: {order}}}}}
  elm: {{timezone: UTC, orders: {{a: {{lead_type: solar, takes: {{exclusive: list, shared: list}}}}}}}}
"""


def paths_of(stage: str, order: str, source: str = "{lead_types: [solar]}") -> set[str]:
    return {warning.path for warning in warnings_of(ONE_PLAN.format(stage=stage, order=order, source=source))}


PINGS = "selection: ping_post, bid_window: 500ms"
UPGRADE = "upgrade: {per_slot: 1.00}"
SERVED = [
    ("{sell: shared, price: [9.00, 5.00]}", "{lead_type: solar, takes: {shared: 5.00}}", True),
    ("{sell: shared, price: [9.00, 5.00]}", "{lead_type: solar, takes: {shared: 4.99}}", False),
    ("{sell: shared, price: 9.00}", "{lead_type: solar, takes: {exclusive: list}}", False),
    ("{sell: shared, price: 9.00, only: [oak]}", "{lead_type: solar, takes: {shared: list}}", True),
    ("{sell: shared, price: 9.00, only: [elm]}", "{lead_type: solar, takes: {shared: list}}", False),
    ("{sell: shared, price: 9.00}", "{lead_type: solar, takes: {shared: list}, holders_max: 2}", True),
    ("{sell: shared, price: 9.00}", "{lead_type: solar, takes: {shared: list}, holders_max: 1}", False),
    (
        "{sell: either, price: {exclusive: 9, shared: 5}}",
        "{lead_type: solar, takes: {exclusive: 9.00}}",
        True,
    ),
    (
        "{sell: either, price: {exclusive: 9, shared: 5}}",
        "{lead_type: solar, takes: {exclusive: 8.99}}",
        False,
    ),
    # floors
    ("{sell: shared, price: 9.00, floor: 5.00}", "{lead_type: solar, takes: {shared: 5.00}}", True),
    ("{sell: shared, price: 9.00, floor: 5.00}", "{lead_type: solar, takes: {shared: 4.99}}", False),
    # auctions: who bids is asked, who names an own amount stands beside it, and there may be no list to take
    (f"{{sell: shared, {PINGS}}}", "{lead_type: solar, takes: {shared: bid}}", True),
    (f"{{sell: shared, {PINGS}}}", "{lead_type: solar, takes: {shared: 0.01}}", True),
    (f"{{sell: shared, {PINGS}, floor: 5.00}}", "{lead_type: solar, takes: {shared: 4.99}}", False),
    (f"{{sell: shared, {PINGS}}}", "{lead_type: solar, takes: {shared: list}}", False),
    (f"{{sell: shared, price: 9.00, {PINGS}}}", "{lead_type: solar, takes: {shared: list}}", True),
    (
        f"{{sell: either, price: {{shared: 9}}, {PINGS}}}",
        "{lead_type: solar, takes: {exclusive: list}}",
        False,
    ),
    # upgrades booked ahead
    (
        f"{{sell: shared, price: 9, {UPGRADE}}}",
        "{lead_type: solar, takes: {shared: 9}, upgrade: always}",
        True,
    ),
    ("{sell: shared, price: 9}", "{lead_type: solar, takes: {shared: 9}, upgrade: always}", False),
    (
        "{sell: shared, price: 9}",
        "{lead_type: solar, takes: {exclusive: 9, shared: 9}, upgrade: always}",
        False,
    ),
    (f"{{sell: shared, {PINGS}}}", "{lead_type: solar, takes: {shared: bid}, upgrade: always}", False),
    # a budget below the price
    ("{sell: shared, price: 9}", "{lead_type: solar, takes: {shared: list}, caps: {spend_total: 9}}", True),
    (
        "{sell: shared, price: 9}",
        "{lead_type: solar, takes: {shared: list}, caps: {spend_total: 8.99}}",
        False,
    ),
    (
        "{sell: shared, price: 9}",
        "{lead_type: solar, takes: {shared: 9.5}, caps: {spend_per_day: 9.49}}",
        False,
    ),
    (
        "{sell: shared, price: 9}",
        "{lead_type: solar, takes: {shared: 9.5}, caps: {spend_per_day: 9.50}}",
        True,
    ),
]


@pytest.mark.parametrize(("stage", "order", "is_served"), SERVED)
def test_warns_of_an_order_exactly_when_no_plan_can_serve_it(stage: str, order: str, is_served: bool) -> None:
    assert ("buyers.oak.orders.a" in paths_of(stage, order)) is not is_served


def test_an_order_whose_every_bid_goes_unasked_is_warned_of_once_for_each() -> None:
    found = paths_of(
        "{sell: shared, price: 9.00}", "{lead_type: solar, takes: {exclusive: bid, shared: bid}}"
    )
    mine = {path for path in found if path.startswith("buyers.oak")}
    assert mine == {"buyers.oak.orders.a.takes.exclusive", "buyers.oak.orders.a.takes.shared"}


def test_a_payout_is_never_too_much_where_bids_may_bring_any_price() -> None:
    text = ONE_PLAN.format(
        stage=f"{{sell: shared, {PINGS}}}",
        order="{lead_type: solar, takes: {shared: bid}}",
        source="{lead_types: [solar], paid: {per_lead: 999999.00}}",
    )
    assert [warning.path for warning in warnings_of(text) if warning.path.startswith("sources")] == []


def test_a_source_that_lowers_the_cap_serves_orders_for_few_holders() -> None:
    stage, order = "{sell: shared, price: 9.00}", "{lead_type: solar, takes: {shared: list}, holders_max: 1}"
    assert "buyers.oak.orders.a" not in paths_of(stage, order, "{lead_types: [solar], sales_max: 1}")


def test_warns_of_a_stage_that_nobody_can_buy_in() -> None:
    stage = "{sell: shared, price: 9.00, only: [oak]}"
    assert paths_of(stage, "{lead_type: solar, takes: {exclusive: list}}") >= {
        "lead_types.solar.plans.one.stages.1"
    }
    assert paths_of(stage, "{lead_type: solar, takes: {shared: list}}") == {"buyers.elm.orders.a"}


def test_a_warning_names_its_line() -> None:
    (warning,) = warnings_of(changed("takes: {exclusive: 95.00}", "takes: {exclusive: 8.99}"))
    assert SMALL.splitlines()[warning.line - 1].lstrip().startswith("first: ")
    assert str(warning).startswith(
        f"1.yaml:{warning.line}: buyers.oak.orders.first: 'solar': no plan can serve it"
    )
