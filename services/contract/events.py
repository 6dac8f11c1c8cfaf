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

from services.contract.market import Mode, Selection, Sell
from services.contract.records import quickly_made


class WindowKind(StrEnum):
    """What a window waits for."""

    ACCEPTANCE = "acceptance"
    EXCLUSIVITY = "exclusivity"
    WAIT = "wait"
    RETRY = "retry"
    UPGRADE = "upgrade"
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


class NoBidReason(StrEnum):
    """Why a buyer does not bid."""

    PRICE = "price"
    CRITERIA = "criteria"
    CAPACITY = "capacity"
    DUPLICATE = "duplicate"
    TECHNICAL = "technical"
    OTHER = "other"


class VoidReason(StrEnum):
    """Why a bid counts for nothing, though it is on record."""

    LATE = "late"
    NOT_INVITED = "not_invited"
    ANSWERED_BEFORE = "answered_before"
    NO_PRICE = "no_price"


class AuctionEnd(StrEnum):
    """What ended an auction."""

    ALL_ANSWERED = "all_answered"
    TIME_UP = "time_up"
    FIRST_BID = "first_bid"
    LEAD_CLOSED = "lead_closed"


class BidOutcome(StrEnum):
    """What became of a bid when its auction closed."""

    WON = "won"
    OUTBID = "outbid"
    OTHER_MODE = "other_mode"
    BELOW_FLOOR = "below_floor"
    NO_ROOM = "no_room"
    VOID = "void"


class ReturnReason(StrEnum):
    """Why a buyer gives a lead back."""

    INVALID_CONTACT = "invalid_contact"
    WRONG_PERSON = "wrong_person"
    DUPLICATE = "duplicate"
    OUTSIDE_CRITERIA = "outside_criteria"
    NO_CONSENT = "no_consent"
    OTHER = "other"


class ReturnRefusal(StrEnum):
    """Why a lead is not taken back."""

    NOT_RETURNABLE = "not_returnable"
    TOO_LATE = "too_late"
    REASON_NOT_ACCEPTED = "reason_not_accepted"
    QUOTA_USED_UP = "quota_used_up"
    OPERATOR = "operator"


class MoneyKind(StrEnum):
    """Why an account's money changed other than by a sale."""

    DEPOSIT = "deposit"
    ADJUSTMENT = "adjustment"


class WithdrawalReason(StrEnum):
    """Why a lead was taken off the market."""

    ERASED = "erased"
    REVOKED = "revoked"
    OPERATOR = "operator"
    SUPPRESSED = "suppressed"


