"""A lead's course through its plan: stage after stage, until it is sold out or nothing is left to try.

What a stage sells to whom is `services.router.selling`; this module knows only what comes after what.
"""

from __future__ import annotations

from services.contract.events import Outcome, StageStarted, WindowKind
from services.contract.market import Mode, Plan, Selection, Stage
from services.router.auctions import open_auction
from services.router.deciding import Deciding
from services.router.lead import Lead
from services.router.offers import make_offer
from services.router.orders import OrderBook, OrderSet
from services.router.selling import candidates, next_choice
from services.router.upgrades import leaves_it_to_the_holder


def begin(deciding: Deciding, lead: Lead, plan: Plan) -> None:
    """Start a lead on its plan."""
    if plan.expires_after_ms is not None:
        deciding.open_window(lead, WindowKind.EXPIRY, deciding.now_ms + plan.expires_after_ms)
    _enter_stage(deciding, lead, plan.stages[0])


def go_to_stage(deciding: Deciding, lead: Lead, index: int) -> None:
    """Go on to a stage, or close the lead when there is none or no slot is left."""
    plan = deciding.plan(lead)
    if index >= len(plan.stages) or len(lead.sales) >= lead.sales_max:
        deciding.close(lead, outcome_of(lead))
        return
    deciding.record(StageStarted(stage=index))
    _enter_stage(deciding, lead, plan.stages[index])


def sell_on(deciding: Deciding, lead: Lead) -> None:
    """Sell what the current stage can sell now, or ask for bids; then wait, go on, or close."""
    stage = deciding.stage(lead)
    book = deciding.book(lead)
    fitting = _fitting(deciding, book, lead, stage)
    if stage.selection is Selection.PING_POST and _asks_for_bids(deciding, lead, stage, book, fitting):
        return
    while book is not None and fitting:
        choice = next_choice(book, lead, stage, fitting)
        if choice is None:
            break
        fitting &= ~book.of_buyers((choice.order.buyer_id,))
        if stage.accept_within_ms is not None:
            make_offer(deciding, lead, choice, stage.accept_within_ms)
            return
        deciding.sell(lead, choice.order, choice.mode, choice.price_cents)
        if choice.mode is Mode.EXCLUSIVE:
            _after_exclusive(deciding, lead)
            return
        if leaves_it_to_the_holder(deciding, lead):
            return
    if stage.selection is Selection.FIRST_BID and _asks_for_bids(deciding, lead, stage, book, fitting):
        return
    _leave_stage(deciding, lead, stage)


def go_on_after_auction(deciding: Deciding, lead: Lead) -> None:
    """Go on after an auction, which was the stage's one try for what it left unsold."""
    if any(sale.mode is Mode.EXCLUSIVE and sale.stage == lead.stage for sale in lead.sales):
        _after_exclusive(deciding, lead)
    else:
        _leave_stage(deciding, lead, deciding.stage(lead))


def go_on(deciding: Deciding, lead: Lead) -> None:
    """Go on within the stage, after what it sold or failed to sell to whom it asked."""
    if any(sale.mode is Mode.EXCLUSIVE and sale.stage == lead.stage for sale in lead.sales):
        _after_exclusive(deciding, lead)
    elif not leaves_it_to_the_holder(deciding, lead):
        sell_on(deciding, lead)


def outcome_of(lead: Lead) -> Outcome:
    """Say how selling ended, by what was sold."""
    if not lead.sales:
        return Outcome.UNSOLD
    return Outcome.SOLD_OUT if len(lead.sales) >= lead.sales_max else Outcome.PARTLY_SOLD


def _enter_stage(deciding: Deciding, lead: Lead, stage: Stage) -> None:
    if stage.wait_ms is not None:
        deciding.open_window(lead, WindowKind.WAIT, deciding.now_ms + stage.wait_ms)
    else:
        sell_on(deciding, lead)


def _after_exclusive(deciding: Deciding, lead: Lead) -> None:
    """Close a lead that is sold for good; otherwise wait until its exclusive time is over."""
    until_ms = lead.sales[0].exclusive_until_ms
    if until_ms is None:
        deciding.close(lead, Outcome.SOLD_OUT)
    else:
        deciding.open_window(lead, WindowKind.EXCLUSIVITY, until_ms)


def _fitting(deciding: Deciding, book: OrderBook | None, lead: Lead, stage: Stage) -> OrderSet:
    if book is None:
        return 0
    return candidates(book, lead, stage, no_room=deciding.conditions.no_room, now_ms=deciding.now_ms)


def _asks_for_bids(
    deciding: Deciding, lead: Lead, stage: Stage, book: OrderBook | None, fitting: OrderSet
) -> bool:
    return book is not None and open_auction(deciding, lead, stage, book, fitting)


def _leave_stage(deciding: Deciding, lead: Lead, stage: Stage) -> None:
    if len(lead.sales) >= lead.sales_max:
        deciding.close(lead, Outcome.SOLD_OUT)
        return
    now_ms, again = deciding.now_ms, stage.keep_trying
    if again is not None and now_ms + again.every_ms <= lead.stage_began_ms + again.for_ms:
        deciding.open_window(lead, WindowKind.RETRY, now_ms + again.every_ms)
    else:
        go_to_stage(deciding, lead, lead.stage + 1)
