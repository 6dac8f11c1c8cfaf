"""What must be true of what comes after a sale: an upgrade by its only holder, and what is given back, and once.

A return and a delivery that failed give back what the sale cost, restore what it drew, and take back what the source
earned; the sale keeps its number.
"""

from __future__ import annotations

from collections.abc import Callable

from services.audit.findings import At, Findings, Markets
from services.audit.folded import NOT_LISTED, Folded, plain_draws
from services.audit.lead_state import LeadState, Listed, Sale
from services.audit.ledger_checks import Ledger, credit_dues, fee_dues
from services.audit.limit_checks import Limits
from services.audit.rules import Rule
from services.contract.events import (
    DeliveryFailed,
    DispositionReported,
    LeadUpgraded,
    ReturnApproved,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
)
from services.contract.ids import sale_id_of
from services.contract.limits import WHOLE_RETURN, fee_draws, return_draws
from services.contract.market import ShareOfRevenue


class AftermathChecks:
    """Judges what becomes of sales, and keeps it with them."""

    def __init__(
        self,
        findings: Findings,
        markets: Markets,
        limits: Limits,
        ledger: Ledger,
        share_cents: Callable[[Listed, int], int],
    ) -> None:
        """Report to `findings`. `share_cents` says what a source earns by what a buyer pays."""
        self._findings = findings
        self._markets = markets
        self._limits = limits
        self._ledger = ledger
        self._share_cents = share_cents

    def upgraded(self, at: At, state: LeadState, folded: Folded, event: LeadUpgraded) -> None:
        """Judge the upgrade of a sale."""
        sale = self._sale(at, state, event)
        if sale is None:
            return
        terms, listed = sale.terms, state.listed or NOT_LISTED
        is_alone = len(state.sales) == 1 and not state.upgraded and not sale.returned and not sale.failed
        told = (
            event.fee_cents,
            event.slots_closed,
            event.order_id,
            event.currency,
            event.is_test,
            event.source_id,
        )
        true = (
            terms.upgrade_fee_cents, listed.sales_max - 1, terms.order_id, terms.currency, listed.is_test,
            listed.source_id,
        )  # fmt: skip
        if not is_alone or told != true:
            what = f"upgrade for {event.fee_cents} with {len(state.sales)} holders, told was {terms.upgrade_fee_cents}"
            self._broken(at, Rule.UPGRADE_BY_THE_ONLY_HOLDER, what)
        agreed = self._share_cents(listed, event.fee_cents)
        if event.payout_cents != agreed:
            what = f"the source earns {event.payout_cents} by the upgrade, agreed are {agreed}"
            self._broken(at, Rule.SOURCE_EARNS_AS_AGREED, what)
        self._check_fee_draws(at, event)
        self._ledger.upgraded(at.lead_id, terms)
        place = (at.seq, at.offset, at.decided_at_ms)
        sale.fee = (event.fee_cents, event.payout_cents, plain_draws(event.draws), *place)
        state.upgraded = folded.upgraded = True
        folded.told.append("upgraded")
        self._limits.draw(at, plain_draws(event.draws))
        if not listed.is_test:
            self._ledger.due(fee_dues(at.lead_id, listed.source_id, sale))

    def _check_fee_draws(self, at: At, event: LeadUpgraded) -> None:
        market = self._markets.version(at.market_version)
        order = self._markets.order(at.market_version, event.order_id)
        if market is None or order is None:
            self._broken(
                at, Rule.SOLD_BY_ITS_PLAN, f"{event.order_id} is no order of market {at.market_version}"
            )
            return
        demanded = fee_draws(market, order, fee_cents=event.fee_cents, now_ms=at.decided_at_ms)
        if sorted(plain_draws(event.draws)) != sorted(() if event.is_test else plain_draws(demanded)):
            self._broken(at, Rule.DRAWS_ARE_COMPLETE, f"the upgrade draws on {plain_draws(event.draws)}")

    def return_asked(self, at: At, state: LeadState, event: ReturnRequested) -> None:
        """Take note that a return was asked for."""
        sale = self._sale(at, state, event)
        if sale is not None:
            sale.return_pending = True

    def return_refused(self, at: At, state: LeadState, event: ReturnRefused) -> None:
        """Judge the refusal of a return."""
        sale = self._sale(at, state, event)
        if sale is not None:
            if not sale.return_pending:
                self._broken(at, Rule.BACK_NO_MORE_THAN_CAME, "a return is refused that nobody asked for")
            sale.return_pending = False
            sale.refused = sale.refused or event.reason is ReturnRefusal.OPERATOR

    def returned(self, at: At, state: LeadState, folded: Folded, event: ReturnApproved) -> None:
        """Judge a return that was approved."""
        sale = self._sale(at, state, event)
        if sale is None:
            return
        listed = state.listed or NOT_LISTED
        lead_type = self._markets.lead_type(listed.market_version, listed.lead_type)
        returns = None if lead_type is None else lead_type.returns
        is_returnable = sale.return_pending and not sale.returned and not sale.failed and returns is not None
        if (
            not is_returnable
            or (returns is not None and event.automatic and not returns.automatic)
            or sale.refused
        ):
            self._broken(
                at, Rule.BACK_NO_MORE_THAN_CAME, "a return that was not asked for, or can't be, is approved"
            )
        self._check_credit(at, state, sale, event, self._taken_back(state, listed, sale))
        self._check_restored(at, state, sale, event)
        sale.returned, sale.return_pending = True, False
        self._credit(at, state, folded, sale, "return_credit", "returned", event)

    def _taken_back(self, state: LeadState, listed: Listed, sale: Sale) -> int:
        """Say what a return takes back from the source, by the terms that the lead was accepted under."""
        market = self._markets.version(listed.market_version)
        source = None if market is None else market.sources.get(listed.source_id)
        if source is None or source.paid is None or not source.paid.back_on_return:
            return 0
        if isinstance(source.paid.by, ShareOfRevenue):
            return sale.terms.payout_cents + (sale.fee[1] if sale.fee is not None else 0)
        if not all(other.returned for other in state.sales if other is not sale):
            return 0
        return listed.payout_cents - sum(credit[2] for other in state.sales for credit in other.credits or ())

    def delivery_failed(self, at: At, state: LeadState, folded: Folded, event: DeliveryFailed) -> None:
        """Judge the end of a delivery that can never arrive."""
        sale = self._sale(at, state, event)
        if sale is None:
            return
        if sale.failed:
            self._broken(at, Rule.BACK_NO_MORE_THAN_CAME, "a delivery fails for good twice")
        earned_cents = sale.terms.payout_cents + (sale.fee[1] if sale.fee is not None else 0)
        self._check_credit(at, state, sale, event, 0 if sale.returned else earned_cents)
        self._check_restored(at, state, sale, event)
        sale.failed = True
        self._credit(at, state, folded, sale, "failed_delivery_credit", "delivery_failed", event)

    def _check_credit(
        self, at: At, state: LeadState, sale: Sale, event: ReturnApproved | DeliveryFailed, back_cents: int
    ) -> None:
        terms = sale.terms
        paid_cents = 0 if sale.returned else terms.price_cents + (sale.fee[0] if sale.fee is not None else 0)
        told = (event.price_cents, event.payout_cents, event.currency, event.is_test)
        true = (paid_cents, back_cents, terms.currency, (state.listed or NOT_LISTED).is_test)
        if told != true:
            what = f"given back are {told[:2]} of {true[:2]} (to the buyer, from the source)"
            self._broken(at, Rule.BACK_NO_MORE_THAN_CAME, what)

    def _check_restored(
        self, at: At, state: LeadState, sale: Sale, event: ReturnApproved | DeliveryFailed
    ) -> None:
        """Hold the draws against those of the sale, given back, and against the quota that a return uses."""
        taken = (*sale.terms.draws, *(sale.fee[2] if sale.fee is not None else ()))
        back = [] if sale.returned else [(counter, -amount, 0) for counter, amount, _ in taken if amount]
        drawn = list(plain_draws(event.draws))
        quota = [draw for draw in drawn if draw[1] > 0]
        if sorted(draw for draw in drawn if draw[1] <= 0) != sorted(back):
            self._broken(at, Rule.DRAWS_ARE_COMPLETE, f"given back to limits are {drawn}, drawn were {taken}")
        listed = state.listed or NOT_LISTED
        lead_type = self._markets.lead_type(listed.market_version, listed.lead_type)
        market = self._markets.version(at.market_version)
        buyer = None if market is None else market.buyers.get(sale.terms.buyer_id)
        has_quota = isinstance(event, ReturnApproved) and buyer is not None and lead_type is not None
        uses = 0
        if has_quota and buyer is not None and lead_type is not None and not listed.is_test:
            uses = len(return_draws(buyer, lead_type, now_ms=at.decided_at_ms))
        name = f"returns:{sale.terms.buyer_id}:{listed.lead_type}:"
        is_right = all(draw[0].startswith(name) and draw[1:] == (WHOLE_RETURN, 0) for draw in quota)
        if len(quota) != uses or not is_right:
            self._broken(at, Rule.DRAWS_ARE_COMPLETE, f"of the quota of returns it draws {quota}")

    def _credit(
        self,
        at: At,
        state: LeadState,
        folded: Folded,
        sale: Sale,
        kind: str,
        told: str,
        event: ReturnApproved | DeliveryFailed,
    ) -> None:
        place = (at.seq, at.offset, at.decided_at_ms)
        if sale.credits is None:
            sale.credits = []
        sale.credits.append((kind, event.price_cents, event.payout_cents, *place))
        if told == "returned" or event.payout_cents:
            folded.told.append((told, sale.terms.sale_number, event.payout_cents))
        self._limits.draw(at, plain_draws(event.draws))
        if not (state.listed or NOT_LISTED).is_test:
            self._ledger.due(
                credit_dues(at.lead_id, (state.listed or NOT_LISTED).source_id, sale, since_seq=at.seq)
            )

    def reported(self, at: At, state: LeadState, event: DispositionReported) -> None:
        """Judge whether a report is about a sale of its buyer."""
        if not 1 <= event.sale_number <= len(state.sales) or (
            state.sales[event.sale_number - 1].terms.buyer_id != event.buyer_id
        ):
            self._broken(at, Rule.TERMS_ARE_TRUE, f"{event.buyer_id} reports on a sale that is not its own")

    def _sale(
        self,
        at: At,
        state: LeadState,
        event: LeadUpgraded | ReturnRequested | ReturnApproved | ReturnRefused | DeliveryFailed,
    ) -> Sale | None:
        """Find the sale that an event is about, which must be its buyer's."""
        number = event.sale_number
        if 1 <= number <= len(state.sales) and event.sale_id == sale_id_of(at.lead_id, number):
            sale = state.sales[number - 1]
            if sale.terms.buyer_id == event.buyer_id:
                return sale
        self._broken(at, Rule.TERMS_ARE_TRUE, f"{type(event).__name__} is about a sale that there is not")
        return None

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)
