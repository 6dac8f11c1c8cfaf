"""What must hold at the end of a run, whatever happened: judged from topics and tables, once everything is at rest.

The auditor (`services.audit`) is the main judge. What it can't see from outside is checked beside it: each decision
executed again, states and rows against the log, projections made again, every record told, and where personal data is.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias, TypeVar

import orjson

from services.audit.auditor import Auditor
from services.audit.states import MemoryLeadStates
from services.audit.violations import Violation
from services.billing.memory_store import MemoryLedger
from services.billing.memory_store import Tables as LedgerTables
from services.billing.step import Billing
from services.bus.log_reader import LogReader
from services.bus.ports import Record, TopicPartition
from services.contract.codec import codec, framed
from services.contract.entries import GENESIS_HASH, CauseKind, Entry, hash_of
from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    DeliveryFailed,
    ErasureAcknowledged,
    Event,
    LeadClosed,
    LeadErased,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    MoneyMoved,
    OfferMade,
    Outcome,
    ReturnApproved,
    WindowClosed,
    WindowOpened,
)
from services.contract.ids import lead_id_of
from services.contract.inputs import AcceptOffer, EraseLead, Input, PlaceBid, TimerDue
from services.contract.market import Mode
from services.contract.outside_records import read_body
from services.contract.times import decimal_amount
from services.intake.answers import read_answer
from services.intake.submission import Undecodable
from services.router.execution import DoesNotFollow, difference, execute, own_input, steps_of
from services.router.lead import State, evolve
from services.router.messages import Channel, Outgoing, react
from services.router.ports import SaleRow
from services.router.state_bytes import state_bytes
from tests.simulation.faults import FaultKind
from tests.simulation.markets import BUYERS, SOURCES
from tests.simulation.outsiders import consented_buyers, source_of
from tests.simulation.tables import SimulatedTables
from tests.simulation.world import PARTITIONS, TOPICS, World

REPORTED_MAX = 20
"""So many findings of a run are told; one is enough to fail it."""

T = TypeVar("T")
Found: TypeAlias = tuple[str, str]
"""A rule, and what is wrong by it."""


class Told(NamedTuple):
    """One entry of the log as a reader takes it, and its events."""

    partition: int
    entry: Entry
    events: Sequence[Event]


@dataclass(slots=False)
class Evidence:
    """What a run left: the world, what its workers logged, which faults there were.

    `too_large`: the records that no broker took, by topic and ce_id; a dead letter by its record's place. `submitted`:
    so many leads were planned to be sent.
    """

    world: World
    logged: Sequence[str]
    faults: Mapping[FaultKind, int]
    too_large: Collection[tuple[str, str]]
    submitted: int

    @cached_property
    def log(self) -> list[Told]:
        """Read the log as every reader does: the next `seq` whose `prev_hash` is the last entry's hash."""
        found = []
        for partition in range(PARTITIONS):
            seq, last = 0, GENESIS_HASH
            for record in self.records(TOPICS.log, partition):
                entry = codec().decode_entry(record.value)
                if entry.seq == seq + 1 and entry.prev_hash == last:
                    assert record.value is not None
                    seq, last = entry.seq, hash_of(record.value)
                    found.append(Told(partition, entry, codec().events_of(entry)))
        return found

    @cached_property
    def by_lead(self) -> Mapping[str, list[Told]]:
        """Sort the log by lead."""
        found: dict[str, list[Told]] = defaultdict(list)
        for told in self.log:
            found[told.entry.lead_id].append(told)
        return found

    @cached_property
    def told(self) -> list[tuple[Told, Outgoing]]:
        """Name every record that follows from the log."""
        return [
            (told, outgoing)
            for told in self.log
            for outgoing in react(told.entry, told.events, told.partition)
        ]

    def records(self, topic: str, partition: int = 0) -> Sequence[Record]:
        """Read a partition."""
        return self.world.kafka.records[TopicPartition(topic, partition)]

    def had(self, *kinds: FaultKind) -> bool:
        """Tell whether there were faults of these kinds."""
        return any(self.faults.get(kind) for kind in kinds)


def judge(evidence: Evidence) -> list[Found]:
    """Say what is wrong, the first of it in the order of the checks."""
    found: list[Found] = []
    for check in CHECKS:
        for rule, what in check(evidence):
            found.append((rule, what))
            if len(found) >= REPORTED_MAX:
                return found
        if found and check in _FOUNDATIONS:
            return found  # all that follows reads the log
    return found


