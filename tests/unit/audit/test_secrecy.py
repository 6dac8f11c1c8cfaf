"""Guarantee 6 in the topics: what is found, where it is said to be, and what is nobody's affair."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from services.audit.secrecy import Secrecy, SecrecyRule
from services.audit.traces import Traces
from services.audit.violations import Violation
from services.bus.ports import Record
from services.contract.codec import codec
from services.contract.inputs import QualifiedLead
from services.contract.market import LeadType, Market
from services.contract.topics import Topics

TOPICS = Topics("t.")
LEAD = "5d0e9a4b-d1a0-5c3b-8e81-2f0d6a5b6c1f"
ADDRESS = "ann@example.com"
MARKET = Market(
    version=1,
    currency="USD",
    timezone="UTC",
    lead_types={
        "solar": LeadType(name="solar", contact=("email",), details={}, ping=("state",), plans=()),
    },
)
QUALIFIED = QualifiedLead(
    lead_id=LEAD,
    source_id="web",
    lead_type="solar",
    fields={"state": "NY"},
    quality=1,
    sales_max=None,
    never_to=(),
    created_at_ms=1,
    received_at_ms=1,
    market_version=1,
    is_test=False,
)


def _market(version: int) -> Market:
    return {1: MARKET}[version]


def _found(*records: Record, traces: Traces | None = None) -> list[Violation]:
    found: list[Violation] = []
    secrecy = Secrecy(markets=_market, topics=TOPICS, traces=traces or Traces(), report=found.append)
    secrecy.take(records)
    return found


def _record(
    topic: str, value: bytes, *, key: str = LEAD, headers: tuple[tuple[str, bytes], ...] = ()
) -> Record:
    return Record(topic, 3, 17, key.encode(), value, headers, 0)


@pytest.mark.parametrize(
    "topic",
    [TOPICS.qualified, TOPICS.commands, TOPICS.timers, TOPICS.log, TOPICS.events, TOPICS.buyer_pings("bob")],
)
def test_details_in_a_value_are_found_and_said_by_their_place_alone(topic: str) -> None:
    (violation,) = _found(_record(topic, f"to {ADDRESS}".encode()))
    assert violation.rule == SecrecyRule.NO_DETAILS_IN_TOPICS
    assert violation.guarantee == 6
    assert violation.lead_id == LEAD
    assert [str(where) for where in violation.where] == [f"{topic} partition 3, offset 17"]
    assert ADDRESS not in repr(violation)


@pytest.mark.parametrize(
    "topic", [TOPICS.log, TOPICS.buyer_leads("bob"), TOPICS.source_receipts("web"), TOPICS.buyer_pings("bob")]
)
def test_details_in_a_key_or_a_header_are_found_in_any_topic(topic: str) -> None:
    assert _found(_record(topic, b"", key=ADDRESS))
    assert ADDRESS not in repr(_found(_record(topic, b"", key=ADDRESS)))
    assert _found(_record(topic, b"", headers=(("ce_subject", ADDRESS.encode()),)))


def test_a_buyer_s_delivery_may_hold_them() -> None:
    assert not _found(_record(TOPICS.buyer_leads("bob"), ADDRESS.encode()))


def test_a_receipt_may_hold_the_source_s_own_reference_and_nothing_else() -> None:
    topic = TOPICS.source_receipts("web")
    assert not _found(_record(topic, orjson.dumps({"reference": ADDRESS})))
    assert _found(_record(topic, orjson.dumps({"reference": ADDRESS, "happened": [ADDRESS]})))


def test_a_dead_letter_is_its_source_s_but_for_what_intake_says_of_it() -> None:
    topic = TOPICS.dead_letters(TOPICS.source_leads("web"))
    assert not _found(_record(topic, ADDRESS.encode(), key=ADDRESS, headers=(("mine", ADDRESS.encode()),)))
    assert _found(_record(topic, b"", headers=(("dlq.errors.exception.message", ADDRESS.encode()),)))


def test_a_canary_is_found_in_one_record_of_many() -> None:
    records = [_record(TOPICS.events, b"nothing")] * 50 + [_record(TOPICS.events, b"a canary-1", key="other")]
    (violation,) = _found(*records, traces=Traces(canaries=(b"canary",)))
    assert violation.lead_id == "other"


def test_a_delivered_lead_s_details_are_looked_for_in_what_is_said_about_it() -> None:
    found: list[Violation] = []
    secrecy = Secrecy(markets=_market, topics=TOPICS, traces=Traces(), report=found.append)
    lead = {"type": "lead", "lead_id": LEAD, "lead": {"contact": {"street": "12 Oak Street"}}}
    secrecy.learn([_record(TOPICS.buyer_leads("bob"), orjson.dumps(lead))])
    secrecy.take([_record(TOPICS.log, b"12 Oak Street", key="other"), _record(TOPICS.log, b"12 Oak Street")])
    assert [violation.lead_id for violation in found] == [LEAD]


@pytest.mark.parametrize(
    ("lead", "broken"),
    [
        (QUALIFIED, 0),
        (replace(QUALIFIED, fields={"state": "NY", "roof": "flat"}), 1),
        (replace(QUALIFIED, market_version=2), 1),
        (replace(QUALIFIED, lead_type="other"), 1),
    ],
)
def test_an_accepted_lead_shows_declared_fields_alone(lead: QualifiedLead, broken: int) -> None:
    found = _found(_record(TOPICS.qualified, codec().encode(lead)))
    assert [violation.rule for violation in found] == [SecrecyRule.DECLARED_FIELDS_ALONE] * broken
