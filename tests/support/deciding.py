"""Given a market and what happened to a lead, when an input comes, then these events follow: rules in tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from services.contract.events import Event, LimitReached, NoBidReason
from services.contract.fields import canonical
from services.contract.ids import lead_id_of
from services.contract.inputs import (
    CloseAuction,
    DeclineToBid,
    Input,
    PlaceBid,
    QualifiedLead,
    TimerDue,
)
from services.contract.market import (
    BidPrice,
    Buyer,
    FieldKind,
    FieldType,
    FixedPrice,
    Floor,
    LeadType,
    ListPrice,
    Market,
    Order,
    Plan,
    Prices,
    Selection,
    Sell,
    Source,
    Stage,
    Takes,
    Where,
)
from services.router.domain import Conditions, decide
from services.router.lead import Auction, Lead, State, evolve
from services.router.orders import order_books
from services.router.state_bytes import state_bytes, state_of

NOW_MS = 1_790_000_000_000
BID_WINDOW_MS = 500
DETAILS = {
    "state": FieldKind(type=FieldType.US_STATE),
    "bill": FieldKind(type=FieldType.AMOUNT),
    "owner": FieldKind(type=FieldType.YES_NO),
}
_E = TypeVar("_E")


def exclusive_stage(cents: int = 9000, **options: Any) -> Stage:
    """A stage that sells exclusive."""
    return Stage(sell=Sell.EXCLUSIVE, prices=Prices(exclusive=cents), **options)


def shared_stage(*cents: int, **options: Any) -> Stage:
    """A stage that sells shared."""
    return Stage(sell=Sell.SHARED, prices=Prices(shared=cents or (4000,)), **options)


def either_stage(exclusive: int, *shared: int, **options: Any) -> Stage:
    """A stage that sells either."""
    return Stage(sell=Sell.EITHER, prices=Prices(exclusive=exclusive, shared=shared), **options)


def bid_stage(
    sell: Sell = Sell.EITHER,
    *,
    exclusive: int | None = None,
    shared: int | None = None,
    selection: Selection = Selection.PING_POST,
    prices: Prices | None = None,
    **options: Any,
) -> Stage:
    """A stage that asks for bids; `exclusive` and `shared` are its floors."""
    return Stage(
        sell=sell,
        prices=prices or Prices(),
        selection=selection,
        bid_window_ms=BID_WINDOW_MS,
        floor=Floor(exclusive=exclusive, shared=shared),
        **options,
    )


def plan(*stages: Stage, sales_max: int = 3, name: str = "plan", **options: Any) -> Plan:
    """A plan of these stages."""
    return Plan(name=name, stages=stages, sales_max=sales_max, **options)


def order(
    buyer_id: str,
    *,
    exclusive: int | str | None = None,
    shared: int | str | None = None,
    name: str = "all",
    where: Where = (),
    **options: Any,
) -> Order:
    """A standing order; a price is cents, "list" or "bid"."""
    return Order(
        id=f"{buyer_id}/{name}",
        buyer_id=buyer_id,
        lead_type="solar",
        takes=Takes(exclusive=_price(exclusive), shared=_price(shared)),
        where=where,
        **options,
    )


def _price(price: int | str | None) -> ListPrice | FixedPrice | BidPrice | None:
    match price:
        case None:
            return None
        case int():
            return FixedPrice(cents=price)
        case "bid":
            return BidPrice()
        case _:
            return ListPrice()


def market(*plans: Plan, orders: tuple[Order, ...] = (), version: int = 1) -> Market:
    """A market with one lead type `solar`, the source `sunform`, and the buyers of these orders."""
    buyers: dict[str, Buyer] = {}
    for item in orders:
        known = buyers.get(item.buyer_id, Buyer(id=item.buyer_id, timezone="America/New_York"))
        buyers[item.buyer_id] = replace(known, orders=(*known.orders, item))
    return Market(
        version=version,
        currency="USD",
        timezone="America/New_York",
        lead_types={
            "solar": LeadType(
                name="solar",
                contact=("email", "phone"),
                details=DETAILS,
                ping=("state", "bill", "owner"),
                plans=plans,
                duplicate_within_ms=30 * 86_400_000,
                contact_kept_ms=180 * 86_400_000,
            )
        },
        sources={"sunform": Source(id="sunform", lead_types=("solar",))},
        buyers=buyers,
    )


def lead(reference: str = "lead-1", *, received_at_ms: int = NOW_MS, **options: Any) -> QualifiedLead:
    """A qualified lead of `sunform`; details as keyword `fields`."""
    values: dict[str, Any] = {
        "lead_id": lead_id_of("sunform", reference),
        "source_id": "sunform",
        "lead_type": "solar",
        "fields": {"state": "AZ", "bill": "150.00", "owner": "yes"},
        "quality": 50,
        "sales_max": None,
        "never_to": (),
        "created_at_ms": received_at_ms,
        "received_at_ms": received_at_ms,
        "market_version": 1,
        "is_test": False,
        **options,
    }
    values["fields"] = {name: canonical(DETAILS[name], text) for name, text in values["fields"].items()}
    return QualifiedLead(**values)


@dataclass(slots=True)
class Story:
    """One lead, decided input by input; `events` are all that followed so far, `entries` tell them by decision."""

    market: Market
    now_ms: int = NOW_MS
    state: State = None
    events: list[Event] = field(default_factory=list)
    accepted_market: Market | None = None
    no_room: frozenset[str] = frozenset()
    limits_reached: tuple[LimitReached, ...] = ()
    entries: list[tuple[int, tuple[Event, ...]]] = field(default_factory=list)

    def when(self, subject: Input, *, after_ms: int = 0) -> list[Event]:
        """Decide an input and return the events that follow; evolve must agree with what decide says."""
        self.now_ms += after_ms
        decision = decide(self.state, subject, self.conditions())
        evolved = evolve(self.state, subject.lead_id, decision.events, self.now_ms)
        assert evolved == decision.state, "decide and evolve disagree"
        if evolved is not None:
            assert state_of(state_bytes(evolved)) == evolved, "the state's bytes say another state"
        self.state = decision.state
        self.events += decision.events
        self.entries.append((self.now_ms, tuple(decision.events)))
        return list(decision.events)

    def conditions(self) -> Conditions:
        """What an input would be decided under now."""
        return Conditions(
            market=self.market,
            books=order_books(self.market),
            accepted_market=self.accepted_market or self.market,
            no_room=self.no_room,
            now_ms=self.now_ms,
            limits_reached=self.limits_reached,
        )

    @property
    def lead(self) -> Lead:
        """The lead's state."""
        assert isinstance(self.state, Lead)
        return self.state

    def all(self, kind: type[_E]) -> list[_E]:
        """Every event of one type so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def fire_next_window(self) -> list[Event]:
        """Let the time come for the open window that is due first."""
        window = min(self.lead.windows, key=lambda window: window.due_at_ms)
        self.now_ms = max(self.now_ms, window.due_at_ms)
        return self.when(TimerDue(lead_id=self.lead.lead_id, window_number=window.number))

    @property
    def auction(self) -> Auction:
        """The auction that is open."""
        assert self.lead.auction is not None
        return self.lead.auction

    def bid(
        self,
        buyer_id: str,
        *,
        exclusive: int | None = None,
        shared: int | None = None,
        auction_number: int | None = None,
        answered_at_ms: int | None = None,
    ) -> list[Event]:
        """Place a bid, at once and in the open auction unless told otherwise."""
        return self.when(
            PlaceBid(
                lead_id=self.lead.lead_id,
                buyer_id=buyer_id,
                auction_number=auction_number or self.auction.number,
                exclusive_cents=exclusive,
                shared_cents=shared,
                answered_at_ms=self.now_ms if answered_at_ms is None else answered_at_ms,
            )
        )

    def no_bid(self, buyer_id: str, *, auction_number: int | None = None) -> list[Event]:
        """Decline to bid."""
        return self.when(
            DeclineToBid(
                lead_id=self.lead.lead_id,
                buyer_id=buyer_id,
                auction_number=auction_number or self.auction.number,
                reason=NoBidReason.PRICE,
                answered_at_ms=self.now_ms,
            )
        )

    def close_auction(self) -> list[Event]:
        """Let the open auction's time come."""
        auction = self.auction
        self.now_ms = max(self.now_ms, auction.closes_at_ms)
        return self.when(CloseAuction(lead_id=self.lead.lead_id, auction_number=auction.number))
