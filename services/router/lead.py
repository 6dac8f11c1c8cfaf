"""A lead's state, and how each event changes it: the fold of the log, for one lead.

Everything that affects the state is in this file. `Lead` is changed only by `apply`; whoever folds works on a copy of
its own, so that a value that was read from the database is never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from services.contract.events import (
    CommandRefused,
    DeliveryFailed,
    Disposition,
    DispositionReported,
    Event,
    LeadClosed,
    LeadListed,
    LeadSold,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    Outcome,
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
    WithdrawalReason,
)
from services.contract.market import Mode
from services.contract.records import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """One buyer's purchase of the lead, and so one disclosure."""

    number: int
    buyer_id: str
    order_id: str
    mode: Mode
    stage: int
    price_cents: int
    currency: str
    sold_at_ms: int
    exclusive_until_ms: int | None
    disposition: Disposition | None = None
    delivery_failed: bool = False


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Something that is due for the lead later."""

    number: int
    kind: WindowKind
    due_at_ms: int


@dataclass(slots=True, kw_only=True)
class Lead:
    """A listed lead: what it is, how it is sold, and to whom it was."""

    lead_id: str
    source_id: str
    lead_type: str
    plan: str | None
    quality: int
    fields: Mapping[str, str]
    sales_max: int
    never_to: tuple[str, ...]
    created_at_ms: int
    market_version: int
    is_test: bool
    stage: int
    stage_began_ms: int
    sales: tuple[Sale, ...] = ()
    offer: OfferMade | None = None
    offers_made: int = 0
    passed: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    windows_opened: int = 0
    outcome: Outcome | None = None

    @property
    def holders(self) -> tuple[str, ...]:
        """The buyers that had the contact details disclosed, in the order of their sales."""
        return tuple(sale.buyer_id for sale in self.sales)

    def window(self, kind: WindowKind) -> Window | None:
        """Find the open window of a kind; there is at most one of each."""
        return next((window for window in self.windows if window.kind is kind), None)

    def sale_of(self, buyer_id: str) -> Sale | None:
        """Find what a buyer bought; a buyer never buys the same lead twice."""
        return next((sale for sale in self.sales if sale.buyer_id == buyer_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawnEarly:
    """A lead that was withdrawn before it was listed; on arrival it is closed."""

    reason: WithdrawalReason


State: TypeAlias = Lead | WithdrawnEarly | None


def evolve(state: State, lead_id: str, events: Iterable[Event], at_ms: int) -> State:
    """Fold the events of one entry, decided at `at_ms`, into the state before it; the argument stays unchanged."""
    lead = copy(state) if isinstance(state, Lead) else state
    for event in events:
        if isinstance(event, LeadListed):
            lead = listed(lead_id, event, at_ms)
        elif isinstance(event, WithdrawalNoted):
            lead = WithdrawnEarly(reason=event.reason)
        elif isinstance(lead, Lead):
            apply(lead, event, at_ms)
    return lead


def listed(lead_id: str, event: LeadListed, at_ms: int) -> Lead:
    """Make the state of a lead that has just been listed."""
    return Lead(
        lead_id=lead_id,
        source_id=event.source_id,
        lead_type=event.lead_type,
        plan=event.plan,
        quality=event.quality,
        fields=event.fields,
        sales_max=event.sales_max,
        never_to=event.never_to,
        created_at_ms=event.created_at_ms,
        market_version=event.market_version,
        is_test=event.is_test,
        stage=0,
        stage_began_ms=at_ms,
    )


def apply(lead: Lead, event: Event, at_ms: int) -> None:
    """Change `lead` by one event; raise AssertionError for one that cannot follow."""
    match event:
        case LeadSold():
            _sell(lead, event, at_ms)
        case LeadClosed(outcome=outcome):
            assert lead.outcome is None, f"lead {lead.lead_id} is closed twice"
            lead.outcome, lead.windows, lead.offer = outcome, (), None
        case StageStarted(stage=stage):
            lead.stage, lead.stage_began_ms = stage, at_ms
        case WindowOpened(window_number=number, kind=kind, due_at_ms=due_at_ms):
            lead.windows = (*lead.windows, Window(number=number, kind=kind, due_at_ms=due_at_ms))
            lead.windows_opened = number
        case WindowClosed(window_number=number):
            _close_window(lead, number, at_ms)
        case OfferMade():
            lead.offer, lead.offers_made = event, event.offer_number
        case OfferRejected(buyer_id=buyer_id) | OfferExpired(buyer_id=buyer_id):
            lead.offer, lead.passed = None, (*lead.passed, buyer_id)
        case OfferWithdrawn():
            lead.offer = None
        case DispositionReported(sale_number=number, disposition=disposition):
            lead.sales = _changed(lead.sales, number, disposition=disposition)
        case DeliveryFailed(sale_number=number):
            lead.sales = _changed(lead.sales, number, delivery_failed=True)
        case CommandRefused():
            pass
        case LeadListed() | WithdrawalNoted():
            raise AssertionError(f"lead {lead.lead_id} is listed already")
        case _:
            assert_never(event)


def _sell(lead: Lead, event: LeadSold, at_ms: int) -> None:
    assert event.sale_number == len(lead.sales) + 1, f"lead {lead.lead_id} has {len(lead.sales)} sales"
    lead.offer = None
    lead.sales = (
        *lead.sales,
        Sale(
            number=event.sale_number,
            buyer_id=event.buyer_id,
            order_id=event.order_id,
            mode=event.mode,
            stage=event.stage,
            price_cents=event.price_cents,
            currency=event.currency,
            sold_at_ms=at_ms,
            exclusive_until_ms=event.exclusive_until_ms,
        ),
    )


def _close_window(lead: Lead, number: int, at_ms: int) -> None:
    closed = next(window for window in lead.windows if window.number == number)
    lead.windows = tuple(window for window in lead.windows if window.number != number)
    if closed.kind is WindowKind.WAIT:
        lead.stage_began_ms = at_ms


def _changed(sales: tuple[Sale, ...], number: int, **changes: object) -> tuple[Sale, ...]:
    return tuple(replace(sale, **changes) if sale.number == number else sale for sale in sales)  # type: ignore[arg-type]  # the names are Sale's own
