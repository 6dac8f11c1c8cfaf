"""What survives every worker: topics, tables, vault, market versions and clocks; and how a step is built on them.

One clock drives everything. The database's is ahead of it by as much as a fault has made it, and as a worker's own
clock is not, a worker can notice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol, cast

from prometheus_client import CollectorRegistry

from services.billing.memory_store import MemoryLedger
from services.billing.memory_store import Tables as LedgerTables
from services.billing.rows import Postings
from services.billing.step import Billing
from services.bus.log_reader import LogReader, Move
from services.bus.memory import Faults, MemoryKafka, VirtualClock
from services.bus.ports import BusFailed, Message, Record, Step, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.entries import Position
from services.contract.events import FailureReason
from services.contract.market import Market
from services.contract.topics import Topics
from services.feed.publishing import EventFeed
from services.feed.store import MemoryPositions
from services.intake.admission import Admission
from services.intake.memory_store import MemoryIntakeStore, MemoryIntakeTables
from services.intake.metrics import IntakeMetrics
from services.intake.ports import Door
from services.intake.step import Clocks, Intake, Outlets
from services.resale.domain import Due
from services.resale.memory import HeldWindow, MemoryWindows
from services.resale.timer import ResaleTimer
from services.router.markets import IndexedMarkets
from services.router.memory_store import MemoryRouterStore, MemoryRouterTables
from services.router.metrics import RouterMetrics
from services.router.ports import AuctionRow, Head, Mark, MoneyRow, Snapshot
from services.router.relay import Relay
from services.router.step import Router
from services.vault.memory import MemoryVault
from services.vault.sealing import Vault
from tests.simulation.markets import BUYERS, SOURCES, first_market, next_market
from tests.support.routing import KafkaTail
from tests.support.submissions import KEYS

TOPICS = Topics()
PARTITIONS = 3
SOURCE_PARTITIONS = 2
GROUP = "intake"
PARTNERS = {"router": (TOPICS.commands, TOPICS.timers)}


class Fate(Protocol):
    """What becomes of records that a worker writes."""

    def pass_edge(self, name: str) -> None:
        """Pass an edge of an effect."""
        ...

    def write(self, message: Message, *, gives_up: bool) -> Unacknowledged | None:
        """Write a record or not; say (with any index) where it is not acknowledged, raise where that ends it all."""
        ...

    def at_once(self, count: int) -> int:
        """Say how many of so many records are written before anybody waits for them."""
        ...

    def is_alive(self) -> bool:
        """Tell whether the worker is sure to be a member of its group."""
        ...


class SimulatedKafka(MemoryKafka):
    """Counts what is appended, so that everyone sees whether something is new."""

    appended = 0

    def append(self, message: Message) -> Record:
        """See `MemoryKafka`."""
        self.appended += 1
        return super().append(message)

    def cut(self, where: TopicPartition, records: int) -> int:
        """Lose the last records of a partition; return how many."""
        lost = min(records, len(self.records[where]))
        del self.records[where][len(self.records[where]) - lost :]
        return lost


@dataclass(slots=True)
class DatabaseClock:
    """The database's clock: the one clock, and what it is ahead of it."""

    clock: VirtualClock
    ahead_ms: int = 0

    @property
    def now_ms(self) -> int:
        """The time."""
        return self.clock.now_ms + self.ahead_ms


class SimulatedRouterStore(MemoryRouterStore):
    """Has edges also where it reads, as the real one's statements are apart: the heads first, then all else."""

    def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """See `RouterStore`."""
        self.faults.edge("heads")
        return super().heads(partitions)

    def read(
        self,
        partitions: Collection[int],
        lead_ids: Collection[str],
        *,
        counters: Collection[str] = (),
        money: Collection[MoneyRow] = (),
    ) -> Snapshot:
        """See `RouterStore`."""
        heads = super().heads(partitions)
        now_ms, market_version = self.clock.now_ms, self.market_version()
        self.faults.edge("between reads")
        rest = super().read(partitions, lead_ids, counters=counters, money=money)
        self.faults.edge("read")
        return replace(rest, heads=heads, now_ms=now_ms, market_version=market_version)

    def auctions(self, partitions: Collection[int]) -> Sequence[AuctionRow]:
        """See `RouterStore`."""
        self.faults.edge("auctions")
        return super().auctions(partitions)

    def move_marks(self, marks: Sequence[Mark]) -> None:
        """See `RouterStore`."""
        self.faults.edge("before mark")
        super().move_marks(marks)


class SimulatedIntakeStore(MemoryIntakeStore):
    """Has an edge before the transaction, where others may still act."""

    __slots__ = ()

    @contextmanager
    def open(self) -> Iterator[Door]:
        """See `IntakeStore`."""
        self.faults.edge("begin")
        with super().open() as door:
            yield door


