"""The ledger in memory, with the constraints of the tables: for tests and simulation.

It must not accept what PostgreSQL would refuse; one suite holds both to that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from services.billing.rows import (
    CloseRow,
    LeadRow,
    Postings,
    ReturnDecision,
    ReturnDecisionRow,
    ReturnRow,
    SaleChange,
    SaleRow,
    Total,
    TotalKey,
    TransferRow,
)
from services.bus.log_reader import Move, Overtaken
from services.bus.memory import Faults
from services.bus.ports import Stopped
from services.contract.entries import Position
from services.contract.events import Disposition

_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class StoredLead:
    """A lead, and what was taken back of what it earned its source."""

    row: LeadRow
    payout_back_cents: int = 0


@dataclass(frozen=True, slots=True)
class StoredSale:
    """A sale, and what became of it since."""

    row: SaleRow
    upgrade_fee_cents: int = 0
    credited_cents: int = 0
    payout_cents: int = 0
    payout_back_cents: int = 0
    upgraded_at_ms: int | None = None
    delivery_failed_at_ms: int | None = None
    returned_at_ms: int | None = None
    disposition: Disposition | None = None
    disposition_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Tables:
    """All that is stored; a transaction works on a copy."""

    leads: dict[str, StoredLead] = field(default_factory=dict)
    sales: dict[str, StoredSale] = field(default_factory=dict)
    sale_numbers: set[tuple[str, int]] = field(default_factory=set)
    returns: dict[tuple[str, int], ReturnRow] = field(default_factory=dict)
    transfers: dict[str, TransferRow] = field(default_factory=dict)
    totals: dict[TotalKey, Total] = field(default_factory=dict)
    positions: dict[int, Position] = field(default_factory=dict)

    def copy(self) -> Tables:
        """Copy the tables; rows are immutable."""
        return Tables(
            dict(self.leads),
            dict(self.sales),
            set(self.sale_numbers),
            dict(self.returns),
            dict(self.transfers),
            dict(self.totals),
            dict(self.positions),
        )


@dataclass(slots=True)
class MemoryLedger:
    """Keeps the tables in memory; `faults` can end its owner within a transaction or after it."""

    faults: Faults = field(default_factory=Faults)
    tables: Tables = field(default_factory=Tables)

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions."""
        return {at: self.tables.positions.get(at, Position()) for at in partitions}

    def imbalance_cents(self) -> Mapping[str, int]:
        """Sum debits less credits of all accounts, by currency."""
        sums: dict[str, int] = {}
        for key, total in self.tables.totals.items():
            sums[key.currency] = sums.get(key.currency, 0) + total.debits_cents - total.credits_cents
        return sums

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """Store the rows and move the positions, or change nothing."""
        stored = self.positions(moves)
        overtaken = [at for at, move in moves.items() if stored[at] != move.before]
        if overtaken:
            raise Overtaken(overtaken)
        tables = self.tables.copy()
        self.faults.edge("ledger begin")
        _write(tables, rows)
        self.faults.edge("ledger rows")
        tables.positions.update({at: move.after for at, move in moves.items()})
        self.faults.edge("ledger commit")
        self.tables = tables
        self.faults.edge("ledger committed")


def _write(tables: Tables, rows: Postings) -> None:
    for lead in rows.leads:
        _insert_lead(tables, lead)
    for sale in rows.sales:
        _insert_sale(tables, sale)
    for transfer in rows.transfers:
        _insert_transfer(tables, transfer)
    for close in rows.closes:
        _close_lead(tables, close)
    for change in rows.changes:
        _change_sale(tables, change)
    for decision in rows.return_decisions:
        _decide_return(tables, decision)
    for asked in rows.returns:
        _insert_return(tables, asked)
    for key, moved in rows.totals.items():
        _add_total(tables, key, moved)


def _insert_lead(tables: Tables, row: LeadRow) -> None:
    _hold(row.lead_id not in tables.leads, "leads_pkey", row.lead_id)
    _hold(
        row.closed_at_ms is None or row.closed_at_ms >= row.listed_at_ms, "listed_before_closed", row.lead_id
    )
    _hold(row.listed.payout_cents >= 0, "taken_back_within_earned", row.lead_id)
    tables.leads[row.lead_id] = StoredLead(row)


def _insert_sale(tables: Tables, row: SaleRow) -> None:
    sold = row.sold
    number = (row.lead_id, sold.sale_number)
    _hold(sold.sale_id not in tables.sales, "sales_pkey", sold.sale_id)
    _hold(number not in tables.sale_numbers, "one_sale_per_number", sold.sale_id)
    _hold(1 <= sold.sale_number <= sold.sales_max, "number_within_max", sold.sale_id)
    _hold(sold.price_cents >= 0, "price_is_not_negative", sold.sale_id)
    _hold(sold.payout_cents >= 0, "taken_back_within_earned", sold.sale_id)
    tables.sales[sold.sale_id] = StoredSale(row, payout_cents=sold.payout_cents)
    tables.sale_numbers.add(number)


def _insert_transfer(tables: Tables, row: TransferRow) -> None:
    _hold(row.transfer_id not in tables.transfers, "transfers_pkey", row.transfer_id)
    _hold(row.amount_cents > 0, "amount_is_positive", row.transfer_id)
    _hold(row.debit_account != row.credit_account, "two_accounts", row.transfer_id)
    _hold(_CURRENCY.fullmatch(row.currency) is not None, "currency_is_iso_4217", row.transfer_id)
    about = [row.sale_id, row.lead_id, row.reference]
    _hold(about.count(None) == len(about) - 1, "about_one_thing", row.transfer_id)
    tables.transfers[row.transfer_id] = row


