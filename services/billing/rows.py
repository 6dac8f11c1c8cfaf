"""The rows that billing keeps: leads, sales, returns, transfers, and totals by account.

What puts rows together is `services.billing.domain`, what stores them are the ledgers; nothing here does either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from services.contract.events import Disposition, LeadListed, LeadSold, Outcome, ReturnReason, ReturnRefusal


class TransferKind(StrEnum):
    """Why money moved."""

    SALE_CHARGE = "sale_charge"
    UPGRADE_FEE = "upgrade_fee"
    FAILED_DELIVERY_CREDIT = "failed_delivery_credit"
    RETURN_CREDIT = "return_credit"
    PAYOUT = "payout"
    PAYOUT_REVERSAL = "payout_reversal"
    DEPOSIT = "deposit"
    ADJUSTMENT = "adjustment"


class ReturnDecision(StrEnum):
    """What became of a buyer's wish to give a lead back."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"


# Rows are named tuples, not dataclasses, because there are seven to a lead and a tuple is made in a fifth of the time;
# for the same reason a row has the event that it tells of, and not each of its fields again.
class LeadRow(NamedTuple):
    """An accepted lead; it is being sold as long as it has no outcome."""

    lead_id: str
    listed_at_ms: int
    partition: int
    listed: LeadListed
    outcome: Outcome | None
    closed_at_ms: int | None


class CloseRow(NamedTuple):
    """The end of the selling of a lead that was listed in an earlier batch."""

    lead_id: str
    outcome: Outcome
    closed_at_ms: int


class SaleRow(NamedTuple):
    """One sale, as its event tells it."""

    lead_id: str
    sold_at_ms: int
    partition: int
    seq: int
    sold: LeadSold


class SaleChange(NamedTuple):
    """All that a batch changes in a sale, which may be of the same batch: amounts to add, and times from now on.

    `buyer_id` and, where there is one, `currency` must be the sale's. `payout_back_cents` is taken back of what the
    sale earned its source, or, where that is nothing, of what its lead did.
    """

    sale_id: str
    buyer_id: str
    currency: str | None = None
    upgrade_fee_cents: int = 0
    credited_cents: int = 0
    payout_cents: int = 0
    payout_back_cents: int = 0
    upgraded_at_ms: int | None = None
    delivery_failed_at_ms: int | None = None
    returned_at_ms: int | None = None
    disposition: Disposition | None = None
    disposition_at_ms: int | None = None


class ReturnRow(NamedTuple):
    """A buyer's wish to give a lead back, asked for in the entry `seq`; a sale has one for each time it was asked.

    `refusal` says why not, where it is refused; `refund_cents` is what was credited, where it is approved.
    """

    sale_id: str
    seq: int
    partition: int
    reason: ReturnReason
    requested_at_ms: int
    decision: ReturnDecision = ReturnDecision.PENDING
    decided_at_ms: int | None = None
    refusal: ReturnRefusal | None = None
    automatic: bool | None = None
    refund_cents: int = 0


class ReturnDecisionRow(NamedTuple):
    """The decision on the return of a sale that an earlier batch left pending."""

    sale_id: str
    decision: ReturnDecision
    decided_at_ms: int
    refusal: ReturnRefusal | None
    automatic: bool
    refund_cents: int


class TransferRow(NamedTuple):
    """Money moved from one account to another, for good: about a sale, or a lead, or by an operator's reference."""

    transfer_id: str
    sale_id: str | None
    amount_cents: int
    posted_at_ms: int
    seq: int
    kind: TransferKind
    debit_account: str
    credit_account: str
    currency: str
    partition: int
    lead_id: str | None = None
    reference: str | None = None


class TotalKey(NamedTuple):
    """What a total is kept for.

    By partition, so that the owners of two partitions never wait for each other's rows.
    """

    account: str
    currency: str
    partition: int


class Total(NamedTuple):
    """Sums of all that was debited and credited."""

    debits_cents: int
    credits_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Postings:
    """All rows that a batch of entries adds; `totals` is what it adds to each account."""

    leads: Sequence[LeadRow]
    closes: Sequence[CloseRow]
    sales: Sequence[SaleRow]
    changes: Sequence[SaleChange]
    returns: Sequence[ReturnRow]
    return_decisions: Sequence[ReturnDecisionRow]
    transfers: Sequence[TransferRow]
    totals: Mapping[TotalKey, Total]
