"""An entry like one judged before is not judged again, and whatever tells it from that one is found all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.audit_speed import PARTITIONS, START_MS, TOPICS, market, usual_events
from services.audit.auditor import Auditor
from services.audit.lead_checks import LeadChecks
from services.audit.rules import Rule
from services.audit.states import MemoryLeadStates
from services.audit.usual_entries import UsualEntries
from services.audit.violations import Violation
from services.bus.ports import Record
from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry, hash_of
from services.contract.events import Event, StageStarted
from services.contract.ids import lead_id_of, partition_of

Change = Callable[[list[Event]], Sequence[Event]]

LIKE_EACH_OTHER = 3
"""So many entries of one kind come before one that is otherwise: the first is judged, the others are known again."""


def _of_one_kind() -> list[str]:
    """Leads of one partition."""
    leads = (lead_id_of("quotehub", str(number)) for number in range(1_000))
    return [lead_id for lead_id in leads if partition_of(lead_id, PARTITIONS) == 0][: LIKE_EACH_OTHER + 2]


def _log(change: Change) -> list[Record]:
    """Entries that are alike but for ids and times; the last but one is changed."""
    records, hash = [], GENESIS_HASH
    given, leads = market(), _of_one_kind()
    for seq, lead_id in enumerate(leads, 1):
        now_ms = START_MS + seq
        # 101 and 97 are the cycles in which such entries differ in quality and age.
        events = usual_events(given, lead_id, 0, now_ms)
        if seq == len(leads) - 1:
            events = list(change(events))
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


def _judged(records: Sequence[Record]) -> tuple[Auditor, list[Violation]]:
    found: list[Violation] = []
    auditor = Auditor(
        markets={1: market()}.__getitem__,
        topics=TOPICS,
        partitions=PARTITIONS,
        states=MemoryLeadStates(),
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
        assert not one._ledger.sales.differing(other._ledger.sales)
    assert _counted(auditor) == _counted(each)


def _counted(auditor: Auditor) -> list[Any]:
    auditor.kept()
    return auditor._limits.kept()
