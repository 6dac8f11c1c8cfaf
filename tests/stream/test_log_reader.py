"""How every reader takes the log (protocol.md, rule 20): the next entry and nothing else, each folded exactly once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from services.bus.log_reader import LogReader, Move, Overtaken, TakenEntry
from services.bus.memory import Crash, Faults, MemoryHost, MemoryKafka, VirtualClock
from services.bus.ports import Message, Stopped, TopicPartition
from services.contract.codec import codec
from services.contract.entries import Position
from services.contract.events import StageStarted, WindowClosed
from tests.support.written_log import WrittenLog

TOPIC = "leads.log"
LEAD = "lead-1"


@dataclass
class Folded:
    """A fold that keeps what it was given: entries and positions move in one step, as in one transaction."""

    faults: Faults = field(default_factory=Faults)
    seqs: list[tuple[int, int]] = field(default_factory=list)
    stored: dict[int, Position] = field(default_factory=dict)
    idled: int = 0

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        return {at: self.stored.setdefault(at, Position()) for at in partitions}

    def apply(self, taken: Sequence[TakenEntry], moves: Mapping[int, Move]) -> None:
        self.faults.edge("commit")
        if overtaken := [at for at, move in moves.items() if self.stored[at] != move.before]:
            raise Overtaken(overtaken)
        self.seqs += [(one.partition, one.entry.seq) for one in taken]
        self.stored.update({at: move.after for at, move in moves.items()})
        self.faults.edge("committed")

    def idle(self) -> None:
        self.idled += 1


@dataclass
class World:
    """A log of one lead (so of one partition), its readers, and values written but not yet published."""

    partitions: int = 2
    fold: Folded = field(default_factory=Folded)

    def __post_init__(self) -> None:
        self.clock = VirtualClock()
        self.kafka = MemoryKafka({TOPIC: self.partitions}, clock=self.clock)
        self.log = WrittenLog(self.partitions)
        self.partition = self.log.partition_of(LEAD)

    def values(self, count: int) -> list[bytes]:
        """Write the next entries without publishing them."""
        return [self.log.next_value(LEAD, StageStarted(stage=number)) for number in range(count)]

    def publishes(self, *values: bytes) -> None:
        """Append values to the topic."""
        for value in values:
            self.kafka.append(Message(TOPIC, self.partition, LEAD.encode(), value))

    def reader(self, batch_max: int = 500) -> MemoryHost:
        """Start a reader of all partitions."""
        step = LogReader(self.fold, codec(), topic=TOPIC, monotonic_s=self.clock.monotonic_s)
        host = MemoryHost(self.kafka, step, batch_max=batch_max)
        host.assign([TopicPartition(TOPIC, at) for at in range(self.partitions)])
        return host

    def folded(self) -> list[int]:
        """List what was folded of the lead's partition."""
        return [seq for partition, seq in self.fold.seqs if partition == self.partition]


def test_folds_the_entries_in_order_and_stores_where_it_is() -> None:
    world = World()
    world.publishes(*world.values(5))
    world.reader().drain()
    assert world.folded() == [1, 2, 3, 4, 5]
    assert world.fold.stored[world.partition] == world.log.positions[world.partition]


def test_drops_repeats() -> None:
    world = World()
    first, second, third = world.values(3)
    world.publishes(first, second, first, second, third, third)
    world.reader().drain()
    assert world.folded() == [1, 2, 3]


def test_drops_what_is_ahead_until_the_missing_entry_comes() -> None:
    world = World()
    first, second, third = world.values(3)
    world.publishes(first, third)
    host = world.reader()
    host.drain()
    assert world.folded() == [1]
    world.clock.advance(59_000)
    host.turn()
    world.publishes(second, third)
    host.drain()
    assert world.folded() == [1, 2, 3]
    world.clock.advance(120_000)
    host.turn()


@pytest.mark.parametrize("more_comes", [True, False])
def test_stops_when_an_entry_is_missing_for_over_60_s_and_says_how_to_go_on(more_comes: bool) -> None:
    world = World()
    first, _, third, fourth = world.values(4)
    world.publishes(first, third)
    host = world.reader()
    host.drain()
    world.clock.advance(60_001)
    if more_comes:
        world.publishes(fourth)
    with pytest.raises(
        Stopped, match=rf"entry 2 is missing.*republish --partition {world.partition} --from 2"
    ):
        host.turn()
    assert world.folded() == [1]


def test_stops_for_a_gap_that_comes_in_one_batch_with_what_precedes_it() -> None:
    world = World()
    first, second, _, fourth = world.values(4)
    host = world.reader()
    world.publishes(first, second, fourth)
    host.drain()
    world.clock.advance(60_001)
    with pytest.raises(Stopped, match="entry 3 is missing"):
        host.turn()


def test_each_gap_has_60_s_of_its_own() -> None:
    world = World()
    first, second, third, fourth = world.values(4)
    world.publishes(first, third)
    host = world.reader()
    host.drain()
    world.clock.advance(50_000)
    world.publishes(second, fourth)
    host.drain()
    world.clock.advance(50_000)
    host.turn()
    world.publishes(third, fourth)
    host.drain()
    assert world.folded() == [1, 2, 3, 4]


def test_restarted_reader_finds_again_what_it_dropped_as_ahead() -> None:
    world = World()
    first, second, third = world.values(3)
    world.publishes(first, third)
    world.reader().drain()
    world.publishes(second, third)
    world.reader().drain()
    assert world.folded() == [1, 2, 3]


