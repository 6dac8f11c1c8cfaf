"""What follows a sale, in money: upgrades, credits, returns, what becomes of the lead; and money that buyers pay in.

It must not know more than `services.billing.domain`, which it is a part of: the entry alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, assert_never

from services.billing.accounts import (
    ADJUSTMENTS,
    DEPOSITS,
    FAILED_DELIVERIES,
    RETURNS,
    buyer_account,
    credit_id_of,
    fee_id_of,
    fee_payout_id_of,
    move_id_of,
    payouts_account,
    return_credit_id_of,
    revenue_account,
    reversal_id_of,
    source_account,
)
from services.billing.changes import Contradiction, Returns, SaleChanges
from services.billing.rows import ReturnDecision, SaleChange, TransferKind, TransferRow
from services.contract.entries import Entry
from services.contract.events import (
    DeliveryFailed,
    Disposition,
    DispositionReported,
    LeadUpgraded,
    MoneyKind,
    MoneyMoved,
    ReturnApproved,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
)
from services.contract.ids import sale_id_of

AfterSale: TypeAlias = (
    DeliveryFailed
    | LeadUpgraded
    | ReturnRequested
    | ReturnApproved
    | ReturnRefused
    | MoneyMoved
    | DispositionReported
)


class Place(NamedTuple):
    """Where in the log something is told."""

    partition: int
    entry: Entry


def given_currency(currency: str | None, entry: Entry) -> str:
    """Give the currency of an amount; raise `Contradiction` where the log names none."""
    if currency is None:
        raise Contradiction(f"an amount of lead {entry.lead_id} has no currency (entry {entry.seq})")
    return currency


@dataclass(slots=True)
class AfterSales:
    """What a batch tells of earlier sales, as it comes together; money moves go to `transfers`."""

    transfers: list[TransferRow]
    changes: SaleChanges = field(default_factory=SaleChanges)
    returns: Returns = field(default_factory=Returns)

    def post(self, place: Place, event: AfterSale) -> None:
        """Say what an event means; raise `Contradiction` where it cannot be true with the batch's others."""
        match event:
            case DispositionReported():
                self._learn(place, event)
            case LeadUpgraded():
                self._upgrade(place, event)
            case DeliveryFailed():
                self._credit_failed(place, event)
            case ReturnRequested():
                self.returns.ask(*place, event)
            case ReturnApproved():
                self._credit_returned(place, event)
            case ReturnRefused():
                self._refuse(place, event)
            case MoneyMoved():
                self._move(place, event)
            case _:
                assert_never(event)

    def _learn(self, place: Place, event: DispositionReported) -> None:
        """Keep what became of the lead, the latest report counting; that it was only contacted is no outcome."""
        if event.disposition is not Disposition.CONTACTED:
            sale_id = sale_id_of(place.entry.lead_id, event.sale_number)
            at_ms = place.entry.decided_at_ms
            change = SaleChange(
                sale_id, event.buyer_id, disposition=event.disposition, disposition_at_ms=at_ms
            )
            self.changes.add(change)

    def _upgrade(self, place: Place, event: LeadUpgraded) -> None:
        change = SaleChange(
            event.sale_id,
            event.buyer_id,
            event.currency,
            upgrade_fee_cents=event.fee_cents,
            payout_cents=event.payout_cents,
            upgraded_at_ms=place.entry.decided_at_ms,
        )
        self.changes.add(change)
        self._post(
            place,
            event,
            TransferKind.UPGRADE_FEE,
            fee_id_of(event.sale_id),
            event.fee_cents,
            debit=buyer_account(event.buyer_id),
            credit=revenue_account(event.source_id),
        )
        self._post(
            place,
            event,
            TransferKind.PAYOUT,
            fee_payout_id_of(event.sale_id),
            event.payout_cents,
            debit=payouts_account(event.source_id),
            credit=source_account(event.source_id),
        )

    def _credit_failed(self, place: Place, event: DeliveryFailed) -> None:
        change = SaleChange(
            event.sale_id,
            event.buyer_id,
            event.currency,
            credited_cents=0 if event.is_test else event.price_cents,
            payout_back_cents=0 if event.is_test else event.payout_cents,
            delivery_failed_at_ms=place.entry.decided_at_ms,
        )
        self.changes.add(change)
        self._post(
            place,
            event,
            TransferKind.FAILED_DELIVERY_CREDIT,
            credit_id_of(event.sale_id),
            event.price_cents,
            debit=FAILED_DELIVERIES,
            credit=buyer_account(event.buyer_id),
        )
        self._take_back(place, event, event.source_id)

    def _credit_returned(self, place: Place, event: ReturnApproved) -> None:
        refund_cents = 0 if event.is_test else event.price_cents
        change = SaleChange(
            event.sale_id,
            event.buyer_id,
            event.currency,
            credited_cents=refund_cents,
            payout_back_cents=0 if event.is_test else event.payout_cents,
            returned_at_ms=place.entry.decided_at_ms,
        )
        self.changes.add(change)
        self.returns.decide(
            event.sale_id,
            ReturnDecision.APPROVED,
            place.entry,
            automatic=event.automatic,
            refund_cents=refund_cents,
        )
        self._post(
            place,
            event,
            TransferKind.RETURN_CREDIT,
            return_credit_id_of(event.sale_id),
            event.price_cents,
            debit=RETURNS,
            credit=buyer_account(event.buyer_id),
        )
        self._take_back(place, event, event.source_id)

    def _refuse(self, place: Place, event: ReturnRefused) -> None:
        self.returns.decide(
            event.sale_id,
            ReturnDecision.REFUSED,
            place.entry,
            refusal=event.reason,
            automatic=event.reason is not ReturnRefusal.OPERATOR,
        )

    def _take_back(self, place: Place, event: DeliveryFailed | ReturnApproved, source_id: str | None) -> None:
        """Take back what a source has earned, if anything."""
        if event.payout_cents:
            if source_id is None:
                raise Contradiction(
                    f"sale {event.sale_id} earned its source something, but none is named (entry {place.entry.seq})"
                )
            self._post(
                place,
                event,
                TransferKind.PAYOUT_REVERSAL,
                reversal_id_of(event.sale_id),
                event.payout_cents,
                debit=source_account(source_id),
                credit=payouts_account(source_id),
            )

    def _move(self, place: Place, event: MoneyMoved) -> None:
        """Book what was paid in, or given, to the buyer; what is less than nothing goes the other way."""
        deposited = event.kind is MoneyKind.DEPOSIT
        debit, credit = DEPOSITS if deposited else ADJUSTMENTS, buyer_account(event.buyer_id)
        if event.amount_cents < 0:
            debit, credit = credit, debit
        if event.amount_cents:
            self.transfers.append(
                TransferRow(
                    move_id_of(event.buyer_id, event.reference),
                    None,
                    abs(event.amount_cents),
                    place.entry.decided_at_ms,
                    place.entry.seq,
                    TransferKind.DEPOSIT if deposited else TransferKind.ADJUSTMENT,
                    debit,
                    credit,
                    event.currency,
                    place.partition,
                    None,
                    event.reference,
                )
            )

    def _post(
        self,
        place: Place,
        event: LeadUpgraded | DeliveryFailed | ReturnApproved,
        kind: TransferKind,
        transfer_id: str,
        amount_cents: int,
        *,
        debit: str,
        credit: str,
    ) -> None:
        """Move money on account of a sale; nothing for a test lead."""
        if amount_cents and not event.is_test:
            self.transfers.append(
                TransferRow(
                    transfer_id,
                    event.sale_id,
                    amount_cents,
                    place.entry.decided_at_ms,
                    place.entry.seq,
                    kind,
                    debit,
                    credit,
                    event.currency,
                    place.partition,
                )
            )
