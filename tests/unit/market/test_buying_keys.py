"""What buyers, their orders and sources may say of money, limits and delivery; and what is said of each mistake."""

from __future__ import annotations

import pytest

from services.contract.market import (
    Account,
    BidPrice,
    Buyer,
    Cap,
    Deliver,
    Encoding,
    ListPrice,
    Order,
    Paid,
    Period,
    PerLead,
    ShareOfRevenue,
    Takes,
    Unit,
)
from tests.unit.market.sample import changed, errors_of, market_of

ZONE = "timezone: America/Chicago"
OAK = "buyers.oak"
SECOND = f"{OAK}.orders.second"
SUNFORM = "sources.sunform"


def buyer_with(text: str) -> Buyer:
    return market_of(changed(ZONE, f"{ZONE}\n    {text}")).buyers["oak"]


def order_with(text: str) -> Order:
    return market_of(changed("weight: 3", text)).buyers["oak"].orders[1]


def test_a_buyer_may_owe_any_amount_unless_it_has_an_account() -> None:
    assert buyer_with("paused: no").account is None


@pytest.mark.parametrize("text", ["{prepaid: true}", "{prepaid: yes}"])
def test_prepaid_is_a_credit_limit_of_nothing(text: str) -> None:
    assert buyer_with(f"account: {text}").account == Account(credit_limit_cents=0)


def test_reads_a_credit_limit() -> None:
    assert buyer_with("account: {credit_limit: 50000.00}").account == Account(credit_limit_cents=5_000_000)


DELIVERIES = [
    ("{kafka: json}", Deliver()),
    ("{kafka: avro}", Deliver(encoding=Encoding.AVRO)),
    ("{webhook: https://oak.example/leads}", Deliver(webhook="https://oak.example/leads")),
    ("{webhook: 'https://oak.example:8443/a?b=c'}", Deliver(webhook="https://oak.example:8443/a?b=c")),
    ("{webhook: http://localhost:8080/}", Deliver(webhook="http://localhost:8080/")),
    ("{webhook: http://127.0.0.1/}", Deliver(webhook="http://127.0.0.1/")),
    ("{webhook: 'http://[::1]:9/x'}", Deliver(webhook="http://[::1]:9/x")),
]


@pytest.mark.parametrize(("text", "deliver"), DELIVERIES)
def test_reads_each_way_to_deliver(text: str, deliver: Deliver) -> None:
    assert buyer_with(f"deliver: {text}").deliver == deliver


def test_reads_a_limit_on_pings() -> None:
    assert buyer_with("pings_per_minute: 600").pings_per_minute == 600
    assert buyer_with("paused: no").pings_per_minute is None


def test_reads_caps_in_one_order_whatever_the_files() -> None:
    caps = (
        Cap(unit=Unit.LEADS, period=Period.HOUR, most=5),
        Cap(unit=Unit.LEADS, period=Period.TOTAL, most=100),
        Cap(unit=Unit.SPEND, period=Period.MONTH, most=4_000_050),
    )
    text = "caps: {spend_per_month: 40000.50, leads_total: 100, leads_per_hour: 5}"
    assert order_with(text).caps == caps


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("period", list(Period))
def test_every_cap_has_its_key(unit: Unit, period: Period) -> None:
    name = f"{unit}_total" if period is Period.TOTAL else f"{unit}_per_{period}"
    most = 95 if unit is Unit.LEADS else 9_500
    assert order_with(f"caps: {{{name}: 95}}").caps == (Cap(unit=unit, period=period, most=most),)


def test_reads_an_upgrade_that_is_booked_ahead() -> None:
    assert order_with("upgrade: always").upgrade_always
    assert not order_with("weight: 3").upgrade_always


def test_an_order_may_bid_in_one_mode_and_take_the_list_in_the_other() -> None:
    text = changed("{exclusive: list, shared: list}", "{exclusive: bid, shared: list}")
    assert market_of(text).buyers["oak"].orders[1].takes == Takes(exclusive=BidPrice(), shared=ListPrice())


PAYOUTS = [
    ("{per_lead: 12.00}", Paid(by=PerLead(cents=1_200))),
    ("{share_of_revenue: 60%}", Paid(by=ShareOfRevenue(basis_points=6_000))),
    ("{share_of_revenue: 100%}", Paid(by=ShareOfRevenue(basis_points=10_000))),
    ("{per_lead: 0.01, back_on_return: yes}", Paid(by=PerLead(cents=1), back_on_return=True)),
]


@pytest.mark.parametrize(("text", "paid"), PAYOUTS)
def test_reads_what_a_source_is_paid(text: str, paid: Paid) -> None:
    assert market_of(changed("sales_max: 2,", f"paid: {text},")).sources["sunform"].paid == paid