def audited(evidence: Evidence) -> Iterator[Found]:
    """Let the auditor judge topics and tables."""
    found: list[Violation] = []
    world = evidence.world
    auditor = Auditor(
        markets=world.markets.__getitem__,
        topics=TOPICS,
        partitions=PARTITIONS,
        states=MemoryLeadStates(),
        report=found.append,
    )
    for where in sorted(world.kafka.records):
        auditor.take(world.kafka.records[where])
    auditor.finish(SimulatedTables(world), at_rest=True)
    for violation in found:
        if any(tuple(where) in evidence.too_large for where in violation.where):
            continue
        yield f"audit: {violation.rule}", f"{violation.what} ({', '.join(map(str, violation.where))})"


# The log and the tables


def check_log(evidence: Evidence) -> Iterator[Found]:
    """The topic is the table, byte for byte, repeats included, and a reader gets all of it."""
    tables = evidence.world.router
    for partition in range(PARTITIONS):
        for record in evidence.records(TOPICS.log, partition):
            seq = codec().decode_entry(record.value).seq
            row = tables.log.get((partition, seq))
            if row is None or row.value != record.value:
                yield (
                    "log is the table",
                    f"{partition}:{seq} at offset {record.offset} is not what was committed",
                )
        head = tables.heads[partition]
        read = [told.entry.seq for told in evidence.log if told.partition == partition]
        if read != list(range(1, head.seq + 1)):
            yield "log is whole", f"partition {partition}: readers get {len(read)} entries of {head.seq}"
        if head.seq and hash_of(tables.log[partition, head.seq].value) != head.hash:
            yield "log is whole", f"partition {partition}: the head has another hash than its last entry"


def check_closes(evidence: Evidence) -> Iterator[Found]:
    """Every accepted lead is listed once and closed once, none as failed."""
    listed, closed = _leads_with(evidence, LeadListed), _leads_with(evidence, LeadClosed)
    accepted = Counter(dict.fromkeys(evidence.world.intake.leads, 1))
    if listed != accepted:
        yield "accepted leads are listed once", f"{_differing(listed, accepted)}"
    if closed != listed:
        yield "listed leads are closed once", f"{_differing(closed, listed)}"
    tables = evidence.world.router
    rows = tables.closes.keys() | tables.archived.keys()
    if rows != closed.keys():
        yield "closes are the log's", f"{sorted(rows ^ closed.keys())[:3]}"
    for told in evidence.log:
        if any(isinstance(event, LeadClosed) and event.outcome is Outcome.FAILED for event in told.events):
            yield "no decision is refused by the database", f"lead {told.entry.lead_id} was closed as failed"


def check_auctions(evidence: Evidence) -> Iterator[Found]:
    """Each auction is closed once."""
    opened = _pairs(evidence, AuctionOpened)
    ended = _pairs(evidence, AuctionClosed)
    if opened != ended or any(count != 1 for count in opened.values()):
        yield "auctions are closed once", f"{_differing(opened, ended)}"


def _leads_with(evidence: Evidence, kind: type) -> Counter[str]:
    return Counter(
        told.entry.lead_id for told in evidence.log for event in told.events if isinstance(event, kind)
    )


def _pairs(evidence: Evidence, kind: type[AuctionOpened | AuctionClosed]) -> Counter[tuple[str, int]]:
    return Counter(
        (told.entry.lead_id, event.auction_number)
        for told in evidence.log
        for event in told.events
        if isinstance(event, kind)
    )


def _differing(one: Counter[T], other: Counter[T]) -> list[tuple[T, int, int]]:
    every = sorted(one.keys() | other.keys(), key=repr)
    return [(at, one[at], other[at]) for at in every if one[at] != other[at]][:3]


