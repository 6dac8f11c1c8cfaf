"""The demo's sources: the leads they send, at a pace that can be watched, and the receipts they get.

What they send comes from `examples/leads`, with a few records that are no JSON at all in between; what became of it
is told by their receipts alone.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.bus.kafka import Connection
from services.cli.demo_leads import SHIPPED, first
from services.cli.outsiders import Outbox, Received, read
from services.contract.topics import Topics

EXAMPLES = Path(__file__).parents[2] / "examples"
POISON = (b'{"lead_type": "solar", "contact": {', b"first_name,last_name,phone", b"\xff\xfe\x00\x01")
SENT_WITHIN_S = 8.0
SENT_AT_ONCE = 20

Sent = tuple[str, bytes]


def traffic(count: int) -> list[Sent]:
    """Give `count` submissions with their sources, as the files have them; beyond those, of the same kind."""
    files = sorted((EXAMPLES / "leads").glob("*.jsonl"))
    if count > SHIPPED or not files:
        return [(source, json.dumps(lead).encode()) for source, lead in first(count)]
    return merged({file.stem: file.read_bytes().splitlines() for file in files})[:count]


def merged(lines: Mapping[str, Sequence[bytes]]) -> list[Sent]:
    """Shuffle files into one stream, each source's lines evenly over the whole of it, in their order."""
    placed = [
        (at / len(of_source), source, line)
        for source, of_source in lines.items()
        for at, line in enumerate(of_source)
    ]
    return [(source, line) for _, source, line in sorted(placed, key=lambda item: item[:2])]


def with_poison(leads: Sequence[Sent]) -> list[Sent]:
    """Put records in between that are no JSON objects: they go to the dead letters, and the rest flows on."""
    stream = list(leads)
    for number, poison in enumerate(POISON, start=1):
        at = len(leads) * number // (len(POISON) + 1)
        stream.insert(at, (leads[0][0], poison))
    return stream


@dataclass(slots=True)
class Sources:
    """Sends a stream of submissions, in one thread."""

    connection: Connection
    topics: Topics
    stream: Sequence[Sent]
    ending: threading.Event
    sent: int = 0
    done: bool = False

    def run(self) -> None:
        """Send all, a few at a time."""
        pause_s = SENT_WITHIN_S * SENT_AT_ONCE / max(len(self.stream), 2_000)
        with Outbox(
            self.connection, {self.topics.source_leads(source) for source, _ in self.stream}
        ) as outbox:
            began_s = time.monotonic()
            for number, (source, line) in enumerate(self.stream):
                if number % SENT_AT_ONCE == 0:
                    due_s = began_s + number // SENT_AT_ONCE * pause_s
                    if self.ending.wait(max(0.0, due_s - time.monotonic())):
                        return
                outbox.send(self.topics.source_leads(source), line)
                self.sent = number + 1
        self.done = True


@dataclass(slots=True)
class Receipts:
    """Reads all receipts and dead letters of the sources, in one thread, and counts what they tell."""

    connection: Connection
    topics: Topics
    source_ids: Sequence[str]
    ending: threading.Event
    accepted: dict[str, str] = field(default_factory=dict)
    declined: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    undecodable: int = 0
    sold: set[tuple[str, int]] = field(default_factory=set)
    leads_sold: set[str] = field(default_factory=set)
    closes: dict[str, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    outcomes: Counter[str] = field(default_factory=Counter)
    _known: set[tuple[str, bytes]] = field(default_factory=set)

    def run(self) -> None:
        """Read until the end."""
        receipts = [self.topics.source_receipts(source) for source in self.source_ids]
        dead = [self.topics.dead_letters(self.topics.source_leads(source)) for source in self.source_ids]
        for batch in read(self.connection, [*receipts, *dead], follow=True, ended=self.ending.is_set):
            for record in batch:
                if record.topic in dead:
                    self.take_dead(record)
                else:
                    self.take(record)

    @property
    def answered(self) -> int:
        """Count the submissions that intake has answered, or put aside."""
        return len(self.accepted) + self.repeated + self.declined.total() + self.undecodable

    def take(self, record: Received) -> None:
        """Take one receipt; the same one again tells nothing new."""
        if self._is_new(record, "ce_source", "ce_id"):
            receipt = json.loads(record.value)
            for item in receipt["happened"]:
                self._take(receipt, item)

    def take_dead(self, record: Received) -> None:
        """Count what intake could not read."""
        self.undecodable += self._is_new(record, "dlq.errors.partition", "dlq.errors.offset")

    def _is_new(self, record: Received, *names: str) -> bool:
        """A crash may repeat a record: what names it then is the same."""
        known = (record.topic, b" ".join(record.headers[name] for name in names))
        is_new = known not in self._known
        self._known.add(known)
        return is_new

    def _take(self, receipt: Mapping[str, Any], item: Mapping[str, Any]) -> None:
        lead_id = receipt["lead_id"]
        match item["type"]:
            case "accepted" if lead_id in self.accepted:
                self.repeated += 1
            case "accepted":
                self.accepted[lead_id] = receipt["at"]
            case "declined":
                self.declined[item["reason"]] += 1
            case "sold":
                self.sold.add((lead_id, item["sale_number"]))
                self.leads_sold.add(lead_id)
            case "closed":
                self.outcomes[item["outcome"]] += lead_id not in self.closes
                self.closes[lead_id].add((receipt["log"]["partition"], receipt["log"]["seq"]))


def bars(sources: Sources, receipts: Receipts) -> Iterator[tuple[str, int, int]]:
    """Say how far it has come: what is counted, how many, and of how many."""
    count = len(sources.stream)
    yield "sent", sources.sent, count
    yield "answered by intake", receipts.answered, count
    yield "sold", len(receipts.leads_sold), len(receipts.accepted)
    yield "closed", len(receipts.closes), len(receipts.accepted)
