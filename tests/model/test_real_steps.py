"""The real router in the orders of events that the small model has: others act, or it dies, at every edge of an effect.

Two leads of one partition and one of another want the one unit of a cap. At each edge of a worker's run others take the
partitions over and work, who may themselves be interrupted at each of their edges; the first then goes on as a zombie.
What must hold is read from topics and tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeAlias

import orjson
import pytest

from services.bus.memory import Crash, Faults, MemoryHost
from services.bus.ports import Stopped
from services.contract.codec import codec
from services.contract.entries import Position, Taken, take
from services.contract.events import AuctionClosed, LeadClosed, LeadSold
from services.contract.ids import lead_id_of, partition_of
from services.contract.inputs import PlaceBid, QualifiedLead
from services.contract.market import Cap, Market, Period, Sell, Unit
from services.router import memory_store
from services.router.faults import StartAgain
from services.router.memory_store import MemoryRouterStore
from services.router.ports import Head, Mark
from services.router.relay import Committed
from services.router.step import Router
from tests.support.deciding import BID_WINDOW_MS, bid_stage, exclusive_stage, lead, market, order, plan
from tests.support.routing import PARTITIONS, TOPICS, World, world

pytestmark = pytest.mark.stream

CLOSES_AFTER_MS = BID_WINDOW_MS + 50
ONE_LEAD = Cap(unit=Unit.LEADS, period=Period.DAY, most=1)
DIRECT = market(plan(exclusive_stage(9000)), orders=(order("a", exclusive=9000, caps=(ONE_LEAD,)),))
AUCTIONED = market(
    plan(bid_stage(Sell.EXCLUSIVE, exclusive=5000), sales_max=1),
    orders=(order("a", exclusive="bid", caps=(ONE_LEAD,)), order("silent", exclusive="bid")),
)
IN_A_TRANSACTION = frozenset({"mark"})
"""The twin has compared there and not written yet; in PostgreSQL the row is locked meanwhile."""

COMMITS = frozenset({"commit", "lock", "committed", "mark", "marked"})
WORKS_ON = "works on"
DIES = "dies"
UNANSWERED = "loses the answer"


def _leads() -> list[QualifiedLead]:
    """Two leads of partition 0 and one of partition 1."""
    found: dict[int, list[QualifiedLead]] = {partition: [] for partition in range(PARTITIONS)}
    for number in range(20):
        reference = f"lead-{number}"
        found[partition_of(lead_id_of("sunform", reference), PARTITIONS)].append(lead(reference))
    return [*found[0][:2], found[1][0]]


LEADS = _leads()


def _sent(given_market: Market) -> World:
    """A world whose leads wait to be decided; those of an auction by the clock alone, which moves no position."""
    given = world(given_market)
    given.send(*LEADS)
    if given_market is AUCTIONED:
        given.worker().drain()
        at_ms = given.clock.now_ms
        given.send(
            *(
                PlaceBid(
                    lead_id=item.lead_id,
                    buyer_id="a",
                    auction_number=1,
                    exclusive_cents=6000,
                    shared_cents=None,
                    answered_at_ms=at_ms,
                )
                for item in LEADS
            )
        )
        given.worker().drain()
        given.clock.advance(CLOSES_AFTER_MS)
    return given


Act: TypeAlias = Callable[[], None]


class _At(Faults):
    """Does something at one edge, and then what the worker itself suffers there."""

    def __init__(self, at: int, act: Act, then: str = WORKS_ON) -> None:
        super().__init__()
        self._at = at
        self._act = act
        self._then = then

    def edge(self, name: str) -> None:
        super().edge(name)
        if self.edges != self._at:
            return
        if name not in IN_A_TRANSACTION:
            self._act()
        if self._then == DIES:
            raise Crash(name)
        if self._then == UNANSWERED and name in COMMITS:
            raise StartAgain


@dataclass(slots=True)
class _Run:
    """One order of events in a world of its own."""

    given: World
    workers: list[MemoryHost]

    def work(self, faults: Faults | None = None) -> None:
        """Have a worker take everything over, a moment later, and work until nothing is left or it dies."""
        self.given.clock.advance(1)
        try:
            worker = self.given.worker(faults)
            self.workers.append(worker)
            worker.drain()
        except Crash:
            return

    def finish(self) -> None:
        """Let a last worker take over, time pass, and all who live wake up once more."""
        self.work()
        self.given.clock.advance(2_000)
        for worker in self.workers:
            try:
                worker.drain()
            except Crash:
                continue
        self.work()


def _edges(given_market: Market) -> int:
    """Count the edges of a run that nobody interrupts."""
    faults = Faults()
    _Run(_sent(given_market), []).work(faults)
    return faults.edges


def _check(given: World) -> None:
    """See that the promises hold, from topics and tables alone."""
    taken = _taken(given)
    assert {key: row.value for key, row in given.tables.log.items()} == taken
    events = [event for value in taken.values() for event in codec().events_of(codec().decode_entry(value))]
    closes = Counter(row.lead_id for row in given.tables.closes.values())
    assert closes == Counter(item.lead_id for item in LEADS)
    assert sum(isinstance(event, LeadClosed) for event in events) == len(LEADS)
    sold = [event for event in events if isinstance(event, LeadSold)]
    assert len(sold) == 1 == len(given.tables.sales), "the cap has one unit, and there were three takers"
    assert [row.used for row in given.tables.counters.values()] == [1]
    auctions = sum(isinstance(event, AuctionClosed) for event in events)
    assert auctions == (len(LEADS) if given.market is AUCTIONED else 0)
    delivered = {
        (orjson.loads(record.value or b"")["sale_id"], record.value)
        for record in given.kafka.topic(TOPICS.buyer_leads("a"))
    }
    assert [sale_id for sale_id, _ in delivered] == [sold[0].sale_id], (
        "delivered once, or again with the same bytes"
    )
    heads = given.tables.heads.values()
    assert all(head.published_seq == head.seq for head in heads)
    assert not given.tables.undelivered


def _taken(given: World) -> dict[tuple[int, int], bytes | None]:
    """Read the log as readers do; each record in it must be one that they take, or repeat one that they took."""
    positions = dict.fromkeys(range(PARTITIONS), Position())
    found: dict[tuple[int, int], bytes | None] = {}
    for record in given.kafka.topic(TOPICS.log):
        entry, at = codec().decode_entry(record.value), record.partition
        reading = take(
            positions[at],
            seq=entry.seq,
            prev_hash=entry.prev_hash,
            value=record.value or b"",
            offset=record.offset,
        )
        if isinstance(reading, Taken):
            positions[at] = reading.position
            found[at, entry.seq] = record.value
        else:
            assert found.get((at, entry.seq)) == record.value, (
                "a repeat has the same bytes, and none is skipped"
            )
    return found


def _orders(given_market: Market) -> Iterator[tuple[str, _Run]]:
    """Go through the orders of events: who acts at which edge, who is interrupted there, and what becomes of them."""
    edges = _edges(given_market)
    for at in range(1, edges + 1):
        for then in (WORKS_ON, DIES, UNANSWERED):
            alone = _Run(_sent(given_market), [])
            alone.work(_At(at, lambda: None, then))
            yield f"edge {at}: {then}", alone
            met = _Run(_sent(given_market), [])
            met.work(_At(at, met.work, then))
            yield f"edge {at}: another works, the first {then}", met
        for inner in range(1, edges + 6, 2):
            for others in (WORKS_ON, DIES, UNANSWERED):
                deep = _Run(_sent(given_market), [])
                interrupted = _At(inner + at % 2, deep.work if others == WORKS_ON else lambda: None, others)
                deep.work(_At(at, lambda deep=deep, faults=interrupted: deep.work(faults)))  # type: ignore[misc]
                yield f"edge {at}: another works, at its edge {inner + at % 2} it {others}", deep


@pytest.mark.parametrize("given_market", [DIRECT, AUCTIONED], ids=["direct", "auctioned"])
def test_no_order_of_two_workers_effects_breaks_a_promise(given_market: Market) -> None:
    tried = 0
    for name, run in _orders(given_market):
        try:
            run.finish()
            _check(run.given)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
        tried += 1
    assert tried > 500


@pytest.mark.parametrize("given_market", [DIRECT, AUCTIONED], ids=["direct", "auctioned"])
def test_worker_that_had_the_partitions_before_changes_nothing_by_waking_up(given_market: Market) -> None:
    """It has taken over at the same head, and acts on what it remembers at each edge of the other's run."""
    for at in range(1, _edges(given_market) + 1):
        given = _sent(given_market)
        zombie = given.worker()
        run = _Run(given, [zombie])
        run.work(_At(at, lambda zombie=zombie: zombie.drain()))  # type: ignore[misc]
        run.finish()
        _check(given)