def _close_lead(tables: Tables, row: CloseRow) -> None:
    lead = tables.leads.get(row.lead_id)
    if lead is None or lead.row.outcome is not None:
        raise Stopped(f"lead {row.lead_id}, which the log closes, is not listed or closed before")
    _hold(row.closed_at_ms >= lead.row.listed_at_ms, "listed_before_closed", row.lead_id)
    ended = lead.row._replace(outcome=row.outcome, closed_at_ms=row.closed_at_ms)
    tables.leads[row.lead_id] = replace(lead, row=ended)


def _change_sale(tables: Tables, change: SaleChange) -> None:
    sale = tables.sales.get(change.sale_id)
    if sale is None or not _may_change(sale, change):
        raise Stopped(
            f"sale {change.sale_id}, which the log changes, is unknown, of another buyer or currency, or was upgraded, "
            "returned or undeliverable before"
        )
    sold = sale.row.sold
    earned_cents = sale.payout_cents + change.payout_cents
    changed = replace(
        sale,
        upgrade_fee_cents=sale.upgrade_fee_cents + change.upgrade_fee_cents,
        credited_cents=sale.credited_cents + change.credited_cents,
        payout_cents=earned_cents,
        payout_back_cents=sale.payout_back_cents + (change.payout_back_cents if earned_cents > 0 else 0),
        upgraded_at_ms=change.upgraded_at_ms or sale.upgraded_at_ms,
        delivery_failed_at_ms=change.delivery_failed_at_ms or sale.delivery_failed_at_ms,
        returned_at_ms=change.returned_at_ms or sale.returned_at_ms,
        disposition=change.disposition or sale.disposition,
        disposition_at_ms=change.disposition_at_ms or sale.disposition_at_ms,
    )
    _hold(changed.upgrade_fee_cents >= 0, "fee_is_not_negative", change.sale_id)
    charged_cents = sold.price_cents + changed.upgrade_fee_cents
    _hold(0 <= changed.credited_cents <= charged_cents, "credited_within_charge", change.sale_id)
    _hold(not sold.is_test or changed.credited_cents == 0, "tests_cost_nothing", change.sale_id)
    _hold(0 <= changed.payout_back_cents <= changed.payout_cents, "taken_back_within_earned", change.sale_id)
    tables.sales[change.sale_id] = changed
    if change.payout_back_cents and not earned_cents:
        _take_back_of_lead(tables, sale.row.lead_id, change.payout_back_cents)


def _may_change(sale: StoredSale, change: SaleChange) -> bool:
    sold = sale.row.sold
    return (
        sold.buyer_id == change.buyer_id
        and change.currency in (None, sold.currency)
        and None in (change.upgraded_at_ms, sale.upgraded_at_ms)
        and None in (change.delivery_failed_at_ms, sale.delivery_failed_at_ms)
        and None in (change.returned_at_ms, sale.returned_at_ms)
    )


def _take_back_of_lead(tables: Tables, lead_id: str, cents: int) -> None:
    lead = tables.leads.get(lead_id)
    if lead is not None:
        back_cents = lead.payout_back_cents + cents
        _hold(0 <= back_cents <= lead.row.listed.payout_cents, "taken_back_within_earned", lead_id)
        tables.leads[lead_id] = replace(lead, payout_back_cents=back_cents)


def _insert_return(tables: Tables, row: ReturnRow) -> None:
    _hold((row.sale_id, row.seq) not in tables.returns, "returns_pkey", row.sale_id)
    _hold_return(tables, row)
    tables.returns[row.sale_id, row.seq] = row


def _decide_return(tables: Tables, row: ReturnDecisionRow) -> None:
    pending = [
        asked
        for asked in tables.returns.values()
        if asked.sale_id == row.sale_id and asked.decision is ReturnDecision.PENDING
    ]
    if not pending:
        raise Stopped(f"the return of sale {row.sale_id}, which the log decides, is not pending")
    (asked,) = pending
    decided = ReturnRow(*asked[:5], *row[1:])
    _hold_return(tables, decided)
    tables.returns[row.sale_id, asked.seq] = decided


def _hold_return(tables: Tables, row: ReturnRow) -> None:
    for decision in (ReturnDecision.PENDING, ReturnDecision.APPROVED):
        taken = any(
            other.decision is decision
            for other in tables.returns.values()
            if other.sale_id == row.sale_id and other.seq != row.seq
        )
        _hold(row.decision is not decision or not taken, f"one_return_{decision}_of_a_sale", row.sale_id)
    refunded = row.refund_cents > 0 and row.decision is ReturnDecision.APPROVED
    _hold(row.refund_cents == 0 or refunded, "refund_of_what_is_approved", row.sale_id)


def _add_total(tables: Tables, key: TotalKey, moved: Total) -> None:
    before = tables.totals.get(key, Total(0, 0))
    tables.totals[key] = Total(
        before.debits_cents + moved.debits_cents, before.credits_cents + moved.credits_cents
    )


def _hold(holds: bool, constraint: str, row_id: str) -> None:
    if not holds:
        raise Stopped(f"the log says what the ledger cannot hold: constraint {constraint}: {row_id}")
