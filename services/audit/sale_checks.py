"""What must be true of a sale: guarantee 1, and the terms and prices of guarantee 5.

A sale is held against the lead's own history and against the market: the version that the lead was accepted under,
whose plan it keeps, and the one that the sale was decided under, whose orders buy.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.audit.findings import At, Findings, Markets
from services.audit.lead_state import LeadState, Listed, Terms
from services.audit.log_entries import Pattern, SoldEvent
from services.audit.rules import Rule
from services.contract.limits import sale_draws
from services.contract.market import (
    BidPrice,
    FixedPrice,
    ListPrice,
    Market,
    Mode,
    Order,
    Plan,
    Price,
    Selection,
    Sell,
    ShareOfRevenue,
    Stage,
)
from services.contract.money import share_of

QUARTER_MS = 15 * 60_000
"""Limits begin anew with quarters of an hour, in every timezone since 1980: within one, no sale draws on others."""

_JUDGED_MAX = 1_000
_EXCLUSIVE = Mode.EXCLUSIVE.value
_SHARED = Mode.SHARED.value


class SaleChecks:
    """Judges each sale as the log tells it."""

    def __init__(self, findings: Findings, markets: Markets) -> None:
        """Report to `findings`."""
        self._findings = findings
        self._markets = markets

    def judge(self, at: At, state: LeadState, listed: Listed, event: SoldEvent) -> bool:
        """Judge a sale before it is added to the lead's; tell whether the market says the same of all alike."""
        pattern, sales = event.pattern, state.sales
        terms = pattern.terms
        if terms.sale_number != len(sales) + 1 or not event.is_named_rightly:
            self._broken(
                at,
                Rule.SALES_ARE_NUMBERED,
                f"sale {terms.sale_number} ({event.sale_id}) follows {len(sales)}",
            )
        holders = tuple([sale.terms.buyer_id for sale in sales])
        if sales or terms.holders:
            self._beside_others(at, state, terms, holders)
        if terms.sale_number > terms.sales_max or len(sales) >= listed.sales_max:
            self._broken(
                at, Rule.NO_MORE_THAN_SALES_MAX, f"sale {len(sales) + 1} of at most {listed.sales_max}"
            )
        if state.close is not None:
            self._broken(at, Rule.NOTHING_AFTER_THE_CLOSE, "a sale after the close")
        if terms.buyer_id in listed.never_to:
            self._broken(at, Rule.SOLD_BY_ITS_PLAN, f"the source excludes {terms.buyer_id}")
        if listed.consented_buyers and terms.buyer_id not in listed.consented_buyers:
            self._broken(at, Rule.ONLY_WITH_CONSENT, f"{terms.buyer_id} is not named by the lead's consent")
        self._terms(at, state, listed, event, holders)
        slot = sum(sale.terms.stage == terms.stage for sale in sales) if sales else 0
        return self._market(at, state, listed, pattern, slot)

    def _beside_others(self, at: At, state: LeadState, terms: Terms, holders: tuple[str, ...]) -> None:
        sales = state.sales
        if terms.buyer_id in holders:
            self._broken(at, Rule.NEVER_THE_SAME_BUYER_TWICE, f"{terms.buyer_id} holds the lead already")
        if terms.mode == _EXCLUSIVE:
            self._broken(
                at, Rule.EXCLUSIVE_IS_THE_FIRST, f"exclusive to {terms.buyer_id} after {len(holders)} sales"
            )
        if not sales:
            return
        first = sales[0].terms
        if len(sales) >= min(sale.terms.sales_max for sale in sales):
            self._broken(
                at, Rule.NO_MORE_THAN_SALES_MAX, f"a holder was told of fewer than {len(sales) + 1} buyers"
            )
        until_ms = first.exclusive_until_ms
        if first.mode == _EXCLUSIVE and (until_ms is None or at.decided_at_ms < until_ms):
            self._broken(
                at, Rule.NOTHING_BESIDE_AN_EXCLUSIVE_SALE, f"sold while exclusive to {first.buyer_id}"
            )
        if state.upgraded:
            self._broken(
                at, Rule.NOTHING_BESIDE_AN_EXCLUSIVE_SALE, f"sold beside the upgrade of {first.buyer_id}"
            )
        for sale in sales:
            is_told_otherwise = not sale.terms.others_may_follow
            if is_told_otherwise or (sale.told_from_ms is not None and at.decided_at_ms < sale.told_from_ms):
                self._broken(
                    at,
                    Rule.NOT_BEFORE_THE_TIME_PROMISED,
                    f"{sale.terms.buyer_id} was told that nobody follows yet",
                )

    def _terms(
        self, at: At, state: LeadState, listed: Listed, event: SoldEvent, holders: tuple[str, ...]
    ) -> None:
        terms, sales = event.pattern.terms, state.sales
        is_exclusive = terms.mode == _EXCLUSIVE
        told = (
            terms.holders, event.held_since_ms, event.created_at_ms, terms.sales_max, terms.source_id, terms.lead_type,
            terms.plan, terms.quality, terms.is_test, terms.stage, terms.others_may_follow, terms.others_from_ms,
        )  # fmt: skip
        true = (
            holders,
            sales[0].sold_at_ms if sales else None,
            listed.created_at_ms,
            listed.sales_max,
            listed.source_id,
            listed.lead_type,
            listed.plan,
            listed.quality,
            listed.is_test,
            state.stage,
            terms.exclusive_until_ms is not None if is_exclusive else terms.sale_number < listed.sales_max,
            terms.exclusive_until_ms if is_exclusive else terms.upgrade_until_ms,
        )
        if told != true:
            names = (
                "holders", "held since", "created at", "sales_max", "source", "lead type", "plan", "quality", "test",
                "stage", "others may follow", "others from",
            )  # fmt: skip
            wrong = ", ".join(
                name for name, said, is_so in zip(names, told, true, strict=True) if said != is_so
            )
            self._broken(at, Rule.TERMS_ARE_TRUE, f"sale {terms.sale_number} is told wrongly: {wrong}")

    def _market(self, at: At, state: LeadState, listed: Listed, pattern: Pattern, slot: int) -> bool:
        """Judge what depends on the market, once for all sales alike in the same circumstances; tell if that stands."""
        terms = pattern.terms
        quarter = at.decided_at_ms // QUARTER_MS
        circumstances = (at.market_version, listed.market_version, slot, quarter, len(state.sales))
        if circumstances in pattern.judged:
            return True
        market = self._markets.version(at.market_version)
        plan = self._markets.plan(listed.market_version, listed.lead_type, terms.plan)
        if market is None or plan is None or not 0 <= terms.stage < len(plan.stages):
            self._broken(
                at,
                Rule.SOLD_BY_ITS_PLAN,
                f"no stage {terms.stage} of plan {terms.plan} in market {listed.market_version}",
            )
            return False
        order = self._markets.order(at.market_version, terms.order_id)
        if order is None or order.buyer_id != terms.buyer_id or order.lead_type != terms.lead_type:
            self._broken(
                at, Rule.SOLD_BY_ITS_PLAN, f"{terms.order_id} is no order of {terms.buyer_id} for such leads"
            )
            return False
        found = [
            *self._by_plan(at, state, listed, terms, plan),
            *self._by_price(state, terms, order, plan.stages[terms.stage], slot),
            *self._by_draws(at, listed, terms, market, order),
            *self._by_payout(listed, terms),
        ]
        for rule, what in found:
            self._broken(at, rule, what)
        if found or not _is_judged_once(terms, plan.stages[terms.stage]):
            return False
        if len(pattern.judged) >= _JUDGED_MAX:
            pattern.judged.clear()
        pattern.judged.add(circumstances)
        return True

    def _by_plan(
        self, at: At, state: LeadState, listed: Listed, terms: Terms, plan: Plan
    ) -> Iterator[tuple[Rule, str]]:
        stage = plan.stages[terms.stage]
        sells = _modes_of(stage)
        if terms.mode not in sells:
            yield Rule.SOLD_BY_ITS_PLAN, f"stage {terms.stage} does not sell {terms.mode}"
        if stage.only and terms.buyer_id not in stage.only:
            yield Rule.SOLD_BY_ITS_PLAN, f"stage {terms.stage} does not sell to {terms.buyer_id}"
        if stage.accept_within_ms is not None and terms.offer_number is None:
            yield (
                Rule.SOLD_BY_ITS_PLAN,
                f"stage {terms.stage} asks before it sells, and {terms.buyer_id} was not asked",
            )
        if stage.wait_ms is not None and at.decided_at_ms < state.stage_from_ms + stage.wait_ms:
            yield Rule.NOT_BEFORE_THE_TIME_PROMISED, f"stage {terms.stage} waits for {stage.wait_ms} ms"
        until_ms = None
        if terms.mode == _EXCLUSIVE:
            for_ms = exclusive_for_ms(plan, terms.stage, listed.sales_max)
            until_ms = None if for_ms is None else at.decided_at_ms + for_ms
        if terms.exclusive_until_ms != until_ms:
            yield (
                Rule.WINDOW_LASTS,
                f"exclusive until {terms.exclusive_until_ms}, by the plan until {until_ms}",
            )
        fee_cents = upgrade_until_ms = None
        is_first_shared = terms.mode == _SHARED and not state.sales and listed.sales_max > 1
        if stage.upgrade is not None and is_first_shared and stage.selection is Selection.DIRECT:
            fee_cents = stage.upgrade.per_slot_cents * (listed.sales_max - 1)
            if stage.upgrade.within_ms is not None:
                upgrade_until_ms = at.decided_at_ms + stage.upgrade.within_ms
        if (terms.upgrade_fee_cents, terms.upgrade_until_ms) != (fee_cents, upgrade_until_ms):
            yield Rule.TERMS_ARE_TRUE, "the upgrade that is told is not the plan's"

    def _by_price(
        self, state: LeadState, terms: Terms, order: Order, stage: Stage, slot: int
    ) -> Iterator[tuple[Rule, str]]:
        if terms.offer_number is not None:
            offered = state.offer
            true = (
                terms.offer_number,
                terms.buyer_id,
                terms.order_id,
                terms.mode,
                terms.price_cents,
                terms.stage,
            )
            if offered is None or offered[: len(true)] != true:
                yield (
                    Rule.PRICE_IS_THE_ORDERS,
                    f"sold by offer {terms.offer_number}, which was another or none",
                )
            return
        bid = None
        if terms.auction_number is not None:
            bid = self._bid_of(state, terms)
        price = _price_of(order, terms.mode)
        expected = _cents_of(price, stage, terms.mode, slot, bid)
        floor_cents = floor_of(stage, terms.mode)
        is_under = (
            floor_cents is not None and terms.price_cents < floor_cents and not isinstance(price, ListPrice)
        )
        if terms.price_cents != expected or is_under:
            rule = Rule.WINNER_PAYS_ITS_BID if isinstance(price, BidPrice) else Rule.PRICE_IS_THE_ORDERS
            yield (
                rule,
                f"{terms.buyer_id} pays {terms.price_cents}, its order takes {expected}, the floor is {floor_cents}",
            )

    @staticmethod
    def _bid_of(state: LeadState, terms: Terms) -> int | None:
        """Find what the buyer bid in the auction that the sale names, for this order, in this mode."""
        if state.auction is None or state.auction[0] != terms.auction_number or state.bids is None:
            return None
        bid = state.bids.get(terms.buyer_id)
        if bid is None or bid[0] != terms.order_id:
            return None
        cents: int | None = bid[1] if terms.mode == _EXCLUSIVE else bid[2]
        return cents

    def _by_draws(
        self, at: At, listed: Listed, terms: Terms, market: Market, order: Order
    ) -> Iterator[tuple[Rule, str]]:
        if terms.is_test:
            if terms.draws or terms.payout_cents:
                yield Rule.TEST_LEADS_MOVE_NOTHING, "the sale of a test lead draws or pays"
            return
        lead_type = self._markets.lead_type(listed.market_version, listed.lead_type)
        returns = None if lead_type is None else lead_type.returns
        demanded = sale_draws(
            market,
            order,
            price_cents=terms.price_cents,
            now_ms=at.decided_at_ms,
            returns_quota_basis_points=None if returns is None else returns.quota_basis_points,
        )
        if sorted(terms.draws) != sorted((draw.counter, draw.amount, draw.granted) for draw in demanded):
            yield Rule.DRAWS_ARE_COMPLETE, f"sale {terms.sale_number} draws on {terms.draws}"
        if terms.currency != market.currency:
            yield Rule.TERMS_ARE_TRUE, f"sold in {terms.currency} on a market in {market.currency}"

    def _by_payout(self, listed: Listed, terms: Terms) -> Iterator[tuple[Rule, str]]:
        agreed = self.share_cents(listed, terms.price_cents)
        if terms.payout_cents != agreed:
            yield (
                Rule.SOURCE_EARNS_AS_AGREED,
                f"the source earns {terms.payout_cents} by the sale, agreed are {agreed}",
            )

    def share_cents(self, listed: Listed, cents: int) -> int:
        """Say what a lead's source earns by what a buyer pays."""
        market = self._markets.version(listed.market_version)
        source = None if market is None else market.sources.get(listed.source_id)
        if listed.is_test or source is None or source.paid is None:
            return 0
        by = source.paid.by
        return share_of(cents, by.basis_points) if isinstance(by, ShareOfRevenue) else 0

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)


