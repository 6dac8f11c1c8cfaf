"""All four steps on one in-memory bus, one set of tables and one virtual clock, with faults at every effect.

Workers come and go; what is in `Whole` is what survives them. The check looks at topics and tables only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from services.billing.memory_store import MemoryLedger
from services.billing.step import Billing
from services.bus.log_reader import LogReader
from services.bus.memory import Faults, MemoryHost, MemoryKafka, MemoryProducer, VirtualClock
from services.bus.ports import Message, TopicPartition
from services.contract.codec import codec
from services.contract.events import LeadClosed, LeadListed, LeadSold
from services.contract.market import Market, Mode
from services.contract.topics import Topics
from services.intake.admission import Admission
from services.intake.memory_store import MemoryIntakeStore, MemoryIntakeTables
from services.intake.metrics import IntakeMetrics
from services.intake.step import Clocks, Intake, Outlets
from services.resale.memory import MemoryWindows
from services.resale.timer import ResaleTimer
from services.router.memory_store import MemoryRouterTables
from services.router.ports import Head
from services.vault.memory import MemoryVault
from services.vault.sealing import Vault
from tests.support.intake_world import MemoryPositions
from tests.support.routing import PARTITIONS, World
from tests.support.submissions import KEYS

TOPICS = Topics()
STEPS = ("intake", "router", "resale", "billing")
_VAULT = Vault(bytes(range(32)))


@dataclass(slots=True)
class Whole:
    """A Gavel in memory."""

    market: Market
    clock: VirtualClock = field(default_factory=VirtualClock)
    intake: MemoryIntakeTables = field(default_factory=MemoryIntakeTables)
    router: MemoryRouterTables = field(
        default_factory=lambda: MemoryRouterTables(heads={at: Head(partition=at) for at in range(PARTITIONS)})
    )
    windows: MemoryWindows = field(init=False)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    kafka: MemoryKafka = field(init=False)
    answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: None
    answered: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        """Make the topics."""
        self.kafka = MemoryKafka(_partitions(self.market), self.clock)
        self.windows = MemoryWindows(self.clock)

    def submit(self, body: dict[str, Any], source: str = "sunform") -> None:
        """Do as a source does."""
        self.kafka.append(Message(TOPICS.source_leads(source), 0, None, orjson.dumps(body)))

    def start(self, step: str, faults: Faults | None = None) -> MemoryHost:
        """Start a worker of a step, which takes all partitions over."""
        faults = faults or Faults()
        if step == "router":
            return self._routing().worker(faults)
        host = MemoryHost(self.kafka, self._reading_step(step, faults))
        host.assign(self._read_by(step))
        return host

    def run(self, hosts: dict[str, MemoryHost]) -> None:
        """Let all steps work, buyers answer and time pass, until nothing is left to do."""
        for _ in range(400):
            busy = sum(host.turn() for host in hosts.values())
            busy += self._answer_offers()
            if not busy and not self._is_anything_due():
                if not self.windows.rows and sum(host.turn() for host in hosts.values()) == 0:
                    return
                self.clock.advance(self._next_due_in_ms())
        raise AssertionError("the steps were not done after 400 rounds")

    def _is_anything_due(self) -> bool:
        return any(row.next_send_at_ms <= self.clock.now_ms for row in self.windows.rows.values())

    def _next_due_in_ms(self) -> int:
        due = [row.next_send_at_ms for row in self.windows.rows.values()]
        return max(1_001, min(due, default=0) - self.clock.now_ms + 1)

    def _answer_offers(self) -> int:
        """Let buyers read their offers, as far as they have not, and answer."""
        count = 0
        for buyer_id in self.market.buyers:
            records = self.kafka.topic(TOPICS.buyer_pings(buyer_id))
            for record in records[self.answered[buyer_id] :]:
                body = self.answer(orjson.loads(record.value or b""))
                if body is not None:
                    self.kafka.append(Message(TOPICS.buyer_answers(buyer_id), 0, None, orjson.dumps(body)))
                    count += 1
            self.answered[buyer_id] = len(records)
        return count

    def _routing(self) -> World:
        vault = MemoryVault(_VAULT, self.intake.details)
        return World(self.market, self.kafka, self.router, vault, self.clock)  # type: ignore[arg-type]  # reads alike

    def _reading_step(self, step: str, faults: Faults) -> Any:
        producer = MemoryProducer(self.kafka, faults)
        if step == "intake":
            store = MemoryIntakeStore(self.intake, self.clock, lambda: self.market, faults)
            return Intake(
                Admission(store, codec(), _VAULT, KEYS),
                Outlets(
                    inside=producer,
                    outside=producer,
                    alive=lambda: True,
                    topics=TOPICS,
                    partitions=PARTITIONS,
                ),
                MemoryPositions(self.kafka, faults),
                Clocks(now_ms=lambda: self.clock.now_ms, monotonic_s=self.clock.monotonic_s),
                IntakeMetrics(CollectorRegistry()),
            )
        if step == "resale":
            self.windows.faults = faults
            return ResaleTimer(
                self.windows,
                producer,
                codec(),
                TOPICS,
                monotonic_s=self.clock.monotonic_s,
                wait_s=lambda _: None,
            )
        self.ledger.faults = faults
        return LogReader(
            Billing(self.ledger, codec()), codec(), topic=TOPICS.log, monotonic_s=self.clock.monotonic_s
        )

    def _read_by(self, step: str) -> list[TopicPartition]:
        if step != "intake":
            return [TopicPartition(TOPICS.log, at) for at in range(PARTITIONS)]
        names = [TOPICS.source_leads(source) for source in self.market.sources]
        names += [TOPICS.buyer_answers(buyer) for buyer in self.market.buyers]
        return [TopicPartition(name, 0) for name in names]

    def check(self, accepted: int) -> None:
        """Check guarantees 1, 2, 4, 5 and 6 for every lead."""
        log = [
            (entry, event)
            for entries in self._routing().log().values()
            for entry in entries
            for event in codec().events_of(entry)
        ]
        listed = Counter(entry.lead_id for entry, event in log if isinstance(event, LeadListed))
        closed = Counter(entry.lead_id for entry, event in log if isinstance(event, LeadClosed))
        assert listed == closed == Counter(self._accepted())
        assert len(listed) == accepted
        sold = {event.sale_id: (entry, event) for entry, event in log if isinstance(event, LeadSold)}
        assert self._delivered() == {sale_id: event.buyer_id for sale_id, (_, event) in sold.items()}
        self._check_sales(sold)
        charged = {row.sale_id: row.amount_cents for row in self.ledger.tables.transfers.values()}
        assert charged == {sale_id: event.price_cents for sale_id, (_, event) in sold.items()}
        assert len(self.ledger.tables.transfers) == len(charged)
        self._check_secrecy()

    def _accepted(self) -> set[str]:
        receipts = [
            orjson.loads(record.value or b"")
            for source in self.market.sources
            for record in self.kafka.topic(TOPICS.source_receipts(source))
        ]
        return {
            told["lead_id"] for told in receipts if any(e["type"] == "accepted" for e in told["happened"])
        }

    def _delivered(self) -> dict[str, str]:
        found: dict[str, tuple[str, bytes]] = {}
        for buyer_id in self.market.buyers:
            for record in self.kafka.topic(TOPICS.buyer_leads(buyer_id)):
                body = orjson.loads(record.value or b"")
                if body["type"] == "lead":
                    told = (buyer_id, record.value or b"")
                    assert found.setdefault(body["sale_id"], told) == told, "a repeat is the same to the byte"
        return {sale_id: buyer_id for sale_id, (buyer_id, _) in found.items()}

    @staticmethod
    def _check_sales(sold: dict[str, Any]) -> None:
        by_lead: dict[str, list[tuple[int, LeadSold]]] = defaultdict(list)
        for entry, event in sold.values():
            by_lead[entry.lead_id].append((entry.decided_at_ms, event))
        for sales in by_lead.values():
            events = [event for _, event in sales]
            assert len({event.buyer_id for event in events}) == len(events)
            assert len(events) <= min(event.sales_max for event in events)
            for at_ms, event in sales[1:]:
                assert event.mode is Mode.SHARED
                if events[0].mode is Mode.EXCLUSIVE:
                    assert events[0].exclusive_until_ms is not None
                    assert at_ms >= events[0].exclusive_until_ms

    def _check_secrecy(self) -> None:
        for where, records in self.kafka.records.items():
            for record in records:
                inside = where.topic.startswith("leads.")
                assert not (inside and b"canary" in (record.value or b"")), where
                assert not any(b"canary" in value for _, value in record.headers), where


def _partitions(market: Market) -> dict[str, int]:
    inside = (TOPICS.qualified, TOPICS.commands, TOPICS.timers, TOPICS.log)
    counts = dict.fromkeys(inside, PARTITIONS)
    for source in market.sources:
        leads = TOPICS.source_leads(source)
        counts |= {leads: 1, TOPICS.dead_letters(leads): 1, TOPICS.source_receipts(source): 1}
    for buyer in market.buyers:
        answers = TOPICS.buyer_answers(buyer)
        counts |= {answers: 1, TOPICS.dead_letters(answers): 1}
        counts |= {TOPICS.buyer_leads(buyer): 1, TOPICS.buyer_pings(buyer): 1}
    return counts