def check_sales(evidence: Evidence) -> Iterator[Found]:
    """Promises of a lead's sales, and the rows that hold them."""
    stored: dict[tuple[str, int], SaleRow] = dict(evidence.world.router.sales)
    for kept in evidence.world.router.archived.values():
        stored |= {(row.lead_id, row.sale_number): row for row in kept.sales}
    seen = set()
    for lead_id, history in evidence.by_lead.items():
        sold: list[tuple[int, LeadSold]] = []
        upgraded, closed = False, False
        for told in history:
            for event in told.events:
                if isinstance(event, LeadSold):
                    if upgraded or closed:
                        yield "nothing is sold after an upgrade or a close", lead_id
                    yield from _wrong_sale(lead_id, told.entry.decided_at_ms, event, sold)
                    sold.append((told.entry.decided_at_ms, event))
                elif isinstance(event, LeadUpgraded):
                    if len(sold) != 1 or upgraded or closed:
                        yield "an upgrade is the only holder's, once", lead_id
                    upgraded = True
                elif isinstance(event, LeadClosed):
                    closed = True
        for _, event in sold:
            row = stored.get((lead_id, event.sale_number))
            seen.add((lead_id, event.sale_number))
            mode = Mode.EXCLUSIVE if upgraded else event.mode
            told_row = (event.buyer_id, event.order_id, mode, event.sales_max, event.price_cents)
            if (
                row is None
                or (row.buyer_id, row.order_id, row.mode, row.sales_max, row.price_cents) != told_row
            ):
                yield "sales are the log's", f"{lead_id} sale {event.sale_number}"
    if stored.keys() != seen:
        yield "sales are the log's", f"{sorted(stored.keys() ^ seen)[:3]}"


def check_consent(evidence: Evidence) -> Iterator[Found]:
    """Whom a submission says that its person consented to, is all that are asked for the lead or hold it."""
    seed = evidence.world.seed
    consented = {
        lead_id_of(source_of(seed, number), f"ref-{number}"): consented_buyers(seed, number)
        for number in range(evidence.submitted)
    }
    for lead_id, history in evidence.by_lead.items():
        named = consented.get(lead_id)
        reached = {buyer for told in history for event in told.events for buyer in _reached(event)}
        if named is not None and not reached <= named:
            yield "only with consent", f"{lead_id}: {sorted(reached - named)} beside {sorted(named)}"


def _reached(event: Event) -> Sequence[str]:
    match event:
        case OfferMade() | LeadSold() | LeadUpgraded():
            return (event.buyer_id,)
        case AuctionOpened():
            return [invited.buyer_id for invited in event.invited]
        case _:
            return ()


def check_erasures(evidence: Evidence) -> Iterator[Found]:
    """Who asked to be forgotten is: its details are gone, nothing is sold after, and each holder was asked."""
    world = evidence.world
    asked, answered = set[tuple[str, str]](), set[tuple[str, str]]()
    erased = set[str]()
    for lead_id, history in evidence.by_lead.items():
        for event in (event for told in history for event in told.events):
            match event:
                case LeadErased(holders=holders):
                    erased.add(lead_id)
                    asked |= {(lead_id, buyer) for buyer in holders}
                    answered -= {(lead_id, buyer) for buyer in holders}
                case ErasureAcknowledged(buyer_id=buyer):
                    answered.add((lead_id, buyer))
                case LeadSold() if lead_id in erased:
                    yield "nothing is sold of who is forgotten", lead_id
                case _:
                    pass
    commands = [
        codec().decode(record.value)
        for at in range(PARTITIONS)
        for record in evidence.records(TOPICS.commands, at)
    ]
    if erased != {command.lead_id for command in commands if isinstance(command, EraseLead)}:
        yield "whoever asks is forgotten", f"{len(erased)} leads"
    if kept := erased & world.intake.details.keys():
        yield "the vault forgets", f"{sorted(kept)[:3]}"
    if world.router.erasures.keys() != asked or world.router.acknowledged.keys() != answered:
        yield "erasures are the log's", f"{len(asked)} asked, {len(answered)} answered"


