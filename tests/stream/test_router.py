"""The router on the in-memory bus: its guarantees through repeats, crashes at any effect, and zombies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import orjson
import pytest

from services.bus.memory import Crash, Faults, MemoryHost
from services.bus.ports import Message, Stopped, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, hash_of
from services.contract.events import (
    DeliveryFailed,
    FailureReason,
    LeadClosed,
    LeadListed,
    LeadSold,
    Outcome,
    WithdrawalReason,
)
from services.contract.inputs import QualifiedLead, WithdrawLead
from services.router.chain import CLOCK_JUMP_MAX_MS
from services.router.memory_store import MemoryRouterStore
from services.router.ports import Head
from services.router.step import _ClockReading
from tests.support.deciding import exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import PARTITIONS, TOPICS, World, crashes_at, world

pytestmark = pytest.mark.stream

SHARED = market(
    plan(shared_stage(4500, 4000, 3500)), orders=tuple(order(f"b{n}", shared="list") for n in range(4))
)
EXCLUSIVE = market(
    plan(exclusive_stage(9000), sales_max=1),
    orders=(order("a", exclusive="list"), order("b", exclusive="list")),
)


def _leads(count: int) -> list[QualifiedLead]:
    return [lead(f"lead-{n}") for n in range(count)]


def _delivered(given: World) -> dict[str, list[dict[str, object]]]:
    """What each buyer holds, by its topic alone: repeats by sale_id are one."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for buyer_id in given.market.buyers:
        for record in given.kafka.topic(TOPICS.buyer_leads(buyer_id)):
            body = {**orjson.loads(record.value or b""), "buyer": buyer_id}
            if body["type"] == "lead":
                sale = found.setdefault(body["lead_id"], {})
                assert sale.get(body["sale_id"], body) == body, "a repeat has the same content"
                sale[body["sale_id"]] = body
    return {lead_id: list(sales.values()) for lead_id, sales in found.items()}


def check_promises(given: World, leads: list[QualifiedLead], *, closed: bool = True) -> None:
    """Check guarantees 1, 2 and 5 from topics alone, and that the log is chained."""
    for entries in given.log().values():
        before = GENESIS_HASH
        for entry in entries:
            assert entry.prev_hash == before
            before = hash_of(codec().encode(entry))
    closes = Counter(lead_id for lead_id, event in given.events() if isinstance(event, LeadClosed))
    if closed:
        assert closes == Counter(item.lead_id for item in leads)
    delivered = _delivered(given)
    sold = Counter(lead_id for lead_id, event in given.events() if isinstance(event, LeadSold))
    assert {lead_id: len(sales) for lead_id, sales in delivered.items()} == sold
    for sales in delivered.values():
        terms = [sale["terms"] for sale in sales]
        assert len({sale["buyer"] for sale in sales}) == len(sales)
        assert len(sales) <= min(term["sales_max"] for term in terms)  # type: ignore[index]
        if any(term["exclusive"] for term in terms):  # type: ignore[index]
            assert len(sales) == 1


@pytest.mark.parametrize("given_market", [SHARED, EXCLUSIVE])
def test_sells_and_delivers_every_lead(given_market) -> None:  # type: ignore[no-untyped-def]
    given = world(given_market)
    leads = _leads(20)
    given.send(*leads)
    given.worker().drain()
    check_promises(given, leads)
    assert all(head.published_seq == head.seq for head in given.tables.heads.values())


@pytest.mark.parametrize("given_market", [SHARED, EXCLUSIVE])
def test_crash_between_any_two_effects_breaks_no_promise(given_market) -> None:  # type: ignore[no-untyped-def]
    leads = _leads(4)
    for edge in range(1, 200):
        given = world(given_market)
        given.send(*leads)
        if not crashes_at(lambda faults, given=given: given.worker(faults).drain(), edge):  # type: ignore[misc]
            assert edge > 10, "there are effects to crash at"
            return
        given.worker().drain()
        check_promises(given, leads)
    raise AssertionError("the run never got to its end")


def test_two_crashes_in_a_row_break_no_promise() -> None:
    leads = _leads(2)
    for first in range(1, 30):
        for second in range(1, 30):
            given = world(SHARED)
            given.send(*leads)
            crashes_at(lambda faults, given=given: given.worker(faults).drain(), first)  # type: ignore[misc]
            crashes_at(lambda faults, given=given: given.worker(faults).drain(), second)  # type: ignore[misc]
            given.worker().drain()
            check_promises(given, leads)


def test_repeated_input_is_decided_once() -> None:
    given = world(SHARED)
    leads = _leads(5)
    given.send(*leads, *leads, *leads)
    given.worker().drain()
    check_promises(given, leads)


def test_zombie_cannot_commit_and_its_late_publishing_changes_nothing() -> None:
    """Both owners poll the same records; the new one commits first."""
    given = world(EXCLUSIVE)
    zombie = given.worker()
    leads = _leads(6)
    given.send(*leads)
    successor = given.worker()
    successor.drain()
    before = {name: len(records) for name, records in given.kafka.records.items()}
    zombie.drain()
    after = {name: len(records) for name, records in given.kafka.records.items()}
    assert before == after, "a zombie that lost the race publishes nothing"
    check_promises(given, leads)


