"""What one stage may not promise: prices that rise, floors over them, auctions without an end, upgrades of nothing.

Pure, like `checks`, of which it is a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from services.contract.market import Mode, Plan, Ranking, Selection, Sell, Stage
from services.contract.times import DAY_MS, decimal_amount
from services.market.errors import Breach
from services.market.fields import duration_text
from services.market.stages import MODES

TRIES_MAX = 10_000

BID_WINDOW_MIN_MS = 10
"""A ping and its answer are two hops through Kafka, so that no bid can be back sooner."""

BID_WINDOW_MAX_MS = DAY_MS
"""Until it ends the lead is nobody's and no stage after it begins; who thinks for days is asked by `accept_within`."""


def stage_errors(path: str, stage: Stage, plan: Plan) -> Iterator[Breach]:
    """Find what this stage of the plan could not keep."""
    yield from _price_errors(path, stage)
    if stage.sell is Sell.SHARED and stage.exclusive_for_ms is not None:
        reason = "expected it only where the stage sells exclusive: a shared lead is nobody's alone"
        yield Breach(f"{path}.exclusive_for", duration_text(stage.exclusive_for_ms), reason)
    yield from _bid_window_errors(path, stage)
    yield from _auction_errors(path, stage)
    yield from _upgrade_errors(f"{path}.upgrade", stage, plan)
    yield from _keep_trying_errors(f"{path}.keep_trying", stage)


def list_price(stage: Stage, mode: Mode) -> int | None:
    """Give the last list price of a mode in minor units: the least that an order pays that takes the list."""
    if mode is Mode.EXCLUSIVE:
        return stage.prices.exclusive
    return stage.prices.shared[-1] if stage.prices.shared else None


def _price_errors(path: str, stage: Stage) -> Iterator[Breach]:
    prices = stage.prices.shared or ()
    if any(later > earlier for earlier, later in pairwise(prices)):
        shown = f"[{', '.join(map(decimal_amount, prices))}]"
        at = f"{path}.price.shared" if stage.sell is Sell.EITHER else f"{path}.price"
        yield Breach(
            at, shown, "expected prices that never rise: who buys later holds an older, wider known lead"
        )
    for mode in MODES[stage.sell]:
        floor = stage.floor.exclusive if mode is Mode.EXCLUSIVE else stage.floor.shared
        listed = list_price(stage, mode)
        if floor is not None and listed is not None and floor > listed:
            at = f"{path}.floor.{mode}" if stage.sell is Sell.EITHER else f"{path}.floor"
            reason = f"expected at most the last list price, {decimal_amount(listed)}: who takes the list pays less"
            yield Breach(at, decimal_amount(floor), reason)


def _bid_window_errors(path: str, stage: Stage) -> Iterator[Breach]:
    window = stage.bid_window_ms
    if stage.selection is Selection.DIRECT:
        if window is not None:
            reason = "expected it only with selection: ping_post or first_bid: nobody is asked for bids here"
            yield Breach(f"{path}.bid_window", duration_text(window), reason)
    elif window is None:
        reason = "expected the key bid_window beside it, as in 500ms: how long may buyers think?"
        yield Breach(f"{path}.selection", stage.selection, reason)
    elif not BID_WINDOW_MIN_MS <= window <= BID_WINDOW_MAX_MS:
        least, most = duration_text(BID_WINDOW_MIN_MS), duration_text(BID_WINDOW_MAX_MS)
        reason = f"expected {least} to {most}: no bid is back sooner, and nobody else is asked meanwhile"
        yield Breach(f"{path}.bid_window", duration_text(window), reason)


def _auction_errors(path: str, stage: Stage) -> Iterator[Breach]:
    if stage.selection is Selection.DIRECT:
        return
    if stage.accept_within_ms is not None:
        reason = f"expected none with selection: {stage.selection}: a bid is binding, so there is nothing to accept"
        yield Breach(f"{path}.accept_within", duration_text(stage.accept_within_ms), reason)
    if stage.selection is Selection.PING_POST and stage.by is not Ranking.PRICE:
        yield Breach(f"{path}.by", stage.by, "expected price with selection: ping_post: the best bid wins")


def _upgrade_errors(path: str, stage: Stage, plan: Plan) -> Iterator[Breach]:
    if stage.upgrade is None:
        return
    fee = f"{{per_slot: {decimal_amount(stage.upgrade.per_slot_cents)}}}"
    if stage.sell is not Sell.SHARED:
        reason = "expected it only where the stage sells shared: it makes a shared lead exclusive"
        yield Breach(path, fee, reason)
    elif stage.selection is not Selection.DIRECT:
        reason = f"expected none with selection: {stage.selection}: its slots are sold at once, and nobody is first"
        yield Breach(path, fee, reason)
    if plan.sales_max == 1:
        yield Breach(
            path, fee, "expected a plan with sales_max over 1: with one buyer there is no slot to close"
        )


def _keep_trying_errors(path: str, stage: Stage) -> Iterator[Breach]:
    trying = stage.keep_trying
    if trying is None:
        return
    if trying.every_ms == 0:
        yield Breach(f"{path}.every", "0s", "expected a pause between two tries")
    elif trying.for_ms // trying.every_ms > TRIES_MAX:
        yield Breach(f"{path}.for", duration_text(trying.for_ms), f"expected at most {TRIES_MAX} tries")
    if trying.for_ms == 0:
        yield Breach(f"{path}.for", "0s", "expected some time to try in")
