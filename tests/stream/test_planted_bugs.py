"""Each guarantee of the router against a bug planted in it: the check from outside sees the promise break.

A bug is a patch that could have been written by mistake. Where a database constraint would stop it, the constraint is
taken away for the check, and put back to show that it does stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from services.bus.memory import Faults
from services.bus.ports import Record, Stopped, Unacknowledged
from services.contract.cloudevents import outsider_headers
from services.contract.entries import hash_of
from services.contract.events import LeadSold
from services.contract.inputs import QualifiedLead
from services.contract.market import Market, Mode
from services.router import batch, chain, course, deciding, deliveries, messages, relay, selling, step
from services.router.memory_store import MemoryRouterStore
from services.router.ports import Draws, Mark, PartitionCommit
from tests.stream.test_router import EXCLUSIVE, SHARED, check_promises
from tests.support.deciding import exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import TOPICS, World, crashes_at, world

pytestmark = pytest.mark.stream

Patch = Callable[[pytest.MonkeyPatch], None]
RESOLD = market(
    plan(shared_stage(4000), exclusive_stage(9000)),
    orders=(order("a", shared=4000), order("b", exclusive="list"), order("c", exclusive="list")),
)
LEADS = [lead(f"lead-{n}") for n in range(6)]


@dataclass(frozen=True)
class Bug:
    """A patch, the market that it shows in, the constraints that would stop it, and how the run goes."""

    patch: Patch
    market: Market = SHARED
    stopped_by: frozenset[str] = frozenset()
    run: Callable[[World], None] = field(default=lambda given: given.worker().drain())


def _crash_everywhere(given: World) -> None:
    """Crash once at each edge, each time in a world of its own, and check after each."""
    for edge in range(1, 100):
        fresh = world(given.market)
        fresh.send(*LEADS)
        crashed = crashes_at(lambda faults, fresh=fresh: fresh.worker(faults).drain(), edge)  # type: ignore[misc]
        fresh.worker().drain()
        check_everything(fresh)
        if not crashed:
            break
    given.worker().drain()


class _Meanwhile(Faults):
    """Lets others act once, at the moment before a commit is compared."""

    def __init__(self, others: Callable[[], None]) -> None:
        super().__init__()
        self._others: Callable[[], None] | None = others

    def edge(self, name: str) -> None:
        others, self._others = self._others, (None if name == "commit" else self._others)
        if name == "commit" and others is not None:
            others()


def _with_zombie(given: World) -> None:
    """The zombie has read and decided; before it commits, its successor does it all, in another market."""

    def successor() -> None:
        better = (order("a", exclusive=9500), order("b", exclusive=9600))
        given.earlier[1] = given.market
        given.market = replace(market(*given.market.lead_types["solar"].plans, orders=better), version=2)
        given.worker().drain()

    given.worker(_Meanwhile(successor)).drain()


def _sell_one_more(patch: pytest.MonkeyPatch) -> None:
    def generous(
        book: Any, sold: Any, stage: Any, fitting: Any, original: Any = selling.next_choice
    ) -> selling.Choice | None:
        found: selling.Choice | None = original(book, replace_max(sold), stage, fitting)
        return found

    def replace_max(sold: Any) -> Any:
        return _Generous(sold)

    patch.setattr(course, "next_choice", generous)


class _Generous:
    """A lead that claims one slot more than it has."""

    def __init__(self, sold: Any) -> None:
        self._sold = sold

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._sold, name)
        return value + 1 if name == "sales_max" else value


def _forget_holders(patch: pytest.MonkeyPatch) -> None:
    def all_fitting(book: Any, *_: Any, **__: Any) -> int:
        return (1 << len(book.orders)) - 1

    def one_buyer_again(
        book: Any, sold: Any, stage: Any, _: Any, original: Any = selling.next_choice
    ) -> selling.Choice | None:
        found: selling.Choice | None = original(book, sold, stage, book.of_buyers(("b0",)))
        return found

    patch.setattr(course, "candidates", all_fitting)
    patch.setattr(course, "next_choice", one_buyer_again)


def _sell_exclusive_after_disclosure(patch: pytest.MonkeyPatch) -> None:
    def exclusive(book: Any, sold: Any, stage: Any, fitting: Any, bids: Any) -> selling.Choice | None:
        return selling._first(book, sold, stage, Mode.EXCLUSIVE, fitting, 0, bids)

    patch.setattr(selling, "_exclusive", exclusive)


def _never_close(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deciding.Deciding, "close", lambda *_: None)


def _tell_wrong_maximum(patch: pytest.MonkeyPatch) -> None:
    def delivery(lead_id: str, at_ms: int, sold: LeadSold, *rest: Any) -> dict[str, Any]:
        return original(lead_id, at_ms, replace(sold, sales_max=sold.sales_max - 1), *rest)

    original = deliveries.delivery
    patch.setattr(messages, "delivery", delivery)


def _put_contact_into_a_header(patch: pytest.MonkeyPatch) -> None:
    original = outsider_headers

    def headers(**told: Any) -> tuple[tuple[str, bytes], ...]:
        return (*original(**told), ("ce_subject", b"canary@example.com"))

    patch.setattr(relay, "outsider_headers", headers)


def _put_contact_into_the_log(patch: pytest.MonkeyPatch) -> None:
    original = batch._decoded

    def decoded(record: Record, *how: Any) -> Any:
        subject = original(record, *how)
        if isinstance(subject, QualifiedLead):
            return replace(subject, fields={**subject.fields, "email": "canary@example.com"})
        return subject

    patch.setattr(batch, "_decoded", decoded)


def _ignore_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    def commit(self: MemoryRouterStore, commits: list[PartitionCommit], draws: Draws) -> Any:
        self.faults.edge("commit")
        for item in commits:
            self.tables.without |= {"listed_once", "one_close_per_lead", "one_sale_per_number"}
            self.tables.without |= {"never_the_same_buyer_twice"}
            for row in item.log:
                self.tables.log.pop((row.partition, row.seq), None)
            self.tables.write(item)
        return self.tables.draw(draws)

    patch.setattr(MemoryRouterStore, "commit", commit)


def _decide_over_gaps(patch: pytest.MonkeyPatch) -> None:
    def take_all(inputs: list[Any], _: int) -> list[Any]:
        return inputs

    def start(polled: Any, head: Any) -> batch.Started:
        return batch.Started(
            inputs=polled.inputs(),
            next_qualified=head.next_qualified + len(polled.qualified) + 1,
            next_command=head.next_command,
            next_timer=head.next_timer,
        )

    patch.setattr(batch, "_from", take_all)
    patch.setattr(step, "start", start)


def _with_gap(given: World) -> None:
    host = given.worker()
    for where in list(host.positions):
        if where.topic == TOPICS.qualified:
            host.positions[where] += 1
    host.drain()


def _mark_before_publishing(patch: pytest.MonkeyPatch) -> None:
    def publish(self: step.Router, entries: Any) -> None:
        for committed in entries:
            row = committed.row
            owned = self._owned[row.partition]
            mark = Mark(partition=row.partition, before_seq=owned.published_seq, after_seq=row.seq)
            self._store.move_marks([mark])
            owned.published_seq = row.seq
        if entries:
            self._relay.finish(self._relay.publish(entries))

    patch.setattr(step.Router, "_publish", publish)


def _publish_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Effects before the commit: what was told is decided otherwise after the crash, at another time."""
    original = MemoryRouterStore.commit

    def commit(self: MemoryRouterStore, commits: list[PartitionCommit], draws: Draws) -> Any:
        self.faults.edge("published too early")
        return original(self, commits, draws)

    def turn(self: step.Router, batches: Any) -> set[int]:
        for partition, polled in batches.items():
            polled.own = []
            assert partition in self._owned
        work, again = self._read(batches)
        self._decide(work)
        work.reported = dict.fromkeys(batches, ())
        early = self._relay.publish(
            [entry for item in work.decided.values() for entry in item.chain.committed]
        )
        self._relay.finish(early)
        self._commit(work)
        return again

    patch.setattr(MemoryRouterStore, "commit", commit)
    patch.setattr(step.Router, "_turn", turn)