def _wrong_sale(
    lead_id: str, at_ms: int, event: LeadSold, before: Sequence[tuple[int, LeadSold]]
) -> Iterator[Found]:
    if event.sale_number != len(before) + 1:
        yield "sales are numbered from 1", f"{lead_id} has a sale {event.sale_number}"
    if event.sale_number > min(event.sales_max, *(sale.sales_max for _, sale in before), 10):
        yield "never more than sales_max", f"{lead_id} sale {event.sale_number} of {event.sales_max}"
    if event.buyer_id in {sale.buyer_id for _, sale in before}:
        yield "never the same buyer twice", f"{lead_id}, {event.buyer_id}"
    if event.holders != tuple(sale.buyer_id for _, sale in before):
        yield "a buyer is told who holds the lead", f"{lead_id} sale {event.sale_number}: {event.holders}"
    if not before:
        return
    if event.mode is Mode.EXCLUSIVE:
        yield "exclusive is the first", lead_id
    first = before[0][1]
    if first.mode is Mode.EXCLUSIVE and (
        first.exclusive_until_ms is None or at_ms < first.exclusive_until_ms
    ):
        yield "nothing beside an exclusive sale", f"{lead_id} sale {event.sale_number} at {at_ms}"
    last = before[-1][1]
    if not last.others_may_follow or (last.others_from_ms is not None and at_ms < last.others_from_ms):
        yield "others follow as promised", f"{lead_id} sale {event.sale_number} at {at_ms}"
    if event.held_since_ms != before[0][0]:
        yield "a buyer is told since when", f"{lead_id} sale {event.sale_number}: {event.held_since_ms}"


def check_limits(evidence: Evidence) -> Iterator[Found]:
    """Counters are the sum of what the log draws, and none is over its limit."""
    used: Counter[str] = Counter()
    granted: Counter[str] = Counter()
    moves: Counter[tuple[str, str]] = Counter()
    for told in evidence.log:
        for event in told.events:
            if isinstance(event, _DRAWING):
                for draw in event.draws:
                    used[draw.counter] += draw.amount
                    granted[draw.counter] += draw.granted
            if isinstance(event, MoneyMoved):
                moves[told.entry.lead_id, event.reference] += 1
    rows = evidence.world.router.counters
    for name in sorted(used.keys() | granted.keys() | rows.keys()):
        row = rows.get(name)
        if (row.used if row else 0, row.granted if row else 0) != (used[name], granted[name]):
            yield (
                "counters are the sum of the log",
                f"{name}: {row}, the log says {used[name]}, {granted[name]}",
            )
        if row and not 0 <= row.used <= row.most + row.granted + row.shortfall:
            yield "no limit is exceeded", f"{row}"
    twice = [move for move, count in moves.items() if count > 1]
    if twice or {(row.account_id, row.reference) for row in evidence.world.router.money} != moves.keys():
        yield "money is moved once for a reference", f"{twice}"


_DRAWING = (LeadSold, LeadUpgraded, ReturnApproved, DeliveryFailed, MoneyMoved)


def check_execution(evidence: Evidence) -> Iterator[Found]:
    """Each decision executed again is the same to the byte, and the states stored are the log's fold."""
    tables = evidence.world.router
    for lead_id, history in evidence.by_lead.items():
        state: State = None
        try:
            steps = list(steps_of([(told.entry, told.events) for told in history]))
            for told, step in zip(history, steps, strict=True):
                subject = own_input(step) or _input(evidence, told)
                again = execute(step, subject, evidence.world.indexed)
                found = difference(step, again, lambda event, _: codec().encode_body(event).body)
                if found is not None:
                    yield "decisions can be executed again", f"{_place(told)} of lead {lead_id}: {found}"
                state = evolve(step.before, lead_id, told.events, told.entry.decided_at_ms)
        except DoesNotFollow as error:
            yield "decisions can be executed again", f"lead {lead_id}: {error}"
            continue
        archived = tables.archived.get(lead_id)
        stored = tables.leads.get(lead_id) if archived is None else archived.state
        if stored != (None if state is None else state_bytes(state)):
            yield "states are the log's fold", lead_id


_TOPICS = {
    CauseKind.QUALIFIED: TOPICS.qualified,
    CauseKind.COMMAND: TOPICS.commands,
    CauseKind.TIMER: TOPICS.timers,
}


def _input(evidence: Evidence, told: Told) -> Input:
    cause = told.entry.cause
    record = evidence.records(_TOPICS[cause.kind], told.partition)[cause.offset]
    subject: Input = codec().decode(record.value)
    return subject


def _place(told: Told) -> str:
    return f"{told.partition}:{told.entry.seq}"