def test_check_sees_a_commit_that_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_store, "_is_same", lambda *_: True)
    with pytest.raises((AssertionError, Stopped)):
        test_no_order_of_two_workers_effects_breaks_a_promise(DIRECT)


def test_check_sees_a_commit_that_compares_positions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision of the clock moves none."""

    def is_same(stored: Head, known: Head) -> bool:
        of = attrgetter("next_qualified", "next_command", "next_timer")
        return bool(of(stored) == of(known))

    monkeypatch.setattr(memory_store, "_is_same", is_same)
    with pytest.raises((AssertionError, Stopped)):
        test_no_order_of_two_workers_effects_breaks_a_promise(AUCTIONED)


def test_check_sees_a_mark_that_moves_before_the_log_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    def move_marks(self: MemoryRouterStore, marks: Sequence[Mark]) -> None:
        heads = self.tables.heads
        for mark in marks:
            heads[mark.partition] = replace(heads[mark.partition], published_seq=mark.after_seq)
        self.faults.edge("marked")

    def publish(self: Router, batch: Sequence[Committed]) -> None:
        for committed in batch:
            owned = self._owned[committed.row.partition]
            owned.published_seq = committed.row.seq
            self._store.move_marks(
                [Mark(partition=committed.row.partition, before_seq=0, after_seq=committed.row.seq)]
            )
        self._relay.publish(batch)

    monkeypatch.setattr(MemoryRouterStore, "move_marks", move_marks)
    monkeypatch.setattr(Router, "_publish", publish)
    with pytest.raises((AssertionError, Stopped)):
        test_no_order_of_two_workers_effects_breaks_a_promise(DIRECT)
