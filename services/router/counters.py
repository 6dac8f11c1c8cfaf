"""What a worker knows of the counters behind limits, and what a batch draws on them while it is decided.

The database holds the counters and refuses what does not fit; here is only how a batch is decided so that it does fit
(protocol.md, rules 5 and 6). What a worker knows may be old: too little room is looked at again before a lead is passed
over for it, too much is found by the commit. No IO; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple, TypeAlias

from services.contract.events import (
    AuctionOpened,
    DeliveryFailed,
    Draw,
    Event,
    LeadSold,
    LeadUpgraded,
    LimitReached,
    MoneyMoved,
    OfferMade,
    ReturnApproved,
)
from services.contract.limits import ACCOUNT, RETURNS, Limit, account_counter, limits_of, returns_limit
from services.contract.market import Market, Mode, Order, Plan, Unit
from services.contract.times import MINUTE_MS
from services.router.domain import Decision
from services.router.lead import Lead
from services.router.orders import OrderBook, OrderSet
from services.router.ports import AS_STORED, NOTHING_TAKEN, CounterDraw, CounterRow, Draws
from services.router.selling import cheapest_cents

FRESH_S = 0.1
"""A lead is passed over for a limit only by what was read of it at most so long ago."""

ASKED_FOR_S = 10.0
"""So long a limit without room is read with every batch; later, when it stands in the way again."""

ASKED_AT_ONCE_MAX = 1_000
KNOWN_MAX = 200_000
BEGINS_EVERY_MS = 15 * MINUTE_MS
"""Periods begin on quarters of an hour, wherever their buyers are."""

_UNLIMITED = 2**61

Drawing: TypeAlias = LeadSold | LeadUpgraded | ReturnApproved | DeliveryFailed | MoneyMoved
_DRAWING = frozenset({LeadSold, LeadUpgraded, ReturnApproved, DeliveryFailed, MoneyMoved})
_ASKING = frozenset({AuctionOpened, OfferMade})
_LIMITED = _DRAWING | _ASKING
"""Looked up before `isinstance` is asked: most events of most leads are none of these."""


@dataclass(slots=True)
class _Known:
    row: CounterRow
    read_at_s: float


class Counters:
    """What one worker knows of counters, from its reads and commits."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._known: dict[str, _Known] = {}
        self._short: dict[str, float] = {}
        self._market: tuple[int, Mapping[str, Order]] = (0, {})
        self._in_force: tuple[tuple[int, int], Sequence[str]] = ((0, 0), ())
        self._looked_at = (0, 0)

    def learn(self, rows: Iterable[CounterRow], now_s: float) -> None:
        """Take note of counters as they were at `now_s` or later (a monotonic clock)."""
        if len(self._known) > KNOWN_MAX:
            self._known.clear()
            self._looked_at = (0, 0)
        for row in rows:
            self._known[row.counter] = _Known(row, now_s)

    def to_read(self, now_s: float) -> Sequence[str]:
        """Name the counters that lately had too little room, and that were not read just now."""
        if not self._short:
            return ()
        self._short = {at: since for at, since in self._short.items() if now_s - since < ASKED_FOR_S}
        asked = [counter for counter in self._short if not self.is_fresh(counter, now_s)]
        return asked[:ASKED_AT_ONCE_MAX]

    def unread(self, market: Market, now_ms: int) -> Sequence[str]:
        """Name the counters in force of which nothing is known, once for each version and quarter of an hour.

        To guess that they are empty would cost a refused commit for each that is not, one after the other.
        """
        in_force = self._those_in_force(market, now_ms)
        if self._looked_at == self._in_force[0]:
            return ()
        self._looked_at = self._in_force[0]
        return [counter for counter in in_force if counter not in self._known]

    def not_fresh(self, market: Market, now_ms: int, now_s: float) -> Sequence[str]:
        """Name the counters in force that were not read just now."""
        in_force = self._those_in_force(market, now_ms)
        return [counter for counter in in_force if not self.is_fresh(counter, now_s)]

    def _those_in_force(self, market: Market, now_ms: int) -> Sequence[str]:
        key = (market.version, now_ms // BEGINS_EVERY_MS)
        if self._in_force[0] != key:
            orders = self.orders_of(market).values()
            found = {counter for order in orders for counter in limits_of(market, order, now_ms)}
            self._in_force = (key, sorted(found))
        return self._in_force[1]

    def most_used(self, market: Market, now_ms: int, *, at_most: int) -> Mapping[str, float]:
        """Give the used shares of the limits in force that are used most, as far as is known here.

        They are named without the beginning of their period, so that a limit is one thing to people.
        """
        rows = (self.known(counter) for counter in self._those_in_force(market, now_ms))
        shares = {
            row.counter: row.used / (row.most + row.granted)
            for row in rows
            if row is not None and row.used > 0 and row.most + row.granted > 0
        }
        return {
            _lasting_name(name): shares[name] for name in nlargest(at_most, shares, key=shares.__getitem__)
        }

    def is_fresh(self, counter: str, now_s: float) -> bool:
        """Say whether a counter was read lately enough to pass a lead over."""
        known = self._known.get(counter)
        return known is not None and now_s - known.read_at_s <= FRESH_S

    def note_short(self, counters: Iterable[str], now_s: float) -> None:
        """Take note that leads were passed over for these."""
        for counter in counters:
            self._short[counter] = now_s

    def known(self, counter: str) -> CounterRow | None:
        """Say what is known of a counter."""
        found = self._known.get(counter)
        return None if found is None else found.row

    def orders_of(self, market: Market) -> Mapping[str, Order]:
        """Index a market's orders by id; all decisions of a batch are made under one version."""
        if self._market[0] != market.version:
            orders = {order.id: order for buyer in market.buyers.values() for order in buyer.orders}
            self._market = (market.version, orders)
        return self._market[1]


@dataclass(slots=True)
class _Use:
    """A counter in a batch: what it would be after all that was decided so far, and what that draws."""

    limit: Limit | None
    most: int
    used: int
    granted: int
    told: bool
    amount: int = 0
    grown: int = 0
    withdrawn: int = 0
    peak: int = NOTHING_TAKEN
    tells: bool = False

    @property
    def only_gives_back(self) -> bool:
        """Such a draw makes no counter: where there is none any more, there is nothing to give back to."""
        is_account = self.limit is not None and self.limit.name == ACCOUNT
        return self.peak == NOTHING_TAKEN and self.grown <= 0 and not self.tells and not is_account

    def holds(self, amount: int) -> bool:
        return self.used + amount <= self.most + self.granted

    def draw(self, draw: Draw) -> None:
        self.used += draw.amount
        self.granted += draw.granted
        self.amount += draw.amount
        self.grown += draw.granted
        self.withdrawn += max(0, -draw.granted)
        if draw.amount > 0:
            self.peak = max(self.peak, self.amount - self.grown)


@dataclass(frozen=True, slots=True)
class Shortage:
    """An order that a limit does not hold; `reached` is what its buyer is to be told, once."""

    order_id: str
    counter: str
    reached: LimitReached | None


class Asked(NamedTuple):
    """What orders were found full for: leads of a type on a plan of this market version, at a time."""

    lead_type: str
    market_version: int
    plan: str
    now_ms: int


class Room:
    """How much room the limits have left for a batch, in all its partitions, decided lead after lead."""

    def __init__(self, counters: Counters, market: Market) -> None:
        """Begin a batch, which is decided under this version of the market."""
        self.short: set[str] = set()
        self._counters = counters
        self._market = market
        self._orders = counters.orders_of(market)
        self._uses: dict[str, _Use] = {}
        self._full: dict[Asked, OrderSet] = {}
        self._limits: dict[tuple[str, int], Mapping[str, Limit]] = {}

    def shortages(self, decision: Decision, now_ms: int) -> Sequence[Shortage]:
        """Find the orders that the decision sells to, asks or takes back from, and that their limits don't hold."""
        lead = decision.state if isinstance(decision.state, Lead) else None
        found: list[Shortage] = []
        ahead: list[tuple[_Use, Draw]] = []
        for event in decision.events:
            if type(event) not in _LIMITED:
                continue
            if isinstance(event, AuctionOpened | OfferMade):
                if not event.is_test:
                    unable = (self._unable(order_id, cents, now_ms) for order_id, cents in _asked(event))
                    found += [shortage for shortage in unable if shortage is not None]
            elif isinstance(event, Drawing):
                self._try(event, lead, now_ms, found, ahead)
        for use, draw in reversed(ahead):
            use.used -= draw.amount
            use.granted -= draw.granted
        return found

    def take(self, decision: Decision, now_ms: int) -> None:
        """Let a decision that fits draw."""
        lead = decision.state if isinstance(decision.state, Lead) else None
        for event in decision.events:
            if type(event) in _DRAWING and isinstance(event, Drawing):
                for draw in event.draws:
                    self._use(draw.counter, event, lead, now_ms).draw(draw)
                    if draw.amount < 0 or (draw.granted and not draw.counter.startswith(RETURNS)):
                        self._full.clear()

    def find_full(self, asked: Asked, book: OrderBook, plan: Plan) -> Sequence[Shortage]:
        """Find all orders of a book that have no room even for the least that a lead on this plan could cost them."""
        found: list[Shortage] = []
        full = 0
        for bit, order in enumerate(book.orders):
            least_cents = cheapest_cents(plan, order)
            shortage = None if least_cents is None else self._unable(order.id, least_cents, asked.now_ms)
            if shortage is not None:
                found.append(shortage)
                full |= 1 << bit
        self._full[asked] = full
        return found

    def known_full(self, asked: Asked) -> OrderSet:
        """Give the orders that were found full in this batch, unless something was given back since."""
        return self._full.get(asked, 0)

    def tell(self, counter: str) -> None:
        """Take note that the batch tells of a limit that it is used up."""
        use = self._uses[counter]
        use.tells = use.told = True

    def draws(self) -> Draws:
        """Sum up what the batch draws."""
        return Draws(
            market_version=self._market.version,
            rows=[
                CounterDraw(
                    counter=counter,
                    peak=use.peak,
                    amount=use.amount,
                    granted=use.grown,
                    withdrawn=use.withdrawn,
                    most=AS_STORED if use.limit is None or use.only_gives_back else use.limit.most,
                    ends_at_ms=None if use.limit is None else use.limit.ends_at_ms,
                    tells=use.tells,
                )
                for counter, use in sorted(self._uses.items())
                if use.tells or use.peak != NOTHING_TAKEN or use.amount or use.grown or use.withdrawn
            ],
        )

    def stale(self, now_s: float) -> Collection[str]:
        """Name the counters that leads were passed over for by what was read of them too long ago."""
        return [counter for counter in self.short if not self._counters.is_fresh(counter, now_s)]

    def _try(
        self,
        event: Drawing,
        lead: Lead | None,
        now_ms: int,
        found: list[Shortage],
        ahead: list[tuple[_Use, Draw]],
    ) -> None:
        """Draw for the moment; an event that does not fit draws nothing, and the next is looked at without it."""
        drawn: list[tuple[_Use, Draw]] = []
        for draw in event.draws:
            use = self._use(draw.counter, event, lead, now_ms)
            use.used += draw.amount
            use.granted += draw.granted
            drawn.append((use, draw))
            if draw.amount > 0 and not use.holds(0):
                found.append(self._shortage(_order_of(event, lead), draw.counter, use))
                for taken, back in drawn:
                    taken.used -= back.amount
                    taken.granted -= back.granted
                return
        ahead += drawn

    def _unable(self, order_id: str, least_cents: int, now_ms: int) -> Shortage | None:
        """Say what keeps an order from buying even at the least price: asking it would be in vain."""
        for counter, limit in self._limits_of(order_id, now_ms).items():
            use = self._uses.get(counter) or self._begin(counter, limit)
            if not use.holds(1 if limit.name.startswith(Unit.LEADS) else least_cents):
                return self._shortage(order_id, counter, use)
        return None

    def _shortage(self, order_id: str, counter: str, use: _Use) -> Shortage:
        self.short.add(counter)
        limit, order = use.limit, self._orders.get(order_id)
        if limit is None or limit.name == RETURNS or order is None:
            return Shortage(order_id, counter, None)
        if use.told:
            return Shortage(order_id, counter, None)
        reached = LimitReached(
            buyer_id=order.buyer_id, order_id=order_id, limit=limit.name, resumes_at_ms=limit.ends_at_ms
        )
        return Shortage(order_id, counter, reached)

    def _use(self, counter: str, event: Drawing, lead: Lead | None, now_ms: int) -> _Use:
        use = self._uses.get(counter)
        return use or self._begin(counter, self._limit_for(counter, event, lead, now_ms))

    def _begin(self, counter: str, limit: Limit | None) -> _Use:
        known = self._counters.known(counter)
        use = self._uses[counter] = _guessed(limit) if known is None else self._from(known, limit)
        return use

    def _from(self, known: CounterRow, limit: Limit | None) -> _Use:
        """What the market of a later version has said holds, as it does in the database."""
        is_later = limit is None or known.market_version > self._market.version
        most = known.most if is_later or limit is None else limit.most
        return _Use(limit, most, known.used, known.granted, known.told)

    def _limit_for(self, counter: str, event: Drawing, lead: Lead | None, now_ms: int) -> Limit | None:
        """Find what the market says of a counter; None where it belongs to another time, or to nobody any more."""
        buyer = self._market.buyers.get(event.buyer_id)
        if buyer is None:
            return None
        if counter.startswith(RETURNS):
            # The month that a return was asked in may be over when an operator approves it.
            assert lead is not None, "what is returned was bought"
            month = returns_limit(buyer, lead.lead_type, int(counter.rpartition(":")[2]))
            return Limit(counter, RETURNS, month.most, month.ends_at_ms)
        if counter == account_counter(buyer.id):
            return Limit(counter, ACCOUNT, buyer.account.credit_limit_cents if buyer.account else 0, None)
        return self._limits_of(_order_of(event, lead), now_ms).get(counter)

    def _limits_of(self, order_id: str, now_ms: int) -> Mapping[str, Limit]:
        key = (order_id, now_ms)
        found = self._limits.get(key)
        if found is None:
            order = self._orders.get(order_id)
            found = self._limits[key] = {} if order is None else limits_of(self._market, order, now_ms)
        return found


def _lasting_name(counter: str) -> str:
    return counter if counter.startswith(ACCOUNT) else counter.rpartition(":")[0]


def _guessed(limit: Limit | None) -> _Use:
    """Guess of a counter never seen that nothing is used of it; what was granted on top of it can't be guessed."""
    if limit is None or limit.name in (ACCOUNT, RETURNS):
        return _Use(limit, _UNLIMITED, used=0, granted=0, told=False)
    return _Use(limit, limit.most, used=0, granted=0, told=False)


def _order_of(event: Drawing, lead: Lead | None) -> str:
    """Name the order that made a purchase; money that is moved belongs to none."""
    if isinstance(event, LeadSold | LeadUpgraded):
        return event.order_id
    if isinstance(event, MoneyMoved):
        return ""
    assert lead is not None, "what is given back was bought"
    return lead.sales[event.sale_number - 1].order_id


def _asked(event: AuctionOpened | OfferMade) -> Iterator[tuple[str, int]]:
    """Name the orders that an event asks, each with the least that it could buy for, in minor units."""
    if isinstance(event, OfferMade):
        yield event.order_id, event.price_cents
        return
    floors = {Mode.EXCLUSIVE: event.floor_exclusive_cents, Mode.SHARED: event.floor_shared_cents}
    for invited in event.invited:
        yield invited.order_id, min((floors[mode] or 1 for mode in invited.modes), default=1)


def draws_or_asks(events: Iterable[Event]) -> bool:
    """Say whether limits have to be looked at for these events; of most leads in most markets, not."""
    for event in events:
        kind = type(event)
        if kind in _ASKING or (kind in _DRAWING and event.draws):  # type: ignore[union-attr]  # these have draws
            return True
    return False