def check_causes(evidence: Evidence) -> Iterator[Found]:
    """No input is decided twice, each is of its lead, and what was answered late counts for nothing."""
    seen: set[tuple[CauseKind, int, int]] = set()
    for told in evidence.log:
        cause = told.entry.cause
        if cause.kind is CauseKind.ROUTER:
            continue
        at = (cause.kind, told.partition, cause.offset)
        if at in seen:
            yield "no input is decided twice", f"{_place(told)}: {cause}"
        seen.add(at)
        subject = _input(evidence, told)
        if subject.lead_id != told.entry.lead_id:
            yield "an entry is about its input's lead", f"{_place(told)}: {cause}"
    yield from _late_answers(evidence)
    yield from _early_timers(evidence)


def _late_answers(evidence: Evidence) -> Iterator[Found]:
    for lead_id, history in evidence.by_lead.items():
        offers: dict[int, OfferMade] = {}
        auctions: dict[int, AuctionOpened] = {}
        for told in history:
            sold = any(isinstance(event, LeadSold) for event in told.events)
            for event in told.events:
                if isinstance(event, OfferMade):
                    offers[event.offer_number] = event
                elif isinstance(event, AuctionOpened):
                    auctions[event.auction_number] = event
            if told.entry.cause.kind is not CauseKind.COMMAND or not sold:
                continue
            subject = _input(evidence, told)
            if isinstance(subject, AcceptOffer):
                offer = offers.get(subject.offer_number)
                if (
                    offer is None
                    or offer.buyer_id != subject.buyer_id
                    or subject.answered_at_ms > offer.answer_by_ms
                ):
                    yield (
                        "an offer is accepted in time by whom it was made to",
                        f"{_place(told)} of lead {lead_id}",
                    )
            elif isinstance(subject, PlaceBid):
                auction = auctions.get(subject.auction_number)
                if auction is None or subject.answered_at_ms > auction.bids_until_ms:
                    yield "a bid wins in time", f"{_place(told)} of lead {lead_id}"


def _early_timers(evidence: Evidence) -> Iterator[Found]:
    """A window ends by its timer when it is due, not before; nor is one sent before, while the clocks go right."""
    due_ms: dict[tuple[str, int], int] = {}
    for told in evidence.log:
        lead_id = told.entry.lead_id
        for event in told.events:
            if isinstance(event, WindowOpened):
                due_ms[lead_id, event.window_number] = event.due_at_ms
        if told.entry.cause.kind is CauseKind.TIMER:
            subject = _input(evidence, told)
            assert isinstance(subject, TimerDue)
            closes = [event.window_number for event in told.events if isinstance(event, WindowClosed)]
            at = (lead_id, subject.window_number)
            if subject.window_number in closes and told.entry.decided_at_ms < due_ms.get(at, 0):
                yield "windows end when they are due", f"{_place(told)} of lead {lead_id}"
    if evidence.had(FaultKind.CLOCK_STEP, FaultKind.CLOCK_LEAP):
        return
    for partition in range(PARTITIONS):
        for record in evidence.records(TOPICS.timers, partition):
            timer = codec().decode(record.value)
            if record.timestamp_ms < due_ms.get((timer.lead_id, timer.window_number), 0):
                yield "timers are sent when due", f"{partition}, offset {record.offset}"


# What outsiders were told


def check_told(evidence: Evidence) -> Iterator[Found]:
    """What follows from the log was told, to whom it concerns and nobody else, each time in the same words."""
    due = {
        (_topic(outgoing), f"{told.partition}:{told.entry.seq}:{outgoing.n}"): (told, outgoing)
        for told, outgoing in evidence.told
    }
    seen: dict[tuple[str, str], Record] = {}
    for topic in _outside():
        for record in evidence.records(topic):
            headers = dict(record.headers)
            if headers.get("ce_source") != b"gavel/router":
                continue
            at = (topic, headers["ce_id"].decode())
            if at not in due:
                yield (
                    "nothing is told but what follows from the log",
                    f"{topic}, offset {record.offset}: {at[1]}",
                )
            elif at in seen:
                first = seen[at]
                if (first.key, first.value, first.headers) != (record.key, record.value, record.headers):
                    yield "a repeat is the same to the byte", f"{topic}: {at[1]}"
            else:
                seen[at] = record
                yield from _wrong_record(evidence, record, *due[at])
    missing = due.keys() - seen.keys()
    failed = {
        event.sale_id for told in evidence.log for event in told.events if isinstance(event, DeliveryFailed)
    }
    for at in sorted(missing):
        _, outgoing = due[at]
        is_failed = outgoing.sale_number is not None and outgoing.body["sale_id"] in failed
        is_lost = outgoing.sale_number is None and (
            at in evidence.too_large or not _is_known(evidence.world, outgoing)
        )
        if not is_failed and not is_lost:
            yield "everything is told", f"{at[0]}: {at[1]} {outgoing.type}"


