"""The router's one transaction a poll: lost connections, deadlocks, refused decisions, clocks, and what comes in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest

from services.bus.memory import Faults, MemoryHost
from services.bus.ports import Message, Stopped, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.entries import Cause, CauseKind, Entry
from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Disposition,
    FailureReason,
    LeadClosed,
    LeadSold,
    Outcome,
    RefusalReason,
    RejectionReason,
    WithdrawalReason,
)
from services.contract.ids import partition_of
from services.contract.inputs import (
    AcceptOffer,
    Input,
    QualifiedLead,
    RejectOffer,
    ReportDisposition,
    ReportFailedDelivery,
    TimerDue,
    WithdrawLead,
)
from services.contract.market import Mode
from services.router import batch, step
from services.router.chain import CLOCK_JUMP_MAX_MS
from services.router.domain import Conditions, decide, fail
from services.router.faults import StartAgain, TryAgain
from services.router.lead import State, evolve
from services.router.memory_store import MemoryRouterStore
from services.router.orders import order_books
from services.router.ports import NEVER_CLOSED, Head, SaleRow, Snapshot
from services.router.step import Router
from tests.stream.test_router import SHARED, check_promises
from tests.support.deciding import Story, exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import PARTITIONS, TOPICS, World, world

pytestmark = pytest.mark.stream
OFFERED = market(
    plan(exclusive_stage(9000, accept_within_ms=60_000), shared_stage(4000), sales_max=2),
    orders=(order("a", exclusive="list"), order("b", shared="list"), order("c", shared="list")),
)


def _leads(count: int, name: str = "lead") -> list[QualifiedLead]:
    return [lead(f"{name}-{n}") for n in range(count)]


def _leads_in(partition: int, count: int, name: str = "lead") -> list[QualifiedLead]:
    found = (lead(f"{name}-{n}") for n in range(100 * count))
    return [item for item in found if partition_of(item.lead_id, PARTITIONS) == partition][:count]


@dataclass(slots=True)
class _Raising(Faults):
    """Raises at an edge, so many times, what the database's driver would have been told."""

    at: str = ""
    error: type[Exception] = StartAgain
    times: int = 1

    def edge(self, name: str) -> None:
        """See `Faults`."""
        Faults.edge(self, name)
        if name == self.at and self.times:
            self.times -= 1
            raise self.error


@dataclass(slots=True)
class _Meanwhile(Faults):
    """Lets others act once, at the moment before a commit is compared."""

    others: Callable[[], None] | None = None

    def edge(self, name: str) -> None:
        """See `Faults`."""
        Faults.edge(self, name)
        if name == "commit" and self.others is not None:
            act, self.others = self.others, None
            act()


@dataclass(slots=True)
class _Outcomes:
    """How leads closed, and what is in the log's topic, repeats included."""

    given: World
    of: dict[str, Outcome] = field(init=False)

    def __post_init__(self) -> None:
        """Read the log."""
        self.of = {
            lead_id: event.outcome for lead_id, event in self.given.events() if isinstance(event, LeadClosed)
        }


def _router(host: MemoryHost) -> Router:
    assert isinstance(host.step, Router)
    return host.step


def _turn_often(host: MemoryHost) -> None:
    for _ in range(1_000):
        host.turn()


# Rules 1, 4 and 5


def test_partition_whose_head_moved_is_dropped_and_the_rest_of_the_batch_is_committed() -> None:
    """It moves after this worker has read and decided: the comparison in the commit is what tells."""
    given = world(SHARED)
    mine, others = _leads_in(1, 3), _leads_in(0, 3)
    given.send(*mine, *others)
    host = given.worker(_Meanwhile(others=lambda: given.worker(partitions=[0]).drain()))
    host.turn()
    assert {at: len(entries) for at, entries in given.log().items()} == {0: 3, 1: 3}
    assert len(given.kafka.topic(TOPICS.log)) == 6, "nothing of the other's is published by this one"
    host.drain()
    check_promises(given, [*mine, *others])


def test_overtaken_owner_decides_nothing_even_at_the_right_positions() -> None:
    """Its records follow the head exactly, but the head is another's: only the version tells."""
    given = world(SHARED)
    first, second, third = _leads_in(0, 3)
    overtaken = given.worker()
    given.send(first)
    overtaken.drain()
    given.send(second)
    given.worker().drain()
    given.send(third)
    log = given.log()
    where = TopicPartition(TOPICS.qualified, 0)
    assert overtaken.step.handle(given.kafka.records[where][2:]) == [where]
    assert given.log() == log
    overtaken.step.take_over([where])
    assert overtaken.step.handle(given.kafka.records[where][2:]) == []
    assert len(given.log()[0]) == 3


