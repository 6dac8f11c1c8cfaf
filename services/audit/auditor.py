"""The auditor: judges the records of all topics and the rows of the tables by the guarantees. The judgement is pure.

It is handed records, in order within each partition and in any order otherwise, and at the end the tables. It derives
everything anew from the log: what was sold, drawn, told and billed. It knows the contract, and nothing of the steps.
"""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from services.audit.delivery_checks import DeliveryChecks, note_accepted
from services.audit.evidence import Tables
from services.audit.findings import At, Findings, Markets
from services.audit.lead_checks import LeadChecks
from services.audit.lead_state import Accepted
from services.audit.ledger_checks import Ledger, Tally
from services.audit.limit_checks import Limits
from services.audit.log_checks import LogChecks
from services.audit.log_entries import Entries
from services.audit.outcomes import Outcomes
from services.audit.states import LeadStates
from services.audit.usual_entries import UsualEntries
from services.audit.violations import Report
from services.bus.ports import Record
from services.contract.codec import NotReadable, codec
from services.contract.ids import partition_of
from services.contract.market import Market
from services.contract.times import MINUTE_MS
from services.contract.topics import Topics

GRACE_MS: Final = 5 * MINUTE_MS
"""What is missing while things are under way may still come for so long."""

_OUTSIDE: Final = frozenset({"leads", "pings", "receipts"})


