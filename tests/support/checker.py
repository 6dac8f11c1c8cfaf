"""The checks of a stranger: do the guarantees hold, by what stands in the topics and in the database alone?

It reads with kafka-python, the client that no step uses on its way, and shares with the steps only the contract.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from kafka import KafkaConsumer, TopicPartition
from psycopg import sql

from services.contract.codec import codec
from services.contract.entries import Ahead, Broken, Entry, Position, Taken, take
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidOutcome,
    BidPlaced,
    LeadClosed,
    LeadListed,
    LeadSold,
    LeadUpgraded,
)
from services.contract.limits import Limit, limits_of
from services.contract.market import Market, Mode
from services.contract.times import decimal_amount, iso_time
from services.contract.topics import Topics

_READ_WITHIN_MS = 20_000


@dataclass(slots=True)
class Evidence:
    """All that was found."""

    log: dict[int, list[Entry]] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    deliveries: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    inside: dict[str, list[Any]] = field(default_factory=dict)
    outside: dict[str, list[Any]] = field(default_factory=dict)


def violations(kafka: str, topics: Topics, market: Market, database: str) -> list[str]:
    """Check every lead; return a sentence for each broken promise, none where all hold."""
    evidence = gather(kafka, topics, market)
    return [
        *_log_violations(evidence),
        *_limit_violations(evidence, market, database),
        *_auction_violations(evidence),
        *_delivery_violations(evidence),
        *_billing_violations(evidence, database),
    ]


def gather(kafka: str, topics: Topics, market: Market) -> Evidence:
    """Read every topic from its beginning to its present end."""
    evidence = Evidence()
    for topic in (topics.qualified, topics.commands, topics.timers, topics.log, topics.events):
        evidence.inside[topic] = list(records_of(kafka, topic))
    evidence.log = dict(_taken(evidence.inside[topics.log]))
    for source_id in market.sources:
        for record in records_of(kafka, topics.source_receipts(source_id)):
            receipt = json.loads(record.value)
            if any(item["type"] == "accepted" for item in receipt["happened"]):
                evidence.accepted.add(receipt["lead_id"])
    by_lead: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for buyer_id in market.buyers:
        topic = topics.buyer_leads(buyer_id)
        evidence.outside[topic] = list(records_of(kafka, topic))
        for record in evidence.outside[topic]:
            body = json.loads(record.value)
            if body["type"] == "lead":
                by_lead[body["lead_id"]][body["sale_id"]].append({**body, "buyer": buyer_id})
    evidence.deliveries = {lead_id: dict(sales) for lead_id, sales in by_lead.items()}
    return evidence


def records_of(kafka: str, topic: str) -> Iterator[Any]:
    """Read a topic from beginning to end, partition by partition."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka, enable_auto_commit=False, consumer_timeout_ms=_READ_WITHIN_MS
    )
    try:
        parts = [TopicPartition(topic, at) for at in sorted(consumer.partitions_for_topic(topic) or ())]
        ends = consumer.end_offsets(parts)
        for part in parts:
            consumer.assign([part])
            consumer.seek_to_beginning(part)
            while consumer.position(part) < ends[part]:
                for record in next(iter(consumer.poll(timeout_ms=1_000).values()), ()):
                    if record.offset < ends[part]:
                        yield record
    finally:
        consumer.close()


def _taken(records: Iterable[Any]) -> Iterator[tuple[int, list[Entry]]]:
    """Take the log as every reader does; a record that does not follow is an error here."""
    positions: dict[int, Position] = defaultdict(Position)
    entries: dict[int, list[Entry]] = defaultdict(list)
    for record in records:
        entry = codec().decode_entry(record.value)
        reading = take(
            positions[record.partition],
            seq=entry.seq,
            prev_hash=entry.prev_hash,
            value=record.value,
            offset=record.offset,
        )
        assert not isinstance(reading, Broken | Ahead), f"{reading} at {record.partition}:{record.offset}"
        if isinstance(reading, Taken):
            positions[record.partition] = reading.position
            entries[record.partition].append(entry)
    yield from entries.items()


