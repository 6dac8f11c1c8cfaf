"""An entry like one judged before is not judged again, and whatever tells it from that one is found all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.audit_speed import PARTITIONS, START_MS, TOPICS, market, usual_events
from services.audit.auditor import Auditor
from services.audit.lead_checks import LeadChecks
from services.audit.lead_state import plain
from services.audit.outlines import Outlines
from services.audit.rules import Rule
from services.audit.states import LeadStates, MemoryLeadStates, SqliteLeadStates
from services.audit.usual_entries import UsualEntries
from services.audit.violations import Violation
from services.bus.ports import Record
from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry, hash_of
from services.contract.events import Event, LeadListed, LeadSold, StageStarted
from services.contract.ids import lead_id_of, partition_of
from services.contract.market import Market, Prices
from services.contract.times import DAY_MS

Change = Callable[[list[Event]], Sequence[Event]]

LIKE_EACH_OTHER = 3
"""So many entries of one kind come before one that is otherwise: the first is judged, the others are known again."""


def _of_one_kind() -> list[str]:
    """Leads of one partition."""
    leads = (lead_id_of("quotehub", str(number)) for number in range(1_000))
    return [lead_id for lead_id in leads if partition_of(lead_id, PARTITIONS) == 0][: LIKE_EACH_OTHER + 2]


def _log(change: Change) -> list[Record]:
    """Entries that are alike but for ids and times; the last but one is changed."""
    given, leads = market(), _of_one_kind()
    # 101 and 97 are the cycles in which such entries differ in quality and age.
    told = [usual_events(given, lead_id, 0, START_MS + seq) for seq, lead_id in enumerate(leads, 1)]
    told[-2] = list(change(told[-2]))
    return _chained([(START_MS + seq, events) for seq, events in enumerate(told, 1)])


def _chained(told: Sequence[tuple[int, Sequence[Event]]]) -> list[Record]:
    """One entry a lead: when it was decided, and its events."""
    records, hash = [], GENESIS_HASH
    for seq, (lead_id, (now_ms, events)) in enumerate(zip(_of_one_kind(), told, strict=False), 1):
        entry = Entry(
            seq=seq,
            prev_hash=hash,
            cause=Cause(kind=CauseKind.QUALIFIED, offset=seq),
            market_version=1,
            no_room=(),
            lead_id=lead_id,
            decided_at_ms=now_ms,
            events=tuple(map(codec().encode_body, events)),
        )
        value = codec().encode(entry)
        hash = hash_of(value)
        records.append(Record(TOPICS.log, 0, seq - 1, lead_id.encode(), value, (), now_ms))
    return records


def _judged(
    records: Sequence[Record], *, given: Market | None = None, states: LeadStates | None = None
) -> tuple[Auditor, list[Violation]]:
    found: list[Violation] = []
    auditor = Auditor(
        markets={1: given or market()}.__getitem__,
        topics=TOPICS,
        partitions=PARTITIONS,
        states=states or MemoryLeadStates(),
        report=found.append,
    )
    auditor.take(records)
    return auditor, found


def _sale(number: int, **values: Any) -> Change:
    return lambda events: [
        replace(event, **values) if at == number else event for at, event in enumerate(events)
    ]


def _swapped_ids(events: list[Any]) -> list[Event]:
    ids = (events[2].sale_id, events[1].sale_id)
    return [events[0], *(replace(e, sale_id=id) for e, id in zip(events[1:3], ids, strict=True)), *events[3:]]


def _swapped_times(events: list[Any]) -> list[Event]:
    second = events[2]
    swapped = replace(second, held_since_ms=second.created_at_ms, created_at_ms=second.held_since_ms)
    return [*events[:2], swapped, *events[3:]]


def _later(name: str, number: int) -> Change:
    def change(events: list[Any]) -> list[Event]:
        event = events[number]
        return [*events[:number], replace(event, **{name: getattr(event, name) + 1}), *events[number + 1 :]]

    return change


OTHERWISE: Sequence[tuple[Rule, Change]] = (
    (Rule.SALES_ARE_NUMBERED, _swapped_ids),
    (Rule.SALES_ARE_NUMBERED, lambda events: [events[0], events[2], events[1], *events[3:]]),
    (Rule.NEVER_THE_SAME_BUYER_TWICE, _sale(3, buyer_id="harbor", order_id="harbor/auto")),
    (Rule.NO_MORE_THAN_SALES_MAX, _sale(0, sales_max=2)),
    (Rule.NO_MORE_THAN_SALES_MAX, _sale(0, sales_max=4)),
    (Rule.TERMS_ARE_TRUE, _swapped_times),
    (Rule.TERMS_ARE_TRUE, _later("created_at_ms", 1)),
    (Rule.TERMS_ARE_TRUE, _later("created_at_ms", 0)),
    (Rule.TERMS_ARE_TRUE, _later("held_since_ms", 3)),
    (Rule.TERMS_ARE_TRUE, _sale(3, holders=("oak", "harbor"))),
    (Rule.TERMS_ARE_TRUE, _sale(4, holders=("harbor", "oak"))),
    (Rule.TERMS_ARE_TRUE, _sale(0, is_test=True)),
    (Rule.PRICE_IS_THE_ORDERS, _sale(1, price_cents=3_999)),
    (Rule.DRAWS_ARE_COMPLETE, _sale(2, draws=())),
    (Rule.SOURCE_EARNS_AS_AGREED, _sale(1, payout_cents=1)),
    (Rule.SOURCE_EARNS_AS_AGREED, _sale(0, payout_cents=1, currency="USD")),
    (Rule.SOLD_BY_ITS_PLAN, _sale(0, never_to=("oak",))),
    (Rule.ONLY_WITH_CONSENT, _sale(0, consented_buyers=("oak", "elm"))),
    (Rule.SOLD_BY_ITS_PLAN, _sale(0, market_version=2)),
    (Rule.PINGS_SHOW_DECLARED_FIELDS, _sale(0, fields={"email": "x"})),
    (Rule.NOTHING_AFTER_THE_CLOSE, lambda events: [*events, StageStarted(stage=1)]),
    (Rule.NOTHING_AFTER_THE_CLOSE, lambda events: [*events[:3], events[4], events[3]]),
    (Rule.CLOSED_ONCE, lambda events: [*events, events[-1]]),
    (Rule.LISTED_ONCE, lambda events: [events[0], *events]),
)


def test_entries_alike_but_for_ids_and_times_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []
    fold = LeadChecks.fold

    def counted(checks: LeadChecks, *arguments: Any) -> Any:
        judged.append(arguments)
        return fold(checks, *arguments)

    monkeypatch.setattr(LeadChecks, "fold", counted)
    auditor, found = _judged(_log(lambda events: events))
    assert not found
    assert len(judged) == 1
    assert (auditor.entries, auditor.leads) == (LIKE_EACH_OTHER + 2,) * 2
    assert auditor.sales == 3 * auditor.leads


@pytest.mark.parametrize(
    ("rule", "change"), OTHERWISE, ids=[f"{rule}-{at}" for at, (rule, _) in enumerate(OTHERWISE)]
)
def test_finds_what_is_otherwise_in_one_entry_among_many_alike(rule: Rule, change: Change) -> None:
    records = _log(change)
    _, found = _judged(records)
    assert rule in {violation.rule for violation in found}
    assert {violation.lead_id for violation in found} == {_of_one_kind()[-2]}


@pytest.mark.parametrize("change", [change for _, change in OTHERWISE])
def test_finds_the_same_as_when_each_entry_is_judged(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _log(change)
    auditor, found = _judged(records)
    monkeypatch.setattr(UsualEntries, "take", lambda *_: False)
    each, found_by_each = _judged(records)
    assert found == found_by_each
    assert (auditor.sales, auditor.leads) == (each.sales, each.leads)
    for one, other in ((auditor, each), (each, auditor)):
        assert not one._ledger.dues.differing(other._ledger.dues)
        assert not one._ledger.rows.differing(other._ledger.rows)
    assert _counted(auditor) == _counted(each)


def _counted(auditor: Auditor) -> list[Any]:
    auditor.kept()
    return auditor._limits.kept()


TOLD_BY_IDS_AND_TIMES = (_swapped_ids, _later("created_at_ms", 1), _later("held_since_ms", 3))


@pytest.mark.parametrize("change", TOLD_BY_IDS_AND_TIMES)
def test_planted_trust_in_ids_and_times_lets_a_lie_pass(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Outlines.find

    def trusting(outlines: Outlines, *arguments: Any) -> Any:
        outline, parts, _ = find(outlines, *arguments)
        return outline, parts, lambda _: parts[1::2]

    monkeypatch.setattr(Outlines, "find", trusting)
    _, found = _judged(_log(change))
    assert not found


def _priced_as_a_time() -> tuple[Market, list[Record]]:
    """A market whose price, in cents, is the time when the first lead was created; the second is priced at its own."""
    given, leads, told = market(), _of_one_kind(), []
    for seq, lead_id in enumerate(leads[:2], 1):
        listed, *others, closed = usual_events(given, lead_id, 0, START_MS + seq)
        assert isinstance(listed, LeadListed)
        cents = listed.created_at_ms
        sales = [
            replace(
                sold,
                price_cents=cents,
                draws=tuple(replace(draw, amount=cents if draw.amount > 1 else 1) for draw in sold.draws),
            )
            for sold in others
            if isinstance(sold, LeadSold)
        ]
        told.append((START_MS + seq, [listed, *sales, closed]))
    first = told[0][1][0]
    assert isinstance(first, LeadListed)
    (plan,) = given.lead_types["insurance"].plans
    stage = replace(plan.stages[0], prices=Prices(shared=(first.created_at_ms,)))
    lead_type = replace(given.lead_types["insurance"], plans=(replace(plan, stages=(stage,)),))
    return replace(given, lead_types={"insurance": lead_type}), _chained(told)


def test_number_that_happens_to_be_a_time_is_not_taken_for_one() -> None:
    given, records = _priced_as_a_time()
    _, found = _judged(records, given=given)
    assert {violation.rule for violation in found} == {Rule.PRICE_IS_THE_ORDERS}
    assert {violation.lead_id for violation in found} == {_of_one_kind()[1]}


def test_planted_kind_that_was_not_tried_takes_a_price_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outlines, "_is_right", lambda *_: True)
    given, records = _priced_as_a_time()
    _, found = _judged(records, given=given)
    assert not found


def test_judgement_stands_for_a_quarter_of_an_hour_and_draws_are_judged_anew_after_it() -> None:
    given, leads = market(), _of_one_kind()
    told = [
        (START_MS + seq, usual_events(given, lead_id, 0, START_MS + seq))
        for seq, lead_id in enumerate(leads, 1)
    ]
    late_ms = START_MS + DAY_MS
    late = usual_events(given, leads[-1], 0, late_ms)
    before = [event.draws for event in told[-1][1] if isinstance(event, LeadSold)]
    stale = [replace(e, draws=before.pop(0)) if isinstance(e, LeadSold) else e for e in late]
    _, found = _judged(_chained([*told[:-1], (late_ms, stale)]))
    assert {(violation.rule, violation.lead_id) for violation in found} == {
        (Rule.DRAWS_ARE_COMPLETE, leads[-1])
    }
    assert not _judged(_chained([*told[:-1], (late_ms, late)]))[1]


def test_states_in_the_file_are_those_in_memory_before_and_after_it_is_opened_again(tmp_path: Path) -> None:
    records, memory = _log(lambda events: events), MemoryLeadStates()
    _judged(records, states=memory)
    expected = {lead_id: plain(state) for lead_id, state in memory.all()}
    states = SqliteLeadStates(tmp_path / "states")
    _judged(records, states=states)
    assert {lead_id: plain(state) for lead_id, state in states.all()} == expected
    states.commit()
    states.close()
    again = SqliteLeadStates(tmp_path / "states")
    assert {lead_id: plain(state) for lead_id, state in again.unsettled()} == expected
    assert not any(again.is_new(lead_id) for lead_id in expected)
    assert again.is_new(lead_id_of("quotehub", "never"))
    again.close()


@pytest.mark.parametrize("states", ["memory", "file"])
def test_lead_that_is_listed_again_is_found_wherever_its_state_is(states: str, tmp_path: Path) -> None:
    given, leads = market(), _of_one_kind()
    records = _log(lambda events: events)
    again = usual_events(given, leads[0], 0, START_MS + 10)
    entry = codec().decode_entry(records[-1].value)
    told = replace(
        entry,
        seq=len(records) + 1,
        prev_hash=hash_of(records[-1].value or b""),
        lead_id=leads[0],
        decided_at_ms=START_MS + 10,
        events=tuple(map(codec().encode_body, again)),
    )
    late = Record(TOPICS.log, 0, len(records), leads[0].encode(), codec().encode(told), (), START_MS + 10)
    kept = MemoryLeadStates() if states == "memory" else SqliteLeadStates(tmp_path / "states", kept_max=1)
    auditor, found = _judged(records, states=kept)
    if isinstance(kept, SqliteLeadStates):
        kept._evict()
    auditor.take([late])
    assert Rule.LISTED_ONCE in {violation.rule for violation in found}