def test_zombie_that_committed_and_slept_before_publishing_harms_nobody() -> None:
    """The zombie dies between commit and publishing; its successor publishes from the table; then both go on."""
    given = world(SHARED)
    leads = _leads(3)
    given.send(*leads)
    faults = Faults(crash_at=2)
    with pytest.raises(Crash):
        given.worker(faults).drain()
    assert faults.names[-1] == "committed"
    given.worker().drain()
    check_promises(given, leads)


def test_owner_that_finds_the_head_moved_begins_again() -> None:
    given = world(SHARED)
    first = given.worker()
    given.send(*_leads(3))
    given.worker().drain()
    more = [lead(f"more-{n}") for n in range(3)]
    given.send(*more)
    first.drain()
    check_promises(given, [*_leads(3), *more])


def test_gap_before_a_batch_is_never_decided_over() -> None:
    given = world(SHARED)
    host = given.worker()
    leads = _leads(8)
    given.send(*leads)
    for where in list(host.positions):
        if where.topic == TOPICS.qualified:
            host.positions[where] += 1
    host.drain()
    check_promises(given, leads)


def test_dead_owner_s_undelivered_records_are_delivered_by_its_successor() -> None:
    given = world(EXCLUSIVE)
    given.refuses = lambda message: (
        Unacknowledged(0, None, "slow") if message.topic.endswith(".leads") else None
    )
    leads = _leads(4)
    given.send(*leads)
    given.worker().drain()
    assert len(given.tables.undelivered) == 4
    assert _delivered(given) == {}
    given.refuses = lambda _: None
    successor = given.worker()
    given.clock.advance(2_000)
    successor.turn()
    assert given.tables.undelivered == {}
    check_promises(given, leads)


def test_slow_buyer_does_not_delay_others_and_gets_its_leads_in_order() -> None:
    given = world(EXCLUSIVE)
    slow = TOPICS.buyer_leads("a")
    given.refuses = lambda message: Unacknowledged(0, None, "slow") if message.topic == slow else None
    host = given.worker()
    first, second = _leads(6), [lead(f"second-{n}") for n in range(6)]
    given.send(*first)
    host.drain()
    assert given.kafka.topic(TOPICS.buyer_leads("b")), "the other buyer has its leads"
    given.refuses = lambda _: None
    given.send(*second)
    host.turn()
    assert given.kafka.topic(slow) == [], "later records wait behind the undelivered ones"
    given.clock.advance(2_000)
    host.drain()
    check_promises(given, [*first, *second])
    for partition in range(PARTITIONS):
        seqs = [
            log["seq"]
            for record in given.kafka.topic(slow)
            if (log := orjson.loads(record.value or b"")["log"])["partition"] == partition
        ]
        assert seqs == sorted(seqs)


def test_permanent_failure_is_credited_once_through_the_log() -> None:
    given = world(EXCLUSIVE)
    too_large = Unacknowledged(0, FailureReason.RECORD_TOO_LARGE, "too large")
    given.refuses = lambda message: too_large if message.topic == TOPICS.buyer_leads("a") else None
    leads = _leads(6)
    given.send(*leads)
    given.worker().drain()
    sold_to_a = [
        lead_id for lead_id, event in given.events() if isinstance(event, LeadSold) and event.buyer_id == "a"
    ]
    failed = [lead_id for lead_id, event in given.events() if isinstance(event, DeliveryFailed)]
    assert sorted(failed) == sorted(sold_to_a)
    assert failed


def test_erased_lead_s_delivery_fails_for_good() -> None:
    given = world(EXCLUSIVE)
    leads = _leads(1)
    given.send(*leads)
    given.vault.rows.clear()
    given.worker().drain()
    assert [event.reason for _, event in given.events() if isinstance(event, DeliveryFailed)] == [
        FailureReason.VAULT_ERASED
    ]


def test_worker_that_may_have_lost_its_partitions_sends_nothing() -> None:
    given = world(EXCLUSIVE)
    given.alive = lambda: False
    sleepy = given.worker()
    given.send(*_leads(3))
    for _ in range(5):
        sleepy.turn()
    assert given.kafka.topic(TOPICS.log) == []
    assert _delivered(given) == {}
    given.alive = lambda: True
    sleepy.drain()
    check_promises(given, _leads(3))


def test_crash_after_a_permanent_failure_still_credits_it() -> None:
    too_large = Unacknowledged(0, FailureReason.RECORD_TOO_LARGE, "too large")
    for edge in range(1, 60):
        given = world(EXCLUSIVE)
        given.refuses = lambda message: too_large if message.topic.endswith(".leads") else None
        given.send(*_leads(2))
        crashed = crashes_at(lambda faults, given=given: given.worker(faults).drain(), edge)  # type: ignore[misc]
        successor = given.worker()
        successor.drain()
        given.clock.advance(2_000)
        successor.drain()
        failed = Counter(lead_id for lead_id, event in given.events() if isinstance(event, DeliveryFailed))
        assert failed == Counter(item.lead_id for item in _leads(2))
        assert given.tables.undelivered == {}
        if not crashed:
            return
    raise AssertionError("the run never got to its end")


