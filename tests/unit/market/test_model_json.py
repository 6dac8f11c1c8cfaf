"""The market as canonical JSON, and the bounded cache of its versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.market import (
    AnyOf,
    Between,
    BidPrice,
    Buyer,
    FixedPrice,
    ListPrice,
    Market,
    Order,
    Takes,
)
from services.market.store import Markets, NewerMarket, canonical_json, from_json
from tests.unit.market.sample import SMALL, market_of
from tests.unit.market.strategies import few, markets


@few
@given(markets(), st.integers(1, 2**40))
def test_a_stored_market_loads_as_itself(market: Market, version: int) -> None:
    assert from_json(canonical_json(market), version) == replace(market, version=version)


def test_the_members_of_unions_are_told_apart() -> None:
    """`ListPrice` has no field of its own, so a careless reader would take anything for it."""
    order = Order(
        id="a/b",
        buyer_id="a",
        lead_type="solar",
        takes=Takes(exclusive=ListPrice(), shared=FixedPrice(cents=5)),
        where=(("bill", Between(low=None, high=None)), ("state", AnyOf(values=frozenset({"AZ", "NM"})))),
    )
    market = Market(
        version=1,
        currency="USD",
        timezone="UTC",
        buyers={"a": Buyer(id="a", timezone="UTC", orders=(order,))},
    )
    assert from_json(canonical_json(market), 1) == market


def test_the_same_market_has_the_same_json_whatever_its_version_and_the_order_of_its_sets() -> None:
    market = market_of(SMALL)
    states = [frozenset(names) for names in (["AZ", "CA", "NM", "NV"], ["NV", "NM", "CA", "AZ"])]
    texts = {
        canonical_json(market_with(replace(market, version=version), AnyOf(values=values)))
        for values in states
        for version in (0, 7)
    }
    assert len(texts) == 1


def market_with(market: Market, condition: AnyOf) -> Market:
    oak = market.buyers["oak"]
    order = replace(oak.orders[0], where=(("state", condition),))
    return replace(market, buyers={"oak": replace(oak, orders=(order, *oak.orders[1:]))})


def test_the_json_is_compact_and_sorted() -> None:
    text = canonical_json(market_of(SMALL))
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert json.loads(text)["version"] == 0


def test_a_market_of_an_earlier_release_loads_with_defaults_for_what_it_could_not_say() -> None:
    stored = json.loads(canonical_json(market_of(SMALL)))
    del stored["buyers"]["oak"]["paused"]
    assert from_json(json.dumps(stored), 3) == replace(market_of(SMALL), version=3)


def test_what_the_release_before_auctions_and_caps_stored_loads_as_the_same_market() -> None:
    """The file is what that release made of the small market."""
    stored = (Path(__file__).parent / "stored_before_bids.json").read_text()
    assert "caps" not in stored
    assert from_json(stored, 3) == replace(market_of(SMALL), version=3)


def test_an_order_that_bids_is_not_taken_for_one_that_takes_the_list() -> None:
    """Neither has anything to say but its kind, and a bidder that pays the list would be charged what it never bid."""
    order = Order(
        id="a/b", buyer_id="a", lead_type="solar", takes=Takes(exclusive=BidPrice(), shared=ListPrice())
    )
    market = Market(
        version=1,
        currency="USD",
        timezone="UTC",
        buyers={"a": Buyer(id="a", timezone="UTC", orders=(order,))},
    )
    loaded = from_json(canonical_json(market), 1).buyers["a"].orders[0].takes
    assert (loaded.exclusive, loaded.shared) == (BidPrice(), ListPrice())


def test_a_market_of_a_newer_release_is_refused_rather_than_half_understood() -> None:
    stored = json.loads(canonical_json(market_of(SMALL)))
    stored["buyers"]["oak"]["orders"][0]["auto_bid"] = {"most": 500}
    with pytest.raises(NewerMarket, match="version 3"):
        from_json(json.dumps(stored), 3)


class Loads:
    """Counts what is loaded."""

    def __init__(self) -> None:
        self.versions: list[int] = []

    def __call__(self, version: int) -> Market:
        self.versions.append(version)
        return Market(version=version, currency="USD", timezone="UTC")


def test_the_cache_loads_a_version_once() -> None:
    loads = Loads()
    cache = Markets(loads)
    assert [cache.get(version).version for version in (1, 2, 1, 2)] == [1, 2, 1, 2]
    assert loads.versions == [1, 2]


def test_the_cache_keeps_the_latest_used_and_no_more_than_it_may() -> None:
    loads = Loads()
    cache = Markets(loads, kept_max=2)
    for version in (1, 2, 1, 3, 1, 2):
        cache.get(version)
    assert loads.versions == [1, 2, 3, 2]
    assert len(cache) == 2


def test_the_cache_keeps_nothing_of_a_load_that_failed() -> None:
    def fail(version: int) -> Market:
        raise LookupError(version)

    cache = Markets(fail)
    with pytest.raises(LookupError):
        cache.get(1)
    assert len(cache) == 0


def test_a_cache_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Markets(Loads(), kept_max=0)