def _is_known(world: World, outgoing: Outgoing) -> bool:
    """Tell whether the recipient was a part of every market: of one that was not, nobody need be told."""
    return all(
        outgoing.recipient
        in (market.sources if outgoing.channel is Channel.SOURCE_RECEIPTS else market.buyers)
        for market in world.markets.values()
    )


def _topic(outgoing: Outgoing) -> str:
    match outgoing.channel:
        case Channel.BUYER_LEADS:
            return TOPICS.buyer_leads(outgoing.recipient)
        case Channel.BUYER_PINGS:
            return TOPICS.buyer_pings(outgoing.recipient)
        case Channel.SOURCE_RECEIPTS:
            return TOPICS.source_receipts(outgoing.recipient)


def _outside() -> list[str]:
    topics = [of(buyer) for buyer in BUYERS for of in (TOPICS.buyer_leads, TOPICS.buyer_pings)]
    return topics + [TOPICS.source_receipts(source) for source in SOURCES]


def _wrong_record(evidence: Evidence, record: Record, told: Told, outgoing: Outgoing) -> Iterator[Found]:
    """Hold one record against the events themselves."""
    if record.key != told.entry.lead_id.encode():
        yield "a record has its lead's key", f"{record.topic}, offset {record.offset}"
    if outgoing.sale_number is None:
        return
    body = read_body(record.value or b"")
    sold = next(
        event
        for event in told.events
        if isinstance(event, LeadSold) and event.sale_number == outgoing.sale_number
    )
    upgraded = any(isinstance(event, LeadUpgraded) for event in told.events)
    terms = body["terms"]
    expected = {
        "sale_id": sold.sale_id,
        "lead_id": told.entry.lead_id,
        "price": decimal_amount(sold.price_cents),
        "order": sold.order_id,
        "mode": Mode.EXCLUSIVE if upgraded else sold.mode,
        "sale_number": sold.sale_number,
        "sales_max": sold.sales_max,
        "exclusive": upgraded or sold.mode is Mode.EXCLUSIVE,
    }
    said = {name: {**body, **terms}[name] for name in expected}
    if said != expected or record.topic != TOPICS.buyer_leads(sold.buyer_id):
        yield (
            "a delivery says what was sold",
            f"{record.topic}, offset {record.offset}: {said}, not {expected}",
        )
    sealed = evidence.world.vault.read([told.entry.lead_id])
    if sealed and body["lead"] != orjson.loads(sealed[told.entry.lead_id]):
        yield "a delivery has the lead's own details", f"{record.topic}, offset {record.offset}"


def check_intake(evidence: Evidence) -> Iterator[Found]:
    """Whatever outsiders sent was answered or put aside; what was accepted is in the tables, and only that."""
    world = evidence.world
    accepted = set()
    answered: set[tuple[str, str]] = set()
    for source in SOURCES:
        for record in evidence.records(TOPICS.source_receipts(source)):
            headers = dict(record.headers)
            if headers["ce_source"] != b"gavel/intake":
                continue
            partition, offset, _ = headers["ce_id"].decode().split(":")
            answered.add((TOPICS.source_leads(source), f"{partition}:{offset}"))
            body = orjson.loads(record.value or b"")
            if body["happened"][0]["type"] == "accepted":
                accepted.add(body["lead_id"])
    lost = {
        (topic.replace(".receipts", ".leads"), ce_id.rpartition(":")[0])
        for topic, ce_id in evidence.too_large
        if topic.endswith(".receipts") and not ce_id.rpartition(":")[2].isdigit()
    }
    unheard_of = {
        row.lead_id
        for row in world.intake.leads.values()
        if (TOPICS.source_leads(row.source_id), f"{row.origin_partition}:{row.origin_offset}") in lost
    }
    if accepted - world.intake.leads.keys() or world.intake.leads.keys() - accepted - unheard_of:
        yield "receipts say what was accepted", f"{sorted(accepted ^ world.intake.leads.keys())[:3]}"
    for where in world.units("intake"):
        dead = {
            dict(record.headers)["dlq.errors.offset"].decode()
            for record in evidence.records(TOPICS.dead_letters(where.topic), where.partition)
        }
        for record in evidence.records(*where):
            place = f"{where.partition}:{record.offset}"
            if str(record.offset) in dead or (TOPICS.dead_letters(where.topic), place) in evidence.too_large:
                continue
            if where.topic.startswith("sources."):
                if (where.topic, place) not in answered | lost:
                    yield "every submission is answered", f"{where}, offset {record.offset}"
            else:
                yield from _unheard(evidence, record)
    sealed = world.intake.details.keys()
    erased = _leads_with(evidence, LeadErased).keys()
    gone = world.intake.leads.keys() - sealed - erased
    if sealed - world.intake.leads.keys() or (gone and not evidence.had(FaultKind.VAULT_GONE)):
        yield "the vault has the accepted leads", f"{sorted(gone)[:3]}"
    emitted = {record.value for at in range(PARTITIONS) for record in evidence.records(TOPICS.qualified, at)}
    if emitted != {row.record for row in world.intake.leads.values()}:
        yield (
            "what is emitted is what was stored",
            f"{len(emitted)} records of {len(world.intake.leads)} leads",
        )


