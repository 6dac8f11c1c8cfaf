"""`gavel order`: what a standing order takes, what its limits leave of it now, and pausing it.

It decides nothing: whether a sale fits is for the router's counters, which are only read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias
from zoneinfo import ZoneInfo

import psycopg
import typer

from services.cli.accounts import Standing, standing_json, standing_of, standing_text
from services.cli.markets import buyer_of, current_market, order_of
from services.cli.pausing import Subject, add_pausing
from services.cli.printing import say, say_json, say_table
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.limits import ACCOUNT, limits_of
from services.contract.market import Market, Order
from services.contract.times import DAY_MS, MINUTE_MS, decimal_amount, iso_time
from services.market.writing import Plain, one_line, plain
from services.router.hours import is_open

app = typer.Typer(help="One standing order.", no_args_is_help=True)
add_pausing(app, Subject.ORDER)

OrderId = Annotated[str, typer.Argument(metavar="BUYER/NAME", help="The order, as deliveries name it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Counted: TypeAlias = Mapping[str, tuple[int, int, bool]]
"""Of each counter what is used, what was granted, and whether its order was passed over for it since."""

LOOKED_AHEAD_MS = 8 * DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class CapNow:
    """One cap as it stands in its current period; amounts are leads, or minor units where `is_money`."""

    name: str
    used: int
    most: int
    ends_at_ms: int | None
    is_money: bool
    is_reached: bool

    @property
    def left(self) -> int:
        """How much of it may be used still."""
        return max(0, self.most - self.used)

    def text(self, amount: int) -> str:
        """Write an amount of it."""
        return decimal_amount(amount) if self.is_money else str(amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderNow:
    """An order, and what keeps it from buying now, if anything does."""

    order: Order
    market: Market
    says: Mapping[str, Plain]
    now_ms: int
    caps: Sequence[CapNow]
    account: Standing
    is_open: bool
    changes_at_ms: int | None

    @property
    def timezone(self) -> str:
        """Where its days begin and its hours count."""
        return self.market.buyers[self.order.buyer_id].timezone

    def hindrances(self) -> Iterator[str]:
        """Say what keeps it from buying now."""
        if self.order.paused:
            yield "it is paused"
        if self.market.buyers[self.order.buyer_id].paused:
            yield "its buyer is paused"
        if not self.is_open:
            yield f"it is closed until {self.local(self.changes_at_ms)}"
        for cap in self.caps:
            if not cap.left:
                until = "" if cap.ends_at_ms is None else f" until {self.local(cap.ends_at_ms)}"
                yield f"{cap.name} is used up{until}"
        if self.account.room_cents is not None and self.account.room_cents <= 0:
            yield "its buyer's account is used up"

    def local(self, at_ms: int | None) -> str:
        """Write a time as the buyer's clocks show it."""
        if at_ms is None:
            return "the market says otherwise"  # an order that no hour of the week opens
        at = datetime.fromtimestamp(at_ms // 1_000, tz=UTC).astimezone(ZoneInfo(self.timezone))
        return f"{at:%Y-%m-%d %H:%M} in {self.timezone}"


@app.command(epilog="Example: gavel order show sunpeak/southwest")
def show(order: OrderId, as_json: AsJson = False) -> None:
    """Tell what an order takes, and how much its caps, its buyer's account and its hours leave of it now."""
    with connect_as_auditor(settings().database) as connection:
        found = read_order(connection, order)
    if as_json:
        say_json(order_json(found))
    else:
        _say(found)


def read_order(connection: psycopg.Connection, order_id: str) -> OrderNow:
    """Read what the market says of an order, and what the router has counted."""
    market = current_market(connection)
    order = order_of(market, order_id)
    buyer = buyer_of(market, order.buyer_id)
    now_ms = _now_ms(connection)
    opening = (buyer.timezone, order.open)
    return OrderNow(
        order=order,
        market=market,
        says=_as_the_file_says(market, order),
        now_ms=now_ms,
        caps=caps_now(market, order, now_ms, _counted(connection, list(limits_of(market, order, now_ms)))),
        account=standing_of(connection, market, buyer),
        is_open=is_open(opening, now_ms),
        changes_at_ms=next_change_ms(opening, now_ms),
    )


def caps_now(market: Market, order: Order, now_ms: int, counted: Counted) -> Sequence[CapNow]:
    """Put each cap beside what is counted of it; a counter that isn't there yet is an unused one."""
    rows = []
    for limit in limits_of(market, order, now_ms).values():
        if limit.name == ACCOUNT:
            continue
        used, granted, told = counted.get(limit.counter, (0, 0, False))
        rows.append(
            CapNow(
                name=limit.name,
                used=used,
                most=limit.most + granted,
                ends_at_ms=limit.ends_at_ms,
                is_money=limit.name.startswith("spend"),
                is_reached=told,
            )
        )
    return rows


def next_change_ms(opening: tuple[str, Any], now_ms: int) -> int | None:
    """Find when an order that is open closes, or the other way round; None where it never does."""
    if not opening[1]:
        return None
    opened = is_open(opening, now_ms)
    first = now_ms - now_ms % MINUTE_MS + MINUTE_MS
    minutes = range(first, first + LOOKED_AHEAD_MS, MINUTE_MS)
    return next((at_ms for at_ms in minutes if is_open(opening, at_ms) is not opened), None)


def order_json(found: OrderNow) -> dict[str, Any]:
    """Write an order for machines."""
    hindrances = list(found.hindrances())
    buyer = found.market.buyers[found.order.buyer_id]
    return {
        "order": found.order.id,
        "at": iso_time(found.now_ms),
        "market_version": found.market.version,
        "timezone": found.timezone,
        "says": found.says,
        "buys_now": not hindrances,
        "hindrances": hindrances,
        "paused": found.order.paused,
        "buyer_paused": buyer.paused,
        "open_now": found.is_open,
        "hours_change_at": None if found.changes_at_ms is None else iso_time(found.changes_at_ms),
        "caps": [_cap_json(cap) for cap in found.caps],
        "account": standing_json(found.account),
    }


def _cap_json(cap: CapNow) -> dict[str, Any]:
    amounts = {"used": cap.used, "most": cap.most, "left": cap.left}
    return {
        "cap": cap.name,
        **{name: cap.text(amount) if cap.is_money else amount for name, amount in amounts.items()},
        "until": None if cap.ends_at_ms is None else iso_time(cap.ends_at_ms),
        "passed_over": cap.is_reached,
    }


def _say(found: OrderNow) -> None:
    hindrances = list(found.hindrances())
    say(f"Order {found.order.id}, in version {found.market.version} of the market")
    for key, value in found.says.items():
        say(f"  {key}: {one_line(value)}")
    say(f"Buys now: {'no, because ' + '; '.join(hindrances) if hindrances else 'yes'}.")
    if found.order.open:
        change = "closes" if found.is_open else "opens"
        when = "" if found.changes_at_ms is None else f"; {change} {found.local(found.changes_at_ms)}"
        say(f"Hours: {'open' if found.is_open else 'closed'} now{when}.")
    if found.caps:
        rows = [
            (cap.name, *map(cap.text, (cap.used, cap.most, cap.left)), _until(found, cap), _told(cap))
            for cap in found.caps
        ]
        say_table("Caps", ("cap", "#used", "#most", "#left", "until", "passed over"), rows)
    say(f"Account of {found.order.buyer_id}: {standing_text(found.account)}.")


def _until(found: OrderNow, cap: CapNow) -> str:
    return "" if cap.ends_at_ms is None else found.local(cap.ends_at_ms)


def _told(cap: CapNow) -> str:
    return "yes, and told so" if cap.is_reached else "no"


def _as_the_file_says(market: Market, order: Order) -> Mapping[str, Plain]:
    says: Any = plain(market)["buyers"]
    found: Mapping[str, Plain] = says[order.buyer_id]["orders"][order.id.partition("/")[2]]
    return found


def _counted(connection: psycopg.Connection, counters: Sequence[str]) -> Counted:
    rows = connection.execute(
        "select counter_id, used, granted, told from router.counters where counter_id = any(%s)",
        [list(counters)],
    )
    return {counter: (used, granted, told) for counter, used, granted, told in rows}


def _now_ms(connection: psycopg.Connection) -> int:
    """Read the clock by which the router decides."""
    row = connection.execute("select (extract(epoch from clock_timestamp()) * 1000)::bigint").fetchone()
    assert row is not None
    return int(row[0])
