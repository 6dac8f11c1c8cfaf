"""What must be true of an erasure: nothing is sold of the lead any more, and all its holders are asked to follow."""

from __future__ import annotations

from services.audit.findings import At, Findings
from services.audit.folded import Folded
from services.audit.lead_state import LeadState
from services.audit.rules import Rule
from services.contract.events import ErasureAcknowledged, LeadErased


class ErasureChecks:
    """Judges erasures and what their holders say of them, and keeps both in the lead's state."""

    def __init__(self, findings: Findings) -> None:
        """Report to `findings`."""
        self._findings = findings

    def erased(self, at: At, state: LeadState, folded: Folded, event: LeadErased) -> None:
        """Judge that a lead's person is forgotten."""
        holders = tuple(sale.terms.buyer_id for sale in state.sales)
        if event.holders != holders or event.acknowledge_by_ms <= at.decided_at_ms:
            self._broken(at, Rule.TERMS_ARE_TRUE, f"{event.holders} are asked to erase what {holders} hold")
        if state.listed is not None and state.close is None:
            self._broken(at, Rule.NOTHING_AFTER_THE_CLOSE, "an erased lead is for sale still")
        state.erasure = (event.reason.value, ())
        folded.erasure = (event.reason.value, event.acknowledge_by_ms)

    def acknowledged(self, at: At, state: LeadState, event: ErasureAcknowledged) -> None:
        """Judge that a holder says that it has erased the lead."""
        reason, erased_by = state.erasure or ("", ())
        is_sale = 1 <= event.sale_number <= len(state.sales)
        is_its = is_sale and state.sales[event.sale_number - 1].terms.buyer_id == event.buyer_id
        if not reason or not is_its or event.buyer_id in erased_by:
            self._broken(at, Rule.TERMS_ARE_TRUE, f"{event.buyer_id} acknowledges what it was not asked for")
        state.erasure = (reason, (*erased_by, event.buyer_id))

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)
