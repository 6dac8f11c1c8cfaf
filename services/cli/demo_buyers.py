"""The demo's buyers: what each answers to an offer, and what it tells of a lead that it bought.

The answers are drawn from the lead's id, so that every run has the same ones; what a buyer was told of its leads is
kept, as it alone can testify to it. They speak to Kafka as any buyer would.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.bus.kafka import Connection
from services.cli.buyer_commands import accept, disposition, encoded, reject
from services.cli.outsiders import Outbox, Received, read
from services.contract.events import Disposition, RejectionReason
from services.contract.ids import draw
from services.contract.market import Market
from services.contract.topics import Topics

ACCEPTED_OF_100 = 65
REJECTED_OF_100 = 15
DEALS_OF_100 = 10
CONTACTED_OF_100 = 4


def answer_to(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say what a buyer answers to a record; None: nothing, as it does to some offers and most leads."""
    match body["type"]:
        case "offer":
            return _answer_to_offer(body["lead_id"], body["offer_number"])
        case "lead":
            return _report_of(body["lead_id"], body["terms"])
        case _:
            return None


def _answer_to_offer(lead_id: str, offer_number: int) -> dict[str, Any] | None:
    drawn = draw(lead_id, "offer", str(offer_number)) % 100
    if drawn < ACCEPTED_OF_100:
        return accept(lead_id, offer_number)
    if drawn < ACCEPTED_OF_100 + REJECTED_OF_100:
        return reject(lead_id, offer_number, RejectionReason.CAPACITY)
    return None


def _report_of(lead_id: str, terms: Mapping[str, Any]) -> dict[str, Any] | None:
    """Only who has the lead alone for a time makes a deal here, so that it can be seen to end the selling."""
    drawn = draw(lead_id, "report", str(terms["sale_number"])) % 100
    if terms["exclusive_until"] is not None and drawn < DEALS_OF_100:
        return disposition(lead_id, Disposition.DEAL)
    if drawn >= 100 - CONTACTED_OF_100:
        return disposition(lead_id, Disposition.CONTACTED)
    return None


@dataclass(slots=True)
class Buyers:
    """All buyers of a market, in one thread: they listen to their topics and answer."""

    connection: Connection
    topics: Topics
    market: Market
    ending: threading.Event
    leads: list[Received] = field(default_factory=list)
    offers: int = 0
    answers: int = 0

    def run(self) -> None:
        """Listen and answer until the end."""
        answered = [self.topics.buyer_answers(buyer) for buyer in self.market.buyers]
        with Outbox(self.connection, answered) as outbox:
            for batch in read(self.connection, self._heard(), follow=True, ended=self.ending.is_set):
                for buyer, answer in self._answers(batch):
                    outbox.send(self.topics.buyer_answers(buyer), encoded(answer))
                    self.answers += 1

    def _heard(self) -> list[str]:
        ids = self.market.buyers
        return [*map(self.topics.buyer_pings, ids), *map(self.topics.buyer_leads, ids)]

    def _answers(self, batch: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        for record in batch:
            owner = self.topics.owner_of(record.topic)
            assert owner is not None, "only buyers' topics are read"
            body = json.loads(record.value)
            self.offers += body["type"] == "offer"
            if owner[2] == "leads":
                self.leads.append(record)
            answer = answer_to(body)
            if answer is not None:
                yield owner[1], answer
