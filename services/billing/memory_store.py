"""The ledger in memory, with the constraints of the tables: for tests and simulation.

It must not accept what PostgreSQL would refuse; one suite holds both to that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from services.billing.rows import (
    CloseRow,
    FailedDeliveryRow,
    LeadRow,
    Postings,
    SaleRow,
    Total,
    TotalKey,
    TransferRow,
)
from services.bus.log_reader import Move, Overtaken
from services.bus.memory import Faults
from services.bus.ports import Stopped
from services.contract.entries import Position

_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class StoredSale:
    """A sale, and what became of its delivery."""

    row: SaleRow
    credited_cents: int = 0
    delivery_failed_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Tables:
    """All that is stored; a transaction works on a copy."""

    leads: dict[str, LeadRow] = field(default_factory=dict)
    sales: dict[str, StoredSale] = field(default_factory=dict)
    sale_numbers: set[tuple[str, int]] = field(default_factory=set)
    transfers: dict[str, TransferRow] = field(default_factory=dict)
    totals: dict[TotalKey, Total] = field(default_factory=dict)
    positions: dict[int, Position] = field(default_factory=dict)

    def copy(self) -> Tables:
        """Copy the tables; rows are immutable."""
        return Tables(
            dict(self.leads),
            dict(self.sales),
            set(self.sale_numbers),
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
    for failed in rows.failed_deliveries:
        _credit_sale(tables, failed)
    for key, moved in rows.totals.items():
        _add_total(tables, key, moved)


def _insert_lead(tables: Tables, row: LeadRow) -> None:
    _hold(row.lead_id not in tables.leads, "leads_pkey", row.lead_id)
    _hold(
        row.closed_at_ms is None or row.closed_at_ms >= row.listed_at_ms, "listed_before_closed", row.lead_id
    )
    tables.leads[row.lead_id] = row


def _insert_sale(tables: Tables, row: SaleRow) -> None:
    sold = row.sold
    number = (row.lead_id, sold.sale_number)
    _hold(sold.sale_id not in tables.sales, "sales_pkey", sold.sale_id)
    _hold(number not in tables.sale_numbers, "one_sale_per_number", sold.sale_id)
    _hold(1 <= sold.sale_number <= sold.sales_max, "number_within_max", sold.sale_id)
    _hold(sold.price_cents >= 0, "price_is_not_negative", sold.sale_id)
    tables.sales[sold.sale_id] = StoredSale(row)
    tables.sale_numbers.add(number)


def _insert_transfer(tables: Tables, row: TransferRow) -> None:
    _hold(row.transfer_id not in tables.transfers, "transfers_pkey", row.transfer_id)
    _hold(row.amount_cents > 0, "amount_is_positive", row.transfer_id)
    _hold(row.debit_account != row.credit_account, "two_accounts", row.transfer_id)
    _hold(_CURRENCY.fullmatch(row.currency) is not None, "currency_is_iso_4217", row.transfer_id)
    tables.transfers[row.transfer_id] = row


def _close_lead(tables: Tables, row: CloseRow) -> None:
    lead = tables.leads.get(row.lead_id)
    if lead is None or lead.outcome is not None:
        raise Stopped(f"lead {row.lead_id}, which the log closes, is not listed or closed before")
    _hold(row.closed_at_ms >= lead.listed_at_ms, "listed_before_closed", row.lead_id)
    tables.leads[row.lead_id] = lead._replace(outcome=row.outcome, closed_at_ms=row.closed_at_ms)


def _credit_sale(tables: Tables, row: FailedDeliveryRow) -> None:
    sale = tables.sales.get(row.sale_id)
    if (
        sale is None
        or sale.delivery_failed_at_ms is not None
        or (sale.row.sold.buyer_id, sale.row.sold.currency) != (row.buyer_id, row.currency)
    ):
        raise Stopped(f"the failed delivery of {row.sale_id} is of no known sale, or failed before")
    credited_cents = sale.credited_cents + row.credited_cents
    _hold(0 <= credited_cents <= sale.row.sold.price_cents, "credited_within_charge", row.sale_id)
    _hold(not sale.row.sold.is_test or credited_cents == 0, "tests_cost_nothing", row.sale_id)
    tables.sales[row.sale_id] = replace(
        sale, credited_cents=credited_cents, delivery_failed_at_ms=row.failed_at_ms
    )


def _add_total(tables: Tables, key: TotalKey, moved: Total) -> None:
    before = tables.totals.get(key, Total(0, 0))
    tables.totals[key] = Total(
        before.debits_cents + moved.debits_cents, before.credits_cents + moved.credits_cents
    )


def _hold(holds: bool, constraint: str, row_id: str) -> None:
    if not holds:
        raise Stopped(f"the log says what the ledger cannot hold: constraint {constraint}: {row_id}")
