"""One partition's entries in the making: each input decided on what the batch so far has made, each entry chained.

It knows how a decision is repeated until everything it takes has room, and which rows follow from an event. No rule of
the trade is here, and no IO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from services.bus.ports import Stopped
from services.contract.codec import Codec
from services.contract.entries import Entry, hash_of
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    ErasureAcknowledged,
    Event,
    LeadClosed,
    LeadErased,
    LeadSold,
    LeadUpgraded,
    LimitReached,
    MoneyMoved,
    WindowKind,
)
from services.contract.inputs import (
    CloseAuction,
    DecideReturn,
    Input,
    MoveMoney,
    QualifiedLead,
    ReturnLead,
    TimerDue,
)
from services.contract.market import Market, Mode
from services.router.batch import Caused
from services.router.bidders import Bidding, Invitations
from services.router.counters import Asked, Room, Shortage, draws_or_asks
from services.router.domain import Conditions, Decision, decide, fail
from services.router.lead import Lead, State
from services.router.orders import OrderBook, members_of
from services.router.ports import (
    FOR_GOOD,
    NEVER_CLOSED,
    AcknowledgedRow,
    AuctionRow,
    CloseRow,
    ErasureRow,
    Head,
    LogRow,
    Mark,
    MoneyRow,
    PartitionCommit,
    SaleRow,
    Snapshot,
)
from services.router.relay import Committed

CLOCK_JUMP_MAX_MS = 60_000

_ANSWERED_WINDOWS = (WindowKind.ACCEPTANCE, WindowKind.EXCLUSIVITY, WindowKind.UPGRADE)
"""Windows within which a buyer's command counts (of exclusivity, a deal), so that it is looked for before they end."""

Choose: TypeAlias = Callable[[State, Input, Conditions], Decision]


class Markets(Protocol):
    """The versions of the market, kept for good."""

    def market(self, version: int) -> Market:
        """Read a version."""
        ...

    def books(self, version: int) -> Mapping[str, OrderBook]:
        """Index the orders of a version, by lead type."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all partitions of a batch are decided with."""

    snapshot: Snapshot
    markets: Markets
    codec: Codec
    failed: frozenset[str]
    room: Room
    invitations: Invitations


