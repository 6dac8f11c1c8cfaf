"""Intake on the in-memory bus: a world that survives its workers' crashes, and what can be seen of it from outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from services.bus.memory import Faults, MemoryHost, MemoryKafka, MemoryProducer, VirtualClock
from services.bus.ports import Message, Record, TopicPartition
from services.contract.codec import codec
from services.contract.inputs import Command, QualifiedLead
from services.contract.market import Market
from services.contract.topics import Topics
from services.intake.admission import Admission
from services.intake.memory_store import MemoryIntakeStore, MemoryIntakeTables
from services.intake.metrics import IntakeMetrics
from services.intake.step import Clocks, Intake, Outlets
from services.vault.memory import MemoryVault
from services.vault.sealing import Vault
from tests.support.submissions import KEYS, MARKET

TOPICS = Topics()
INSIDE_PARTITIONS = 4
SOURCE_PARTITIONS = 2
VAULT_KEY = bytes(range(32))
GROUP = "intake"


@dataclass(slots=True)
class MemoryPositions:
    """The group's committed offsets."""

    kafka: MemoryKafka
    faults: Faults

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        self.faults.edge("positions")
        self.kafka.committed.update({(GROUP, where): offset for where, offset in positions.items()})
        self.faults.edge("positions committed")

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        return {where: self.kafka.committed.get((GROUP, where)) for where in partitions}


@dataclass(slots=True)
class Worker:
    """One worker process: what is gone when it crashes."""

    host: MemoryHost
    outside: MemoryProducer
    store: MemoryIntakeStore


@dataclass(slots=True)
class World:
    """Topics, tables and market; all that a crash leaves."""

    market: Market = MARKET
    tables: MemoryIntakeTables = field(default_factory=MemoryIntakeTables)
    kafka: MemoryKafka = field(default_factory=lambda: MemoryKafka(partitions=_partitions(MARKET)))
    alive: bool = True

    @property
    def clock(self) -> VirtualClock:
        return self.kafka.clock

    def send(self, body: dict[str, Any] | bytes, *, source: str = "sunform", partition: int = 0) -> Record:
        """Do as a source does."""
        value = body if isinstance(body, bytes) else orjson.dumps(body)
        message = Message(TOPICS.source_leads(source), partition, b"key", value, (("h", b"canary"),))
        return self.kafka.append(message)

    def answer(self, body: dict[str, Any] | bytes, *, buyer: str = "acme") -> Record:
        """Do as a buyer does."""
        value = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.kafka.append(Message(TOPICS.buyer_answers(buyer), 0, b"key", value, (("h", b"canary"),)))

    def start(self, faults: Faults | None = None, batch_max: int = 500) -> Worker:
        """Start a worker, and give it all partitions."""
        faults = faults or Faults()
        outside = MemoryProducer(self.kafka, faults)
        store = MemoryIntakeStore(self.tables, self.clock, lambda: self.market, faults)
        step = Intake(
            Admission(store, codec(), Vault(VAULT_KEY), KEYS),
            Outlets(
                inside=MemoryProducer(self.kafka, faults),
                outside=outside,
                alive=lambda: self.alive,
                topics=TOPICS,
                partitions=INSIDE_PARTITIONS,
            ),
            MemoryPositions(self.kafka, faults),
            Clocks(now_ms=lambda: self.clock.now_ms, monotonic_s=self.clock.monotonic_s),
            IntakeMetrics(CollectorRegistry()),
        )
        host = MemoryHost(self.kafka, step, batch_max)
        host.assign(self.read_partitions())
        return Worker(host, outside, store)

    def read_partitions(self) -> list[TopicPartition]:
        """Name every partition that intake reads."""
        ends = (".leads", ".answers")
        names = [name for name in self.kafka.partitions if name.endswith(ends)]
        return [TopicPartition(name, at) for name in names for at in range(self.kafka.partitions[name])]

    def qualified(self) -> dict[str, list[bytes]]:
        """Read leads.qualified: the values under each lead id, repeats included."""
        found: dict[str, list[bytes]] = defaultdict(list)
        for record in self.kafka.topic(TOPICS.qualified):
            assert record.key is not None
            assert record.value is not None
            found[record.key.decode()].append(record.value)
        return found

    def qualified_leads(self) -> dict[str, QualifiedLead]:
        """Read leads.qualified, each lead once; all repeats must be the same."""
        leads = {}
        for lead_id, values in self.qualified().items():
            assert len(set(values)) == 1, "a lead has one record, however often it is emitted"
            leads[lead_id] = codec().decode(values[0])
        return leads

    def commands(self) -> list[Command]:
        """Read leads.commands."""
        return [codec().decode(record.value) for record in self.kafka.topic(TOPICS.commands)]

    def receipts(self, source: str = "sunform") -> dict[str, dict[str, Any]]:
        """Read a source's receipts by their ce_id; a repeat must have the same bytes."""
        found: dict[str, bytes] = {}
        for record in self.kafka.topic(TOPICS.source_receipts(source)):
            assert record.value is not None
            ce_id = dict(record.headers)["ce_id"].decode()
            assert found.setdefault(ce_id, record.value) == record.value
        return {ce_id: orjson.loads(value) for ce_id, value in found.items()}

    def verdicts(self, source: str = "sunform") -> dict[tuple[int, int], str]:
        """Say of each submission of a source, by partition and offset, what its receipts say, once."""
        told: dict[tuple[int, int], str] = {}
        for ce_id, receipt in self.receipts(source).items():
            partition, offset, _ = ce_id.split(":")
            (happened,) = receipt["happened"]
            key = int(partition), int(offset)
            assert key not in told, "one submission has one answer"
            told[key] = happened.get("reason", happened["type"])
        return told

    def dead(self, topic: str) -> set[bytes | None]:
        """Read a topic's dead letters, each once."""
        return {record.value for record in self.kafka.topic(TOPICS.dead_letters(topic))}

    def vault(self) -> MemoryVault:
        """Open the vault as a router would."""
        return MemoryVault(Vault(VAULT_KEY), self.tables.details)


def _partitions(market: Market) -> dict[str, int]:
    counts = {TOPICS.qualified: INSIDE_PARTITIONS, TOPICS.commands: INSIDE_PARTITIONS}
    for source_id in market.sources:
        leads = TOPICS.source_leads(source_id)
        counts |= {leads: SOURCE_PARTITIONS, TOPICS.dead_letters(leads): SOURCE_PARTITIONS}
        counts[TOPICS.source_receipts(source_id)] = 1
    for buyer_id in market.buyers:
        answers = TOPICS.buyer_answers(buyer_id)
        counts |= {answers: 1, TOPICS.dead_letters(answers): 1}
    return counts
