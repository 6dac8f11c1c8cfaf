"""Reads stages: how each finds its buyers, what it asks, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping

from services.contract.market import (
    Floor,
    KeepTrying,
    Mode,
    Prices,
    Ranking,
    Selection,
    Sell,
    Stage,
    Upgrade,
)
from services.market.fields import duration_ms, identifier, positive_duration_ms, price_cents, word
from services.market.tree import At, Entries, Items, Keys

BY_MODE = "expected a price for each mode, as in {exclusive: 75.00, shared: 42.00}"

STAGE_KEYS = (
    "sell",
    "price",
    "floor",
    "by",
    "only",
    "selection",
    "bid_window",
    "accept_within",
    "exclusive_for",
    "upgrade",
    "keep_trying",
    "wait",
)
UPGRADE_KEYS = ("per_slot", "within")
SELECTION_WORDS: Mapping[str, Selection] = {selection.value: selection for selection in Selection}

MODES: Mapping[Sell, tuple[Mode, ...]] = {
    Sell.EXCLUSIVE: (Mode.EXCLUSIVE,),
    Sell.SHARED: (Mode.SHARED,),
    Sell.EITHER: (Mode.EXCLUSIVE, Mode.SHARED),
}
"""The modes that a stage sells."""

_SELL = {sell.value: sell for sell in Sell}
_RANKING = {ranking.value: ranking for ranking in Ranking}


def stage(at: At) -> Stage:
    """Read one stage of a plan."""
    keys = at.keys(STAGE_KEYS)
    sell = keys.required("sell", word(_SELL), None)
    selection = keys.optional("selection", word(SELECTION_WORDS), None)
    only, keep_trying, upgrade = keys.node("only"), keys.node("keep_trying"), keys.node("upgrade")
    # A stage that asks for bids needs no list; one whose selection was misread is not asked for one too.
    is_listed = selection is Selection.DIRECT or "selection" not in keys
    return Stage(
        sell=sell or Sell.EXCLUSIVE,
        prices=_prices(keys, sell, is_listed=is_listed),
        by=keys.optional("by", word(_RANKING), Ranking.PRICE),
        selection=selection or Selection.DIRECT,
        bid_window_ms=keys.optional("bid_window", duration_ms, None),
        floor=_floor(keys, sell),
        upgrade=_upgrade(upgrade) if upgrade else None,
        only=tuple(sorted(only.texts(identifier))) if only else (),
        accept_within_ms=keys.optional("accept_within", positive_duration_ms, None),
        exclusive_for_ms=keys.optional("exclusive_for", positive_duration_ms, None),
        keep_trying=_keep_trying(keep_trying) if keep_trying else None,
        wait_ms=keys.optional("wait", duration_ms, None),
    )


def _keep_trying(at: At) -> KeepTrying:
    keys = at.keys(("every", "for"))
    return KeepTrying(
        every_ms=keys.required("every", duration_ms, 1),
        for_ms=keys.required("for", duration_ms, 1),
    )


def _upgrade(at: At) -> Upgrade:
    keys = at.keys(UPGRADE_KEYS)
    return Upgrade(
        per_slot_cents=keys.required("per_slot", price_cents, 1),
        within_ms=keys.optional("within", positive_duration_ms, None),
    )


def _prices(keys: Keys, sell: Sell | None, *, is_listed: bool) -> Prices:
    at = keys.required_node("price") if is_listed else keys.node("price")
    if at is None or sell is None:
        return Prices()
    by_mode = _by_mode(at, sell, is_complete=is_listed)
    exclusive, shared = by_mode.get(Mode.EXCLUSIVE), by_mode.get(Mode.SHARED)
    return Prices(
        exclusive=_amount(exclusive) if exclusive else None,
        shared=_list(shared) if shared else None,
    )


def _floor(keys: Keys, sell: Sell | None) -> Floor:
    at = keys.node("floor")
    if at is None or sell is None:
        return Floor()
    by_mode = _by_mode(at, sell, is_complete=False)
    exclusive, shared = by_mode.get(Mode.EXCLUSIVE), by_mode.get(Mode.SHARED)
    return Floor(
        exclusive=exclusive.text(price_cents, 1) if exclusive else None,
        shared=shared.text(price_cents, 1) if shared else None,
    )


def _by_mode(at: At, sell: Sell, *, is_complete: bool) -> Mapping[Mode, At]:
    """Find what is said of each mode that the stage sells; without its name only where it sells one."""
    modes = MODES[sell]
    if isinstance(at.node, Entries):
        keys = at.keys(modes)
        if is_complete:
            return {mode: found for mode in modes if (found := keys.required_node(mode))}
        if not keys.found:
            at.wrong(f"expected {' or '.join(modes)}")
        return {mode: found for mode in modes if (found := keys.node(mode))}
    if len(modes) > 1:
        at.wrong(BY_MODE)
        return {}
    return {modes[0]: at}


def _amount(at: At) -> int:
    if isinstance(at.node, Items):
        at.wrong("expected one amount: an exclusive lead is sold once")
        return 1
    return at.text(price_cents, 1)


def _list(at: At) -> tuple[int, ...]:
    if isinstance(at.node, Items):
        return tuple(item.text(price_cents, 1) for item in at.items()) or (1,)
    return (at.text(price_cents, 1),)
