"""One decision in the making: the lead's state, the events so far, and the steps that every rule is made of.

Whatever is recorded here changes the state at once, so that what comes next is decided on what came before. Which step
follows which is not known here: that is `services.router.course` and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    BidOutcome,
    BidResult,
    CommandRefused,
    Draw,
    Event,
    LeadClosed,
    LeadListed,
    LeadSold,
    LimitReached,
    OfferWithdrawn,
    Outcome,
    RefusalReason,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from services.contract.ids import sale_id_of
from services.contract.limits import sale_draws
from services.contract.market import (
    LeadType,
    Market,
    Mode,
    Order,
    Paid,
    Plan,
    Selection,
    Sell,
    Stage,
    Upgrade,
)
from services.contract.records import quickly_made
from services.router.lead import Auction, Lead, State, apply, copy_of_lead, listed
from services.router.orders import OrderBook
from services.router.payouts import paid_of, share_cents


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The events that were decided, and the state after them (which is `evolve` of the state before)."""

    events: Sequence[Event]
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All that a decision depends on beside the lead and the input.

    `market` is the version it is decided under and `books` its orders by lead type; `accepted_market` is the version
    that the lead was accepted under, whose plans it keeps. `no_room`: orders found full, paused or broken;
    `limits_reached` are to be told with the decision that passes over such an order, if it decides anything.
    """

    market: Market
    books: Mapping[str, OrderBook]
    accepted_market: Market
    no_room: frozenset[str]
    now_ms: int
    limits_reached: tuple[LimitReached, ...] = ()


class Deciding:
    """A copy of the lead's state, changed by each event that is recorded."""

    __slots__ = ("_plan", "conditions", "events", "lead_id", "now_ms", "state")

    def __init__(self, state: State, lead_id: str, conditions: Conditions) -> None:
        self.state: State = copy_of_lead(state) if isinstance(state, Lead) else state
        self.events: list[Event] = []
        self.lead_id = lead_id
        self.conditions = conditions
        self.now_ms = conditions.now_ms
        self._plan: Plan | None = None

    def record(self, event: Event) -> None:
        """Let an event happen."""
        self.events.append(event)
        if isinstance(self.state, Lead):
            apply(self.state, event, self.now_ms)

    def list_as(self, event: LeadListed) -> Lead:
        """Let the lead begin."""
        self.events.append(event)
        self.state = lead = listed(self.lead_id, event, self.now_ms)
        return lead

    def refuse(self, command: str, buyer_id: str | None, reason: RefusalReason) -> None:
        """Say no to a command."""
        self.record(CommandRefused(command=command, buyer_id=buyer_id, reason=reason))

    def close(self, lead: Lead, outcome: Outcome) -> None:
        """End the lead's selling, and what is still asked of anybody with it."""
        if lead.offer is not None:
            self.record(OfferWithdrawn(offer_number=lead.offer.offer_number, buyer_id=lead.offer.buyer_id))
        if lead.auction is not None:
            self._end_auction(lead, lead.auction)
        self.record(
            LeadClosed(
                outcome=outcome,
                source_id=lead.source_id,
                lead_type=lead.lead_type,
                plan=lead.plan,
                holders=lead.holders,
                is_test=lead.is_test,
            )
        )

    def _end_auction(self, lead: Lead, auction: Auction) -> None:
        """Void the bids that have not won yet: there is nothing left to sell."""
        won = {sale.buyer_id: sale.mode for sale in lead.sales}
        self.record(
            AuctionClosed(
                auction_number=auction.number,
                reason=AuctionEnd.LEAD_CLOSED,
                mode=next((won[bid.buyer_id] for bid in auction.bids if bid.buyer_id in won), None),
                exclusive_cents=None,
                shared_cents=None,
                results=tuple(
                    BidResult(
                        buyer_id=bid.buyer_id,
                        outcome=BidOutcome.WON if bid.buyer_id in won else BidOutcome.VOID,
                        mode=won.get(bid.buyer_id),
                        minimum_to_win_cents=None,
                    )
                    for bid in auction.bids
                ),
                silent=(),
            )
        )

    def decided(self) -> Decision:
        """Tell with the decision which limits it found used up, and give it."""
        if self.events:
            for reached in self.conditions.limits_reached:
                if reached.order_id in self.conditions.no_room:
                    self.record(reached)
        return Decision(events=self.events, state=self.state)

    def open_window(self, lead: Lead, kind: WindowKind, due_at_ms: int) -> None:
        """Have the lead looked at again when the time has come."""
        self.record(WindowOpened(window_number=lead.windows_opened + 1, kind=kind, due_at_ms=due_at_ms))

    def close_window(self, lead: Lead, kind: WindowKind) -> None:
        """End a window that is open."""
        window = lead.window(kind)
        assert window is not None, f"no {kind} window is open"
        self.record(WindowClosed(window_number=window.number))

    def sell(
        self,
        lead: Lead,
        order: Order,
        mode: Mode,
        price_cents: int,
        *,
        offer_number: int | None = None,
        auction_number: int | None = None,
    ) -> None:
        """Sell the lead to the buyer of a standing order, at the terms that this event tells."""
        number = len(lead.sales) + 1
        upgrade = self._upgrade(lead, mode)
        exclusive_for_ms = self.exclusive_for_ms(lead) if mode is Mode.EXCLUSIVE else None
        until_ms = None if exclusive_for_ms is None else self.now_ms + exclusive_for_ms
        upgrade_until_ms = _upgrade_until_ms(upgrade, self.now_ms)
        self.record(
            LeadSold(
                sale_number=number,
                sale_id=sale_id_of(self.lead_id, number),
                buyer_id=order.buyer_id,
                order_id=order.id,
                source_id=lead.source_id,
                lead_type=lead.lead_type,
                plan=lead.plan or "",
                stage=lead.stage,
                mode=mode,
                price_cents=price_cents,
                currency=self.conditions.market.currency,
                sales_max=lead.sales_max,
                exclusive_until_ms=until_ms,
                others_may_follow=number < lead.sales_max if mode is Mode.SHARED else until_ms is not None,
                others_from_ms=until_ms if mode is Mode.EXCLUSIVE else upgrade_until_ms,
                holders=lead.holders,
                held_since_ms=lead.sales[0].sold_at_ms if lead.sales else None,
                offer_number=offer_number,
                quality=lead.quality,
                created_at_ms=lead.created_at_ms,
                is_test=lead.is_test,
                auction_number=auction_number,
                upgrade_fee_cents=upgrade.per_slot_cents * (lead.sales_max - 1) if upgrade else None,
                upgrade_until_ms=upgrade_until_ms,
                payout_cents=share_cents(self.paid(lead), price_cents, is_test=lead.is_test),
                draws=self._draws(lead, order, price_cents),
            )
        )

    def _upgrade(self, lead: Lead, mode: Mode) -> Upgrade | None:
        """Find the upgrade of the first sale, where slots are left: a stage that asks for bids has none."""
        if mode is Mode.EXCLUSIVE or lead.sales or lead.sales_max == 1:
            return None
        stage = self.stage(lead)
        return stage.upgrade if stage.selection is Selection.DIRECT else None

    def _draws(self, lead: Lead, order: Order, price_cents: int) -> tuple[Draw, ...]:
        """What a purchase earns of returns is, like all their rules, by the version the lead was accepted under."""
        if lead.is_test:
            return ()
        returns = self.lead_type(lead).returns
        return sale_draws(
            self.conditions.market,
            order,
            price_cents=price_cents,
            now_ms=self.now_ms,
            returns_quota_basis_points=returns.quota_basis_points if returns is not None else None,
        )

    def exclusive_for_ms(self, lead: Lead) -> int | None:
        """Exclusive for a time only where somebody may follow; otherwise it is for good, and said so."""
        plan = self.plan(lead)
        others_can_follow = lead.sales_max > 1 and any(
            stage.sell is not Sell.EXCLUSIVE for stage in plan.stages[lead.stage + 1 :]
        )
        return plan.stages[lead.stage].exclusive_for_ms if others_can_follow else None

    def plan(self, lead: Lead) -> Plan:
        """Find the plan that the lead was accepted with."""
        if self._plan is None:
            self._plan = next(plan for plan in self.lead_type(lead).plans if plan.name == lead.plan)
        return self._plan

    def lead_type(self, lead: Lead) -> LeadType:
        """Find the lead's type as it was when the lead was accepted."""
        return self.conditions.accepted_market.lead_types[lead.lead_type]

    def paid(self, lead: Lead) -> Paid | None:
        """Find what the lead's source is paid, as it was when the lead was accepted."""
        return paid_of(self.conditions.accepted_market, lead.source_id)

    def stage(self, lead: Lead) -> Stage:
        """Find the stage that the lead is in."""
        return self.plan(lead).stages[lead.stage]

    def book(self, lead: Lead) -> OrderBook | None:
        """Find the orders for a lead; none in a market of another currency, where its prices would be others."""
        conditions = self.conditions
        if conditions.market.currency != conditions.accepted_market.currency:
            return None
        return conditions.books.get(lead.lead_type)

    def standing_order(self, lead: Lead, order_id: str) -> Order | None:
        """Find an order that is still in the market and not paused."""
        book = self.book(lead)
        found = book.of_ids((order_id,)) if book is not None else 0
        return book.order_of(found) if book is not None and found else None

    def known_lead(self, command: str, buyer_id: str | None) -> Lead | None:
        """Find the lead that a command is about, or refuse the command."""
        if not isinstance(self.state, Lead):
            self.refuse(command, buyer_id, RefusalReason.UNKNOWN_LEAD)
            return None
        return self.state


def _upgrade_until_ms(upgrade: Upgrade | None, now_ms: int) -> int | None:
    return None if upgrade is None or upgrade.within_ms is None else now_ms + upgrade.within_ms
