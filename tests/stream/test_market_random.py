"""A whole market at random: two routers that die, come back and overtake each other, buyers that answer or don't.

Everything that a market has meets here: caps, accounts, auctions, offers, upgrades, returns, market versions. What must
hold in the end, whatever happened: each lead is closed once, each auction too, no promise is broken, the counters are
what the log says was drawn, and each decision, executed again, is the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import pytest

from services.bus.memory import Crash, Faults, MemoryHost
from services.bus.ports import Message, TopicPartition, Unacknowledged
from services.contract.codec import codec
from services.contract.entries import CauseKind, Entry
from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    Disposition,
    Draw,
    Event,
    FailureReason,
    LeadClosed,
    LeadListed,
    LeadSold,
    LeadUpgraded,
    MoneyKind,
    MoneyMoved,
    NoBidReason,
    RejectionReason,
    ReturnReason,
    WithdrawalReason,
)
from services.contract.ids import account_id_of
from services.contract.inputs import (
    AcceptOffer,
    Command,
    DecideReturn,
    DeclineToBid,
    Input,
    MoveMoney,
    PlaceBid,
    QualifiedLead,
    RejectOffer,
    ReportDisposition,
    ReturnLead,
    TimerDue,
    UpgradeSale,
    WithdrawLead,
)
from services.contract.market import (
    Account,
    Cap,
    KeepTrying,
    Market,
    Mode,
    OpenHours,
    Order,
    Paid,
    Period,
    Returns,
    Selection,
    Sell,
    ShareOfRevenue,
    Unit,
    Upgrade,
)
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from services.router import course, memory_store
from services.router.auction_clock import AuctionClock
from services.router.batch import Caused
from services.router.chain import Chain
from services.router.domain import Decision
from services.router.execution import difference, execute, own_input, steps_of
from services.router.faults import StartAgain, TryAgain
from services.router.lead import Lead, Returning, State, evolve
from services.router.markets import IndexedMarkets
from services.router.ports import NEVER_CLOSED, CounterDraw, CounterRow, SaleRow
from services.router.state_bytes import state_bytes, state_of
from tests.support.deciding import (
    bid_stage,
    either_stage,
    exclusive_stage,
    lead,
    market,
    order,
    plan,
    shared_stage,
)
from tests.support.routing import PARTITIONS, TOPICS, World, world

pytestmark = pytest.mark.stream

SEEDS = range(20)
ROUNDS = 60
ROUNDS_TO_END_MAX = 300

# The market, and what becomes of it


def _cap(unit: Unit, period: Period, most: int) -> Cap:
    return Cap(unit=unit, period=period, most=most)


FEW_AN_HOUR = _cap(Unit.LEADS, Period.HOUR, 3)
UPGRADE = Upgrade(per_slot_cents=3_750, within_ms=2 * MINUTE_MS)
AGAIN = KeepTrying(every_ms=10 * MINUTE_MS, for_ms=HOUR_MS)
PLANS = (
    plan(
        exclusive_stage(9_000, accept_within_ms=MINUTE_MS, exclusive_for_ms=2 * HOUR_MS, keep_trying=AGAIN),
        shared_stage(3_000, 2_500),
        shared_stage(600, wait_ms=3 * HOUR_MS),
        name="staggered",
        share_basis_points=2_000,
        expires_after_ms=8 * HOUR_MS,
    ),
    plan(shared_stage(4_500, 4_000, 3_500, upgrade=UPGRADE), name="upgraded", share_basis_points=2_500),
    plan(
        shared_stage(4_500, 4_000, upgrade=UPGRADE, accept_within_ms=MINUTE_MS, keep_trying=AGAIN),
        name="offered",
        share_basis_points=2_500,
        expires_after_ms=HOUR_MS,
    ),
    plan(
        bid_stage(Sell.EITHER, exclusive=5_000, shared=1_800, exclusive_for_ms=HOUR_MS),
        bid_stage(Sell.SHARED, shared=1_000, keep_trying=AGAIN),
        shared_stage(1_500),
        name="auction",
        share_basis_points=5_000,
        expires_after_ms=6 * HOUR_MS,
    ),
    plan(
        bid_stage(
            Sell.EITHER,
            shared=1_000,
            exclusive=4_000,
            selection=Selection.FIRST_BID,
            only=("b", "g"),
            keep_trying=AGAIN,
        ),
        either_stage(7_500, 2_200),
        name="first",
    ),
)
ORDERS: tuple[Order, ...] = (
    order("a", exclusive=9_500, shared="list", caps=(FEW_AN_HOUR, _cap(Unit.SPEND, Period.DAY, 90_000))),
    order(
        "a", exclusive="bid", shared="bid", name="bids", priority=1, caps=(_cap(Unit.LEADS, Period.DAY, 9),)
    ),
    order("b", exclusive="bid", shared="bid", caps=(_cap(Unit.SPEND, Period.HOUR, 20_000),)),
    order(
        "c",
        exclusive="list",
        shared="list",
        upgrade_always=True,
        caps=(_cap(Unit.SPEND, Period.WEEK, 70_000),),
    ),
    order("d", exclusive=6_000, shared="bid", caps=(_cap(Unit.LEADS, Period.TOTAL, 25),)),
    order("e", shared=4_600, open=(OpenHours(days=tuple(range(7)), from_minute=0, to_minute=18 * 60),)),
    order("f", exclusive="list", shared="list", caps=(_cap(Unit.LEADS, Period.MONTH, 12),)),
    order("g", exclusive="bid", shared="bid", caps=(_cap(Unit.LEADS, Period.DAY, 12),)),
)
ACCOUNTS = {"b": 60_000, "c": 0, "d": 100_000, "f": 30_000}
BUYERS = ("a", "b", "c", "d", "e", "f", "g")


def _market(version: int = 1, *orders: Order) -> Market:
    given = market(*PLANS, orders=orders or ORDERS, version=version)
    solar = replace(
        given.lead_types["solar"],
        returns=Returns(
            within_ms=DAY_MS, reasons=("wrong_person",), quota_basis_points=2_500, automatic=version % 2 == 1
        ),
    )
    buyers = {
        id: replace(
            buyer,
            account=Account(credit_limit_cents=ACCOUNTS[id]) if id in ACCOUNTS else None,
            pings_per_minute=20 if id == "d" else None,
        )
        for id, buyer in given.buyers.items()
    }
    paid = Paid(by=ShareOfRevenue(basis_points=6_000), back_on_return=True)
    source = replace(given.sources["sunform"], paid=paid)
    return replace(given, lead_types={"solar": solar}, buyers=buyers, sources={"sunform": source})


def _changed(given: Market, rng: Random) -> Market:
    """Let one thing be otherwise from here on."""
    version = given.version + 1
    fresh = _market(version)
    buyer_id = rng.choice(BUYERS)
    buyer = fresh.buyers[buyer_id]
    first, *others = buyer.orders
    lower = tuple(replace(cap, most=cap.most // rng.choice((2, 3))) for cap in first.caps)
    changes = (
        lambda: replace(buyer, paused=True),
        lambda: replace(buyer, timezone="Asia/Tokyo"),
        lambda: replace(buyer, account=Account(credit_limit_cents=rng.choice((0, 10_000, 500_000)))),
        lambda: replace(buyer, account=None),
        lambda: replace(buyer, orders=(replace(first, caps=lower), *others)),
        lambda: replace(buyer, orders=tuple(others)),
        lambda: replace(buyer, orders=(replace(first, upgrade_always=not first.upgrade_always), *others)),
        lambda: buyer,
    )
    changed = rng.choice(changes)()
    buyers = {**fresh.buyers, buyer_id: changed}
    if rng.random() < 0.1:
        buyers.pop(buyer_id)
    return replace(fresh, buyers=buyers)


# Those who work, and die


@dataclass(slots=True, kw_only=True)
class _Unruly(Faults):
    """Crashes somewhere, loses its database now and then, and lets others act just before a commit is compared."""

    rng: Random
    meanwhile: Callable[[], None]

    def edge(self, name: str) -> None:
        """See `Faults`."""
        Faults.edge(self, name)
        if name in ("commit", "lock"):
            self.meanwhile()
            if self.rng.random() < 0.03:
                raise TryAgain
        elif name == "committed" and self.rng.random() < 0.03:
            raise StartAgain


@dataclass(slots=True)
class Fleet:
    """Two routers, their zombies, and the rebalances between them."""

    given: World
    rng: Random
    hosts: list[MemoryHost] = field(default_factory=list)
    zombies: list[MemoryHost] = field(default_factory=list)
    busy: list[MemoryHost] = field(default_factory=list)

    def turn(self) -> None:
        """Let somebody work; a worker that dies is followed by another."""
        if not self.hosts or self.rng.random() < 0.03:
            self.rebalance()
        every = [*self.hosts, *self.zombies[-2:]] if self.rng.random() < 0.2 else self.hosts
        self._let_work(self.rng.choice(every))

    def rebalance(self) -> None:
        """Give the partitions to other workers; those before may know nothing of it yet."""
        self.zombies += self.hosts
        self.hosts = []
        split = [[at] for at in range(PARTITIONS)] if self.rng.random() < 0.7 else [list(range(PARTITIONS))]
        for partitions in split:
            self._start(partitions)

    def finish(self) -> None:
        """Let nobody die any more, until nothing is left to do."""
        self.zombies, self.hosts = [], [self.given.worker()]

    def _start(self, partitions: list[int]) -> None:
        crash_at = self.rng.randint(1, 400) if self.rng.random() < 0.8 else None
        faults = _Unruly(crash_at=crash_at, rng=self.rng, meanwhile=self._meanwhile)
        try:
            host = self.given.worker(faults, partitions=partitions)
        except Crash:
            return self._start(partitions)
        host.batch_max = self.rng.choice((1, 3, 20, 500))
        self.hosts.append(host)

    def _let_work(self, host: MemoryHost) -> None:
        self.busy.append(host)
        try:
            host.turn()
        except Crash:
            partitions = sorted({where.partition for where in host.positions})
            if any(host is other for other in self.hosts):
                self.hosts = [other for other in self.hosts if other is not host]
                self._start(partitions)
            else:
                self.zombies = [other for other in self.zombies if other is not host]
        finally:
            self.busy.pop()

    def _meanwhile(self) -> None:
        idle = [host for host in (*self.hosts, *self.zombies[-1:]) if not any(host is at for at in self.busy)]
        if len(self.busy) == 1 and idle and self.rng.random() < 0.1:
            self._let_work(self.rng.choice(idle))


# Those who send and answer


@dataclass(slots=True)
class Outsiders:
    """Sources, buyers and operators, who do anything that they may, and what they may not."""

    given: World
    rng: Random
    leads: list[QualifiedLead] = field(default_factory=list)
    references: int = 0

    @property
    def now_ms(self) -> int:
        """The time."""
        return self.given.clock.now_ms

    def act(self) -> None:
        """Do something."""
        what = self.rng.choices(
            (
                self._submit,
                self.answer,
                self._ask_back,
                self._move_money,
                self._withdraw,
                self._let_time_pass,
                self._apply,
            ),
            (5, 8, 3, 2, 0.5, 4, 0.7),
        )[0]
        what()

    def say_what_is_due(self, *, at_random: bool = True) -> int:
        """Send timers as resale does: when due, again, and now and then too early."""
        sent = [
            TimerDue(lead_id=item.lead_id, window_number=window.number)
            for item in self._open()
            for window in item.windows
            if (window.due_at_ms <= self.now_ms and (not at_random or self.rng.random() < 0.7))
            or (at_random and self.rng.random() < 0.02)
        ]
        self.given.send(*sent)
        return len(sent)

    def _submit(self) -> None:
        for _ in range(self.rng.randint(1, 5)):
            item = lead(
                f"lead-{len(self.leads)}",
                received_at_ms=self.now_ms,
                market_version=self.given.market.version,
                is_test=self.rng.random() < 0.1,
                never_to=("f",) if self.rng.random() < 0.1 else (),
                sales_max=self.rng.choice((None, None, None, 1, 2)),
            )
            self.leads.append(item)
            if len(self.leads) == 7:
                self._plant_a_sale(item)
            self.given.send(item)
            if self.rng.random() < 0.05:
                self.given.send(item)
            if self.rng.random() < 0.03:
                self.given.vault.rows.pop(item.lead_id)

    def _plant_a_sale(self, item: QualifiedLead) -> None:
        """The database knows a sale that the state does not: whatever is decided for this lead is refused."""
        row = SaleRow(item.lead_id, 1, "planted", "planted/all", Mode.SHARED, 9, 1, self.now_ms, NEVER_CLOSED)
        self.given.tables.sales[item.lead_id, 1] = row

    def _open(self) -> list[Lead]:
        states = (state_of(data) for data in self.given.tables.leads.values())
        return [item for item in states if isinstance(item, Lead) and item.outcome is None]

    def answer(self) -> None:
        for item in self._open():
            if item.auction is not None:
                self._bid(item)
            if item.offer is not None and self.rng.random() < 0.7:
                self._answer_offer(item)
            if len(item.sales) == 1 and self.rng.random() < 0.2:
                self._send(UpgradeSale, item, self._holder(item), answered_at_ms=self.now_ms)

    def _bid(self, item: Lead) -> None:
        assert item.auction is not None
        for asked in item.auction.invited:
            if self.rng.random() < 0.4:
                continue
            buyer_id = asked.buyer_id if self.rng.random() < 0.95 else self.rng.choice(BUYERS)
            number = item.auction.number if self.rng.random() < 0.95 else self.rng.randint(0, 3)
            at_ms = item.auction.bids_until_ms + self.rng.choice((-400, -100, 0, 0, 1))
            if self.rng.random() < 0.2:
                self._send(
                    DeclineToBid,
                    item,
                    buyer_id,
                    auction_number=number,
                    reason=NoBidReason.PRICE,
                    answered_at_ms=at_ms,
                )
                continue
            prices = {
                "exclusive_cents": self.rng.choice((None, 3_000, 5_000, 8_000, 9_000)),
                "shared_cents": self.rng.choice((None, 900, 1_800, 3_000)),
            }
            self._send(PlaceBid, item, buyer_id, auction_number=number, answered_at_ms=at_ms, **prices)

    def _answer_offer(self, item: Lead) -> None:
        offer = item.offer
        assert offer is not None
        if self.rng.random() < 0.7:
            at_ms = self.rng.choice((offer.answer_by_ms, self.now_ms, offer.answer_by_ms + 1))
            self._send(
                AcceptOffer, item, offer.buyer_id, offer_number=offer.offer_number, answered_at_ms=at_ms
            )
        else:
            number = self.rng.choice((offer.offer_number, offer.offer_number + 1))
            self._send(RejectOffer, item, offer.buyer_id, offer_number=number, reason=RejectionReason.PRICE)

    def _holder(self, item: Lead) -> str:
        return self.rng.choice((*item.holders, self.rng.choice(BUYERS)))

    def _ask_back(self) -> None:
        states = (state_of(data) for data in self.given.tables.leads.values())
        sold = [item for item in states if isinstance(item, Lead) and item.sales]
        for item in self.rng.sample(sold, min(3, len(sold))):
            reason = self.rng.choice(
                (ReturnReason.WRONG_PERSON, ReturnReason.WRONG_PERSON, ReturnReason.OTHER)
            )
            self._send(ReturnLead, item, self._holder(item), reason=reason, answered_at_ms=self.now_ms)
            if self.rng.random() < 0.3:
                report = self.rng.choice(tuple(Disposition))
                self._send(ReportDisposition, item, self._holder(item), disposition=report)
        for item in sold:
            pending = any(sale.returning is Returning.PENDING for sale in item.sales)
            if pending or self.rng.random() < 0.05:
                number, approve = self.rng.randint(0, len(item.sales) + 1), self.rng.random() < 0.7
                self.given.send(DecideReturn(lead_id=item.lead_id, sale_number=number, approve=approve))

    def _move_money(self) -> None:
        buyer_id = self.rng.choice(BUYERS)
        if self.rng.random() < 0.8:
            self.references += 1
        self.given.send(
            MoveMoney(
                lead_id=account_id_of(buyer_id),
                buyer_id=buyer_id,
                kind=self.rng.choice(tuple(MoneyKind)),
                reference=f"wire {self.references}",
                amount_cents=self.rng.choice((9_000, 20_001, 50_000, -7_000, -30_000)),
                currency="USD",
            )
        )

    def _withdraw(self) -> None:
        if self.leads:
            ahead = lead(f"lead-{len(self.leads) + 2}")
            item = self.rng.choice((*self.leads[-8:], ahead))
            self.given.send(WithdrawLead(lead_id=item.lead_id, reason=WithdrawalReason.REVOKED))

    def _let_time_pass(self) -> None:
        self.given.clock.advance(
            self.rng.choice(
                (30, 101, 500, 560, 2 * SECOND_MS, MINUTE_MS, 3 * MINUTE_MS, 11 * MINUTE_MS, 2 * HOUR_MS)
            )
        )

    def _apply(self) -> None:
        self.given.earlier[self.given.market.version] = self.given.market
        self.given.market = _changed(self.given.market, self.rng)

    def _send(self, kind: Callable[..., Command], item: Lead, buyer_id: str, **values: object) -> None:
        self.given.send(kind(lead_id=item.lead_id, buyer_id=buyer_id, **values))


def run(seed: int) -> tuple[World, list[QualifiedLead]]:
    """Let a market live and come to its end."""
    rng = Random(seed)  # the same market every time, and no secret
    given = world(_market())
    given.refuses = partial(_refused, rng)
    outsiders, fleet = Outsiders(given, rng), Fleet(given, rng)
    for _ in range(ROUNDS):
        outsiders.act()
        outsiders.say_what_is_due()
        for _ in range(rng.randint(0, 4)):
            fleet.turn()
        if rng.random() < 0.3:
            outsiders.answer()
    given.refuses = lambda _: None
    fleet.finish()
    _come_to_an_end(given, outsiders, fleet.hosts[0])
    return given, outsiders.leads


def _refused(rng: Random, _: Message) -> Unacknowledged | None:
    if rng.random() > 0.03:
        return None
    too_large = FailureReason.RECORD_TOO_LARGE if rng.random() < 0.3 else None
    return Unacknowledged(0, too_large, "refused")


def _come_to_an_end(given: World, outsiders: Outsiders, host: MemoryHost) -> None:
    for _ in range(ROUNDS_TO_END_MAX):
        host.drain()
        if not outsiders._open() and not given.tables.undelivered:
            return
        given.clock.advance(7 * MINUTE_MS)
        outsiders.say_what_is_due(at_random=False)
    raise AssertionError(f"leads are never closed: {[item.lead_id for item in outsiders._open()]}")


# What must hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One entry of the log, and its events."""

    partition: int
    entry: Entry
    events: Sequence[Event]


