"""What a batch changes in rows that may be of earlier batches: sales, and the returns that buyers ask for.

It must not know what an event means in money; `services.billing.domain` says so. What is told twice of one row within
a batch is refused here as the ledger would refuse it of two batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.billing.rows import ReturnDecision, ReturnDecisionRow, ReturnRow, SaleChange
from services.contract.entries import Entry
from services.contract.events import ReturnRefusal, ReturnRequested


class Contradiction(Exception):
    """The log says what cannot be (a lead listed twice): a broken invariant, no passing fault."""


@dataclass(slots=True)
class SaleChanges:
    """The changes of sales, one a sale."""

    by_sale: dict[str, SaleChange] = field(default_factory=dict)

    def add(self, change: SaleChange) -> None:
        """Add to what is changed in the sale already; raise `Contradiction` where both cannot be."""
        before = self.by_sale.get(change.sale_id)
        self.by_sale[change.sale_id] = change if before is None else _merged(before, change)


def _merged(before: SaleChange, after: SaleChange) -> SaleChange:
    if before.buyer_id != after.buyer_id:
        raise Contradiction(f"sale {after.sale_id} is of {before.buyer_id}, then of {after.buyer_id}")
    if before.currency and after.currency and before.currency != after.currency:
        raise Contradiction(f"sale {after.sale_id} is in {before.currency}, then in {after.currency}")
    sale_id = after.sale_id
    return SaleChange(
        sale_id=sale_id,
        buyer_id=after.buyer_id,
        currency=before.currency or after.currency,
        upgrade_fee_cents=before.upgrade_fee_cents + after.upgrade_fee_cents,
        credited_cents=before.credited_cents + after.credited_cents,
        payout_cents=before.payout_cents + after.payout_cents,
        payout_back_cents=before.payout_back_cents + after.payout_back_cents,
        upgraded_at_ms=_once(sale_id, "upgraded", before.upgraded_at_ms, after.upgraded_at_ms),
        delivery_failed_at_ms=_once(
            sale_id, "undeliverable", before.delivery_failed_at_ms, after.delivery_failed_at_ms
        ),
        returned_at_ms=_once(sale_id, "returned", before.returned_at_ms, after.returned_at_ms),
        disposition=after.disposition or before.disposition,
        disposition_at_ms=after.disposition_at_ms or before.disposition_at_ms,
    )


def _once(sale_id: str, what: str, before_ms: int | None, after_ms: int | None) -> int | None:
    if before_ms is not None and after_ms is not None:
        raise Contradiction(f"sale {sale_id} is {what} again")
    return before_ms if after_ms is None else after_ms


@dataclass(slots=True)
class Returns:
    """The returns that were asked for in a batch, and its decisions on those that were asked for before it."""

    asked: list[ReturnRow] = field(default_factory=list)
    decisions: dict[str, ReturnDecisionRow] = field(default_factory=dict)
    _pending: dict[str, int] = field(default_factory=dict)

    def ask(self, partition: int, entry: Entry, event: ReturnRequested) -> None:
        """Note that a return was asked for; raise `Contradiction` while one of the same sale is pending."""
        if event.sale_id in self._pending:
            raise Contradiction(f"return of sale {event.sale_id} is asked for again (entry {entry.seq})")
        self._pending[event.sale_id] = len(self.asked)
        self.asked.append(ReturnRow(event.sale_id, entry.seq, partition, event.reason, entry.decided_at_ms))

    def decide(
        self,
        sale_id: str,
        decision: ReturnDecision,
        entry: Entry,
        *,
        refusal: ReturnRefusal | None = None,
        automatic: bool,
        refund_cents: int = 0,
    ) -> None:
        """Note a decision; raise `Contradiction` where the batch has decided on the same return before."""
        row = ReturnDecisionRow(sale_id, decision, entry.decided_at_ms, refusal, automatic, refund_cents)
        at = self._pending.pop(sale_id, None)
        if at is not None:
            self.asked[at] = ReturnRow(*self.asked[at][:5], *row[1:])
        elif sale_id in self.decisions or any(asked.sale_id == sale_id for asked in self.asked):
            raise Contradiction(f"return of sale {sale_id} is decided again (entry {entry.seq})")
        else:
            self.decisions[sale_id] = row
