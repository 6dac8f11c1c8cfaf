"""What a buyer reads on `buyers.<id>.leads` where it wants Avro, one frozen dataclass a record.

The same as the JSON records of `schemas/json`, typed: amounts are integer minor units, times UTC milliseconds. Alone of
all Avro records, `DeliveredLead` has contact and other details: it is never written to a topic but its buyer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from services.contract.events import ErasureReason, Outcome
from services.contract.market import Mode
from services.contract.records import quickly_made


class SinceKind(StrEnum):
    """What may have happened to a lead since its delivery."""

    SOLD = "sold"
    CLOSED = "closed"
    ERASURE = "erasure"


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """The entry of the log that says so."""

    partition: int
    seq: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredTerms:
    """What the buyer is promised. `exclusive` without an `exclusive_until_ms` is for good.

    `holders`: how many hold the lead now, this buyer included. `others_from_ms`: None with `others_may_follow` is at
    any time. `upgrade_fee_cents`: for so much more it may have the lead to itself, as long as nobody else holds it.
    """

    mode: Mode
    sale_number: int
    sales_max: int
    exclusive: bool
    exclusive_until_ms: int | None
    holders: int
    held_since_ms: int | None
    others_may_follow: bool
    others_from_ms: int | None
    upgrade_fee_cents: int | None
    upgrade_until_ms: int | None


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosed:
    """What only the buyers of a lead get; `consent` is empty where the source sent none."""

    contact: Mapping[str, str]
    details: Mapping[str, str]
    consent: Mapping[str, str]


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredLead:
    """A lead that the buyer bought; it may come twice, then with the same `sale_id` and the same content.

    `upgrade_fee_cents` and `total_cents` are there where it was sold and upgraded at once.
    """

    sale_id: str
    lead_id: str
    lead_type: str
    order: str
    sold_at_ms: int
    created_at_ms: int
    price_cents: int
    upgrade_fee_cents: int | None
    total_cents: int | None
    currency: str
    quality: int
    is_test: bool
    terms: DeliveredTerms
    promise: str
    log: LogPosition
    lead: Disclosed


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """One thing that happened to a lead: a sale has number and mode, a close its outcome.

    An erasure has its reason, and the buyer is to erase the lead and to say so by `acknowledge_by_ms`.
    """

    type: SinceKind
    sale_number: int | None
    sales_max: int | None
    mode: Mode | None
    outcome: Outcome | None
    reason: ErasureReason | None = None
    acknowledge_by_ms: int | None = None


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredNotice:
    """What happened since its delivery to a lead that the buyer holds; `holders`: how many hold it now."""

    lead_id: str
    at_ms: int
    holders: int
    happened: tuple[Since, ...]
    log: LogPosition


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredUpgrade:
    """The buyer closed the remaining slots of a lead that it alone holds, and these are its new terms."""

    sale_id: str
    lead_id: str
    order: str
    at_ms: int
    fee_cents: int
    currency: str
    is_test: bool
    terms: DeliveredTerms
    promise: str
    log: LogPosition


Delivered: TypeAlias = DeliveredLead | DeliveredNotice | DeliveredUpgrade