def _events(evidence: Evidence) -> Iterator[tuple[int, Entry, Any]]:
    for partition, entries in evidence.log.items():
        for entry in entries:
            for event in codec().events_of(entry):
                yield partition, entry, event


def _log_violations(evidence: Evidence) -> Iterator[str]:
    """Guarantees 1 and 2, as the log tells them."""
    listed = Counter(entry.lead_id for _, entry, event in _events(evidence) if isinstance(event, LeadListed))
    closed = Counter(entry.lead_id for _, entry, event in _events(evidence) if isinstance(event, LeadClosed))
    for lead_id in evidence.accepted | listed.keys() | closed.keys():
        if lead_id not in evidence.accepted:
            yield f"lead {lead_id} is in the log and was never accepted"
        if (listed[lead_id], closed[lead_id]) != (1, 1):
            yield f"lead {lead_id} was listed {listed[lead_id]} times and closed {closed[lead_id]} times"
    upgraded = {entry.lead_id for _, entry, event in _events(evidence) if isinstance(event, LeadUpgraded)}
    sold: dict[str, list[tuple[int, LeadSold]]] = defaultdict(list)
    for _, entry, event in _events(evidence):
        if isinstance(event, LeadSold):
            sold[entry.lead_id].append((entry.decided_at_ms, event))
    for lead_id, sales in sold.items():
        yield from _sale_violations(lead_id, sales, upgraded)


def _sale_violations(lead_id: str, sales: list[tuple[int, LeadSold]], upgraded: set[str]) -> Iterator[str]:
    buyers = [event.buyer_id for _, event in sales]
    if len(set(buyers)) != len(buyers):
        yield f"lead {lead_id} was sold twice to one buyer: {buyers}"
    if len(sales) > min(event.sales_max for _, event in sales):
        yield f"lead {lead_id} has {len(sales)} buyers of at most {sales[0][1].sales_max}"
    if [event.sale_number for _, event in sales] != list(range(1, len(sales) + 1)):
        yield f"lead {lead_id} has sale numbers {[event.sale_number for _, event in sales]}"
    _, first = sales[0]
    for sold_at_ms, later in sales[1:]:
        if lead_id in upgraded:
            yield f"lead {lead_id} was sold to {later.buyer_id} beside an upgrade"
        if later.mode is Mode.EXCLUSIVE:
            yield f"lead {lead_id} was sold exclusive after it was disclosed"
        if first.mode is Mode.EXCLUSIVE and (
            first.exclusive_until_ms is None or sold_at_ms < first.exclusive_until_ms
        ):
            yield f"lead {lead_id} was sold to {later.buyer_id} while it was exclusive to {first.buyer_id}"


def _limit_violations(evidence: Evidence, market: Market, database: str) -> Iterator[str]:
    """Guarantee 3, recomputed from what the log says was drawn; and the router's counters are just that."""
    used: Counter[str] = Counter()
    granted: Counter[str] = Counter()
    limits: dict[str, Limit] = {}
    orders = {order.id: order for buyer in market.buyers.values() for order in buyer.orders}
    for _, entry, event in _events(evidence):
        if isinstance(event, LeadSold | LeadUpgraded):
            limits |= limits_of(market, orders[event.order_id], entry.decided_at_ms)
        for draw in getattr(event, "draws", ()):
            used[draw.counter] += draw.amount
            granted[draw.counter] += draw.granted
    for counter, limit in limits.items():
        if used[counter] > limit.most + granted[counter]:
            yield f"{counter}: {used[counter]} used of {limit.most} and {granted[counter]} granted"
    with psycopg.connect(database, autocommit=True) as connection:
        rows = connection.execute("select counter_id, used, granted from router.counters").fetchall()
    counted = {counter: (spent, given) for counter, spent, given in rows}
    for counter in used.keys() | counted.keys():
        if counted.get(counter, (0, 0)) != (used[counter], granted[counter]):
            yield f"{counter}: the log says {used[counter]}, {granted[counter]}, the router {counted.get(counter)}"


