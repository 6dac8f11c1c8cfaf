"""The demo's buyers: what each answers to an offer, and what it tells of a lead that it bought.

The answers are drawn from the lead's id, so that every run has the same ones; what a buyer was told of its leads is
kept, as it alone can testify to it. They speak to Kafka as any buyer would.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.bus.kafka import Connection
from services.cli.buyer_commands import accept, disposition, encoded, reject
from services.cli.demo_bidders import Thought, thought_about
from services.cli.outsiders import Outbox, Received, read
from services.contract.events import Disposition, RejectionReason, ReturnReason
from services.contract.ids import draw
from services.contract.market import Market
from services.contract.outside_records import read_body
from services.contract.topics import Topics

ACCEPTED_OF_100 = 65
REJECTED_OF_100 = 15
DEALS_OF_100 = 10
CONTACTED_OF_100 = 4
UPGRADED_OF_100 = 40
RETURNED_OF_100 = 8
RETURNABLE = "solar"


def answer_to(buyer_id: str, body: Mapping[str, Any]) -> Thought | None:
    """Say what a buyer answers to a record; None: nothing, as it does to some offers and most leads."""
    if body["type"] == "ping":
        return thought_about(buyer_id, body)
    answer = None
    if body["type"] == "offer":
        answer = _answer_to_offer(body["lead_id"], body["offer_number"])
    elif body["type"] == "lead":
        answer = _report_of(body)
    return None if answer is None else Thought(answer, 0.0)


def _answer_to_offer(lead_id: str, offer_number: int) -> dict[str, Any] | None:
    drawn = draw(lead_id, "offer", str(offer_number)) % 100
    if drawn < ACCEPTED_OF_100:
        return accept(lead_id, offer_number)
    if drawn < ACCEPTED_OF_100 + REJECTED_OF_100:
        return reject(lead_id, offer_number, RejectionReason.CAPACITY)
    return None


def _report_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Only who has the lead alone for a time makes a deal here, so that it can be seen to end the selling."""
    lead_id, terms = body["lead_id"], body["terms"]
    drawn = draw(lead_id, "report", str(terms["sale_number"])) % 100
    if terms["exclusive_until"] is not None and drawn < DEALS_OF_100:
        return disposition(lead_id, Disposition.DEAL)
    if drawn >= 100 - CONTACTED_OF_100:
        return disposition(lead_id, Disposition.CONTACTED)
    if terms["upgrade"] is not None and drawn < UPGRADED_OF_100:
        return {"type": "upgrade", "lead_id": lead_id}
    if body["lead_type"] == RETURNABLE and terms["upgrade"] is None and drawn < RETURNED_OF_100:
        return {"type": "return", "lead_id": lead_id, "reason": ReturnReason.INVALID_CONTACT}
    return None


@dataclass(slots=True)
class Buyers:
    """All buyers of a market, in one thread: they listen to their topics and answer.

    `heard` counts what each was told by the record's type, and of auctions by how they ended for it; `limits` has the
    orders that were told of a limit.
    """

    connection: Connection
    topics: Topics
    market: Market
    ending: threading.Event
    leads: list[Received] = field(default_factory=list)
    heard: Counter[tuple[str, str]] = field(default_factory=Counter)
    limits: dict[str, str] = field(default_factory=dict)
    answers: int = 0
    _later: list[tuple[float, int, str, dict[str, Any]]] = field(default_factory=list)

    def run(self) -> None:
        """Listen and answer until the end."""
        answered = [self.topics.buyer_answers(buyer) for buyer in self.market.buyers]
        with Outbox(self.connection, answered) as outbox:
            for batch in read(self.connection, self._heard(), follow=True, ended=self.ending.is_set):
                for buyer, thought in self._thoughts(batch):
                    due_s = time.monotonic() + thought.after_s
                    heapq.heappush(self._later, (due_s, self.answers, buyer, thought.answer))
                    self.answers += 1
                for buyer, answer in self._due():
                    outbox.send(self.topics.buyer_answers(buyer), encoded(answer))

    def _heard(self) -> list[str]:
        ids = self.market.buyers
        return [*map(self.topics.buyer_pings, ids), *map(self.topics.buyer_leads, ids)]

    def _due(self) -> Iterator[tuple[str, dict[str, Any]]]:
        while self._later and self._later[0][0] <= time.monotonic():
            _, _, buyer, answer = heapq.heappop(self._later)
            yield buyer, answer

    def _thoughts(self, batch: Sequence[Received]) -> Iterator[tuple[str, Thought]]:
        for record in batch:
            owner = self.topics.owner_of(record.topic)
            assert owner is not None, "only buyers' topics are read"
            body = read_body(record.value)
            if owner[2] == "leads":
                self.leads.append(record)
            for each in (body, *body.get("also", ())):
                self._hear(owner[1], each)
            thought = answer_to(owner[1], body)
            if thought is not None:
                yield owner[1], thought

    def _hear(self, buyer_id: str, body: Mapping[str, Any]) -> None:
        kind = body["type"]
        self.heard[buyer_id, f"{kind}: {body['outcome']}" if kind == "auction_result" else kind] += 1
        if kind == "limit_reached":
            self.limits[body["order"]] = body["limit"]
