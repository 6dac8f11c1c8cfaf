"""Makes the typed market of a tree of text, and tells everything that is wrong with it at once.

It reads each key by its kind; what two entries promise each other is for `checks`. Pure: no file, no database, no
clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.contract.market import Market, Paid, PerLead, ShareOfRevenue, Source
from services.market.buyers import buyer
from services.market.errors import MarketError, Place
from services.market.fields import (
    currency_code,
    identifier,
    price_cents,
    share_basis_points,
    timezone_name,
    whole,
    yes_no,
)
from services.market.names import named
from services.market.plans import lead_type
from services.market.tree import At, Entries, Findings

SECTIONS = ("market", "lead_types", "sources", "buyers")
MARKET_KEYS = ("currency", "timezone")
SOURCE_KEYS = ("lead_types", "paid", "sales_max", "never_to", "paused")
PAID_KEYS = ("per_lead", "share_of_revenue", "back_on_return")


@dataclass(frozen=True, slots=True)
class Draft:
    """A market as far as it could be read, in which stand-ins fill what is wrong; where each path stands."""

    market: Market
    errors: tuple[MarketError, ...]
    places: Mapping[str, Place]

    def place_of(self, path: str) -> Place:
        """Find the line of a path, or of the nearest entry around it when the file leaves it out."""
        while path not in self.places and path:
            path = path.rpartition(".")[0]
        return self.places[path]


def parse(root: Entries) -> Draft:
    """Read the whole market from its tree."""
    findings = Findings(places={"": root.place})
    keys = At(root, "", root.place, findings).keys(SECTIONS)
    types = named(keys, "lead_types", lead_type)
    fields = {name: known for name, (_, known) in types.items()}
    head = keys.required_node("market")
    settings = head.keys(MARKET_KEYS) if head else None
    market = Market(
        version=0,
        currency=settings.required("currency", currency_code, "") if settings else "",
        timezone=settings.required("timezone", timezone_name, "") if settings else "",
        lead_types={name: read for name, (read, _) in types.items()},
        sources=named(keys, "sources", _source),
        buyers=named(keys, "buyers", lambda at, name: buyer(at, name, fields)),
    )
    return Draft(market, tuple(findings.errors), findings.places)


def _source(at: At, name: str) -> Source:
    keys = at.keys(SOURCE_KEYS)
    types, never_to, paid = keys.required_node("lead_types"), keys.node("never_to"), keys.node("paid")
    return Source(
        id=name,
        lead_types=types.texts(identifier) if types else (),
        sales_max=keys.optional("sales_max", whole(0), None),
        never_to=tuple(sorted(never_to.texts(identifier))) if never_to else (),
        paused=keys.optional("paused", yes_no, False),
        paid=_paid(paid) if paid else None,
    )


def _paid(at: At) -> Paid | None:
    keys = at.keys(PAID_KEYS)
    by = keys.one_of("per_lead", "share_of_revenue")
    if by is None:
        return None
    return Paid(
        by=PerLead(cents=keys.required(by, price_cents, 1))
        if by == "per_lead"
        else ShareOfRevenue(basis_points=keys.required(by, share_basis_points, 1)),
        back_on_return=keys.optional("back_on_return", yes_no, False),
    )
