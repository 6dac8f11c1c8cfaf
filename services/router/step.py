"""The router as a step: reads a batch, has it decided, commits it once, and publishes what was committed.

No rule of the trade is here: those are in `domain`. Here is the order of effects, which is protocol.md's: heads and
clock, leads, decision, one transaction, then the relay, then the mark (which rides on the next commit).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import structlog

from services.bus.logging import told
from services.bus.ports import Record, Stopped, TopicPartition
from services.contract.codec import Codec
from services.contract.entries import Entry, hash_of
from services.contract.events import LeadClosed, LeadSold, WindowKind
from services.contract.inputs import Input, QualifiedLead, TimerDue
from services.contract.market import Market, Mode
from services.contract.topics import Topics
from services.router.batch import OWN, Caused, PartitionBatch, Started, batches_of, start
from services.router.domain import Conditions, Decision, decide, fail
from services.router.lead import Lead, State
from services.router.orders import OrderBook
from services.router.ports import (
    FOR_GOOD,
    NEVER_CLOSED,
    CloseRow,
    Head,
    LogRow,
    LogTail,
    Mark,
    Overtaken,
    PartitionCommit,
    PromiseBroken,
    RouterStore,
    SaleRow,
    Snapshot,
    StartAgain,
    TryAgain,
)
from services.router.relay import Committed, FailedDelivery, NotAlive, Relay, Retried

ATTEMPTS_MAX = 5
LOST_IN_A_ROW_MAX = 10
FAILED_IN_A_ROW_MAX = 10
CLOCK_JUMP_MAX_MS = 60_000
PUBLISHED_AT_ONCE_MAX = 1_000
RETRY_EACH_S = 1.0
RETRY_AT_MOST_EACH_S = 16.0
DROP_EACH_S = 3_600.0

_log = structlog.get_logger("gavel.router")


class Markets(Protocol):
    """The versions of the market, kept for good."""

    def market(self, version: int) -> Market:
        """Read a version."""
        ...

    def books(self, version: int) -> Mapping[str, OrderBook]:
        """Index the orders of a version, by lead type."""
        ...


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
    """One partition's batch, decided: the rows to commit, and what to publish once they are."""

    commit: PartitionCommit
    committed: Sequence[Committed]


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
    ) -> None:
        """Take everything it works on; nothing is opened or read here."""
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
        self._lost_in_a_row = 0
        self._clock: _ClockReading | None = None
        self._retry_at_s = 0.0
        self._retry_each_s = RETRY_EACH_S
        self._drop_at_s = monotonic_s() + DROP_EACH_S

    # The step

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin at the heads' positions; what earlier owners left unpublished goes out before anything is decided.

        Not here, because a worker sends nothing before the group has confirmed that it is a member (rule 15).
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                return self._take_over(assigned)
            except (StartAgain, TryAgain) as error:
                lost = error
        raise Stopped(
            f"the database was lost {ATTEMPTS_MAX} times while partitions were taken over"
        ) from lost

    def _take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        positions: dict[TopicPartition, int | None] = {}
        heads = self._store.heads([where.partition for where in assigned])
        topic_id = self._log_tail.topic_id()
        for partition, head in sorted(heads.items()):
            self._require_topic(head, topic_id)
            self._require_origin(head)
            self._relay.take_over(partition)
            self._answers_until[partition] = self._log_tail.commands_end(partition)
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
        self._move_marks()
        for where in revoked:
            self._owned.pop(where.partition, None)
            self._relay.release(where.partition)

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Decide, commit and publish a batch."""
        batches = batches_of(records, self._codec, self._topics)
        again = self._catch_up()
        ready = {
            partition: batch
            for partition, batch in batches.items()
            if partition in self._owned and not self._owned[partition].is_behind
        }
        again |= (batches.keys() & self._owned.keys()) - ready.keys()
        again |= self._turn(self._with_own(ready))
        self._drop_old_log_ranges()
        return self._subscribed(again | self._retry_undelivered())

    def idle(self) -> Collection[TopicPartition]:
        """Publish what is behind, decide the router's own findings, move the marks that no commit has taken along."""
        again = self._catch_up()
        again |= self._turn(self._with_own({}))
        again |= self._move_marks()
        self._drop_old_log_ranges()
        return self._subscribed(again | self._retry_undelivered())

    def _with_own(self, batches: Mapping[int, PartitionBatch]) -> dict[int, PartitionBatch]:
        """Add partitions that nothing came for, but that the router itself has found something in."""
        own = {at: PartitionBatch() for at, owned in self._owned.items() if owned.own and not owned.is_behind}
        return {**own, **batches}

    # Taking over

    def _catch_up(self) -> set[int]:
        """Publish from the table what lies between the mark and the last entry (rule 15), as far as we may."""
        again: set[int] = set()
        for partition in [partition for partition, owned in self._owned.items() if owned.is_behind]:
            try:
                if not self._publish_from_table(partition):
                    again.add(partition)
            except NotAlive:
                break
            except Overtaken:
                again.add(partition)
            except (StartAgain, TryAgain) as error:
                self._note_lost(error)
                again.add(partition)
        return again

    def _publish_from_table(self, partition: int) -> bool:
        """Publish batch by batch, with the mark moved after each; False where the head is another's by now."""
        owned = self._owned[partition]
        head = self._store.heads([partition])[partition]
        if (head.version, head.published_seq) != (owned.version, owned.published_seq):
            return False
        while owned.published_seq < head.seq:
            rows = self._store.entries(partition, after_seq=owned.published_seq, limit=PUBLISHED_AT_ONCE_MAX)
            self._publish(self._relay.read(rows))
            assert owned.mark is not None
            self._store.move_marks([owned.mark])
            owned.published_seq, owned.mark = owned.mark.after_seq, None
            self._lost_in_a_row = 0
        owned.is_behind = False
        return True

    def _require_topic(self, head: Head, topic_id: str) -> None:
        """A log that was deleted and made again is another log (rule 21)."""
        if not head.log_topic_id:
            self._store.adopt_log_topic(head.partition, topic_id)
        elif head.log_topic_id != topic_id:
            raise Stopped(
                f"{self._topics.log} was made again: its id is {topic_id}, and partition {head.partition} was "
                f"published to {head.log_topic_id}. Its history is gone from Kafka: an operator must restore it"
            )

    def _require_origin(self, head: Head) -> None:
        """The log must not know more than the database, nor other (rule 22)."""
        value = self._log_tail.last_value(head.partition)
        if value is None:
            return
        seq = self._codec.decode_entry(value).seq
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

    # One turn: read, decide, commit, publish

    def _turn(self, batches: Mapping[int, PartitionBatch]) -> set[int]:
        """Work on all partitions in one transaction; return those that must begin again."""
        if not batches:
            return set()
        reported = {partition: self._owned[partition].own for partition in batches}
        for partition, batch in batches.items():
            batch.own = [Caused(OWN, failed.report) for failed in reported[partition]]
        try:
            asked_at_s = self._monotonic_s()
            snapshot = self._store.read(sorted(batches), _lead_ids(batches))
            self._check_clock(_ClockReading(snapshot.now_ms, asked_at_s, self._monotonic_s()))
            decided, again = self._decide(batches, snapshot)
            again |= self._commit(batches, snapshot, decided)
            self._relay.forget([failed.row for partition in decided for failed in reported[partition]])
            self._publish([entry for item in decided.values() for entry in item.committed])
        except NotAlive:
            return set(batches)
        except (StartAgain, TryAgain) as error:
            self._note_lost(error)
            return set(batches)
        return again

    def _note_lost(self, error: StartAgain | TryAgain) -> None:
        """What passes is waited out (rules 4 and 5), but not for ever, nor in silence."""
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST_IN_A_ROW_MAX:
            raise Stopped(f"{self._lost_in_a_row} transactions in a row were lost") from error
        _log.warning("transaction_lost", in_a_row=self._lost_in_a_row, error=told(error))

    def _decide(
        self, batches: Mapping[int, PartitionBatch], snapshot: Snapshot
    ) -> tuple[dict[int, _Decided], set[int]]:
        decided: dict[int, _Decided] = {}
        again: set[int] = set()
        for partition, batch in sorted(batches.items()):
            started = self._started(snapshot.heads[partition], batch)
            if started is None:
                again.add(partition)
            else:
                decided[partition] = self._decide_partition(snapshot, partition, started, failed=frozenset())
        return decided, again

    def _started(self, head: Head, batch: PartitionBatch) -> Started | None:
        """Give the inputs to decide, unless another owner has moved the head or its mark (rules 1, 3 and 16)."""
        owned = self._owned[head.partition]
        if (head.version, head.published_seq) != (owned.version, owned.published_seq):
            return None
        return start(batch, head)

    def _decide_partition(
        self, snapshot: Snapshot, partition: int, started: Started, *, failed: frozenset[str]
    ) -> _Decided:
        head = snapshot.heads[partition]
        deciding = _Chain(head, snapshot, self._markets, self._codec, failed)
        holds_offers = started.next_command < self._answers_until[partition]
        for caused in started.inputs:
            if not (holds_offers and deciding.would_end_offer(caused.subject)):
                deciding.add(caused)
        mark = self._owned[partition].mark
        after = replace(
            head,
            next_qualified=started.next_qualified,
            next_command=started.next_command,
            next_timer=started.next_timer,
            seq=deciding.seq,
            hash=deciding.hash,
            decided_at_ms=deciding.now_ms,
            market_version=snapshot.market_version,
            published_seq=mark.after_seq if mark else head.published_seq,
        )
        return _Decided(deciding.commit(after, mark), deciding.committed)

    def _commit(
        self, batches: Mapping[int, PartitionBatch], snapshot: Snapshot, decided: dict[int, _Decided]
    ) -> set[int]:
        """Commit what is decided, less what others have moved on; `decided` is left with what was committed."""
        again: set[int] = set()
        failed: frozenset[str] = frozenset()
        attempts = 0
        while decided:
            try:
                self._store.commit([item.commit for item in decided.values()])
                break
            except Overtaken as overtaken:
                again |= overtaken.partitions
                for partition in overtaken.partitions:
                    decided.pop(partition)
            except PromiseBroken as broken:
                failed = self._failing(broken, failed)
                for partition in decided:
                    started = start(batches[partition], snapshot.heads[partition])
                    assert started is not None
                    decided[partition] = self._decide_partition(snapshot, partition, started, failed=failed)
            except TryAgain as error:
                attempts += 1
                if attempts >= ATTEMPTS_MAX:
                    raise Stopped(
                        f"a commit did not get its locks in {attempts} attempts: {error}"
                    ) from error
        self._lost_in_a_row = 0
        if not failed and any(item.committed for item in decided.values()):
            self._failed_in_a_row = 0
        for partition, item in decided.items():
            self._owned[partition] = _Owned(item.commit.before.version + 1, item.commit.after.published_seq)
        return again

    def _failing(self, broken: PromiseBroken, failed: frozenset[str]) -> frozenset[str]:
        """Close one lead as failed; a second one in a batch, or the tenth in a row, stops the worker (rule 9)."""
        self._failed_in_a_row += 1
        if failed or self._failed_in_a_row >= FAILED_IN_A_ROW_MAX:
            raise Stopped(
                f"{self._failed_in_a_row} decisions were refused by the database: {broken}"
            ) from broken
        _log.error("promise_broken", lead_id=broken.lead_id, constraint=broken.constraint)
        return frozenset({broken.lead_id})

    def _publish(self, batch: Sequence[Committed]) -> None:
        """Publish, and note how far for the mark; the mark moves with the next commit (rule 16)."""
        if not batch:
            return
        published = self._relay.publish(batch)
        self._report(published.failed)
        last = {committed.row.partition: committed.row.seq for committed in batch}
        for partition, seq in last.items():
            owned = self._owned[partition]
            owned.mark = Mark(
                partition=partition,
                before_seq=owned.published_seq,
                after_seq=seq,
                undelivered=tuple(row for row in published.undelivered if row.partition == partition),
            )

    # What is left for later

    def _move_marks(self) -> set[int]:
        marks = [owned.mark for owned in self._owned.values() if owned.mark is not None]
        if not marks:
            return set()
        try:
            self._store.move_marks(marks)
        except Overtaken as overtaken:
            return set(overtaken.partitions)
        except (StartAgain, TryAgain) as error:
            self._note_lost(error)
            return {mark.partition for mark in marks}
        self._lost_in_a_row = 0
        for mark in marks:
            owned = self._owned[mark.partition]
            owned.published_seq, owned.mark = mark.after_seq, None
        return set()

    def _drop_old_log_ranges(self) -> None:
        """Let the table's old ranges go; the topic keeps everything (rule 21)."""
        now_s = self._monotonic_s()
        if now_s < self._drop_at_s:
            return
        self._drop_at_s = now_s + DROP_EACH_S
        try:
            dropped = self._store.drop_old_log_ranges()
        except (StartAgain, TryAgain):
            return
        if dropped:
            _log.info("log_ranges_dropped", ranges=list(dropped))

    def _retry_undelivered(self) -> set[int]:
        if self._monotonic_s() < self._retry_at_s or not self._relay.has_behind():
            return set()
        again = self._move_marks()
        try:
            retried = self._relay.retry()
        except NotAlive:
            return again
        except (StartAgain, TryAgain) as error:
            self._note_lost(error)
            return set(self._owned)
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


