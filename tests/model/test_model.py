"""Every order of events in the small model: none breaks a promise, and without any one rule some order does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.model.checking import Counterexample, Model, Step, TooManyStates, check
from tests.model.protocol import Left, Off, Settings, model

pytestmark = pytest.mark.stream

SETTINGS = {
    "an owner dies": Settings(left=Left(crashes=1)),
    "a COMMIT is not answered": Settings(left=Left(unknown=1)),
    "an outsider does not listen": Settings(left=Left(refusals=1)),
    "two readers, one dies": Settings(left=Left(crashes=1), readers=2, workers=1),
    "two readers, a COMMIT is not answered": Settings(left=Left(unknown=1), readers=2, workers=1),
    "the database is restored": Settings(left=Left(crashes=1, restores=1), workers=1),
}
LARGE = Settings(left=Left(crashes=1, unknown=1))
"""Where most counterexamples are found; to visit all of it takes longer (`python -m tests.model`)."""

FOUND_IN = {
    Off.UNDELIVERED_KEPT: SETTINGS["an outsider does not listen"],
    Off.LATER_ONES_WAIT: SETTINGS["an outsider does not listen"],
    Off.NEXT_SEQ_ONLY: SETTINGS["two readers, one dies"],
    Off.READER_COMPARES: SETTINGS["two readers, one dies"],
    Off.READER_MOVES_WITH_FOLD: SETTINGS["two readers, one dies"],
    Off.READER_MOVES_AFTER_FOLD: SETTINGS["two readers, one dies"],
    Off.ORIGIN_COMPARED: SETTINGS["the database is restored"],
    Off.TABLE_FIRST: SETTINGS["an owner dies"],
}
WHAT_GOES_WRONG = {
    Off.VERSION_COMPARED: "numbered and chained",
    Off.MORE_THAN_POSITIONS: "numbered and chained",
    Off.HEAD_READ_FIRST: "decided twice",
    Off.SEEK_BACK: "passed over",
    Off.DROP_DECIDED: "decided twice",
    Off.UNKNOWN_IS_COMMITTED: "never committed",
    Off.UNKNOWN_BY_POSITION: "never committed",
    Off.LIMIT_CHECKED_AT_COMMIT: "2 sales are drawn on a cap of 1",
    Off.COUNTER_LOCKED: "2 sales are drawn on a cap of 1",
    Off.COUNTER_IN_TRANSACTION: "the counter says 1 where 0 are sold",
    Off.ROOM_FORGOTTEN: "goes unsold",
    Off.PUBLISHED_AFTER_COMMIT: "never committed",
    Off.TABLE_FIRST: "can't come to its end",
    Off.IN_ORDER: "mark is beyond",
    Off.SAME_BYTES: "never committed",
    Off.MARK_COMPARED: "the mark went back",
    Off.MARK_AFTER_PUBLISHING: "mark is beyond",
    Off.UNDELIVERED_KEPT: "neither told nor noted",
    Off.LATER_ONES_WAIT: "another order",
    Off.NEXT_SEQ_ONLY: "once and in order",
    Off.READER_COMPARES: "once and in order",
    Off.READER_MOVES_WITH_FOLD: "once and in order",
    Off.READER_MOVES_AFTER_FOLD: "once and in order",
    Off.ORIGIN_COMPARED: "does not follow",
}


def find(off: Off) -> Counterexample | None:
    """Look for what goes wrong without a rule."""
    return check(model(replace(FOUND_IN.get(off, LARGE), off=frozenset({off})))).found


def test_no_order_of_events_breaks_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    states = 0
    for name, settings in SETTINGS.items():
        result = check(model(settings))
        with capsys.disabled():
            print(f"\n{name}: {result.states:,} states, {result.steps:,} steps", end="")  # noqa: T201  # asked for
        assert result.found is None, f"{name}: {result.found}"
        assert result.done > 0
        states += result.states
    assert states > 100_000


def test_every_rule_of_the_model_is_tried_without() -> None:
    assert set(WHAT_GOES_WRONG) == set(Off)
    assert len(Off) >= 20


@pytest.mark.parametrize("off", sorted(Off), ids=lambda off: off.name.lower())
def test_without_the_rule_some_order_of_events_breaks_a_promise(off: Off) -> None:
    found = find(off)
    assert found is not None
    assert WHAT_GOES_WRONG[off] in found.wrong


# The checker itself, on a model of a counter that goes up by one or two


def _counting(*, wrong_at: int = -1, stuck_at: int = -1, end: int = 5) -> Model[int]:
    def steps(state: int) -> Iterator[Step[int]]:
        if state < end and state != stuck_at:
            yield Step("one", state + 1)
            yield Step("two, by chance", state + 2, True)

    return Model(
        initial=0,
        steps=steps,
        wrong=lambda state: "wrong" if state == wrong_at else None,
        is_done=lambda state: state >= end,
    )


def test_checker_visits_every_state() -> None:
    result = check(_counting())
    assert (result.states, result.steps, result.done, result.found) == (7, 10, 2, None)


def test_checker_finds_the_shortest_way_to_what_is_wrong() -> None:
    found = check(_counting(wrong_at=3)).found
    assert found is not None
    assert sorted(found.trace) == ["one", "two, by chance"]


def test_checker_finds_a_state_that_only_a_fault_leads_out_of() -> None:
    def steps(state: int) -> Iterator[Step[int]]:
        if state == 0:
            yield Step("only by chance", 1, True)

    found = check(Model(initial=0, steps=steps, wrong=lambda _: None, is_done=lambda state: state == 1)).found
    assert found is not None
    assert found.trace == ()


def test_checker_finds_a_dead_end() -> None:
    assert check(_counting(stuck_at=4)).found is not None


def test_checker_says_that_a_model_is_too_large() -> None:
    with pytest.raises(TooManyStates):
        check(_counting(end=1_000), states_max=100)
