"""How fast the auditor judges a log: entries of the usual kind, made once, taken in batches, on one core.

An entry of the usual kind lists a lead, sells it to three, and closes it. With `--told`, the deliveries and receipts
that follow are judged too, interleaved as the auditor's reading does it.

Run: `python -m bench.audit_speed --entries 200000`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from services.audit.auditor import Auditor
from services.audit.states import SqliteLeadStates
from services.audit.violations import Violation
from services.bus.ports import Record
from services.contract.cloudevents import outsider_headers
from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry, hash_of
from services.contract.events import Draw, Event, LeadClosed, LeadListed, LeadSold, Outcome
from services.contract.ids import lead_id_of, partition_of, sale_id_of
from services.contract.limits import sale_draws
from services.contract.market import (
    Account,
    Buyer,
    Cap,
    FieldKind,
    FieldType,
    LeadType,
    ListPrice,
    Market,
    Mode,
    Order,
    Period,
    Plan,
    Prices,
    Sell,
    Source,
    Stage,
    Takes,
    Unit,
)
from services.contract.times import decimal_amount, iso_time
from services.contract.topics import Topics

PARTITIONS = 12
START_MS = 1_790_000_000_000
LEADS_PER_SECOND = 2_000
BUYERS = ("harbor", "oak", "pine")
TOPICS = Topics()


def market() -> Market:
    """A market of three buyers, each with an account and a cap, that share every lead."""
    return Market(
        version=1,
        currency="USD",
        timezone="America/New_York",
        lead_types={
            "insurance": LeadType(
                name="insurance",
                contact=("email",),
                details={
                    "state": FieldKind(type=FieldType.US_STATE),
                    "cars": FieldKind(type=FieldType.NUMBER),
                },
                ping=("state", "cars"),
                plans=(
                    Plan(
                        name="three-at-40",
                        stages=(Stage(sell=Sell.SHARED, prices=Prices(shared=(4_000,))),),
                        sales_max=3,
                    ),
                ),
            )
        },
        sources={"quotehub": Source(id="quotehub", lead_types=("insurance",))},
        buyers={
            buyer: Buyer(
                id=buyer,
                timezone="America/New_York",
                account=Account(credit_limit_cents=10**12),
                orders=(
                    Order(
                        id=f"{buyer}/auto",
                        buyer_id=buyer,
                        lead_type="insurance",
                        takes=Takes(shared=ListPrice()),
                        caps=(Cap(unit=Unit.LEADS, period=Period.DAY, most=10**9),),
                    ),
                ),
            )
            for buyer in BUYERS
        },
    )


def usual_events(given: Market, lead_id: str, number: int, now_ms: int) -> list[Event]:
    """List a lead, sell it three times, close it."""
    created_at_ms = now_ms - 200 - number % 97
    told: list[Event] = [
        LeadListed(
            source_id="quotehub",
            lead_type="insurance",
            plan="three-at-40",
            quality=number % 101,
            fields={"state": ("NY", "NJ", "CT")[number % 3], "cars": str(number % 5)},
            sales_max=3,
            never_to=(),
            created_at_ms=created_at_ms,
            market_version=1,
            is_test=False,
        )
    ]
    for slot, buyer in enumerate(BUYERS):
        order = given.buyers[buyer].orders[0]
        draws: tuple[Draw, ...] = sale_draws(
            given, order, price_cents=4_000, now_ms=now_ms, returns_quota_basis_points=None
        )
        told.append(
            LeadSold(
                sale_number=slot + 1,
                sale_id=sale_id_of(lead_id, slot + 1),
                buyer_id=buyer,
                order_id=order.id,
                source_id="quotehub",
                lead_type="insurance",
                plan="three-at-40",
                stage=0,
                mode=Mode.SHARED,
                price_cents=4_000,
                currency="USD",
                sales_max=3,
                exclusive_until_ms=None,
                others_may_follow=slot < 2,
                others_from_ms=None,
                holders=BUYERS[:slot],
                held_since_ms=now_ms if slot else None,
                offer_number=None,
                quality=number % 101,
                created_at_ms=created_at_ms,
                is_test=False,
                draws=draws,
            )
        )
    told.append(
        LeadClosed(
            outcome=Outcome.SOLD_OUT,
            source_id="quotehub",
            lead_type="insurance",
            plan="three-at-40",
            holders=BUYERS,
            is_test=False,
        )
    )
    return told


class Log:
    """Writes a log of the usual kind, and what outsiders are told of it."""

    def __init__(self) -> None:
        """Begin at the first entries."""
        self._market = market()
        self._hashes = dict.fromkeys(range(PARTITIONS), GENESIS_HASH)
        self._seqs = dict.fromkeys(range(PARTITIONS), 0)
        self._offsets: dict[str, int] = {}

    def write(self, first: int, count: int, *, told: bool) -> tuple[list[Record], list[Record]]:
        """Write the entries of so many leads: the log's records, and the outsiders'."""
        log: list[Record] = []
        outside: list[Record] = []
        for number in range(first, first + count):
            lead_id = lead_id_of("quotehub", str(number))
            now_ms = START_MS + number * 1_000 // LEADS_PER_SECOND
            partition = partition_of(lead_id, PARTITIONS)
            self._seqs[partition] += 1
            seq = self._seqs[partition]
            events = usual_events(self._market, lead_id, number, now_ms)
            value = codec().encode(
                Entry(
                    seq=seq,
                    prev_hash=self._hashes[partition],
                    cause=Cause(kind=CauseKind.QUALIFIED, offset=seq - 1),
                    market_version=1,
                    no_room=(),
                    lead_id=lead_id,
                    decided_at_ms=now_ms,
                    events=tuple(map(codec().encode_body, events)),
                )
            )
            self._hashes[partition] = hash_of(value)
            log.append(Record(TOPICS.log, partition, seq - 1, lead_id.encode(), value, (), now_ms))
            if told:
                outside += self._told(lead_id, partition, seq, now_ms, events)
        return log, outside

    def _told(
        self, lead_id: str, partition: int, seq: int, now_ms: int, events: list[Event]
    ) -> Iterator[Record]:
        listed = events[0]
        assert isinstance(listed, LeadListed)
        place = {"partition": partition, "seq": seq}
        for n, buyer in enumerate(BUYERS):
            terms = {
                "mode": "shared", "sale_number": n + 1, "sales_max": 3, "exclusive": False, "exclusive_until": None,
                "holders": 3, "held_since": iso_time(now_ms) if n else None, "others_may_follow": False,
                "others_from": None, "upgrade": None,
            }  # fmt: skip
            since = f", the first since {iso_time(now_ms)[:19].replace('T', ' ')} UTC" if n else ""
            held = f"2 others hold it{since}"
            body = {
                "type": "lead", "sale_id": sale_id_of(lead_id, n + 1), "lead_id": lead_id, "lead_type": "insurance",
                "order": f"{buyer}/auto", "sold_at": iso_time(now_ms), "created_at": iso_time(listed.created_at_ms),
                "price": decimal_amount(4_000), "currency": "USD", "quality": listed.quality, "is_test": False,
                "terms": terms, "promise": f"Shared, number {n + 1} of at most 3: {held}; nobody else will get it.",
                "log": place, "lead": {"contact": {"email": f"{seq}@example.com"}, "details": {"cars": "2"}},
            }  # fmt: skip
            yield self._record(TOPICS.buyer_leads(buyer), body, f"{partition}:{seq}:{n}", now_ms)
        sold = [
            {"type": "sold", "sale_number": n + 1, "sales_max": 3, "mode": "shared"}
            for n in range(len(BUYERS))
        ]
        happened = [*sold, {"type": "closed", "outcome": "sold_out", "sales": 3}]
        receipt = {
            "type": "receipt",
            "lead_id": lead_id,
            "at": iso_time(now_ms),
            "happened": happened,
            "log": place,
        }
        yield self._record(TOPICS.source_receipts("quotehub"), receipt, f"{partition}:{seq}:3", now_ms)

    def _record(self, topic: str, body: Mapping[str, object], id: str, now_ms: int) -> Record:
        offset = self._offsets[topic] = self._offsets.get(topic, -1) + 1
        type = f"gavel.{body['type']}.v1"
        headers = outsider_headers(id=id, type=type, source="gavel/router", at_ms=now_ms)
        return Record(topic, 0, offset, str(body["lead_id"]).encode(), orjson.dumps(body), headers, now_ms)


def main() -> int:
    """Measure, and say what was reached."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--entries", type=int, default=200_000)
    asked.add_argument("--batch", type=int, default=10_000)
    asked.add_argument("--told", action="store_true", help="judge deliveries and receipts too")
    arguments = asked.parse_args()
    found: list[Violation] = []
    log, spent_s, records = Log(), 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        states = SqliteLeadStates(Path(folder) / "states")
        auditor = Auditor(
            markets={1: market()}.__getitem__,
            topics=TOPICS,
            partitions=PARTITIONS,
            states=states,
            report=found.append,
        )
        for first in range(0, arguments.entries, arguments.batch):
            count = min(arguments.batch, arguments.entries - first)
            entries, outside = log.write(first, count, told=arguments.told)
            began_s = time.process_time()
            auditor.take(entries)
            auditor.take(outside)
            spent_s += time.process_time() - began_s
            records += len(entries) + len(outside)
        began_s = time.process_time()
        states.commit(auditor=auditor.kept())
        commit_s = time.process_time() - began_s
        states.close()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    sys.stdout.write(
        f"{auditor.entries} entries in {spent_s:.2f} s of one core: {auditor.entries / spent_s:,.0f} entries/s, "
        f"{records / spent_s:,.0f} records/s; commit {commit_s:.2f} s; at most {peak_mb:.0f} MB; "
        f"{sum(auditor.violations.values())} violations\n"
    )
    for violation in found[:3]:
        sys.stdout.write(f"{violation.rule}: {violation.what}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