def _unheard(evidence: Evidence, record: Record) -> Iterator[Found]:
    try:
        answer = read_answer(
            record.value, buyer_id=record.topic.split(".")[1], answered_at_ms=record.timestamp_ms
        )
    except Undecodable:
        yield "what nobody can read is put aside", f"{record.topic}, offset {record.offset}"
        return
    value = codec().encode(answer)
    if not any(
        value == command.value
        for at in range(PARTITIONS)
        for command in evidence.records(TOPICS.commands, at)
    ):
        yield "every answer is passed on", f"{record.topic}, offset {record.offset}"


# Projections


def check_ledger(evidence: Evidence) -> Iterator[Found]:
    """The ledger made again from the first entry is the same, and it balances."""
    ledger = MemoryLedger()
    reader = LogReader(Billing(ledger, codec()), codec(), topic=TOPICS.log, monotonic_s=lambda: 0.0)
    reader.take_over([TopicPartition(TOPICS.log, at) for at in range(PARTITIONS)])
    for partition in range(PARTITIONS):
        reader.handle(evidence.records(TOPICS.log, partition))
    again, kept = ledger.tables, evidence.world.ledger.tables
    for name in ("leads", "sales", "sale_numbers", "returns", "transfers", "totals"):
        if getattr(again, name) != getattr(kept, name):
            yield "the ledger made again is the same", name
    yield from _wrong_money(evidence, kept)


def _wrong_money(evidence: Evidence, kept: LedgerTables) -> Iterator[Found]:
    """Each amount that the log tells is moved once and nothing else is; what goes back is within what came."""
    told = Counter(
        fact
        for told in evidence.log
        for event in told.events
        for fact in _money_of(told.entry.lead_id, event)
        if fact[2]
    )
    moved = Counter(
        (
            row.kind.value,
            row.sale_id or row.lead_id or row.reference,
            row.amount_cents,
            row.debit_account,
            row.credit_account,
        )
        for row in kept.transfers.values()
    )
    if told != moved:
        yield "money moves as the log tells", f"{_differing(told, moved)}"
    balance: Counter[str] = Counter()
    for total, amounts in kept.totals.items():
        balance[total.currency] += amounts.debits_cents - amounts.credits_cents
    if any(balance.values()):
        yield "the ledger balances", f"{balance}"


