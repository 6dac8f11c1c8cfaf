"""Each promise of the door against a bug planted in it: the check from outside sees the promise break.

A bug is a patch that could have been written by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from services.bus.memory import Crash, Faults
from services.intake import domain, outgoing, receipts, step
from services.intake.admission import Admitted
from services.intake.domain import Candidate, Corrections, Declined, Identity, Repeated, Verdict
from services.intake.qualification import Judge
from services.intake.reading import Sorted, Submitted
from services.intake.submission import Submission
from tests.stream.test_intake import busy_world, check
from tests.support.intake_world import World

Patch = Callable[[pytest.MonkeyPatch], None]


def crash_everywhere() -> None:
    """Crash once at each edge, each time in a world of its own, and check after each; first without a crash."""
    rehearsal = Faults()
    world = busy_world()
    world.start(rehearsal).host.drain()
    check(world)
    for crash_at in range(1, rehearsal.edges + 1):
        check(world_after_crash(crash_at))


def world_after_crash(crash_at: int) -> World:
    world = busy_world()
    with pytest.raises(Crash):
        world.start(Faults(crash_at=crash_at)).host.drain()
    world.start().host.drain()
    return world


def replay_is_not_emitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "_again", lambda _identity, _before: Repeated())


def positions_move_before_the_lead_is_emitted(monkeypatch: pytest.MonkeyPatch) -> None:
    emit = step.Intake._emit

    def early(
        self: step.Intake, found: Sorted, decided: Sequence[tuple[Submitted, Verdict]], admitted: Admitted
    ) -> None:
        self._positions.commit(found.next_offsets)
        emit(self, found, decided, admitted)

    monkeypatch.setattr(step.Intake, "_emit", early)


def known_lead_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its replay, whose person has a lead now, is declined as its own duplicate's other content."""
    monkeypatch.setattr(
        domain, "_again", lambda _identity, _before: Declined(reason=domain.DeclineReason.DUPLICATE)
    )


def duplicates_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "_is_duplicate", lambda _identity, _candidate, _owners: False)


def a_test_lead_is_taken_for_a_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = Judge._candidate

    def always(self: Judge, identity: Identity, submission: Submission) -> Candidate:
        judged = candidate(self, identity, submission.model_copy(update={"is_test": False}))
        return judged._replace(lead=replace(judged.lead, is_test=submission.is_test))

    monkeypatch.setattr(Judge, "_candidate", always)


def receipt_is_named_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter(range(1_000_000))
    headers = receipts.receipt_headers

    def anew(identity: Identity, verdict: Verdict) -> tuple[tuple[str, bytes], ...]:
        named = dict(headers(identity, verdict))
        return (*(named | {"ce_id": named["ce_id"] + b"%d" % next(told)}).items(),)

    monkeypatch.setattr(outgoing, "receipt_headers", anew)


def headers_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = outgoing._inside
    monkeypatch.setattr(
        outgoing, "_inside", lambda *given: inside(*given)._replace(headers=(("h", b"canary"),))
    )


def unpinged_details_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = Judge._candidate

    def leaky(self: Judge, identity: Identity, submission: Submission) -> Candidate:
        judged = candidate(self, identity, submission)
        fields = {**judged.lead.fields, "zip": "85001"}
        return judged._replace(lead=replace(judged.lead, fields=fields))

    monkeypatch.setattr(Judge, "_candidate", leaky)


def personal_reference_is_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "services.contract.identity.lead_id_of", lambda _source, reference: f"lead of {reference}"
    )
    monkeypatch.setattr("services.contract.identity.is_personal", lambda _reference: False)


def dead_letters_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "dead_letters", lambda _dead, _topics, _at_ms: [])


BUGS: list[Patch] = [
    replay_is_not_emitted,
    positions_move_before_the_lead_is_emitted,
    known_lead_is_judged_again,
    duplicates_are_taken,
    a_test_lead_is_taken_for_a_duplicate,
    receipt_is_named_anew_each_time,
    headers_get_through,
    unpinged_details_get_through,
    personal_reference_is_the_key,
    dead_letters_are_forgotten,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_check_sees_the_bug(bug: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        crash_everywhere()


def test_check_sees_nothing_without_a_bug() -> None:
    crash_everywhere()


def claims_of_declined_leads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.intake.memory_store.corrections", lambda *_: Corrections({}, frozenset()))


def test_declined_lead_that_kept_a_fingerprint_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Person 1's new phone is free after a lead with it was declined for the address."""
    from tests.stream.test_intake import declined_for_the_address_then_sent_with_the_phone

    assert declined_for_the_address_then_sent_with_the_phone() == ["accepted", "duplicate", "accepted"]
    claims_of_declined_leads_stay(monkeypatch)
    assert declined_for_the_address_then_sent_with_the_phone() == ["accepted", "duplicate", "duplicate"]
