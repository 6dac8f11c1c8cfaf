"""Guarantee 6 in the topics: what is found, where it is said to be, and what is nobody's affair."""

from __future__ import annotations

import json
from dataclasses import replace

import orjson
import pytest

from services.audit.secrecy import Secrecy, SecrecyRule
from services.audit.traces import Traces
from services.audit.violations import Violation
from services.bus.ports import Record
from services.contract.codec import SCHEMAS, codec
from services.contract.deliveries import DeliveredUpgrade
from services.contract.inputs import QualifiedLead
from services.contract.market import LeadType, Market
from services.contract.topics import Topics
from tests.support.records import of_json

TOPICS = Topics("t.")
LEAD = "5d0e9a4b-d1a0-5c3b-8e81-2f0d6a5b6c1f"
OTHER = "8a1b9a4b-d1a0-5c3b-8e81-2f0d6a5b6c1f"
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

DELIVERY = orjson.dumps(
    {
        "type": "lead",
        "lead_id": LEAD,
        "log": {"partition": 1, "seq": 2},
        "lead": {"contact": {"first_name": "Maria", "street": "12 Oak Street"}},
    }
)
UPGRADE = of_json(
    DeliveredUpgrade,
    json.loads((SCHEMAS / "examples" / "DeliveredUpgrade.json").read_text()) | {"lead_id": LEAD},
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
    [
        *(TOPICS.qualified, TOPICS.commands, TOPICS.timers, TOPICS.log, TOPICS.events, TOPICS.registry),
        TOPICS.buyer_pings("bob"),
        *("t.debug", "t.buyers.bob.copies", "t.buyers.bob.leads.dlq"),  # declared by nobody
    ],
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


def test_a_delivery_is_no_dead_letter_unless_intake_put_it_there() -> None:
    """A buyer may send back what it bought, as an answer that nobody can read."""
    topic = TOPICS.dead_letters(TOPICS.buyer_answers("bob"))
    letter = (("dlq.errors.topic", TOPICS.buyer_answers("bob").encode()),)
    (violation,) = _found(_record(topic, DELIVERY))
    assert (violation.rule, violation.lead_id) == (SecrecyRule.NO_DETAILS_IN_TOPICS, LEAD)
    assert not _found(_record(topic, DELIVERY, headers=letter))
    assert not _found(_record(topic, b'{"lead":{"contact":{}}}'))


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        (TOPICS.buyer_leads("bob"), DELIVERY),
        (TOPICS.buyer_leads("bob"), codec().encode(UPGRADE)),
        (TOPICS.buyer_pings("bob"), orjson.dumps({"lead_id": LEAD})),
        (TOPICS.buyer_pings("bob"), orjson.dumps({"account_id": LEAD, "type": "account"})),
        (TOPICS.source_receipts("web"), orjson.dumps({"type": "receipt", "lead_id": LEAD})),
        (TOPICS.source_receipts("web"), orjson.dumps({"type": "receipt", "lead_id": LEAD, "reference": "r"})),
    ],
)
def test_the_key_is_the_lead_or_account_that_a_record_is_about(topic: str, value: bytes) -> None:
    assert not _found(_record(topic, value))
    for key in ("Maria", OTHER, ""):
        (violation,) = _found(_record(topic, value, key=key))
        assert (violation.rule, violation.guarantee, violation.lead_id) == ("keys_are_ids", 6, LEAD)


@pytest.mark.parametrize("topic", [TOPICS.qualified, TOPICS.commands, TOPICS.timers, TOPICS.events])
def test_a_key_inside_has_the_form_of_an_id_and_is_not_said_else(topic: str) -> None:
    assert not _found(_record(topic, b""))
    (violation,) = _found(_record(topic, b"", key="Maria Lindqvist"))
    assert (violation.rule, violation.lead_id) == ("keys_are_ids", None)


def test_an_announcement_has_no_key() -> None:
    assert not _found(_record(TOPICS.registry, b"", key=""))


def test_a_wrong_key_does_not_hide_details_in_a_header() -> None:
    headers = (("note", b"12 Oak Street"),)
    found: list[Violation] = []
    secrecy = Secrecy(markets=_market, topics=TOPICS, traces=Traces(), report=found.append)
    delivery = _record(TOPICS.buyer_leads("bob"), DELIVERY, key="Maria", headers=headers)
    secrecy.learn([delivery])
    secrecy.take([delivery])
    assert [violation.what for violation in found if violation.rule == "no_details_in_topics"] == [
        "contact details in a header"
    ]


@pytest.mark.parametrize("value", [b'{"lead":"none"}', b"[" * 100_000])
def test_what_is_no_delivery_teaches_nothing_and_ends_nothing(value: bytes) -> None:
    traces = Traces()
    Secrecy(markets=_market, topics=TOPICS, traces=traces, report=lambda _: None).learn(
        [_record(TOPICS.buyer_leads("bob"), value)]
    )
    assert not traces.persons


def test_a_canary_is_found_in_one_record_of_many() -> None:
    records = [_record(TOPICS.events, b"nothing")] * 50 + [_record(TOPICS.events, b"a canary-1", key=OTHER)]
    (violation,) = _found(*records, traces=Traces(canaries=(b"canary",)))
    assert violation.lead_id == OTHER


def test_a_delivered_lead_s_details_are_looked_for_in_what_is_said_about_it() -> None:
    found: list[Violation] = []
    secrecy = Secrecy(markets=_market, topics=TOPICS, traces=Traces(), report=found.append)
    lead = {"type": "lead", "lead_id": LEAD, "lead": {"contact": {"street": "12 Oak Street"}}}
    secrecy.learn([_record(TOPICS.buyer_leads("bob"), orjson.dumps(lead))])
    secrecy.take([_record(TOPICS.log, b"12 Oak Street", key=OTHER), _record(TOPICS.log, b"12 Oak Street")])
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
