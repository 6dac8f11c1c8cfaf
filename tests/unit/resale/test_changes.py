"""What a batch of the log changes in the table of windows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from services.contract.events import WindowKind
from services.resale.domain import Changes, Pace, Window, WindowKey, resend_after_ms

Fact: TypeAlias = tuple[str, str, int]
"""What happened (list, open, close, end), to which lead, to which of its windows."""


def _window(lead_id: str, number: int) -> Window:
    return Window(partition=0, lead_id=lead_id, window_number=number, kind=WindowKind.WAIT, due_at_ms=1_000)


def _changes(*facts: Fact) -> Changes:
    changes = Changes()
    for kind, lead_id, number in facts:
        match kind:
            case "list":
                changes.list_lead(lead_id)
            case "open":
                changes.open_window(_window(lead_id, number))
            case "close":
                changes.close_window(lead_id, number)
            case _:
                changes.end_lead(lead_id)
    return changes


def _applied(table: set[WindowKey], changes: Changes) -> set[WindowKey]:
    left = {key for key in table if key[0] not in changes.ended and key not in changes.closed}
    assert not left & changes.opened.keys(), "the table would refuse the same window twice"
    return left | changes.opened.keys()


def _one_by_one(facts: Iterable[Fact]) -> set[WindowKey]:
    table: set[WindowKey] = set()
    for kind, lead_id, number in facts:
        match kind:
            case "open":
                table.add((lead_id, number))
            case "close":
                table.discard((lead_id, number))
            case "end":
                table = {key for key in table if key[0] != lead_id}
    return table


def test_opens_a_window() -> None:
    assert _changes(("open", "a", 1)).opened == {("a", 1): _window("a", 1)}


def test_window_opened_and_closed_in_one_batch_changes_nothing() -> None:
    changes = _changes(("open", "a", 1), ("close", "a", 1))
    assert not changes.opened
    assert not changes.closed


def test_lead_listed_and_closed_in_one_batch_changes_nothing() -> None:
    changes = _changes(("list", "a", 0), ("open", "a", 1), ("open", "a", 2), ("end", "a", 0))
    assert (changes.opened, changes.closed, changes.ended) == ({}, set(), set())


def test_closes_a_window_of_an_earlier_batch() -> None:
    assert _changes(("close", "a", 1)).closed == {("a", 1)}


def test_close_of_a_lead_ends_all_its_windows_and_no_other_leads() -> None:
    changes = _changes(("open", "a", 2), ("open", "b", 1), ("end", "a", 0))
    assert _applied({("a", 1), ("c", 1)}, changes) == {("b", 1), ("c", 1)}


def test_window_opened_after_its_leads_close_stays() -> None:
    assert _applied({("a", 1)}, _changes(("end", "a", 0), ("open", "a", 2))) == {("a", 2)}


@st.composite
def _histories(draw: st.DrawFn) -> list[Fact]:
    """Histories as the log can tell them: a lead is listed first and once, a window number is opened once."""
    facts: list[Fact] = []
    last_number: dict[str, int] = {}
    for lead_id in draw(st.lists(st.sampled_from("abc"), max_size=25)):
        if lead_id not in last_number:
            last_number[lead_id] = 0
            facts.append(("list", lead_id, 0))
        match draw(st.sampled_from(["open", "close", "end"])):
            case "open":
                last_number[lead_id] += 1
                facts.append(("open", lead_id, last_number[lead_id]))
            case "close":
                facts.append(("close", lead_id, draw(st.integers(1, 5))))
            case _:
                facts.append(("end", lead_id, 0))
    return facts


@given(facts=_histories(), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_any_cut_into_batches_gives_the_same_table(facts: list[Fact], cuts: list[int]) -> None:
    table: set[WindowKey] = set()
    edges = [0, *sorted(cuts), len(facts)]
    for start, end in pairwise(edges):
        table = _applied(table, _changes(*facts[start:end]))
    assert table == _one_by_one(facts)


def test_sends_again_after_a_minute_doubling_up_to_an_hour() -> None:
    minutes = [resend_after_ms(sends) // 60_000 for sends in (1, 2, 3, 4, 5, 6, 7, 8, 1_000)]
    assert minutes == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_pace_allows_a_burst_and_then_one_look_an_interval() -> None:
    pace = Pace(0.05, 3)
    assert [pace.allows(100.0) for _ in range(4)] == [True, True, True, False]
    assert not pace.allows(100.04)
    assert pace.allows(100.051)
    assert not pace.allows(100.06)


@given(steps_ms=st.lists(st.integers(0, 200), max_size=200))
def test_pace_never_exceeds_its_rate_by_more_than_the_burst(steps_ms: list[int]) -> None:
    pace, now_ms, allowed = Pace(0.05, 4), 0, 0
    for step_ms in steps_ms:
        now_ms += step_ms
        allowed += pace.allows(now_ms / 1_000)
        assert allowed <= 4 + now_ms / 50
