"""The published schemas of what sources and buyers write and read say exactly what the code does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from services.contract.codec import SCHEMAS, codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry
from services.contract.events import (
    AuctionEnd,
    BidOutcome,
    Disposition,
    Event,
    FailureReason,
    LeadClosed,
    LeadSold,
    MoneyKind,
    NoBidReason,
    Outcome,
    RefusalReason,
    RejectionReason,
    ReturnReason,
    ReturnRefusal,
    VoidReason,
)
from services.contract.market import Mode, Selection
from services.intake.answers import (
    _ANSWER,
    ANSWER_BYTES_MAX,
    AUCTION_NUMBER_MAX,
    OFFER_NUMBER_MAX,
    PRICE_PATTERN,
    read_answer,
)
from services.intake.domain import Declined, DeclineReason, Identity, Origin, Repeated
from services.intake.receipts import receipt_json
from services.intake.submission import SUBMISSION_BYTES_MAX, Submission, Undecodable, read_submission
from services.router.messages import Channel, react
from tests.support.submissions import submission
from tests.support.telling import validators

NAMES = (
    *("submission", "answer", "receipt", "lead", "notice", "upgraded"),
    *("offer", "ping", "auction_result", "bid_void", "return", "limit_reached", "account"),
)
LEAD = "7e57ab1e-0000-5000-8000-000000000001"
AT_MS = 1_790_000_000_000
LIMITS = ("minLength", "maxLength", "minimum", "maximum", "maxItems", "maxProperties", "required")


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SCHEMAS / "json" / f"{name}.schema.json").read_text())
    return loaded


def errors(name: str, instance: Any) -> Sequence[ValidationError]:
    validator = Draft202012Validator(schema(name), format_checker=Draft202012Validator.FORMAT_CHECKER)
    return list(validator.iter_errors(instance))


@pytest.mark.parametrize("name", NAMES)
def test_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


def test_every_schema_is_one_of_these() -> None:
    names = {path.name.removesuffix(".schema.json") for path in (SCHEMAS / "json").iterdir()}
    assert names == set(NAMES)


def generated(fragment: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Leave of pydantic's schema what limits a value: references resolved, the null of an optional left out."""
    options = [option for option in fragment.get("anyOf", [fragment]) if option != {"type": "null"}]
    (only,) = options
    if "$ref" in only:
        only = definitions[only["$ref"].rpartition("/")[2]]
    return {
        **{name: only[name] for name in (*LIMITS, "type") if name in only},
        "properties": {
            name: generated(each, definitions) for name, each in only.get("properties", {}).items()
        },
        "items": generated(only["items"], definitions) if "items" in only else None,
    }


def published(fragment: dict[str, Any]) -> dict[str, Any]:
    """Leave of a published schema what `generated` leaves of the model's."""
    kinds = fragment["type"] if isinstance(fragment["type"], list) else [fragment["type"]]
    (kind,) = [kind for kind in kinds if kind != "null"]
    return {
        **{name: fragment[name] for name in LIMITS if name in fragment},
        "type": kind,
        "properties": {name: published(each) for name, each in fragment.get("properties", {}).items()},
        "items": published(fragment["items"]) if "items" in fragment else None,
    }


def test_submission_has_the_models_fields_types_and_limits() -> None:
    model = Submission.model_json_schema()
    assert published(schema("submission")) == generated(model, model["$defs"])
    assert f"{SUBMISSION_BYTES_MAX:,} bytes" in schema("submission")["description"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reference": None, "details": None},
        {"sales_max": 10, "never_to": ["a"], "is_test": True, "created_at": "2026-09-21T15:00:00Z"},
        {"consent": {"text": "I agree", "at": "2026-09-21T15:00:00Z", "url": None, "certificate": "c"}},
        {"consent": {"text": "I agree", "at": "2026-09-21T15:00:00Z", "buyers": ["acme"]}},
        {"consent": {"text": "I agree", "at": "2026-09-21T15:00:00Z", "buyers": None}},
    ],
)
def test_submission_that_the_schema_allows_is_read(changes: dict[str, Any]) -> None:
    body = submission(**changes)
    assert not errors("submission", body)
    assert isinstance(read_submission(body), Submission)


