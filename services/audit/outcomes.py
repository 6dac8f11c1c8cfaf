"""What can only be said at the end: which accepted lead was never listed, which lead never closed, what was never told.

It goes through the states of which something is still to come, and through the others only where the tables disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from services.audit.findings import Findings, Markets
from services.audit.lead_state import (
    LEAD,
    N_BITS,
    PING,
    RECEIPT,
    Happened,
    LeadState,
    letters_of,
)
from services.audit.ledger_checks import BUCKETS, Tally, subject_of
from services.audit.rules import Rule
from services.audit.states import LeadStates
from services.audit.violations import Where
from services.contract.times import MINUTE_MS
from services.contract.topics import Topics

OVERDUE_MS: Final = 5 * MINUTE_MS
"""A window that is due for so long, or an auction, was lost."""

_ACCEPTED = "intake.leads"


class Outcomes:
    """Judges what is missing. `gone`: by topic, the time before which it has no records any more."""

    def __init__(
        self,
        findings: Findings,
        markets: Markets,
        topics: Topics,
        without_entry: Callable[[str, LeadState, int | None], None],
        partition_of: Callable[[str], int],
    ) -> None:
        """Report to `findings`; `without_entry` reports what was told of entries that never came."""
        self.gone: dict[str, int] = {}
        self._findings = findings
        self._markets = markets
        self._topics = topics
        self._without_entry = without_entry
        self._partition_of = partition_of

    def accepted(
        self,
        read: Callable[[], Iterator[tuple[str, int]]],
        states: LeadStates,
        listed: Tally,
        late_before_ms: int | None,
    ) -> None:
        """Hold the leads that intake accepted against those that the log lists."""
        tally = Tally()
        for lead_id, _ in read():
            tally.add(subject_of(lead_id), 1)
        buckets = listed.differing(tally)
        if not buckets:
            return
        unlisted = {
            lead_id: at_ms
            for lead_id, at_ms in read()
            if subject_of(lead_id) & (BUCKETS - 1) in buckets and not _is_listed(states.of(lead_id))
        }
        for lead_id, at_ms in unlisted.items():
            if late_before_ms is None or at_ms < late_before_ms:
                what = "accepted by intake, and never listed"
                self._findings.broken(
                    Rule.ACCEPTED_IS_LISTED, what, Where(_ACCEPTED, lead_id), lead_id=lead_id
                )
        known = {lead_id for lead_id, _ in read() if subject_of(lead_id) & (BUCKETS - 1) in buckets}
        for lead_id, state in states.all():
            if subject_of(lead_id) & (BUCKETS - 1) in buckets and _is_listed(state) and lead_id not in known:
                what = "listed, and intake accepted no such lead"
                place = self._listing(lead_id, state)
                self._findings.broken(
                    Rule.LISTED_WAS_ACCEPTED, what, place, Where(_ACCEPTED, lead_id), lead_id=lead_id
                )

    def missing(
        self,
        undelivered: Iterable[tuple[int, int, int, str]],
        states: LeadStates,
        now_ms: int,
        late_before_ms: int | None,
    ) -> None:
        """Judge each lead of which something is still to come."""
        waiting = {(partition, seq, n) for partition, seq, n, _ in undelivered}
        for lead_id, state in states.unsettled():
            self._without_entry(lead_id, state, late_before_ms)
            self._listing_missing(lead_id, state, late_before_ms)
            self._close_missing(lead_id, state, now_ms, late_before_ms)
            partition = self._partition_of(lead_id)
            for seq, happened in state.happened.items():
                if late_before_ms is None or happened.decided_at_ms < late_before_ms:
                    self._untold(lead_id, state, seq, happened, waiting, partition)

    def _listing_missing(self, lead_id: str, state: LeadState, late_before_ms: int | None) -> None:
        is_late = late_before_ms is None or state.accepted_at_ms < late_before_ms
        if state.accepted and state.listed is None and is_late:
            topic, _, at = (state.accepted_at or "").partition(" ")
            self._findings.broken(
                Rule.ACCEPTED_IS_LISTED, "accepted, and never listed", Where(topic, at), lead_id=lead_id
            )
        if state.listed is not None and not state.accepted and self._gone_before(self._topics.qualified) == 0:
            is_late = late_before_ms is None or state.listed.created_at_ms < late_before_ms
            if is_late:
                what = "listed, and no record of intake says that it was accepted"
                self._findings.broken(
                    Rule.LISTED_WAS_ACCEPTED, what, self._listing(lead_id, state), lead_id=lead_id
                )

    def _close_missing(self, lead_id: str, state: LeadState, now_ms: int, late_before_ms: int | None) -> None:
        """A lead that waits for something that is not overdue is not closed yet; what waits for nothing is lost."""
        if state.listed is None or state.close is not None:
            return
        ends = [due_at_ms for _, due_at_ms in (state.windows or {}).values()]
        if state.auction is not None:
            ends.append(state.auction[4])
        place = self._listing(lead_id, state)
        last = max(
            (happened.decided_at_ms for happened in state.happened.values()), default=state.stage_from_ms
        )
        if not ends and (late_before_ms is None or last < late_before_ms):
            self._findings.broken(Rule.CLOSED_ONCE, "listed, and never closed", place, lead_id=lead_id)
        elif ends and min(ends) < now_ms - OVERDUE_MS:
            what = f"something was due at {min(ends)}, and did not happen"
            rule = Rule.CLOSED_ONCE if state.auction is None else Rule.AUCTION_CLOSED_ONCE
            self._findings.broken(rule, what, place, lead_id=lead_id)

    def _untold(
        self,
        lead_id: str,
        state: LeadState,
        seq: int,
        happened: Happened,
        waiting: set[tuple[int, int, int]],
        partition: int,
    ) -> None:
        for n, (kind, recipient, about) in enumerate(letters_of(state, happened)):
            if (seq << N_BITS | n) in state.seen or (partition, seq, n) in waiting:
                continue
            if kind == LEAD and state.sales[about - 1].failed:
                continue
            topic = self._topic(kind, recipient)
            if happened.decided_at_ms < self._gone_before(topic) or self._is_gone(state, kind, recipient):
                continue
            place = self._findings.entry(partition, seq, happened.offset)
            what = f"a {kind} never reached {topic}"
            self._findings.broken(
                Rule.DELIVERED, what, place, Where(topic, f"{partition}:{seq}:{n}"), lead_id=lead_id
            )

    def kept(self) -> list[Any]:
        """Give what must be kept, as plain values."""
        return [self.gone]

    def resume(self, kept: list[Any]) -> None:
        """Go on from what was kept."""
        (self.gone,) = kept

    def _gone_before(self, topic: str) -> int:
        return self.gone.get(topic, 0)

    def _is_gone(self, state: LeadState, kind: str, recipient: str) -> bool:
        """Tell whether the market once knew a recipient no longer: what it is told besides leads is then not kept."""
        if kind == LEAD:
            return False
        version = 1 if state.listed is None else state.listed.market_version
        while (market := self._markets.version(version)) is not None:
            if recipient not in (market.sources if kind == RECEIPT else market.buyers):
                return True
            version += 1
        return False

    def _topic(self, kind: str, recipient: str) -> str:
        if kind == RECEIPT:
            return self._topics.source_receipts(recipient)
        return self._topics.buyer_pings(recipient) if kind == PING else self._topics.buyer_leads(recipient)

    def _listing(self, lead_id: str, state: LeadState) -> Where:
        seq, offset = state.place or (0, 0)
        return self._findings.entry(self._partition_of(lead_id), seq, offset)


def _is_listed(state: LeadState | None) -> bool:
    return state is not None and state.listed is not None
