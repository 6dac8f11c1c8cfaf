"""What the campaign's buyers answer to a notice: that a lead is erased, where that was asked for."""

from __future__ import annotations

from chaos.buyers import answer_to

ERASURE = {"type": "erasure", "reason": "revoked", "acknowledge_by": "2026-12-23T09:00:00.000Z"}
LEADS = [f"lead-{number}" for number in range(40)]


def test_most_buyers_acknowledge_an_erasure_and_some_never() -> None:
    notices = [{"type": "notice", "lead_id": lead_id, "happened": [ERASURE]} for lead_id in LEADS]
    answers = [thought.answer for notice in notices if (thought := answer_to("ann", notice)) is not None]
    assert 0 < len(answers) < len(LEADS)
    assert {answer["type"] for answer in answers} == {"erased"}


def test_other_notices_are_not_answered() -> None:
    notice = {"type": "notice", "lead_id": LEADS[0], "happened": [{"type": "closed", "outcome": "sold_out"}]}
    assert answer_to("ann", notice) is None