@dataclass(slots=True)
class SharedLedger:
    """One set of tables under the ledgers of all workers."""

    tables: LedgerTables = field(default_factory=LedgerTables)


class SimulatedWindows(MemoryWindows):
    """A worker's view of the shared windows, with an edge before each reading: it fails without a database."""

    __slots__ = ()

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """See `WindowStore`."""
        self.faults.edge("positions of windows")
        return super().positions(partitions)

    def due(self, partitions: Collection[int], *, at_most: int) -> Due:
        """See `WindowStore`."""
        self.faults.edge("look at windows")
        return super().due(partitions, at_most=at_most)


class SimulatedFeedPositions(MemoryPositions):
    """A worker's view of the feed's positions, with an edge before they are read."""

    __slots__ = ()

    def read(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """See `FeedPositions`."""
        self.faults.edge("positions of the feed")
        return super().read(partitions)


class SimulatedLedger(MemoryLedger):
    """A worker's view of the shared tables, with an edge before the positions are compared."""

    __slots__ = ("_shared",)

    def __init__(self, shared: SharedLedger, faults: Faults) -> None:
        """Work on `shared`."""
        super().__init__(faults, shared.tables)
        self._shared = shared

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """See `Ledger`."""
        self.faults.edge("ledger positions")
        self.tables = self._shared.tables
        return super().positions(partitions)

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        """See `Ledger`."""
        self.faults.edge("before ledger")
        self.tables = self._shared.tables
        try:
            super().record(rows, moves)
        finally:
            # A crash at the last edge comes after the commit.
            self._shared.tables = self.tables


@dataclass(slots=True)
class GroupPositions:
    """The positions that intake's group has committed."""

    kafka: MemoryKafka
    faults: Faults

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """See `Positions`; a fault at this edge forgets what was asked."""
        try:
            self.faults.edge("positions")
        except PositionsForgotten:
            return
        self.kafka.committed.update({(GROUP, where): offset for where, offset in positions.items()})
        self.faults.edge("positions committed")

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """See `Positions`."""
        return {where: self.kafka.committed.get((GROUP, where)) for where in partitions}


class PositionsForgotten(Exception):
    """The group's coordinator was lost with the positions just committed."""


class Outlet:
    """A producer; what becomes of a record is its worker's fate, and so is how much is written before it waits."""

    def __init__(self, fate: Fate, clock: VirtualClock, *, gives_up: bool, asks: bool = False) -> None:
        """`gives_up`: it reports what is not acknowledged, where others raise. `asks` before each record."""
        self._fate = fate
        self._clock = clock
        self._gives_up = gives_up
        self._asks = asks

    def publish(
        self, messages: Sequence[Message], *, timeout_s: float | None = None
    ) -> Sequence[Unacknowledged]:
        """See `Producer`."""
        return self.send(messages, timeout_s=timeout_s).wait()

    def send(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> Sent:
        """See `Producer`: the first records are written at once, the others by the time that it is waited for."""
        sent = Sent(self, messages, timeout_s)
        at_once = self._fate.at_once(len(messages))
        for index, message in enumerate(messages):
            self._fate.pass_edge(f"produce {message.topic}")
            if index < at_once:
                sent.write(1)
        return sent

    def write(self, index: int, message: Message) -> Unacknowledged | None:
        """Write one record; say where it is not acknowledged, raise where that ends it all."""
        if self._asks and not self._fate.is_alive():
            return Unacknowledged(index, None, "not sure to be a member")
        refused = self._fate.write(message, gives_up=self._gives_up)
        return None if refused is None else Unacknowledged(index, refused.permanent, refused.error)

    def wait(self, timeout_s: float | None, *, is_complete: bool) -> None:
        """Pass the time that it takes, and the edge at its end."""
        if not is_complete:
            self._clock.advance(round((timeout_s or 0.2) * 1_000))
        self._fate.pass_edge("flushed")


class Sent:
    """A batch on its way."""

    def __init__(self, outlet: Outlet, messages: Sequence[Message], timeout_s: float | None) -> None:
        """Nothing of it is written yet."""
        self._outlet = outlet
        self._messages = messages
        self._timeout_s = timeout_s
        self._next = 0
        self._unacknowledged: list[Unacknowledged] = []
        self._error: BusFailed | None = None

    def write(self, count: int) -> None:
        """Write so many more, in order, unless one has failed for good; whoever waits is told."""
        for index in range(self._next, min(self._next + count, len(self._messages))):
            if self._error is None:
                try:
                    unacknowledged = self._outlet.write(index, self._messages[index])
                except BusFailed as error:
                    self._error = error
                else:
                    self._unacknowledged += [] if unacknowledged is None else [unacknowledged]
        self._next += count

    def wait(self) -> Sequence[Unacknowledged]:
        """See `Sending`."""
        self.write(len(self._messages))
        if self._messages:
            self._outlet.wait(self._timeout_s, is_complete=not self._unacknowledged)
        if self._error is not None:
            raise self._error
        return self._unacknowledged


def refused(why: str, permanent: FailureReason | None = None) -> Unacknowledged:
    """Say that a record was not acknowledged."""
    return Unacknowledged(0, permanent, why)


@lru_cache(maxsize=1)
def _router_metrics() -> RouterMetrics:
    return RouterMetrics(CollectorRegistry())


@lru_cache(maxsize=1)
def _intake_metrics() -> IntakeMetrics:
    return IntakeMetrics(CollectorRegistry())


class World:
    """All that survives a crash."""

    def __init__(self, seed: int) -> None:
        """Make an empty house with the seed's market."""
        self.seed = seed
        self.clock = VirtualClock()
        self.started_at_ms = self.clock.now_ms
        self.database_clock = DatabaseClock(self.clock)
        self.kafka = SimulatedKafka(_partitions(), self.clock)
        self.intake = MemoryIntakeTables()
        self.router = MemoryRouterTables(
            heads={at: Head(partition=at) for at in range(PARTITIONS)}, vault=self.intake.details
        )
        self.ledger = SharedLedger()
        self.windows: dict[tuple[str, int], HeldWindow] = {}
        self.window_positions: dict[int, Position] = {}
        self.feed_positions: dict[int, Position] = {}
        self.market = first_market(seed)
        self.markets: dict[int, Market] = {1: self.market}
        self.indexed = IndexedMarkets(self.markets.__getitem__)
        self._drawn = 0
        self._sealing = Vault(bytes(range(32)), random_bytes=self._random_bytes)
        self.vault = MemoryVault(self._sealing, self.intake.details)

    def apply_market(self) -> bool:
        """Apply the next version of the market; tell whether a source sleeps in it, and must be woken soon."""
        self.market = next_market(self.seed, self.market)
        self.markets[self.market.version] = self.market
        return any(source.paused for source in self.market.sources.values())

    def units(self, step: str) -> list[TopicPartition]:
        """Name the partitions that the workers of a step share."""
        match step:
            case "intake":
                sources = [
                    TopicPartition(TOPICS.source_leads(source), at)
                    for source in SOURCES
                    for at in range(SOURCE_PARTITIONS)
                ]
                return sources + [TopicPartition(TOPICS.buyer_answers(buyer), 0) for buyer in BUYERS]
            case "router":
                return [TopicPartition(TOPICS.qualified, at) for at in range(PARTITIONS)]
            case _:
                return [TopicPartition(TOPICS.log, at) for at in range(PARTITIONS)]

    def build(self, step: str, fate: Fate, faults: Faults) -> Step:
        """Build a worker's step: what is gone when it crashes."""
        return _BUILDERS[step](self, fate, faults)

    def build_intake(self, fate: Fate, faults: Faults) -> Step:
        """Build the door."""
        store = SimulatedIntakeStore(
            self.intake, cast(VirtualClock, self.database_clock), lambda: self.market, faults
        )
        return Intake(
            Admission(store, codec(), self._sealing, KEYS),
            Outlets(
                inside=Outlet(fate, self.clock, gives_up=False),
                outside=Outlet(fate, self.clock, gives_up=True),
                alive=fate.is_alive,
                topics=TOPICS,
                partitions=PARTITIONS,
            ),
            GroupPositions(self.kafka, faults),
            Clocks(now_ms=lambda: self.clock.now_ms, monotonic_s=self.clock.monotonic_s),
            _intake_metrics(),
        )

    def build_router(self, fate: Fate, faults: Faults) -> Step:
        """Build the router with its relay."""
        store = SimulatedRouterStore(
            self.router, cast(VirtualClock, self.database_clock), lambda: self.market.version, faults
        )
        relay = Relay(
            store=store,
            vault=self.vault,
            log_producer=Outlet(fate, self.clock, gives_up=False),
            outside_producer=Outlet(fate, self.clock, gives_up=True, asks=True),
            codec=codec(),
            topics=TOPICS,
            alive=fate.is_alive,
            is_known=lambda kind, id: (
                id in (self.market.sources if kind == "sources" else self.market.buyers)
            ),
            avro_buyers=self.indexed.avro_buyers,
        )
        return Router(
            store=store,
            relay=relay,
            markets=self.indexed,
            codec=codec(),
            topics=TOPICS,
            log_tail=KafkaTail(self.kafka),
            monotonic_s=self.clock.monotonic_s,
            partitions=PARTITIONS,
            metrics=_router_metrics(),
        )

    def build_resale(self, fate: Fate, faults: Faults) -> Step:
        """Build the timer."""
        windows = SimulatedWindows(
            cast(VirtualClock, self.database_clock),
            faults,
            rows=self.windows,
            stored_positions=self.window_positions,
        )
        return ResaleTimer(
            windows,
            Outlet(fate, self.clock, gives_up=False),
            codec(),
            TOPICS,
            monotonic_s=self.clock.monotonic_s,
            wait_s=self._wait,
        )

    def build_billing(self, fate: Fate, faults: Faults) -> Step:
        """Build the ledger's reader."""
        del fate
        return self._reader(Billing(SimulatedLedger(self.ledger, faults), codec()))

    def build_feed(self, fate: Fate, faults: Faults) -> Step:
        """Build the flat feed."""
        positions = SimulatedFeedPositions(faults, self.feed_positions)
        return self._reader(EventFeed(positions, Outlet(fate, self.clock, gives_up=False), TOPICS))

    def _reader(self, fold: Billing | EventFeed) -> LogReader:
        return LogReader(fold, codec(), topic=TOPICS.log, monotonic_s=self.clock.monotonic_s)

    def _wait(self, seconds: float) -> None:
        self.clock.advance(max(1, round(seconds * 1_000)))

    def _random_bytes(self, count: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_128(f"{self.seed} {self._drawn}".encode()).digest(count)

    # What an operator does

    def republish(self, partition: int) -> int:
        """Publish again from the first entry that a reader of the topic lacks; return how many.

        Where a reader's position lies behind the topic's end, so many more are repeated that it does not any longer.
        """
        last = self.router.heads[partition].published_seq
        end = len(self.kafka.records[TopicPartition(TOPICS.log, partition)])
        offsets = [found.get(partition, Position()).offset for found in self.reader_positions().values()]
        first = min(self.readable_seq(partition) + 1, last + 1 - (max(offsets) - end))
        return self.republish_from(partition, max(1, first))

    def republish_from(self, partition: int, seq: int) -> int:
        """Do as `gavel log republish` does; return how many entries were published again."""
        wanted = range(seq, self.router.heads[partition].published_seq + 1)
        for at in wanted:
            row = self.router.log[partition, at]
            self.kafka.append(Message(TOPICS.log, partition, row.lead_id.encode(), row.value))
        return len(wanted)

    def readable_seq(self, partition: int) -> int:
        """Say how far a reader of the log comes that begins at its beginning."""
        seq = 0
        for record in self.kafka.records[TopicPartition(TOPICS.log, partition)]:
            if codec().decode_entry(record.value).seq == seq + 1:
                seq += 1
        return seq

    # What is left to do

    def is_at_rest(self) -> bool:
        """Tell whether everything that came in has been decided, told and read, and nothing is waited for."""
        return not (
            self.windows
            or self.router.auctions
            or self.router.undelivered
            or any(self._is_behind(at, head) for at, head in self.router.heads.items())
        )

    def _is_behind(self, partition: int, head: Head) -> bool:
        ends = [
            len(self.kafka.records[TopicPartition(topic, partition)])
            for topic in (TOPICS.qualified, TOPICS.commands, TOPICS.timers)
        ]
        if [
            head.next_qualified,
            head.next_command,
            head.next_timer,
        ] != ends or head.published_seq != head.seq:
            return True
        return any(
            found.get(partition, Position()).seq != head.seq for found in self.reader_positions().values()
        )

    def reader_positions(self) -> Mapping[str, Mapping[int, Position]]:
        """Give how far the readers of the log are, by step."""
        return {
            "billing": self.ledger.tables.positions,
            "resale": self.window_positions,
            "feed": self.feed_positions,
        }

    def next_due_ms(self) -> Iterable[int]:
        """Name the times, by the one clock, at which a table has something due."""
        ahead_ms = self.database_clock.ahead_ms
        for row in self.windows.values():
            yield row.next_send_at_ms - ahead_ms + 1
        for auction in self.router.auctions.values():
            yield auction.closes_at_ms - ahead_ms


_BUILDERS: Mapping[str, Callable[[World, Fate, Faults], Step]] = {
    "intake": World.build_intake,
    "router": World.build_router,
    "resale": World.build_resale,
    "billing": World.build_billing,
    "feed": World.build_feed,
}


def _partitions() -> dict[str, int]:
    inside = (TOPICS.qualified, TOPICS.commands, TOPICS.timers, TOPICS.log, TOPICS.events)
    counts = dict.fromkeys(inside, PARTITIONS)
    for source in SOURCES:
        leads = TOPICS.source_leads(source)
        counts |= {leads: SOURCE_PARTITIONS, TOPICS.dead_letters(leads): SOURCE_PARTITIONS}
        counts[TOPICS.source_receipts(source)] = 1
    for buyer in BUYERS:
        answers = TOPICS.buyer_answers(buyer)
        counts |= {answers: 1, TOPICS.dead_letters(answers): 1}
        counts |= {TOPICS.buyer_leads(buyer): 1, TOPICS.buyer_pings(buyer): 1}
    return counts
