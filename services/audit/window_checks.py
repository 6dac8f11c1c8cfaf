"""What must be true of stages and windows: stages come one after the other, and a window lasts as long as it must."""

from __future__ import annotations

from typing import Final

from services.audit.findings import At, Findings, Markets
from services.audit.folded import NOT_LISTED, Folded
from services.audit.lead_state import LeadState
from services.audit.rules import Rule
from services.contract.entries import CauseKind
from services.contract.events import StageStarted, WindowClosed, WindowKind, WindowOpened

_WAITING: Final = (WindowKind.WAIT, WindowKind.RETRY)


class WindowChecks:
    """Judges the passing of a lead's time, and keeps its stage and open windows."""

    def __init__(self, findings: Findings, markets: Markets) -> None:
        """Report to `findings`."""
        self._findings = findings
        self._markets = markets

    def stage_started(self, at: At, state: LeadState, event: StageStarted) -> None:
        """Judge the start of a stage."""
        if event.stage != state.stage + 1:
            self._broken(at, Rule.SOLD_BY_ITS_PLAN, f"stage {event.stage} follows stage {state.stage}")
        state.stage, state.stage_from_ms = event.stage, at.decided_at_ms

    def opened(self, at: At, state: LeadState, folded: Folded, event: WindowOpened) -> None:
        """Judge the opening of a window."""
        windows = {} if state.windows is None else state.windows
        if event.window_number in windows:
            self._broken(at, Rule.WINDOW_LASTS, f"window {event.window_number} is opened again")
        windows[event.window_number] = (str(event.kind), event.due_at_ms)
        state.windows = windows
        if event.kind in _WAITING and folded.next_try_ms is None:
            folded.next_try_ms = event.due_at_ms
        least_ms = self._least_due_ms(at, state, event.kind)
        if least_ms is not None and event.due_at_ms < least_ms:
            self._broken(
                at, Rule.WINDOW_LASTS, f"{event.kind} is due at {event.due_at_ms}, not before {least_ms}"
            )

    def _least_due_ms(self, at: At, state: LeadState, kind: WindowKind) -> int | None:
        """Say before when a window can't be due; None: that can't be told."""
        listed = state.listed or NOT_LISTED
        plan = self._markets.plan(listed.market_version, listed.lead_type, listed.plan or "")
        stage = plan.stages[state.stage] if plan is not None and state.stage < len(plan.stages) else None
        if plan is None or stage is None:
            return None
        after_ms: int | None = None
        match kind:
            case WindowKind.ACCEPTANCE:
                after_ms = stage.accept_within_ms
            case WindowKind.EXCLUSIVITY:
                return state.sales[-1].terms.exclusive_until_ms if state.sales else None
            case WindowKind.WAIT:
                after_ms = stage.wait_ms
            case WindowKind.RETRY:
                after_ms = None if stage.keep_trying is None else stage.keep_trying.every_ms
            case WindowKind.UPGRADE:
                return state.sales[-1].terms.upgrade_until_ms if state.sales else None
            case WindowKind.EXPIRY:
                after_ms = plan.expires_after_ms
        return None if after_ms is None else at.decided_at_ms + after_ms

    def closed(self, at: At, state: LeadState, event: WindowClosed) -> None:
        """Judge the close of a window."""
        window = None if state.windows is None else state.windows.pop(event.window_number, None)
        if window is None:
            self._broken(at, Rule.WINDOW_LASTS, f"window {event.window_number} is closed and was not open")
            return
        kind, due_at_ms = window
        may_end_early = kind == WindowKind.ACCEPTANCE and at.cause != CauseKind.TIMER
        if at.decided_at_ms < due_at_ms and not may_end_early:
            self._broken(at, Rule.WINDOW_LASTS, f"{kind} ends at {at.decided_at_ms}, due at {due_at_ms}")

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)
