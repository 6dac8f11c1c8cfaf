"""What a buyer's account stands at, from the router's counter and the market's credit limit.

Only reads; the counter is the router's, and what it lets through is the database's to say.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from services.contract.limits import account_counter
from services.contract.market import Buyer, Market
from services.contract.times import decimal_amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A buyer's account, in minor units of `currency`.

    `spent_cents` is net of what was credited, `paid_in_cents` all deposits and adjustments together;
    `credit_limit_cents` is None where the market limits nothing.
    """

    buyer_id: str
    currency: str
    spent_cents: int
    paid_in_cents: int
    credit_limit_cents: int | None

    @property
    def balance_cents(self) -> int:
        """What was paid in, less what was spent: below nothing is owed."""
        return self.paid_in_cents - self.spent_cents

    @property
    def room_cents(self) -> int | None:
        """How much may be spent still, below nothing where a limit fell below what was spent; None: any amount."""
        return None if self.credit_limit_cents is None else self.balance_cents + self.credit_limit_cents


def standing_of(connection: psycopg.Connection, market: Market, buyer: Buyer) -> Standing:
    """Read what a buyer's account stands at."""
    row = connection.execute(
        "select used, granted from router.counters where counter_id = %s", [account_counter(buyer.id)]
    ).fetchone()
    used, granted = row or (0, 0)
    return Standing(
        buyer_id=buyer.id,
        currency=market.currency,
        spent_cents=int(used),
        paid_in_cents=int(granted),
        credit_limit_cents=None if buyer.account is None else buyer.account.credit_limit_cents,
    )


def standing_text(standing: Standing) -> str:
    """Write an account for people, on one line."""
    currency = standing.currency
    balance = f"{decimal_amount(standing.balance_cents)} {currency}"
    paid = f"paid in {decimal_amount(standing.paid_in_cents)}, spent {decimal_amount(standing.spent_cents)}"
    return f"balance {balance} ({paid}); {_room(standing)}"


def standing_json(standing: Standing) -> dict[str, str | None]:
    """Write an account for machines."""
    limit, room = standing.credit_limit_cents, standing.room_cents
    return {
        "currency": standing.currency,
        "spent": decimal_amount(standing.spent_cents),
        "paid_in": decimal_amount(standing.paid_in_cents),
        "balance": decimal_amount(standing.balance_cents),
        "credit_limit": None if limit is None else decimal_amount(limit),
        "room": None if room is None else decimal_amount(room),
    }


def _room(standing: Standing) -> str:
    limit, room = standing.credit_limit_cents, standing.room_cents
    if limit is None or room is None:
        return "no limit: it may owe any amount"
    what = "prepaid" if limit == 0 else f"credit limit {decimal_amount(limit)}"
    if room < 0:
        return f"{what}: over it by {decimal_amount(-room)}, nothing is sold to it"
    return f"{what}: {decimal_amount(room)} may be spent still"
