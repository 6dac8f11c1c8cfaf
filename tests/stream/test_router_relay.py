"""The relay through outages: recipients that are silent for long, workers that may be zombies, vault rows that go."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import orjson
import pytest

from services.bus.memory import Faults, MemoryHost, MemoryProducer, MemorySending
from services.bus.ports import Message, Stopped, Unacknowledged
from services.contract.events import DeliveryFailed, FailureReason
from services.contract.ids import partition_of
from services.contract.inputs import AcceptOffer, QualifiedLead
from services.contract.market import Market
from services.contract.times import MINUTE_MS
from services.router import relay
from services.router.faults import StartAgain
from services.router.messages import Outgoing
from services.router.ports import UndeliveredRow
from services.router.step import Router
from tests.support.deciding import exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import PARTITIONS, TOPICS, World, crashes_at, world

pytestmark = pytest.mark.stream

BOTH = market(plan(shared_stage(4500)), orders=(order("a", shared="list"), order("b", shared="list")))
DEAD, HICCUP = TOPICS.buyer_leads("a"), TOPICS.buyer_leads("b")


def _leads(count: int, name: str = "lead") -> list[QualifiedLead]:
    return [lead(f"{name}-{n}") for n in range(count)]


def _refusing(*topics: str) -> Callable[[Message], Unacknowledged | None]:
    return lambda message: Unacknowledged(0, None, "silent") if message.topic in topics else None


def _seqs(given: World, topic: str) -> dict[int, list[int]]:
    """The log positions of what a recipient got, by partition, in the order it got them."""
    found: dict[int, list[int]] = defaultdict(list)
    for record in given.kafka.topic(topic):
        at = orjson.loads(record.value or b"")["log"]
        found[at["partition"]].append(at["seq"])
    return found


def _assert_all_in_order(given: World, topic: str, count: int) -> None:
    seqs = _seqs(given, topic)
    assert sum(map(len, seqs.values())) == count
    assert all(found == sorted(set(found)) for found in seqs.values())


def test_recipient_s_records_are_not_kept_waiting_behind_those_of_one_that_is_silent_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More is undelivered for a dead buyer than is retried at once; another buyer only had a hiccup, later on."""
    monkeypatch.setattr(relay, "RETRIED_AT_ONCE_MAX", 3)
    given = world(BOTH)
    given.refuses = _refusing(DEAD)
    host = given.worker()
    given.send(*_leads(20, "early"))
    host.drain()
    given.refuses = _refusing(DEAD, HICCUP)
    given.send(*_leads(6, "late"))
    host.drain()
    given.refuses = _refusing(DEAD)
    for _ in range(20):
        given.clock.advance(20_000)
        host.turn()
    _assert_all_in_order(given, HICCUP, 26)
    assert given.kafka.topic(DEAD) == []
    given.refuses = lambda _: None
    for _ in range(40):
        given.clock.advance(20_000)
        host.turn()
    _assert_all_in_order(given, DEAD, 26)
    assert given.tables.undelivered == {}


def test_successor_knows_every_recipient_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is undelivered for others: new records must not overtake a recipient's older ones."""
    monkeypatch.setattr(relay, "RETRIED_AT_ONCE_MAX", 3)
    given = world(BOTH)
    given.refuses = _refusing(DEAD)
    host = given.worker()
    given.send(*_leads(20, "early"))
    host.drain()
    given.refuses = _refusing(DEAD, HICCUP)
    given.send(*_leads(6, "late"))
    host.drain()
    given.refuses = _refusing(DEAD)
    successor = given.worker()
    given.send(*_leads(6, "new"))
    for _ in range(20):
        successor.turn()
        given.clock.advance(20_000)
    _assert_all_in_order(given, HICCUP, 32)


def test_silent_recipient_is_waited_for_once_a_retry_however_many_partitions_it_is_behind_in() -> None:
    given, faults = world(BOTH), Faults()
    given.refuses = _refusing(DEAD)
    host = given.worker(faults)
    given.send(*_leads(20))
    host.drain()
    assert {row.partition for row in given.tables.undelivered.values()} == set(range(PARTITIONS))
    given.clock.advance(60_000)
    faults.names.clear()
    host.turn()
    assert faults.names.count(f"produce {DEAD}") == 1