def exclusive_for_ms(plan: Plan, stage: int, sales_max: int) -> int | None:
    """Say for how long an exclusive sale of a stage is: for good where nobody can follow."""
    if sales_max > 1 and any(later.sell is not Sell.EXCLUSIVE for later in plan.stages[stage + 1 :]):
        return plan.stages[stage].exclusive_for_ms
    return None


def floor_of(stage: Stage, mode: str) -> int | None:
    """Give the least that a stage sells for in a mode, in minor units; None: anything."""
    if mode == _EXCLUSIVE:
        return stage.prices.exclusive if stage.floor.exclusive is None else stage.floor.exclusive
    if stage.floor.shared is not None:
        return stage.floor.shared
    return stage.prices.shared[-1] if stage.prices.shared else None


def _is_judged_once(terms: Terms, stage: Stage) -> bool:
    """Tell whether a sale's circumstances say all that it is judged by: no time, offer or bid of the lead's own."""
    times = (terms.exclusive_until_ms, terms.upgrade_until_ms, stage.wait_ms)
    return times == (None, None, None) and terms.offer_number is None and terms.auction_number is None


def _modes_of(stage: Stage) -> tuple[str, ...]:
    return (_EXCLUSIVE, _SHARED) if stage.sell is Sell.EITHER else (stage.sell.value,)


def _price_of(order: Order, mode: str) -> Price | None:
    return order.takes.exclusive if mode == _EXCLUSIVE else order.takes.shared


def _cents_of(price: Price | None, stage: Stage, mode: str, slot: int, bid: int | None) -> int | None:
    match price:
        case FixedPrice(cents=cents):
            return cents
        case ListPrice() if mode == _EXCLUSIVE:
            return stage.prices.exclusive
        case ListPrice():
            listed = stage.prices.shared
            return listed[min(slot, len(listed) - 1)] if listed else None
        case BidPrice():
            return bid
        case None:
            return None
