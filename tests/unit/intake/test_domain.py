"""What the door decides, in the order of arrival: new, known, repeated, duplicate."""

from __future__ import annotations

import pytest

from services.contract.inputs import QualifiedLead
from services.intake.domain import (
    Accepted,
    Assessed,
    Candidate,
    Declined,
    DeclineReason,
    Identity,
    KnownLead,
    Origin,
    Owner,
    Repeated,
    Replayed,
    claims_of,
    corrections,
    decide,
    subjects_of,
)

NOW_MS = 1_790_000_000_000
WITHIN_MS = 1_000
DUPLICATE = Declined(reason=DeclineReason.DUPLICATE)


def identity(
    lead_id: str, offset: int = 0, payload: bytes = b"payload", at_ms: int = NOW_MS, source: str = "sunform"
) -> Identity:
    return Identity(
        lead_id=lead_id,
        source_id=source,
        origin=Origin(partition=0, offset=offset),
        payload_hash=payload,
        reference=None,
        received_at_ms=at_ms,
    )


def candidate(lead_id: str, *fingerprints: bytes) -> Candidate:
    return Candidate(
        lead=QualifiedLead(
            lead_id=lead_id,
            source_id="sunform",
            lead_type="solar",
            fields={},
            quality=0,
            sales_max=None,
            never_to=(),
            created_at_ms=NOW_MS,
            received_at_ms=NOW_MS,
            market_version=1,
            is_test=False,
        ),
        details_json=b"{}",
        details_kept_until_ms=NOW_MS,
        consent_json=None,
        consent_kept_until_ms=NOW_MS,
        fingerprints=fingerprints,
        duplicate_within_ms=WITHIN_MS,
    )


def arrival(lead_id: str, *fingerprints: bytes, offset: int = 0, at_ms: int = NOW_MS) -> Assessed:
    return Assessed(identity(lead_id, offset, at_ms=at_ms), candidate(lead_id, *fingerprints))


def owner(lead_id: str, at_ms: int = NOW_MS) -> Owner:
    return Owner(lead_id=lead_id, received_at_ms=at_ms, kept_until_ms=at_ms + WITHIN_MS)


def known(offset: int = 0, payload: bytes = b"payload") -> KnownLead:
    return KnownLead(origin=Origin(partition=0, offset=offset), payload_hash=payload, record=b"record")


def test_accepts_a_new_lead_and_makes_it_the_owner_of_its_fingerprints() -> None:
    decision = decide([arrival("a", b"phone", b"email")], {}, {})
    assert decision.verdicts == (Accepted(candidate("a", b"phone", b"email")),)
    assert decision.owners == {b"phone": owner("a"), b"email": owner("a")}


def test_emits_again_what_was_accepted_from_this_very_record() -> None:
    decision = decide([arrival("a", offset=5)], {"a": known(offset=5)}, {})
    assert decision.verdicts == (Replayed(b"record"),)


@pytest.mark.parametrize("origin", [Origin(partition=0, offset=6), Origin(partition=1, offset=5)])
def test_only_confirms_a_lead_sent_again_elsewhere(origin: Origin) -> None:
    again = identity("a")._replace(origin=origin)
    assert decide([Assessed(again, candidate("a"))], {"a": known(offset=5)}, {}).verdicts == (Repeated(),)


@pytest.mark.parametrize("offset", [5, 6])
def test_declines_other_content_under_the_same_reference(offset: int) -> None:
    again = Assessed(identity("a", offset, payload=b"other"), candidate("a"))
    expected = Declined(reason=DeclineReason.OTHER_PAYLOAD)
    assert decide([again], {"a": known(offset=5)}, {}).verdicts == (expected,)


def test_declines_the_same_person_in_any_of_its_ways_to_be_reached() -> None:
    before = {b"email": owner("earlier")}
    decision = decide([arrival("a", b"phone", b"email")], {}, before)
    assert decision.verdicts == (DUPLICATE,)
    assert decision.owners == before, "a declined lead keeps no fingerprint"


@pytest.mark.parametrize(("passed_ms", "is_duplicate"), [(WITHIN_MS - 1, True), (WITHIN_MS, False)])
def test_window_for_duplicates_ends_exactly(passed_ms: int, is_duplicate: bool) -> None:
    later = arrival("b", b"phone", at_ms=NOW_MS + passed_ms)
    (verdict,) = decide([later], {}, {b"phone": owner("a")}).verdicts
    assert isinstance(verdict, Declined) is is_duplicate


def test_takes_over_an_expired_fingerprint() -> None:
    later_ms = NOW_MS + WITHIN_MS
    decision = decide([arrival("b", b"phone", at_ms=later_ms)], {}, {b"phone": owner("a")})
    assert decision.owners == {b"phone": owner("b", later_ms)}


def test_a_record_that_was_overtaken_by_a_later_one_is_the_duplicate() -> None:
    earlier = arrival("a", b"phone", at_ms=NOW_MS - 10 * WITHIN_MS)
    assert decide([earlier], {}, {b"phone": owner("b")}).verdicts == (DUPLICATE,)


