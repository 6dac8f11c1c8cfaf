"""The shell of every reader of `leads.log`: takes entries by the contract's rule and folds them by batch.

What a fold does with the entries is its own affair, as long as it stores the new positions by compare-and-set in the
same transaction. A reader never skips: what it cannot read stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, Protocol, assert_never

from prometheus_client import CollectorRegistry

from services.bus.metrics import ReaderMetrics
from services.bus.ports import Record, Stopped, TopicPartition
from services.contract.codec import Codec, NotReadable
from services.contract.entries import Ahead, Broken, Entry, Position, Repeat, Taken, take

AHEAD_FOR_AT_MOST_S = 60.0


class TakenEntry(NamedTuple):
    """An entry that was next, and the partition that it stands in."""

    partition: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Move:
    """A reader's position in one partition, before a batch and after it."""

    before: Position
    after: Position


class Overtaken(Exception):
    """Another owner has moved these partitions on; nothing of the batch was stored."""

    def __init__(self, partitions: Iterable[int]) -> None:
        """Name the partitions."""
        self.partitions = frozenset(partitions)
        super().__init__(f"another owner has moved on partitions {sorted(self.partitions)}")


class Unreadable(Stopped):
    """A record that is no entry stands in the log; all before it is folded, so that the position stands at it."""


class LogFold(Protocol):
    """What a step makes of the log."""

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions; a partition never read has `Position()`."""
        ...

    def apply(self, taken: Sequence[TakenEntry], moves: Mapping[int, Move]) -> None:
        """Fold the entries and move the positions by compare-and-set, in one transaction.

        Raise `Overtaken`, with nothing stored, where a stored position is not the move's `before`.
        """
        ...

    def idle(self) -> None:
        """Do what is due when no entries come in, and also from time to time when they do."""
        ...


class LogReader:
    """A `Step` that reads `leads.log` for a fold."""

    def __init__(
        self,
        fold: LogFold,
        codec: Codec,
        *,
        topic: str,
        monotonic_s: Callable[[], float],
        registry: CollectorRegistry | None = None,
        follows_another: bool = False,
    ) -> None:
        """Read `topic` for `fold`.

        `follows_another`: only as far as another reader has come. What is no entry there is passed over as that one did
        by an operator's word; the chain tells if it was an entry after all.
        """
        self._follows_another = follows_another
        self._fold = fold
        self._codec = codec
        self._topic = topic
        self._monotonic_s = monotonic_s
        self._metrics = ReaderMetrics(registry or CollectorRegistry())
        self._positions: dict[int, Position] = {}
        self._ahead_since_s: dict[int, float] = {}

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin at the stored positions."""
        found = self._fold.positions([where.partition for where in assigned])
        for partition, position in found.items():
            self._positions[partition] = position
            self._ahead_since_s.pop(partition, None)
        return {
            TopicPartition(self._topic, partition): position.offset for partition, position in found.items()
        }

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Forget the partitions."""
        for where in revoked:
            self._positions.pop(where.partition, None)
            self._ahead_since_s.pop(where.partition, None)

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Take what is next, drop what is not, and fold; raise `Unreadable` once all before such a record is folded."""
        taken: list[TakenEntry] = []
        after = dict(self._positions)
        try:
            self._take(records, taken, after)
        except Unreadable:
            if taken:
                self._apply(taken, after)
            raise
        again = self._apply(taken, after) if taken else ()
        return again or self.idle()

    def _take(self, records: Sequence[Record], taken: list[TakenEntry], after: dict[int, Position]) -> None:
        for record in records:
            partition = record.partition
            position = after.get(partition)
            if position is None:
                continue
            value = record.value
            try:
                entry = self._decoded(record)
            except Unreadable:
                if self._follows_another:
                    continue
                raise
            assert value is not None
            reading = take(
                position, seq=entry.seq, prev_hash=entry.prev_hash, value=value, offset=record.offset
            )
            if isinstance(reading, Taken):
                after[partition] = reading.position
                taken.append(TakenEntry(partition, entry))
                if self._ahead_since_s:
                    self._ahead_since_s.pop(partition, None)
            else:
                self._drop(record, entry, reading)

    def idle(self) -> Collection[TopicPartition]:
        """Let the fold do what is due, and stop where an entry has been missing for long."""
        self._fold.idle()
        for partition, since_s in self._ahead_since_s.items():
            if self._monotonic_s() - since_s > AHEAD_FOR_AT_MOST_S:
                self._stop_without(partition, self._positions[partition].seq + 1)
        return ()

    def _decoded(self, record: Record) -> Entry:
        try:
            return self._codec.decode_entry(record.value)
        except NotReadable as error:
            raise Unreadable(
                f"{self._topic} partition {record.partition}, offset {record.offset}: {error}. "
                "No reader may skip an entry. If a newer release wrote it, start that one; if nobody of ours did, find "
                "out who may write there, then go on behind it: "
                f"gavel log skip {self._topic} {record.partition} {record.offset}"
            ) from error

    def _apply(
        self, taken: Sequence[TakenEntry], after: Mapping[int, Position]
    ) -> Collection[TopicPartition]:
        moves = {
            partition: Move(before=self._positions[partition], after=position)
            for partition, position in after.items()
            if position is not self._positions[partition]
        }
        try:
            self._fold.apply(taken, moves)
        except Overtaken:
            return [TopicPartition(self._topic, partition) for partition in sorted(moves)]
        self._positions.update(after)
        return ()

    def _drop(self, record: Record, entry: Entry, reading: Repeat | Ahead | Broken) -> None:
        match reading:
            case Repeat():
                self._metrics.repeats.inc()
            case Ahead():
                self._metrics.ahead.inc()
                self._ahead_since_s.setdefault(record.partition, self._monotonic_s())
            case Broken(expected_hash=expected, found_hash=found):
                raise Stopped(
                    f"{self._topic} partition {record.partition}, offset {record.offset}: entry {entry.seq} does "
                    f"not follow its predecessor (prev_hash {found.hex()}, expected {expected.hex()}). "
                    "History was changed: find out by whom before you go on."
                )
            case _:
                assert_never(reading)

    def _stop_without(self, partition: int, missing_seq: int) -> NoReturn:
        raise Stopped(
            f"{self._topic} partition {partition}: entry {missing_seq} is missing for over "
            f"{AHEAD_FOR_AT_MOST_S:.0f} s. Publish it again: gavel log republish --partition {partition} "
            f"--from {missing_seq}"
        )
