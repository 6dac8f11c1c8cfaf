"""Leads the auditor through topics and tables: what is read when, so that a system at work raises no false alarm.

Topics are read by slices of the log, and what was told to outsiders only as far in time, so that a lead is looked at
once and memory stays bounded. The tables are compared as of one snapshot, and the log is read exactly to the heads
that it shows: the router's rows and the log are then the same history. What outsiders were told is read to where it
ended before the snapshot, so that all of it follows from that log; what they have not been told yet has its grace.
It judges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from services.audit.auditor import Auditor
from services.audit.declared import declaration_of
from services.audit.found import Found
from services.audit.reading import Cut, Extent, Reading
from services.audit.secrecy import Secrecy
from services.audit.states import SqliteLeadStates
from services.audit.tables import Snapshot, snapshot
from services.bus.ports import BusFailed, Record, TopicPartition
from services.contract.codec import codec
from services.contract.entries import Entry
from services.contract.times import DAY_MS
from services.contract.topics import DEAD_LETTERS_SUFFIX, Topics

SLICE_RECORDS: Final = 400_000
"""So many records of the log are read before what was told of them is."""

LEARNED_RECORDS: Final = 1_000
"""So many deliveries are read ahead, for the details that are looked for."""

_JUDGED_WHERE_THERE: Final = frozenset(
    {"registry", "sources.<id>.receipts", "buyers.<id>.leads", "buyers.<id>.pings"}
)
"""By their declared names. What sources and buyers write themselves is their own; its dead letters are judged too."""

LEFT_MAX: Final = 5_000
CATCH_UPS_MAX: Final = 5
PUBLISHED_WITHIN_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.1
_FRAME_SIZE: Final = 5
_VARINT_MAX: Final = 10

Progress = Callable[[int, int], None]
"""Told of records read, and of records to read in all."""


class Stop(Protocol):
    """What ends an audit early: a `threading.Event`, mostly."""

    def is_set(self) -> bool:
        """Tell whether it was asked for."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait, but no longer than until it is asked for."""
        ...


class Ended(Exception):
    """The audit was told to end in the middle of a reading; what it had committed is kept."""


class NotAtRest(Exception):
    """Something is under way, or waits."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What became of a comparison with the tables. `under_way`: why what is missing may still come."""

    under_way: tuple[str, ...]

    @property
    def at_rest(self) -> bool:
        """Tell whether nothing was under way, so that what is missing is lost."""
        return not self.under_way


