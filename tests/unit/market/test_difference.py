"""The difference of two markets: what was added, changed and retired, in the words of the file."""

from __future__ import annotations

import pytest

from services.contract.market import Market
from services.market.difference import Change, ChangeKind, difference
from tests.unit.market.sample import SMALL, changed, market_of


def shown(old: Market | None, new: Market) -> list[str]:
    return [str(change) for change in difference(old, new)]


def test_the_same_market_has_no_difference() -> None:
    assert difference(market_of(SMALL), market_of(SMALL)) == ()


STAGE = "lead_types.solar.plans.staggered.stages"
CHANGES = [
    ("price: 70.00", "price: 75.00", f"~ {STAGE}.1.price: 70.00 -> 75.00"),
    ("[30.00, 25.00]", "[30.00, 24.00]", f"~ {STAGE}.2.price: [30.00, 25.00] -> [30.00, 24.00]"),
    ("exclusive_for: 72h", "exclusive_for: 2d", f"~ {STAGE}.1.exclusive_for: 3d -> 2d"),
    (", accept_within: 10m", "", f"- {STAGE}.1.accept_within: 10m"),
    ("only: [oak], ", "", f"- {STAGE}.3.only: [oak]"),
    ("price: [30.00, 25.00]", "by: weight, price: [30.00, 25.00]", f"~ {STAGE}.2.by: price -> weight"),
    ("sales_max: 3\n", "sales_max: 4\n", "~ lead_types.solar.plans.staggered.sales_max: 3 -> 4"),
    (
        "sales_max: 3\n",
        "sales_max: 3\n        share: 50%\n",
        "~ lead_types.solar.plans.staggered.share: 100% -> 50%",
    ),
    (
        "{quality: {from: 30}}",
        "{quality: {from: 35}}",
        "~ lead_types.solar.plans.premium.when.quality.from: 30 -> 35",
    ),
    ("{quality: {from: 30}}", "{age: {to: 1h}}", "+ lead_types.solar.plans.premium.when.age: {to: 1h}"),
    ("points: 40", "points: 50", "~ lead_types.solar.score.1.points: 40 -> 50"),
    (
        "{roof_age: {to: 15}}",
        "{roof_age: {to: 15.5}}",
        "~ lead_types.solar.score.1.when.roof_age.to: 15 -> 15.5",
    ),
    ("[AZ, NV]", "[NM, AZ]", "~ buyers.oak.orders.first.where.state: [AZ, NV] -> [AZ, NM]"),
    ("[AZ, NV]", "AZ", "~ buyers.oak.orders.first.where.state: [AZ, NV] -> AZ"),
    (
        "takes: {exclusive: 95.00}",
        "takes: {shared: list}",
        "- buyers.oak.orders.first.takes.exclusive: 95.00",
    ),
    ("weight: 3", "paused: yes", "~ buyers.oak.orders.second.paused: no -> yes"),
    ("weight: 3", "paused: no", "~ buyers.oak.orders.second.weight: 3 -> 1"),
    ("sales_max: 2, ", "", "- sources.sunform.sales_max: 2"),
    # the keys of auctions, limits, money and returns
    (
        "[30.00, 25.00]}",
        "[30.00, 25.00], floor: 20.00, upgrade: {per_slot: 9.00, within: 2m}}",
        f"+ {STAGE}.2.upgrade: {{per_slot: 9.00, within: 2m}}",
    ),
    ("[30.00, 25.00]}", "[30.00, 25.00], floor: 20.00}", f"+ {STAGE}.2.floor: 20.00"),
    (
        "{sell: shared, price: [30.00, 25.00]}",
        "{sell: shared, selection: ping_post, bid_window: 500ms}",
        f"~ {STAGE}.2.selection: direct -> ping_post",
    ),
    (
        "{sell: shared, price: [30.00, 25.00]}",
        "{sell: shared, selection: ping_post, bid_window: 500ms}",
        f"- {STAGE}.2.price: [30.00, 25.00]",
    ),
    (
        "contact_kept: 180d",
        "contact_kept: 180d\n    returns: {within: 7d, reasons: [other], quota: 10%}",
        "+ lead_types.solar.returns: {within: 7d, reasons: [other], quota: 10%, approve: automatic}",
    ),
    (
        "sales_max: 2, ",
        "sales_max: 2, paid: {share_of_revenue: 60%}, ",
        "+ sources.sunform.paid: {share_of_revenue: 60%, back_on_return: no}",
    ),
    (
        "timezone: America/Chicago",
        "timezone: America/Chicago\n    account: {prepaid: yes}",
        "+ buyers.oak.account: {prepaid: yes}",
    ),
    (
        "timezone: America/Chicago",
        "timezone: America/Chicago\n    deliver: {kafka: avro}",
        "~ buyers.oak.deliver.kafka: json -> avro",
    ),
    (
        "timezone: America/Chicago",
        "timezone: America/Chicago\n    pings_per_minute: 60",
        "+ buyers.oak.pings_per_minute: 60",
    ),
    (
        "weight: 3",
        "weight: 3, caps: {leads_per_day: 25, spend_total: 900}",
        "+ buyers.oak.orders.second.caps: {leads_per_day: 25, spend_total: 900.00}",
    ),
    (
        "weight: 3",
        "weight: 3, open: {mon-fri: 08:00-18:00}",
        "+ buyers.oak.orders.second.open: {mon-fri: 08:00-18:00}",
    ),
    ("weight: 3", "weight: 3, upgrade: always", "+ buyers.oak.orders.second.upgrade: always"),
    (
        "takes: {exclusive: list, shared: list}",
        "takes: {exclusive: list, shared: 31.00}",
        "~ buyers.oak.orders.second.takes.shared: list -> 31.00",
    ),
    ("timezone: America/Chicago", "timezone: UTC", "~ buyers.oak.timezone: America/Chicago -> UTC"),
]


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES)
def test_tells_a_change_by_its_path_in_the_units_of_the_file(old: str, new: str, expected: str) -> None:
    assert expected in shown(market_of(SMALL), market_of(changed(old, new)))