@pytest.mark.parametrize(
    "changes",
    [
        {"contact": None},
        {"source_id": "other"},
        {"sales_max": 11},
        {"sales_max": True},
        {"never_to": None, "is_test": "yes"},
        {"consent": {"text": "I agree"}},
        {"consent": {"text": "I agree", "at": "2026-09-21T15:00:00Z", "note": ""}},
        {"consent": {"text": "I agree", "at": "2026-09-21T15:00:00Z", "buyers": []}},
    ],
)
def test_submission_that_the_schema_forbids_is_declined(changes: dict[str, Any]) -> None:
    body = submission(**changes)
    assert errors("submission", body)
    assert isinstance(read_submission(body), Declined)


def answers() -> list[dict[str, Any]]:
    offer = {"lead_id": LEAD, "offer_number": OFFER_NUMBER_MAX}
    auction = {"lead_id": LEAD, "auction_number": AUCTION_NUMBER_MAX}
    return [
        {"type": "accept_offer", **offer},
        *({"type": "reject_offer", **offer, "reason": reason} for reason in RejectionReason),
        *({"type": "disposition", "lead_id": LEAD, "disposition": each} for each in Disposition),
        {"type": "bid", **auction, "exclusive": "85.00", "shared": "34"},
        {"type": "bid", **auction, "exclusive": None, "shared": "1000000.00"},
        {"type": "bid", **auction, "exclusive": "0.01"},
        *({"type": "no_bid", **auction, "reason": reason} for reason in NoBidReason),
        {"type": "upgrade", "lead_id": LEAD},
        *({"type": "return", "lead_id": LEAD, "reason": reason} for reason in ReturnReason),
    ]


@pytest.mark.parametrize("answer", answers(), ids=str)
def test_every_answer_that_is_read_is_in_the_schema(answer: dict[str, Any]) -> None:
    assert not errors("answer", answer)
    read_answer(orjson.dumps(answer), buyer_id="acme", answered_at_ms=AT_MS)


@pytest.mark.parametrize("answer", answers(), ids=str)
@pytest.mark.parametrize(
    "change",
    [
        {"type": "other"},
        {"lead_id": "x"},
        {"offer_number": 0},
        {"reason": "x"},
        {"disposition": "x"},
        {"auction_number": 0},
        {"exclusive": 85.0},
        {"shared": "0.00"},
        {"exclusive": None, "shared": None},
        {"n": 1},
    ],
    ids=str,
)
def test_no_other_answer_is_in_the_schema_or_read(answer: dict[str, Any], change: dict[str, Any]) -> None:
    changed = {**answer, **change}
    assert errors("answer", changed)
    with pytest.raises(Undecodable):
        read_answer(orjson.dumps(changed), buyer_id="acme", answered_at_ms=AT_MS)


def test_prices_of_the_schema_are_those_of_the_door() -> None:
    assert schema("answer")["$defs"]["price_or_null"]["pattern"] == PRICE_PATTERN


def test_answers_of_the_schema_are_those_of_the_model() -> None:
    kinds = {each["properties"]["type"]["const"] for each in schema("answer")["oneOf"]}
    assert kinds == set(_ANSWER.json_schema()["discriminator"]["mapping"])
    assert f"{ANSWER_BYTES_MAX:,} bytes" in schema("answer")["description"]


IDENTITY = Identity(
    lead_id=LEAD,
    source_id="sunform",
    origin=Origin(partition=0, offset=0),
    payload_hash=bytes(32),
    reference="ref-1",
    received_at_ms=AT_MS,
)


@pytest.mark.parametrize("reason", DeclineReason)
@pytest.mark.parametrize("field", [None, "zip"])
def test_every_receipt_of_intake_is_in_the_schema(reason: DeclineReason, field: str | None) -> None:
    assert not errors("receipt", orjson.loads(receipt_json(IDENTITY, Declined(reason=reason, field=field))))
    assert not errors("receipt", orjson.loads(receipt_json(IDENTITY, Repeated())))


