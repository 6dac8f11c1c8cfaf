"""The ledger in memory keeps the rules of every ledger."""

from __future__ import annotations

from typing import Any

import pytest

from services.billing.memory_store import MemoryLedger
from services.billing.rows import LeadRow, SaleRow
from services.billing.step import Ledger
from tests.support.ledger_suite import SALE_FIELDS, Contents, LedgerSuite, LedgerWorld


def contents_of(ledger: MemoryLedger) -> Contents:
    """Read all of a ledger in memory."""
    tables = ledger.tables
    return Contents(
        leads=tuple(
            {**_listed(row), "outcome": row.outcome, "closed_at_ms": row.closed_at_ms}
            for row in sorted(tables.leads.values(), key=lambda row: row.lead_id)
        ),
        sales=tuple(
            {
                **_sold(sale.row),
                "credited_cents": sale.credited_cents,
                "delivery_failed_at_ms": sale.delivery_failed_at_ms,
            }
            for sale in sorted(tables.sales.values(), key=lambda sale: sale.row.sold.sale_id)
        ),
        transfers=tuple(
            row._asdict() for row in sorted(tables.transfers.values(), key=lambda row: row.transfer_id)
        ),
        totals=tuple({**key._asdict(), **total._asdict()} for key, total in sorted(tables.totals.items())),
        positions={at: position for at, position in tables.positions.items() if position.seq},
    )


def _listed(row: LeadRow) -> dict[str, Any]:
    terms = {name: getattr(row.listed, name) for name in ("lead_type", "plan", "source_id", "is_test")}
    return {"lead_id": row.lead_id, "listed_at_ms": row.listed_at_ms, "partition": row.partition, **terms}


def _sold(row: SaleRow) -> dict[str, Any]:
    place = {name: getattr(row, name) for name in ("lead_id", "sold_at_ms", "partition", "seq")}
    return {**place, **{name: getattr(row.sold, name) for name in SALE_FIELDS}}


class MemoryWorld:
    """Ledgers in memory; the owners of one share its object, as they would share a database."""

    def fresh(self) -> Ledger:
        """Make an empty ledger."""
        self.ledger = MemoryLedger()
        return self.ledger

    def another(self) -> Ledger:
        """Open it a second time."""
        return self.ledger

    def contents(self) -> Contents:
        """Read all of it."""
        return contents_of(self.ledger)


class TestMemoryLedger(LedgerSuite):
    @pytest.fixture
    def world(self) -> LedgerWorld:
        return MemoryWorld()
