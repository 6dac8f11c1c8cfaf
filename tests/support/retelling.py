"""A lead's entries as the router writes them, with the inputs that they decide: what re-execution is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from services.cli.lead_reading import LeadEntries
from services.cli.replaying import Given
from services.contract.codec import codec
from services.contract.entries import GENESIS_HASH, Cause, CauseKind, Entry
from services.contract.events import Event, LimitReached
from services.contract.inputs import (
    CloseAuction,
    FailLead,
    Input,
    QualifiedLead,
    ReportFailedDelivery,
    TimerDue,
)
from services.contract.market import Market
from services.router.attempts import Attempt, attempts_of
from services.router.domain import Conditions, decide, fail
from services.router.execution import Step, steps_of
from services.router.hindrances import Terms
from services.router.lead import Lead, State, evolve
from services.router.markets import IndexedMarkets
from services.router.orders import order_books
from tests.support.deciding import NOW_MS


@dataclass(slots=True)
class Chronicle:
    """One lead, decided input by input, each decision in an entry of its own; `markets` are the versions applied."""

    markets: dict[int, Market]
    now_ms: int = NOW_MS
    state: State = None
    entries: list[tuple[Entry, Sequence[Event]]] = field(default_factory=list)
    inputs: dict[Cause, Input] = field(default_factory=dict)

    def when(
        self,
        subject: Input,
        *,
        after_ms: int = 0,
        no_room: tuple[str, ...] = (),
        limits_reached: tuple[LimitReached, ...] = (),
        version: int = 0,
        refused_by_database: bool = False,
    ) -> Sequence[Event]:
        """Decide an input under a version of the market (the last one), and write its entry."""
        self.now_ms += after_ms
        version = version or max(self.markets)
        conditions = Conditions(
            market=self.markets[version],
            books=order_books(self.markets[version]),
            accepted_market=self.markets[self._accepted(subject, version)],
            no_room=frozenset(no_room),
            now_ms=self.now_ms,
            limits_reached=limits_reached,
        )
        decision = (fail if refused_by_database else decide)(self.state, subject, conditions)
        if decision.events:
            self._append(subject, decision.events, version, no_room)
        return decision.events

    def timer(self, *, no_room: tuple[str, ...] = ()) -> Sequence[Event]:
        """Let the time come for the window that is due first."""
        assert isinstance(self.state, Lead)
        window = min(self.state.windows, key=lambda window: window.due_at_ms)
        self.now_ms = max(self.now_ms, window.due_at_ms)
        return self.when(TimerDue(lead_id=self.state.lead_id, window_number=window.number), no_room=no_room)

    def close_auction(self, *, no_room: tuple[str, ...] = ()) -> Sequence[Event]:
        """Let the open auction's time be up."""
        assert isinstance(self.state, Lead)
        auction = self.state.auction
        assert auction is not None
        self.now_ms = max(self.now_ms, auction.closes_at_ms)
        return self.when(
            CloseAuction(lead_id=self.state.lead_id, auction_number=auction.number), no_room=no_room
        )

    def read(self) -> LeadEntries:
        """Give it as it is read from the log."""
        return LeadEntries(
            lead_id=self.entries[0][0].lead_id, partition=0, read_from="a test", entries=self.entries
        )

    def given(self, cause: Cause, partition: int) -> Given | None:
        """Give an input as its topic does."""
        found = self.inputs.get(cause)
        return None if found is None else Given(found, f"{cause.kind}, offset {cause.offset}")

    def versions(self) -> IndexedMarkets:
        """Give the versions of the market."""
        return IndexedMarkets(self.markets.__getitem__)

    def steps(self) -> Sequence[Step]:
        """Give each entry with the state before it."""
        return list(steps_of(self.entries))

    def attempts(self) -> list[Attempt]:
        """List all attempts to sell."""
        return [attempt for step in self.steps() for attempt in attempts_of(step)]

    def terms(self, attempt: Attempt) -> Terms:
        """Give the versions that an attempt was made under."""
        return Terms(
            market=self.markets[attempt.step.entry.market_version],
            accepted_market=self.markets[attempt.lead.market_version],
        )

    def _accepted(self, subject: Input, version: int) -> int:
        if isinstance(self.state, Lead):
            return self.state.market_version
        return subject.market_version if isinstance(subject, QualifiedLead) else version

    def _append(
        self, subject: Input, events: Sequence[Event], version: int, no_room: tuple[str, ...]
    ) -> None:
        cause = Cause(
            kind=_kind(subject), offset=len(self.entries) if _kind(subject) is not CauseKind.ROUTER else -1
        )
        self.inputs[cause] = subject
        entry = Entry(
            seq=len(self.entries) + 1,
            prev_hash=GENESIS_HASH,
            cause=cause,
            market_version=version,
            no_room=tuple(sorted(no_room)),
            lead_id=subject.lead_id,
            decided_at_ms=self.now_ms,
            events=tuple(codec().encode_body(event) for event in events),
        )
        # What is read was written and read: an event that its schema does not hold whole would show here.
        self.entries.append((entry, codec().events_of(entry)))
        self.state = evolve(self.state, subject.lead_id, self.entries[-1][1], self.now_ms)

    def change(self, number: int, event: Event) -> None:
        """Change history: put another event in the place of an entry's first (a planted bug)."""
        entry, told = self.entries[number]
        bodies = (codec().encode_body(event), *entry.events[1:])
        self.entries[number] = (replace(entry, events=bodies), (event, *told[1:]))


def _kind(subject: Input) -> CauseKind:
    match subject:
        case QualifiedLead():
            return CauseKind.QUALIFIED
        case TimerDue():
            return CauseKind.TIMER
        case ReportFailedDelivery() | FailLead() | CloseAuction():
            return CauseKind.ROUTER
        case _:
            return CauseKind.COMMAND