def test_schema_names_no_reason_that_does_not_exist() -> None:
    declined = schema("receipt")["$defs"]["declined"]
    assert set(declined["properties"]["reason"]["enum"]) == set(DeclineReason)
    closed = schema("receipt")["$defs"]["closed"]
    assert set(closed["properties"]["outcome"]["enum"]) == set(Outcome)


SOLD = LeadSold(
    sale_number=1,
    sale_id=str(UUID(int=1)),
    buyer_id="acme",
    order_id="acme/all",
    source_id="sunform",
    lead_type="solar",
    plan="alone",
    stage=0,
    mode=Mode.SHARED,
    price_cents=4_500,
    currency="USD",
    sales_max=3,
    exclusive_until_ms=None,
    others_may_follow=True,
    others_from_ms=None,
    holders=(),
    held_since_ms=None,
    offer_number=None,
    quality=80,
    created_at_ms=AT_MS,
    is_test=False,
)


def closed(outcome: Outcome) -> LeadClosed:
    return LeadClosed(
        outcome=outcome,
        source_id="sunform",
        lead_type="solar",
        plan="alone",
        holders=("acme",),
        is_test=False,
    )


@pytest.mark.parametrize("events", [(SOLD,), *((SOLD, closed(outcome)) for outcome in Outcome)], ids=len)
def test_every_receipt_of_the_router_is_in_the_schema(events: tuple[Event, ...]) -> None:
    entry = Entry(
        seq=1,
        prev_hash=GENESIS_HASH,
        cause=Cause(kind=CauseKind.QUALIFIED, offset=0),
        market_version=1,
        no_room=(),
        lead_id=LEAD,
        decided_at_ms=AT_MS,
        events=tuple(codec().encode_body(event) for event in events),
    )
    told = [each for each in react(entry, events, 3) if each.channel is Channel.SOURCE_RECEIPTS]
    assert len(told) == 1
    assert not errors("receipt", orjson.loads(orjson.dumps(told[0].body)))


def words_of(type: str, key: str) -> set[str]:
    """Read which words a published record may say under a key."""
    return set(validators()[type].schema["properties"][key]["enum"])  # type: ignore[index]  # a dict


NOT_TOLD_TO_BUYERS = {
    RefusalReason.UNKNOWN_BUYER,
    RefusalReason.WRONG_CURRENCY,
    RefusalReason.RETURN_NOT_ASKED,
}


@pytest.mark.parametrize(
    ("type", "key", "words"),
    [
        ("ping", "selection", {*Selection} - {Selection.DIRECT}),
        ("auction_result", "ended_by", {*AuctionEnd}),
        ("auction_result", "outcome", {*BidOutcome, "no_answer"} - {BidOutcome.WON}),
        ("auction_result", "mode", {*Mode, None}),
        ("bid_void", "reason", {*VoidReason}),
        ("return_pending", "reason", {*ReturnReason}),
        ("return_refused", "reason", {*ReturnRefusal}),
        ("account", "kind", {*MoneyKind}),
        ("delivery_failed", "reason", {*FailureReason}),
        ("refused", "reason", {*RefusalReason} - NOT_TOLD_TO_BUYERS),
    ],
)
def test_schema_names_the_words_of_the_code_and_no_others(type: str, key: str, words: set[str]) -> None:
    assert words_of(type, key) == words


def test_upgrade_has_the_terms_of_a_delivery() -> None:
    """One reader of terms serves both."""
    terms = [validators()[type].schema["properties"]["terms"] for type in ("lead", "upgraded")]  # type: ignore[index]  # dicts
    assert terms[0]["required"] == terms[1]["required"] == list(terms[0]["properties"])
    assert terms[0]["properties"].keys() == terms[1]["properties"].keys()


def test_every_type_of_record_is_in_one_schema_alone() -> None:
    """A reader finds the schema by what a record says of its type."""
    types = [
        one["properties"]["type"]["const"]
        for name in NAMES
        if name not in ("submission", "answer")
        for one in schema(name).get("oneOf", [schema(name)])
    ]
    assert sorted(types) == sorted(validators())
