"""Measures what one lead costs in the pure code of each step, without any server: `python -m bench.micro`.

A lead goes through the very functions that the steps call, a stage at a time over many leads, so that a change to one
of them shows by itself. It says nothing of Kafka, PostgreSQL or batching: `python -m bench` does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import orjson

from bench.leads import SOURCE_ID, submission
from services.billing.domain import BillableEvent, ReadEntry, postings
from services.contract.codec import Codec, codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry, hash_of
from services.contract.events import Event
from services.contract.identity import IdentityKeys, reference_of
from services.contract.inputs import QualifiedLead
from services.intake.domain import Candidate, Identity, Origin
from services.intake.qualification import Judge
from services.intake.submission import Document, Submission, read_document, read_submission
from services.market.reading import open_files
from services.market.review import review
from services.router.domain import Conditions, Decision, decide
from services.router.messages import react
from services.router.orders import order_books
from services.vault.sealing import Vault

NOW_MS = 1_790_000_000_000
_MARKET = Path(__file__).parent / "market.yaml"
_BATCH = 500
_SECRET = bytes(range(32))
_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(slots=True)
class Stopwatch:
    """CPU time by stage, in microseconds a lead."""

    us_per_lead: dict[str, float] = field(default_factory=dict)

    def each(self, stage: str, function: Callable[[_A], _B], inputs: Iterable[_A]) -> list[_B]:
        """Put every lead through one stage."""
        waiting = list(inputs)
        start_s = time.process_time()
        done = [function(one) for one in waiting]
        self.us_per_lead[stage] = 1e6 * (time.process_time() - start_s) / len(waiting)
        return done

    def batches(self, stage: str, function: Callable[[Sequence[_A]], object], inputs: Sequence[_A]) -> None:
        """Put the leads through a stage that takes them by batch."""
        start_s = time.process_time()
        for at in range(0, len(inputs), _BATCH):
            function(inputs[at : at + _BATCH])
        self.us_per_lead[stage] = 1e6 * (time.process_time() - start_s) / len(inputs)


@dataclass(slots=True)
class Stages:
    """What a lead goes through, in order."""

    codec: Codec
    conditions: Conditions
    keys: IdentityKeys
    judge: Judge
    vault: Vault

    def identity(self, document: Document) -> Identity:
        """Name the lead."""
        payload_hash = self.keys.payload_hash(document.canonical)
        reference = reference_of(document.body)
        return Identity(
            lead_id=self.keys.lead_id(SOURCE_ID, reference, payload_hash),
            source_id=SOURCE_ID,
            origin=Origin(partition=0, offset=0),
            payload_hash=payload_hash,
            reference=reference,
            received_at_ms=NOW_MS,
        )

    def candidate(self, sent: tuple[Identity, Submission]) -> Candidate:
        """Judge the lead."""
        found = self.judge.judge(*sent)
        assert isinstance(found, Candidate), found
        return found

    def seal(self, candidate: Candidate) -> object:
        """Seal what is personal, and its consent by itself."""
        details = self.vault.seal(candidate.lead.lead_id, candidate.details_json)
        return details, self.vault.seal(candidate.lead.lead_id, candidate.consent_json or b"")

    def decision(self, lead: QualifiedLead) -> tuple[QualifiedLead, Decision]:
        """Sell the lead."""
        return lead, decide(None, lead, self.conditions)

    def entry(self, decided: tuple[QualifiedLead, Decision]) -> tuple[Entry, bytes]:
        """Encode the log's entry and chain it."""
        lead, decision = decided
        entry = Entry(
            seq=1,
            prev_hash=GENESIS_HASH,
            cause=Cause(kind=CauseKind.QUALIFIED, offset=0),
            market_version=1,
            no_room=(),
            lead_id=lead.lead_id,
            decided_at_ms=NOW_MS,
            events=tuple(self.codec.encode_body(event) for event in decision.events),
        )
        value = self.codec.encode(entry)
        hash_of(value)
        return entry, value

    def tell(self, decided: tuple[Entry, tuple[Event, ...]]) -> list[bytes]:
        """Write what the three buyers and the source are told, but for the sealed part."""
        return [orjson.dumps(outgoing.body) for outgoing in react(*decided, 0)]

    def read(self, value: bytes) -> tuple[Entry, tuple[Event, ...]]:
        """Decode an entry and its events, as a reader of the log does."""
        entry = self.codec.decode_entry(value)
        return entry, self.codec.events_of(entry)


def measure(leads: int) -> dict[str, float]:
    """Put that many leads through all stages; give microseconds of CPU a lead, by stage."""
    stages = _stages()
    watch = Stopwatch()
    sent = [submission(number, NOW_MS).value for number in range(leads)]
    documents = watch.each("intake: decode JSON", read_document, sent)
    bodies = watch.each("intake: check the shape", _submission, documents)
    identities = watch.each("intake: name the lead", stages.identity, documents)
    candidates = watch.each("intake: judge", stages.candidate, zip(identities, bodies, strict=True))
    watch.each("intake: seal", stages.seal, candidates)
    records = watch.each("intake: encode", stages.codec.encode, [found.lead for found in candidates])
    qualified = watch.each("router: decode", stages.codec.decode, records)
    decided = watch.each("router: decide", stages.decision, qualified)
    entries = watch.each("router: encode the entry", stages.entry, decided)
    told = [(entry, tuple(one.events)) for (entry, _), (_, one) in zip(entries, decided, strict=True)]
    watch.each("router: write deliveries", stages.tell, told)
    read = watch.each("billing: decode the entry", stages.read, [value for _, value in entries])
    watch.batches("billing: fold", postings, [_read_entry(one) for one in read])
    return watch.us_per_lead


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--leads", type=int, default=5_000, help="leads to put through each stage (default 5000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(sys.argv[1:])
    measure(min(arguments.leads, 500))
    found = measure(arguments.leads)
    if arguments.json:
        print(orjson.dumps(found).decode())
        return
    for stage, us in found.items():
        print(f"{stage:<28}{us:>8.1f} us a lead")
    print(f"{'all together':<28}{sum(found.values()):>8.1f} us a lead")


def _stages() -> Stages:
    market, keys = review(open_files([_MARKET])).market, IdentityKeys(_SECRET)
    return Stages(
        codec=codec(),
        conditions=Conditions(
            market=market,
            books=order_books(market),
            accepted_market=market,
            no_room=frozenset(),
            now_ms=NOW_MS,
        ),
        keys=keys,
        judge=Judge(market, keys),
        vault=Vault(_SECRET),
    )


def _submission(document: Document) -> Submission:
    found = read_submission(document.body)
    assert isinstance(found, Submission), found
    return found


def _read_entry(read: tuple[Entry, tuple[Event, ...]]) -> ReadEntry:
    entry, events = read
    return ReadEntry(0, entry, [event for event in events if isinstance(event, BillableEvent)])


if __name__ == "__main__":
    main()
