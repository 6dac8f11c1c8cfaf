"""A market that is written reads back as itself, whatever it says."""

from __future__ import annotations

import yaml
from hypothesis import given

from services.contract.market import Market
from services.market.difference import difference
from services.market.documents import MarketFile
from services.market.parsing import parse
from services.market.reading import read
from services.market.writing import market_text, plain
from tests.unit.market.sample import SMALL, market_of
from tests.unit.market.strategies import few, markets


def read_back(text: str) -> Market:
    tree = read([MarketFile("written.yaml", text)])
    assert tree.root is not None, tree.errors
    draft = parse(tree.root)
    assert (*tree.errors, *draft.errors) == ()
    return draft.market


@few
@given(markets())
def test_a_written_market_reads_back_as_itself(market: Market) -> None:
    assert read_back(market_text(market)) == market


@few
@given(markets(), markets())
def test_two_markets_differ_exactly_when_their_difference_says_so(one: Market, other: Market) -> None:
    assert (difference(one, other) == ()) == (one == other)
    assert difference(one, one) == ()


def test_writing_is_stable() -> None:
    once = market_text(market_of(SMALL))
    assert market_text(market_of(once)) == once


def test_other_yaml_readers_find_the_same_keys() -> None:
    read_by_others = yaml.load(market_text(market_of(SMALL)), Loader=yaml.BaseLoader)
    assert read_by_others == plain(market_of(SMALL))
