"""Deposits and adjustments: what is booked on a buyer's account, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.contract.events import CommandRefused, Draw, MoneyKind, MoneyMoved, RefusalReason
from services.contract.ids import account_id_of
from services.contract.inputs import MoveMoney
from tests.support.deciding import Story, lead, market, order
from tests.support.terms import on_terms

MARKET = on_terms(market(orders=(order("a", shared="list"),)), accounts={"a": 0})


def _move(
    cents: int, *, kind: MoneyKind = MoneyKind.DEPOSIT, buyer_id: str = "a", currency: str = "USD"
) -> MoveMoney:
    return MoveMoney(
        lead_id=account_id_of(buyer_id),
        buyer_id=buyer_id,
        kind=kind,
        reference="wire-17",
        amount_cents=cents,
        currency=currency,
    )


@pytest.mark.parametrize(
    ("kind", "cents"),
    [(MoneyKind.DEPOSIT, 50_000), (MoneyKind.ADJUSTMENT, 1), (MoneyKind.ADJUSTMENT, -50_000)],
)
def test_money_is_told_with_its_reference_and_granted_to_the_account(kind: MoneyKind, cents: int) -> None:
    story = Story(MARKET)
    assert story.when(_move(cents, kind=kind)) == [
        MoneyMoved(
            buyer_id="a",
            kind=kind,
            reference="wire-17",
            amount_cents=cents,
            currency="USD",
            draws=(Draw(counter="account:a", amount=0, granted=cents),),
        )
    ]


def test_money_under_another_id_than_the_account_s_is_refused_be_it_a_lead_s() -> None:
    story = Story(MARKET)
    story.when(lead())
    assert story.when(replace(_move(50_000), lead_id=lead().lead_id)) == [
        CommandRefused(command="move_money", buyer_id=None, reason=RefusalReason.UNKNOWN_BUYER)
    ]


def test_account_has_no_state_among_the_leads() -> None:
    story = Story(MARKET)
    story.when(_move(50_000))
    assert story.state is None


def test_money_of_a_buyer_without_an_account_counts_from_the_day_it_has_one() -> None:
    story = Story(on_terms(MARKET, accounts={}))
    story.when(_move(50_000))
    assert story.all(MoneyMoved)[0].draws[0].granted == 50_000


def test_money_for_a_paused_buyer_is_booked() -> None:
    buyers = {name: replace(buyer, paused=True) for name, buyer in MARKET.buyers.items()}
    story = Story(replace(MARKET, buyers=buyers))
    story.when(_move(50_000))
    assert len(story.all(MoneyMoved)) == 1


def test_money_for_somebody_the_market_does_not_know_is_refused() -> None:
    story = Story(MARKET)
    assert story.when(_move(50_000, buyer_id="ghost")) == [
        CommandRefused(command="move_money", buyer_id=None, reason=RefusalReason.UNKNOWN_BUYER)
    ]
    assert story.state is None


def test_money_in_another_currency_is_refused() -> None:
    story = Story(MARKET)
    assert story.when(_move(50_000, currency="EUR")) == [
        CommandRefused(command="move_money", buyer_id="a", reason=RefusalReason.WRONG_CURRENCY)
    ]