def test_recipient_that_stays_silent_is_tried_less_and_less_often() -> None:
    """Each try may hold up the others for a second (rule 17): they must not spend half their time waiting."""
    given, faults = world(BOTH), Faults()
    given.refuses = _refusing(DEAD)
    host = given.worker(faults)
    given.send(*_leads(3))
    host.drain()
    faults.names.clear()
    for _ in range(600):
        given.clock.advance(100)
        host.turn()
    assert 3 <= faults.names.count(f"produce {DEAD}") <= 8


def test_delivery_that_arrived_is_not_credited_when_its_entry_is_retried_for_another_after_an_erasure() -> (
    None
):
    given = world(BOTH)
    given.refuses = _refusing(DEAD)
    host = given.worker()
    given.send(lead("erased"))
    host.drain()
    given.vault.rows.clear()
    given.clock.advance(2_000)
    host.drain()
    failed = [event.buyer_id for _, event in given.events() if isinstance(event, DeliveryFailed)]
    assert failed == ["a"]


@dataclass(slots=True)
class _SlowLog(MemoryProducer):
    """A log that takes so long to be sent that the group has dropped the worker meanwhile."""

    then: Callable[[], None] = field(default=lambda: None)

    def send(self, messages: Sequence[Message], *, timeout_s: float | None = None) -> MemorySending:
        """Append, late."""
        found = MemoryProducer.send(self, messages, timeout_s=timeout_s)
        if messages:
            self.then()
        return found


def _relay_of(host: MemoryHost) -> relay.Relay:
    assert isinstance(host.step, Router)
    return host.step._relay


def test_worker_that_lost_its_group_while_the_log_was_slow_sends_no_contact_details() -> None:
    given = world(BOTH)
    host = given.worker()

    def lose() -> None:
        given.alive = lambda: False

    _relay_of(host)._log_producer = _SlowLog(given.kafka, then=lose)
    given.send(*_leads(3))
    for _ in range(5):
        host.turn()
    assert given.kafka.topic(TOPICS.log)
    assert given.kafka.topic(DEAD) == given.kafka.topic(HICCUP) == []


def test_worker_with_unpublished_entries_decides_nothing_until_they_are_out() -> None:
    """Stricter than rule 15 demands: not 10,000 may be unpublished, but one batch."""
    given = world(BOTH)
    given.alive = lambda: False
    host = given.worker()
    given.send(*_leads(4, "first"))
    host.turn()
    decided = {at: head.seq for at, head in given.tables.heads.items()}
    given.send(*_leads(40, "second"))
    for _ in range(5):
        host.turn()
    assert {at: head.seq for at, head in given.tables.heads.items()} == decided
    given.alive = lambda: True
    host.drain()
    assert sum(head.seq for head in given.tables.heads.values()) == 44


def test_worker_that_finds_the_mark_elsewhere_starts_again_and_publishes_no_gap() -> None:
    """Rule 16: somebody else published meanwhile and moved the mark, without deciding anything."""
    given = world(BOTH)
    given.refuses = _refusing(DEAD)
    host = given.worker()
    assert isinstance(host.step, Router)
    host.step._retry_at_s = float("inf")
    given.send(*_leads(4, "first"))
    host.turn()
    assert not any(head.published_seq for head in given.tables.heads.values())
    given.worker().turn()
    assert all(head.published_seq == head.seq > 0 for head in given.tables.heads.values())
    assert len(given.tables.undelivered) == 4
    given.send(*_leads(4, "second"))
    host.drain()
    assert all(head.published_seq == head.seq for head in given.tables.heads.values())
    assert sum(map(len, given.log().values())) == 8


def test_undelivered_record_is_kept_in_the_transaction_that_moves_the_mark() -> None:
    """Rule 17: at no edge is the mark beyond an entry whose record is neither delivered nor kept."""
    for edge in range(1, 60):
        given = world(BOTH)
        given.refuses = _refusing(DEAD)
        given.send(lead("one"))
        crashed = crashes_at(lambda faults, given=given: given.worker(faults).drain(), edge)  # type: ignore[misc]
        published = given.tables.heads[_partition_of("one")].published_seq
        kept = [row.recipient for row in given.tables.undelivered.values()]
        assert kept == ([DEAD] if published else [])
        if not crashed:
            return
    raise AssertionError("the run never got to its end")


def _partition_of(reference: str) -> int:
    return partition_of(lead(reference).lead_id, PARTITIONS)


