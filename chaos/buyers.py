"""All buyers of the campaign's market in one thread: they read, bid, accept, upgrade, report, return and erase.

What each answers is drawn from the lead's id, so that it is the same each time. Brokers that are away are waited for.
"""

from __future__ import annotations

import hashlib
import heapq
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from services.contract.ids import draw
from services.contract.topics import Topics

_POLL_S = 0.05
_POLL_RECORDS = 500
_PATIENCE_MS = 60_000
_FLUSH_WITHIN_S = 30.0
_BID_WINDOW_MS = 2_000
_TRANSIENT = (KafkaError._PARTITION_EOF, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


@dataclass(frozen=True, slots=True)
class Thought:
    """An answer, and after how long it is given."""

    answer: dict[str, Any]
    after_s: float = 0.0


def answer_to(buyer_id: str, body: Mapping[str, Any]) -> Thought | None:
    """Say what a buyer answers to a record; None: nothing."""
    match body["type"]:
        case "ping":
            return _bid(buyer_id, body)
        case "offer":
            return _answer_to_offer(body["lead_id"], body["offer_number"])
        case "lead":
            return _report_of(body)
        case "notice":
            return _acknowledgement_of(buyer_id, body)
    return None


def _acknowledgement_of(buyer_id: str, notice: Mapping[str, Any]) -> Thought | None:
    """Say that a lead is erased, where that was asked for; one in five does not."""
    is_asked = any(happened["type"] == "erasure" for happened in notice["happened"])
    if not is_asked or draw(notice["lead_id"], buyer_id, "erased") % 5 == 0:
        return None
    return Thought({"type": "erased", "lead_id": notice["lead_id"]})


def _bid(buyer_id: str, ping: Mapping[str, Any]) -> Thought | None:
    drawn = draw(ping["lead_id"], buyer_id)
    about = {"lead_id": ping["lead_id"], "auction_number": ping["auction_number"]}
    if buyer_id == "silent":
        return None
    if drawn % 10 == 0:
        return Thought({"type": "no_bid", **about, "reason": "capacity"})
    high = {"keen": 100, "slow": 90, "calm": 35}[buyer_id]
    prices = {
        mode: f"{(high if mode == 'exclusive' else high // 3) - drawn // 10 % 20}.50"
        for mode in ping["modes"]
    }
    after_ms = drawn // 200 % (2 * _BID_WINDOW_MS) if buyer_id == "slow" else 0
    return Thought({"type": "bid", **about, **prices}, after_ms / 1_000)


def _answer_to_offer(lead_id: str, offer_number: int) -> Thought | None:
    drawn = draw(lead_id, "offer", str(offer_number)) % 100
    about = {"lead_id": lead_id, "offer_number": offer_number}
    if drawn < 60:
        return Thought({"type": "accept_offer", **about})
    if drawn < 80:
        return Thought({"type": "reject_offer", **about, "reason": "capacity"})
    return None


def _report_of(lead: Mapping[str, Any]) -> Thought | None:
    lead_id, terms = lead["lead_id"], lead["terms"]
    drawn = draw(lead_id, "report", str(terms["sale_number"])) % 100
    if terms["upgrade"] is not None and drawn < 40:
        return Thought({"type": "upgrade", "lead_id": lead_id})
    if terms["exclusive_until"] is not None and drawn < 15:
        return Thought({"type": "disposition", "lead_id": lead_id, "disposition": "deal"})
    if lead["lead_type"] == "upgraded" and drawn >= 80:
        return Thought({"type": "return", "lead_id": lead_id, "reason": "invalid_contact"}, 1.5)
    if drawn >= 97:
        return Thought({"type": "disposition", "lead_id": lead_id, "disposition": "contacted"})
    return None


@dataclass(slots=True, kw_only=True)
class Buyers:
    """Everybody who buys. `heard` counts records by their type, `repeats` those that had come before."""

    kafka: str
    topics: Topics
    buyers: Sequence[str]
    over: threading.Event
    heard: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    answers_lost: int = 0
    repeats: int = 0
    _had: set[bytes] = field(default_factory=set)
    _later: list[tuple[float, int, str, bytes]] = field(default_factory=list)

    @property
    def has_more_to_say(self) -> bool:
        """Tell whether an answer waits for its time."""
        return bool(self._later)

    def run(self) -> None:
        """Listen and answer until `over`."""
        consumer, producer = self._consumer(), self._producer()
        try:
            while not self.over.is_set():
                for message in consumer.consume(_POLL_RECORDS, _POLL_S):
                    self._take(message)
                for topic, value in self._due():
                    self._send(producer, topic, value)
                producer.poll(0)
        finally:
            consumer.close()
            producer.flush(_FLUSH_WITHIN_S)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.code() in _TRANSIENT or error.retriable():
                return
            raise KafkaException(error)
        topic, value = message.topic(), message.value()
        assert topic is not None
        assert value is not None
        owner = self.topics.owner_of(topic)
        assert owner is not None, "only buyers' topics are read"
        self._count_repeat(message)
        body = orjson.loads(value)
        self.heard[body["type"]] += 1
        thought = answer_to(owner[1], body)
        if thought is not None:
            due_s = time.monotonic() + thought.after_s
            self.answers += 1
            item = (due_s, self.answers, self.topics.buyer_answers(owner[1]), orjson.dumps(thought.answer))
            heapq.heappush(self._later, item)

    def _count_repeat(self, message: Message) -> None:
        """Know a record that comes again by its `ce_id`."""
        headers = dict(message.headers() or ())
        name = f"{message.topic()} {headers.get('ce_id')!r}".encode()
        digest = hashlib.blake2b(name, digest_size=12).digest()
        self.repeats += digest in self._had
        self._had.add(digest)

    def _due(self) -> Iterator[tuple[str, bytes]]:
        while self._later and self._later[0][0] <= time.monotonic():
            _, _, topic, value = heapq.heappop(self._later)
            yield topic, value

    def _send(self, producer: Producer, topic: str, value: bytes) -> None:
        def note(error: KafkaError | None, _: Message) -> None:
            self.answers_lost += error is not None

        producer.produce(topic, value, on_delivery=note)

    def _consumer(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "log_level": 0,
                "group.id": "chaos-buyers",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        read = [
            TopicPartition(topic, 0, OFFSET_BEGINNING)
            for buyer in self.buyers
            for topic in (self.topics.buyer_pings(buyer), self.topics.buyer_leads(buyer))
        ]
        consumer.assign(read)
        return consumer

    def _producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.kafka,
                "log_level": 0,
                "enable.idempotence": True,
                "message.timeout.ms": _PATIENCE_MS,
                "linger.ms": 2,
            }
        )