def _crash_before_commit_and_decide_later(given: World) -> None:
    rehearsal, counted = world(given.market), Faults()
    rehearsal.send(*LEADS)
    rehearsal.worker(counted).drain()
    early = counted.names.index("published too early") + 1
    assert crashes_at(lambda faults: given.worker(faults).drain(), early)
    given.clock.advance(1_000)
    given.worker().drain()


def _forget_undelivered(patch: pytest.MonkeyPatch) -> None:
    def judge(*_: Any) -> None:
        return None

    patch.setattr(relay.Relay, "_judge", judge)


def _refuse_once(given: World) -> None:
    given.refuses = lambda message: (
        Unacknowledged(0, None, "slow") if message.topic.endswith(".leads") else None
    )
    given.worker().drain()
    given.refuses = lambda _: None
    given.clock.advance(2_000)
    given.worker().drain()


def _break_the_chain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chain, "hash_of", lambda value: hash_of(value[:-1]))


def _number_sales_from_the_entry(patch: pytest.MonkeyPatch) -> None:
    """The relay sends with the batch's position for an id, so that a repeat is another sale to its buyer."""
    original = deliveries.delivery
    counted = iter(range(1_000_000))

    def delivery(*told: Any) -> dict[str, Any]:
        body = original(*told)
        return {**body, "sale_id": f"{body['sale_id']}-{next(counted)}"}

    patch.setattr(messages, "delivery", delivery)