def test_contact_details_reach_buyers_and_nobody_else() -> None:
    given = world(SHARED)
    given.send(*_leads(5))
    given.worker().drain()
    for where, records in given.kafka.records.items():
        told = any(b"canary" in (record.value or b"") for record in records)
        assert told == (
            where.topic.startswith("buyers.") and where.topic.endswith(".leads") and bool(records)
        )


def test_missing_head_row_stops_the_worker() -> None:
    given = world(SHARED)
    del given.tables.heads[1]
    with pytest.raises(Stopped, match="no head"):
        given.worker()


def test_log_that_knows_more_than_the_database_stops_the_worker() -> None:
    given = world(SHARED)
    given.send(*_leads(6))
    given.worker().drain()
    given.tables.heads = {partition: Head(partition=partition) for partition in range(PARTITIONS)}
    with pytest.raises(Stopped, match="does not have"):
        given.worker()


def test_log_topic_that_was_made_again_stops_the_worker() -> None:
    given = world(SHARED)
    given.send(*_leads(2))
    given.worker().drain()
    given.log_topic_id = "log-2"
    with pytest.raises(Stopped, match="made again"):
        given.worker()


def test_log_that_tells_otherwise_than_the_database_stops_the_worker() -> None:
    given = world(SHARED)
    given.send(*_leads(6))
    given.worker().drain()
    where = TopicPartition(TOPICS.log, 0)
    last = given.kafka.records[where][-1]
    forged = codec().decode_entry(last.value)
    value = codec().encode(
        type(forged)(**{**{f: getattr(forged, f) for f in forged.__slots__}, "decided_at_ms": 1})
    )
    given.kafka.append(Message(TOPICS.log, 0, last.key, value))
    with pytest.raises(Stopped, match="has otherwise"):
        given.worker()


def test_old_owner_that_publishes_while_another_takes_over_raises_no_alarm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = world(SHARED)
    old = given.worker()
    given.send(*_leads(6))
    reads = MemoryRouterStore.heads

    def heads(store: MemoryRouterStore, partitions: Collection[int]) -> Mapping[int, Head]:
        found = reads(store, partitions)
        monkeypatch.undo()
        old.drain()
        return found

    monkeypatch.setattr(MemoryRouterStore, "heads", heads)
    given.worker().drain()
    assert {lead_id for lead_id, event in given.events() if isinstance(event, LeadClosed)} == set(
        given.vault.rows
    )


def test_jump_of_the_database_s_clock_stops_the_worker() -> None:
    given = world(SHARED)
    host = given.worker()
    given.send(*_leads(1))
    host.drain()
    router = host.step
    router._monotonic_s = lambda: 0.0  # type: ignore[attr-defined]
    router._clock = _ClockReading(given.clock.now_ms - CLOCK_JUMP_MAX_MS - 1, 0.0, 0.0)  # type: ignore[attr-defined]
    given.send(lead("another"))
    with pytest.raises(Stopped, match="clock jumped"):
        host.drain()


def test_record_that_cannot_be_read_stops_the_worker() -> None:
    given = world(SHARED)
    host = given.worker()
    given.kafka.append(Message(TOPICS.commands, 0, None, b"\x00\x00\x00\x00\x63garbage"))
    with pytest.raises(
        Stopped, match=r"leads\.commands partition 0, offset 0.*gavel log skip leads\.commands 0 0"
    ):
        host.drain()


def test_what_comes_before_a_record_that_cannot_be_read_is_decided_and_nothing_behind_it() -> None:
    given = world(SHARED)
    before, behind = [lead("a"), lead("b")], [lead("c"), lead("d")]
    given.send(*before)
    for partition in range(PARTITIONS):
        given.kafka.append(Message(TOPICS.qualified, partition, None, b"not of ours"))
    given.send(*behind)
    with pytest.raises(Stopped, match=r"leads\.qualified"):
        given.worker().drain()
    listed = {lead_id for lead_id, event in given.events() if isinstance(event, LeadListed)}
    assert listed == {item.lead_id for item in before}


def test_commands_are_decided_before_new_leads_of_the_same_batch() -> None:
    given = world(EXCLUSIVE)
    item = lead("withdrawn")
    given.send(item, WithdrawLead(lead_id=item.lead_id, reason=WithdrawalReason.ERASED))
    given.worker().drain()
    assert [event.outcome for _, event in given.events() if isinstance(event, LeadClosed)] == [
        Outcome.WITHDRAWN
    ]
    assert _delivered(given) == {}


def test_host_is_the_step_s_only_memory() -> None:
    """A worker released of everything has nothing left to do, and its successor loses nothing."""
    given = world(SHARED)
    host: MemoryHost = given.worker()
    given.send(*_leads(4))
    host.turn()
    host.revoke(
        [TopicPartition(TOPICS.qualified, partition) for partition in range(PARTITIONS)],
        (TOPICS.commands, TOPICS.timers),
    )
    assert host.turn() == 0
    given.worker().drain()
    check_promises(given, _leads(4))
