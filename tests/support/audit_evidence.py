"""What a world in memory left behind, as the auditor reads it: to be altered by tests, and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from services.audit.auditor import Auditor
from services.audit.evidence import CloseRow, HeadRow, SaleRow, TransferRow
from services.audit.states import LeadStates, MemoryLeadStates
from services.audit.violations import Violation
from services.billing.memory_store import MemoryLedger
from services.billing.step import Billing
from services.bus.log_reader import LogReader
from services.bus.memory import MemoryHost
from services.bus.ports import Record, TopicPartition
from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Entry, hash_of
from services.contract.events import Event
from services.contract.inputs import QualifiedLead
from services.contract.market import Market
from services.router.ports import SaleRow as RouterSaleRow
from tests.support.routing import PARTITIONS, TOPICS, World

Retell: TypeAlias = Callable[[Entry, list[Event]], Sequence[Event] | None]
Order: TypeAlias = Callable[[Sequence[Record]], list[Record]]


@dataclass(slots=True)
class MemoryTables:
    """`services.audit.evidence.Tables` over rows that a test may change."""

    head_rows: dict[int, HeadRow]
    counter_rows: dict[str, tuple[int, int]]
    sale_rows: list[SaleRow]
    close_rows: list[CloseRow]
    transfer_rows: list[TransferRow]
    accepted_rows: list[tuple[str, int]]
    undelivered_rows: list[tuple[int, int, int, str]]

    def heads(self) -> Mapping[int, HeadRow]:
        """See `Tables`."""
        return self.head_rows

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """See `Tables`."""
        return self.counter_rows

    def sales(self) -> Iterator[SaleRow]:
        """See `Tables`."""
        return iter(self.sale_rows)

    def closes(self) -> Iterator[CloseRow]:
        """See `Tables`."""
        return iter(self.close_rows)

    def transfers(self) -> Iterator[TransferRow]:
        """See `Tables`."""
        return iter(self.transfer_rows)

    def accepted(self) -> Iterator[tuple[str, int]]:
        """See `Tables`."""
        return iter(self.accepted_rows)

    def undelivered(self) -> Iterator[tuple[int, int, int, str]]:
        """See `Tables`."""
        return iter(self.undelivered_rows)


@dataclass(slots=True)
class Evidence:
    """Records by partition, rows, and the market versions."""

    records: dict[TopicPartition, list[Record]]
    tables: MemoryTables
    markets: dict[int, Market] = field(default_factory=dict)

    def topic(self, name: str) -> list[Record]:
        """Give all records of a topic."""
        return [
            record for where, kept in sorted(self.records.items()) if where.topic == name for record in kept
        ]

    def find(self, topic: str, wanted: Callable[[Record], bool]) -> tuple[TopicPartition, int]:
        """Say where the first such record stands."""
        return next(
            (where, index)
            for where, kept in sorted(self.records.items())
            if where.topic == topic
            for index, record in enumerate(kept)
            if wanted(record)
        )

    def rewrite_log(self, retell: Retell) -> None:
        """Tell entries otherwise (None: as they are), chained anew, with heads that fit: a lie in good order."""
        for where in [where for where in self.records if where.topic == TOPICS.log]:
            last = GENESIS_HASH
            for index, record in enumerate(self.records[where]):
                entry = codec().decode_entry(record.value)
                told = retell(entry, list(codec().events_of(entry)))
                events = entry.events if told is None else tuple(codec().encode_body(event) for event in told)
                value = codec().encode(replace(entry, prev_hash=last, events=events))
                last = hash_of(value)
                self.records[where][index] = record._replace(value=value)
            self.tables.head_rows[where.partition] = self.tables.head_rows[where.partition]._replace(
                hash=last
            )


def audited_sale(row: RouterSaleRow) -> SaleRow:
    """Give a row of the router's sales as the auditor reads it."""
    return SaleRow(
        lead_id=row.lead_id,
        sale_number=row.sale_number,
        buyer_id=row.buyer_id,
        order_id=row.order_id,
        mode=row.mode.value,
        sales_max=row.sales_max,
        price_cents=row.price_cents,
        closed_until_ms=row.closed_until_ms if row.sale_number == 1 else None,
    )


def evidence_of(given: World) -> Evidence:
    """Gather what a world that has come to rest left in topics and tables; its ledger is folded from its log here."""
    return Evidence(
        records={where: list(kept) for where, kept in given.kafka.records.items()},
        tables=MemoryTables(
            head_rows={
                at: HeadRow(at, head.seq, head.hash, head.published_seq)
                for at, head in given.tables.heads.items()
            },
            counter_rows={name: (row.used, row.granted) for name, row in given.tables.counters.items()},
            sale_rows=[
                audited_sale(row)
                for row in sorted(given.tables.sales.values(), key=lambda row: (row.lead_id, row.sale_number))
            ],
            close_rows=[CloseRow(row.lead_id, row.outcome.value) for row in given.tables.closes.values()],
            transfer_rows=_transfers(given),
            accepted_rows=[
                (lead.lead_id, lead.received_at_ms)
                for record in given.kafka.topic(TOPICS.qualified)
                if isinstance(lead := codec().decode(record.value), QualifiedLead)
            ],
            undelivered_rows=[
                (row.partition, row.seq, row.n, row.recipient) for row in given.tables.undelivered.values()
            ],
        ),
        markets={given.market.version: given.market, **given.earlier},
    )


def _transfers(given: World) -> list[TransferRow]:
    ledger = MemoryLedger()
    reader = LogReader(
        Billing(ledger, codec()), codec(), topic=TOPICS.log, monotonic_s=given.clock.monotonic_s
    )
    host = MemoryHost(given.kafka, reader)
    host.assign([TopicPartition(TOPICS.log, at) for at in range(PARTITIONS)])
    host.drain()
    return [
        TransferRow(
            transfer_id=row.transfer_id,
            kind=row.kind.value,
            debit_account=row.debit_account,
            credit_account=row.credit_account,
            amount_cents=row.amount_cents,
            currency=row.currency,
            sale_id=row.sale_id or "",
            lead_id=row.lead_id or "",
        )
        for row in ledger.tables.transfers.values()
    ]


def by_time(records: Sequence[Record]) -> list[Record]:
    """Read as things happened."""
    return sorted(records, key=lambda record: record.timestamp_ms)


def log_first(records: Sequence[Record]) -> list[Record]:
    """Read the log before all else."""
    return sorted(records, key=lambda record: record.topic != TOPICS.log)


def log_last(records: Sequence[Record]) -> list[Record]:
    """Read the log after all else."""
    return sorted(records, key=lambda record: record.topic == TOPICS.log)


def audited(
    evidence: Evidence, *, order: Order = by_time, states: LeadStates | None = None, at_rest: bool = True
) -> tuple[Auditor, list[Violation]]:
    """Let the auditor judge it all."""
    found: list[Violation] = []
    auditor = Auditor(
        markets=evidence.markets.__getitem__,
        topics=TOPICS,
        partitions=PARTITIONS,
        states=states if states is not None else MemoryLeadStates(),
        report=found.append,
    )
    auditor.take(order([record for kept in evidence.records.values() for record in kept]))
    auditor.finish(evidence.tables, at_rest=at_rest)
    return auditor, found
