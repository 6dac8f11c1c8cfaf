"""Each important check of the market file, taken away: the market that it refuses is then taken."""

from __future__ import annotations

from types import ModuleType

import pytest

from services.contract.market import BidPrice, ListPrice, Mode, Stage
from services.market import fields, hours, stage_checks, store, succession
from services.market.documents import MarketFile
from services.market.errors import MarketRefused
from services.market.review import review
from tests.unit.market.sample import SMALL, changed, market_of

SHARED = "{sell: shared, price: [30.00, 25.00]}"
ZONE = "timezone: America/Chicago"
BIDDERS = changed("{exclusive: list, shared: list}", "{exclusive: bid, shared: list}")

Bug = tuple[ModuleType, str, object]


def nothing(*_: object) -> tuple[object, ...]:
    return ()


def first_price(stage: Stage, _: Mode) -> int | None:
    return stage.prices.exclusive or (stage.prices.shared or (None,))[0]


BUGS: list[tuple[Bug, str]] = [
    (
        (stage_checks, "list_price", first_price),
        changed("[30.00, 25.00]}", "[30.00, 25.00], floor: 30.00}"),
    ),
    (
        (stage_checks, "_bid_window_errors", nothing),
        changed(SHARED, "{sell: shared, selection: ping_post}"),
    ),
    (
        (stage_checks, "_auction_errors", nothing),
        changed(SHARED, "{sell: shared, selection: first_bid, bid_window: 1s, accept_within: 1m}"),
    ),
    (
        (stage_checks, "_upgrade_errors", nothing),
        changed("price: 70.00", "price: 70.00, upgrade: {per_slot: 9.00}"),
    ),
    (
        (fields, "LOCAL_HOSTS", frozenset({"localhost", "oak.example"})),
        changed(ZONE, f"{ZONE}\n    deliver: {{webhook: http://oak.example/}}"),
    ),
    (
        (hours, "_add", nothing),
        changed("weight: 3", "open: {mon: [08:00-12:00, 11:00-13:00]}"),
    ),
]


@pytest.mark.parametrize(("bug", "text"), BUGS, ids=[bug[1] for bug, _ in BUGS])
def test_without_its_check_a_market_is_taken_that_could_not_be_kept(
    bug: Bug, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MarketRefused):
        market_of(text)
    monkeypatch.setattr(*bug)
    market_of(text)


def test_without_its_check_a_currency_could_change(monkeypatch: pytest.MonkeyPatch) -> None:
    reviewed = review([MarketFile("next.yaml", changed("currency: USD", "currency: EUR"))])
    with pytest.raises(MarketRefused):
        reviewed.after(market_of(SMALL))
    monkeypatch.setattr(succession, "errors", nothing)
    assert reviewed.after(market_of(SMALL)).market.currency == "EUR"


def test_without_its_mark_a_stored_bid_would_load_as_the_list_price() -> None:
    stored = store.canonical_json(market_of(BIDDERS))
    assert loaded_price(stored) == BidPrice()
    assert loaded_price(stored.replace('{"bid":true}', "{}")) == ListPrice()


def loaded_price(stored: str) -> object:
    return store.from_json(stored, 1).buyers["oak"].orders[1].takes.exclusive
