"""A whole router on the in-memory bus and store, with faults, as tests and the simulator run it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from services.bus.memory import Crash, Faults, MemoryHost, MemoryKafka, MemoryProducer, VirtualClock
from services.bus.ports import Message, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.entries import Entry
from services.contract.events import Event
from services.contract.ids import partition_of
from services.contract.inputs import Command, QualifiedLead, TimerDue
from services.contract.market import Market
from services.contract.topics import Topics
from services.router.markets import IndexedMarkets, avro_buyers_of
from services.router.memory_store import MemoryRouterStore, MemoryRouterTables
from services.router.metrics import RouterMetrics
from services.router.ports import Head
from services.router.relay import Relay
from services.router.step import Router

PARTITIONS = 2
TOPICS = Topics()


@dataclass(slots=True)
class MemoryVault:
    """The vault's rows, already open."""

    rows: dict[str, bytes] = field(default_factory=dict)

    def read(self, lead_ids: Collection[str]) -> Mapping[str, bytes]:
        """See `VaultReader`."""
        return {lead_id: self.rows[lead_id] for lead_id in lead_ids if lead_id in self.rows}


@dataclass(slots=True)
class KafkaTail:
    """The end of the log."""

    kafka: MemoryKafka
    id: str = "log-1"

    def topic_id(self) -> str:
        """See `LogTail`."""
        return self.id

    def commands_end(self, partition: int) -> int:
        """See `LogTail`."""
        return len(self.kafka.records[TopicPartition(TOPICS.commands, partition)])

    def last_value(self, partition: int) -> bytes | None:
        """See `LogTail`."""
        records = self.kafka.records[TopicPartition(TOPICS.log, partition)]
        return records[-1].value if records else None


@dataclass(slots=True)
class World:
    """What survives a crash: Kafka, the tables, the vault, the clock; workers come and go."""

    market: Market
    kafka: MemoryKafka
    tables: MemoryRouterTables
    vault: MemoryVault
    clock: VirtualClock
    earlier: dict[int, Market] = field(default_factory=dict)
    refuses: Callable[[Message], Unacknowledged | None] = lambda _: None
    alive: Callable[[], bool] = lambda: True
    log_topic_id: str = "log-1"
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    metrics: RouterMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = RouterMetrics(self.registry)

    def worker(
        self, faults: Faults | None = None, *, partitions: Iterable[int] = range(PARTITIONS)
    ) -> MemoryHost:
        """Start a worker, which takes its partitions over."""
        faults = faults or Faults()
        store = MemoryRouterStore(self.tables, self.clock, lambda: self.market.version, faults)
        relay = Relay(
            store=store,
            vault=self.vault,
            log_producer=MemoryProducer(self.kafka, faults),
            outside_producer=MemoryProducer(self.kafka, faults, lambda message: self.refuses(message)),
            codec=codec(),
            topics=TOPICS,
            alive=lambda: self.alive(),
            is_known=lambda kind, id: (
                id in (self.market.sources if kind == "sources" else self.market.buyers)
            ),
            avro_buyers=lambda version: avro_buyers_of(self.earlier.get(version, self.market)),
        )
        router = Router(
            store=store,
            relay=relay,
            markets=IndexedMarkets(lambda version: self.earlier.get(version, self.market)),
            codec=codec(),
            topics=TOPICS,
            log_tail=KafkaTail(self.kafka, self.log_topic_id),
            monotonic_s=self.clock.monotonic_s,
            partitions=PARTITIONS,
            metrics=self.metrics,
        )
        host = MemoryHost(self.kafka, router)
        host.assign([TopicPartition(TOPICS.qualified, partition) for partition in partitions])
        return host

    def send(self, *inputs: QualifiedLead | Command | TimerDue) -> None:
        """Append inputs to the router's topics, and a qualified lead's sealed part to the vault."""
        for subject in inputs:
            topic = TOPICS.commands
            if isinstance(subject, QualifiedLead):
                topic = TOPICS.qualified
                self.vault.rows[subject.lead_id] = b'{"contact":{"email":"canary@example.com"}}'
            elif isinstance(subject, TimerDue):
                topic = TOPICS.timers
            partition = partition_of(subject.lead_id, PARTITIONS)
            self.kafka.append(Message(topic, partition, subject.lead_id.encode(), codec().encode(subject)))

    def log(self) -> dict[int, list[Entry]]:
        """Read the log as a reader takes it, without repeats; it must be chained."""
        taken: dict[int, list[Entry]] = {partition: [] for partition in range(PARTITIONS)}
        for record in self.kafka.topic(TOPICS.log):
            entry = codec().decode_entry(record.value)
            if entry.seq == len(taken[record.partition]) + 1:
                taken[record.partition].append(entry)
        return taken

    def events(self) -> list[tuple[str, Event]]:
        """Read every event of the log with its lead."""
        return [
            (entry.lead_id, event)
            for entries in self.log().values()
            for entry in entries
            for event in codec().events_of(entry)
        ]


def world(market: Market) -> World:
    """A new world with this market."""
    clock = VirtualClock()
    partitions = dict.fromkeys((TOPICS.qualified, TOPICS.commands, TOPICS.timers, TOPICS.log), PARTITIONS)
    for buyer_id in market.buyers:
        partitions |= {TOPICS.buyer_leads(buyer_id): 1, TOPICS.buyer_pings(buyer_id): 1}
    for source_id in market.sources:
        partitions[TOPICS.source_receipts(source_id)] = 1
    tables = MemoryRouterTables(
        heads={partition: Head(partition=partition) for partition in range(PARTITIONS)}
    )
    vault = MemoryVault()
    tables.vault = vault.rows
    return World(market, MemoryKafka(partitions, clock), tables, vault, clock)


def run_until_done(host: MemoryHost) -> None:
    """Let a worker work until nothing is left to do."""
    host.drain()


def crashes_at(start: Callable[[Faults], None], edge: int) -> bool:
    """Run `start` with a crash at one edge; tell whether it got that far."""
    faults = Faults(crash_at=edge)
    try:
        start(faults)
    except Crash:
        return True
    return False