def told(given: World) -> list[Told]:
    """Read the log."""
    return [
        Told(partition=partition, entry=entry, events=codec().events_of(entry))
        for partition, entries in given.log().items()
        for entry in entries
    ]


def check_closes(given: World, log: Sequence[Told], leads: Sequence[QualifiedLead]) -> None:
    """Each lead is listed and closed once, and so is each auction."""
    listed = Counter(
        one.entry.lead_id for one in log for event in one.events if isinstance(event, LeadListed)
    )
    closed = Counter(
        one.entry.lead_id for one in log for event in one.events if isinstance(event, LeadClosed)
    )
    assert listed == closed == Counter({item.lead_id: 1 for item in leads})
    assert given.tables.closes.keys() == closed.keys()
    opened = [
        (one.entry.lead_id, event.auction_number)
        for one in log
        for event in one.events
        if isinstance(event, AuctionOpened)
    ]
    ended = [
        (one.entry.lead_id, event.auction_number)
        for one in log
        for event in one.events
        if isinstance(event, AuctionClosed)
    ]
    assert sorted(opened) == sorted(ended)
    assert len(set(opened)) == len(opened)
    assert given.tables.auctions == {}


def check_sales(given: World, log: Sequence[Told]) -> None:
    """No more than `sales_max`, nobody twice, nothing beside what is exclusive, nothing after an upgrade."""
    sales: dict[str, list[tuple[int, LeadSold]]] = defaultdict(list)
    upgraded: set[str] = set()
    for one in log:
        for event in one.events:
            if isinstance(event, LeadSold):
                assert one.entry.lead_id not in upgraded
                sales[one.entry.lead_id].append((one.entry.decided_at_ms, event))
            elif isinstance(event, LeadUpgraded):
                assert len(sales[one.entry.lead_id]) == 1
                upgraded.add(one.entry.lead_id)
    for lead_id, sold in sales.items():
        _, first = sold[0]
        assert [event.sale_number for _, event in sold] == list(range(1, len(sold) + 1))
        assert len({event.buyer_id for _, event in sold}) == len(sold) <= first.sales_max
        for number, (at_ms, event) in enumerate(sold[1:], start=1):
            assert event.mode is Mode.SHARED
            assert event.holders == tuple(earlier.buyer_id for _, earlier in sold[:number])
            before = sold[number - 1][1]
            assert before.others_may_follow
            assert before.others_from_ms is None or at_ms >= before.others_from_ms
        row = given.tables.sales[lead_id, 1]
        assert (row.mode is Mode.EXCLUSIVE) == (lead_id in upgraded or first.mode is Mode.EXCLUSIVE)
    stored = {at for at, row in given.tables.sales.items() if row.buyer_id != "planted"}
    assert stored == {(at, event.sale_number) for at, sold in sales.items() for _, event in sold}