def test_buyer_that_accepts_what_has_no_room_gets_one_record_and_the_true_reason() -> None:
    """Rule 19: one record a recipient and entry; it answered in time, so it is not told that it was silent."""
    offered = market(
        plan(exclusive_stage(9000, accept_within_ms=MINUTE_MS), sales_max=1),
        orders=(order("a", exclusive="list"),),
    )
    given, item = world(offered), lead("offered")
    given.send(item)
    given.worker().drain()
    given.earlier[1], given.market = offered, replace(_without_orders(offered), version=2)
    answer = AcceptOffer(
        lead_id=item.lead_id, buyer_id="a", offer_number=1, answered_at_ms=given.clock.now_ms
    )
    given.send(answer)
    given.worker().drain()
    told = [orjson.loads(record.value or b"") for record in given.kafka.topic(TOPICS.buyer_pings("a"))]
    assert [body["type"] for body in told] == ["offer", "refused"]
    assert told[1]["reason"] == "no_room"


def _without_orders(known: Market) -> Market:
    return replace(known, buyers={id: replace(buyer, orders=()) for id, buyer in known.buyers.items()})


def test_no_recipient_gets_two_records_of_one_entry() -> None:
    given = world(BOTH)
    given.send(*_leads(10))
    given.worker().drain()
    for topic in (DEAD, HICCUP, TOPICS.source_receipts("sunform")):
        ids = Counter(dict(record.headers)["ce_id"] for record in given.kafka.topic(topic))
        entries = Counter(id.rsplit(b":", 1)[0] for id in ids)
        assert set(ids.values()) == set(entries.values()) == {1}


def test_vanished_entry_of_an_undelivered_record_stops_the_worker() -> None:
    """It would be forgotten in silence otherwise."""
    given = world(BOTH)
    row = UndeliveredRow(0, 1, 7, DEAD)
    given.send(*_leads(8))
    given.worker().drain()
    given.tables.undelivered[0, 1, 7] = row
    host = given.worker()
    with pytest.raises(Stopped, match="no record"):
        host.turn()
    assert given.tables.undelivered == {(0, 1, 7): row}


def test_refused_delivery_is_not_forgotten_when_the_database_is_lost_while_it_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What became of a batch is asked once. When that is not learnt, its partitions begin again, too."""
    given, lost = world(BOTH), [StartAgain()]
    original = relay.Relay._gone

    def gone(self: relay.Relay, outgoing: Outgoing) -> FailureReason | None:
        if lost:
            raise lost.pop()
        return original(self, outgoing)

    monkeypatch.setattr(relay.Relay, "_gone", gone)
    first, second, third = _leads_of(0, 2)[0], _leads_of(1, 1)[0], _leads_of(0, 2)[1]
    given.refuses = _refusing(DEAD)
    host = given.worker()
    for one in (first, second, third):
        given.send(one)
        host.turn()
    host.turn()
    assert not lost, "the fault came"
    given.refuses = lambda _: None
    for _ in range(10):
        given.clock.advance(MINUTE_MS)
        host.drain()
    delivered = {record.key for record in given.kafka.topic(DEAD)}
    assert delivered == {one.lead_id.encode() for one in (first, second, third)}


def _leads_of(partition: int, count: int) -> list[QualifiedLead]:
    found = (lead(f"judged-{n}") for n in range(1_000))
    return [one for one in found if partition_of(one.lead_id, PARTITIONS) == partition][:count]


def test_topic_that_is_silent_is_not_sent_more_from_any_partition_until_it_answers() -> None:
    """A slow broker acknowledges too late: what it has got all the same is repeated, so it should not be much."""
    given, tries = world(BOTH), Counter[str]()

    def too_late(message: Message) -> Unacknowledged | None:
        if message.topic != DEAD:
            return None
        tries[(message.key or b"").decode()] += 1
        given.kafka.append(message)
        return Unacknowledged(0, None, "too late")

    given.refuses = too_late
    host = given.worker()
    first, others = _leads_of(0, 1), [*_leads_of(1, 3), *_leads_of(0, 4)[1:]]
    for one in (*first, *others):
        given.send(one)
        host.turn()
        host.turn()
    assert set(tries) == {one.lead_id for one in first}
    given.refuses = lambda _: None
    for _ in range(4):
        given.clock.advance(MINUTE_MS)
        host.drain()
    delivered = Counter(record.key for record in given.kafka.topic(DEAD))
    assert delivered.keys() == {one.lead_id.encode() for one in (*first, *others)}
    assert all(delivered[one.lead_id.encode()] == 1 for one in others)
