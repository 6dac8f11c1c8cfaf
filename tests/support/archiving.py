"""A router on real tables, all else in memory: its answers can be compared, with leads archived and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any

import psycopg

from services.bus.database import connect
from services.bus.memory import Faults, MemoryHost, MemoryProducer
from services.bus.migrations import migrate
from services.bus.ports import TopicPartition
from services.contract.codec import codec
from services.contract.events import Event
from services.contract.market import Market, Returns
from services.market.store import apply
from services.router.archive import Limits, Moved, PostgresArchive, archive_closed
from services.router.database import Database
from services.router.lead import Lead
from services.router.markets import IndexedMarkets, avro_buyers_of
from services.router.memory_store import MemoryRouterTables
from services.router.relay import Relay
from services.router.step import Router
from services.router.store import PostgresRouterStore, initialise
from tests.support.routing import PARTITIONS, TOPICS, KafkaTail, World, world

EVERYTHING = Limits(older_than_ms=-60_000, batch=5_000)
"""Whatever is closed by now, on a clock that is a little behind."""


@dataclass(slots=True)
class Place:
    """A world whose router works on real tables, or on their twin; `archive` moves what may go, and says how many."""

    world: World
    archive: Callable[[], int]
    worker: Callable[[], MemoryHost]
    url: str = ""
    opened: list[Database] = field(default_factory=list)


def memory_place(market: Market) -> Place:
    """Make the tables in memory."""
    given = world(market)
    tables: MemoryRouterTables = given.tables

    def archive() -> int:
        return tables.archive(sorted(tables.closes))

    return Place(given, archive, given.worker)


@contextmanager
def postgres_place(url: str, market: Market) -> Iterator[Place]:
    """Make the tables in an empty database."""
    migrate(url)
    with psycopg.connect(url, autocommit=True) as admin:
        initialise(admin, PARTITIONS)
        apply(admin, market, 0, files=(), applied_by="tests")
    given = world(market)
    place = Place(given, lambda: archive_all(url, market), lambda: _worker(place), url)
    try:
        yield place
    finally:
        for database in place.opened:
            database.close()


def archive_all(url: str, market: Market, limits: Limits = EVERYTHING) -> int:
    """Walk through all closed leads once; return how many went."""
    return sum(moved.archived for moved in batches(url, market, limits))


def batches(url: str, market: Market, limits: Limits = EVERYTHING) -> Iterator[Moved]:
    """Walk through all closed leads, batch by batch."""
    tables = archive_of(url)

    def returns_of(lead: Lead) -> Returns | None:
        return market.lead_types[lead.lead_type].returns

    try:
        for _, _, moved in archive_closed(tables, returns_of, limits):
            yield moved
    finally:
        tables.close()


def archive_of(url: str) -> PostgresArchive:
    """Open the archive as the command does."""
    return PostgresArchive(partial(connect, url, role="gavel_router", application_name="test archive"))


def timeless(event: Event) -> tuple[str, dict[str, Any]]:
    """Give what an event says, but for its times, which a real clock makes others each time."""
    assert is_dataclass(event)
    said = {item.name: getattr(event, item.name) for item in fields(event) if not item.name.endswith("_ms")}
    if said.get("draws"):
        said["draws"] = [draw.name for draw in said["draws"]]
    return type(event).__name__, said


def _worker(place: Place) -> MemoryHost:
    """Start a worker on the real tables."""
    given = place.world
    place.opened.append(Database(lambda: connect(place.url, role="gavel_router", application_name="test")))
    store = PostgresRouterStore(place.opened[-1])
    faults = Faults()
    relay = Relay(
        store=store,
        vault=given.vault,
        log_producer=MemoryProducer(given.kafka, faults),
        outside_producer=MemoryProducer(given.kafka, faults),
        codec=codec(),
        topics=TOPICS,
        alive=lambda: True,
        is_known=lambda kind, id: id in (given.market.sources if kind == "sources" else given.market.buyers),
        avro_buyers=lambda _version: avro_buyers_of(given.market),
    )
    router = Router(
        store=store,
        relay=relay,
        markets=IndexedMarkets(lambda _version: given.market),
        codec=codec(),
        topics=TOPICS,
        log_tail=KafkaTail(given.kafka),
        monotonic_s=given.clock.monotonic_s,
        partitions=PARTITIONS,
    )
    host = MemoryHost(given.kafka, router)
    host.assign([TopicPartition(TOPICS.qualified, partition) for partition in range(PARTITIONS)])
    return host