def check_limits(given: World, log: Sequence[Told]) -> None:
    """The counters are the sum of what the log says was drawn, and none is over its limit."""
    used: Counter[str] = Counter()
    granted: Counter[str] = Counter()
    for one in log:
        for event in one.events:
            draws: Sequence[Draw] = getattr(event, "draws", ())
            for draw in draws:
                used[draw.counter] += draw.amount
                granted[draw.counter] += draw.granted
    rows = given.tables.counters
    assert {at: row.used for at, row in rows.items() if row.used} == {at: n for at, n in used.items() if n}
    assert {at: row.granted for at, row in rows.items() if row.granted} == {
        at: n for at, n in granted.items() if n
    }
    for row in rows.values():
        assert 0 <= row.used <= row.most + row.granted + row.shortfall, row
    moved = [
        (one.entry.lead_id, event.reference)
        for one in log
        for event in one.events
        if isinstance(event, MoneyMoved)
    ]
    assert len(set(moved)) == len(moved)


def check_replay(given: World, log: Sequence[Told]) -> None:
    """Each decision, executed again from what its entry cites, is the same; its fold is the state that is stored."""
    markets = IndexedMarkets(lambda version: given.earlier.get(version, given.market))
    by_lead: dict[str, list[Told]] = defaultdict(list)
    for one in log:
        by_lead[one.entry.lead_id].append(one)
    for lead_id, entries in by_lead.items():
        state: State = None
        for one, at in zip(entries, steps_of([(one.entry, one.events) for one in entries]), strict=True):
            subject = own_input(at) or _input(given, one)
            found = difference(
                at, execute(at, subject, markets), lambda event, _: codec().encode_body(event).body
            )
            assert found is None, f"{lead_id} entry {one.entry.seq}: {found}"
            state = evolve(at.before, lead_id, one.events, one.entry.decided_at_ms)
        stored = given.tables.leads.get(lead_id)
        assert stored == (None if state is None else state_bytes(state))


