"""What the keys of a market file mean, and what is said of each that is wrong: path, value, expectation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.market import (
    AnyOf,
    Between,
    FieldKind,
    FieldType,
    FixedPrice,
    KeepTrying,
    ListPrice,
    Order,
    Prices,
    Ranking,
    ScoreRule,
    Sell,
    Source,
    Stage,
    Takes,
)
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS
from tests.unit.market.sample import SMALL, changed, errors_of, market_of


def test_reads_the_market_itself() -> None:
    market = market_of(SMALL)
    assert (market.version, market.currency, market.timezone) == (0, "USD", "America/New_York")


def test_reads_a_lead_type() -> None:
    solar = market_of(SMALL).lead_types["solar"]
    assert solar.contact == ("first_name", "email", "phone")
    assert solar.details["zip"] == FieldKind(type=FieldType.US_ZIP)
    assert solar.details["credit"] == FieldKind(type=FieldType.CHOICE, choices=("poor", "good"))
    assert solar.ping == ("state", "bill", "owns", "credit")
    assert solar.score == (ScoreRule(points=40, when=(("roof_age", Between(low=None, high=15_000)),)),)
    assert (solar.duplicate_within_ms, solar.contact_kept_ms) == (30 * DAY_MS, 180 * DAY_MS)


def test_reads_plans_and_their_defaults() -> None:
    premium, staggered = market_of(SMALL).lead_types["solar"].plans
    assert premium.when == (("quality", Between(low=30, high=None)),)
    assert (premium.sales_max, premium.share_basis_points, premium.expires_after_ms) == (1, 10_000, None)
    assert (staggered.when, staggered.sales_max, staggered.expires_after_ms) == ((), 3, 60 * DAY_MS)


def test_reads_stages() -> None:
    premium, staggered = market_of(SMALL).lead_types["solar"].plans
    assert premium.stages == (
        Stage(
            sell=Sell.EXCLUSIVE,
            prices=Prices(exclusive=9_000),
            keep_trying=KeepTrying(every_ms=15 * MINUTE_MS, for_ms=8 * HOUR_MS),
        ),
    )
    assert staggered.stages == (
        Stage(
            sell=Sell.EXCLUSIVE,
            prices=Prices(exclusive=7_000),
            accept_within_ms=10 * MINUTE_MS,
            exclusive_for_ms=72 * HOUR_MS,
        ),
        Stage(sell=Sell.SHARED, prices=Prices(shared=(3_000, 2_500))),
        Stage(
            sell=Sell.EITHER,
            prices=Prices(exclusive=900, shared=(600,)),
            wait_ms=30 * DAY_MS,
            only=("oak",),
        ),
    )


def test_reads_sources() -> None:
    assert market_of(SMALL).sources == {
        "sunform": Source(id="sunform", lead_types=("solar",), sales_max=2, never_to=("oak",))
    }


def test_reads_buyers_and_orders() -> None:
    oak = market_of(SMALL).buyers["oak"]
    assert (oak.id, oak.timezone, oak.paused) == ("oak", "America/Chicago", False)
    assert oak.orders == (
        Order(
            id="oak/first",
            buyer_id="oak",
            lead_type="solar",
            takes=Takes(exclusive=FixedPrice(cents=9_500)),
            where=(("state", AnyOf(values=frozenset({"AZ", "NV"}))),),
        ),
        Order(
            id="oak/second",
            buyer_id="oak",
            lead_type="solar",
            takes=Takes(exclusive=ListPrice(), shared=ListPrice()),
            priority=7,
            weight=3,
            holders_max=3,
        ),
    )


WHERE = "where: {state: [AZ, NV]}"
FILTERS = [
    ("where: {state: az}", (("state", AnyOf(values=frozenset({"AZ"}))),)),
    ("where: {owns: TRUE}", (("owns", AnyOf(values=frozenset({"yes"}))),)),
    ("where: {credit: [good, poor]}", (("credit", AnyOf(values=frozenset({"good", "poor"}))),)),
    ("where: {bill: 150}", (("bill", AnyOf(values=frozenset({"150.00"}))),)),
    ("where: {bill: [150, 99.5]}", (("bill", AnyOf(values=frozenset({"150.00", "99.50"}))),)),
    ("where: {bill: {from: 150, to: 200.50}}", (("bill", Between(low=15_000, high=20_050)),)),
    ("where: {bill: {to: 0}}", (("bill", Between(low=None, high=0)),)),
    ("where: {quality: {from: 80, to: 100}}", (("quality", Between(low=80, high=100)),)),
    ("where: {quality: 100}", (("quality", Between(low=100, high=100)),)),
    ("where: {age: {from: 30d}}", (("age", Between(low=30 * DAY_MS, high=None)),)),
    ("where: {}", ()),
    (
        "where: {state: AZ, age: {to: 1h}}",
        (("age", Between(low=None, high=HOUR_MS)), ("state", AnyOf(values=frozenset({"AZ"})))),
    ),
]


@pytest.mark.parametrize(("text", "where"), FILTERS)
def test_reads_filters_by_the_kind_of_their_field(text: str, where: object) -> None:
    assert market_of(changed(WHERE, text)).buyers["oak"].orders[0].where == where


def test_number_bounds_are_thousandths() -> None:
    market = market_of(changed("{roof_age: {to: 15}}", "{roof_age: {from: 1.5, to: 15.25}}"))
    assert market.lead_types["solar"].score[0].when == (("roof_age", Between(low=1_500, high=15_250)),)


PRICES = [
    ("price: [30.00, 25.00]", Prices(shared=(3_000, 2_500))),
    ("price: 30", Prices(shared=(3_000,))),
    ("price: {shared: 30.5}", Prices(shared=(3_050,))),
    ("price: {shared: [30.00, 30.00]}", Prices(shared=(3_000, 3_000))),
]


@pytest.mark.parametrize(("text", "prices"), PRICES)
def test_reads_each_form_of_a_shared_price(text: str, prices: Prices) -> None:
    plan = market_of(changed("price: [30.00, 25.00]", text)).lead_types["solar"].plans[1]
    assert plan.stages[1].prices == prices


def test_reads_an_either_price_with_a_list_and_an_exclusive_price_by_its_mode() -> None:
    market = market_of(
        changed("{exclusive: 9.00, shared: 6.00}", "{exclusive: 9.00, shared: [6.00, 5.00]}").replace(
            "price: 90.00", "price: {exclusive: 91.00}"
        )
    )
    premium, staggered = market.lead_types["solar"].plans
    assert premium.stages[0].prices == Prices(exclusive=9_100)
    assert staggered.stages[2].prices == Prices(exclusive=900, shared=(600, 500))


@pytest.mark.parametrize("ranking", list(Ranking))
def test_reads_every_ranking(ranking: Ranking) -> None:
    market = market_of(changed("{sell: shared, ", f"{{sell: shared, by: {ranking}, selection: direct, "))
    assert market.lead_types["solar"].plans[1].stages[1].by is ranking


def test_reads_a_pause_of_a_source_a_buyer_and_an_order() -> None:
    market = market_of(
        SMALL.replace("{lead_types: [solar],", "{paused: yes, lead_types: [solar],")
        .replace(
            "timezone: America/Chicago",
            "timezone: America/Chicago\n    paused: TRUE\n    deliver: {kafka: json}",
        )
        .replace("{exclusive: 95.00}}", "{exclusive: 95.00}, paused: yes}")
    )
    oak = market.buyers["oak"]
    assert (market.sources["sunform"].paused, oak.paused) == (True, True)
    assert [order.paused for order in oak.orders] == [True, False]


def test_a_market_without_sources_and_buyers_is_one() -> None:
    market = market_of("market: {currency: EUR, timezone: Europe/Berlin}")
    assert (market.lead_types, market.sources, market.buyers) == ({}, {}, {})


def test_the_order_of_names_and_conditions_in_the_file_makes_no_other_market() -> None:
    moved = SMALL.replace("sources:\n", "sources:\n  quotehub: {lead_types: [solar], never_to: [elm, oak]}\n")
    moved = moved.replace("buyers:\n", "buyers:\n  elm: {timezone: UTC}\n")
    again = moved.replace("[elm, oak]", "[oak, elm]").replace("[AZ, NV]", "[NV, AZ]")
    first, second = again.split("      first: ")[1].split("      second: ")
    again = again.replace(
        f"      first: {first}      second: {second}", f"      second: {second}      first: {first}"
    )
    assert again != moved
    assert market_of(again) == market_of(moved)


def test_entries_may_be_spread_over_files() -> None:
    head, rest = SMALL.split("\nsources:\n")
    sources, buyers = rest.split("\nbuyers:\n")
    market = market_of(f"buyers:\n{buyers}", f"sources:\n{sources}", head)
    assert market == market_of(SMALL)


STAGE = "lead_types.solar.plans.staggered.stages"
SOLAR = "lead_types.solar"
FIRST = "buyers.oak.orders.first"

WRONG = [
    # the market
    ("currency: USD", "currency: usd", "market.currency", "usd", "did you mean USD?"),
    ("currency: USD, ", "", "market", "{timezone: America/New_York}", "expected the key currency"),
    ("America/New_York}", "Mars/Base}", "market.timezone", "Mars/Base", "expected a timezone"),
    ("lead_types:\n", "lead_typs:\n", "lead_typs", None, "did you mean lead_types?"),
    # lead types
    ("  solar:\n", "  Solar:\n", "lead_types.Solar", None, "unfit name: expected a name"),
    (
        "[first_name, email, phone]",
        "[first_name, Email]",
        f"{SOLAR}.contact.2",
        "Email",
        "expected a field name",
    ),
    ("[first_name, email, phone]", "[email, email]", f"{SOLAR}.contact.2", "email", "expected it only once"),
    (
        "[first_name, email, phone]",
        "[email, zip]",
        f"{SOLAR}.contact",
        "[email, zip]",
        "expected zip either here or",
    ),
    ("[first_name, email, phone]", "[]", f"{SOLAR}.contact", "[]", "expected a list of at least one"),
    ("[first_name, email, phone]", "email", f"{SOLAR}.contact", "email", "expected a list of at least one"),
    ("[first_name, email, phone]", "[[email]]", f"{SOLAR}.contact.1", "[email]", "expected a single value"),
    ("zip: us_zip", "zip: us_zp", f"{SOLAR}.details.zip", "us_zp", "did you mean us_zip?"),
    ("zip: us_zip", "zip: choice", f"{SOLAR}.details.zip", "choice", "expected one of amount, number"),
    ("zip: us_zip", "Zip: us_zip", f"{SOLAR}.details.Zip", "us_zip", "expected a field name"),
    (
        "zip: us_zip",
        "quality: number",
        f"{SOLAR}.details.quality",
        "number",
        "expected another name: quality",
    ),
    ("[poor, good]}", "[poor, poor]}", f"{SOLAR}.details.credit.2", "poor", "expected it only once"),
    ("[poor, good]}", "[poor, '']}", f"{SOLAR}.details.credit.2", "", "expected a choice of 1 to 63"),
    ("[poor, good]}", '[poor, "a\\0b"]}', f"{SOLAR}.details.credit.2", None, "that can be printed"),
    ("owns, credit]\n", "owns, email]\n", f"{SOLAR}.ping.4", "email", "a ping shows details"),
    ("points: 40", "points: 0", f"{SOLAR}.score.1.points", "0", "from 1 to 100"),
    ("points: 40, ", "", f"{SOLAR}.score.1", "{when: {roof_age: {to: 15}}}", "expected the key points"),
    ("{roof_age: {to: 15}}", "{quality: 5}", f"{SOLAR}.score.1.when.quality", "5", "unknown field"),
    ("{roof_age: {to: 15}}", "{age: {to: 1h}}", f"{SOLAR}.score.1.when.age", "{to: 1h}", "unknown field"),
    (
        "duplicate_within: 30d",
        "duplicate_within: a month",
        f"{SOLAR}.duplicate_within",
        "a month",
        "a duration",
    ),
    ("contact_kept: 180d", "contact_kept: 0d", f"{SOLAR}.contact_kept", "0d", "longer than nothing"),
    ("    contact_kept: 180d\n", "", SOLAR, None, "expected the key contact_kept"),
    # plans
    ("name: premium", "name: staggered", f"{SOLAR}.plans.staggered", None, "expected another name"),
    ("name: premium", "name: Pre mium", f"{SOLAR}.plans.Pre mium.name", "Pre mium", "expected a name"),
    ("name: premium\n        ", "", f"{SOLAR}.plans.1", None, "expected the key name"),
    (
        "{quality: {from: 30}}",
        "{quality: {from: 101}}",
        f"{SOLAR}.plans.premium.when.quality.from",
        "101",
        "0 to 100",
    ),
    (
        "{quality: {from: 30}}",
        "{qualty: {}}",
        f"{SOLAR}.plans.premium.when.qualty",
        "{}",
        "did you mean quality?",
    ),
    (
        "{quality: {from: 30}}",
        "{quality: {}}",
        f"{SOLAR}.plans.premium.when.quality",
        "{}",
        "expected from, to or both",
    ),
    (
        "{quality: {from: 30}}",
        "{quality: [1, 2]}",
        f"{SOLAR}.plans.premium.when.quality",
        "[1, 2]",
        "expected bounds",
    ),
    ("sales_max: 3\n", "sales_max: three\n", f"{SOLAR}.plans.staggered.sales_max", "three", "a whole number"),
    (
        "sales_max: 3\n        ",
        "",
        f"{SOLAR}.plans.staggered",
        None,
        "expected the key sales_max, as a stage sells",
    ),
    (
        "sales_max: 3\n",
        "sales_max: 3\n        share: 0%\n",
        f"{SOLAR}.plans.staggered.share",
        "0%",
        "a share over",
    ),
    ("expires_after: 60d", "expires_after: 60", f"{SOLAR}.plans.staggered.expires_after", "60", "a duration"),
    # stages
    ("{sell: shared, ", "{sell: sharde, ", f"{STAGE}.2.sell", "sharde", "did you mean shared?"),
    ("{sell: shared, ", "{", f"{STAGE}.2", "{price: [30.00, 25.00]}", "expected the key sell"),
    ("{sell: shared, ", "{sell: shared, prize: 1, ", f"{STAGE}.2.prize", "1", "did you mean price?"),
    (
        "{sell: shared, ",
        "{sell: shared, by: luck, ",
        f"{STAGE}.2.by",
        "luck",
        "expected one of price, priority",
    ),
    ("{sell: shared, ", "{sell: shared, by: wieght, ", f"{STAGE}.2.by", "wieght", "did you mean weight?"),
    ("price: [30.00, 25.00]", "wait: 1d", f"{STAGE}.2", "{sell: shared, wait: 1d}", "expected the key price"),
    ("price: [30.00, 25.00]", "price: [30.00, free]", f"{STAGE}.2.price.2", "free", "expected an amount"),
    ("price: [30.00, 25.00]", "price: []", f"{STAGE}.2.price", "[]", "expected a list of at least one"),
    ("price: [30.00, 25.00]", "price: {exclusive: 1}", f"{STAGE}.2.price.exclusive", "1", "unknown key"),
    ("price: [30.00, 25.00]", "price: {}", f"{STAGE}.2.price", "{}", "expected the key shared"),
    ("price: 70.00", "price: [70.00]", f"{STAGE}.1.price", "[70.00]", "an exclusive lead is sold once"),
    ("price: 70.00", "price: 70.001", f"{STAGE}.1.price", "70.001", "expected an amount"),
    (
        "price: 70.00",
        "price: {exclusive: [1]}",
        f"{STAGE}.1.price.exclusive",
        "[1]",
        "an exclusive lead is sold once",
    ),
    (
        "{exclusive: 9.00, shared: 6.00}",
        "{exclusive: 9.00}",
        f"{STAGE}.3.price",
        "{exclusive: 9.00}",
        "the key shared",
    ),
    ("{exclusive: 9.00, shared: 6.00}", "9.00", f"{STAGE}.3.price", "9.00", "expected a price for each mode"),
    (
        "{exclusive: 9.00, shared: 6.00}",
        "[9.00]",
        f"{STAGE}.3.price",
        "[9.00]",
        "expected a price for each mode",
    ),
    ("accept_within: 10m", "accept_within: 0s", f"{STAGE}.1.accept_within", "0s", "longer than nothing"),
    ("exclusive_for: 72h", "exclusive_for: 0s", f"{STAGE}.1.exclusive_for", "0s", "longer than nothing"),
    ("only: [oak]", "only: []", f"{STAGE}.3.only", "[]", "expected a list of at least one"),
    ("wait: 30d", "wait: later", f"{STAGE}.3.wait", "later", "expected a duration"),
    (
        "{every: 15m, for: 8h}",
        "15m",
        f"{SOLAR}.plans.premium.stages.1.keep_trying",
        "15m",
        "with the keys every, for",
    ),
    (
        "contact_kept: 180d",
        "contact_kept: 180d\n    one_to_one_consent: buyers",
        f"{SOLAR}.one_to_one_consent",
        "buyers",
        "expected yes or no",
    ),
    # sources
    (
        "{lead_types: [solar], ",
        "{",
        "sources.sunform",
        "{sales_max: 2, never_to: [oak]}",
        "the key lead_types",
    ),
    ("sales_max: 2", "sales_max: few", "sources.sunform.sales_max", "few", "expected a whole number"),
    ("  sunform: ", "  sun_form: ", "sources.sun_form", None, "unfit name"),
    ("sales_max: 2", "paused: maybe", "sources.sunform.paused", "maybe", "expected yes or no"),
    # buyers and orders
    ("timezone: America/Chicago", "timezone: Chicago", "buyers.oak.timezone", "Chicago", "did you mean"),
    ("timezone: America/Chicago", "paused: no", "buyers.oak", None, "expected the key timezone"),
    ("      first: ", "      First: ", "buyers.oak.orders.First", None, "unfit name"),
    (WHERE, "where: {state: Arizona}", f"{FIRST}.where.state", "Arizona", "two letters"),
    (WHERE, "where: {state: [AZ, QQ]}", f"{FIRST}.where.state.2", "QQ", "two letters"),
    (WHERE, "where: {state: [AZ, az]}", f"{FIRST}.where.state.2", "az", "expected it only once"),
    (WHERE, "where: {state: {from: AZ}}", f"{FIRST}.where.state", "{from: AZ}", "us_state has no order"),
    (WHERE, "where: {stat: AZ}", f"{FIRST}.where.stat", "AZ", "did you mean state?"),
    (WHERE, "where: {credit: fair}", f"{FIRST}.where.credit", "fair", "expected one of poor, good"),
    (
        WHERE,
        "where: {bill: {from: 2, to: 1}}",
        f"{FIRST}.where.bill",
        "{from: 2, to: 1}",
        "nothing is between",
    ),
    (WHERE, "where: {bill: {form: 2}}", f"{FIRST}.where.bill.form", "2", "did you mean from?"),
    (WHERE, "where: {bill: {from: 2.555}}", f"{FIRST}.where.bill.from", "2.555", "expected an amount"),
    (WHERE, "where: [AZ]", f"{FIRST}.where", "[AZ]", "expected a mapping"),
    ("takes: {exclusive: 95.00}", "takes: {}", f"{FIRST}.takes", "{}", "expected exclusive, shared or both"),
    ("takes: {exclusive: 95.00}", "takes: list", f"{FIRST}.takes", "list", "expected a mapping"),
    (
        "takes: {exclusive: 95.00}",
        "takes: {exclusive: lots}",
        f"{FIRST}.takes.exclusive",
        "lots",
        "list for the stage's price, or bid",
    ),
    (", takes: {exclusive: 95.00}", "", FIRST, None, "expected the key takes"),
    (
        "first: {lead_type: solar",
        "first: {lead_typ: solar",
        f"{FIRST}.lead_typ",
        "solar",
        "did you mean lead_type?",
    ),
    (
        "priority: 7",
        "priority: first",
        "buyers.oak.orders.second.priority",
        "first",
        "expected a whole number",
    ),
    ("weight: 3", "weight: 0", "buyers.oak.orders.second.weight", "0", "from 1 to"),
    ("weight: 3", "weight: ~", "buyers.oak.orders.second.weight", "~", "from 1 to"),
    (
        "timezone: America/Chicago",
        "timezone: UTC\n    deliver: {}",
        "buyers.oak.deliver",
        "{}",
        "expected kafka or webhook",
    ),
]


@pytest.mark.parametrize(("old", "new", "path", "value", "expected"), WRONG)
def test_says_where_what_and_why(old: str, new: str, path: str, value: str | None, expected: str) -> None:
    text = changed(old, new)
    found = [error for error in errors_of(text) if error.path == path and expected in error.expected]
    assert found, [str(error) for error in errors_of(text)]
    assert value is None or found[0].value == value
    assert found[0].file == "1.yaml"


def test_names_the_line_of_the_key() -> None:
    (error,) = errors_of(changed("price: 70.00", "price: cheap"))
    assert SMALL.splitlines()[error.line - 1].lstrip().startswith("- {sell: exclusive, price: 70.00")
    assert str(error) == (
        f"1.yaml:{error.line}: lead_types.solar.plans.staggered.stages.1.price: 'cheap': "
        "expected an amount over zero with at most two decimals, as in 90.00"
    )


def test_tells_all_errors_at_once_in_the_order_of_the_file() -> None:
    text = changed("currency: USD", "currency: X").replace("points: 40", "points: x").replace("95.00", "x")
    text = text.replace("only: [oak]", "only: [elm]").replace("sales_max: 2", "sales_max: 11")
    errors = errors_of(text)
    assert [error.path for error in errors] == [
        "market.currency",
        f"{SOLAR}.score.1.points",
        "sources.sunform.sales_max",
        f"{FIRST}.takes.exclusive",
    ]


def test_an_entry_that_was_misread_does_not_break_rules_by_its_stand_ins() -> None:
    (error,) = errors_of(changed("[state, bill, owns, credit]", "state"))
    assert error.path == f"{SOLAR}.ping"


def test_a_long_value_is_cut_off_in_the_message() -> None:
    (error,) = errors_of(changed("price: 70.00", f"price: {'9' * 5_000}"))
    assert len(str(error)) < 400


def test_a_market_needs_its_head() -> None:
    assert [(error.path, error.expected) for error in errors_of("buyers: {}")] == [
        ("", "expected the key market")
    ]


def test_a_merge_key_is_no_key() -> None:
    text = changed("timezone: America/Chicago", "<<: {timezone: America/Chicago}")
    assert "buyers.oak.<<" in [error.path for error in errors_of(text)]


def test_reading_is_repeatable() -> None:
    assert replace(market_of(SMALL), version=5) == replace(market_of(SMALL), version=5)