class Rounds:
    """One audit, from the state that its file has. All of it belongs to one thread."""

    def __init__(
        self,
        *,
        reading: Reading,
        database: str,
        topics: Topics,
        states: SqliteLeadStates,
        auditor: Auditor,
        secrecy: Secrecy,
        found: Found,
        stop: Stop,
        now_ms: Callable[[], int],
        progress: Progress = lambda _done, _total: None,
        on_compared: Callable[[Snapshot], None] = lambda _: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take up the state. `on_compared` may look at the same snapshot."""
        self.notes: dict[str, str] = {}
        """What could not be looked at, by what it is."""
        self.behind = 0
        self._reading = reading
        self._database = database
        self._topics = topics
        self._states = states
        self._auditor = auditor
        self._secrecy = secrecy
        self._found = found
        self._stop = stop
        self._now_ms = now_ms
        self._progress = progress
        self._on_compared = on_compared
        self._monotonic_s = monotonic_s
        self._positions: dict[TopicPartition, int] = {}
        self._seqs: dict[int, int] = {}
        self._entry_frames = {bytes(1) + id.to_bytes(4) for id in codec().ids_of(Entry)}
        self._resume()

    def catch_up(self) -> int:
        """Read all topics to where they end now, and keep what was learnt; return how many records that was."""
        extents = self._extents(self._wheres())
        spans = self._spans(extents)
        total = sum(map(len, spans.values()))
        self._learn(spans)
        done = 0
        for part, is_slices_end in self._slices(spans):
            for count in self._take(part):
                done += count
                self.behind = total - done
                self._progress(done, total)
            if is_slices_end and total:
                self.commit()
        self.behind = 0
        return done

    def compare(self, *, require_rest: bool = False) -> Compared:
        """Compare with the tables, all as of one moment; raise `NotAtRest` where that is required and not so."""
        for _ in range(CATCH_UPS_MAX):
            if self.catch_up() <= LEFT_MAX:
                break
        inside = self._inputs()
        wheres = self._wheres()
        told = self._extents([at for at in wheres if at.topic != self._topics.log and at.topic not in inside])
        with snapshot(self._database) as tables:
            self._read(self._spans(told))
            self._read_inputs(tables)
            self._read_log(tables)
            under_way = (*self._unfinished(tables), *self._unread(wheres, told))
            if require_rest and under_way:
                raise NotAtRest(under_way)
            self._auditor.finish(tables, at_rest=not under_way)
            self._on_compared(tables)
        self.commit()
        return Compared(under_way=under_way)

    def commit(self) -> None:
        """Keep everything that was learnt, together with how far that is."""
        positions = [[at.topic, at.partition, offset] for at, offset in self._positions.items()]
        self._states.commit(
            positions=orjson.dumps(positions),
            seqs=orjson.dumps(list(self._seqs.items())),
            auditor=self._auditor.kept(),
            found=self._found.kept(),
        )

    def _resume(self) -> None:
        positions, auditor = self._states.kept("positions"), self._states.kept("auditor")
        if positions is None or auditor is None:
            return
        self._positions = {
            TopicPartition(topic, partition): offset for topic, partition, offset in orjson.loads(positions)
        }
        self._seqs = dict(orjson.loads(self._states.kept("seqs") or b"[]"))
        self._auditor.resume(auditor)
        found = self._states.kept("found")
        if found is not None:
            self._found.resume(found)

    # Which topics, and how far.

    def _inputs(self) -> tuple[str, str, str]:
        return self._topics.qualified, self._topics.commands, self._topics.timers

    def _wheres(self) -> list[TopicPartition]:
        """Name every partition that is judged; also those of topics whose source or buyer no market has any more."""
        there = self._reading.topics()
        needed = (self._topics.log, self._topics.events, *self._inputs())
        missing = [topic for topic in needed if topic not in there]
        if missing:
            raise BusFailed(f"missing at the brokers: {', '.join(missing)}. `gavel setup` creates them")
        judged = [*needed, *(topic for topic in sorted(there) if self._is_judged(topic))]
        return [TopicPartition(topic, at) for topic in judged for at in range(there[topic])]

    def _is_judged(self, topic: str) -> bool:
        declared = declaration_of(self._topics, topic)
        if declared is None:
            return False
        return topic.endswith(DEAD_LETTERS_SUFFIX) or declared.name in _JUDGED_WHERE_THERE

    def _extents(self, wheres: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Look up what is there, and give up what is not any more."""
        extents = self._reading.extents(wheres)
        for where, extent in extents.items():
            at = self._positions.get(where, 0)
            if at > extent.high:
                raise BusFailed(
                    f"{where.topic} partition {where.partition} ends at offset {extent.high}, and was read to {at}: it "
                    "was cut or created again. Begin with a new state file"
                )
            if at < extent.low:
                self._skip(where, at, extent.low)
        return extents

    def _skip(self, where: TopicPartition, at: int, low: int) -> None:
        """Give up records that are not there any more; those that are younger than the topic keeps them are missed."""
        kept_ms = _kept_ms(self._topics, where.topic)
        is_for_good = kept_ms < 0
        kept = "for good, so that was before their time" if is_for_good else f"for {kept_ms / DAY_MS:g} days"
        self.notes[where.topic] = (
            f"{where.topic}: {low - at:,} records or more were deleted before they were read; it is declared to keep "
            f"records {kept}"
        )
        self._positions[where] = low
        if not is_for_good:
            self._auditor.gone(where.topic, self._now_ms() - kept_ms)

    def _spans(self, extents: Mapping[TopicPartition, Extent]) -> dict[TopicPartition, range]:
        return {where: range(self._positions.get(where, 0), extent.high) for where, extent in extents.items()}

    def _slices(
        self, spans: Mapping[TopicPartition, range]
    ) -> Iterator[tuple[Mapping[TopicPartition, range], bool]]:
        """Divide what is to be read: a part of the log, then the other topics as far as that in time, and so on.

        With each comes whether a slice ends with it.
        """
        log = {where: span for where, span in spans.items() if where.topic == self._topics.log}
        others = {where: span for where, span in spans.items() if where.topic != self._topics.log}
        parts = max(1, -(-sum(map(len, log.values())) // SLICE_RECORDS))
        for number in range(1, parts + 1):
            yield {where: self._part(where, span, number, parts) for where, span in log.items()}, False
            ends: Mapping[TopicPartition, int | None] = {}
            if number < parts:
                ends = self._reading.starts_after([*others], self._latest_ms)
            told = {
                where: range(self._positions.get(where, 0), min(span.stop, ends.get(where) or span.stop))
                for where, span in others.items()
            }
            yield told, True

    def _part(self, where: TopicPartition, span: range, number: int, parts: int) -> range:
        return range(self._positions.get(where, 0), span.start + len(span) * number // parts)

    # Reading.

    _latest_ms = 0

    def _learn(self, spans: Mapping[TopicPartition, range]) -> None:
        """Read some of the deliveries ahead, the first and the last, so that all else can be searched for them."""
        unread = {
            where: span
            for where, span in spans.items()
            if span and (owner := self._topics.owner_of(where.topic)) and owner[::2] == ("buyers", "leads")
        }
        each = max(1, LEARNED_RECORDS // max(1, 2 * len(unread)))
        for part in (
            {where: span[:each] for where, span in unread.items()},
            {where: span[each:][-each:] for where, span in unread.items()},
        ):
            for records in self._reading.read(part):
                self._secrecy.learn(records)

    def _read(self, spans: Mapping[TopicPartition, range]) -> None:
        for _ in self._take(spans):
            pass

    def _take(self, spans: Mapping[TopicPartition, range]) -> Iterator[int]:
        """Read and judge; give how many records each batch had. What is deleted meanwhile is passed over."""
        left = dict(spans)
        while True:
            try:
                for records in self._reading.read(left):
                    self._judge(records)
                    yield len(records)
            except Cut as cut:
                self._skip(cut.where, self._positions.get(cut.where, 0), self._low_of(cut.where))
                left = {where: range(self._at(where, span), span.stop) for where, span in spans.items()}
                continue
            for where, span in spans.items():
                self._positions[where] = max(self._positions.get(where, 0), span.stop)
            return

    def _at(self, where: TopicPartition, span: range) -> int:
        return min(max(self._positions.get(where, 0), span.start), span.stop)

    def _low_of(self, where: TopicPartition) -> int:
        return self._reading.extents([where])[where].low

    def _judge(self, records: Sequence[Record]) -> None:
        if self._stop.is_set():
            raise Ended
        self._auditor.take(records)
        self._secrecy.take(records)
        positions, seqs, log = self._positions, self._seqs, self._topics.log
        for record in records:
            positions[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if record.topic == log:
                self._latest_ms = max(self._latest_ms, record.timestamp_ms)
                seq = self._seq_of(record)
                if seq > seqs.get(record.partition, 0):
                    seqs[record.partition] = seq

    def _read_inputs(self, tables: Snapshot) -> None:
        """Read of the inputs what the router has decided, and no further."""
        topics = self._topics
        ends = {
            TopicPartition(topic, partition): offset
            for partition, decided in tables.inputs.items()
            for topic, offset in (
                (topics.qualified, decided.qualified),
                (topics.commands, decided.commands),
                (topics.timers, decided.timers),
            )
        }
        extents = self._extents([*ends])
        self._read(
            {
                where: range(self._positions.get(where, 0), min(end, extents[where].high))
                for where, end in ends.items()
            }
        )

    def _read_log(self, tables: Snapshot) -> None:
        """Read the log to the snapshot's heads and no further; what is not published yet is waited for."""
        heads = tables.heads()
        deadline_s = self._monotonic_s() + PUBLISHED_WITHIN_S
        while missing := [at for at, head in heads.items() if self._seqs.get(at, 0) < head.seq]:
            for where, span in self._spans(
                self._extents([TopicPartition(self._topics.log, at) for at in missing])
            ).items():
                self._read_to_seq(where, span, heads[where.partition].seq)
            if self._monotonic_s() > deadline_s:
                return
            if any(self._seqs.get(at, 0) < heads[at].seq for at in missing) and self._stop.wait(
                _LOOK_EVERY_S
            ):
                raise Ended

    def _read_to_seq(self, where: TopicPartition, span: range, seq: int) -> None:
        for records in self._reading.read({where: span}):
            beyond = next((n for n, record in enumerate(records) if self._seq_of(record) > seq), len(records))
            self._judge(records[:beyond])
            if beyond < len(records) or self._seqs.get(where.partition, 0) >= seq:
                return

    def _seq_of(self, record: Record) -> int:
        """Read an entry's number, the first field of its schema, without the rest; 0 where it is no entry."""
        value = record.value or b""
        if value[:_FRAME_SIZE] not in self._entry_frames:
            return 0
        number = shift = 0
        for byte in value[_FRAME_SIZE : _FRAME_SIZE + _VARINT_MAX]:
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        return number >> 1

    # Whether anything is under way.

    def _unfinished(self, tables: Snapshot) -> Iterator[str]:
        """Say what the tables know of that is not done."""
        heads = tables.heads().values()
        if unpublished := sum(max(0, head.seq - head.published_seq) for head in heads):
            yield f"{unpublished:,} entries are committed and not marked as published"
        if missing := sum(max(0, head.seq - self._seqs.get(head.partition, 0)) for head in heads):
            yield f"{missing:,} entries are not in the log yet"
        for reader, taken in tables.readers.items():
            if behind := sum(max(0, head.seq - taken.get(head.partition, 0)) for head in heads):
                yield f"{reader} has not taken {behind:,} entries"
        if not tables.owes_nothing():
            yield "records to outsiders are undelivered"
        if overdue := tables.overdue():
            yield f"{overdue:,} windows and auctions are due"

    def _unread(
        self, wheres: Collection[TopicPartition], told: Mapping[TopicPartition, Extent]
    ) -> Iterator[str]:
        """Say what is in the topics that a step has not read, or that came in the meantime."""
        now = self._reading.extents(wheres)
        moved = {where.topic for where in told if now[where].high != told[where].high}
        moved |= {
            where.topic
            for where in now
            if where.topic in (self._topics.log, *self._inputs())
            and now[where].high > self._positions.get(where, 0)
        }
        if moved:
            yield f"records are coming in: {', '.join(sorted(moved))}"
        if unread := self._unread_by_intake():
            yield f"intake has not read all of {', '.join(unread)}"

    def _unread_by_intake(self) -> list[str]:
        there = self._reading.topics()
        wheres = [
            TopicPartition(topic, at)
            for topic, count in there.items()
            if (owner := self._topics.owner_of(topic))
            and owner[::2] in {("sources", "leads"), ("buyers", "answers")}
            for at in range(count)
        ]
        extents = self._reading.extents(wheres)
        committed = self._reading.committed(self._topics.group("intake"), wheres)
        return sorted(
            {
                where.topic
                for where, extent in extents.items()
                if extent.high > extent.low and committed[where] < extent.high
            }
        )


def _kept_ms(topics: Topics, topic: str) -> int:
    """Say how long a topic keeps its records, as it is declared; below 0 where that is for good."""
    declared = declaration_of(topics, topic)
    assert declared is not None, f"{topic} is declared by nobody, and is not read"
    return int(dict(declared.config)["retention.ms"])