class _Chain:
    """One partition's entries in the making, each chained to the one before."""

    def __init__(
        self, head: Head, snapshot: Snapshot, markets: Markets, codec: Codec, failed: frozenset[str]
    ) -> None:
        self.seq = head.seq
        self.hash = head.hash
        self.now_ms = max(snapshot.now_ms, head.decided_at_ms)
        self.committed: list[Committed] = []
        self._head = head
        self._codec = codec
        self._markets = markets
        self._failed = failed
        self._version = snapshot.market_version
        self._states: dict[str, State] = {}
        self._stored = snapshot.leads
        self._sales: list[SaleRow] = []
        self._closes: list[CloseRow] = []
        self._conditions: dict[int, Conditions] = {}
        if snapshot.market_version < head.market_version:
            raise Stopped(
                f"the market is at version {snapshot.market_version}, but partition {head.partition} was decided under "
                f"{head.market_version} before: the database was restored?"
            )
        if head.decided_at_ms > snapshot.now_ms + CLOCK_JUMP_MAX_MS:
            raise Stopped(
                f"partition {head.partition} was decided {(head.decided_at_ms - snapshot.now_ms) / 1_000:.0f} s in the "
                "future: the database's clock went back"
            )

    def would_end_offer(self, subject: Input) -> bool:
        """Tell whether it is a timer of an offer, to which an answer may stand among the commands not read yet.

        Such a timer is passed over: resale sends it again (rule 27).
        """
        state = self._states.get(subject.lead_id) or self._stored.get(subject.lead_id)
        if not isinstance(subject, TimerDue) or not isinstance(state, Lead):
            return False
        window = state.window(WindowKind.ACCEPTANCE)
        return window is not None and window.number == subject.window_number

    def add(self, caused: Caused) -> None:
        """Decide one input, on the state that the batch so far has made."""
        lead_id = caused.subject.lead_id
        state = self._states[lead_id] if lead_id in self._states else self._stored.get(lead_id)
        conditions = self._conditions_for(state, caused)
        choose = fail if lead_id in self._failed else decide
        decision = choose(state, caused.subject, conditions)
        if decision.events:
            self._append(caused, decision)

    def commit(self, after: Head, mark: Mark | None) -> PartitionCommit:
        """Give the rows."""
        return PartitionCommit(
            before=self._head,
            after=after,
            mark=mark,
            log=[committed.row for committed in self.committed],
            new_leads={
                lead_id: state for lead_id, state in self._states.items() if lead_id not in self._stored
            },
            changed_leads={
                lead_id: state for lead_id, state in self._states.items() if lead_id in self._stored
            },
            sales=self._sales,
            closes=self._closes,
        )

    def _conditions_for(self, state: State, caused: Caused) -> Conditions:
        subject = caused.subject
        version = self._version
        if isinstance(state, Lead):
            version = state.market_version
        elif isinstance(subject, QualifiedLead):
            version = subject.market_version
        if version > self._version:
            raise Stopped(
                f"lead {subject.lead_id} was accepted under market version {version}, which is not known yet"
            )
        if version not in self._conditions:
            self._conditions[version] = Conditions(
                market=self._markets.market(self._version),
                books=self._markets.books(self._version),
                accepted_market=self._markets.market(version),
                no_room=frozenset(),
                now_ms=self.now_ms,
            )
        return self._conditions[version]

    def _append(self, caused: Caused, decision: Decision) -> None:
        self.seq += 1
        lead_id = caused.subject.lead_id
        entry = Entry(
            seq=self.seq,
            prev_hash=self.hash,
            cause=caused.cause,
            market_version=self._version,
            no_room=(),
            lead_id=lead_id,
            decided_at_ms=self.now_ms,
            events=tuple(self._codec.encode_body(event) for event in decision.events),
        )
        value = self._codec.encode(entry)
        self.hash = hash_of(value)
        row = LogRow(self._head.partition, self.seq, lead_id, self.now_ms, value)
        self.committed.append(Committed(row=row, entry=entry, events=decision.events))
        if decision.state is not None:
            self._states[lead_id] = decision.state
        self._add_rows(lead_id, decision)

    def _add_rows(self, lead_id: str, decision: Decision) -> None:
        first_closed_until_ms: int | None = None
        for event in decision.events:
            match event:
                case LeadSold():
                    if first_closed_until_ms is None:
                        assert isinstance(decision.state, Lead)
                        first_closed_until_ms = _closed_until_ms(decision.state)
                    self._sales.append(_sale_row(lead_id, event, self.now_ms, first_closed_until_ms))
                case LeadClosed():
                    self._closes.append(CloseRow(lead_id, event.outcome, self.now_ms))
                case _:
                    pass


