"""What a source is told: the lead, its own reference, and a machine's reason."""

from __future__ import annotations

import orjson
import pytest

from services.intake.domain import Declined, DeclineReason, Identity, Origin, Repeated, Replayed, Verdict
from services.intake.receipts import receipt_headers, receipt_json

IDENTITY = Identity(
    lead_id="lead",
    source_id="sunform",
    origin=Origin(partition=2, offset=41),
    payload_hash=bytes(32),
    reference="ref-1",
    received_at_ms=1_790_000_000_000,
)


@pytest.mark.parametrize(
    ("verdict", "happened"),
    [
        (Replayed(b"record"), {"type": "accepted"}),
        (Repeated(), {"type": "accepted"}),
        (Declined(reason=DeclineReason.DUPLICATE), {"type": "declined", "reason": "duplicate"}),
        (
            Declined(reason=DeclineReason.INVALID_FIELD, field="zip"),
            {"type": "declined", "reason": "invalid_field", "field": "zip"},
        ),
    ],
)
def test_tells_what_happened(verdict: Verdict, happened: dict[str, str]) -> None:
    assert orjson.loads(receipt_json(IDENTITY, verdict)) == {
        "type": "receipt",
        "lead_id": "lead",
        "reference": "ref-1",
        "at": "2026-09-21T14:13:20.000Z",
        "happened": [happened],
    }


def test_replay_gets_the_same_receipt_as_the_first_time() -> None:
    first, replayed = Repeated(), Replayed(b"record")
    assert receipt_json(IDENTITY, first) == receipt_json(IDENTITY, replayed)
    assert receipt_headers(IDENTITY, first) == receipt_headers(IDENTITY, replayed)


def test_receipt_is_named_by_the_record_that_it_answers_and_its_answer() -> None:
    accepted = dict(receipt_headers(IDENTITY, Repeated()))
    declined = dict(receipt_headers(IDENTITY, Declined(reason=DeclineReason.DUPLICATE)))
    assert accepted["ce_id"] == b"2:41:accepted"
    assert declined["ce_id"] == b"2:41:declined"
    assert accepted["ce_type"] == b"gavel.receipt.v1"