WRONG_BUYERS = [
    ("account: {}", "account", "{}", "expected prepaid or credit_limit"),
    ("account: prepaid", "account", "prepaid", "expected a mapping with the keys prepaid, credit_limit"),
    (
        "account: {prepaid: yes, credit_limit: 5}",
        "account",
        "{prepaid: yes, credit_limit: 5}",
        "and not both",
    ),
    ("account: {prepaid: no}", "account", "{prepaid: no}", "expected prepaid: yes, or a credit_limit"),
    ("account: {prepaid: maybe}", "account.prepaid", "maybe", "expected yes or no"),
    ("account: {credit_limit: -5.00}", "account.credit_limit", "-5.00", "expected an amount over zero"),
    ("account: {credit_limit: 0}", "account.credit_limit", "0", "expected an amount over zero"),
    ("account: {credit_limt: 5}", "account.credit_limt", "5", "did you mean credit_limit?"),
    ("deliver: {kafka: xml}", "deliver.kafka", "xml", "expected one of avro, json"),
    ("deliver: {kafka: json, webhook: https://a.example/}", "deliver", None, "and not both"),
    ("deliver: {webhook: oak.example/leads}", "deliver.webhook", "oak.example/leads", "an https address"),
    ("deliver: {webhook: https://}", "deliver.webhook", "https://", "an https address"),
    ("deliver: {webhook: ftp://oak.example}", "deliver.webhook", "ftp://oak.example", "an https address"),
    ("deliver: {webhook: 'https://oak.example:http/'}", "deliver.webhook", None, "an https address"),
    (
        "deliver: {webhook: 'https://me:pw@oak.example/'}",
        "deliver.webhook",
        "https://***@oak.example/",
        "without user, password",
    ),
    ("deliver: 'https://me:p@w@oak.example/a@b'", "deliver", "https://***@oak.example/a@b", "kafka, webhook"),
    ("deliver: {webhook: 'https://oak.example/#top'}", "deliver.webhook", None, "fragment"),
    ("deliver: {webhook: 'https://oak.example/a b'}", "deliver.webhook", None, "an https address"),
    ("deliver: {webhook: 'https://[::1'}", "deliver.webhook", None, "an https address"),
    ("deliver: {webhook: http://oak.example/}", "deliver.webhook", None, "expected https: people's contact"),
    (
        "deliver: {webhook: http://localhost.oak.example/}",
        "deliver.webhook",
        None,
        "expected https: people's",
    ),
    ("deliver: {webhook: http://127.0.0.1@oak.example/}", "deliver.webhook", None, "without user, password"),
    ("pings_per_minute: 0", "pings_per_minute", "0", "from 1 to"),
]


@pytest.mark.parametrize(("text", "key", "value", "expected"), WRONG_BUYERS)
def test_says_what_is_wrong_with_a_buyer(text: str, key: str, value: str | None, expected: str) -> None:
    errors = errors_of(changed(ZONE, f"{ZONE}\n    {text}"))
    found = [error for error in errors if error.path == f"{OAK}.{key}" and expected in error.expected]
    assert found, [str(error) for error in errors]
    assert value is None or found[0].value == value


WRONG_ORDERS = [
    ("caps: {}", "caps", "expected a cap, as in {leads_per_day: 25}"),
    ("caps: 25", "caps", "expected a mapping with the keys leads_per_hour"),
    ("caps: {leads_per_day: 0}", "caps.leads_per_day", "from 1 to"),
    ("caps: {leads_per_day: 1.5}", "caps.leads_per_day", "expected a whole number"),
    ("caps: {leads_per_dya: 5}", "caps.leads_per_dya", "did you mean leads_per_day?"),
    ("caps: {spend_per_day: 0.00}", "caps.spend_per_day", "expected an amount over zero"),
    ("caps: {spend_per_day: lots}", "caps.spend_per_day", "expected an amount over zero"),
    ("caps: {leads_total: 5, leads_total: 6}", "caps.leads_total", "expected each key once"),
    ("upgrade: never", "upgrade", "expected one of always"),
]


@pytest.mark.parametrize(("text", "key", "expected"), WRONG_ORDERS)
def test_says_what_is_wrong_with_an_order(text: str, key: str, expected: str) -> None:
    errors = errors_of(changed("weight: 3", text))
    found = [error for error in errors if error.path == f"{SECOND}.{key}" and expected in error.expected]
    assert found, [str(error) for error in errors]


WRONG_PAYOUTS = [
    ("{}", "", "expected per_lead or share_of_revenue"),
    ("{back_on_return: yes}", "", "expected per_lead or share_of_revenue"),
    ("{per_lead: 5, share_of_revenue: 5%}", "", "and not both"),
    ("{per_lead: 0}", ".per_lead", "expected an amount over zero"),
    ("{share_of_revenue: 0%}", ".share_of_revenue", "over 0%"),
    ("{share_of_revenue: 100.01%}", ".share_of_revenue", "up to 100%"),
    ("{share_of_revenue: 60}", ".share_of_revenue", "a share over 0%"),
    ("{per_lead: 5, back_on_return: perhaps}", ".back_on_return", "expected yes or no"),
    ("60%", "", "expected a mapping with the keys per_lead, share_of_revenue, back_on_return"),
]


@pytest.mark.parametrize(("text", "key", "expected"), WRONG_PAYOUTS)
def test_says_what_is_wrong_with_a_payout(text: str, key: str, expected: str) -> None:
    errors = errors_of(changed("sales_max: 2,", f"paid: {text},"))
    found = [error for error in errors if error.path == f"{SUNFORM}.paid{key}" and expected in error.expected]
    assert found, [str(error) for error in errors]