def _lead_ids(batches: Mapping[int, PartitionBatch]) -> list[str]:
    return list({caused.subject.lead_id for batch in batches.values() for caused in batch.inputs()})


def _jump_ms(before: _ClockReading, after: _ClockReading) -> float:
    """Say by how much the database's clock passed by more or less than ours can have, if at all."""
    passed_ms = after.now_ms - before.now_ms
    least_ms = (after.asked_at_s - before.answered_at_s) * 1_000
    most_ms = (after.answered_at_s - before.asked_at_s) * 1_000
    return passed_ms - min(max(passed_ms, least_ms), most_ms)


def _closed_until_ms(lead: Lead) -> int:
    """Until when the first sale closes the lead to others: what every later sale must come after (rule 8)."""
    first = lead.sales[0]
    if first.mode is Mode.SHARED:
        return NEVER_CLOSED
    return FOR_GOOD if first.exclusive_until_ms is None else first.exclusive_until_ms


def _sale_row(lead_id: str, sold: LeadSold, sold_at_ms: int, closed_until_ms: int) -> SaleRow:
    return SaleRow(
        lead_id=lead_id,
        sale_number=sold.sale_number,
        buyer_id=sold.buyer_id,
        order_id=sold.order_id,
        mode=sold.mode,
        sales_max=sold.sales_max,
        price_cents=sold.price_cents,
        sold_at_ms=sold_at_ms,
        closed_until_ms=closed_until_ms,
    )
