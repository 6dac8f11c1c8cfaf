"""The ledger in memory keeps the rules of every ledger."""

from __future__ import annotations

import pytest

from services.billing.memory_store import MemoryLedger
from services.billing.step import Ledger
from tests.support.ledger_suite import Contents, LedgerSuite, LedgerWorld


def contents_of(ledger: MemoryLedger) -> Contents:
    """Read all of a ledger in memory."""
    tables = ledger.tables
    sales = ((*sale.row, sale.credited_cents, sale.delivery_failed_at_ms) for sale in tables.sales.values())
    return Contents(
        leads=tuple(sorted(tables.leads.values(), key=lambda row: row.lead_id)),
        sales=tuple(sorted(sales)),
        transfers=tuple(sorted(tables.transfers.values())),
        totals=tuple(sorted((*key, *total) for key, total in tables.totals.items())),
        positions={at: position for at, position in tables.positions.items() if position.seq},
    )


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