class Chain:
    """One partition's part of a batch."""

    def __init__(self, head: Head, surroundings: Surroundings) -> None:
        """Begin behind the head; raise `Stopped` where it knows more than the database can."""
        snapshot = surroundings.snapshot
        self.seq = head.seq
        self.hash = head.hash
        self.now_ms = max(snapshot.now_ms, head.decided_at_ms)
        self.committed: list[Committed] = []
        self.bidding: list[Bidding] = []
        self.passed_over = 0
        self.close_delays_ms: list[int] = []
        self.timer_delays_ms: list[int] = []
        self._head = head
        self._surroundings = surroundings
        self._codec = surroundings.codec
        self._failed = surroundings.failed
        self._version = snapshot.market_version
        self._states: dict[str, State] = {}
        self._stored = snapshot.leads
        self._sales: list[SaleRow] = []
        self._closes: list[CloseRow] = []
        self._upgrades: list[str] = []
        self._opened: dict[str, AuctionRow] = {}
        self._ended: dict[str, None] = {}
        self._money: dict[MoneyRow, None] = {}
        self._erasures: list[ErasureRow] = []
        self._acknowledged: list[AcknowledgedRow] = []
        self._conditions: dict[int, Conditions] = {}
        _require_sound(head, snapshot)

    def would_end_what_is_answered(self, subject: Input) -> bool:
        """Tell whether it ends an offer, an auction, exclusivity or the time for an upgrade, to which an answer may
        stand among the commands not read yet.

        Such an input is passed over: resale sends its timer again, the router's own clock goes on (rule 27).
        """
        if isinstance(subject, CloseAuction):
            return True
        state = self._state_of(subject.lead_id)
        if not isinstance(subject, TimerDue) or not isinstance(state, Lead):
            return False
        windows = (state.window(kind) for kind in _ANSWERED_WINDOWS)
        return any(window is not None and window.number == subject.window_number for window in windows)

    def add(self, caused: Caused) -> None:
        """Decide one input, on the state that the batch so far has made."""
        subject = caused.subject
        if isinstance(subject, MoveMoney) and self._has_moved(subject):
            return
        lead_id = subject.lead_id
        state = self._state_of(lead_id)
        conditions = self._conditions_for(state, subject)
        choose = fail if lead_id in self._failed else decide
        decision = choose(state, subject, conditions)
        no_room: tuple[str, ...] = ()
        if draws_or_asks(decision.events):
            decision, no_room = self._fitted(decision, choose, state, subject, conditions)
        if decision.events:
            self._append(caused, decision, no_room)
            if isinstance(subject, TimerDue) and isinstance(state, Lead):
                self._note_delay(state, subject)
        elif isinstance(subject, CloseAuction) and lead_id not in self._opened:
            # Nobody but us says that it is open: it was closed with its lead, and must not come again for ever.
            self._ended[lead_id] = None

    def commit(self, after: Head, mark: Mark | None) -> PartitionCommit:
        """Give the rows."""
        return PartitionCommit(
            before=self._head,
            after=after,
            mark=mark,
            log=[committed.row for committed in self.committed],
            new_leads={
                lead_id: state for lead_id, state in self._states.items() if lead_id not in self._stored
            },
            changed_leads={
                lead_id: state for lead_id, state in self._states.items() if lead_id in self._stored
            },
            sales=self._sales,
            closes=self._closes,
            upgrades=self._upgrades,
            auctions_opened=list(self._opened.values()),
            auctions_ended=list(self._ended),
            money=list(self._money),
            erasures=self._erasures,
            acknowledged=self._acknowledged,
        )

    # Room

    def _fitted(
        self, decision: Decision, choose: Choose, state: State, subject: Input, conditions: Conditions
    ) -> tuple[Decision, tuple[str, ...]]:
        """Decide again without the orders that have no room, until everything fits (rule 12).

        It ends, as each time at least one more order is left out. From the fourth time on all that are full for such a
        lead are left out at once, or one that fits very many full orders would be decided as often.
        """
        room, no_room = self._surroundings.room, set[str]()
        reached: dict[LimitReached, str] = {}
        times = 0
        while True:
            shortages = list(room.shortages(decision, self.now_ms))
            withheld = self._withheld(decision.events)
            if not shortages and not withheld:
                break
            times += 1
            found = {*withheld, *(shortage.order_id for shortage in shortages)}
            assert not found <= no_room, f"orders without room were chosen all the same: {sorted(found)}"
            no_room |= found
            if times in (1, _TIMES_ONE_BY_ONE) and not isinstance(subject, ReturnLead | DecideReturn):
                shortages += self._look_for_full(decision.state, conditions) if times > 1 else ()
                no_room |= self._known_full(decision.state, conditions)
            reached |= {item.reached: item.counter for item in shortages if item.reached is not None}
            limits_reached = tuple(reached)
            decision = choose(
                state, subject, replace(conditions, no_room=frozenset(no_room), limits_reached=limits_reached)
            )
        self._take(decision, reached)
        self.passed_over += len(no_room)
        return decision, tuple(sorted(no_room))

    def _look_for_full(self, state: State, conditions: Conditions) -> Sequence[Shortage]:
        book = _book_of(state, conditions)
        if book is None or not isinstance(state, Lead) or state.plan is None or state.is_test:
            return ()
        plans = conditions.accepted_market.lead_types[state.lead_type].plans
        plan = next(plan for plan in plans if plan.name == state.plan)
        return self._surroundings.room.find_full(self._asked(state), book, plan)

    def _known_full(self, state: State, conditions: Conditions) -> set[str]:
        """Name the orders that the lead fits and that were found full in this batch."""
        book = _book_of(state, conditions)
        if book is None or not isinstance(state, Lead) or state.is_test:
            return set()
        full = self._surroundings.room.known_full(self._asked(state))
        if not full:
            return set()
        age_ms = self.now_ms - state.created_at_ms
        full &= book.fitting(state.fields, quality=state.quality, age_ms=age_ms, sales_max=state.sales_max)
        # Who buys in this very decision has the room, if at a price that was told before orders or lists changed.
        full &= ~book.of_buyers(state.holders)
        return {book.orders[bit].id for bit in members_of(full)}

    def _asked(self, lead: Lead) -> Asked:
        return Asked(lead.lead_type, lead.market_version, lead.plan or "", self.now_ms)

    def _take(self, decision: Decision, reached: Mapping[LimitReached, str]) -> None:
        room = self._surroundings.room
        room.take(decision, self.now_ms)
        for event in decision.events:
            kind = type(event)
            if kind is AuctionOpened and isinstance(event, AuctionOpened):
                self._surroundings.invitations.note(event)
            elif kind is LimitReached and isinstance(event, LimitReached):
                room.tell(reached[event])

    def _withheld(self, events: Sequence[Event]) -> list[str]:
        invitations = self._surroundings.invitations
        return [
            order_id
            for event in events
            if type(event) is AuctionOpened and isinstance(event, AuctionOpened)
            for order_id in invitations.withheld(event)
        ]

    def _has_moved(self, move: MoveMoney) -> bool:
        row = MoneyRow(move.lead_id, move.reference)
        return row in self._money or row in self._surroundings.snapshot.money

    # State and conditions

    def _state_of(self, lead_id: str) -> State:
        return self._states[lead_id] if lead_id in self._states else self._stored.get(lead_id)

    def _conditions_for(self, state: State, subject: Input) -> Conditions:
        version = self._version
        if isinstance(state, Lead):
            version = state.market_version
        elif isinstance(subject, QualifiedLead):
            version = subject.market_version
        if version > self._version:
            raise Stopped(
                f"lead {subject.lead_id} was accepted under market version {version}, which is not known yet"
            )
        if version not in self._conditions:
            markets = self._surroundings.markets
            self._conditions[version] = Conditions(
                market=markets.market(self._version),
                books=markets.books(self._version),
                accepted_market=markets.market(version),
                no_room=frozenset(),
                now_ms=self.now_ms,
            )
        return self._conditions[version]

    def _note_delay(self, before: Lead, due: TimerDue) -> None:
        found = next((window for window in before.windows if window.number == due.window_number), None)
        if found is not None:
            self.timer_delays_ms.append(self.now_ms - found.due_at_ms)

    # Entries and rows

    def _append(self, caused: Caused, decision: Decision, no_room: tuple[str, ...]) -> None:
        self.seq += 1
        lead_id = caused.subject.lead_id
        entry = Entry(
            seq=self.seq,
            prev_hash=self.hash,
            cause=caused.cause,
            market_version=self._version,
            no_room=no_room,
            lead_id=lead_id,
            decided_at_ms=self.now_ms,
            events=tuple(self._codec.encode_body(event) for event in decision.events),
        )
        value = self._codec.encode(entry)
        self.hash = hash_of(value)
        row = LogRow(self._head.partition, self.seq, lead_id, self.now_ms, value)
        self.committed.append(Committed(row=row, entry=entry, events=decision.events))
        if decision.state is not None:
            self._states[lead_id] = decision.state
        self._add_rows(lead_id, decision)

    def _add_rows(self, lead_id: str, decision: Decision) -> None:
        first_closed_until_ms: int | None = None
        for event in decision.events:
            if type(event) not in _WITH_ROWS:
                continue
            match event:
                case LeadSold():
                    if first_closed_until_ms is None:
                        assert isinstance(decision.state, Lead)
                        first_closed_until_ms = _closed_until_ms(decision)
                    self._sales.append(_sale_row(lead_id, event, self.now_ms, first_closed_until_ms))
                case LeadUpgraded():
                    self._upgrades.append(lead_id)
                case LeadClosed():
                    self._closes.append(CloseRow(lead_id, event.outcome, self.now_ms))
                case MoneyMoved():
                    self._money[MoneyRow(lead_id, event.reference)] = None
                case LeadErased():
                    self._erase(lead_id, event)
                case ErasureAcknowledged():
                    row = AcknowledgedRow(lead_id, event.buyer_id, self.now_ms, event.by_operator)
                    self._acknowledged.append(row)
                case AuctionOpened():
                    self._open_auction(lead_id, event)
                case AuctionClosed():
                    self._end_auction(lead_id, event)
                case BidPlaced() | BidDeclined():
                    self.bidding.append(event)

    def _erase(self, lead_id: str, erased: LeadErased) -> None:
        self._erasures += [
            ErasureRow(lead_id, buyer_id, erased.reason.value, self.now_ms, erased.acknowledge_by_ms)
            for buyer_id in erased.holders
        ]

    def _open_auction(self, lead_id: str, opened: AuctionOpened) -> None:
        self.bidding.append(opened)
        self._opened[lead_id] = AuctionRow(
            lead_id, self._head.partition, opened.auction_number, opened.closes_at_ms
        )

    def _end_auction(self, lead_id: str, closed: AuctionClosed) -> None:
        self.bidding.append(closed)
        if self._opened.pop(lead_id, None) is None:
            self._ended[lead_id] = None
        before = self._stored.get(lead_id)
        if closed.reason is AuctionEnd.TIME_UP and isinstance(before, Lead) and before.auction is not None:
            self.close_delays_ms.append(self.now_ms - before.auction.closes_at_ms)


