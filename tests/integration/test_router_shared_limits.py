"""Four routers at once on real tables: limits that they share are exact, and nobody waits in a circle."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace

import psycopg
import pytest

from services.bus.database import connect
from services.bus.liveness import monotonic_s
from services.bus.memory import MemoryHost, MemoryKafka, MemoryProducer
from services.bus.migrations import migrate
from services.bus.ports import Message, TopicPartition
from services.contract.codec import codec
from services.contract.events import LeadSold
from services.contract.ids import partition_of
from services.contract.inputs import QualifiedLead
from services.contract.market import Account, Cap, Market, Period, Unit
from services.market import store as market_store
from services.router.database import Database
from services.router.markets import IndexedMarkets
from services.router.relay import Relay
from services.router.step import Router
from services.router.store import PostgresRouterStore, initialise
from tests.support.deciding import exclusive_stage, lead, market, order, plan
from tests.support.routing import TOPICS, KafkaTail, MemoryVault

pytestmark = pytest.mark.integration

WORKERS = 4
LEADS_EACH = 60


def _cap(unit: Unit, most: int) -> Cap:
    return Cap(unit=unit, period=Period.TOTAL, most=most)


def _market() -> Market:
    """`a` may buy 100 leads, `b` 50 (its money ends in the middle of a sale), `c` by two orders 30 for its account."""
    orders = (
        order("a", exclusive=9900, caps=(_cap(Unit.LEADS, 100),)),
        order("b", exclusive=9800, caps=(_cap(Unit.SPEND, 50 * 9800 + 9799), _cap(Unit.LEADS, 70))),
        order("c", exclusive=9700),
        order("c", exclusive=9700, name="more"),
    )
    made = market(plan(exclusive_stage(9000), sales_max=1), orders=orders)
    account = replace(made.buyers["c"], account=Account(credit_limit_cents=30 * 9700))
    return replace(made, buyers={**made.buyers, "c": account})


@dataclass(slots=True)
class _Worker:
    """A router with a Kafka of its own, which shares the database with the others."""

    url: str
    at: int
    failure: BaseException | None = None
    held: list[LeadSold] = field(default_factory=list)

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  # told by the test's own thread
            self.failure = error

    def _work(self) -> None:
        given = _market()
        topics = (TOPICS.qualified, TOPICS.commands, TOPICS.timers, TOPICS.log)
        outside = (
            *(TOPICS.buyer_leads(buyer) for buyer in given.buyers),
            *(TOPICS.buyer_pings(buyer) for buyer in given.buyers),
            *(TOPICS.source_receipts(source) for source in given.sources),
        )
        kafka = MemoryKafka({**dict.fromkeys(topics, WORKERS), **dict.fromkeys(outside, 1)})
        vault = MemoryVault()
        for item in _leads_in(self.at):
            vault.rows[item.lead_id] = b"{}"
            kafka.append(Message(TOPICS.qualified, self.at, item.lead_id.encode(), codec().encode(item)))
        database = Database(lambda: connect(self.url, role="gavel_router", application_name="test"))
        host = MemoryHost(kafka, _router(database, kafka, vault, given), batch_max=7)
        host.assign([TopicPartition(TOPICS.qualified, self.at)])
        host.drain()
        database.close()
        for record in kafka.topic(TOPICS.log):
            events = codec().events_of(codec().decode_entry(record.value))
            self.held += [event for event in events if isinstance(event, LeadSold)]


def _router(database: Database, kafka: MemoryKafka, vault: MemoryVault, given: Market) -> Router:
    store = PostgresRouterStore(database)
    relay = Relay(
        store=store,
        vault=vault,
        log_producer=MemoryProducer(kafka),
        outside_producer=MemoryProducer(kafka),
        codec=codec(),
        topics=TOPICS,
        alive=lambda: True,
        is_known=lambda _kind, _id: True,
        avro_buyers=lambda _version: (),
    )
    return Router(
        store=store,
        relay=relay,
        markets=IndexedMarkets(lambda _: given),
        codec=codec(),
        topics=TOPICS,
        log_tail=KafkaTail(kafka),
        monotonic_s=monotonic_s,
        partitions=WORKERS,
    )


def _leads_in(partition: int) -> list[QualifiedLead]:
    found = (lead(f"lead-{n}") for n in range(20 * LEADS_EACH))
    return [item for item in found if partition_of(item.lead_id, WORKERS) == partition][:LEADS_EACH]


def test_limits_shared_by_four_routers_are_used_to_the_last_unit_and_never_exceeded(database: str) -> None:
    migrate(database)
    with psycopg.connect(database, autocommit=True) as admin:
        initialise(admin, WORKERS)
        market_store.apply(admin, _market(), 0, files=(), applied_by="test")
    workers = [_Worker(database, at) for at in range(WORKERS)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [worker.failure for worker in workers] == [None] * WORKERS
    sold = Counter(event.buyer_id for worker in workers for event in worker.held)
    assert sold == {"a": 100, "b": 50, "c": 30}
    with psycopg.connect(database, autocommit=True) as admin:
        rows: dict[str, int] = dict(admin.execute("select counter_id, used from router.counters").fetchall())
    assert rows == {
        "order:a/all:leads_total:0": 100,
        "order:b/all:spend_total:0": 50 * 9800,
        "order:b/all:leads_total:0": 50,
        "account:c": 30 * 9700,
    }
