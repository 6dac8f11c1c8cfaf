"""Limits on what a buyer buys: which a sale draws on, how each is named, how large it is, and when it begins anew.

A limit is named by a text that anyone can compute again, so that the router's counters and whoever checks them from
the log speak of the same thing:

    order:<order id>:<cap>:<start of its period, UTC milliseconds>       leads, or minor units
    account:<buyer id>                                                   minor units, against credit limit and deposits
    returns:<buyer id>:<lead type>:<start of the month>                  basis points of a return

Periods are the buyer's own: a day has 23 or 25 hours where its clocks change. Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.contract.events import Draw
from services.contract.market import Buyer, LeadType, Market, Order, Period, Unit

WHOLE_RETURN = 10_000
"""What one return uses of its quota, in basis points of a return."""


class Span(NamedTuple):
    """A period: from `start_ms` until before `end_ms` (None: for good), UTC milliseconds."""

    start_ms: int
    end_ms: int | None


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: its counter, what people call it, how much may be used, and until when it counts.

    `most` is what the market says; what was granted besides (deposits, returns earned) is added by whoever counts.
    """

    counter: str
    name: str
    most: int
    ends_at_ms: int | None


ACCOUNT = "account"
RETURNS = "returns"


def sale_draws(
    market: Market, order: Order, *, price_cents: int, now_ms: int, returns_quota_basis_points: int | None
) -> tuple[Draw, ...]:
    """Say what a sale at `price_cents` draws on: each cap of its order, the buyer's account, and what it earns."""
    buyer = market.buyers[order.buyer_id]
    if not order.caps and buyer.account is None and returns_quota_basis_points is None:
        return ()
    draws = [
        Draw(
            counter=_cap_counter(order.id, cap.name, _span(buyer.timezone, cap.period, now_ms)),
            amount=1 if cap.unit is Unit.LEADS else price_cents,
        )
        for cap in order.caps
    ]
    if buyer.account is not None:
        draws.append(Draw(counter=account_counter(buyer.id), amount=price_cents))
    if returns_quota_basis_points is not None:
        counter = returns_counter(buyer, order.lead_type, now_ms)
        draws.append(Draw(counter=counter, amount=0, granted=returns_quota_basis_points))
    return tuple(draws)


def fee_draws(market: Market, order: Order, *, fee_cents: int, now_ms: int) -> tuple[Draw, ...]:
    """Say what a fee for a sale made before draws on: money alone."""
    buyer = market.buyers[order.buyer_id]
    draws = [
        Draw(
            counter=_cap_counter(order.id, cap.name, _span(buyer.timezone, cap.period, now_ms)),
            amount=fee_cents,
        )
        for cap in order.caps
        if cap.unit is Unit.SPEND
    ]
    if buyer.account is not None:
        draws.append(Draw(counter=account_counter(buyer.id), amount=fee_cents))
    return tuple(draws)


def return_draws(buyer: Buyer, lead_type: LeadType, *, now_ms: int) -> tuple[Draw, ...]:
    """Say what a return draws on: the quota of the month that it is asked in, if there is one."""
    if lead_type.returns is None or lead_type.returns.quota_basis_points is None:
        return ()
    return (Draw(counter=returns_counter(buyer, lead_type.name, now_ms), amount=WHOLE_RETURN),)


def money_draws(buyer_id: str, amount_cents: int) -> tuple[Draw, ...]:
    """Say what a deposit or an adjustment gives to the buyer's account."""
    return (Draw(counter=account_counter(buyer_id), amount=0, granted=amount_cents),)


def restored(draws: Sequence[Draw]) -> tuple[Draw, ...]:
    """Give back what was drawn, to the periods that it was drawn in.

    What a purchase earned of returns stays: a quota is a part of what was bought, and giving a lead back would
    otherwise take twice from it.
    """
    return tuple(Draw(counter=draw.counter, amount=-draw.amount) for draw in draws if draw.amount)


def limits_of(market: Market, order: Order, now_ms: int) -> Mapping[str, Limit]:
    """Find the limits that a purchase by an order is held to now, by counter."""
    buyer = market.buyers[order.buyer_id]
    limits: dict[str, Limit] = {}
    for cap in order.caps:
        span = _span(buyer.timezone, cap.period, now_ms)
        counter = _cap_counter(order.id, cap.name, span)
        limits[counter] = Limit(counter, cap.name, cap.most, span.end_ms)
    if buyer.account is not None:
        counter = account_counter(buyer.id)
        limits[counter] = Limit(counter, ACCOUNT, buyer.account.credit_limit_cents, None)
    return limits


def returns_limit(buyer: Buyer, lead_type: str, now_ms: int) -> Limit:
    """Find the limit on a buyer's returns of this month: nothing but what its purchases have earned."""
    span = _span(buyer.timezone, Period.MONTH, now_ms)
    return Limit(returns_counter(buyer, lead_type, now_ms), RETURNS, 0, span.end_ms)


def account_counter(buyer_id: str) -> str:
    """Name the counter of what a buyer has spent."""
    return f"{ACCOUNT}:{buyer_id}"


def returns_counter(buyer: Buyer, lead_type: str, now_ms: int) -> str:
    """Name the counter of what a buyer has returned this month."""
    return f"{RETURNS}:{buyer.id}:{lead_type}:{_span(buyer.timezone, Period.MONTH, now_ms).start_ms}"


def period_of(timezone: str, period: Period, now_ms: int) -> Span:
    """Find the period that a moment falls in, where clocks show `timezone`."""
    zone = ZoneInfo(timezone)
    if period is Period.TOTAL:
        return Span(0, None)
    if period is Period.HOUR:
        return _hour(zone, now_ms)
    today = datetime.fromtimestamp(now_ms // 1_000, tz=zone).date()
    match period:
        case Period.DAY:
            first, after = today, today + timedelta(days=1)
        case Period.WEEK:
            first = today - timedelta(days=today.weekday())
            after = first + timedelta(days=7)
        case Period.MONTH:
            first = today.replace(day=1)
            after = (first + timedelta(days=32)).replace(day=1)
    return Span(
        _midnight_ms(first.year, first.month, first.day, zone),
        _midnight_ms(after.year, after.month, after.day, zone),
    )


def _hour(zone: ZoneInfo, now_ms: int) -> Span:
    """Cut the hour by the minutes that clocks show; an hour that they show twice is two."""
    local = datetime.fromtimestamp(now_ms // 1_000, tz=zone)
    start_ms = now_ms - (local.minute * 60 + local.second) * 1_000 - now_ms % 1_000
    return Span(start_ms, start_ms + 3_600_000)


def _midnight_ms(year: int, month: int, day: int, zone: ZoneInfo) -> int:
    """Give the first moment of a day, which is not midnight where clocks are put forward then."""
    return int(datetime(year, month, day, tzinfo=zone).timestamp()) * 1_000


@lru_cache(maxsize=4_096)
def _kept_span(timezone: str, period: Period, minute: int) -> Span:
    return period_of(timezone, period, minute * 60_000)


def _span(timezone: str, period: Period, now_ms: int) -> Span:
    """Find the period, kept by minute: clocks change, and periods begin, on whole minutes."""
    return _kept_span(timezone, period, now_ms // 60_000)


def _cap_counter(order_id: str, cap: str, span: Span) -> str:
    return f"order:{order_id}:{cap}:{span.start_ms}"