def test_stops_at_once_at_an_entry_that_does_not_follow_its_predecessor() -> None:
    world = World()
    first, second = world.values(2)
    forged = WrittenLog(world.partitions)
    forged.next_value(LEAD, WindowClosed(window_number=9))
    world.publishes(first, forged.next_value(LEAD, WindowClosed(window_number=8)), second)
    with pytest.raises(Stopped, match=r"offset 1: entry 2 does not follow its predecessor"):
        world.reader().drain()
    assert world.folded() == []


def test_stops_at_a_changed_past_after_a_restart() -> None:
    """The stored hash, not memory, is what the next entry is held against."""
    world = World()
    world.publishes(*world.values(1))
    world.reader().drain()
    forged = WrittenLog(world.partitions)
    forged.next_value(LEAD, WindowClosed(window_number=9))
    world.publishes(forged.next_value(LEAD, WindowClosed(window_number=8)))
    with pytest.raises(Stopped, match="History was changed"):
        world.reader().drain()


@pytest.mark.parametrize(
    "value", [b"", b"\x00\x00\x00\x00\x01", b"not of ours", codec().encode(StageStarted(stage=1))]
)
def test_never_skips_what_it_cannot_read(value: bytes) -> None:
    world = World()
    world.publishes(*world.values(1), value)
    with pytest.raises(Stopped, match=r"offset 1: .*No reader may skip an entry"):
        world.reader().drain()
    assert world.folded() == [1], "what comes before it is folded, so that the position stands at it"


def test_names_the_command_that_goes_on_behind_what_it_cannot_read() -> None:
    world = World()
    first, second = world.values(2)
    world.publishes(first, b"not of ours", second)
    where = f"{TOPIC} {world.partition} 1"
    for _ in range(2):
        with pytest.raises(Stopped, match=f"gavel log skip {where}"):
            world.reader().drain()
    assert world.fold.stored[world.partition].offset == 1
    world.fold.stored[world.partition] = replace(world.fold.stored[world.partition], offset=2)
    world.reader().drain()
    assert world.folded() == [1, 2]


def test_who_follows_another_reader_passes_over_what_that_one_has_and_misses_nothing() -> None:
    world = World()
    first, second = world.values(2)
    world.publishes(first, b"not of ours", second)
    reader = LogReader(
        world.fold, codec(), topic=TOPIC, monotonic_s=lambda: world.clock.now_ms / 1_000, follows_another=True
    )
    at = TopicPartition(TOPIC, world.partition)
    reader.take_over([at])
    reader.handle(world.kafka.records[at])
    assert world.folded() == [1, 2]


def test_records_of_partitions_that_are_not_its_own_are_dropped() -> None:
    world = World()
    host = world.reader()
    world.publishes(*world.values(2))
    records = list(world.kafka.records[TopicPartition(TOPIC, world.partition)])
    host.step.release([TopicPartition(TOPIC, world.partition)])
    assert not host.step.handle(records)
    assert world.folded() == []


def test_reader_that_was_overtaken_stores_nothing_and_starts_again_from_the_database() -> None:
    world = World()
    zombie = world.reader(batch_max=2)
    values = world.values(6)
    world.publishes(*values[:3])
    world.reader().drain()
    zombie.turn()
    assert world.folded() == [1, 2, 3]
    assert world.fold.stored[world.partition].seq == 3
    world.publishes(*values[3:])
    zombie.drain()
    assert world.folded() == [1, 2, 3, 4, 5, 6]


def test_two_owners_in_turn_fold_each_entry_once() -> None:
    world = World()
    one, other = world.reader(batch_max=3), world.reader(batch_max=2)
    world.publishes(*world.values(40))
    for _ in range(60):
        one.turn()
        other.turn()
    assert world.folded() == list(range(1, 41))


def test_lets_the_fold_do_what_is_due_with_records_and_without() -> None:
    world = World()
    host = world.reader()
    host.turn()
    assert world.fold.idled == 1
    world.publishes(*world.values(1))
    host.turn()
    assert world.fold.idled == 2


def _run_until_done(world: World) -> None:
    while True:
        try:
            world.reader(batch_max=2).drain()
            return
        except Crash:
            continue


def test_crash_at_any_edge_folds_each_entry_exactly_once() -> None:
    whole = Folded()
    world = World(fold=whole)
    world.publishes(*world.values(7))
    _run_until_done(world)
    assert whole.faults.edges == 8
    for edge in range(1, whole.faults.edges + 1):
        world = World(fold=Folded(Faults(crash_at=edge)))
        values = world.values(7)
        world.publishes(*values[:4], *values[1:])
        _run_until_done(world)
        assert world.folded() == list(range(1, 8))


def test_planted_fold_that_ignores_its_position_is_caught() -> None:
    """The check of the test above is one: a fold that stores entries and position apart folds some twice."""

    class Careless(Folded):
        def apply(self, taken: Sequence[TakenEntry], moves: Mapping[int, Move]) -> None:
            self.seqs += [(one.partition, one.entry.seq) for one in taken]
            self.faults.edge("entries committed")
            self.stored.update({at: move.after for at, move in moves.items()})

    world = World(fold=Careless(Faults(crash_at=1)))
    world.publishes(*world.values(3))
    _run_until_done(world)
    assert world.folded() != [1, 2, 3]
