"""The door as a step: reads outsiders' topics, admits what they sent by batch, and then tells everyone concerned.

The order is protocol.md's rule 23: commit, emit and flush, then receipts and dead letters, then the positions. A crash
on any line repeats a batch, and repeating is harmless. No rule about a lead is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.bus.dead_letters import LETTER_BYTES_MAX, bytes_of
from services.bus.ports import PassingFault, Producer, Record, TopicPartition
from services.contract.topics import Topics
from services.intake import outgoing
from services.intake.admission import Admission, Admitted
from services.intake.domain import Accepted, Declined, Verdict
from services.intake.metrics import IntakeMetrics
from services.intake.outgoing import Letter
from services.intake.reading import Sorted, Submitted, sort

UNHEARD_IN_A_ROW_MAX = 5
RESTS_FOR_S = 300.0
SETTLES_FOR_S = 1.0
"""So long after its last record a resting topic is let go: by then its position is committed."""

FORGETS_EACH_S = 5.0
FORGETS_AT_ONCE = 2_000
"""Fingerprints are walked at this pace, expired or not: 35 million a day."""

_log = structlog.get_logger(__name__)


class Positions(Protocol):
    """The group's committed offsets, which are where intake begins."""

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Ask for offsets (the next to read) to be committed soon."""
        ...

    def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Read them back; None where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Where messages go: `inside` loses nothing, `outside` gives up in time; whether the brokers answer us at all."""

    inside: Producer
    outside: Producer
    alive: Callable[[], bool]
    topics: Topics
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Time as the step may see it; no verdict depends on it."""

    now_ms: Callable[[], int]
    monotonic_s: Callable[[], float]


class Intake:
    """A `Step` that admits leads and passes on answers."""

    def __init__(
        self,
        admission: Admission,
        outlets: Outlets,
        positions: Positions,
        clocks: Clocks,
        metrics: IntakeMetrics,
    ) -> None:
        """Wire it; nothing is read before `take_over`."""
        self._admission = admission
        self._outlets = outlets
        self._positions = positions
        self._clocks = clocks
        self._metrics = metrics
        self._assigned: set[TopicPartition] = set()
        self._next: dict[TopicPartition, int] = {}
        self._dead_in_a_row: Mapping[str, int] = {}
        self._unheard_in_a_row: dict[str, int] = {}
        self._resting_until_s: dict[str, float] = {}
        self._let_go_at_s: dict[str, float] = {}
        self._forgets_at_s = clocks.monotonic_s() + FORGETS_EACH_S

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin where the group has committed, or behind what is done already; leave out topics that rest."""
        self._assigned.update(assigned)
        awake = [where for where in assigned if where.topic not in self._resting_until_s]
        committed = self._positions.committed(awake)
        return {where: self._next.get(where, committed.get(where)) for where in awake}

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Forget the partitions."""
        self._assigned.difference_update(revoked)
        for where in revoked:
            self._next.pop(where, None)

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Admit a batch, and tell everyone."""
        awake = [record for record in records if record.topic not in self._resting_until_s]
        found = sort(awake, self._dead_in_a_row, self._outlets.topics, self._admission.keys)
        admitted = self._admit(found.submitted)
        decided = list(zip(found.submitted, admitted.verdicts, strict=True))
        self._emit(found, decided, admitted)
        unheard = self._tell(found, decided)
        self._count(found, decided)
        return [*self._move_on(found, unheard), *self._due()]

    def idle(self) -> Collection[TopicPartition]:
        """Do what is due."""
        return self._due()

    def _admit(self, submitted: Sequence[Submitted]) -> Admitted:
        return self._admission.admit(submitted) if submitted else Admitted((), {})

    def _emit(self, found: Sorted, decided: Sequence[tuple[Submitted, Verdict]], admitted: Admitted) -> None:
        """Write what the router reads, and return when all of it is acknowledged."""
        to = self._outlets
        messages = outgoing.qualified(decided, admitted.records, to.topics, to.partitions)
        messages += outgoing.commands(found.answers, self._admission.codec, to.topics, to.partitions)
        if messages:
            to.inside.publish(messages)

    def _tell(self, found: Sorted, decided: Sequence[tuple[Submitted, Verdict]]) -> set[TopicPartition]:
        """Write receipts and dead letters; name the partitions of which some could not be written."""
        to = self._outlets
        letters = outgoing.receipts(decided, to.topics)
        letters += outgoing.dead_letters(found.dead, to.topics, self._clocks.now_ms())
        _name_the_large(found)
        if not letters:
            return set()
        unheard = set()
        for failed in to.outside.publish([letter.message for letter in letters]):
            letter = letters[failed.index]
            if failed.permanent is None:
                unheard.add(letter.answers)
            else:
                self._give_up(letter, failed.permanent)
        if unheard and not to.alive():
            # The brokers are gone, not one owner's topic: there is nothing to hold against anybody.
            raise PassingFault("Kafka acknowledges neither receipts nor positions")
        return unheard

    def _give_up(self, letter: Letter, reason: str) -> None:
        self._metrics.lost_receipts.inc()
        _log.error("can't be told", topic=letter.message.topic, reason=reason)

    def _move_on(self, found: Sorted, unheard: set[TopicPartition]) -> Collection[TopicPartition]:
        """Move the positions behind all that is done; say which partitions must begin again."""
        done = {where: offset for where, offset in found.next_offsets.items() if where not in unheard}
        self._next.update(done)
        self._positions.commit(done)
        self._dead_in_a_row = found.dead_in_a_row
        deaf = self._deaf(found, {where.topic for where in unheard})
        for topic in found.exhausted:
            self._rest(topic, "too many dead letters in a row")
        for topic in deaf - found.exhausted:
            self._rest(topic, "its receipts or dead letters can't be written")
        return unheard

    def _deaf(self, found: Sorted, unheard: set[str]) -> set[str]:
        """Count on for topics whose owners could not be told, and name those that this happens to again and again."""
        for topic in {where.topic for where in found.next_offsets}:
            self._unheard_in_a_row[topic] = (
                self._unheard_in_a_row.get(topic, 0) + 1 if topic in unheard else 0
            )
        return {topic for topic in unheard if self._unheard_in_a_row[topic] >= UNHEARD_IN_A_ROW_MAX}

    def _rest(self, topic: str, reason: str) -> None:
        """Leave a topic unread for a while: its owner must mend something, and nobody else is to wait for that."""
        now_s = self._clocks.monotonic_s()
        self._resting_until_s[topic] = now_s + RESTS_FOR_S
        self._let_go_at_s[topic] = now_s + SETTLES_FOR_S
        self._dead_in_a_row = {**self._dead_in_a_row, topic: 0}
        self._unheard_in_a_row[topic] = 0
        self._metrics.resting.set(len(self._resting_until_s))
        _log.error("topic rests", topic=topic, reason=reason, for_s=RESTS_FOR_S)

    def _due(self) -> Collection[TopicPartition]:
        now_s = self._clocks.monotonic_s()
        if now_s >= self._forgets_at_s:
            self._forget(now_s)
        changed = _over(self._let_go_at_s, now_s) | self._wake(now_s) if self._resting_until_s else ()
        return [where for where in self._assigned if where.topic in changed] if changed else ()

    def _wake(self, now_s: float) -> set[str]:
        """Read topics again that have rested."""
        rested = _over(self._resting_until_s, now_s)
        for topic in rested:
            _log.warning("topic is read again", topic=topic)
        self._metrics.resting.set(len(self._resting_until_s))
        return rested

    def _forget(self, now_s: float) -> None:
        """Let tables forget what was kept long enough; where much is due, go on at the next turn.

        Where that fails, leads come first: it is tried again only when it is due again.
        """
        self._forgets_at_s = now_s + FORGETS_EACH_S
        forgotten = self._admission.store.forget(FORGETS_AT_ONCE)
        self._metrics.forgotten.inc(forgotten)
        if forgotten >= FORGETS_AT_ONCE:
            self._forgets_at_s = now_s

    def _count(self, found: Sorted, decided: Sequence[tuple[Submitted, Verdict]]) -> None:
        self._metrics.answers.inc(len(found.answers))
        self._metrics.dead_letters.inc(len(found.dead))
        declined = Counter(verdict.reason for _, verdict in decided if isinstance(verdict, Declined))
        accepted = sum(isinstance(verdict, Accepted) for _, verdict in decided)
        self._metrics.accepted.inc(accepted)
        self._metrics.again.inc(len(decided) - accepted - declined.total())
        for reason, times in declined.items():
            self._metrics.declined.labels(reason).inc(times)


def _name_the_large(found: Sorted) -> None:
    """Say of which records the letter has not the bytes: until their topic forgets them, they are only there."""
    for record, _ in found.dead:
        if (size := bytes_of(record)) > LETTER_BYTES_MAX:
            _log.error(
                "too large to be put aside",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                bytes=size,
                to_do="lower the topic's max.message.bytes, and tell its owner",
            )


def _over(ends_at_s: dict[str, float], now_s: float) -> set[str]:
    """Take out the topics whose time is over."""
    over = {topic for topic, at_s in ends_at_s.items() if now_s >= at_s}
    for topic in over:
        del ends_at_s[topic]
    return over