@pytest.mark.parametrize("at", ["commit", "committed", "mark", "marked", "forget delivered"])
@pytest.mark.parametrize("error", [StartAgain, TryAgain])
def test_connection_lost_in_a_transaction_starts_the_partitions_again(
    at: str, error: type[Exception]
) -> None:
    """Rule 4: whichever way a lost COMMIT went, only the database is believed."""
    if at == "committed" and error is TryAgain:
        pytest.skip("what passes has committed nothing")
    given, faults = world(SHARED), _Raising(at=at, error=error)
    given.refuses = _refuse_first(TOPICS.buyer_leads("b0"))
    host = given.worker(faults)
    leads = _leads(6)
    given.send(*leads)
    for _ in range(6):
        host.turn()
        given.clock.advance(2_000)
    host.drain()
    assert faults.times == 0, "the fault came"
    check_promises(given, leads)
    assert given.tables.undelivered == {}


def _refuse_first(topic: str) -> Callable[[Message], Unacknowledged | None]:
    """A topic that takes nothing at first."""
    left = [2]

    def refuses(message: Message) -> Unacknowledged | None:
        if message.topic != topic or not left[0]:
            return None
        left[0] -= 1
        return Unacknowledged(0, None, "slow")

    return refuses


def test_after_a_lost_commit_that_went_through_nothing_is_published_from_memory() -> None:
    given = world(SHARED)
    host = given.worker(_Raising(at="committed"))
    given.send(*_leads(4))
    host.turn()
    assert given.kafka.topic(TOPICS.log) == []
    host.drain()
    assert len(given.kafka.topic(TOPICS.log)) == 4, "published once, from the table"


def test_connection_lost_while_partitions_are_taken_over_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, lost = world(SHARED), [StartAgain(), TryAgain()]
    original = MemoryRouterStore.heads

    def heads(self: MemoryRouterStore, partitions: Collection[int]) -> object:
        if lost:
            raise lost.pop()
        return original(self, partitions)

    monkeypatch.setattr(MemoryRouterStore, "heads", heads)
    leads = _leads(3)
    given.send(*leads)
    given.worker().drain()
    check_promises(given, leads)


def test_deadlock_is_tried_again_and_committed_once() -> None:
    given = world(SHARED)
    leads = _leads(6)
    given.send(*leads)
    given.worker(_Raising(at="commit", error=TryAgain, times=step.ATTEMPTS_MAX - 1)).drain()
    check_promises(given, leads)
    assert len(given.kafka.topic(TOPICS.log)) == 6


@pytest.mark.parametrize("error", [StartAgain, TryAgain])
def test_fault_that_does_not_pass_stops_the_worker(error: type[Exception]) -> None:
    """A full disk, a lock that nobody lets go: bounded, and said."""
    given = world(SHARED)
    given.send(*_leads(2))
    host = given.worker(_Raising(at="commit", error=error, times=10_000))
    with pytest.raises(Stopped, match=r"tries in 7\d s have failed"):
        _turn_often(host)
    assert given.kafka.topic(TOPICS.log) == []
    given.worker().drain()
    check_promises(given, _leads(2))


def test_mark_that_cannot_be_moved_stops_the_worker_and_repeats_nothing() -> None:
    """A full disk: nothing is sent again before the database has taken a mark."""
    given = world(SHARED)
    given.send(lead("one"))
    host = given.worker(_Raising(at="mark", times=10_000))
    with pytest.raises(Stopped, match=r"tries in 7\d s have failed"):
        _turn_often(host)
    assert len(given.kafka.topic(TOPICS.log)) == 1


def test_one_poll_is_one_transaction_over_all_partitions() -> None:
    given, faults = world(SHARED), Faults()
    given.send(*_leads_in(0, 3), *_leads_in(1, 3))
    given.worker(faults).turn()
    assert faults.names.count("commit") == 1
    assert sum(head.seq for head in given.tables.heads.values()) == 6


# Rule 9


