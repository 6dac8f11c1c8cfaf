"""Finds in the events of an entry each attempt to sell: in which stage, on which state of the lead, with what result.

Pure. An entry may hold several, as one stage leaves to the next what it could not sell. Why an attempt went as it did
is for `why`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.contract.entries import CauseKind
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    BidPlaced,
    Event,
    LeadClosed,
    LeadListed,
    LeadSold,
    OfferExpired,
    OfferRejected,
    Outcome,
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from services.contract.market import Mode, Selection
from services.router.execution import Step
from services.router.lead import Auction, Lead, State, evolve

_BEGUN_BY_TIME = frozenset({WindowKind.WAIT, WindowKind.RETRY, WindowKind.UPGRADE})
_NO_ATTEMPT = frozenset({Outcome.WITHDRAWN, Outcome.FAILED, Outcome.DEAL})


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt of a stage to sell: `lead` is its state at the start, `followed` the events that came of it.

    `auction`: the one whose end, or whose bid, this attempt is; who fitted is judged by the time that it opened.
    """

    step: Step
    lead: Lead
    auction: Auction | None = None
    ended: AuctionClosed | None = None
    followed: list[Event] = field(default_factory=list)

    @property
    def judged_at_ms(self) -> int:
        """The time by which filters and hours were judged."""
        return self.step.entry.decided_at_ms if self.auction is None else self.auction.opened_at_ms

    @property
    def sold(self) -> Sequence[LeadSold]:
        """What it sold, in its order."""
        return [event for event in self.followed if isinstance(event, LeadSold)]


def attempts_of(step: Step) -> Sequence[Attempt]:
    """List an entry's attempts to sell."""
    found: list[Attempt] = []
    state: State = step.before
    by_timer = step.entry.cause.kind is CauseKind.TIMER
    for event in step.told:
        before = state
        state = evolve(state, step.entry.lead_id, (event,), step.entry.decided_at_ms)
        auction = before.auction if isinstance(before, Lead) else None
        if isinstance(state, Lead) and _begins(event, before, auction, by_timer=by_timer):
            found.append(_attempt(step, event, before, state))
        elif found:
            found[-1].followed.append(event)
    return [attempt for attempt in found if not _came_to_nothing(attempt)]


def _attempt(step: Step, event: Event, before: State, after: Lead) -> Attempt:
    match event:
        case AuctionClosed() if isinstance(before, Lead):
            # Whoever was silent has passed on the lead from here on, and not when this was decided.
            return Attempt(step=step, lead=before, auction=before.auction, ended=event)
        case BidPlaced():
            return Attempt(step=step, lead=after, auction=after.auction)
        case _:
            return Attempt(step=step, lead=after)


def _begins(event: Event, before: State, auction: Auction | None, *, by_timer: bool) -> bool:
    """Tell whether the event is followed by an attempt, with whatever it left as its start."""
    match event:
        case LeadListed(plan=plan):
            return plan is not None
        case StageStarted() | OfferExpired() | OfferRejected():
            return True
        case WindowClosed(window_number=number):
            kinds = (
                {window.number: window.kind for window in before.windows} if isinstance(before, Lead) else {}
            )
            return by_timer and kinds.get(number) in _BEGUN_BY_TIME
        case LeadSold(offer_number=offer_number, mode=mode):
            return offer_number is not None and mode is Mode.SHARED
        case AuctionClosed(reason=reason):
            return reason is not AuctionEnd.LEAD_CLOSED
        case BidPlaced():
            return auction is not None and auction.selection is Selection.FIRST_BID
        case _:
            return False


def _came_to_nothing(attempt: Attempt) -> bool:
    """Tell whether nobody was asked after all: the stage waits first, or the lead was taken off the market."""
    if attempt.auction is not None and attempt.ended is None and not attempt.sold:
        return True  # a first bid that sold nothing: what became of it is told when its auction ends
    first = next((event for event in attempt.followed if not _is_expiry(event)), None)
    if isinstance(first, WindowOpened):
        return first.kind is WindowKind.WAIT
    return isinstance(first, LeadClosed) and first.outcome in _NO_ATTEMPT


def _is_expiry(event: Event) -> bool:
    return isinstance(event, WindowOpened) and event.kind is WindowKind.EXPIRY