def _auction_violations(evidence: Evidence) -> Iterator[str]:
    """Each auction is closed once; who wins by a bid pays that bid, which is at or over the floor and was in time."""
    opened: dict[tuple[str, int], AuctionOpened] = {}
    closed: Counter[tuple[str, int]] = Counter()
    bids: dict[tuple[str, int], dict[str, BidPlaced]] = defaultdict(dict)
    for _, entry, event in _events(evidence):
        if isinstance(event, AuctionOpened):
            opened[entry.lead_id, event.auction_number] = event
        elif isinstance(event, BidPlaced):
            bids[entry.lead_id, event.auction_number][event.buyer_id] = event
        elif isinstance(event, AuctionClosed):
            closed[entry.lead_id, event.auction_number] += 1
            auction = opened[entry.lead_id, event.auction_number]
            placed = bids[entry.lead_id, event.auction_number]
            won = {result.buyer_id for result in event.results if result.outcome is BidOutcome.WON}
            sales = [sale for sale in codec().events_of(entry) if isinstance(sale, LeadSold)]
            yield from _untrue_wins(entry.lead_id, auction, placed, won, sales)
    for lead_id, number in opened:
        if closed[lead_id, number] != 1:
            yield f"auction {number} of lead {lead_id} was closed {closed[lead_id, number]} times"


def _untrue_wins(
    lead_id: str, auction: AuctionOpened, placed: dict[str, BidPlaced], won: set[str], sales: list[LeadSold]
) -> Iterator[str]:
    bought = {sale.buyer_id: sale for sale in sales}
    for buyer_id in won - bought.keys():
        yield f"lead {lead_id}: {buyer_id} won and got nothing"
    for buyer_id, bid in placed.items():
        sale = bought.get(buyer_id)
        if sale is None or sale.auction_number != auction.auction_number:
            continue
        exclusive = sale.mode is Mode.EXCLUSIVE
        price = bid.exclusive_cents if exclusive else bid.shared_cents
        floor = auction.floor_exclusive_cents if exclusive else auction.floor_shared_cents
        if sale.price_cents != price or (floor is not None and sale.price_cents < floor):
            yield f"lead {lead_id}: {buyer_id} bid {price} over {floor} and pays {sale.price_cents}"
        if bid.answered_at_ms > auction.bids_until_ms:
            yield f"lead {lead_id}: the bid of {buyer_id} came too late and won"


def close_delays_ms(evidence: Evidence) -> list[int]:
    """How long after its close each auction was decided that ended by time."""
    opened: dict[tuple[str, int], AuctionOpened] = {}
    delays = []
    for _, entry, event in _events(evidence):
        if isinstance(event, AuctionOpened):
            opened[entry.lead_id, event.auction_number] = event
        elif isinstance(event, AuctionClosed) and event.reason is AuctionEnd.TIME_UP:
            delays.append(entry.decided_at_ms - opened[entry.lead_id, event.auction_number].closes_at_ms)
    return sorted(delays)


def _delivery_violations(evidence: Evidence) -> Iterator[str]:
    """Guarantees 1 and 5, as the buyers see them; deliveries are exactly the sales."""
    promised = {
        event.sale_id: (entry, event) for _, entry, event in _events(evidence) if isinstance(event, LeadSold)
    }
    seen: set[str] = set()
    for lead_id, sales in evidence.deliveries.items():
        for sale_id, copies in sales.items():
            seen.add(sale_id)
            if any(copy != copies[0] for copy in copies):
                yield f"sale {sale_id} was delivered with different contents or to different buyers"
            if sale_id not in promised:
                yield f"lead {lead_id} was delivered to {copies[0]['buyer']} without a sale"
            else:
                yield from _untrue_terms(copies[0], *promised[sale_id])
    for sale_id in promised.keys() - seen:
        yield f"sale {sale_id} was never delivered"


