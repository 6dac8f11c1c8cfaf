"""Checks Gavel's guarantees from outside: from what sources and buyers were told, and what was billed.

Pure: the evidence comes in, verdicts go out. Nothing here trusts the router: what a buyer holds is what stands in its
own topic, and how often a lead was closed is what its source was told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.cli.demo_sales import Bill, Delivery
from services.contract.market import Mode

EXAMPLES_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the guarantees are checked by.

    `closes`: by lead, the places in the log that its source was told it was closed at. `discrepancies`: what billing's
    own proof finds; `unbalanced`: what the ledger's balances add up to, where that is not nothing. `leaks`: topics
    inside that hold contact details. `broken`: what no reader of the log can take. `over_limits`: caps and accounts
    that were passed.
    """

    accepted: frozenset[str]
    closes: Mapping[str, frozenset[tuple[int, int]]]
    deliveries: Sequence[Delivery]
    bills: Sequence[Bill]
    discrepancies: Sequence[str]
    unbalanced: Sequence[str]
    leaks: Sequence[str]
    broken: Sequence[str]
    over_limits: Sequence[str]
    records_inside: int
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One guarantee: how much was looked at, and everything that speaks against it."""

    guarantee: str
    looked_at: str
    against: Sequence[str]

    @property
    def holds(self) -> bool:
        """Tell whether nothing speaks against it."""
        return not self.against


def check(evidence: Evidence) -> tuple[Check, ...]:
    """Check every guarantee that can be seen from outside."""
    sales = tuple(_once_each(evidence.deliveries))
    held = f"{len(sales):,} sales"
    return (
        Check(
            guarantee="Every accepted lead was closed exactly once.",
            looked_at=f"{len(evidence.accepted):,} leads",
            against=tuple(_not_closed_once(evidence)),
        ),
        Check(
            guarantee="No lead has more buyers than its sales_max, and none the same buyer twice.",
            looked_at=held,
            against=tuple(_too_many_buyers(sales)),
        ),
        Check(
            guarantee="No exclusive lead has a second holder, for as long as it is exclusive.",
            looked_at=held,
            against=tuple(_beside_exclusive(sales)),
        ),
        Check(
            guarantee="No cap, budget or credit limit was passed.",
            looked_at=held,
            against=tuple(evidence.over_limits),
        ),
        Check(
            guarantee="Each sale was delivered with its contact details, and always the same.",
            looked_at=f"{len(evidence.deliveries):,} deliveries of {held}",
            against=tuple(_differing(evidence.deliveries)),
        ),
        Check(
            guarantee="Each sale was billed once, at the price and the fee its buyer was told.",
            looked_at=f"{len(evidence.bills):,} bills, {held}",
            against=tuple(_billed_otherwise(sales, evidence.bills)),
        ),
        Check(
            guarantee="The ledger balances, and is what was sold.",
            looked_at="transfers, totals and sales",
            against=(*evidence.discrepancies, *evidence.unbalanced),
        ),
        Check(
            guarantee="No topic inside holds contact details.",
            looked_at=f"{evidence.records_inside:,} records of leads.*",
            against=tuple(evidence.leaks),
        ),
        Check(
            guarantee="The log is whole: every entry follows its predecessor, up to the database's last.",
            looked_at=f"{evidence.entries:,} entries",
            against=tuple(evidence.broken),
        ),
    )


def _once_each(deliveries: Iterable[Delivery]) -> Iterable[Delivery]:
    """Leave out repeats: a delivery arrives at least once."""
    seen: set[tuple[str, str]] = set()
    for delivery in deliveries:
        if (delivery.sale_id, delivery.buyer_id) not in seen:
            seen.add((delivery.sale_id, delivery.buyer_id))
            yield delivery


def _not_closed_once(evidence: Evidence) -> Iterable[str]:
    for lead_id in sorted(evidence.accepted | evidence.closes.keys()):
        times = len(evidence.closes.get(lead_id, ()))
        if lead_id not in evidence.accepted:
            yield f"{lead_id} was closed and never accepted"
        elif times != 1:
            yield f"{lead_id} was closed {times} times"


def _too_many_buyers(sales: Sequence[Delivery]) -> Iterable[str]:
    for lead_id, of_lead in _by_lead(sales).items():
        buyers = [sale.buyer_id for sale in of_lead]
        limit = min(sale.sales_max for sale in of_lead)
        numbers = sorted(sale.sale_number for sale in of_lead)
        if len(buyers) > limit:
            yield f"{lead_id} has {len(buyers)} buyers, of at most {limit}: {', '.join(buyers)}"
        if len(set(buyers)) < len(buyers):
            yield f"{lead_id} was sold to one buyer twice: {', '.join(buyers)}"
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"{lead_id} has the sale numbers {numbers}"
        if {sale.sales_max for sale in of_lead} != {limit}:
            yield f"{lead_id}: its buyers were told different numbers of buyers at most"


def _beside_exclusive(sales: Sequence[Delivery]) -> Iterable[str]:
    for lead_id, of_lead in _by_lead(sales).items():
        ordered = sorted(of_lead, key=lambda sale: sale.sale_number)
        for sale in ordered:
            if sale.mode is Mode.EXCLUSIVE and sale is not ordered[0]:
                yield f"{lead_id} was sold exclusive to {sale.buyer_id} after others had it"
        for first, later in pairwise(ordered):
            only = ordered[0]
            ends = None if only.is_upgraded else only.exclusive_until
            is_alone = only.mode is Mode.EXCLUSIVE or only.is_upgraded
            if is_alone and (ends is None or later.sold_at < ends):
                yield (
                    f"{lead_id} is {only.buyer_id}'s alone {f'until {ends}' if ends else 'for good'}, and "
                    f"{later.buyer_id} got it at {later.sold_at} after {first.buyer_id}"
                )


def _differing(deliveries: Sequence[Delivery]) -> Iterable[str]:
    contents: dict[str, bytes] = {}
    buyers: dict[str, str] = {}
    for delivery in deliveries:
        if not delivery.has_contact:
            yield f"{delivery.sale_id} came to {delivery.buyer_id} without contact details"
        if contents.setdefault(delivery.sale_id, delivery.content) != delivery.content:
            yield f"{delivery.sale_id} came to {delivery.buyer_id} with two contents"
        if buyers.setdefault(delivery.sale_id, delivery.buyer_id) != delivery.buyer_id:
            yield f"{delivery.sale_id} came to two buyers"


def _billed_otherwise(sales: Sequence[Delivery], bills: Sequence[Bill]) -> Iterable[str]:
    delivered = Counter((sale.sale_id, sale.lead_id, sale.buyer_id, sale.price, sale.fee) for sale in sales)
    billed = Counter((bill.sale_id, bill.lead_id, bill.buyer_id, bill.price, bill.fee) for bill in bills)
    for sale_id, _, buyer_id, price, fee in sorted((delivered - billed).elements()):
        yield f"sale {sale_id} was delivered to {buyer_id} at {price} and a fee of {fee}, and not billed so"
    for sale_id, _, buyer_id, price, fee in sorted((billed - delivered).elements()):
        yield f"sale {sale_id} was billed to {buyer_id} at {price} and a fee of {fee}, and not delivered so"


def _by_lead(sales: Iterable[Delivery]) -> Mapping[str, list[Delivery]]:
    found: dict[str, list[Delivery]] = defaultdict(list)
    for sale in sales:
        found[sale.lead_id].append(sale)
    return found
