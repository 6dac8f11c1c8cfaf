"""What counts as a submission at all, and what is said of one that doesn't: never a word of it."""

from __future__ import annotations

from typing import Any

import pytest

from services.intake.domain import Declined, DeclineReason
from services.intake.submission import (
    SUBMISSION_BYTES_MAX,
    Submission,
    Undecodable,
    read_document,
    read_submission,
)
from tests.support.submissions import submission


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"canary",
        b"[1]",
        b'"canary"',
        b"null",
        b"{",
        b'{"a": NaN}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 2_000,
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        b'{"a":"' + b"x" * SUBMISSION_BYTES_MAX + b'"}',
    ],
    ids=str,
)
def test_refuses_what_is_no_json_object_without_quoting_it(value: bytes | None) -> None:
    with pytest.raises(Undecodable) as raised:
        read_document(value)
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_same_content_has_one_canonical_spelling() -> None:
    one = read_document(b'{"b": 1, "a": {"d": "x", "c": true}}')
    other = read_document(b' {"a":{"c":true,"d":"x"},"b":1}\n')
    assert one.canonical == other.canonical
    assert one.canonical != read_document(b'{"b": 2, "a": {"d": "x", "c": true}}').canonical


def test_reads_a_submission_with_everything() -> None:
    body = submission(
        created_at="2026-09-21T15:00:00Z",
        sales_max=2,
        never_to=["acme"],
        is_test=True,
        consent={
            "text": "I agree",
            "at": "2026-09-21T15:00:00Z",
            "url": "https://x",
            "certificate": "c",
            "buyers": ["acme"],
        },
    )
    assert isinstance(read_submission(body), Submission)


def _consenting(*, to: Any) -> dict[str, Any]:
    return {"consent": {"text": "I agree", "at": "2026-09-21T15:00:00Z", "buyers": to}}


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"lead_type": None}, DeclineReason.MISSING_FIELD, "lead_type"),
        ({"contact": None}, DeclineReason.MISSING_FIELD, "contact"),
        ({"lead_type": 5}, DeclineReason.INVALID_FIELD, "lead_type"),
        ({"lead_type": "x" * 101}, DeclineReason.INVALID_FIELD, "lead_type"),
        ({"reference": ""}, DeclineReason.INVALID_FIELD, "reference"),
        ({"reference": "x" * 201}, DeclineReason.INVALID_FIELD, "reference"),
        ({"contact": ["canary"]}, DeclineReason.INVALID_FIELD, "contact"),
        ({"details": "canary"}, DeclineReason.INVALID_FIELD, "details"),
        ({"details": {f"f{n}": 1 for n in range(101)}}, DeclineReason.INVALID_FIELD, "details"),
        ({"sales_max": 0}, DeclineReason.INVALID_FIELD, "sales_max"),
        ({"sales_max": 11}, DeclineReason.INVALID_FIELD, "sales_max"),
        ({"sales_max": "2"}, DeclineReason.INVALID_FIELD, "sales_max"),
        ({"sales_max": True}, DeclineReason.INVALID_FIELD, "sales_max"),
        ({"never_to": "acme"}, DeclineReason.INVALID_FIELD, "never_to"),
        ({"never_to": ["canary", 5]}, DeclineReason.INVALID_FIELD, "never_to"),
        ({"never_to": ["b"] * 101}, DeclineReason.INVALID_FIELD, "never_to"),
        ({"is_test": "yes"}, DeclineReason.INVALID_FIELD, "is_test"),
        ({"created_at": 5}, DeclineReason.INVALID_FIELD, "created_at"),
        ({"consent": {"at": "2026-09-21T15:00:00Z"}}, DeclineReason.MISSING_FIELD, "consent.text"),
        ({"consent": {"text": "canary", "at": 1}}, DeclineReason.INVALID_FIELD, "consent.at"),
        (
            {"consent": {"text": "x" * 10_001, "at": "2026-09-21"}},
            DeclineReason.INVALID_FIELD,
            "consent.text",
        ),
        (_consenting(to=[]), DeclineReason.INVALID_FIELD, "consent.buyers"),
        (_consenting(to="canary"), DeclineReason.INVALID_FIELD, "consent.buyers"),
        (_consenting(to=["acme", 5]), DeclineReason.INVALID_FIELD, "consent.buyers"),
        (_consenting(to=["acme"] * 101), DeclineReason.INVALID_FIELD, "consent.buyers"),
        ({"canary": 1}, DeclineReason.UNKNOWN_FIELD, None),
        (
            {"consent": {"text": "x", "at": "2026-09-21T15:00:00Z", "canary@mail.example": 1}},
            DeclineReason.UNKNOWN_FIELD,
            "consent",
        ),
        ({"source_id": "canary"}, DeclineReason.UNKNOWN_FIELD, None),
    ],
)
def test_declines_another_shape_and_names_the_place_alone(
    changes: dict[str, Any], reason: DeclineReason, field: str | None
) -> None:
    declined = read_submission(submission(**changes))
    assert declined == Declined(reason=reason, field=field)
    assert "canary" not in repr(declined)
