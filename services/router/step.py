"""The router as a step: reads a batch, has it decided, commits it once, and publishes what was committed.

No rule of the trade is here: those are in `domain`, and how a partition's inputs become entries is in `chain`. Here
is the order of effects, which is protocol.md's: heads and clock, leads, decision, one transaction, then the relay, then
the mark (which rides on the next commit). Kafka is waited for while the next batch is read and decided.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import structlog
from prometheus_client import CollectorRegistry

from services.bus.ports import PassingFault, Record, Stopped, TopicPartition
from services.contract.codec import Codec, NotReadable
from services.contract.entries import hash_of
from services.contract.events import LeadErased
from services.contract.inputs import CloseAuction, MoveMoney
from services.contract.market import Market
from services.contract.topics import Topics
from services.router.auction_clock import AuctionClock
from services.router.batch import OWN, Caused, PartitionBatch, Started, batches_of, start
from services.router.bidders import Bidders
from services.router.chain import CLOCK_JUMP_MAX_MS, Chain, Markets, Surroundings
from services.router.counters import Counters, Room
from services.router.faults import TryAgain
from services.router.metrics import RouterMetrics
from services.router.ports import (
    FOR_GOOD,
    NO_DRAWS,
    AuctionRow,
    CounterRow,
    Draws,
    Head,
    LimitsShort,
    LogTail,
    Mark,
    MoneyRow,
    Overtaken,
    PartitionCommit,
    PromiseBroken,
    RouterStore,
    Snapshot,
)
from services.router.relay import Committed, FailedDelivery, NotAlive, Publishing, Relay, Retried

ATTEMPTS_MAX = 5
FAILED_IN_A_ROW_MAX = 10
DECIDED_AHEAD_MAX = 2
"""So often a batch is decided on counters that nobody has locked; then on counters that it has locked itself."""

LOCKS_MAX = 10
READS_MAX = 5
PUBLISHED_AT_ONCE_MAX = 1_000
RETRY_EACH_S = 1.0
RETRY_AT_MOST_EACH_S = 16.0
DROP_EACH_S = 3_600.0
LIMITS_EACH_S = 15.0
LIMITS_SHOWN_MAX = 20

_log = structlog.get_logger("gavel.router")


@dataclass(slots=True)
class _Owned:
    """What a worker remembers of a partition that it owns: the head's version, and what it has not told it yet."""

    version: int
    published_seq: int
    is_behind: bool = False
    mark: Mark | None = None
    own: tuple[FailedDelivery, ...] = ()


class _ClockReading(NamedTuple):
    """What the database's clock said, at some moment between our question and its answer by our own clock."""

    now_ms: int
    asked_at_s: float
    answered_at_s: float


@dataclass(frozen=True, slots=True)
class _Decided:
    """One partition's batch, decided: its head afterwards, and what is to be done once it is committed."""

    after: Head
    chain: Chain

    def commit(self, mark: Mark | None) -> PartitionCommit:
        """Give the rows, with how far the partition is published by now."""
        published_seq = self.after.published_seq if mark is None else mark.after_seq
        return self.chain.commit(replace(self.after, published_seq=published_seq), mark)


@dataclass(slots=True)
class _Work:
    """A batch of all partitions: what it starts from, and how it is decided at present."""

    snapshot: Snapshot
    read_at_s: float
    started: dict[int, Started]
    reported: Mapping[int, Collection[FailedDelivery]] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()
    decided: dict[int, _Decided] = field(default_factory=dict)
    commits: dict[int, PartitionCommit] = field(default_factory=dict)
    draws: Draws = NO_DRAWS
    times_short: int = 0

    def drop(self, partitions: Collection[int]) -> None:
        """Go on without partitions that others have moved on."""
        for partition in partitions:
            self.started.pop(partition)
            self.decided.pop(partition, None)


class _MoreToLock(Exception):
    """A batch that is decided under locks draws on counters that are not among those locked."""


