"""Money on a buyer's account, other than by a sale: told by the log, so that the ledger is a function of it alone.

An account has no state among the leads: what it has room for is its counter (`services.contract.limits`). That a
reference is booked once is for the caller to see to, who knows which were.
"""

from __future__ import annotations

from services.contract.events import MoneyMoved, RefusalReason
from services.contract.ids import account_id_of
from services.contract.inputs import MoveMoney
from services.contract.limits import money_draws
from services.router.deciding import Deciding


def move_money(deciding: Deciding, command: MoveMoney) -> None:
    """Book a deposit or an adjustment (protocol.md, rule 25)."""
    market = deciding.conditions.market
    if command.buyer_id not in market.buyers or command.lead_id != account_id_of(command.buyer_id):
        deciding.refuse("move_money", None, RefusalReason.UNKNOWN_BUYER)
    elif command.currency != market.currency:
        deciding.refuse("move_money", command.buyer_id, RefusalReason.WRONG_CURRENCY)
    else:
        deciding.record(
            MoneyMoved(
                buyer_id=command.buyer_id,
                kind=command.kind,
                reference=command.reference,
                amount_cents=command.amount_cents,
                currency=command.currency,
                draws=money_draws(command.buyer_id, command.amount_cents),
            )
        )