def _plant_sale(given: World, item: QualifiedLead) -> None:
    """Make the database refuse the next sale of this lead."""
    given.tables.sales[item.lead_id, 1] = SaleRow(
        item.lead_id, 1, "planted", "planted/all", Mode.SHARED, 3, 1, given.clock.now_ms, NEVER_CLOSED
    )


def test_refused_decision_closes_its_lead_as_failed_and_leaves_the_rest_of_the_batch_intact() -> None:
    given = world(SHARED)
    leads = _leads(10)
    _plant_sale(given, leads[4])
    given.send(*leads)
    given.worker().drain()
    expected = dict.fromkeys((item.lead_id for item in leads), Outcome.SOLD_OUT)
    assert _Outcomes(given).of == {**expected, leads[4].lead_id: Outcome.FAILED}
    assert {event.lead_type for _, event in given.events() if isinstance(event, LeadClosed)} == {"solar"}


def test_second_refused_decision_of_a_batch_stops_the_worker_with_nothing_committed() -> None:
    given = world(SHARED)
    leads = _leads(10)
    _plant_sale(given, leads[4])
    _plant_sale(given, leads[7])
    given.send(*leads)
    with pytest.raises(Stopped, match="2 decisions were refused"):
        given.worker().drain()
    assert given.tables.log == {}


def test_tenth_failed_lead_in_a_row_stops_the_worker() -> None:
    given = world(SHARED)
    host = given.worker()
    leads = _leads(10)
    for item in leads[:9]:
        _plant_sale(given, item)
        given.send(item)
        host.drain()
    assert list(_Outcomes(given).of.values()) == [Outcome.FAILED] * 9
    _plant_sale(given, leads[9])
    given.send(leads[9])
    with pytest.raises(Stopped, match="10 decisions were refused"):
        host.drain()


def test_failed_leads_with_sound_ones_between_them_do_not_stop_the_worker() -> None:
    given = world(SHARED)
    host = given.worker()
    for n, item in enumerate(_leads(24)):
        if n % 2:
            _plant_sale(given, item)
        given.send(item)
        host.drain()
    assert list(_Outcomes(given).of.values()).count(Outcome.FAILED) == 12


def test_batches_without_a_decision_do_not_count_as_sound() -> None:
    """Timers that change nothing come in all the time: they must not hide that every lead fails."""
    given = world(SHARED)
    host = given.worker()
    for item in _leads(9):
        _plant_sale(given, item)
        given.send(item)
        host.drain()
        given.send(TimerDue(lead_id=item.lead_id, window_number=99))
        host.drain()
    tenth = lead("tenth")
    _plant_sale(given, tenth)
    given.send(tenth)
    with pytest.raises(Stopped, match="10 decisions were refused"):
        host.drain()


def test_delivery_that_failed_for_good_is_credited_even_if_its_lead_s_decision_is_refused() -> None:
    """The credit and a refused sale in one batch: the lead closes as failed, and the buyer has its money back."""
    story = Story(
        market(plan(shared_stage(), shared_stage(wait_ms=1_000)), orders=(order("a", shared="list"),))
    )
    story.when(lead())
    report = ReportFailedDelivery(lead_id=lead().lead_id, sale_number=1, reason=FailureReason.VAULT_ERASED)
    conditions = Conditions(
        market=story.market,
        books=order_books(story.market),
        accepted_market=story.market,
        no_room=frozenset(),
        now_ms=story.now_ms,
    )
    assert [type(event) for event in fail(story.lead, report, conditions).events] == [
        LeadClosed,
        DeliveryFailed,
    ]


# Rule 10


def test_entry_is_never_dated_before_the_one_before_it() -> None:
    given = world(SHARED)
    host = given.worker()
    given.send(*_leads(4, "first"))
    host.drain()
    given.clock.advance(-5_000)
    given.send(*_leads(4, "second"))
    given.worker().drain()
    for entries in given.log().values():
        times = [entry.decided_at_ms for entry in entries]
        assert len(times) > 1
        assert times == sorted(times)


def test_clock_far_behind_the_head_stops_the_worker() -> None:
    given = world(SHARED)
    ahead = given.clock.now_ms + CLOCK_JUMP_MAX_MS + 1
    given.tables.heads = {at: Head(partition=at, decided_at_ms=ahead) for at in range(PARTITIONS)}
    given.send(*_leads(1))
    with pytest.raises(Stopped, match="clock went back"):
        given.worker().drain()


