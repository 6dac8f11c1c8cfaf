"""The resale timer as a whole step on the in-memory bus: never early, again if need be, nothing lost in a crash."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import ceil

import pytest

from services.bus.log_reader import AHEAD_FOR_AT_MOST_S
from services.bus.memory import Crash, Faults, MemoryHost, MemoryKafka, MemoryProducer, VirtualClock
from services.bus.ports import BusFailed, Stopped, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.events import (
    AuctionOpened,
    Invitation,
    LeadClosed,
    Outcome,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from services.contract.ids import account_id_of
from services.contract.inputs import TimerDue
from services.contract.market import Mode, Selection, Sell
from services.contract.times import HOUR_MS, MINUTE_MS
from services.contract.topics import Topics
from services.resale.domain import Due
from services.resale.memory import MemoryWindows
from services.resale.timer import LOOK_BURST, ResaleTimer
from tests.support.log_builder import money_moved
from tests.support.written_log import WrittenLog

TOPICS = Topics()
PARTITIONS = 4
ALL = [TopicPartition(TOPICS.log, at) for at in range(PARTITIONS)]
ENDED = LeadClosed(
    outcome=Outcome.DEAL, source_id="sunform", lead_type="solar", plan="standard", holders=(), is_test=False
)


@dataclass
class World:
    """A log, a table of windows, and workers upon them."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    outstanding_max: int = 10_000
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.kafka = MemoryKafka({TOPICS.log: PARTITIONS, TOPICS.timers: PARTITIONS}, clock=self.clock)
        self.windows = MemoryWindows(self.clock, faults=self.faults, outstanding_max=self.outstanding_max)
        self.log = WrittenLog(PARTITIONS)

    def worker(self, assigned: list[TopicPartition] = ALL) -> MemoryHost:
        """Start a worker that owns these partitions."""
        producer = MemoryProducer(self.kafka, self.faults)
        step = ResaleTimer(
            self.windows, producer, codec(), TOPICS, monotonic_s=self.clock.monotonic_s, wait_s=self.waits
        )
        host = MemoryHost(self.kafka, step)
        host.assign(assigned)
        return host

    def waits(self, seconds: float) -> None:
        """Let time pass for a worker that waits."""
        self.clock.advance(ceil(seconds * 1_000))

    def opens(self, lead_id: str, number: int, in_ms: int, kind: WindowKind = WindowKind.EXCLUSIVITY) -> int:
        """Open a window in the log; return when it is due."""
        due_at_ms = self.clock.now_ms + in_ms
        opened = WindowOpened(window_number=number, kind=kind, due_at_ms=due_at_ms)
        self.log.append(self.kafka, TOPICS.log, lead_id, opened)
        return due_at_ms

    def closes(self, lead_id: str, number: int) -> None:
        """Close a window in the log."""
        self.log.append(self.kafka, TOPICS.log, lead_id, WindowClosed(window_number=number))

    def ends(self, lead_id: str) -> None:
        """Close a lead in the log."""
        self.log.append(self.kafka, TOPICS.log, lead_id, ENDED)

    def sent(self) -> list[tuple[str, int, int]]:
        """List what was sent: lead, window, when."""
        records = self.kafka.topic(TOPICS.timers)
        for record in records:
            due = codec().decode(record.value)
            assert isinstance(due, TimerDue)
            assert record.key == due.lead_id.encode()
            assert record.partition == self.log.partition_of(due.lead_id)
        dues = ((codec().decode(record.value), record.timestamp_ms) for record in records)
        return [(due.lead_id, due.window_number, at_ms) for due, at_ms in dues]

    def runs(self, host: MemoryHost, for_ms: int, step_ms: int = 10) -> None:
        """Let time pass with the worker turning."""
        for _ in range(for_ms // step_ms):
            self.clock.advance(step_ms)
            host.turn()


def test_sends_a_window_when_due_and_not_a_millisecond_before() -> None:
    world = World()
    host = world.worker()
    due_at_ms = world.opens("lead-1", 1, in_ms=5_000)
    host.drain()
    while world.clock.now_ms < due_at_ms - 1:
        assert world.sent() == []
        world.runs(host, 1, step_ms=1)
    world.runs(host, 3, step_ms=1)
    [(lead_id, number, at_ms)] = world.sent()
    assert (lead_id, number) == ("lead-1", 1)
    assert due_at_ms <= at_ms <= due_at_ms + 2


@pytest.mark.parametrize("kind", WindowKind)
def test_holds_windows_of_every_kind(kind: WindowKind) -> None:
    world = World()
    host = world.worker()
    due_at_ms = world.opens("lead-1", 1, in_ms=2_000, kind=kind)
    host.drain()
    world.runs(host, 2_100)
    [(lead_id, number, at_ms)] = world.sent()
    assert (lead_id, number) == ("lead-1", 1)
    assert at_ms >= due_at_ms


def test_auctions_and_money_open_no_window() -> None:
    world = World()
    host = world.worker()
    auction = AuctionOpened(
        auction_number=1, stage=0, selection=Selection.PING_POST, sell=Sell.EITHER,
        bids_until_ms=world.clock.now_ms + 500, closes_at_ms=world.clock.now_ms + 550,
        floor_exclusive_cents=5_000, floor_shared_cents=None, currency="USD",
        invited=(Invitation(buyer_id="oak", order_id="oak/auction", modes=(Mode.EXCLUSIVE,)),),
        sale_number=1, sales_max=3, exclusive_for_ms=None, lead_type="mortgage", quality=50,
        fields={"state": "NY"}, holders=(), is_test=False,
    )  # fmt: skip
    world.log.append(world.kafka, TOPICS.log, "lead-1", auction)
    world.log.append(world.kafka, TOPICS.log, account_id_of("oak"), money_moved())
    host.drain()
    world.runs(host, 2_000)
    assert world.sent() == []
    assert world.windows.due(range(PARTITIONS), at_most=10).next_at_ms is None


def test_idle_worker_sends_single_windows_within_20_ms_however_they_fall() -> None:
    world = World()
    host = world.worker()
    dues = {number: world.opens("lead-1", number, in_ms=100 + 337 * number) for number in range(30)}
    host.drain()
    world.runs(host, 12_000, step_ms=50)
    late_ms = [at_ms - dues[number] for _, number, at_ms in world.sent()]
    assert len(late_ms) == 30
    assert min(late_ms) >= 0
    assert max(late_ms) <= 20


def test_sends_a_window_that_is_opened_overdue_at_once() -> None:
    world = World()
    host = world.worker()
    host.drain()
    world.opens("lead-1", 1, in_ms=-1)
    host.drain()
    assert [(lead_id, number) for lead_id, number, _ in world.sent()] == [("lead-1", 1)]


def test_sends_nothing_for_a_window_that_was_closed() -> None:
    world = World()
    host = world.worker()
    world.opens("lead-1", 1, in_ms=1_000)
    world.opens("lead-1", 2, in_ms=1_000)
    host.drain()
    world.closes("lead-1", 1)
    world.runs(host, 2_000)
    assert [(lead_id, number) for lead_id, number, _ in world.sent()] == [("lead-1", 2)]


def test_close_of_a_lead_closes_all_its_windows() -> None:
    world = World()
    host = world.worker()
    world.opens("lead-1", 1, in_ms=1_000)
    world.opens("lead-1", 2, in_ms=1_000)
    world.opens("lead-2", 1, in_ms=1_000)
    host.drain()
    world.ends("lead-1")
    world.runs(host, 2_000)
    assert [lead_id for lead_id, _, _ in world.sent()] == ["lead-2"]
    assert world.windows.rows.keys() == {("lead-2", 1)}


def test_sends_again_after_1_2_4_minutes_until_the_log_closes_it() -> None:
    world = World()
    host = world.worker()
    due_at_ms = world.opens("lead-1", 1, in_ms=1_000)
    host.drain()
    world.runs(host, 8 * MINUTE_MS, step_ms=500)
    minutes = [(at_ms - due_at_ms) / MINUTE_MS for _, _, at_ms in world.sent()]
    assert minutes == pytest.approx([0, 1, 3, 7], abs=0.04)
    world.closes("lead-1", 1)
    world.runs(host, 2 * HOUR_MS, step_ms=10_000)
    assert len(world.sent()) == 4


def test_keeps_at_most_the_limit_outstanding_in_a_partition() -> None:
    world = World(outstanding_max=3)
    host = world.worker()
    for number in range(8):
        world.opens("lead-1", number, in_ms=number)
    host.drain()
    world.runs(host, 10_000, step_ms=50)
    assert [number for _, number, _ in world.sent()] == [0, 1, 2]
    world.closes("lead-1", 0)
    world.closes("lead-1", 1)
    world.runs(host, 3_000, step_ms=50)
    assert [number for _, number, _ in world.sent()] == [0, 1, 2, 3, 4]


def test_outstanding_windows_of_one_partition_hold_up_no_other() -> None:
    world = World(outstanding_max=1)
    host = world.worker()
    first = next(f"lead-{n}" for n in range(99) if world.log.partition_of(f"lead-{n}") == 0)
    second = next(f"lead-{n}" for n in range(99) if world.log.partition_of(f"lead-{n}") == 1)
    world.opens(first, 1, in_ms=0)
    world.opens(first, 2, in_ms=0)
    world.opens(second, 1, in_ms=5)
    host.drain()
    world.runs(host, 2_000)
    assert {(lead_id, number) for lead_id, number, _ in world.sent()} == {(first, 1), (second, 1)}


def test_sends_only_for_partitions_that_it_owns() -> None:
    world = World()
    host = world.worker()
    for lead in range(40):
        world.opens(f"lead-{lead}", 1, in_ms=1_000)
    host.drain()
    host.revoke(ALL[2:])
    world.runs(host, 3_000)
    assert {world.log.partition_of(lead_id) for lead_id, _, _ in world.sent()} == {0, 1}
    world.worker(ALL[2:]).drain()
    assert {lead_id for lead_id, _, _ in world.sent()} == {f"lead-{lead}" for lead in range(40)}


def test_sends_what_fell_due_while_no_worker_ran() -> None:
    world = World()
    world.opens("lead-1", 1, in_ms=1_000)
    world.worker().drain()
    world.clock.advance(HOUR_MS)
    world.worker().turn()
    assert [(lead_id, number) for lead_id, number, _ in world.sent()] == [("lead-1", 1)]


class CountingWindows(MemoryWindows):
    """Counts how often it is asked what is due."""

    looks = 0

    def due(self, partitions: Collection[int], *, at_most: int) -> Due:
        """Count, and answer."""
        self.looks += 1
        return super().due(partitions, at_most=at_most)


def test_asks_the_table_at_most_20_times_a_second_while_windows_fall_due_one_after_the_other() -> None:
    world = World()
    world.windows = windows = CountingWindows(world.clock)
    host = world.worker()
    for number in range(1_000):
        world.opens("lead-1", number, in_ms=1_000 + 5 * number)
    host.drain()
    windows.looks = 0
    world.runs(host, 7_000, step_ms=1)
    assert len(world.sent()) == 1_000
    assert windows.looks <= 7 * 20 + LOOK_BURST


def test_asks_the_table_once_a_second_while_nothing_is_due() -> None:
    world = World()
    world.windows = windows = CountingWindows(world.clock)
    host = world.worker()
    world.opens("lead-1", 1, in_ms=HOUR_MS)
    host.drain()
    windows.looks = 0
    world.runs(host, 10_000, step_ms=1)
    assert windows.looks <= 10


def test_worker_whose_timers_kafka_refuses_stops_and_marks_nothing() -> None:
    world = World()
    refused = Unacknowledged(0, None, "queue full")
    producer = MemoryProducer(world.kafka, refuses=lambda _: refused)
    step = ResaleTimer(
        world.windows, producer, codec(), TOPICS, monotonic_s=world.clock.monotonic_s, wait_s=world.waits
    )
    host = MemoryHost(world.kafka, step)
    host.assign(ALL)
    world.opens("lead-1", 1, in_ms=0)
    with pytest.raises(BusFailed, match=r"leads\.timers did not take"):
        host.drain()
    assert world.windows.rows["lead-1", 1].sends == 0


def test_zombie_owner_changes_nothing_and_starts_again() -> None:
    world = World()
    zombie = world.worker()
    world.opens("lead-1", 1, in_ms=60_000)
    zombie.drain()
    owner = world.worker()
    world.opens("lead-1", 2, in_ms=60_000)
    world.closes("lead-1", 1)
    owner.drain()
    before = dict(world.windows.rows)
    zombie.turn()
    assert world.windows.rows == before
    world.opens("lead-1", 3, in_ms=60_000)
    zombie.drain()
    assert world.windows.rows.keys() == {("lead-1", 2), ("lead-1", 3)}


def _crash_run(faults: Faults) -> World:
    """Run one story to its end, with a new worker after each crash."""
    world = World(faults=faults)
    for lead in range(3):
        world.opens(f"lead-{lead}", 1, in_ms=1_000)
        world.opens(f"lead-{lead}", 2, in_ms=3_000)
    world.closes("lead-0", 1)
    world.ends("lead-2")
    host = world.worker()
    for _ in range(400):
        world.clock.advance(10)
        try:
            host.turn()
        except Crash:
            host = world.worker()
    return world


def test_crash_at_any_edge_loses_no_window_and_sends_none_early() -> None:
    whole = Faults()
    assert {(lead_id, number) for lead_id, number, _ in _crash_run(whole).sent()} == {
        ("lead-0", 2),
        ("lead-1", 1),
        ("lead-1", 2),
    }
    for edge in range(1, whole.edges + 1):
        world = _crash_run(Faults(crash_at=edge))
        sent = world.sent()
        assert {(lead_id, number) for lead_id, number, _ in sent} == {
            ("lead-0", 2),
            ("lead-1", 1),
            ("lead-1", 2),
        }
        dues = {key: row.window.due_at_ms for key, row in world.windows.rows.items()}
        assert all(at_ms >= dues[lead_id, number] for lead_id, number, at_ms in sent)
        assert len(sent) <= 3 + 2, "a crash repeats at most one look"
        assert {key: row.sends for key, row in world.windows.rows.items()} == dict.fromkeys(dues, 1)


def test_stops_where_an_entry_of_the_log_stays_missing_even_if_nothing_comes_after_it() -> None:
    world = World()
    for number in range(3):
        world.opens("lead-0", number, HOUR_MS)
    where = TopicPartition(TOPICS.log, world.log.partition_of("lead-0"))
    del world.kafka.records[where][1]
    worker = world.worker()
    worker.turn()
    world.waits(AHEAD_FOR_AT_MOST_S + 1)
    with pytest.raises(Stopped, match="entry 2 is missing"):
        worker.turn()