def test_lead_is_no_duplicate_of_itself() -> None:
    (verdict,) = decide([arrival("a", b"phone")], {}, {b"phone": owner("a")}).verdicts
    assert isinstance(verdict, Accepted)


def test_first_in_a_batch_is_accepted_and_the_second_is_the_duplicate() -> None:
    first, second = arrival("a", b"phone"), arrival("b", b"phone", b"email", offset=1)
    decision = decide([first, second], {}, {})
    assert isinstance(decision.verdicts[0], Accepted)
    assert decision.verdicts[1] == DUPLICATE
    assert decision.owners == {b"phone": owner("a")}


def test_what_a_declined_lead_claimed_is_free_for_the_next_in_the_batch() -> None:
    batch = [arrival("a", b"1"), arrival("b", b"1", b"2", offset=1), arrival("c", b"2", offset=2)]
    decision = decide(batch, {}, {})
    assert [type(verdict) for verdict in decision.verdicts] == [Accepted, Declined, Accepted]
    assert decision.owners == {b"1": owner("a"), b"2": owner("c")}


def test_same_lead_twice_in_a_batch_is_one_lead() -> None:
    batch = [arrival("a", b"phone"), arrival("a", b"phone", offset=1)]
    assert decide(batch, {}, {}).verdicts == (Accepted(candidate("a", b"phone")), Repeated())


def test_other_content_later_in_the_batch_is_declined() -> None:
    other = Assessed(identity("a", 1, payload=b"other"), candidate("a", b"other phone"))
    decision = decide([arrival("a", b"phone"), other], {}, {})
    assert decision.verdicts[1] == Declined(reason=DeclineReason.OTHER_PAYLOAD)
    assert decision.owners == {b"phone": owner("a")}


def test_a_reference_declined_first_may_come_again_mended() -> None:
    invalid = Declined(reason=DeclineReason.INVALID_PHONE)
    decision = decide([Assessed(identity("a"), invalid), arrival("a", b"phone", offset=1)], {}, {})
    assert decision.verdicts == (invalid, Accepted(candidate("a", b"phone")))


def test_leads_without_fingerprints_are_never_duplicates() -> None:
    decision = decide([arrival("a"), arrival("b", offset=1)], {}, {})
    assert [type(verdict) for verdict in decision.verdicts] == [Accepted, Accepted]
    assert decision.owners == {}


def test_claims_are_the_first_comers() -> None:
    batch = [
        arrival("a", b"1"),
        arrival("b", b"1", b"2", offset=1),
        Assessed(identity("c"), Declined(reason=DeclineReason.INVALID_PHONE)),
    ]
    assert claims_of(batch) == {b"1": owner("a"), b"2": owner("b")}


def test_corrects_no_row_when_every_claimant_was_accepted() -> None:
    claims = {b"1": owner("a"), b"2": owner("b")}
    wrong = corrections(claims, {}, claims)
    assert not wrong.changed
    assert not wrong.given_up


def test_gives_up_claims_of_the_declined_and_changes_owners_of_the_expired() -> None:
    claims = {b"1": owner("a"), b"2": owner("b"), b"3": owner("c")}
    before = {b"3": owner("old", NOW_MS - 2 * WITHIN_MS)}
    wrong = corrections(claims, before, {b"1": owner("z"), b"3": owner("c")})
    assert wrong.changed == {b"1": owner("z"), b"3": owner("c")}
    assert wrong.given_up == {b"2"}


def of_person(lead_id: str, *subjects: bytes, fingerprint: bytes = b"") -> Assessed:
    marks = (fingerprint,) if fingerprint else ()
    return Assessed(identity(lead_id), candidate(lead_id, *marks)._replace(subjects=subjects))


def test_lead_of_a_suppressed_person_is_declined_by_whichever_way_it_is_known() -> None:
    for subjects in ((b"phone", b"email"), (b"phone",), (b"email", b"other phone")):
        given = decide([of_person("a", *subjects)], {}, {}, frozenset({b"phone", b"email"}))
        assert given.verdicts == (Declined(reason=DeclineReason.SUPPRESSED),)
    (verdict,) = decide([of_person("a", b"other")], {}, {}, frozenset({b"phone"})).verdicts
    assert isinstance(verdict, Accepted)


def test_declined_lead_of_a_suppressed_person_keeps_no_fingerprint() -> None:
    batch = [of_person("a", b"phone", fingerprint=b"f")]
    after = decide(batch, {}, {}, frozenset({b"phone"})).owners
    assert after == {}
    assert corrections(claims_of(batch), {}, after).given_up == {b"f"}


def test_lead_accepted_before_its_person_was_suppressed_is_known_all_the_same() -> None:
    before = KnownLead(origin=Origin(partition=0, offset=0), payload_hash=b"payload", record=b"record")
    given = decide([of_person("a", b"phone")], {"a": before}, {}, frozenset({b"phone"}))
    assert given.verdicts == (Replayed(b"record"),)


def test_names_all_persons_of_a_batch() -> None:
    assert subjects_of([of_person("a", b"1", b"2"), of_person("b", b"2", b"3")]) == {b"1", b"2", b"3"}