def test_worker_that_slept_while_it_was_reading_does_not_blame_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time that it was told may be as old as its question."""
    given, slept_s = world(SHARED), [0.0]
    original = MemoryRouterStore.read

    def read(
        self: MemoryRouterStore, partitions: Collection[int], lead_ids: Collection[str], **more: Any
    ) -> Snapshot:
        found = original(self, partitions, lead_ids, **more)
        if lead("lead-1").lead_id in lead_ids:
            slept_s[0] += 90.0
            self.clock.advance(90_000)
        return found

    monkeypatch.setattr(MemoryRouterStore, "read", read)
    host = given.worker()
    for n in range(3):
        given.send(lead(f"lead-{n}"))
        host.drain()
    check_promises(given, _leads(3))
    assert slept_s[0] == 90.0


# Rules 3 and 13


def test_own_findings_commands_and_timers_are_decided_before_new_leads() -> None:
    item = lead("any")
    kinds: list[tuple[CauseKind, object]] = [
        (CauseKind.QUALIFIED, item),
        (CauseKind.TIMER, TimerDue(lead_id=item.lead_id, window_number=1)),
        (CauseKind.COMMAND, WithdrawLead(lead_id=item.lead_id, reason=WithdrawalReason.ERASED)),
        (
            CauseKind.ROUTER,
            ReportFailedDelivery(lead_id="", sale_number=1, reason=FailureReason.VAULT_ERASED),
        ),
    ]
    new, timer, command, own = (
        batch.Caused(Cause(kind=kind, offset=0), subject)  # type: ignore[arg-type]  # each is an Input
        for kind, subject in kinds
    )
    polled = batch.PartitionBatch(qualified=[new], timers=[timer], commands=[command], own=[own])
    assert list(polled.inputs()) == [own, command, timer, new]


def test_lead_withdrawn_before_it_was_listed_is_closed_on_arrival_however_late() -> None:
    given, item = world(SHARED), lead("late")
    given.send(WithdrawLead(lead_id=item.lead_id, reason=WithdrawalReason.ERASED))
    given.worker().drain()
    given.send(item)
    given.worker().drain()
    assert _Outcomes(given).of == {item.lead_id: Outcome.WITHDRAWN}
    assert given.tables.sales == {}


def test_closed_lead_is_never_listed_again() -> None:
    given, item = world(SHARED), lead("once")
    given.send(item)
    given.worker().drain()
    log = given.log()
    given.clock.advance(90_000)
    given.send(replace(item, received_at_ms=given.clock.now_ms))
    given.worker().drain()
    assert given.log() == log


def test_what_comes_for_an_unknown_lead_changes_nothing_and_buyers_are_told() -> None:
    given, unknown = world(SHARED), lead("unknown").lead_id
    given.send(
        TimerDue(lead_id=unknown, window_number=1),
        AcceptOffer(lead_id=unknown, buyer_id="b0", offer_number=1, answered_at_ms=1),
        RejectOffer(lead_id=unknown, buyer_id="b0", offer_number=1, reason=RejectionReason.PRICE),
        ReportDisposition(lead_id=unknown, buyer_id="b0", disposition=Disposition.DEAL),
    )
    given.worker().drain()
    events = [event for _, event in given.events()]
    assert [event.reason for event in events if isinstance(event, CommandRefused)] == [
        RefusalReason.UNKNOWN_LEAD,
        RefusalReason.UNKNOWN_LEAD,
        RefusalReason.NOT_A_HOLDER,
    ]
    assert len(events) == len(given.kafka.topic(TOPICS.buyer_pings("b0"))) == 3
    assert given.tables.leads == {}


def test_test_lead_is_sold_as_a_test_and_says_so_everywhere() -> None:
    given = world(SHARED)
    given.send(lead("test", is_test=True))
    given.worker().drain()
    assert all(event.is_test for _, event in given.events() if isinstance(event, LeadSold | LeadClosed))
    bodies = [orjson.loads(record.value or b"") for record in given.kafka.topic(TOPICS.buyer_leads("b0"))]
    assert all(body["is_test"] for body in bodies if body["type"] == "lead")


@pytest.mark.parametrize(
    ("topic", "wrong"),
    [
        (TOPICS.qualified, TimerDue(lead_id=lead().lead_id, window_number=1)),
        (TOPICS.commands, lead()),
        (TOPICS.timers, WithdrawLead(lead_id=lead().lead_id, reason=WithdrawalReason.ERASED)),
        (TOPICS.qualified, RejectionReason),
    ],
)
def test_record_of_another_topic_stops_the_worker(topic: str, wrong: object) -> None:
    given = world(SHARED)
    host = given.worker()
    record = _an_event() if wrong is RejectionReason else wrong
    given.kafka.append(Message(topic, 0, None, codec().encode(record)))
    with pytest.raises(Stopped, match=rf"{topic} partition 0, offset 0"):
        host.drain()


def _an_event() -> CommandRefused:
    return CommandRefused(command="accept_offer", buyer_id=None, reason=RefusalReason.NO_ROOM)


# Rule 12


def test_every_decision_can_be_executed_again_from_the_log_and_its_inputs() -> None:
    """Under the market version and at the time that the entry names, the same input gives the same events."""
    given = world(OFFERED)
    leads = _leads(12)
    given.send(*leads)
    given.worker().drain()
    given.earlier[1], given.market = OFFERED, replace(OFFERED, version=2)
    for n, item in enumerate(leads):
        now_ms = given.clock.now_ms
        accept = AcceptOffer(lead_id=item.lead_id, buyer_id="a", offer_number=1, answered_at_ms=now_ms)
        given.send(accept if n % 2 else TimerDue(lead_id=item.lead_id, window_number=1))
    given.clock.advance(61_000)
    given.worker().drain()
    states: dict[str, State] = {}
    for partition, entries in given.log().items():
        for entry in entries:
            subject = _input_of(given, partition, entry)
            state = states.get(entry.lead_id)
            again = decide(state, subject, _conditions(given, entry))
            assert again.events == list(codec().events_of(entry))
            states[entry.lead_id] = evolve(state, entry.lead_id, again.events, entry.decided_at_ms)
    assert len(states) == 12
    assert sum(map(len, given.log().values())) == 24


def _input_of(given: World, partition: int, entry: Entry) -> Input:
    topic = {
        CauseKind.QUALIFIED: TOPICS.qualified,
        CauseKind.COMMAND: TOPICS.commands,
        CauseKind.TIMER: TOPICS.timers,
    }[entry.cause.kind]
    record = given.kafka.records[TopicPartition(topic, partition)][entry.cause.offset]
    subject: Input = codec().decode(record.value)
    return subject


def _conditions(given: World, entry: Entry) -> Conditions:
    decided_under = given.earlier.get(entry.market_version, given.market)
    return Conditions(
        market=decided_under,
        books=order_books(decided_under),
        accepted_market=OFFERED,
        no_room=frozenset(entry.no_room),
        now_ms=entry.decided_at_ms,
    )


# What must be done however busy the worker is


def test_failed_delivery_is_credited_while_only_other_partitions_are_busy() -> None:
    given = world(SHARED)
    too_large = Unacknowledged(0, FailureReason.RECORD_TOO_LARGE, "too large")
    given.refuses = lambda message: too_large if message.topic.startswith("buyers.") else None
    host = given.worker()
    given.send(*_leads_in(0, 1, "large"))
    host.turn()
    given.refuses = lambda _: None
    for item in _leads_in(1, 20, "busy"):
        given.send(item)
        assert host.turn() == 1, "it is never idle"
    failed = {lead_id for lead_id, event in given.events() if isinstance(event, DeliveryFailed)}
    assert failed == {item.lead_id for item in _leads_in(0, 1, "large")}


def test_old_log_ranges_are_dropped_however_busy_the_worker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def drop(self: MemoryRouterStore) -> tuple[str, ...]:
        asked.append(self.clock.now_ms)
        return ()

    monkeypatch.setattr(MemoryRouterStore, "drop_old_log_ranges", drop)
    given = world(SHARED)
    host = given.worker()
    for item in _leads(200):
        given.clock.advance(50_000)
        given.send(item)
        host.turn()
    assert len(asked) == 2


def test_partition_that_is_given_away_takes_nothing_with_it() -> None:
    """Released with a mark that was not moved: the successor repeats the batch and skips none."""
    given = world(SHARED)
    host = given.worker()
    leads = _leads(6)
    given.send(*leads)
    host.turn()
    host.revoke([TopicPartition(TOPICS.qualified, 0)], (TOPICS.commands, TOPICS.timers))
    given.worker(partitions=[0]).drain()
    host.drain()
    check_promises(given, leads)
    assert all(head.published_seq == head.seq for head in given.tables.heads.values())
