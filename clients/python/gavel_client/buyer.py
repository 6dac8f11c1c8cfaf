"""A buyer's side: the leads that it bought, each once, and its answers."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

from kafka import KafkaProducer

from gavel_client.consuming import consumer_of
from gavel_client.seen import MemorySeen, Seen

_POLL_MS = 500
_AVRO = b"\x00"
"""How Avro in Confluent's frame begins, and no JSON."""


class AvroRecord(Exception):
    """The topic has Avro, because the market delivers to this buyer so: this reader reads JSON. Nothing is skipped."""

    def __init__(self, topic: str, offset: int) -> None:
        """Say where, and what can be done about it."""
        super().__init__(
            f"{topic} has Avro at offset {offset}, and this reader reads JSON: have Gavel's operator set "
            "deliver: {kafka: json}, or read the topic with an Avro deserializer and the gateway as schema registry"
        )


@dataclass(frozen=True)
class PurchasedLead:
    """A lead that the buyer bought: who it is, and what was promised about it. `body` is the whole record."""

    sale_id: str
    lead_id: str
    lead_type: str
    price: str
    currency: str
    terms: Mapping[str, Any]
    promise: str
    contact: Mapping[str, str]
    details: Mapping[str, str]
    is_test: bool
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Erasure:
    """A lead that its holders are to erase by `acknowledge_by`: its person asked for that, or revoked its consent.

    `reason` is erased or revoked. `body` is the whole notice.
    """

    lead_id: str
    reason: str
    acknowledge_by: datetime
    body: Mapping[str, Any]


class LeadReader:
    """Reads `buyers.<id>.leads`: iterate over it. The loop has finished with a lead when it comes back for more.

    What it has not finished with comes again, in a later loop or after a crash, and nothing is skipped; the position
    moves with each batch, so `seen` drops what of the last one the loop had finished with.
    """

    def __init__(
        self,
        buyer_id: str,
        *,
        servers: str,
        namespace: str = "",
        seen: Seen | None = None,
        on_other: Callable[[Mapping[str, Any]], None] | None = None,
        on_erasure: Callable[[Erasure], None] | None = None,
        group: str | None = None,
        **kafka: Any,
    ) -> None:
        """Connect. `on_other` is given what is no delivery: notices and upgrades.

        `on_erasure` is given each erasure that a notice asks for: it erases the lead and acknowledges that
        (`Answers.erased`). Where it raises, the loop does, and the notice comes again; it may come twice otherwise too.
        """
        topic = f"{namespace}buyers.{buyer_id}.leads"
        self._seen = MemorySeen() if seen is None else seen
        self._on_other = on_other
        self._on_erasure = on_erasure
        self._pending: deque[Any] = deque()
        self._consumer = consumer_of(
            topic,
            bootstrap_servers=servers,
            group_id=group or f"{topic}.reader",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **kafka,
        )

    def __iter__(self) -> Iterator[PurchasedLead]:
        """Give each lead once, for ever."""
        while True:
            yield from self.poll()

    def poll(self, timeout_ms: int = _POLL_MS) -> Iterator[PurchasedLead]:
        """Give what is there now, waiting for `timeout_ms` at most; the position moves after the last of it.

        What an earlier loop was given and left unfinished comes first. Raise `AvroRecord`.
        """
        if not self._pending:
            for records in self._consumer.poll(timeout_ms=timeout_ms).values():
                self._pending += records
        if not self._pending:
            return
        while self._pending:
            body = _read(self._pending[0])
            if body["type"] != "lead":
                self._tell(body)
            elif not self._seen.has(body["sale_id"]):
                yield _purchased(body)
                self._seen.add(body["sale_id"])
            self._pending.popleft()
        self._consumer.commit()

    def _tell(self, body: Mapping[str, Any]) -> None:
        if self._on_erasure is not None:
            for erasure in _erasures(body):
                self._on_erasure(erasure)
        if self._on_other is not None:
            self._on_other(body)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def __enter__(self) -> LeadReader:
        """Be used in a `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self.close()


class Answers:
    """Writes to `buyers.<id>.answers`; every call returns once Kafka has the answer."""

    def __init__(self, buyer_id: str, *, servers: str, namespace: str = "", **kafka: Any) -> None:
        """Connect."""
        self._topic = f"{namespace}buyers.{buyer_id}.answers"
        self._producer = KafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=0, **kafka)

    def accept(self, lead_id: str, offer_number: int) -> None:
        """Take a lead at the terms of an offer."""
        self.send({"type": "accept_offer", "lead_id": lead_id, "offer_number": offer_number})

    def report(self, lead_id: str, disposition: str) -> None:
        """Tell what became of a lead: contacted, deal or no_deal."""
        self.send({"type": "disposition", "lead_id": lead_id, "disposition": disposition})

    def upgrade(self, lead_id: str) -> None:
        """Have a shared lead to yourself, for the fee that its delivery names."""
        self.send({"type": "upgrade", "lead_id": lead_id})

    def give_back(self, lead_id: str, reason: str) -> None:
        """Ask for a lead's money back."""
        self.send({"type": "return", "lead_id": lead_id, "reason": reason})

    def erased(self, lead_id: str) -> None:
        """Acknowledge that you have erased a lead, as its notice asked for."""
        self.send({"type": "erased", "lead_id": lead_id})

    def send(self, answer: Mapping[str, Any], timeout_s: float = 30.0) -> None:
        """Send any answer; raise what Kafka raises where it was not taken."""
        self._producer.send(self._topic, value=json.dumps(answer).encode()).get(timeout=timeout_s)

    def close(self) -> None:
        """Disconnect."""
        self._producer.close()


def _read(record: Any) -> Mapping[str, Any]:
    if record.value.startswith(_AVRO):
        raise AvroRecord(record.topic, record.offset)
    body: Mapping[str, Any] = json.loads(record.value)
    return body


def _erasures(body: Mapping[str, Any]) -> Iterator[Erasure]:
    for happened in body.get("happened", ()):
        if happened["type"] == "erasure":
            until = datetime.fromisoformat(happened["acknowledge_by"])
            yield Erasure(lead_id=body["lead_id"], reason=happened["reason"], acknowledge_by=until, body=body)


def _purchased(body: Mapping[str, Any]) -> PurchasedLead:
    return PurchasedLead(
        sale_id=body["sale_id"],
        lead_id=body["lead_id"],
        lead_type=body["lead_type"],
        price=body["price"],
        currency=body["currency"],
        terms=body["terms"],
        promise=body["promise"],
        contact=body["lead"]["contact"],
        details=body["lead"]["details"],
        is_test=body["is_test"],
        body=body,
    )
