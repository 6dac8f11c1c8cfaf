"""Entries like one judged before, known again by their bytes: such an entry is taken without being decoded or judged.

Most entries list a lead, sell it and close it, and differ in nothing but ids and times (`outlines`). These are held
against what they must be; an entry in which anything is otherwise is left to `log_checks` and `lead_checks`.
"""

from __future__ import annotations

from typing import Final

from services.audit.avro_times import is_six_bytes, milliseconds_of
from services.audit.findings import At
from services.audit.lead_checks import LeadChecks
from services.audit.lead_state import PLACE, LeadState, usual_of
from services.audit.ledger_checks import Ledger, subject_of
from services.audit.limit_checks import Limits
from services.audit.log_checks import LogChecks
from services.audit.log_entries import Entries
from services.audit.outlines import Judged, Outline, Outlines
from services.audit.sale_checks import QUARTER_MS
from services.audit.states import LeadStates
from services.bus.ports import Record
from services.contract.ids import sale_ids_of

_KNOWN_MAX: Final = 50_000
_ID_SIZE: Final = 36
_ID_WITHIN: Final = 512
_TIME_SIZE: Final = 6


class UsualEntries:
    """Takes an entry as `LogChecks` and `LeadChecks` would, where one like it was judged."""

    def __init__(
        self,
        log: LogChecks,
        leads: LeadChecks,
        entries: Entries,
        limits: Limits,
        ledger: Ledger,
        states: LeadStates,
    ) -> None:
        """Begin with none known."""
        self._log = log
        self._leads = leads
        self._limits = limits
        self._ledger = ledger
        self._states = states
        self._outlines = Outlines(entries)
        self._drawn: set[Outline] = set()
        self._versions: dict[bytes, int] = {}
        self._times: dict[bytes, int] = {}

    def take(self, record: Record) -> bool:
        """Take an entry if one like it is known; else change nothing, and tell so."""
        _, partition, offset, key, value, _, _ = record
        if key is None or value is None or len(key) != _ID_SIZE or not key.isascii():
            return False
        at = self._log.cause_end(partition, value)
        id_at = value.find(key, at, at + _ID_WITHIN)
        version = self._versions.get(value[at:id_at])
        if not at or id_at < 0 or version is None:
            return False
        start = id_at + _ID_SIZE + _TIME_SIZE
        decided = value[id_at + _ID_SIZE : start]
        decided_at_ms = self._times.get(decided) or self._time_of(decided)
        outline, parts, expected = self._outlines.find(value, start, version, decided_at_ms // QUARTER_MS)
        if outline is None:
            return False
        created, ids = parts[1], sale_ids_of(key, outline.sales)
        lead_id = key.decode()
        if (
            parts[1::2] != expected((decided, created, *ids))
            or created == decided
            or not is_six_bytes(created)
            or not self._states.is_new(lead_id)
        ):
            return False
        seq = self._log.take_usual(partition, offset, value, lead_id, decided_at_ms)
        if not seq:
            return False
        self._add(outline, key, ids, (partition, seq, offset))
        self._states.begin_usual(lead_id, outline.lead, PLACE.pack(seq, offset, decided, created))
        return True

    def learn(self, at: At, value: bytes, start: int, state: LeadState) -> None:
        """Learn an entry that was judged just now, the first of its lead, if all like it would be judged the same."""
        patterns, usual, listed = self._leads.alike, usual_of(state, at.seq), state.listed
        is_usual = patterns is not None and usual is not None and len(patterns) == len(usual.terms)
        if not is_usual or patterns is None or usual is None or listed is None:
            return
        if not self._learn_version(at, value, start):
            return
        is_due = listed.payout_cents and not listed.is_test
        outline = Outline(
            patterns,
            market_version=at.market_version,
            lead=self._states.usual(usual),
            payout_weight=self._ledger.weight_of_payout(listed) if is_due else 0,
            close_weight=self._ledger.weight_of_close(usual.outcome),
        )
        judged = Judged(value, start, at.lead_id, at.market_version, at.decided_at_ms, listed.created_at_ms)
        self._outlines.learn(judged, outline)

    def count(self) -> None:
        """Add up what the entries drew that were taken since this was done last."""
        for outline in self._drawn:
            for pattern in outline.patterns:
                self._limits.sold_alike(pattern, outline.market_version, outline.times, outline.last)
            outline.times = 0
        self._drawn.clear()

    def _add(self, outline: Outline, key: bytes, ids: list[bytes], at: tuple[int, int, int]) -> None:
        """Add an entry to all sums that it is part of."""
        if not outline.times:
            self._drawn.add(outline)
        outline.times += 1
        outline.last = at
        leads, lead = self._leads, subject_of(key)
        leads.leads += 1
        leads.sales += outline.sales
        leads.listed.add(lead, 1)
        self._ledger.rows.add(lead, outline.row_weight)
        if outline.is_due:
            self._ledger.dues.add_each(ids, outline.weights)
            self._ledger.dues.add(lead, outline.payout_weight)

    def _time_of(self, data: bytes) -> int:
        """Decode a time, each once, as many entries have the same; -1: it is not one of six bytes."""
        at_ms = self._times.get(data)
        if at_ms is None:
            if len(self._times) >= _KNOWN_MAX:
                self._times.clear()
            at_ms = self._times[data] = milliseconds_of(data) if is_six_bytes(data) else -1
        return at_ms

    def _learn_version(self, at: At, value: bytes, start: int) -> bool:
        """Learn which bytes between an entry's cause and its lead tell of its version; tell whether they can."""
        cause_end = self._log.cause_end_of(value)
        id_at = start - _TIME_SIZE - _ID_SIZE
        if not cause_end or value[id_at : start - _TIME_SIZE] != at.lead_id.encode():
            return False
        if len(self._versions) >= _KNOWN_MAX:
            self._versions.clear()
        self._versions[value[cause_end:id_at]] = at.market_version
        return True