class Router:
    """A `Step` that decides."""

    def __init__(
        self,
        *,
        store: RouterStore,
        relay: Relay,
        markets: Markets,
        codec: Codec,
        topics: Topics,
        log_tail: LogTail,
        monotonic_s: Callable[[], float],
        partitions: int | None = None,
        metrics: RouterMetrics | None = None,
    ) -> None:
        """Take everything it works on; nothing is opened or read here.

        `partitions`: how many there are in all (None: those that it owns), of which a buyer's limit of pings is shared.
        """
        self._store = store
        self._relay = relay
        self._markets = markets
        self._codec = codec
        self._topics = topics
        self._log_tail = log_tail
        self._monotonic_s = monotonic_s
        self._owned: dict[int, _Owned] = {}
        self._answers_until: dict[int, int] = {}
        self._failed_in_a_row = 0
        self._clock: _ClockReading | None = None
        self._retry_at_s = 0.0
        self._retry_each_s = RETRY_EACH_S
        self._drop_at_s = monotonic_s() + DROP_EACH_S
        self._limits_at_s = 0.0
        self._partitions = partitions
        self._metrics = metrics or RouterMetrics(CollectorRegistry())
        self._counters = Counters()
        self._bidders = Bidders()
        self._auctions = AuctionClock()
        self._publishing: Publishing | None = None

    # The step

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin at the heads' positions; what earlier owners left unpublished goes out before anything is decided.

        Not here, because a worker sends nothing before the group has confirmed that it is a member (rule 15).
        """
        self._finish_publishing()
        positions: dict[TopicPartition, int | None] = {}
        # Before the heads, or an owner that is still at work could publish what these heads don't know yet.
        tails = {where.partition: self._log_tail.last_value(where.partition) for where in assigned}
        heads = self._store.heads(list(tails))
        auctions = self._store.auctions(heads)
        topic_id = self._log_tail.topic_id()
        for partition, head in sorted(heads.items()):
            self._require_topic(head, topic_id)
            self._require_origin(head, tails[partition])
            self._relay.take_over(partition)
            self._hold_back(head)
            self._auctions.begin(partition, [row for row in auctions if row.partition == partition])
            self._owned[partition] = _Owned(
                head.version, head.published_seq, is_behind=head.published_seq < head.seq
            )
            positions[TopicPartition(self._topics.qualified, partition)] = head.next_qualified
            positions[TopicPartition(self._topics.commands, partition)] = head.next_command
            positions[TopicPartition(self._topics.timers, partition)] = head.next_timer
        return positions

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Forget the partitions; whoever has them next starts from the database.

        The marks are moved if they can be, so that the next owner does not repeat the last batch.
        """
        try:
            self._move_marks()
        finally:
            for where in revoked:
                self._owned.pop(where.partition, None)
                self._relay.release(where.partition)
                self._auctions.drop(where.partition)

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Decide, commit and publish a batch; then raise `Stopped` where some of it cannot be read."""
        polled = batches_of(records, self._codec, self._topics)
        batches = polled.batches
        again = self._catch_up()
        ready = {
            partition: batch
            for partition, batch in batches.items()
            if partition in self._owned and not self._owned[partition].is_behind
        }
        again |= (batches.keys() & self._owned.keys()) - ready.keys()
        again |= self._turn(self._with_own(ready))
        self._drop_what_is_old()
        again |= self._retry_undelivered()
        if polled.unreadable is not None:
            self._finish_publishing()
            raise polled.unreadable
        return self._subscribed(again)

    def idle(self) -> Collection[TopicPartition]:
        """Publish what is behind, decide the router's own findings, move the marks that no commit has taken along."""
        again = self._catch_up()
        again |= self._turn(self._with_own({}))
        again |= self._move_marks()
        self._drop_what_is_old()
        return self._subscribed(again | self._retry_undelivered())

    def due_in_s(self) -> float | None:
        """Say when the next auction closes, so that the step is called then; None where none is open."""
        next_ms = self._auctions.next_ms(self._closing_partitions())
        if next_ms is None:
            return None
        return max(0.0, (next_ms - self._now_ms()) / 1_000) if self._clock is not None else 0.0

    def _with_own(self, batches: Mapping[int, PartitionBatch]) -> dict[int, PartitionBatch]:
        """Add what the router itself has found, and partitions that nothing else came for."""
        own = {at: PartitionBatch() for at, owned in self._owned.items() if owned.own and not owned.is_behind}
        ready = {**own, **batches}
        for partition, closings in self._due_closings(ready).items():
            ready.setdefault(partition, PartitionBatch()).closings = closings
        return ready

    def _due_closings(self, batches: Mapping[int, PartitionBatch]) -> dict[int, list[Caused]]:
        """Close the auctions that seem to be due; by the clock read with the batch, some may prove to be early."""
        now_ms = FOR_GOOD if self._clock is None else self._now_ms()
        found: dict[int, list[Caused]] = {}
        for partition in {*self._closing_partitions(), *batches}:
            due = self._auctions.due(partition, now_ms)
            if due:
                found[partition] = [Caused(OWN, _closing(row)) for row in due]
        return found

    def _closing_partitions(self) -> Collection[int]:
        """Name the partitions whose auctions may be closed: no answer from before the take-over is left to read."""
        return [
            at for at, owned in self._owned.items() if not owned.is_behind and at not in self._answers_until
        ]

    def _now_ms(self) -> int:
        """Estimate the database's clock by ours; the next read tells."""
        assert self._clock is not None
        passed_s = self._monotonic_s() - self._clock.answered_at_s
        return self._clock.now_ms + round(passed_s * 1_000)

    def _hold_back(self, head: Head) -> None:
        """Let nothing end that is answered until the commands are read that are there now (rule 27)."""
        until = self._log_tail.commands_end(head.partition)
        self._answers_until.pop(head.partition, None)
        if head.next_command < until:
            self._answers_until[head.partition] = until

    # Taking over

    def _catch_up(self) -> set[int]:
        """Publish from the table what lies between the mark and the last entry (rule 15), as far as we may."""
        again: set[int] = set()
        behind = [partition for partition, owned in self._owned.items() if owned.is_behind]
        if behind:
            self._finish_publishing()
        for partition in behind:
            try:
                if not self._publish_from_table(partition):
                    again.add(partition)
            except NotAlive:
                break
            except Overtaken:
                again.add(partition)
        return again

    def _publish_from_table(self, partition: int) -> bool:
        """Publish batch by batch, with the mark moved after each; False where the head is another's by now."""
        owned = self._owned[partition]
        head = self._store.heads([partition])[partition]
        if (head.version, head.published_seq) != (owned.version, owned.published_seq):
            return False
        self._require_writable(partition)
        while owned.published_seq < head.seq:
            rows = self._store.entries(partition, after_seq=owned.published_seq, limit=PUBLISHED_AT_ONCE_MAX)
            self._publish(self._relay.read(rows))
            self._finish_publishing()
            assert owned.mark is not None
            self._store.move_marks([owned.mark])
            owned.published_seq, owned.mark = owned.mark.after_seq, None
            owned.is_behind = False
        return True

    def _require_writable(self, partition: int) -> None:
        """Move the mark to where it is: a database that takes no mark would have all of it sent again and again."""
        seq = self._owned[partition].published_seq
        self._store.move_marks([Mark(partition=partition, before_seq=seq, after_seq=seq, undelivered=())])

    def _require_topic(self, head: Head, topic_id: str) -> None:
        """A log that was deleted and made again is another log (rule 21)."""
        if not head.log_topic_id:
            self._store.adopt_log_topic(head.partition, topic_id)
        elif head.log_topic_id != topic_id:
            raise Stopped(
                f"{self._topics.log} was made again: its id is {topic_id}, and partition {head.partition} was "
                f"published to {head.log_topic_id}. Its history is gone from Kafka: an operator must restore it"
            )

    def _require_origin(self, head: Head, value: bytes | None) -> None:
        """The log, whose last record's value this is, must not know more than the database, nor other (rule 22)."""
        if value is None:
            return
        seq = self._last_seq(head.partition, value)
        known: bytes | None = head.hash
        if seq < head.seq:
            rows = self._store.entries(head.partition, after_seq=seq - 1, limit=1)
            known = hash_of(rows[0].value) if rows and rows[0].seq == seq else None
        if seq > head.seq or (known is not None and known != hash_of(value)):
            raise Stopped(
                f"{self._topics.log} partition {head.partition} ends with entry {seq}, which the database "
                f"{'does not have' if seq > head.seq else 'has otherwise'} (its last is {head.seq}): the database was "
                "restored or the topic was written by others. An operator must decide which is right."
            )

    def _last_seq(self, partition: int, value: bytes) -> int:
        try:
            return self._codec.decode_entry(value).seq
        except NotReadable as error:
            raise Stopped(
                f"{self._topics.log} partition {partition} ends with a record that is no entry: {error}. If a newer "
                "release wrote it, start that one; if nobody of ours did, find out who may write there, then go on "
                "behind it, with the offset that the log's readers name: "
                f"gavel log skip {self._topics.log} {partition} OFFSET"
            ) from error

    # One turn: read, decide, commit, publish

    def _turn(self, batches: Mapping[int, PartitionBatch]) -> set[int]:
        """Work on all partitions in one transaction; return those that must begin again."""
        if not batches:
            return set()
        reported = {partition: self._owned[partition].own for partition in batches}
        for partition, batch in batches.items():
            batch.own = [Caused(OWN, failed.report) for failed in reported[partition]]
        try:
            work, again = self._read(batches)
            work.reported = reported
            self._decide(work)
            again |= self._commit(work)
            self._relay.forget([failed.row for partition in work.decided for failed in reported[partition]])
            self._publish([entry for item in work.decided.values() for entry in item.chain.committed])
        except NotAlive:
            return set(batches)
        return again

    def _read(self, batches: Mapping[int, PartitionBatch]) -> tuple[_Work, set[int]]:
        """Read what the batch is decided on, all of it at once; name the partitions that can't be decided."""
        asked_at_s = self._monotonic_s()
        snapshot = self._store.read(
            sorted(batches),
            _lead_ids(batches),
            counters=self._counters.to_read(asked_at_s),
            money=_moves(batches),
        )
        self._check_clock(_ClockReading(snapshot.now_ms, asked_at_s, self._monotonic_s()))
        self._counters.learn(snapshot.counters, asked_at_s)
        market = self._markets.market(snapshot.market_version)
        self._look_at(self._counters.unread(market, snapshot.now_ms))
        self._show_limits(market, snapshot.now_ms)
        started = {
            partition: self._started(snapshot.heads[partition], batch)
            for partition, batch in sorted(batches.items())
        }
        ready = {partition: found for partition, found in started.items() if found is not None}
        return _Work(snapshot, asked_at_s, ready), started.keys() - ready.keys()

    def _started(self, head: Head, batch: PartitionBatch) -> Started | None:
        """Give the inputs to decide, unless another owner has moved the head or its mark (rules 1, 3 and 16)."""
        owned = self._owned[head.partition]
        if (head.version, head.published_seq) != (owned.version, owned.published_seq):
            return None
        started = start(batch, head)
        if started is not None:
            self._metrics.repeats.inc(len(batch.inputs()) - len(started.inputs))
        return started

    def _show_limits(self, market: Market, now_ms: int) -> None:
        now_s = self._monotonic_s()
        if now_s >= self._limits_at_s:
            self._limits_at_s = now_s + LIMITS_EACH_S
            self._metrics.show_limits(self._counters.most_used(market, now_ms, at_most=LIMITS_SHOWN_MAX))

    def _decide(self, work: _Work, *, reads: bool = True) -> None:
        """Decide all partitions, one behind the other, as they may draw on the same limits.

        Where leads are passed over for limits that were read too long ago, these are read and all is decided again,
        which may be for others then.
        """
        room = self._decide_once(work)
        for _ in range(READS_MAX if reads else 0):
            if not self._look_at(room.stale(work.read_at_s)):
                break
            room = self._decide_once(work)
        self._counters.note_short(room.short, work.read_at_s)

    def _look_at(self, counters: Collection[str]) -> bool:
        """Read counters; False where there are none to read."""
        if counters:
            asked_at_s = self._monotonic_s()
            self._counters.learn(self._store.counters(counters), asked_at_s)
        return bool(counters)

    def _decide_once(self, work: _Work) -> Room:
        market = self._markets.market(work.snapshot.market_version)
        room = Room(self._counters, market)
        owned = len(self._owned)
        surroundings = Surroundings(
            snapshot=work.snapshot,
            markets=self._markets,
            codec=self._codec,
            failed=work.failed,
            room=room,
            invitations=self._bidders.invitations(
                market, owned=owned, partitions=self._partitions or owned, now_s=work.read_at_s
            ),
        )
        work.decided = {
            partition: self._decide_partition(surroundings, partition, started)
            for partition, started in work.started.items()
        }
        work.draws = room.draws()
        return room

    def _decide_partition(self, surroundings: Surroundings, partition: int, started: Started) -> _Decided:
        head = surroundings.snapshot.heads[partition]
        chain = Chain(head, surroundings)
        holds_back = started.next_command < self._answers_until.get(partition, 0)
        for caused in started.inputs:
            if holds_back and chain.would_end_what_is_answered(caused.subject):
                continue
            if isinstance(caused.subject, CloseAuction) and self._is_early(caused.subject, chain.now_ms):
                continue
            chain.add(caused)
        after = replace(
            head,
            next_qualified=started.next_qualified,
            next_command=started.next_command,
            next_timer=started.next_timer,
            seq=chain.seq,
            hash=chain.hash,
            decided_at_ms=chain.now_ms,
            market_version=surroundings.snapshot.market_version,
        )
        return _Decided(after, chain)

    def _is_early(self, closing: CloseAuction, now_ms: int) -> bool:
        closes_at_ms = self._auctions.closes_at_ms(closing.lead_id)
        return closes_at_ms is not None and now_ms < closes_at_ms

    def _commit(self, work: _Work) -> set[int]:
        """Commit what is decided, less what others have moved on; `work` is left with what was committed."""
        again: set[int] = set()
        attempts = 0
        self._finish_publishing()
        while work.started:
            try:
                rows = self._commit_once(work)
                self._counters.learn(rows, self._monotonic_s())
                break
            except Overtaken as overtaken:
                again |= overtaken.partitions
                work.drop(overtaken.partitions)
                if work.draws.rows:
                    self._decide(work)
            except PromiseBroken as broken:
                work.failed = self._failing(broken, work.failed)
                self._decide(work)
            except LimitsShort as short:
                work.times_short += 1
                self._metrics.limits_short.inc()
                self._counters.learn(short.rows, self._monotonic_s())
                if work.times_short < DECIDED_AHEAD_MAX:
                    self._decide(work)
            except TryAgain:
                attempts += 1
                if attempts >= ATTEMPTS_MAX:
                    raise
        if not work.failed and any(item.chain.committed for item in work.decided.values()):
            self._failed_in_a_row = 0
        for partition, item in work.decided.items():
            self._follow(work.commits[partition], item.chain, work.reported[partition])
        return again

    def _commit_once(self, work: _Work) -> Sequence[CounterRow]:
        """Decide first and commit then, as long as that may work; otherwise decide under locks (rule 6)."""
        if work.times_short < DECIDED_AHEAD_MAX:
            return self._store.commit(self._commits(work), work.draws)
        self._metrics.locked_batches.inc()
        locked: set[str] = set()

        def decide_locked(rows: Sequence[CounterRow]) -> tuple[Sequence[PartitionCommit], Draws]:
            self._counters.learn(rows, self._monotonic_s())
            self._decide(work, reads=False)
            if not locked.issuperset(row.counter for row in work.draws.rows):
                raise _MoreToLock
            return self._commits(work), work.draws

        for _ in range(LOCKS_MAX):
            self._decide_on_what_is_now(work)
            locked.update(row.counter for row in work.draws.rows)
            try:
                return self._store.commit_locked(list(work.started), sorted(locked), decide_locked)
            except _MoreToLock:
                locked.update(row.counter for row in work.draws.rows)
        raise Stopped(f"a batch drew on more and more limits, {len(locked)} by now")

    def _commits(self, work: _Work) -> list[PartitionCommit]:
        """Give the rows of all partitions, and let the marks ride along (rule 16)."""
        work.commits = {at: item.commit(self._owned[at].mark) for at, item in work.decided.items()}
        return list(work.commits.values())

    def _decide_on_what_is_now(self, work: _Work) -> None:
        """Read all limits again before some are locked, or those that others used up would be found one by one."""
        market = self._markets.market(work.snapshot.market_version)
        now_s = self._monotonic_s()
        self._look_at(self._counters.not_fresh(market, work.snapshot.now_ms, now_s))
        self._decide(work)

    def _follow(self, commit: PartitionCommit, chain: Chain, reported: Collection[FailedDelivery]) -> None:
        """Remember what was committed."""
        after = commit.after
        partition = after.partition
        # What was reported since the batch began is still to be decided on.
        own = tuple(failed for failed in self._owned[partition].own if failed not in reported)
        self._owned[partition] = _Owned(commit.before.version + 1, after.published_seq, own=own)
        if after.next_command >= self._answers_until.get(partition, 0):
            self._answers_until.pop(partition, None)
        for lead_id in commit.auctions_ended:
            self._auctions.ended(lead_id)
        for row in commit.auctions_opened:
            self._auctions.opened(row)
        for change in self._bidders.follow(chain.bidding, self._monotonic_s()):
            self._metrics.breakers.labels("opened" if change.is_open else "closed").inc()
            _log.warning("breaker_opened" if change.is_open else "breaker_closed", buyer=change.buyer_id)
        self._metrics.count(commit, chain)

    def _failing(self, broken: PromiseBroken, failed: frozenset[str]) -> frozenset[str]:
        """Close one lead as failed; a second one in a batch, or the tenth in a row, stops the worker (rule 9)."""
        self._failed_in_a_row += 1
        self._metrics.promises_broken.inc()
        if failed or self._failed_in_a_row >= FAILED_IN_A_ROW_MAX:
            raise Stopped(
                f"{self._failed_in_a_row} decisions were refused by the database: {broken}"
            ) from broken
        _log.error("promise_broken", lead_id=broken.lead_id, constraint=broken.constraint)
        return frozenset({broken.lead_id})

    def _publish(self, batch: Sequence[Committed]) -> None:
        """Begin to publish; whether all has arrived is asked before the next commit, or when there is none."""
        if batch:
            self._publishing = self._relay.publish(batch)

    def _finish_publishing(self) -> None:
        """Wait for what is being published, and note how far for the mark; it moves with the next commit (rule 16)."""
        publishing, self._publishing = self._publishing, None
        if publishing is None:
            return
        published = self._relay.finish(publishing)
        self._report(published.failed)
        last = {committed.row.partition: committed.row.seq for committed in publishing.batch}
        for partition, seq in last.items():
            owned = self._owned[partition]
            owned.mark = Mark(
                partition=partition,
                before_seq=owned.published_seq,
                after_seq=seq,
                undelivered=tuple(row for row in published.undelivered if row.partition == partition),
                erased=_erased_in(publishing.batch, partition),
            )

    # What is left for later

    def _move_marks(self) -> set[int]:
        self._finish_publishing()
        marks = [owned.mark for owned in self._owned.values() if owned.mark is not None]
        if not marks:
            return set()
        try:
            self._store.move_marks(marks)
        except Overtaken as overtaken:
            return set(overtaken.partitions)
        for mark in marks:
            owned = self._owned[mark.partition]
            owned.published_seq, owned.mark = mark.after_seq, None
        return set()

    def _drop_what_is_old(self) -> None:
        """Let the table's old ranges of the log go, as the topic keeps everything (rule 21), and counters long over."""
        now_s = self._monotonic_s()
        if now_s < self._drop_at_s:
            return
        self._drop_at_s = now_s + DROP_EACH_S
        try:
            dropped = self._store.drop_old_log_ranges()
            counters = self._store.drop_old_counters()
        except PassingFault:
            return
        if dropped or counters:
            _log.info("old_rows_dropped", log_ranges=list(dropped), counters=counters)

    def _retry_undelivered(self) -> set[int]:
        behind = self._relay.behind()
        self._metrics.recipients_behind.set(behind)
        if self._monotonic_s() < self._retry_at_s or not behind:
            return set()
        again = self._move_marks()
        try:
            retried = self._relay.retry()
        except NotAlive:
            return again
        self._report(retried.failed)
        self._pace_retries(retried)
        return again

    def _pace_retries(self, retried: Retried) -> None:
        """Try those that stay silent less and less often: each try may hold up all others for a second."""
        longer_s = min(2 * self._retry_each_s, RETRY_AT_MOST_EACH_S)
        wait_s = 0.0 if retried.more else self._retry_each_s
        self._retry_at_s = self._monotonic_s() + wait_s
        self._retry_each_s = longer_s if retried.all_silent else RETRY_EACH_S

    def _report(self, found: Sequence[FailedDelivery]) -> None:
        """Decide on these with the next batch; until then they stand among the undelivered."""
        for failed in found:
            owned = self._owned[failed.row.partition]
            if failed not in owned.own:
                owned.own = (*owned.own, failed)

    def _check_clock(self, reading: _ClockReading) -> None:
        """The database's clock must go as ours does (rule 10)."""
        jump_ms = 0.0 if self._clock is None else _jump_ms(self._clock, reading)
        if abs(jump_ms) > CLOCK_JUMP_MAX_MS:
            raise Stopped(
                f"the database's clock jumped by {jump_ms / 1_000:.0f} s: look at it before you go on"
            )
        self._clock = reading

    def _subscribed(self, partitions: Collection[int]) -> Collection[TopicPartition]:
        return [TopicPartition(self._topics.qualified, partition) for partition in sorted(partitions)]


