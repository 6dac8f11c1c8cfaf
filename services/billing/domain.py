"""What each entry of the log means in money: transfers between accounts, and finance's rows.

It must not know anything but the entry: no clock, no database, no market. The same entries give the same
rows, however they are cut into batches.

The chart of accounts: each transfer debits one account and credits another by the same amount.

| account                     | what it holds                       | debited by             | credited by            |
| --- | --- | --- | --- |
| `buyer:<id>`                | what the buyer owes us              | sale_charge            | failed_delivery_credit |
| `revenue:<source>`          | income from the leads of one source |                        | sale_charge            |
| `allowance:failed_delivery` | income given back                   | failed_delivery_credit |                        |

A sale at a price of nothing moves no money, and neither does a test lead.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, assert_never

from services.billing.rows import (
    CloseRow,
    FailedDeliveryRow,
    LeadRow,
    Postings,
    SaleRow,
    Total,
    TotalKey,
    TransferKind,
    TransferRow,
)
from services.contract.entries import Entry
from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    DispositionReported,
    LeadClosed,
    LeadListed,
    LeadSold,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    StageStarted,
    WindowClosed,
    WindowOpened,
    WithdrawalNoted,
)

BillableEvent: TypeAlias = LeadListed | LeadSold | LeadClosed | DeliveryFailed
BILLABLE: tuple[type, ...] = (LeadListed, LeadSold, LeadClosed, DeliveryFailed)
"""The events that billing reads."""

WITHOUT_MONEY: tuple[type, ...] = (
    StageStarted,
    OfferMade,
    OfferRejected,
    OfferExpired,
    OfferWithdrawn,
    WindowOpened,
    WindowClosed,
    DispositionReported,
    WithdrawalNoted,
    CommandRefused,
)
"""The events that mean nothing in money: billing passes them over without decoding them."""

FAILED_DELIVERIES = "allowance:failed_delivery"
_CREDITS = uuid.UUID("b1c5f0a8-3d2e-5b4f-9a61-70e4d8c23f57")


class Contradiction(Exception):
    """The log says what cannot be (a lead listed twice): a broken invariant, no passing fault."""


# An enum's member is slow to look up in Python 3.11 (0.2 us), and there are three to a lead.
_CHARGE = TransferKind.SALE_CHARGE
_CREDIT = TransferKind.FAILED_DELIVERY_CREDIT


class ReadEntry(NamedTuple):
    """An entry, its partition, and those of its events that billing reads."""

    partition: int
    entry: Entry
    events: Sequence[BillableEvent]


def postings(batch: Iterable[ReadEntry]) -> Postings:
    """Say what the entries mean; raise `Contradiction` where they cannot all be true."""
    posting = _Posting()
    for partition, entry, events in batch:
        for event in events:
            match event:
                case LeadSold():
                    posting.sell(partition, entry, event)
                case LeadListed():
                    posting.open_lead(partition, entry, event)
                case LeadClosed():
                    posting.close_lead(entry, event)
                case DeliveryFailed():
                    posting.credit(partition, entry, event)
                case _:
                    assert_never(event)
    return posting.done()


def buyer_account(buyer_id: str) -> str:
    """Name the account of what a buyer owes."""
    return f"buyer:{buyer_id}"


def revenue_account(source_id: str) -> str:
    """Name the account of what the leads of a source brought in."""
    return f"revenue:{source_id}"


def credit_id_of(sale_id: str) -> str:
    """Name the credit of a sale's failed delivery: UUIDv5 of the sale id.

    A sale's charge needs no id of its own: it bears the sale's, which is a UUIDv5 already.
    """
    return str(uuid.uuid5(_CREDITS, sale_id))


def totals_of(transfers: Iterable[TransferRow]) -> Mapping[TotalKey, Total]:
    """Add up what transfers move on each account, ordered by account, currency and partition."""
    moved: dict[tuple[str, str, str, int], int] = {}
    for row in transfers:
        path = row[6:]
        moved[path] = moved.get(path, 0) + row.amount_cents
    totals: dict[TotalKey, Total] = {}
    for (debit_account, credit_account, currency, partition), cents in moved.items():
        _add(totals, TotalKey(debit_account, currency, partition), debits_cents=cents)
        _add(totals, TotalKey(credit_account, currency, partition), credits_cents=cents)
    return dict(sorted(totals.items()))


def _add(
    totals: dict[TotalKey, Total], key: TotalKey, *, debits_cents: int = 0, credits_cents: int = 0
) -> None:
    before = totals.get(key, Total(0, 0))
    totals[key] = Total(before.debits_cents + debits_cents, before.credits_cents + credits_cents)


@dataclass(slots=True)
class _Posting:
    """The rows of one batch, as they come together."""

    listed: dict[str, tuple[int, Entry, LeadListed]] = field(default_factory=dict)
    closed: dict[str, CloseRow] = field(default_factory=dict)
    sales: list[SaleRow] = field(default_factory=list)
    failed_deliveries: list[FailedDeliveryRow] = field(default_factory=list)
    transfers: list[TransferRow] = field(default_factory=list)

    def open_lead(self, partition: int, entry: Entry, event: LeadListed) -> None:
        if entry.lead_id in self.listed or entry.lead_id in self.closed:
            raise Contradiction(
                f"lead {entry.lead_id} is listed again (partition {partition}, entry {entry.seq})"
            )
        self.listed[entry.lead_id] = (partition, entry, event)

    def close_lead(self, entry: Entry, event: LeadClosed) -> None:
        if entry.lead_id in self.closed:
            raise Contradiction(f"lead {entry.lead_id} is closed again (entry {entry.seq})")
        self.closed[entry.lead_id] = CloseRow(entry.lead_id, event.outcome, entry.decided_at_ms)

    def sell(self, partition: int, entry: Entry, event: LeadSold) -> None:
        self.sales.append(SaleRow(entry.lead_id, entry.decided_at_ms, partition, entry.seq, event))
        if event.price_cents and not event.is_test:
            self.transfers.append(
                TransferRow(
                    event.sale_id,
                    event.sale_id,
                    event.price_cents,
                    entry.decided_at_ms,
                    entry.seq,
                    _CHARGE,
                    buyer_account(event.buyer_id),
                    revenue_account(event.source_id),
                    event.currency,
                    partition,
                )
            )

    def credit(self, partition: int, entry: Entry, event: DeliveryFailed) -> None:
        credited_cents = 0 if event.is_test else event.price_cents
        self.failed_deliveries.append(
            FailedDeliveryRow(
                event.sale_id, event.buyer_id, event.currency, credited_cents, entry.decided_at_ms
            )
        )
        if credited_cents:
            self.transfers.append(
                TransferRow(
                    credit_id_of(event.sale_id),
                    event.sale_id,
                    credited_cents,
                    entry.decided_at_ms,
                    entry.seq,
                    _CREDIT,
                    FAILED_DELIVERIES,
                    buyer_account(event.buyer_id),
                    event.currency,
                    partition,
                )
            )

    def done(self) -> Postings:
        leads = [self._lead(*listed) for listed in self.listed.values()]
        return Postings(
            leads=leads,
            closes=tuple(self.closed.values()),
            sales=self.sales,
            failed_deliveries=self.failed_deliveries,
            transfers=self.transfers,
            totals=totals_of(self.transfers),
        )

    def _lead(self, partition: int, entry: Entry, event: LeadListed) -> LeadRow:
        close = self.closed.pop(entry.lead_id, None)
        return LeadRow(
            entry.lead_id,
            entry.decided_at_ms,
            partition,
            event,
            close.outcome if close else None,
            close.closed_at_ms if close else None,
        )