_TIMES_ONE_BY_ONE = 4
_WITH_ROWS = frozenset(
    {
        LeadSold,
        LeadUpgraded,
        LeadClosed,
        MoneyMoved,
        AuctionOpened,
        AuctionClosed,
        BidPlaced,
        BidDeclined,
        LeadErased,
        ErasureAcknowledged,
    }
)


def _book_of(state: State, conditions: Conditions) -> OrderBook | None:
    return conditions.books.get(state.lead_type) if isinstance(state, Lead) else None


def _require_sound(head: Head, snapshot: Snapshot) -> None:
    """What a head says must lie in the past of the database that it stands in."""
    if snapshot.market_version < head.market_version:
        raise Stopped(
            f"the market is at version {snapshot.market_version}, but partition {head.partition} was decided under "
            f"{head.market_version} before: the database was restored?"
        )
    if head.decided_at_ms > snapshot.now_ms + CLOCK_JUMP_MAX_MS:
        raise Stopped(
            f"partition {head.partition} was decided {(head.decided_at_ms - snapshot.now_ms) / 1_000:.0f} s in the "
            "future: the database's clock went back"
        )


def _closed_until_ms(decision: Decision) -> int:
    """Until when the first sale closes the lead to others: what every later sale must come after (rule 8).

    A sale that is upgraded in the same entry is written as it was sold first, and closed by the upgrade.
    """
    lead = decision.state
    assert isinstance(lead, Lead)
    first = lead.sales[0]
    if first.mode is Mode.SHARED or LeadUpgraded in map(type, decision.events):
        return NEVER_CLOSED
    return FOR_GOOD if first.exclusive_until_ms is None else first.exclusive_until_ms


def _sale_row(lead_id: str, sold: LeadSold, sold_at_ms: int, closed_until_ms: int) -> SaleRow:
    return SaleRow(
        lead_id=lead_id,
        sale_number=sold.sale_number,
        buyer_id=sold.buyer_id,
        order_id=sold.order_id,
        mode=sold.mode,
        sales_max=sold.sales_max,
        price_cents=sold.price_cents,
        sold_at_ms=sold_at_ms,
        closed_until_ms=closed_until_ms,
    )
