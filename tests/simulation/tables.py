"""The tables in memory as the auditor reads them: `services.audit.evidence.Tables` on a simulated world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from services.audit.evidence import CloseRow, HeadRow, SaleRow, TransferRow
from tests.simulation.world import World
from tests.support.audit_evidence import audited_sale


class SimulatedTables:
    """Reads a world's tables."""

    def __init__(self, world: World) -> None:
        """Read `world`."""
        self._world = world

    def heads(self) -> Mapping[int, HeadRow]:
        """See `Tables`."""
        heads = self._world.router.heads
        return {at: HeadRow(at, head.seq, head.hash, head.published_seq) for at, head in heads.items()}

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """See `Tables`."""
        return {name: (row.used, row.granted) for name, row in self._world.router.counters.items()}

    def sales(self) -> Iterator[SaleRow]:
        """See `Tables`."""
        tables = self._world.router
        rows = [*tables.sales.values(), *(row for kept in tables.archived.values() for row in kept.sales)]
        for row in sorted(rows, key=lambda row: (row.lead_id, row.sale_number)):
            yield audited_sale(row)

    def closes(self) -> Iterator[CloseRow]:
        """See `Tables`."""
        tables = self._world.router
        for row in [*tables.closes.values(), *(kept.close for kept in tables.archived.values())]:
            yield CloseRow(row.lead_id, row.outcome.value)

    def transfers(self) -> Iterator[TransferRow]:
        """See `Tables`."""
        for row in self._world.ledger.tables.transfers.values():
            yield TransferRow(
                transfer_id=row.transfer_id,
                kind=row.kind.value,
                debit_account=row.debit_account,
                credit_account=row.credit_account,
                amount_cents=row.amount_cents,
                currency=row.currency,
                sale_id=row.sale_id or "",
                lead_id=row.lead_id or "",
            )

    def accepted(self) -> Iterator[tuple[str, int]]:
        """See `Tables`."""
        for row in self._world.intake.leads.values():
            yield row.lead_id, row.received_at_ms

    def undelivered(self) -> Iterator[tuple[int, int, int, str]]:
        """See `Tables`."""
        for row in sorted(self._world.router.undelivered.values()):
            yield row.partition, row.seq, row.n, row.recipient
