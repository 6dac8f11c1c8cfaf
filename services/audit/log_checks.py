"""The log as every reader must take it: next seq, chained by hash, readable; and its end is what the database knows."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from services.audit.avro_times import avro_long
from services.audit.evidence import HeadRow
from services.audit.findings import At, Findings
from services.audit.lead_checks import entry_at
from services.audit.log_entries import Entries, EntryFields
from services.audit.rules import Rule
from services.audit.violations import Where
from services.bus.ports import Record
from services.contract.codec import NotReadable
from services.contract.entries import (
    GENESIS_HASH,
    Ahead,
    Broken,
    CauseKind,
    Position,
    Repeat,
    Taken,
    hash_of,
    take,
)
from services.contract.ids import partition_of

REMEMBERED: Final = 10_000
"""Of so many entries of each partition the hashes are remembered, to know repeats by: more than any relay repeats."""

_START: Final = (0, 0, GENESIS_HASH)
_HASH_SIZE: Final = len(GENESIS_HASH)
_CAUSE: Final = avro_long(len(CauseKind.QUALIFIED)) + CauseKind.QUALIFIED.encode()
_NUMBER_SIZE_MAX: Final = 9
_MORE: Final = 0x80


class LogChecks:
    """Takes the log, partition by partition. What follows a break of the chain can't be judged, and is said so once."""

    def __init__(self, findings: Findings, entries: Entries, partitions: int) -> None:
        """Begin at each partition's first entry."""
        self.entries = 0
        self._positions: dict[int, tuple[int, int, bytes]] = {}
        self.decided_at_ms: dict[int, int] = {}
        self.unreadable: set[int] = set()
        self._ahead: dict[int, tuple[int, int]] = {}
        self._hashes: defaultdict[int, deque[bytes]] = defaultdict(partial(deque, maxlen=REMEMBERED))
        self._findings = findings
        self._read = entries.read
        self._frame = entries.frame
        self._partitions = partitions

    def position(self, partition: int) -> Position:
        """Say how far a partition is taken."""
        offset, seq, hash = self._positions.get(partition, _START)
        return Position(offset=offset, seq=seq, hash=hash)

    def take(self, record: Record) -> tuple[At, bytes, int] | None:
        """Take a record; None where it is no next entry: a repeat, or what can't be read or does not follow."""
        partition, offset, value = record.partition, record.offset, record.value
        if partition in self.unreadable:
            return None
        try:
            entry = self._read(value)
        except NotReadable as error:
            # Were it an entry after all, the chain would lack it: then the next one is told as ahead.
            self._findings.broken(
                Rule.LOG_IS_READABLE, f"{error}: it is no entry of the chain", _where(record)
            )
            return None
        seq = entry[0]
        _, last_seq, last_hash = self._positions.get(partition, _START)
        if seq == last_seq + 1 and entry[1] == last_hash and value is not None:
            self._move(partition, offset + 1, seq, hash_of(value))
        elif not self._takes(record, self.position(partition), entry):
            return None
        self.entries += 1
        at = entry_at(partition, offset, entry)
        self._check(at, record)
        return at, value or b"", entry[6]

    def cause_end(self, partition: int, value: bytes) -> int:
        """Say where the cause ends of a record that is plainly its partition's next entry; 0: of no other.

        The cause must be a new lead, as mostly.
        """
        _, seq, hash = self._positions.get(partition, _START)
        before = self._frame + avro_long(seq + 1) + hash + _CAUSE
        if not value.startswith(before) or partition in self.unreadable:
            return 0
        return _number_end(value, len(before))

    def cause_end_of(self, value: bytes) -> int:
        """Say where such a cause ends in any entry; 0: it is another, or in another version of the schema."""
        if not value.startswith(self._frame):
            return 0
        at = _number_end(value, len(self._frame)) + _HASH_SIZE
        end = at + len(_CAUSE)
        return _number_end(value, end) if value[at:end] == _CAUSE else 0

    def take_usual(self, partition: int, offset: int, value: bytes, lead_id: str, decided_at_ms: int) -> int:
        """Take what `cause_end` has found to be the next entry, and give its seq; 0, and not taken, if `take` must."""
        is_elsewhere = partition_of(lead_id, self._partitions) != partition
        if is_elsewhere or decided_at_ms < self.decided_at_ms.get(partition, 0):
            return 0
        seq = self._positions.get(partition, _START)[1] + 1
        self._move(partition, offset + 1, seq, hash_of(value))
        self.decided_at_ms[partition] = decided_at_ms
        self.entries += 1
        return seq

    def _takes(self, record: Record, position: Position, entry: EntryFields) -> bool:
        """Take what is no plain next entry by the contract's rule, which is every reader's."""
        seq, prev_hash, *_ = entry
        reading = take(
            position, seq=seq, prev_hash=prev_hash, value=record.value or b"", offset=record.offset
        )
        match reading:
            case Taken(position=following):
                self._move(record.partition, following.offset, following.seq, following.hash)
                return True
            case Repeat():
                if self._is_fork(record, position.seq - seq):
                    what = f"entry {seq} came again with other bytes"
                    self._findings.broken(Rule.LOG_IS_CHAINED, what, _where(record))
                return False
            case Ahead(missing_seq=missing):
                self._ahead.setdefault(record.partition, (missing, record.offset))
                return False
            case Broken():
                what = f"entry {seq} does not follow entry {position.seq}; nothing after it can be judged"
                self._stop(record, Rule.LOG_IS_CHAINED, what)
                return False

    def _move(self, partition: int, offset: int, seq: int, hash: bytes) -> None:
        self._positions[partition] = (offset, seq, hash)
        self._hashes[partition].append(hash)

    def _is_fork(self, record: Record, back: int) -> bool:
        """Tell whether a repeat has other bytes than the entry so far back from the last one, if that is remembered."""
        hashes = self._hashes[record.partition]
        return back < len(hashes) and hashes[-1 - back] != hash_of(record.value or b"")

    def _check(self, at: At, record: Record) -> None:
        if partition_of(at.lead_id, self._partitions) != at.partition or record.key != at.lead_id.encode():
            self._findings.broken_at(
                at, Rule.ENTRY_IN_ITS_PARTITION, "an entry in another partition, or under another key"
            )
        if at.decided_at_ms < self.decided_at_ms.get(at.partition, 0):
            self._findings.broken_at(
                at, Rule.ENTRY_IN_ITS_PARTITION, "an entry that is dated before the one before it"
            )
        self.decided_at_ms[at.partition] = at.decided_at_ms

    def unreadable_from(self, at: At, what: str) -> None:
        """Give a partition up from an entry on whose events can't be read."""
        self._findings.broken_at(at, Rule.LOG_IS_READABLE, f"{what}; nothing after it can be judged")
        self.unreadable.add(at.partition)

    def compare(self, heads: Mapping[int, HeadRow], *, at_rest: bool) -> bool:
        """Hold the heads against where the log ends; tell whether both are the same history."""
        is_same = not self.unreadable
        for partition in sorted(heads.keys() | self._positions.keys()):
            head = heads.get(partition) or HeadRow(partition, 0, GENESIS_HASH, 0)
            position = self.position(partition)
            if partition in self.unreadable:
                continue
            is_same = is_same and (position.seq, position.hash) == (head.seq, head.hash)
            what = self._difference(head, position, at_rest=at_rest)
            if what is not None:
                where = (
                    Where("router.heads", str(partition)),
                    self._findings.entry(partition, position.seq, position.offset - 1),
                )
                self._findings.broken(Rule.HEAD_IS_THE_LOG, what, *where)
            missing = self._ahead.pop(partition, None)
            if missing is not None and missing[0] == position.seq + 1 and what is None:
                where_ahead = self._findings.entry(partition, missing[0], missing[1])
                self._findings.broken(
                    Rule.LOG_IS_CHAINED, f"entry {missing[0]} is missing, later ones are there", where_ahead
                )
        return is_same

    @staticmethod
    def _difference(head: HeadRow, position: Position, *, at_rest: bool) -> str | None:
        if head.seq == position.seq and head.hash != position.hash:
            return f"entry {head.seq} has another hash in the database"
        if head.published_seq > position.seq:
            return f"published to entry {head.published_seq}, and the log ends with {position.seq}"
        if at_rest and head.seq > position.seq:
            return f"decided to entry {head.seq}, and the log ends with {position.seq}"
        if head.seq < position.seq:
            # The log is read before the tables are, but for what these know: no entry may be news to them.
            return f"the log tells entry {position.seq}, and the database knows {head.seq}"
        return None

    def kept(self) -> list[Any]:
        """Give what must be kept, as plain values."""
        return [
            self._positions,
            self.decided_at_ms,
            sorted(self.unreadable),
            self._ahead,
            self.entries,
        ]

    def resume(self, kept: list[Any]) -> None:
        """Go on from what was kept."""
        self._positions, self.decided_at_ms, unreadable, self._ahead, self.entries = kept
        self.unreadable = set(unreadable)

    def _stop(self, record: Record, rule: Rule, what: str) -> None:
        self.unreadable.add(record.partition)
        self._findings.broken(rule, what, _where(record))


def _where(record: Record) -> Where:
    return Where(record.topic, f"{record.partition} (offset {record.offset})")


def _number_end(value: bytes, at: int) -> int:
    """Step over a number; 0 where it has too many bytes to be one of ours."""
    end = at
    while value[end] >= _MORE:
        end += 1
    return end + 1 if end - at < _NUMBER_SIZE_MAX else 0
