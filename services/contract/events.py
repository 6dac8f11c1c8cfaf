"""The facts that the log tells, one frozen dataclass a fact; their Avro schemas are in `schemas/avro`.

An event says what was decided and carries whatever its consequences need (the terms that a buyer was promised, who
holds the lead already), so that every message to an outsider is a function of the log alone. No event holds contact
details or any field that the lead type does not declare for pings. The lead, its partition and the time of the
decision are in the entry around the events. Amounts are integer minor units; times are UTC milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from services.contract.market import Mode
from services.contract.records import quickly_made


class WindowKind(StrEnum):
    """What a window waits for."""

    ACCEPTANCE = "acceptance"
    EXCLUSIVITY = "exclusivity"
    WAIT = "wait"
    RETRY = "retry"
    EXPIRY = "expiry"


class Outcome(StrEnum):
    """How a lead's selling ended."""

    SOLD_OUT = "sold_out"
    PARTLY_SOLD = "partly_sold"
    UNSOLD = "unsold"
    DEAL = "deal"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


class Disposition(StrEnum):
    """What a buyer reports of a lead that it holds."""

    CONTACTED = "contacted"
    DEAL = "deal"
    NO_DEAL = "no_deal"


class RejectionReason(StrEnum):
    """Why a buyer rejected an offer."""

    PRICE = "price"
    CRITERIA = "criteria"
    CAPACITY = "capacity"
    OTHER = "other"


class WithdrawalReason(StrEnum):
    """Why a lead was taken off the market."""

    ERASED = "erased"
    REVOKED = "revoked"
    OPERATOR = "operator"


class FailureReason(StrEnum):
    """Why a record can never reach its recipient."""

    RECORD_TOO_LARGE = "record_too_large"
    RECIPIENT_GONE = "recipient_gone"
    VAULT_ERASED = "vault_erased"


class RefusalReason(StrEnum):
    """Why our rules refused a command."""

    UNKNOWN_LEAD = "unknown_lead"
    OFFER_NOT_OPEN = "offer_not_open"
    OFFER_TOO_LATE = "offer_too_late"
    NO_ROOM = "no_room"
    NOT_A_HOLDER = "not_a_holder"
    ALREADY_CLOSED = "already_closed"


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LeadListed:
    """An accepted lead is for sale by `plan`, or, with no plan that fits, by none."""

    source_id: str
    lead_type: str
    plan: str | None
    quality: int
    fields: Mapping[str, str]
    sales_max: int
    never_to: tuple[str, ...]
    created_at_ms: int
    market_version: int
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """Selling went on to the stage with this index (stage 0 starts with the listing)."""

    stage: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class OfferMade:
    """One buyer may take the lead at these terms until `answer_by_ms`, without seeing contact details first."""

    offer_number: int
    buyer_id: str
    order_id: str
    stage: int
    mode: Mode
    price_cents: int
    currency: str
    sale_number: int
    sales_max: int
    exclusive_for_ms: int | None
    answer_by_ms: int
    lead_type: str
    quality: int
    fields: Mapping[str, str]
    holders: tuple[str, ...]
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class OfferRejected:
    """The buyer passed on its offer."""

    offer_number: int
    buyer_id: str
    reason: RejectionReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class OfferExpired:
    """The buyer was silent until its offer ended."""

    offer_number: int
    buyer_id: str


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class OfferWithdrawn:
    """The offer ended because the lead was closed."""

    offer_number: int
    buyer_id: str


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LeadSold:
    """A buyer bought the lead, and these are the terms that it is told.

    `holders`: buyers that held it before, in the order of their sales; `held_since_ms`: the time of the first of these.
    `exclusive_until_ms`: None with mode exclusive is for good. `others_may_follow`: further buyers may get it, but
    not before `others_from_ms` (None: at any time).
    """

    sale_number: int
    sale_id: str
    buyer_id: str
    order_id: str
    source_id: str
    lead_type: str
    plan: str
    stage: int
    mode: Mode
    price_cents: int
    currency: str
    sales_max: int
    exclusive_until_ms: int | None
    others_may_follow: bool
    others_from_ms: int | None
    holders: tuple[str, ...]
    held_since_ms: int | None
    offer_number: int | None
    quality: int
    created_at_ms: int
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOpened:
    """Something is due for the lead at `due_at_ms`, unless the window is closed before."""

    window_number: int
    kind: WindowKind
    due_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class WindowClosed:
    """The window was due, or is no longer needed."""

    window_number: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DispositionReported:
    """A holder told what became of the lead."""

    sale_number: int
    buyer_id: str
    disposition: Disposition


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalNoted:
    """A lead that is not listed yet was withdrawn: it will be closed on arrival."""

    reason: WithdrawalReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LeadClosed:
    """The lead's selling ended, for good and with all its windows."""

    outcome: Outcome
    source_id: str
    lead_type: str
    plan: str | None
    holders: tuple[str, ...]
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed:
    """A sold lead can never reach its buyer: credited, while its number and its disclosure stay used."""

    sale_number: int
    sale_id: str
    buyer_id: str
    price_cents: int
    currency: str
    reason: FailureReason
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRefused:
    """Our rules refused what was asked; nothing else changed."""

    command: str
    buyer_id: str | None
    reason: RefusalReason


Event: TypeAlias = (
    LeadListed
    | StageStarted
    | OfferMade
    | OfferRejected
    | OfferExpired
    | OfferWithdrawn
    | LeadSold
    | WindowOpened
    | WindowClosed
    | DispositionReported
    | WithdrawalNoted
    | LeadClosed
    | DeliveryFailed
    | CommandRefused
)
