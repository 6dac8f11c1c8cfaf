"""How a submission is judged by the market: agreed, typed, reachable, scored, limited."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.fields import quality_of
from services.contract.inputs import QualifiedLead
from services.contract.times import DAY_MS, iso_time
from services.intake.domain import Candidate, Declined, DeclineReason, Identity, Origin
from services.intake.qualification import CLOCK_TOLERANCE_MS, CONSENT_KEPT_MS, Judge
from services.intake.submission import read_submission
from tests.support.submissions import (
    CONTACT_KEPT_MS,
    DUPLICATE_WITHIN_MS,
    KEYS,
    MARKET,
    RECEIVED_AT_MS,
    SOLAR,
    contact,
    submission,
)

JUDGE = Judge(MARKET, KEYS)


def demanding(body: dict[str, Any]) -> Candidate | Declined:
    solar = replace(SOLAR, one_to_one_consent=True)
    return judge(body, by=Judge(replace(MARKET, lead_types={"solar": solar}), KEYS))


def judge(body: dict[str, Any], source_id: str = "sunform", *, by: Judge = JUDGE) -> Candidate | Declined:
    read = read_submission(body)
    assert not isinstance(read, Declined)
    identity = Identity(
        lead_id="lead",
        source_id=source_id,
        origin=Origin(partition=0, offset=0),
        payload_hash=bytes(32),
        reference=None,
        received_at_ms=RECEIVED_AT_MS,
    )
    return by.judge(identity, read)


def accepted(body: dict[str, Any], source_id: str = "sunform") -> Candidate:
    candidate = judge(body, source_id)
    assert isinstance(candidate, Candidate), candidate
    return candidate


def test_candidate_has_pinged_details_score_and_version() -> None:
    assert accepted(submission()).lead == QualifiedLead(
        lead_id="lead",
        source_id="sunform",
        lead_type="solar",
        fields={"state": "AZ", "monthly_bill": "180.50", "owns_home": "yes"},
        quality=100,
        sales_max=None,
        never_to=(),
        created_at_ms=RECEIVED_AT_MS,
        received_at_ms=RECEIVED_AT_MS,
        market_version=7,
        is_test=False,
    )


def test_contact_and_unpinged_details_are_in_the_sealed_part_alone() -> None:
    candidate = accepted(submission())
    sealed = orjson.loads(candidate.details_json)
    assert sealed == {
        "contact": {
            "first_name": "Canary",
            "last_name": "Canaryson1",
            "email": "canary1@mail.example",
            "phone": "+16022000001",
            "street": "1 Canary Street",
        },
        "details": {
            "state": "AZ",
            "zip": "85001",
            "monthly_bill": "180.50",
            "owns_home": "yes",
            "roof_age_years": "12",
        },
    }
    assert candidate.details_kept_until_ms == RECEIVED_AT_MS + CONTACT_KEPT_MS
    told = repr(candidate.lead).lower()
    assert "canary" not in told
    assert "85001" not in told


@pytest.mark.parametrize(
    ("source_id", "changes", "expected"),
    [
        ("nobody", {}, Declined(reason=DeclineReason.UNKNOWN_SOURCE)),
        ("asleep", {}, Declined(reason=DeclineReason.SOURCE_PAUSED)),
        (
            "sunform",
            {"lead_type": "canary"},
            Declined(reason=DeclineReason.UNKNOWN_LEAD_TYPE, field="lead_type"),
        ),
        (
            "partnerweb",
            {"lead_type": "anonymous"},
            Declined(reason=DeclineReason.LEAD_TYPE_NOT_AGREED, field="lead_type"),
        ),
    ],
)
def test_declines_what_the_market_does_not_agree_to(
    source_id: str, changes: dict[str, Any], expected: Declined
) -> None:
    assert judge(submission(**changes), source_id) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"phone": "canary"}, Declined(reason=DeclineReason.INVALID_PHONE, field="phone")),
        ({"phone": 6022000001}, Declined(reason=DeclineReason.INVALID_PHONE, field="phone")),
        ({"email": "canary"}, Declined(reason=DeclineReason.INVALID_EMAIL, field="email")),
        ({"email": ["canary"]}, Declined(reason=DeclineReason.INVALID_EMAIL, field="email")),
        ({"street": "x" * 201}, Declined(reason=DeclineReason.INVALID_FIELD, field="street")),
        ({"street": {"canary": 1}}, Declined(reason=DeclineReason.INVALID_FIELD, field="street")),
        ({"canary": "canary"}, Declined(reason=DeclineReason.UNKNOWN_FIELD, field="contact")),
        ({"phone": None, "email": ""}, Declined(reason=DeclineReason.MISSING_CONTACT)),
        ({"phone": "   ", "email": None}, Declined(reason=DeclineReason.MISSING_CONTACT)),
    ],
)
def test_declines_contact_that_reaches_nobody(changes: dict[str, Any], expected: Declined) -> None:
    declined = judge(submission(contact=contact(1, **changes)))
    assert declined == expected
    assert "canary" not in repr(declined)


@given(bill=st.integers(0, 400), owns=st.booleans(), roof=st.none() | st.decimals(0, 40, places=1).map(float))
def test_quality_is_what_the_contract_says(bill: int, owns: bool, roof: float | None) -> None:
    sent = {"state": "AZ", "monthly_bill": bill, "owns_home": owns, "roof_age_years": roof}
    candidate = accepted(submission(details=sent))
    details = orjson.loads(candidate.details_json)["details"]
    assert candidate.lead.quality == quality_of(SOLAR.score, details, SOLAR.details)


@pytest.mark.parametrize("way", ["phone", "email"])
def test_one_way_to_reach_the_person_is_enough(way: str) -> None:
    candidate = accepted(submission(contact={way: contact(1)[way]}))
    assert orjson.loads(candidate.details_json)["contact"].keys() == {way}
    assert len(candidate.fingerprints) == 1


def test_type_without_ways_to_reach_needs_none() -> None:
    body = {"lead_type": "anonymous", "contact": {"nickname": "canary"}, "details": {"state": "NY"}}
    assert accepted(body).fingerprints == ()


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (
            {"state": "AZ", "monthly_bill": 5},
            Declined(reason=DeclineReason.MISSING_FIELD, field="owns_home"),
        ),
        (
            {"state": "", "monthly_bill": 5, "owns_home": True},
            Declined(reason=DeclineReason.MISSING_FIELD, field="state"),
        ),
        ({"state": "canary"}, Declined(reason=DeclineReason.INVALID_FIELD, field="state")),
        ({"state": ["AZ"]}, Declined(reason=DeclineReason.INVALID_FIELD, field="state")),
        ({"zip": 85001.5}, Declined(reason=DeclineReason.INVALID_FIELD, field="zip")),
        ({"monthly_bill": -5}, Declined(reason=DeclineReason.INVALID_FIELD, field="monthly_bill")),
        ({"monthly_bill": 1e30}, Declined(reason=DeclineReason.INVALID_FIELD, field="monthly_bill")),
        ({"owns_home": 1}, Declined(reason=DeclineReason.INVALID_FIELD, field="owns_home")),
        ({"canary@mail.example": 1}, Declined(reason=DeclineReason.UNKNOWN_FIELD, field="details")),
    ],
)
def test_declines_details_that_are_not_of_their_type(details: dict[str, Any], expected: Declined) -> None:
    declined = judge(submission(details=details))
    assert declined == expected
    assert "canary" not in repr(declined)


def test_details_that_no_ping_shows_may_be_left_out() -> None:
    details = {"state": "AZ", "monthly_bill": 100, "owns_home": "NO", "zip": None}
    candidate = accepted(submission(details=details))
    assert candidate.lead.fields == {"state": "AZ", "monthly_bill": "100.00", "owns_home": "no"}
    assert candidate.lead.quality == 0


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ({"monthly_bill": 150}, "150.00"),
        ({"monthly_bill": 150.0}, "150.00"),
        ({"monthly_bill": "150.5"}, "150.50"),
        ({"owns_home": False}, "no"),
        ({"owns_home": "Yes"}, "yes"),
    ],
)
def test_json_scalars_are_brought_to_one_spelling(sent: dict[str, Any], canonical: str) -> None:
    details = {"state": "AZ", "monthly_bill": 5, "owns_home": True, **sent}
    (name,) = sent
    assert accepted(submission(details=details)).lead.fields[name] == canonical


@pytest.mark.parametrize(
    ("source_id", "sent", "expected"),
    [
        ("sunform", None, None),
        ("sunform", 4, 4),
        ("partnerweb", None, 2),
        ("partnerweb", 3, 2),
        ("partnerweb", 1, 1),
    ],
)
def test_sales_max_is_lowered_and_never_raised(
    source_id: str, sent: int | None, expected: int | None
) -> None:
    assert accepted(submission(sales_max=sent), source_id).lead.sales_max == expected


def test_buyers_excluded_by_source_and_by_submission_add_up() -> None:
    candidate = accepted(submission(never_to=["zeta", "acme", "acme"]), "partnerweb")
    assert candidate.lead.never_to == ("acme", "gridwatt", "zeta")


def test_creation_is_the_arrival_unless_stated() -> None:
    stated_ms = RECEIVED_AT_MS - 3 * DAY_MS
    assert accepted(submission(created_at=iso_time(stated_ms))).lead.created_at_ms == stated_ms


def test_time_with_an_offset_is_that_moment() -> None:
    candidate = accepted(submission(created_at="2026-01-01T02:00:00+02:00"))
    assert candidate.lead.created_at_ms == 1_767_225_600_000


@pytest.mark.parametrize("ahead_ms", [1, CLOCK_TOLERANCE_MS])
def test_a_clock_that_is_a_little_fast_is_set_back_to_the_arrival(ahead_ms: int) -> None:
    candidate = accepted(submission(created_at=iso_time(RECEIVED_AT_MS + ahead_ms)))
    assert candidate.lead.created_at_ms == RECEIVED_AT_MS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (iso_time(RECEIVED_AT_MS + CLOCK_TOLERANCE_MS + 1), DeclineReason.FROM_THE_FUTURE),
        ("9999-12-31T23:59:59-23:59", DeclineReason.FROM_THE_FUTURE),
        ("2026-01-01T00:00:00", DeclineReason.INVALID_FIELD),
        ("2026-01-01", DeclineReason.INVALID_FIELD),
        ("1999-12-31T23:59:59Z", DeclineReason.INVALID_FIELD),
        ("0001-01-01T00:00:00+23:59", DeclineReason.INVALID_FIELD),
        ("yesterday evening", DeclineReason.INVALID_FIELD),
    ],
)
def test_declines_times_from_the_future_or_without_an_offset(text: str, reason: DeclineReason) -> None:
    assert judge(submission(created_at=text)) == Declined(reason=reason, field="created_at")


def test_consent_is_sealed_with_the_lead_and_kept_for_its_own_time() -> None:
    given = {
        "text": "I agree, says Canary",
        "at": "2026-01-01T02:00:00+02:00",
        "url": "https://canary.example",
    }
    candidate = accepted(submission(consent=given))
    expected = {**given, "at": "2026-01-01T00:00:00.000Z"}
    assert orjson.loads(candidate.details_json)["consent"] == expected
    assert candidate.consent_json is not None
    assert orjson.loads(candidate.consent_json) == expected
    assert candidate.consent_kept_until_ms == RECEIVED_AT_MS + CONSENT_KEPT_MS


def _consenting(*, to: list[str] | None = None) -> dict[str, Any]:
    return {"text": "I agree, says Canary", "at": "2026-01-01T00:00:00.000Z", "buyers": to}


def test_buyers_that_a_consent_names_bind_whether_or_not_their_type_demands_it() -> None:
    candidate = accepted(submission(consent=_consenting(to=["zeta", "acme", "acme"])))
    assert candidate.lead.consented_buyers == ("acme", "zeta")
    assert accepted(submission(consent=_consenting())).lead.consented_buyers == ()


def test_the_proof_names_the_consented_buyers_and_what_buyers_get_does_not() -> None:
    candidate = accepted(submission(consent=_consenting(to=["zeta", "acme"])))
    assert candidate.consent_json is not None
    assert orjson.loads(candidate.consent_json)["buyers"] == ["acme", "zeta"]
    assert "buyers" not in orjson.loads(candidate.details_json)["consent"]


@pytest.mark.parametrize("consent", [None, _consenting()], ids=["no consent", "to nobody by name"])
def test_declines_a_lead_whose_type_demands_consented_buyers_and_that_names_none(
    consent: dict[str, Any] | None,
) -> None:
    assert demanding(submission(consent=consent)) == Declined(
        reason=DeclineReason.MISSING_FIELD, field="consent.buyers"
    )
    named = demanding(submission(consent=_consenting(to=["acme"])))
    assert isinstance(named, Candidate)
    assert named.lead.consented_buyers == ("acme",)


def test_declines_consent_that_is_yet_to_be_given() -> None:
    at = iso_time(RECEIVED_AT_MS + CLOCK_TOLERANCE_MS + 1)
    expected = Declined(reason=DeclineReason.FROM_THE_FUTURE, field="consent.at")
    assert judge(submission(consent={"text": "I agree", "at": at})) == expected


def test_same_person_has_the_same_fingerprints_however_written() -> None:
    one = accepted(submission(contact=contact(1)))
    other = accepted(
        submission(contact={"phone": "+1 602 200 0001", "email": "CANARY1@MAIL.example"}), "partnerweb"
    )
    assert set(one.fingerprints) == set(other.fingerprints)
    assert len(one.fingerprints) == 2
    assert one.duplicate_within_ms == DUPLICATE_WITHIN_MS


def test_test_leads_keep_no_fingerprints() -> None:
    candidate = accepted(submission(is_test=True))
    assert candidate.lead.is_test
    assert candidate.fingerprints == ()
