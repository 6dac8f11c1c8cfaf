"""The gateway's step on the in-memory bus: no record is skipped, whatever dies, and none is folded twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.bus.memory import Crash, Faults, MemoryHost, MemoryKafka, VirtualClock
from services.bus.ports import Message, PassingFault, TopicPartition
from services.contract.ids import lead_id_of
from services.contract.times import iso_time
from services.contract.topics import Topics
from services.gateway import step as step_module
from services.gateway.domain import Disabled, Failed, Outcome, Pointer, Posted, Waiting
from services.gateway.memory_store import MemoryGatewayStore
from services.gateway.metrics import GatewayMetrics
from services.gateway.ports import Endpoint, Move, Post, Settled
from services.gateway.statuses import LeadStatus
from services.gateway.step import IN_FLIGHT_MAX, Gateway, subscribed

TOPICS = Topics()
URL = "https://acme.example/leads"
RECEIPTS = TopicPartition(TOPICS.source_receipts("sunform"), 0)
LEADS = TopicPartition(TOPICS.buyer_leads("acme"), 0)
PINGS = TopicPartition(TOPICS.buyer_pings("acme"), 0)


@dataclass(slots=True)
class FaultyStore(MemoryGatewayStore):
    """The tables, with an edge around each of their effects."""

    faults: Faults = field(default_factory=Faults)

    def keep(
        self,
        moves: Mapping[TopicPartition, Move],
        statuses: Collection[LeadStatus],
        waiting: Collection[Waiting],
        now_ms: int,
    ) -> None:
        self.faults.edge("keep")
        MemoryGatewayStore.keep(self, moves, statuses, waiting, now_ms)
        self.faults.edge("kept")

    def settle(self, settled: Settled, now_ms: int) -> None:
        self.faults.edge("settle")
        MemoryGatewayStore.settle(self, settled, now_ms)
        self.faults.edge("settled")


@dataclass(slots=True)
class MemoryPostman:
    """A postman whose buyers answer what `verdict` says, and which keeps what they have had."""

    faults: Faults
    had: list[Pointer]
    verdict: Callable[[Waiting], Outcome | None] = lambda waiting: Posted(waiting=waiting)
    ended: list[Outcome] = field(default_factory=list)
    under_way: list[Pointer] = field(default_factory=list)

    def post(self, post: Post) -> None:
        self.faults.edge("post")
        self.had.append(post.waiting.pointer)
        outcome = self.verdict(post.waiting)
        if outcome is None:
            self.under_way.append(post.waiting.pointer)
        else:
            self.ended.append(outcome)
        self.faults.edge("posted")

    def outcomes(self) -> Sequence[Outcome]:
        ended, self.ended = self.ended, []
        return ended


@dataclass(slots=True)
class World:
    """What a crash leaves: topics, tables, what buyers have had, and time."""

    kafka: MemoryKafka = field(default_factory=lambda: MemoryKafka(partitions=_topics()))
    store: FaultyStore = field(
        default_factory=lambda: FaultyStore(sources=("sunform",), endpoints=_endpoints())
    )
    had: list[Pointer] = field(default_factory=list)

    @property
    def clock(self) -> VirtualClock:
        return self.kafka.clock

    def worker(
        self, verdict: Callable[[Waiting], Outcome | None] | None = None
    ) -> tuple[MemoryHost, MemoryPostman]:
        postman = MemoryPostman(self.store.faults, self.had)
        if verdict is not None:
            postman.verdict = verdict
        metrics = GatewayMetrics(CollectorRegistry())
        gateway = Gateway(self.store, postman, TOPICS, metrics, lambda: self.clock.now_ms)
        host = MemoryHost(self.kafka, gateway)
        host.assign([RECEIPTS, LEADS, PINGS])
        return host, postman

    def tell(self, topic: str, **body: object) -> None:
        self.kafka.append(Message(topic, 0, b"key", orjson.dumps(body)))


def _topics() -> dict[str, int]:
    return {where.topic: 1 for where in (RECEIPTS, LEADS, PINGS)}


def _endpoints() -> dict[str, Endpoint]:
    return {"acme": Endpoint(buyer_id="acme", url=URL, secret_numbers=(1,))}


def _told() -> World:
    world = World()
    for number in range(5):
        lead_id = lead_id_of("sunform", str(number))
        world.tell(LEADS.topic, type="lead", lead_id=lead_id)
        world.tell(RECEIPTS.topic, lead_id=lead_id, at="now", happened=[{"type": "accepted"}])
        sold = {"type": "sold", "payout": "1.00", "currency": "USD"}
        world.tell(
            RECEIPTS.topic,
            lead_id=lead_id,
            at="now",
            happened=[sold],
            log={"partition": 0, "seq": number + 1},
        )
    return world


def _run(world: World, turns: int = 6) -> None:
    host, _ = world.worker()
    for _ in range(turns):
        host.turn()
        world.clock.advance(50)


def _edges() -> int:
    world = _told()
    _run(world)
    return world.store.faults.edges


def test_a_crash_at_any_edge_skips_no_record_and_folds_none_twice() -> None:
    for edge in range(1, _edges() + 1):
        world = _told()
        world.store.faults = Faults(crash_at=edge)
        with pytest.raises(Crash):
            _run(world)
        _run(world)
        _check(world, edge)


def _check(world: World, edge: int) -> None:
    assert {pointer.position for pointer in world.had} == set(range(5)), edge
    assert world.store.waiting == {}, edge
    happened = [[each["type"] for each in status.happened] for status in world.store.leads.values()]
    assert happened == [["accepted", "sold"]] * 5, edge


@pytest.mark.parametrize("bug", ["positions first", "settled unposted"])
def test_planted_bugs_are_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "positions first":
        kept = FaultyStore.keep

        def keep(
            self: FaultyStore,
            moves: Mapping[TopicPartition, Move],
            statuses: Collection[LeadStatus],
            waiting: Collection[Waiting],
            now_ms: int,
        ) -> None:
            kept(self, moves, (), (), now_ms)
            MemoryGatewayStore.keep(self, {}, statuses, waiting, now_ms)

        monkeypatch.setattr(FaultyStore, "keep", keep)
    else:
        settled = step_module._settled
        monkeypatch.setattr(
            step_module,
            "_settled",
            lambda outcomes, now_ms: replace(
                settled(outcomes, now_ms), done=[Pointer(LEADS.topic, 0, number) for number in range(5)]
            ),
        )
        monkeypatch.setitem(IN_FLIGHT_MAX, "leads", 1)
    with pytest.raises(AssertionError):
        test_a_crash_at_any_edge_skips_no_record_and_folds_none_twice()


def test_a_worker_that_was_overtaken_writes_nothing() -> None:
    world = _told()
    zombie, _ = world.worker()
    _run(world)
    before, had = dict(world.store.leads), list(world.had)
    zombie.turn()
    assert world.store.leads == before
    assert world.had == had, "it posts nothing that another has posted and settled"


def test_no_more_are_under_way_than_a_buyer_has_places() -> None:
    world = World()
    for number in range(100):
        world.tell(LEADS.topic, type="lead", lead_id=str(number))
    host, postman = world.worker(lambda _: None)
    host.drain()
    assert [pointer.position for pointer in postman.under_way] == list(range(IN_FLIGHT_MAX["leads"]))


def test_what_failed_comes_again_when_it_is_due_and_not_before() -> None:
    world = World()
    world.tell(LEADS.topic, type="lead", lead_id="1")
    host, _ = world.worker(lambda waiting: Failed(waiting=waiting, error="answered 500"))
    for _ in range(3):
        host.turn()
    assert len(world.had) == 1
    world.clock.advance(4_900)
    host.turn()
    assert len(world.had) == 1
    world.clock.advance(700)
    host.turn()
    assert len(world.had) == 2
    while world.store.waiting:
        world.clock.advance(12 * 3_600_000)
        host.turn()
    assert len(world.had) == 7
    assert list(world.store.given_up.values()) == ["answered 500"]


def test_a_ping_whose_time_is_over_is_posted_no_more() -> None:
    world = World()
    answer_by = iso_time(world.clock.now_ms + 500)
    world.tell(PINGS.topic, type="ping", lead_id="1", answer_by=answer_by)
    host, _ = world.worker(lambda waiting: Failed(waiting=waiting, error="no answer in time"))
    host.drain()
    world.clock.advance(6_000)
    for _ in range(3):
        host.turn()
    assert len(world.had) == 1
    assert world.store.waiting == {}


def test_a_url_that_is_gone_is_left_alone_and_its_records_wait() -> None:
    world = World()
    world.tell(LEADS.topic, type="lead", lead_id="1")
    host, postman = world.worker(lambda waiting: Disabled(waiting=waiting, url=URL))
    for _ in range(5):
        host.turn()
    assert len(world.had) == 1
    world.store.endpoints = _endpoints()
    postman.verdict = lambda waiting: Posted(waiting=waiting)
    for _ in range(5):
        world.clock.advance(1_000)
        host.turn()
    assert Counter(world.had) == {Pointer(LEADS.topic, 0, 0): 2}
    assert world.store.waiting == {}


def test_forgetting_that_fails_keeps_no_record_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again when it is due again."""
    world = _told()
    tried: list[int] = []

    def failing(_store: MemoryGatewayStore, now_ms: int, limit: int) -> int:
        tried.append(now_ms + limit)
        raise PassingFault("the transaction took too long")

    monkeypatch.setattr(MemoryGatewayStore, "forget", failing)
    _run(world)
    assert len(world.had) == 5
    assert len(tried) == 1


def test_only_those_who_use_http_are_read() -> None:
    world = World()
    assert subscribed(world.store.directory(0), TOPICS) == [RECEIPTS.topic, PINGS.topic, LEADS.topic]
