"""The rows that billing keeps: leads, sales, transfers, and totals by account.

What puts rows together is `services.billing.domain`, what stores them are the ledgers; nothing here does either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from services.contract.events import LeadListed, LeadSold, Outcome


class TransferKind(StrEnum):
    """Why money moved."""

    SALE_CHARGE = "sale_charge"
    FAILED_DELIVERY_CREDIT = "failed_delivery_credit"


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


class FailedDeliveryRow(NamedTuple):
    """A sale whose lead can never reach its buyer, and what was credited for it."""

    sale_id: str
    buyer_id: str
    currency: str
    credited_cents: int
    failed_at_ms: int


class TransferRow(NamedTuple):
    """Money moved from one account to another, for good."""

    transfer_id: str
    sale_id: str
    amount_cents: int
    posted_at_ms: int
    seq: int
    kind: TransferKind
    debit_account: str
    credit_account: str
    currency: str
    partition: int


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
    failed_deliveries: Sequence[FailedDeliveryRow]
    transfers: Sequence[TransferRow]
    totals: Mapping[TotalKey, Total]