def _lead_ids(batches: Mapping[int, PartitionBatch]) -> list[str]:
    return list({caused.subject.lead_id for batch in batches.values() for caused in batch.inputs()})


def _moves(batches: Mapping[int, PartitionBatch]) -> list[MoneyRow]:
    """Name the moves of money whose references may be known."""
    return [
        MoneyRow(caused.subject.lead_id, caused.subject.reference)
        for batch in batches.values()
        for caused in batch.commands
        if isinstance(caused.subject, MoveMoney)
    ]


def _erased_in(batch: Sequence[Committed], partition: int) -> tuple[str, ...]:
    """Name the leads of a partition that are to be forgotten once this batch is published."""
    return tuple(
        committed.row.lead_id
        for committed in batch
        if committed.row.partition == partition and LeadErased in map(type, committed.events)
    )


def _closing(row: AuctionRow) -> CloseAuction:
    return CloseAuction(lead_id=row.lead_id, auction_number=row.auction_number)


def _jump_ms(before: _ClockReading, after: _ClockReading) -> float:
    """Say by how much the database's clock passed by more or less than ours can have, if at all."""
    passed_ms = after.now_ms - before.now_ms
    least_ms = (after.asked_at_s - before.answered_at_s) * 1_000
    most_ms = (after.answered_at_s - before.asked_at_s) * 1_000
    return passed_ms - min(max(passed_ms, least_ms), most_ms)
