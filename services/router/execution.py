"""Executes what the log tells of a lead again: the same state, input, market and `no_room`, so the same events.

Pure: entries, inputs and market versions come in as arguments. What made an entry may be read from its input topic, or
rebuilt from the entry where that tells all of it; how it is explained is for `why`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from services.contract.entries import CauseKind, Entry, EventBody
from services.contract.events import (
    AuctionClosed,
    DeliveryFailed,
    Event,
    LeadClosed,
    LeadListed,
    LimitReached,
    Outcome,
    WindowClosed,
)
from services.contract.inputs import (
    CloseAuction,
    FailLead,
    Input,
    QualifiedLead,
    ReportFailedDelivery,
    TimerDue,
)
from services.contract.market import Market
from services.router.domain import Conditions, Decision, decide, fail
from services.router.lead import Lead, State, evolve
from services.router.orders import OrderBook

Told: TypeAlias = Sequence[Event]
"""The events of an entry, in its order."""


class Markets(Protocol):
    """The versions of the market, kept for good."""

    def market(self, version: int) -> Market:
        """Read a version."""
        ...

    def books(self, version: int) -> Mapping[str, OrderBook]:
        """Index the orders of a version, by lead type."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One entry about a lead, its events, and the lead's state before it."""

    entry: Entry
    told: Told
    before: State


class DoesNotFollow(Exception):
    """An entry tells what can't follow the ones before it: history was changed, or is not whole."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"entry {seq} tells what cannot follow the lead's entries before it")


def steps_of(entries: Sequence[tuple[Entry, Told]]) -> Iterator[Step]:
    """Fold a lead's entries from its first one on, and keep each state on the way; raise `DoesNotFollow`."""
    state: State = None
    for entry, told in entries:
        yield Step(entry=entry, told=told, before=state)
        try:
            state = evolve(state, entry.lead_id, told, entry.decided_at_ms)
        except (AssertionError, StopIteration, LookupError) as error:
            raise DoesNotFollow(entry.seq) from error


def own_input(step: Step) -> Input | None:
    """Rebuild what the router itself gave itself to decide, which travels nowhere; None for any other cause."""
    if step.entry.cause.kind is not CauseKind.ROUTER:
        return None
    lead_id = step.entry.lead_id
    for event in step.told:
        if isinstance(event, DeliveryFailed):
            # First, as where the database refused it, the lead is closed with it, and an open auction too.
            return ReportFailedDelivery(lead_id=lead_id, sale_number=event.sale_number, reason=event.reason)
    for event in step.told:
        if isinstance(event, AuctionClosed):
            return CloseAuction(lead_id=lead_id, auction_number=event.auction_number)
    return FailLead(lead_id=lead_id)


def rebuilt_input(step: Step) -> Input | None:
    """Rebuild an input whose topic has forgotten it, where its entry tells all of it that matters; else None."""
    lead_id, first = step.entry.lead_id, step.told[0]
    match step.entry.cause.kind, first:
        case CauseKind.QUALIFIED, LeadListed():
            return QualifiedLead(
                lead_id=lead_id,
                source_id=first.source_id,
                lead_type=first.lead_type,
                fields=first.fields,
                quality=first.quality,
                # The lower of the plan's and the source's, so that with the plan's it gives the same again.
                sales_max=first.sales_max,
                never_to=first.never_to,
                created_at_ms=first.created_at_ms,
                received_at_ms=first.created_at_ms,
                market_version=first.market_version,
                is_test=first.is_test,
                consented_buyers=first.consented_buyers,
            )
        case CauseKind.TIMER, WindowClosed(window_number=number):
            return TimerDue(lead_id=lead_id, window_number=number)
        case _:
            return None


def execute(step: Step, subject: Input, markets: Markets) -> Decision:
    """Decide an entry's input again, under all that its entry cites; raise `DoesNotFollow`."""
    choose = fail if _was_refused_by_the_database(step.told) else decide
    conditions = conditions_of(step, subject, markets)
    try:
        return choose(step.before, subject, conditions)
    except (AssertionError, StopIteration, LookupError) as error:
        raise DoesNotFollow(step.entry.seq) from error


def conditions_of(step: Step, subject: Input, markets: Markets) -> Conditions:
    """Give what the decision depended on beside state and input."""
    entry = step.entry
    accepted = entry.market_version
    if isinstance(step.before, Lead):
        accepted = step.before.market_version
    elif isinstance(subject, QualifiedLead):
        accepted = subject.market_version
    return Conditions(
        market=markets.market(entry.market_version),
        books=markets.books(entry.market_version),
        accepted_market=markets.market(accepted),
        no_room=frozenset(entry.no_room),
        now_ms=entry.decided_at_ms,
        limits_reached=tuple(event for event in step.told if isinstance(event, LimitReached)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first event in which a decision executed again is not the one that the log has; None: there is none."""

    number: int
    logged: Event | None
    decided: Event | None


def difference(
    step: Step, decision: Decision, encode_as: Callable[[Event, int], bytes | None]
) -> Difference | None:
    """Compare what was decided again with what the log has, event by event and byte for byte.

    `encode_as` writes an event with the schema of this id, and gives None where that is another type's.
    """
    for index in range(max(len(step.told), len(decision.events))):
        logged: EventBody | None = step.entry.events[index] if index < len(step.told) else None
        decided = decision.events[index] if index < len(decision.events) else None
        if logged is None or decided is None or encode_as(decided, logged.schema_id) != logged.body:
            return Difference(
                number=index + 1, logged=step.told[index] if logged is not None else None, decided=decided
            )
    return None


def _was_refused_by_the_database(told: Told) -> bool:
    """Only `fail` closes a lead so (protocol.md, rule 9)."""
    return any(isinstance(event, LeadClosed) and event.outcome is Outcome.FAILED for event in told)
