"""The gateway's order of effects: what it reads is in its tables before it is told to anybody.

A batch is committed with its positions: receipts as what became of their leads, records of buyers as pointers to what
is to be posted. Then whatever is due goes to the postman, and what he comes back with is written. Die on any line: a
record whose row is there is posted again, with the same id.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import assert_never

import orjson
import structlog

from services.bus.ports import Record, TopicPartition
from services.contract.topics import Topics
from services.gateway.domain import (
    Disabled,
    Expired,
    Failed,
    Outcome,
    Pointer,
    Posted,
    Waiting,
    answer_by_ms,
    next_try_ms,
)
from services.gateway.metrics import GatewayMetrics
from services.gateway.ports import (
    Directory,
    GatewayStore,
    Move,
    Overtaken,
    Post,
    Postman,
    Settled,
)
from services.gateway.statuses import LeadStatus, NoReceipt, fold, read_receipt

LOOKS_EACH_MS = 1_000
"""So often it looks who uses HTTP."""

FORGETS_EACH_MS = 60_000
FORGETS_AT_ONCE = 2_000
IN_FLIGHT_MAX = {"leads": 8, "pings": 32}
"""Posts under way for one topic of one buyer at most: a slow buyer fills its own places, and nobody else's."""

AT_HAND_MAX = 5_000
"""So many records are kept in memory for their first post; others are read from Kafka again."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Lane:
    """What is under way for one topic of a buyer, and when to look for more."""

    buyer_id: str
    most: int
    in_flight: set[Pointer] = field(default_factory=set)
    look_at_ms: float = 0.0

    def is_due(self, now_ms: int) -> bool:
        return self.look_at_ms <= now_ms and len(self.in_flight) < self.most


class Gateway:
    """The step behind HTTP: folds receipts, and has buyers' records posted."""

    def __init__(
        self,
        store: GatewayStore,
        postman: Postman,
        topics: Topics,
        metrics: GatewayMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        """Begin with nothing assigned."""
        self._store = store
        self._postman = postman
        self._topics = topics
        self._now_ms = now_ms
        self._metrics = metrics
        self._directory = Directory()
        self._look_at_ms = 0
        self._forget_at_ms = 0
        self._next: dict[TopicPartition, int | None] = {}
        self._lanes: dict[str, _Lane] = {}
        self._at_hand: OrderedDict[Pointer, Record] = OrderedDict()
        self._unsettled: list[Outcome] = []

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin at the stored positions; what waits to be posted is this worker's from now on."""
        positions = self._store.positions(assigned)
        self._next |= positions
        for where in assigned:
            owner = self._topics.owner_of(where.topic)
            assert owner is not None, "only topics of outsiders are subscribed"
            if owner[0] == "buyers":
                self._lanes.setdefault(where.topic, _Lane(buyer_id=owner[1], most=IN_FLIGHT_MAX[owner[2]]))
        return positions

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Forget these; posts that are under way end by themselves, and are settled all the same."""
        for where in revoked:
            self._next.pop(where, None)
            self._lanes.pop(where.topic, None)

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Keep a batch, then post what is due."""
        batch = [record for record in records if self._is_next(record)]
        now_ms = self._now_ms()
        try:
            self._keep(batch, now_ms)
        except Overtaken as overtaken:
            return overtaken.partitions
        self._turn(now_ms)
        return ()

    def idle(self) -> Collection[TopicPartition]:
        """Post what is due."""
        self._turn(self._now_ms())
        return ()

    def _is_next(self, record: Record) -> bool:
        next_offset = self._next.get(TopicPartition(record.topic, record.partition), inf)
        return next_offset is None or record.offset >= next_offset

    def _keep(self, batch: Sequence[Record], now_ms: int) -> None:
        after = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in batch}
        if not after:
            return
        moves = {where: Move(before=self._next[where], after=offset) for where, offset in after.items()}
        receipts = [record for record in batch if record.topic not in self._lanes]
        posts = [record for record in batch if record.topic in self._lanes]
        waiting = [row for row in map(self._waiting(now_ms), posts) if not row.expired(now_ms)]
        self._store.keep(moves, self._folded(receipts), waiting, now_ms)
        self._next |= after
        self._metrics.receipts.inc(len(receipts))
        self._remember(posts)
        for row in waiting:
            self._lanes[row.pointer.topic].look_at_ms = 0.0

    def _folded(self, receipts: Sequence[Record]) -> Collection[LeadStatus]:
        read = []
        for record in receipts:
            try:
                read.append((record.topic, read_receipt(record.value)))
            except NoReceipt as fault:
                # The topic is ours to write: a record that is no receipt is a defect, but no reason to stop the door.
                _log.error("no receipt", topic=record.topic, offset=record.offset, fault=str(fault))
        if not read:
            return ()
        known = dict(self._store.statuses({receipt["lead_id"] for _, receipt in read}))
        for topic, receipt in read:
            lead_id, owner = receipt["lead_id"], self._topics.owner_of(topic)
            assert owner is not None, "only topics of outsiders are subscribed"
            before = known.get(lead_id) or LeadStatus(lead_id=lead_id, source_id=owner[1])
            known[lead_id] = fold(before, receipt)
        return known.values()

    def _waiting(self, now_ms: int) -> Callable[[Record], Waiting]:
        def waiting(record: Record) -> Waiting:
            return Waiting(
                pointer=_pointer(record),
                buyer_id=self._lanes[record.topic].buyer_id,
                attempts=0,
                next_try_at_ms=now_ms,
                answer_by_ms=_answer_by_ms(record),
            )

        return waiting

    def _remember(self, records: Sequence[Record]) -> None:
        self._at_hand.update({_pointer(record): record for record in records})
        while len(self._at_hand) > AT_HAND_MAX:
            self._at_hand.popitem(last=False)

    def _turn(self, now_ms: int) -> None:
        """Settle what came back, look who uses HTTP, post what is due, forget what is old."""
        self._settle(now_ms)
        if now_ms >= self._look_at_ms:
            self._directory = self._store.directory(now_ms)
            self._look_at_ms = now_ms + LOOKS_EACH_MS
        self._post(now_ms)
        if now_ms >= self._forget_at_ms:
            self._forget(now_ms)

    def _forget(self, now_ms: int) -> None:
        """Forget what is old; where much is due, go on at the next turn, and where it fails, when it is due again."""
        self._forget_at_ms = now_ms + FORGETS_EACH_MS
        if self._store.forget(now_ms, FORGETS_AT_ONCE) >= FORGETS_AT_ONCE:
            self._forget_at_ms = now_ms

    def _post(self, now_ms: int) -> None:
        due = {topic: lane for topic, lane in self._lanes.items() if lane.is_due(now_ms)}
        due = {topic: lane for topic, lane in due.items() if self._may_post(lane)}
        if not due:
            return
        found = self._store.next_in({topic: 2 * lane.most for topic, lane in due.items()})
        for topic, lane in due.items():
            self._post_lane(lane, found[topic], now_ms)
        self._metrics.in_flight.set(sum(len(lane.in_flight) for lane in self._lanes.values()))

    def _post_lane(self, lane: _Lane, rows: Sequence[Waiting], now_ms: int) -> None:
        lane.look_at_ms = inf
        for row in rows:
            if row.pointer in lane.in_flight:
                continue
            if row.next_try_at_ms > now_ms:
                lane.look_at_ms = row.next_try_at_ms
                return
            if row.expired(now_ms):
                self._unsettled.append(Expired(waiting=row))
            elif len(lane.in_flight) == lane.most:
                break
            lane.in_flight.add(row.pointer)
            if not row.expired(now_ms):
                endpoint = self._directory.endpoints[row.buyer_id]
                self._postman.post(
                    Post(waiting=row, endpoint=endpoint, record=self._at_hand.pop(row.pointer, None))
                )
        if len(rows) == 2 * lane.most:
            lane.look_at_ms = 0.0

    def _may_post(self, lane: _Lane) -> bool:
        endpoint = self._directory.endpoints.get(lane.buyer_id)
        return endpoint is not None and not endpoint.is_disabled

    def _settle(self, now_ms: int) -> None:
        self._unsettled += self._postman.outcomes()
        if not self._unsettled:
            return
        self._store.settle(_settled(self._unsettled, now_ms), now_ms)
        for outcome in self._unsettled:
            lane = self._lanes.get(outcome.waiting.pointer.topic)
            if lane is not None:
                lane.in_flight.discard(outcome.waiting.pointer)
                lane.look_at_ms = 0.0
        if any(isinstance(outcome, Disabled) for outcome in self._unsettled):
            self._look_at_ms = 0
        self._count()
        self._unsettled.clear()

    def _count(self) -> None:
        for kind, times in Counter(type(outcome).__name__ for outcome in self._unsettled).items():
            self._metrics.webhooks.labels(kind.lower()).inc(times)
        for outcome in self._unsettled:
            waiting = outcome.waiting
            match outcome:
                case Disabled():
                    _log.error("webhook is gone", buyer=waiting.buyer_id, record=str(waiting.pointer))
                case Failed() if next_try_ms(waiting, 0) is None:
                    self._metrics.given_up.inc()
                    record = str(waiting.pointer)
                    _log.error("webhook given up", buyer=waiting.buyer_id, record=record, error=outcome.error)
                case _:
                    pass


