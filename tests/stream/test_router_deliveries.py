"""Deliveries as their buyers want them, JSON or Avro: by the market of their entry, the same whenever repeated."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from services.bus.ports import Message, Unacknowledged
from services.contract.codec import codec
from services.contract.deliveries import DeliveredLead, DeliveredNotice
from services.contract.inputs import TimerDue
from services.contract.market import Deliver, Encoding, Market
from services.router import relay
from tests.support.deciding import exclusive_stage, lead, market, order, plan, shared_stage
from tests.support.routing import TOPICS, World, world

pytestmark = pytest.mark.stream

CANARY = b"canary@example.com"
BOTH = market(plan(shared_stage(4500)), orders=(order("a", shared="list"), order("b", shared="list")))
STAGGERED = market(
    plan(exclusive_stage(7000, exclusive_for_ms=60_000), shared_stage(3000)),
    orders=(order("a", exclusive="list"), order("b", shared="list")),
)


def wanting_avro(known: Market, *buyer_ids: str) -> Market:
    """The same market, in which these buyers want Avro."""
    buyers = {
        id: replace(buyer, deliver=Deliver(encoding=Encoding.AVRO if id in buyer_ids else Encoding.JSON))
        for id, buyer in known.buyers.items()
    }
    return replace(known, buyers=buyers)


def content_type(given: World, topic: str) -> set[bytes]:
    return {dict(record.headers)["content-type"] for record in given.kafka.topic(topic)}


def values(given: World, buyer_id: str) -> list[bytes]:
    return [record.value or b"" for record in given.kafka.topic(TOPICS.buyer_leads(buyer_id))]


def test_buyer_that_wants_avro_gets_it_and_the_other_json() -> None:
    given = world(wanting_avro(BOTH, "a"))
    given.send(lead("one"))
    given.worker().drain()
    (avro,), (json,) = values(given, "a"), values(given, "b")
    record = codec().decode(avro)
    assert isinstance(record, DeliveredLead)
    assert record.lead.contact == {"email": CANARY.decode()}
    assert (record.terms.holders, record.price_cents) == (2, 4_500)
    assert orjson.loads(json)["terms"]["holders"] == 2
    assert content_type(given, TOPICS.buyer_leads("a")) == {b"application/avro"}
    assert content_type(given, TOPICS.buyer_leads("b")) == {b"application/json"}


def test_receipts_and_pings_are_json_for_everybody() -> None:
    given = world(wanting_avro(BOTH, "a", "b"))
    given.send(lead("one"))
    given.worker().drain()
    assert content_type(given, TOPICS.source_receipts("sunform")) == {b"application/json"}


def test_notice_of_a_lead_that_was_delivered_in_avro_is_avro() -> None:
    given = world(wanting_avro(STAGGERED, "a"))
    given.send(lead("one"))
    given.worker().drain()
    given.clock.advance(61_000)
    given.send(TimerDue(lead_id=lead("one").lead_id, window_number=1))
    given.worker().drain()
    assert [type(codec().decode(value)) for value in values(given, "a")] == [DeliveredLead, DeliveredNotice]
    assert orjson.loads(values(given, "b")[0])["type"] == "lead"


def test_no_header_and_no_key_holds_anything_personal() -> None:
    given = world(wanting_avro(BOTH, "a"))
    given.send(lead("one"))
    given.worker().drain()
    for buyer_id in ("a", "b"):
        for record in given.kafka.topic(TOPICS.buyer_leads(buyer_id)):
            assert record.value is not None
            assert CANARY in record.value
            assert all(CANARY not in value for _, value in record.headers)
            assert record.key == lead("one").lead_id.encode()


def _sent_before_and_after_a_change(given: World, after: Market) -> list[bytes]:
    """Let a delivery reach its topic with the acknowledgement lost; the market changes; it is sent again."""
    sent: list[bytes] = []

    def lose_acknowledgement(message: Message) -> Unacknowledged | None:
        if message.topic != TOPICS.buyer_leads("a"):
            return None
        sent.append(message.value or b"")
        return Unacknowledged(0, None, "silent")

    given.refuses = lose_acknowledgement
    given.send(lead("one"))
    given.worker().drain()
    given.earlier[1], given.market = given.market, replace(after, version=2)
    given.refuses = lambda _: None
    host = given.worker()
    for _ in range(5):
        given.clock.advance(20_000)
        host.turn()
    return [*sent[:1], *values(given, "a")]


@pytest.mark.parametrize(("before", "after"), [((), ("a",)), (("a",), ())], ids=["to Avro", "to JSON"])
def test_repeat_has_the_same_bytes_whatever_the_buyer_wants_by_now(
    before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    first, again = _sent_before_and_after_a_change(
        world(wanting_avro(BOTH, *before)), wanting_avro(BOTH, *after)
    )
    assert first == again


def test_planted_encoding_by_the_market_of_today_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    given = world(wanting_avro(BOTH, "a"))
    honest = relay.Relay._value

    def by_today(self: relay.Relay, entry: object, *rest: object) -> tuple[bytes, bytes]:
        return honest(self, replace(entry, market_version=given.market.version), *rest)  # type: ignore[arg-type, type-var]  # it is an Entry

    monkeypatch.setattr(relay.Relay, "_value", by_today)
    first, again = _sent_before_and_after_a_change(given, wanting_avro(BOTH))
    assert first != again