class Auditor:
    """Judges one Gavel, and counts: `entries`, `leads`, `sales`, `deliveries`, `auctions`, `violations`."""

    def __init__(
        self,
        *,
        markets: Callable[[int], Market],
        topics: Topics,
        partitions: int,
        states: LeadStates,
        report: Report,
    ) -> None:
        """Begin with nothing seen. `markets` gives a version (LookupError: none such); `partitions` is the log's."""
        self._topics = topics
        self._states = states
        self._partition_of = lambda lead_id: partition_of(lead_id, partitions)
        self._findings = Findings(report, topics)
        self._markets = Markets(markets)
        entries = Entries()
        self._log = LogChecks(self._findings, entries, partitions)
        self._limits = Limits(self._findings, self._markets)
        self._ledger = Ledger(self._findings, self._partition_of)
        self._leads = LeadChecks(self._findings, self._markets, entries, self._limits, self._ledger, codec())
        self._told = DeliveryChecks(self._findings, self._markets, topics, states, self._partition_of)
        self._outcomes = Outcomes(
            self._findings, self._markets, topics, self._told.without_entry, self._partition_of
        )
        self._usual = UsualEntries(self._log, self._leads, entries, self._limits, self._ledger, states)
        self._now_ms = 0
        self._owners: dict[str, tuple[str, str, str] | None] = {}

    @property
    def entries(self) -> int:
        """How many entries were taken, repeats not counted."""
        return self._log.entries

    @property
    def leads(self) -> int:
        """How many leads the log lists."""
        return self._leads.leads

    @property
    def sales(self) -> int:
        """How many sales it tells of."""
        return self._leads.sales

    @property
    def auctions(self) -> int:
        """How many auctions it opened."""
        return self._leads.auctions

    @property
    def deliveries(self) -> int:
        """How many deliveries were read, repeats included."""
        return self._told.deliveries

    @property
    def violations(self) -> Counter[str]:
        """How often each rule was broken."""
        return self._findings.violations

    def take(self, records: Sequence[Record]) -> None:
        """Take records of any topics, in order within each partition; those of other topics are ignored."""
        log, qualified, take_usual = self._topics.log, self._topics.qualified, self._usual.take
        for record in records:
            topic = record.topic
            if topic == log:
                if not take_usual(record):
                    taken = self._log.take(record)
                    if taken is not None:
                        self._fold(*taken)
            elif topic == qualified:
                self._accept(record)
            else:
                owner = self._owner_of(topic)
                if owner is not None:
                    self._told.take(record, owner[2], owner[1])
        if records:
            self._now_ms = max(self._now_ms, records[-1].timestamp_ms)

    def gone(self, topic: str, before_ms: int) -> None:
        """Take note that a topic no longer has its records from before then, so that they are not missed."""
        self._outcomes.gone[topic] = max(before_ms, self._outcomes.gone.get(topic, 0))

    def finish(self, tables: Tables, *, at_rest: bool) -> None:
        """Say what can only be said at the end; may be called again after more records were taken.

        At rest, what is missing is lost. Else only what is older than the grace period (5 minutes before the highest
        time that was read) counts as missing, and what the tables know beyond the records read is left for later.
        """
        now_ms = max(self._now_ms, *self._log.decided_at_ms.values(), 0)
        late_before_ms = None if at_rest else now_ms - GRACE_MS
        self._count_draws()
        is_same = self._log.compare(tables.heads(), at_rest=at_rest)
        exact = late_before_ms if not (at_rest or is_same) else None
        if at_rest or is_same:
            # What is not read yet may have given back, or granted, what others have used.
            self._limits.judge()
            self._limits.compare(tables.counters(), now_ms)
        if not self._log.unreadable:
            self._ledger.compare_rows(tables.sales, tables.closes, self._states.all, late_before_ms=exact)
            self._ledger.compare_transfers(
                tables.transfers,
                self._states.all,
                late_before_ms=late_before_ms,
                is_log_complete=exact is None,
            )
            self._outcomes.accepted(tables.accepted, self._states, self._leads.listed, late_before_ms)
        self._outcomes.missing(tables.undelivered(), self._states, now_ms, late_before_ms)

    def kept(self) -> bytes:
        """Give what it knows beside the leads' states, to be kept with them and handed to `resume` later."""
        self._count_draws()
        return marshal.dumps(
            [
                self._log.kept(),
                self._limits.kept(),
                self._ledger.dues.sums,
                self._ledger.rows.sums,
                self._leads.listed.sums,
                [self.leads, self.sales, self.auctions, self.deliveries, self._now_ms],
                {str(rule): count for rule, count in self.violations.items()},
                self._outcomes.kept(),
            ]
        )

    def resume(self, kept: bytes) -> None:
        """Go on where the auditor was that gave this; to be called before anything is taken."""
        log, limits, dues, rows, listed, counts, violations, outcomes = marshal.loads(kept)
        self._log.resume(log)
        self._limits.resume(limits)
        self._ledger.dues, self._ledger.rows, self._leads.listed = Tally(dues), Tally(rows), Tally(listed)
        self._leads.leads, self._leads.sales, self._leads.auctions, self._told.deliveries, self._now_ms = (
            counts
        )
        self._findings.violations.update(violations)
        self._outcomes.resume(outcomes)

    def _count_draws(self) -> None:
        self._usual.count()
        self._limits.count(self._leads.remembered.patterns())
        self._limits.take_together()

    def _fold(self, at: At, value: bytes, start: int) -> None:
        lead_id = at.lead_id
        state = self._told.state_of(lead_id)
        is_first = state.listed is None and not state.happened
        try:
            self._leads.fold(at, value, start, state)
        except (NotReadable, ValueError, LookupError) as error:
            self._log.unreadable_from(at, f"an event that can't be read ({type(error).__name__})")
            return
        if is_first:
            self._usual.learn(at, value, start, state)
        if state.waiting:
            self._told.entry_read(lead_id, at.seq, state)

    def _accept(self, record: Record) -> None:
        """Take note of a lead on its way from intake to the router: its key is its id."""
        lead_id = (record.key or b"").decode(errors="replace")
        state = self._told.state_of(lead_id)
        note_accepted(
            state,
            Accepted.QUALIFIED,
            f"{record.topic} {record.partition} (offset {record.offset})",
            record.timestamp_ms,
        )

    def _owner_of(self, topic: str) -> tuple[str, str, str] | None:
        if topic not in self._owners:
            owner = self._topics.owner_of(topic)
            is_told = owner is not None and (owner[0] == "sources") == (owner[2] == "receipts")
            self._owners[topic] = owner if owner is not None and is_told and owner[2] in _OUTSIDE else None
        return self._owners[topic]
