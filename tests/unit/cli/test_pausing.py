"""Pausing changes one flag of the market in force and nothing else, and whoever does it is told what may undo it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.cli.complaints import Complaint
from services.cli.pausing import Pausing, Subject, hints, lines_of, with_paused
from services.market.difference import difference
from tests.support.deciding import market, order, plan, shared_stage

MARKET = market(
    plan(shared_stage(4000)),
    orders=(order("oak", shared="list"), order("oak", shared=100, name="cheap"), order("elm", shared="list")),
    version=7,
)
EACH = [(Subject.SOURCE, "sunform"), (Subject.BUYER, "oak"), (Subject.ORDER, "oak/cheap")]


@pytest.mark.parametrize(("subject", "id"), EACH)
def test_pausing_changes_one_flag_and_resuming_gives_the_same_market_again(subject: Subject, id: str) -> None:
    paused = with_paused(MARKET, subject, id, paused=True)
    (change,) = difference(MARKET, paused)
    assert change.path.endswith(".paused")
    assert (change.old, change.new) == ("no", "yes")
    assert with_paused(paused, subject, id, paused=False) == MARKET


@pytest.mark.parametrize(("subject", "id"), EACH)
def test_pausing_what_is_paused_changes_nothing(subject: Subject, id: str) -> None:
    paused = with_paused(MARKET, subject, id, paused=True)
    assert with_paused(paused, subject, id, paused=True) == paused


def test_pausing_an_order_leaves_its_buyers_other_orders_alone() -> None:
    oak = with_paused(MARKET, Subject.ORDER, "oak/cheap", paused=True).buyers["oak"]
    assert {each.id: each.paused for each in oak.orders} == {"oak/all": False, "oak/cheap": True}
    assert not oak.paused


@pytest.mark.parametrize(
    ("subject", "id", "likely"),
    [
        (Subject.SOURCE, "sunfrom", "did you mean sunform?"),
        (Subject.BUYER, "oka", "did you mean oak?"),
        (Subject.ORDER, "oak/cheep", "did you mean oak/cheap?"),
        (Subject.ORDER, "oak", "no order 'oak'"),
    ],
)
def test_what_the_market_does_not_have_is_told_with_what_looks_like_it(
    subject: Subject, id: str, likely: str
) -> None:
    with pytest.raises(Complaint) as raised:
        with_paused(MARKET, subject, id, paused=True)
    assert likely in raised.value.what
    assert "gavel market show" in raised.value.advice


def pausing(*, paused: bool = True, dry_run: bool = False, subject: Subject = Subject.ORDER) -> Pausing:
    id = dict(EACH)[subject]
    old = with_paused(MARKET, subject, id, paused=not paused)
    return Pausing(
        subject=subject,
        id=id,
        paused=paused,
        base_version=7,
        version=8,
        changes=difference(old, with_paused(old, subject, id, paused=paused)),
        dry_run=dry_run,
    )


def test_a_dry_run_says_what_would_be() -> None:
    assert list(lines_of(pausing(dry_run=True))) == [
        "~ buyers.oak.orders.cheap.paused: no -> yes",
        "version 8 would be applied, made from version 7",
    ]
    assert list(lines_of(pausing()))[-1] == "version 8 is in force, made from version 7"


def test_nothing_to_change_is_said() -> None:
    same = replace(pausing(), changes=(), version=7)
    assert list(lines_of(same)) == ["no change: order oak/cheap is paused in version 7"]


@pytest.mark.parametrize(
    ("paused", "says"), [(True, "does not say `paused: yes`"), (False, "still says `paused: yes`")]
)
def test_whoever_pauses_is_told_that_a_file_may_undo_it(paused: bool, says: str) -> None:
    (hint,) = hints(MARKET, pausing(paused=paused))
    assert says in hint
    assert "order oak/cheap" in hint


def test_resuming_an_order_of_a_paused_buyer_says_that_it_still_buys_nothing() -> None:
    asleep = with_paused(MARKET, Subject.BUYER, "oak", paused=True)
    assert "buyer oak is paused" in list(hints(asleep, pausing(paused=False)))[1]