def _settled(outcomes: Sequence[Outcome], now_ms: int) -> Settled:
    done: list[Pointer] = []
    later: list[tuple[Waiting, str]] = []
    given_up: list[tuple[Pointer, str]] = []
    disabled: dict[str, str] = {}
    for outcome in outcomes:
        waiting = outcome.waiting
        match outcome:
            case Posted() | Expired():
                done.append(waiting.pointer)
            case Failed(error=error):
                again_at_ms = next_try_ms(waiting, now_ms)
                if again_at_ms is None:
                    given_up.append((waiting.pointer, error))
                else:
                    again = replace(waiting, attempts=waiting.attempts + 1, next_try_at_ms=again_at_ms)
                    later.append((again, error))
            case Disabled(url=url):
                # The record itself waits, until the buyer has another URL or this one is called again.
                disabled[waiting.buyer_id] = url
            case _:
                assert_never(outcome)
    return Settled(done=done, later=later, given_up=given_up, disabled=disabled)


def subscribed(directory: Directory, topics: Topics) -> list[str]:
    """Name the topics of those who use HTTP."""
    return [
        *(topics.source_receipts(source_id) for source_id in directory.sources),
        *(topics.buyer_pings(buyer_id) for buyer_id in directory.endpoints),
        *(topics.buyer_leads(buyer_id) for buyer_id in directory.endpoints),
    ]


def _pointer(record: Record) -> Pointer:
    return Pointer(record.topic, record.partition, record.offset)


def _answer_by_ms(record: Record) -> int | None:
    """Only pings and offers want an answer in time; what is no JSON (Avro deliveries) does not."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    return answer_by_ms(body) if isinstance(body, dict) else None
