"""What was acknowledged and never answered is a violation, and so is whatever an outcome was not well by."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from chaos.campaign import Outcome
from chaos.faults import Told
from chaos.judging import unanswered
from chaos.plan import FaultKind
from chaos.report import by_kind, document
from chaos.subject import Judgement

FAULT = Told(
    number=1,
    kind=FaultKind.ZOMBIE,
    target="router-1",
    planned_s=1.0,
    began_s=1.1,
    ended_s=9.0,
    recovered_s=7.0,
    again_s=0.5,
    standing=(),
    note="stopped for 7.9 s",
)
WELL = Judgement(judge="somebody", counts={"sales": 3}, violations=[])


def outcome(**more: object) -> Outcome:
    found = Outcome(
        subject="Gavel",
        sent=10,
        acknowledged=10,
        refused=[],
        held_back_s=0.0,
        seconds=20.0,
        rest_s=3.0,
        missing=[],
        faults=[FAULT],
        left_out=0,
        ended=[],
        starts=10,
        judgement=WELL,
    )
    for name, value in more.items():
        setattr(found, name, value)
    return found


def test_submission_without_an_answer_is_named() -> None:
    answers = {"web a": Counter(accepted=1), "web b": Counter({"declined: duplicate": 1})}
    assert unanswered({"web a", "web b"}, answers) == []
    (found,) = unanswered({"web a", "web b", "web c"}, answers)
    assert "web c" in found


@pytest.mark.parametrize(
    "wrong",
    [
        {"missing": ["1 of 2 accepted leads are not closed"]},
        {"refused": ["a submission timed out"]},
        {"left_out": 1},
        {"faults": [replace(FAULT, again_s=None, standing=("router 3",))]},
        {"judgement": replace(WELL, violations=["lead sold twice"])},
        {"judgement": None},
    ],
)
def test_nothing_that_went_wrong_passes_for_well(wrong: dict[str, object]) -> None:
    assert outcome().is_well
    assert not outcome(**wrong).is_well


def test_document_tells_recoveries_by_kind_and_what_did_not_recover() -> None:
    faults = [
        FAULT,
        replace(FAULT, number=2, recovered_s=9.0),
        replace(FAULT, number=3, again_s=None, recovered_s=None),
    ]
    (row,) = by_kind(faults)
    assert row["faults"] == 3
    assert row["recovery_s"] == {"p50": 8.0, "max": 9.0, "not_in_time": 1}
    summary = document([outcome(faults=faults)], {"seed": 7}, at="")["summary"]["Gavel"]
    assert summary["faults_not_recovered_from"] == 1
    assert summary["recovery_s_max"] == 9.0
    assert summary["is_well"] is False