def _input(given: World, one: Told) -> Input:
    topics = {
        CauseKind.QUALIFIED: TOPICS.qualified,
        CauseKind.COMMAND: TOPICS.commands,
        CauseKind.TIMER: TOPICS.timers,
    }
    cause = one.entry.cause
    record = given.kafka.records[TopicPartition(topics[cause.kind], one.partition)][cause.offset]
    subject: Input = codec().decode(record.value)
    return subject


def check(given: World, leads: Sequence[QualifiedLead]) -> None:
    """Check all of it."""
    log = told(given)
    check_closes(given, log, leads)
    check_sales(given, log)
    check_limits(given, log)
    check_replay(given, log)


@pytest.mark.parametrize("seed", SEEDS)
def test_promises_hold_in_a_market_where_anything_may_happen_at_any_time(seed: int) -> None:
    given, leads = run(seed)
    check(given, leads)


# Planted bugs


def _nothing_comes_back(patch: pytest.MonkeyPatch) -> None:
    original = memory_store._drawn

    def drawn(row: CounterRow, draw: CounterDraw, market_version: int) -> CounterRow:
        return original(row, draw._replace(amount=max(0, draw.amount)), market_version)

    patch.setattr(memory_store, "_drawn", drawn)


def _what_had_no_room_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = Chain._append

    def append(self: Chain, caused: Caused, decision: Decision, _: tuple[str, ...]) -> None:
        original(self, caused, decision, ())

    patch.setattr(Chain, "_append", append)


def _nobody_waits_for_an_upgrade(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(course, "leaves_it_to_the_holder", lambda *_: False)


def _no_auction_is_ever_due(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AuctionClock, "due", lambda *_: [])


@pytest.mark.parametrize(
    "plant",
    [
        _nothing_comes_back,
        _what_had_no_room_is_forgotten,
        _nobody_waits_for_an_upgrade,
        _no_auction_is_ever_due,
    ],
)
def test_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(*run(SEEDS[0]))