def test_a_cap_and_an_hour_that_change_are_told_alone() -> None:
    limited = "weight: 3, caps: {leads_per_day: 25, spend_total: 900}, open: {mon-fri: 08:00-18:00}"
    before = market_of(changed("weight: 3", limited))
    after = market_of(changed("weight: 3", limited.replace("25", "30").replace("18:00", "17:30")))
    assert shown(before, after) == [
        "~ buyers.oak.orders.second.caps.leads_per_day: 25 -> 30",
        "~ buyers.oak.orders.second.open.mon-fri: 08:00-18:00 -> 08:00-17:30",
    ]


def test_a_first_market_is_told_entry_by_entry() -> None:
    changes = difference(None, market_of(SMALL))
    assert {change.kind for change in changes} == {ChangeKind.ADDED}
    assert [change.path for change in changes] == [
        "market.currency",
        "market.timezone",
        "lead_types.solar",
        "sources.sunform",
        "buyers.oak",
    ]


def test_what_the_files_leave_out_is_retired() -> None:
    text = "\n".join(line for line in SMALL.splitlines() if "second:" not in line and "sunform" not in line)
    changes = difference(
        market_of(SMALL), market_of(text.replace("sources:", "sources: {}").replace("only: [oak], ", ""))
    )
    retired = {change.path: change.old for change in changes if change.kind is ChangeKind.RETIRED}
    assert retired.keys() == {"sources.sunform", "buyers.oak.orders.second", f"{STAGE}.3.only"}
    assert "priority: 7" in (retired["buyers.oak.orders.second"] or "")


def test_plans_are_compared_by_name_and_their_order_is_told() -> None:
    head, rest = SMALL.split("      - name: premium\n")
    premium, rest = rest.split("      - name: staggered\n")
    staggered, tail = rest.split("\nsources:")
    moved = f"{head}      - name: staggered\n{staggered}      - name: premium\n{premium}\nsources:{tail}"
    assert difference(market_of(SMALL), market_of(moved)) == (
        Change(
            ChangeKind.CHANGED,
            "lead_types.solar.plans",
            "in this order: premium, staggered",
            "in this order: staggered, premium",
        ),
    )


def test_swapping_a_difference_swaps_its_sides() -> None:
    before, after = market_of(SMALL), market_of(changed("price: 70.00", "price: 75.00"))
    (there,), (back,) = difference(before, after), difference(after, before)
    assert (there.path, there.old, there.new) == (back.path, back.new, back.old)


def test_a_long_text_is_cut_off_when_shown_and_whole_in_the_change() -> None:
    (change,) = [change for change in difference(None, market_of(SMALL)) if change.path == "lead_types.solar"]
    assert change.new is not None
    assert len(str(change)) < 200 < len(change.new)
