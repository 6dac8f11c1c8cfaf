"""What must be true of deposits and adjustments: a reference moves money once, on its own buyer's account."""

from __future__ import annotations

from services.audit.findings import At, Findings, Markets
from services.audit.folded import plain_draws
from services.audit.lead_state import LeadState
from services.audit.ledger_checks import Ledger, dues_of
from services.audit.limit_checks import Limits
from services.audit.rules import Rule
from services.contract.events import MoneyMoved
from services.contract.ids import account_id_of
from services.contract.limits import money_draws


class MoneyChecks:
    """Judges moves of money, and keeps them in the account's state."""

    def __init__(self, findings: Findings, markets: Markets, limits: Limits, ledger: Ledger) -> None:
        """Report to `findings`; put draws into `limits` and transfers that are due into `ledger`."""
        self._findings = findings
        self._markets = markets
        self._limits = limits
        self._ledger = ledger

    def moved(self, at: At, state: LeadState, event: MoneyMoved) -> None:
        """Judge a move of money."""
        moves = state.moves or []
        if any(move[2] == event.reference for move in moves) or at.lead_id != account_id_of(event.buyer_id):
            self._broken(
                at, Rule.MONEY_MOVES_ONCE, f"the reference of a move of {event.amount_cents} was used before"
            )
        market = self._markets.version(at.market_version)
        if market is None or event.buyer_id not in market.buyers or event.currency != market.currency:
            self._broken(
                at, Rule.MONEY_MOVES_ONCE, f"money of {event.buyer_id}, whom the market does not know"
            )
        draws = plain_draws(event.draws)
        if draws != plain_draws(money_draws(event.buyer_id, event.amount_cents)):
            self._broken(at, Rule.DRAWS_ARE_COMPLETE, f"a move of {event.amount_cents} grants {draws}")
        place = (at.seq, at.offset, at.decided_at_ms)
        moved = (event.buyer_id, str(event.kind), event.reference, event.amount_cents, event.currency, *place)
        state.moves = [*moves, moved]
        self._limits.draw(at, draws)
        self._ledger.due(due for due in dues_of(at.lead_id, state) if due.seq == at.seq)

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)
