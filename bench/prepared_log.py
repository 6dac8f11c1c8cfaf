"""What one core makes of a log that is there: billing it, making the ledger again, executing its decisions again.

It works on the topics and tables that a pipeline has left, with its workers stopped, and starts none.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from bench.figures import Run
from bench.measurement import UnfinishedError
from bench.pipeline import Site
from services.billing import rebuild, store
from services.billing.kafka_log import KafkaLog
from services.billing.rebuild import Rebuild
from services.billing.step import Billing
from services.bus.database import connect
from services.bus.kafka import Connection
from services.bus.log_reader import LogReader
from services.bus.ports import Record, TopicPartition
from services.bus.settings import StepSettings
from services.cli.lead_reading import LeadEntries
from services.cli.log_reading import LogTopic, Reader
from services.cli.replaying import Given, Verdict, replay
from services.contract.codec import codec
from services.contract.entries import Cause, CauseKind, Entry
from services.contract.events import Event
from services.contract.ids import partition_of
from services.contract.topics import Topics
from services.market import store as market_store
from services.router.markets import IndexedMarkets

_ROWS = ("leads", "sales", "returns", "transfers", "account_totals")


@dataclass(frozen=True, slots=True)
class LogMeasurements:
    """Measures on one site. `progress` is told what goes on."""

    site: Site
    progress: Callable[[str], None]

    def measure(self) -> list[Run]:
        """Measure all three; raise `UnfinishedError` where a ledger or a decision is not the one that was there."""
        return [self.billing(), self.rebuild(), self.replay()]

    def billing(self) -> Run:
        """Fold the log into an empty ledger in batches as large as a worker's, by billing's own step."""
        with self._ledger() as (connection, schema):
            batches = list(self._batches())
            ledger = store.PostgresLedger(lambda: connection, schema=schema)
            reader = LogReader(
                Billing(ledger, codec()), codec(), topic=self._topic, monotonic_s=time.monotonic
            )
            reader.take_over([TopicPartition(self._topic, at) for at in self._spans()])
            start_s, start_cpu_s = time.monotonic(), time.process_time()
            for records in batches:
                if reader.handle(records):
                    raise UnfinishedError("billing lost its place in a ledger that nobody else writes to")
            seconds, cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
            entries, rows = sum(map(len, batches)), _count(connection, schema)
        expected = self._count_billed()
        if rows != expected:
            raise UnfinishedError(f"billing made {rows} rows of the log, and its worker had made {expected}")
        return Run(
            measurement="billing",
            figures={"rows_per_s": rows / seconds, "entries_per_s": entries / seconds},
            notes={
                "rows": rows,
                "entries": entries,
                "seconds": seconds,
                "cpu_us_per_entry": 1e6 * cpu_s / entries,
            },
        )

    def rebuild(self) -> Run:
        """Make the ledger again from the log's first entry and compare it, as `gavel billing rebuild --verify` does."""
        with self._ledger() as (connection, schema):
            log = KafkaLog(self._connection(), self._topic)
            made_again = Rebuild(connection, log, codec(), topic=self._topic, schema=schema)
            start_s = time.monotonic()
            entries = made_again.make()
            made_s = time.monotonic() - start_s
            verdict = made_again.compare()
            seconds = time.monotonic() - start_s
        if not verdict.identical:
            raise UnfinishedError("the ledger that was made again is not the one that billing made")
        return Run(
            measurement="rebuild",
            figures={"entries_per_s": entries / seconds, "entries_per_s_without_comparing": entries / made_s},
            notes={"entries": entries, "seconds": seconds},
        )

    def replay(self) -> Run:
        """Execute each decision of the log again, and compare its events byte for byte."""
        told, inputs = self._told(), self._inputs()
        with psycopg.connect(self.site.database, autocommit=True) as connection:
            markets = IndexedMarkets(lambda version: market_store.load(connection, version))
            start_s, start_cpu_s = time.monotonic(), time.process_time()
            identical = sum(_replayed(lead, inputs, markets) for lead in told)
            seconds, cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s
        return Run(
            measurement="replay",
            figures={"entries_per_s": identical / seconds},
            notes={"entries": identical, "seconds": seconds, "cpu_us_per_entry": 1e6 * cpu_s / identical},
        )

    @property
    def _topic(self) -> str:
        return Topics(self.site.namespace).log

    def _connection(self) -> Connection:
        return Connection(bootstrap=self.site.kafka)

    @contextmanager
    def _ledger(self) -> Iterator[tuple[psycopg.Connection[Any], str]]:
        """Make an empty ledger beside the one that is there, and drop it in the end."""
        name = rebuild.REBUILT
        with connect(
            self.site.database,
            role=store.ROLE,
            application_name="bench",
            transaction_timeout_ms=0,
            idle_in_transaction_timeout_ms=0,
        ) as connection:
            rebuild.drop_tables(connection, name)
            rebuild.make_tables(connection, name)
            try:
                yield connection, name
            finally:
                rebuild.drop_tables(connection, name)

    def _spans(self) -> Mapping[int, range]:
        with psycopg.connect(self.site.database) as connection:
            rows = connection.execute("select partition, next_offset from billing.positions").fetchall()
        return {partition: range(offset) for partition, offset in rows}

    def _batches(self) -> Iterator[Sequence[Record]]:
        """Read the log, a worker's `batch_max` at a time."""
        size = int(StepSettings.model_fields["batch_max"].default)
        spans = {at: span for at, span in self._spans().items() if span}
        waiting: list[Record] = []
        for records in KafkaLog(self._connection(), self._topic).read(spans):
            waiting += records
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if waiting:
            yield waiting

    def _count_billed(self) -> int:
        with psycopg.connect(self.site.database) as connection:
            return _count(connection, store.SCHEMA)

    def _told(self) -> list[LeadEntries]:
        """Read all leads' entries."""
        by_lead: dict[str, list[tuple[Entry, Sequence[Event]]]] = defaultdict(list)
        with LogTopic(self._connection(), self._topic) as topic:
            partitions = topic.partitions()
            for partition in range(partitions):
                reader = Reader(codec=codec())
                for entry, _ in reader.taken(topic.read(partition)):
                    by_lead[entry.lead_id].append((entry, reader.codec.events_of(entry)))
        return [
            LeadEntries(
                lead_id=lead_id,
                partition=partition_of(lead_id, partitions),
                read_from=self._topic,
                entries=entries,
            )
            for lead_id, entries in by_lead.items()
        ]

    def _inputs(self) -> Callable[[Cause, int], Given | None]:
        """Read all accepted leads; the benchmark's market has neither commands nor timers."""
        qualified = Topics(self.site.namespace).qualified
        values: dict[tuple[int, int], bytes] = {}
        with LogTopic(self._connection(), qualified) as topic:
            for partition in range(topic.partitions()):
                values |= {(partition, item.offset): item.value for item in topic.read(partition)}

        def given(cause: Cause, partition: int) -> Given | None:
            if cause.kind is not CauseKind.QUALIFIED:
                return None
            return Given(codec().decode(values[partition, cause.offset]), qualified)

        return given


def _replayed(
    lead: LeadEntries, inputs: Callable[[Cause, int], Given | None], markets: IndexedMarkets
) -> int:
    found = list(replay(lead, inputs, markets))
    if different := [one for one in found if one.verdict is not Verdict.IDENTICAL]:
        raise UnfinishedError(
            f"lead {lead.lead_id}, entry {different[0].step.entry.seq}: executed again it is {different[0].verdict}"
        )
    return len(found)


def _count(connection: psycopg.Connection[Any], schema: str) -> int:
    counts = sql.SQL(" + ").join(
        sql.SQL("(select count(*) from {})").format(sql.Identifier(schema, table)) for table in _ROWS
    )
    row = connection.execute(sql.SQL("select {}").format(counts)).fetchone()
    assert row is not None
    return int(row[0])
