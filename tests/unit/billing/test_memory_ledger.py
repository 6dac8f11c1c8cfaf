"""The ledger in memory keeps the rules of every ledger."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from services.billing.memory_store import MemoryLedger, StoredLead, StoredSale
from services.billing.step import Ledger
from tests.support.ledger_suite import SALE_FIELDS, Contents, LedgerSuite, LedgerWorld

LEAD_PLACE = ("lead_id", "listed_at_ms", "partition", "outcome", "closed_at_ms")
LISTED_FIELDS = ("lead_type", "plan", "source_id", "is_test", "payout_cents", "currency")


def contents_of(ledger: MemoryLedger) -> Contents:
    """Read all of a ledger in memory."""
    tables = ledger.tables
    return Contents(
        leads=tuple(_lead(lead) for lead in sorted(tables.leads.values(), key=lambda lead: lead.row.lead_id)),
        sales=tuple(
            _sale(sale) for sale in sorted(tables.sales.values(), key=lambda sale: sale.row.sold.sale_id)
        ),
        returns=tuple(row._asdict() for _, row in sorted(tables.returns.items())),
        transfers=tuple(
            row._asdict() for row in sorted(tables.transfers.values(), key=lambda row: row.transfer_id)
        ),
        totals=tuple({**key._asdict(), **total._asdict()} for key, total in sorted(tables.totals.items())),
        positions={at: position for at, position in tables.positions.items() if position.seq},
    )


def _lead(lead: StoredLead) -> dict[str, Any]:
    row = lead.row
    return {
        **{name: getattr(row, name) for name in LEAD_PLACE},
        **{name: getattr(row.listed, name) for name in LISTED_FIELDS},
        "payout_back_cents": lead.payout_back_cents,
    }


def _sale(sale: StoredSale) -> dict[str, Any]:
    row = sale.row
    place = {name: getattr(row, name) for name in ("lead_id", "sold_at_ms", "partition", "seq")}
    since = {part.name: getattr(sale, part.name) for part in fields(sale) if part.name != "row"}
    return {**place, **{name: getattr(row.sold, name) for name in SALE_FIELDS}, **since}


class MemoryWorld:
    """Ledgers in memory; the owners of one share its object, as they would share a database."""

    def fresh(self) -> MemoryLedger:
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