BUGS: dict[str, Bug] = {
    "one buyer over sales_max": Bug(_sell_one_more, stopped_by=frozenset({"no_more_than_sales_max"})),
    "the same buyer twice": Bug(_forget_holders, stopped_by=frozenset({"never_the_same_buyer_twice"})),
    "exclusive after a disclosure": Bug(
        _sell_exclusive_after_disclosure,
        RESOLD,
        frozenset({"exclusive_is_the_first", "follows_the_first_sale", "nothing_beside_an_exclusive_sale"}),
    ),
    "never closed": Bug(_never_close),
    "wrong maximum told": Bug(_tell_wrong_maximum),
    "contact details in a header": Bug(_put_contact_into_a_header),
    "contact details in the log": Bug(_put_contact_into_the_log),
    "compare-and-set ignored": Bug(_ignore_compare_and_set, EXCLUSIVE, run=_with_zombie),
    "batch decided over a gap": Bug(_decide_over_gaps, run=_with_gap),
    "mark moved before publishing": Bug(_mark_before_publishing, run=_crash_everywhere),
    "published before the commit": Bug(_publish_before_commit, run=_crash_before_commit_and_decide_later),
    "undelivered forgotten": Bug(_forget_undelivered, EXCLUSIVE, run=_refuse_once),
    "chain broken": Bug(_break_the_chain),
    "sale_id differs in a repeat": Bug(_number_sales_from_the_entry, run=_crash_everywhere),
}


def check_everything(given: World) -> None:
    """Check what `check_promises` does, and that contact details are where they belong (guarantee 6)."""
    check_promises(given, LEADS)
    for where, records in given.kafka.records.items():
        belongs = where.topic.startswith("buyers.") and where.topic.endswith(".leads")
        for record in records:
            assert belongs or b"canary" not in (record.value or b""), where
            assert not any(b"canary" in value for _, value in record.headers), where


def _run_and_check(bug: Bug, given: World) -> None:
    bug.run(given)
    check_everything(given)


@pytest.mark.parametrize("name", sorted(BUGS))
def test_check_from_outside_sees_the_planted_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    given = world(bug.market)
    given.tables.without = bug.stopped_by
    given.send(*LEADS)
    bug.patch(monkeypatch)
    with pytest.raises((AssertionError, Stopped)):
        _run_and_check(bug, given)


@pytest.mark.parametrize("name", sorted(BUGS))
def test_check_from_outside_is_silent_without_the_bug(name: str) -> None:
    bug = BUGS[name]
    if bug.run is _crash_before_commit_and_decide_later:
        pytest.skip("its crash is part of the bug")
    given = world(bug.market)
    given.send(*LEADS)
    bug.run(given)
    check_everything(given)


@pytest.mark.parametrize("name", sorted(name for name, bug in BUGS.items() if bug.stopped_by))
def test_constraint_stops_the_planted_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong decision is refused and its lead closed as failed; a second one in a batch stops the worker."""
    bug = BUGS[name]
    given = world(bug.market)
    given.send(LEADS[0])
    bug.patch(monkeypatch)
    bug.run(given)
    outcomes = [close.outcome for close in given.tables.closes.values()]
    assert outcomes == ["failed"]
    assert len(given.tables.sales) == 0