class ErasureReason(StrEnum):
    """What a person asked for: to be forgotten, or (a revoked consent) not to be contacted any more."""

    ERASED = "erased"
    REVOKED = "revoked"


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
    NO_UPGRADE = "no_upgrade"
    NOT_THE_ONLY_HOLDER = "not_the_only_holder"
    ALREADY_RETURNED = "already_returned"
    RETURN_NOT_ASKED = "return_not_asked"
    UNKNOWN_BUYER = "unknown_buyer"
    WRONG_CURRENCY = "wrong_currency"
    ERASURE_NOT_ASKED = "erasure_not_asked"


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """So much was taken of a limit (`services.contract.limits` names them), or, where negative, given back.

    `granted` is by how much the limit itself grew: by a deposit, or by what a purchase earns of a return.
    """

    counter: str
    amount: int
    granted: int = 0


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LeadListed:
    """An accepted lead is for sale by `plan`, or, with no plan that fits, by none.

    `payout_cents`, in `currency`: what the source earns by that alone. `consented_buyers`: nobody else may have it;
    none means that its consent names no buyers.
    """

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
    payout_cents: int = 0
    currency: str | None = None
    consented_buyers: tuple[str, ...] = ()


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
    not before `others_from_ms` (None: at any time). `auction_number`: the auction that it won, with a bid or a standing
    order. `upgrade_fee_cents`: for so much more the buyer may have it to itself, as long as it is the only holder; that
    nobody else is asked before is promised until `upgrade_until_ms`. `payout_cents`: what the source earns by the sale.
    `draws`: the limits that the sale used.
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
    auction_number: int | None = None
    upgrade_fee_cents: int | None = None
    upgrade_until_ms: int | None = None
    payout_cents: int = 0
    draws: tuple[Draw, ...] = ()


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
    """A sold lead can never reach its buyer: credited, while its number and its disclosure stay used.

    `price_cents` is all that is credited, an upgrade's fee included; `payout_cents`, which its source had earned by
    the sale, is taken back, and `draws` gives back to the limits what the sale used.
    """

    sale_number: int
    sale_id: str
    buyer_id: str
    price_cents: int
    currency: str
    reason: FailureReason
    is_test: bool
    source_id: str | None = None
    payout_cents: int = 0
    draws: tuple[Draw, ...] = ()


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRefused:
    """Our rules refused what was asked; nothing else changed."""

    command: str
    buyer_id: str | None
    reason: RefusalReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A buyer that an auction asks for a bid, in these modes, for one of its orders."""

    buyer_id: str
    order_id: str
    modes: tuple[Mode, ...]


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class AuctionOpened:
    """Bids are asked for, each to be appended to its buyer's topic by `bids_until_ms`.

    `closes_at_ms` is a little later, so that such a bid is here in time. `sale_number`: the next one for sale.
    """

    auction_number: int
    stage: int
    selection: Selection
    sell: Sell
    bids_until_ms: int
    closes_at_ms: int
    floor_exclusive_cents: int | None
    floor_shared_cents: int | None
    currency: str
    invited: tuple[Invitation, ...]
    sale_number: int
    sales_max: int
    exclusive_for_ms: int | None
    lead_type: str
    quality: int
    fields: Mapping[str, str]
    holders: tuple[str, ...]
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class BidPlaced:
    """A buyer named its price, per mode; None: not in that mode."""

    auction_number: int
    buyer_id: str
    order_id: str
    exclusive_cents: int | None
    shared_cents: int | None
    answered_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class BidDeclined:
    """A buyer that was asked does not bid."""

    auction_number: int
    buyer_id: str
    reason: NoBidReason
    answered_at_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class BidVoided:
    """A bid is on record and counts for nothing."""

    auction_number: int
    buyer_id: str
    exclusive_cents: int | None
    shared_cents: int | None
    answered_at_ms: int
    reason: VoidReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class BidResult:
    """What became of one bid; `minimum_to_win_cents`, in its own mode `mode`, is set where a price would have won."""

    buyer_id: str
    outcome: BidOutcome
    mode: Mode | None
    minimum_to_win_cents: int | None


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class AuctionClosed:
    """An auction was decided; the sales that it made follow in the same entry.

    Where it could sell either way, `exclusive_cents` (the best exclusive price) was compared with `shared_cents` (the
    sum of the best shared ones), and `mode` is which brought more; None: nothing was sold.
    """

    auction_number: int
    reason: AuctionEnd
    mode: Mode | None
    exclusive_cents: int | None
    shared_cents: int | None
    results: tuple[BidResult, ...]
    silent: tuple[str, ...]


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LeadUpgraded:
    """The only holder closed the remaining slots: from here on the lead is its own, for good."""

    sale_number: int
    sale_id: str
    buyer_id: str
    order_id: str
    source_id: str
    slots_closed: int
    fee_cents: int
    currency: str
    payout_cents: int
    draws: tuple[Draw, ...]
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRequested:
    """A buyer wants to give a lead back."""

    sale_number: int
    sale_id: str
    buyer_id: str
    reason: ReturnReason


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnApproved:
    """The buyer is credited `price_cents` (an upgrade's fee included); the disclosure stays counted.

    `payout_cents` is taken back from the source. `draws` gives back to the limits what the sale used, and takes what
    the return itself uses where returns have a quota.
    """

    sale_number: int
    sale_id: str
    buyer_id: str
    source_id: str
    price_cents: int
    currency: str
    automatic: bool
    payout_cents: int
    draws: tuple[Draw, ...]
    is_test: bool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRefused:
    """The lead is not taken back."""

    sale_number: int
    sale_id: str
    buyer_id: str
    reason: ReturnRefusal


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyMoved:
    """A buyer's account was paid into, or adjusted (which may be negative); the entry's lead id is the account's.

    `draws` grants the amount to the account's limit.
    """

    buyer_id: str
    kind: MoneyKind
    reference: str
    amount_cents: int
    currency: str
    draws: tuple[Draw, ...]


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached:
    """An order was passed over for the first time since this limit was used up; it is told so."""

    buyer_id: str
    order_id: str
    limit: str
    resumes_at_ms: int | None


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class LeadErased:
    """The lead's contact and other details are deleted here, and each holder is to do the same and say so.

    Once the entry is published, the vault's row goes. `holders` are to answer by `acknowledge_by_ms`.
    """

    reason: ErasureReason
    holders: tuple[str, ...]
    acknowledge_by_ms: int


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureAcknowledged:
    """A holder has erased the lead, as it says itself or as an operator knows."""

    sale_number: int
    buyer_id: str
    by_operator: bool


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
    | AuctionOpened
    | BidPlaced
    | BidDeclined
    | BidVoided
    | AuctionClosed
    | LeadUpgraded
    | ReturnRequested
    | ReturnApproved
    | ReturnRefused
    | MoneyMoved
    | LimitReached
    | LeadErased
    | ErasureAcknowledged
)
