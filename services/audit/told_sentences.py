"""The sentences in which deliveries, offers and pings put their terms, written anew from these. Pure.

They are the promises, so no code is shared with the router, which writes them: either would repeat the other's mistake.
Times and amounts in a body are as people write them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from services.contract.events import AuctionOpened, OfferMade
from services.contract.market import Mode, Selection
from services.contract.times import duration_for_people, iso_time

FOR_GOOD: Final = "Exclusive, for good: nobody else has received this lead, and nobody else will."

_EXCLUSIVE: Final = Mode.EXCLUSIVE.value


def delivered_sentence(terms: dict[str, Any], *, is_closed: bool, next_try_ms: int | None) -> str:
    """Say what a delivery with these terms promises; `next_try_ms`: when selling goes on, None: at any time."""
    if terms["mode"] != _EXCLUSIVE:
        of = f"Shared, number {terms['sale_number']} of at most {terms['sales_max']}"
        return f"{of}: {_holders(terms)}; {_followers(terms, is_closed, next_try_ms)}."
    if terms["exclusive_until"] is None:
        return FOR_GOOD
    return (
        f"Exclusive until {_second(terms['exclusive_until'])}: nobody else has received this lead; unless you "
        f"report a deal by then, up to {terms['sales_max'] - terms['sale_number']} more may get it."
    )


def offered_sentence(offer: OfferMade) -> str:
    """Say what an offer promises to whom accepts it."""
    if offer.mode is Mode.SHARED:
        return f"If you accept: shared, number {offer.sale_number} of at most {offer.sales_max}."
    return f"If you accept: {_alone(offer.exclusive_for_ms, offer.sales_max)}."


def pinged_sentence(auction: AuctionOpened, modes: Sequence[Mode]) -> str:
    """Say what a ping promises to whom wins, in the modes that it may bid for."""
    won = []
    if Mode.EXCLUSIVE in modes:
        won.append(_alone(auction.exclusive_for_ms, auction.sales_max))
    if Mode.SHARED in modes:
        numbers = f"{auction.sale_number} to {auction.sales_max}"
        if auction.sale_number == auction.sales_max:
            numbers = str(auction.sales_max)
        won.append(f"shared, number {numbers} of at most {auction.sales_max}")
    is_race = auction.selection is Selection.FIRST_BID
    race = "The first bid at the floor or over it wins. " if is_race else ""
    return f"If you win: {'; or '.join(won)}. {race}You pay what you bid."


def _holders(terms: dict[str, Any]) -> str:
    others = terms["holders"] - 1
    if others == 0:
        return "nobody else holds it"
    if terms["held_since"] is None:
        return "1 other holds it" if others == 1 else f"{others} others hold it"
    since = f"since {_second(terms['held_since'])}"
    return f"1 other holds it {since}" if others == 1 else f"{others} others hold it, the first {since}"


def _followers(terms: dict[str, Any], is_closed: bool, next_try_ms: int | None) -> str:
    left = terms["sales_max"] - terms["holders"]
    if is_closed or left <= 0:
        return "nobody else will get it"
    more = f"up to {left} more may get it"
    when = " at any time" if next_try_ms is None else f", not before {_second(iso_time(next_try_ms))}"
    upgrade = terms["upgrade"]
    if upgrade is None:
        return more + when
    alone = f"you may have it to yourself for {upgrade['fee']} more"
    if upgrade["until"] is None:
        return f"as long as that is so, {alone}; {more}{when}"
    return f"until {_second(upgrade['until'])} {alone}; after that {more}"


def _alone(exclusive_for_ms: int | None, sales_max: int) -> str:
    if exclusive_for_ms is None:
        return "exclusive, for good"
    return (
        f"exclusive for {duration_for_people(exclusive_for_ms)}; without a deal by then, "
        f"up to {sales_max - 1} more may get it"
    )


def _second(time: str) -> str:
    return f"{time[:10]} {time[11:19]} UTC"