def _untrue_terms(delivery: dict[str, Any], entry: Entry, sold: LeadSold) -> Iterator[str]:
    terms = delivery["terms"]
    alone = any(isinstance(event, LeadUpgraded) for event in codec().events_of(entry))
    mode = Mode.EXCLUSIVE if alone else sold.mode
    told = (delivery["buyer"], terms["mode"], terms["sale_number"], terms["sales_max"], delivery["price"])
    true = (sold.buyer_id, mode, sold.sale_number, sold.sales_max, decimal_amount(sold.price_cents))
    if told != true:
        yield f"sale {sold.sale_id}: told {told}, true is {true}"
    until = None if sold.exclusive_until_ms is None else iso_time(sold.exclusive_until_ms)
    if terms["exclusive_until"] != until or terms["exclusive"] != (mode is Mode.EXCLUSIVE):
        yield f"sale {sold.sale_id}: told exclusive until {terms['exclusive_until']}, true is {until}"
    if terms["holders"] < sold.sale_number:
        yield f"sale {sold.sale_id}: told {terms['holders']} holders, it is number {sold.sale_number}"
    number = f"number {sold.sale_number} of at most {sold.sales_max}"
    sentence = "Exclusive" if mode is Mode.EXCLUSIVE else number
    if sentence not in delivery["promise"]:
        yield f"sale {sold.sale_id}: the sentence says {delivery['promise']!r}"
    if delivery["log"]["seq"] != entry.seq:
        yield f"sale {sold.sale_id}: told log position {delivery['log']}, true is {entry.seq}"


def _billing_violations(evidence: Evidence, database: str) -> Iterator[str]:
    """Guarantee 4: each sale is charged once, at its price, and the ledger agrees with itself."""
    promised = {
        event.sale_id: event.price_cents
        for _, _, event in _events(evidence)
        if isinstance(event, LeadSold) and not event.is_test and event.price_cents
    }
    with psycopg.connect(database, autocommit=True) as connection:
        charged = connection.execute(
            "select sale_id::text, amount_cents from billing.transfers where kind = 'sale_charge'"
        ).fetchall()
        wrong = connection.execute("select what, which from billing.discrepancies").fetchall()
    count = Counter(sale_id for sale_id, _ in charged)
    for sale_id, cents in charged:
        if promised.get(sale_id) != cents or count[sale_id] != 1:
            yield f"sale {sale_id} is charged {count[sale_id]} times, {cents} for {promised.get(sale_id)}"
    for sale_id in promised.keys() - count.keys():
        yield f"sale {sale_id} is not charged"
    for what, which in wrong:
        yield f"ledger: {what} {which}"


def leaks(evidence: Evidence, database: str, folder: Path, canaries: Iterable[bytes]) -> list[str]:
    """Look for contact details where none belong (guarantee 6): our topics, headers, keys, tables, worker logs."""
    wanted = tuple(canaries)
    found = []
    for topic, records in evidence.inside.items():
        for record in records:
            if _holds(
                wanted, record.key or b"", record.value or b"", *(value for _, value in record.headers)
            ):
                found.append(f"{topic} {record.partition}:{record.offset}")
    for topic, records in evidence.outside.items():
        for record in records:
            if _holds(wanted, record.key or b"", *(value for _, value in record.headers)):
                found.append(f"headers or key of {topic} {record.offset}")
    for path in folder.glob("*.log"):
        if _holds(wanted, path.read_bytes()):
            found.append(f"log file {path.name}")
    return [*found, *_leaking_tables(database, wanted)]


def _leaking_tables(database: str, wanted: tuple[bytes, ...]) -> Iterator[str]:
    """Search every row of every table as text, byte strings as what they hold."""
    patterns = [*(text.decode() for text in wanted), *(text.hex() for text in wanted)]
    with psycopg.connect(database, autocommit=True) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert tables, "there are tables to look through"
        for schema, table in tables:
            query = sql.SQL("select count(*) from {} as t where t::text like any(%s)").format(
                sql.Identifier(schema, table)
            )
            row = connection.execute(query, [[f"%{pattern}%" for pattern in patterns]]).fetchone()
            if row is None or row[0]:
                yield f"table {schema}.{table}"


def _holds(wanted: tuple[bytes, ...], *texts: bytes) -> bool:
    return any(canary in text for text in texts for canary in wanted)
