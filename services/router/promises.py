"""What buyers are promised, in sentences for people (guarantee 5): by a sale, an upgrade, an offer, or a ping.

Each sentence is true at the end of the entry that it is told for, and stays true whatever the plan goes on to do.
Pure: terms come in, text goes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.contract.events import AuctionOpened, LeadSold, OfferMade
from services.contract.market import Mode, Selection
from services.contract.records import quickly_made
from services.contract.times import decimal_amount, duration_for_people, iso_time

FOR_GOOD = "Exclusive, for good: nobody else has received this lead, and nobody else will."


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a lead stands at the end of an entry.

    `holders`: how many hold it then. `next_try_ms`: when selling goes on, where the entry itself says that it waits;
    None: that may be at any time.
    """

    holders: int
    is_closed: bool
    next_try_ms: int | None


def promise(sold: LeadSold, standing: Standing) -> str:
    """Put a sale's terms into one sentence."""
    if sold.mode is Mode.EXCLUSIVE:
        return _exclusive(sold, standing)
    return (
        f"Shared, number {sold.sale_number} of at most {sold.sales_max}: {_held(sold, standing.holders - 1)}; "
        f"{_following(sold, standing)}."
    )


def may_upgrade(sold: LeadSold, standing: Standing) -> bool:
    """Tell whether the buyer may have the lead to itself for a fee: only while nobody else holds it."""
    return sold.upgrade_fee_cents is not None and standing.holders == 1 and not standing.is_closed


def offered_promise(offer: OfferMade) -> str:
    """Say what accepting an offer would get the buyer."""
    if offer.mode is Mode.SHARED:
        return f"If you accept: shared, number {offer.sale_number} of at most {offer.sales_max}."
    return f"If you accept: {_to_be_exclusive(offer.exclusive_for_ms, offer.sales_max)}."


def ping_promise(auction: AuctionOpened, modes: Sequence[Mode]) -> str:
    """Say what winning an auction in one of these modes would get the buyer, and at what price."""
    terms = []
    if Mode.EXCLUSIVE in modes:
        terms.append(_to_be_exclusive(auction.exclusive_for_ms, auction.sales_max))
    if Mode.SHARED in modes:
        first, last = auction.sale_number, auction.sales_max
        terms.append(f"shared, number {first if first == last else f'{first} to {last}'} of at most {last}")
    first_bid = (
        "The first bid at the floor or over it wins. " if auction.selection is Selection.FIRST_BID else ""
    )
    return f"If you win: {'; or '.join(terms)}. {first_bid}You pay what you bid."


def _exclusive(sold: LeadSold, standing: Standing) -> str:
    if sold.exclusive_until_ms is None or standing.is_closed:
        return FOR_GOOD
    return (
        f"Exclusive until {_for_people(sold.exclusive_until_ms)}: nobody else has received this lead; unless you "
        f"report a deal by then, up to {sold.sales_max - sold.sale_number} more may get it."
    )


def _held(sold: LeadSold, others: int) -> str:
    """Say how many others hold the lead, and since when; those of the same entry got it only now."""
    if others == 0:
        return "nobody else holds it"
    since = "" if sold.held_since_ms is None else f" since {_for_people(sold.held_since_ms)}"
    if others == 1:
        return f"1 other holds it{since}"
    return f"{others} others hold it{', the first' if since else ''}{since}"


def _following(sold: LeadSold, standing: Standing) -> str:
    """Say whether others may follow, from when, and what the buyer can do about it."""
    left = sold.sales_max - standing.holders
    if standing.is_closed or left <= 0:
        return "nobody else will get it"
    more = f"up to {left} more may get it"
    when = (
        " at any time"
        if standing.next_try_ms is None
        else f", not before {_for_people(standing.next_try_ms)}"
    )
    if not may_upgrade(sold, standing):
        return more + when
    assert sold.upgrade_fee_cents is not None
    alone = f"you may have it to yourself for {decimal_amount(sold.upgrade_fee_cents)} more"
    if sold.upgrade_until_ms is None:
        return f"as long as that is so, {alone}; {more}{when}"
    return f"until {_for_people(sold.upgrade_until_ms)} {alone}; after that {more}"


def _to_be_exclusive(exclusive_for_ms: int | None, sales_max: int) -> str:
    if exclusive_for_ms is None:
        return "exclusive, for good"
    return (
        f"exclusive for {duration_for_people(exclusive_for_ms)}; without a deal by then, "
        f"up to {sales_max - 1} more may get it"
    )


def _for_people(at_ms: int) -> str:
    text = iso_time(at_ms)
    return f"{text[:10]} {text[11:19]} UTC"