def _money_of(lead_id: str, event: Event) -> Iterator[tuple[str, str | None, int, str, str]]:
    if getattr(event, "is_test", False):
        return
    match event:
        case LeadListed(source_id=source, payout_cents=cents):
            yield "payout", lead_id, cents, f"payouts:{source}", f"source:{source}"
        case LeadSold(sale_id=sale, buyer_id=buyer, source_id=source):
            yield "sale_charge", sale, event.price_cents, f"buyer:{buyer}", f"revenue:{source}"
            yield "payout", sale, event.payout_cents, f"payouts:{source}", f"source:{source}"
        case LeadUpgraded(sale_id=sale, buyer_id=buyer, source_id=source):
            yield "upgrade_fee", sale, event.fee_cents, f"buyer:{buyer}", f"revenue:{source}"
            yield "payout", sale, event.payout_cents, f"payouts:{source}", f"source:{source}"
        case DeliveryFailed(sale_id=sale, buyer_id=buyer, source_id=failed_source):
            yield (
                "failed_delivery_credit",
                sale,
                event.price_cents,
                "allowance:failed_delivery",
                f"buyer:{buyer}",
            )
            yield (
                "payout_reversal",
                sale,
                event.payout_cents,
                f"source:{failed_source}",
                f"payouts:{failed_source}",
            )
        case ReturnApproved(sale_id=sale, buyer_id=buyer, source_id=source):
            yield "return_credit", sale, event.price_cents, "allowance:return", f"buyer:{buyer}"
            yield "payout_reversal", sale, event.payout_cents, f"source:{source}", f"payouts:{source}"
        case MoneyMoved(buyer_id=buyer, amount_cents=cents):
            ours = "cash:deposits" if event.kind == "deposit" else "allowance:adjustment"
            path = (ours, f"buyer:{buyer}") if cents > 0 else (f"buyer:{buyer}", ours)
            yield (event.kind.value, event.reference, abs(cents), *path)
        case _:
            pass


def check_feed(evidence: Evidence) -> Iterator[Found]:
    """The flat feed has every event of the log and nothing else."""
    for partition in range(PARTITIONS):
        told = Counter(
            (one.entry.lead_id.encode(), framed(event))
            for one in evidence.log
            if one.partition == partition
            for event in one.entry.events
        )
        fed = Counter((record.key, record.value) for record in evidence.records(TOPICS.events, partition))
        if fed.keys() != told.keys() or any(fed[at] < count for at, count in told.items()):
            yield "the feed is the log", f"partition {partition}"


# Secrecy


_CANARY = re.compile(rb"canary ?(?:consent )?(\d+)", re.IGNORECASE)


def check_secrecy(evidence: Evidence) -> Iterator[Found]:
    """No canary is anywhere but with its source and its buyers, and sealed."""
    world = evidence.world
    for where, records in sorted(world.kafka.records.items()):
        yield from _spilled(where, records)
    router, ledger = world.router, world.ledger.tables
    for name, rows in (
        (
            "router",
            [router.leads, router.log, router.sales, router.counters, router.money, router.undelivered],
        ),
        ("billing", [ledger.leads, ledger.sales, ledger.transfers, ledger.totals]),
        ("resale", [world.windows]),
        (
            "intake",
            [world.intake.leads, world.intake.fingerprints, world.intake.details, world.intake.consents],
        ),
    ):
        if any("canary" in repr(table).lower() for table in rows):
            yield "no table has personal data but the vault, sealed", name
    for line in evidence.logged:
        if "canary" in line.lower():
            yield "no log of the application has personal data", "a line of the application's log"


def _spilled(where: TopicPartition, records: Sequence[Record]) -> Iterator[Found]:
    topic = where.topic
    owned = topic.removesuffix(".dlq").endswith((".leads", ".answers")) and not topic.startswith("leads.")
    buys = topic.startswith("buyers.") and topic.endswith(".leads")
    for record in records:
        value = record.value or b""
        ours = buys or not owned
        if ours and any(b"canary" in part.lower() for _, part in record.headers):
            yield "no header has personal data", f"{topic}, offset {record.offset}"
        if b"canary" in (record.key or b"").lower():
            yield "no key has personal data", f"{topic}, offset {record.offset}"
        if not owned and b"canary" in value.lower():
            yield "personal data is where it may be", f"{topic} {where.partition}, offset {record.offset}"


def check_rest(evidence: Evidence) -> Iterator[Found]:
    """Nothing is left to do."""
    world = evidence.world
    if world.router.auctions or world.router.undelivered or world.windows:
        yield "nothing is left", "auctions, undelivered records or windows"


Check: TypeAlias = Callable[[Evidence], Iterator[Found]]

_FOUNDATIONS: tuple[Check, ...] = (check_log,)
CHECKS: tuple[Check, ...] = (
    audited,
    check_log,
    check_closes,
    check_auctions,
    check_sales,
    check_consent,
    check_erasures,
    check_limits,
    check_execution,
    check_causes,
    check_told,
    check_intake,
    check_ledger,
    check_feed,
    check_secrecy,
    check_rest,
)
"""In this order."""
