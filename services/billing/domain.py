"""What each entry of the log means in money: transfers between accounts, and finance's rows.

It must not know anything but the entry: no clock, no database, no market. The same entries give the same
rows, however they are cut into batches. Which accounts there are, and what each transfer debits and credits, is told
by `services.billing.accounts`. An amount of nothing moves no money, and neither does a test lead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from services.billing.accounts import (
    buyer_account,
    payout_id_of,
    payouts_account,
    revenue_account,
    source_account,
)
from services.billing.aftersales import AfterSale, AfterSales, Place, given_currency
from services.billing.changes import Contradiction
from services.billing.rows import (
    CloseRow,
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
    AuctionClosed,
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    DispositionReported,
    ErasureAcknowledged,
    LeadClosed,
    LeadErased,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    LimitReached,
    MoneyMoved,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    ReturnApproved,
    ReturnRefused,
    ReturnRequested,
    StageStarted,
    WindowClosed,
    WindowOpened,
    WithdrawalNoted,
)

BillableEvent: TypeAlias = LeadListed | LeadSold | LeadClosed | AfterSale
BILLABLE: tuple[type, ...] = (
    LeadListed,
    LeadSold,
    LeadClosed,
    DeliveryFailed,
    LeadUpgraded,
    ReturnRequested,
    ReturnApproved,
    ReturnRefused,
    MoneyMoved,
    DispositionReported,
)
"""The events that billing reads."""

WITHOUT_MONEY: tuple[type, ...] = (
    StageStarted,
    OfferMade,
    OfferRejected,
    OfferExpired,
    OfferWithdrawn,
    WindowOpened,
    WindowClosed,
    WithdrawalNoted,
    CommandRefused,
    AuctionOpened,
    BidPlaced,
    BidDeclined,
    BidVoided,
    AuctionClosed,
    LimitReached,
    LeadErased,
    ErasureAcknowledged,
)
"""The events that mean nothing to finance: billing passes them over without decoding them."""

# An enum's member is slow to look up in Python 3.11 (0.2 us), and there are several to a lead.
_CHARGE = TransferKind.SALE_CHARGE
_PAYOUT = TransferKind.PAYOUT


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
                case _:
                    posting.after.post(Place(partition, entry), event)
    return posting.done()


def totals_of(transfers: Iterable[TransferRow]) -> Mapping[TotalKey, Total]:
    """Add up what transfers move on each account, ordered by account, currency and partition."""
    moved: dict[tuple[str, str, str, int], int] = {}
    for row in transfers:
        path = row[6:10]
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
    transfers: list[TransferRow] = field(default_factory=list)
    after: AfterSales = field(init=False)

    def __post_init__(self) -> None:
        self.after = AfterSales(self.transfers)

    def open_lead(self, partition: int, entry: Entry, event: LeadListed) -> None:
        if entry.lead_id in self.listed or entry.lead_id in self.closed:
            raise Contradiction(
                f"lead {entry.lead_id} is listed again (partition {partition}, entry {entry.seq})"
            )
        self.listed[entry.lead_id] = (partition, entry, event)
        if event.payout_cents and not event.is_test:
            self.transfers.append(
                TransferRow(
                    payout_id_of(entry.lead_id),
                    None,
                    event.payout_cents,
                    entry.decided_at_ms,
                    entry.seq,
                    _PAYOUT,
                    payouts_account(event.source_id),
                    source_account(event.source_id),
                    given_currency(event.currency, entry),
                    partition,
                    entry.lead_id,
                )
            )

    def close_lead(self, entry: Entry, event: LeadClosed) -> None:
        if entry.lead_id in self.closed:
            raise Contradiction(f"lead {entry.lead_id} is closed again (entry {entry.seq})")
        self.closed[entry.lead_id] = CloseRow(entry.lead_id, event.outcome, entry.decided_at_ms)

    def sell(self, partition: int, entry: Entry, event: LeadSold) -> None:
        self.sales.append(SaleRow(entry.lead_id, entry.decided_at_ms, partition, entry.seq, event))
        if event.is_test:
            return
        if event.price_cents:
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
        if event.payout_cents:
            self.transfers.append(
                TransferRow(
                    payout_id_of(event.sale_id),
                    event.sale_id,
                    event.payout_cents,
                    entry.decided_at_ms,
                    entry.seq,
                    _PAYOUT,
                    payouts_account(event.source_id),
                    source_account(event.source_id),
                    event.currency,
                    partition,
                )
            )

    def done(self) -> Postings:
        leads = [self._lead(*listed) for listed in self.listed.values()]
        after = self.after
        return Postings(
            leads=leads,
            closes=tuple(self.closed.values()),
            sales=self.sales,
            changes=tuple(after.changes.by_sale.values()),
            returns=after.returns.asked,
            return_decisions=tuple(after.returns.decisions.values()),
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
