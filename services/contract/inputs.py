"""What the router is given to decide on: qualified leads, commands, due timers, and its own findings.

`QualifiedLead` travels on `leads.qualified`, the commands on `leads.commands`, `TimerDue` on `leads.timers`; all in the
partition of their lead (`MoveMoney`: of its account). `ReportFailedDelivery`, `FailLead` and `CloseAuction` are the
router's own and travel nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from services.contract.events import (
    Disposition,
    ErasureReason,
    FailureReason,
    MoneyKind,
    NoBidReason,
    RejectionReason,
    ReturnReason,
    WithdrawalReason,
)
from services.contract.records import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class QualifiedLead:
    """A lead that intake accepted; `fields` are the details that its type declares for pings, as canonical text.

    `consented_buyers`: those that its consent names, to whom alone it may be sold; none: it names nobody.
    """

    lead_id: str
    source_id: str
    lead_type: str
    fields: Mapping[str, str]
    quality: int
    sales_max: int | None
    never_to: tuple[str, ...]
    created_at_ms: int
    received_at_ms: int
    market_version: int
    is_test: bool
    consented_buyers: tuple[str, ...] = ()


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptOffer:
    """A buyer takes the lead at the terms of its offer. `answered_at_ms`: when the answer was appended to its topic."""

    lead_id: str
    buyer_id: str
    offer_number: int
    answered_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class RejectOffer:
    """A buyer passes on its offer."""

    lead_id: str
    buyer_id: str
    offer_number: int
    reason: RejectionReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDisposition:
    """A buyer tells what became of a lead that it holds."""

    lead_id: str
    buyer_id: str
    disposition: Disposition


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawLead:
    """Take a lead off the market."""

    lead_id: str
    reason: WithdrawalReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class EraseLead:
    """Forget a lead's person: take the lead off the market, delete its details, and have its holders do the same."""

    lead_id: str
    reason: ErasureReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeErasure:
    """A buyer has erased a lead that it was asked to erase; `by_operator`: an operator says so for it."""

    lead_id: str
    buyer_id: str
    by_operator: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceBid:
    """A buyer answers a ping with a price per mode, in minor units; None: not in that mode."""

    lead_id: str
    buyer_id: str
    auction_number: int
    exclusive_cents: int | None
    shared_cents: int | None
    answered_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DeclineToBid:
    """A buyer answers a ping with no bid."""

    lead_id: str
    buyer_id: str
    auction_number: int
    reason: NoBidReason
    answered_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeSale:
    """The only holder of a shared lead wants it to itself, for the fee that it was told."""

    lead_id: str
    buyer_id: str
    answered_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnLead:
    """A buyer wants to give a lead back."""

    lead_id: str
    buyer_id: str
    reason: ReturnReason
    answered_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DecideReturn:
    """An operator approves a return that was asked for, or refuses it."""

    lead_id: str
    sale_number: int
    approve: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class MoveMoney:
    """An operator books what a buyer paid in, or an adjustment; the `reference` makes it happen once.

    `lead_id` is the account's id (`account_id_of`), so that its commands have a partition like a lead's.
    """

    lead_id: str
    buyer_id: str
    kind: MoneyKind
    reference: str
    amount_cents: int
    currency: str


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class TimerDue:
    """The resale timer holds this window to be due; whether it is, is for the router to say."""

    lead_id: str
    window_number: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFailedDelivery:
    """The relay found that a sale's delivery can never succeed."""

    lead_id: str
    sale_number: int
    reason: FailureReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class FailLead:
    """Close the lead as failed, because the database refused what was decided for it."""

    lead_id: str


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class CloseAuction:
    """The router's own clock says that an auction's time is up."""

    lead_id: str
    auction_number: int


Command: TypeAlias = (
    AcceptOffer
    | RejectOffer
    | ReportDisposition
    | WithdrawLead
    | PlaceBid
    | DeclineToBid
    | UpgradeSale
    | ReturnLead
    | DecideReturn
    | MoveMoney
    | EraseLead
    | AcknowledgeErasure
)
Input: TypeAlias = QualifiedLead | Command | TimerDue | ReportFailedDelivery | FailLead | CloseAuction
