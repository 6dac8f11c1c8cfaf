"""The records between the Faust apps, as `faust.Record`; nothing here decides anything."""

from __future__ import annotations

import faust


class AcceptedLead(faust.Record, serializer="json"):
    """A valid lead, normalised."""

    lead_id: str
    source_id: str
    reference: str
    lead_type: str
    contact: dict[str, str]
    details: dict[str, str]
    quality: int
    created_at: str


class Sale(faust.Record, serializer="json"):
    """One sale of a lead."""

    sale_number: int
    sale_id: str
    buyer_id: str
    price_cents: int


class Decision(faust.Record, serializer="json"):
    """All sales of a lead."""

    lead_id: str
    source_id: str
    lead_type: str
    sales: list[Sale]
    sales_max: int
    decided_at: float


class Delivery(faust.Record, serializer="json"):
    """A lead as its buyer gets it, with the terms of the sale."""

    lead_id: str
    sale_id: str
    lead_type: str
    mode: str
    sale_number: int
    sales_max: int
    price: str
    currency: str
    held_already_by: int
    promise: str
    contact: dict[str, str]
    details: dict[str, str]
    created_at: str


class LeadState(faust.Record, serializer="json"):
    """What the router remembers of a lead."""

    holders: list[str]
    prices_cents: list[int]
    closed: str
