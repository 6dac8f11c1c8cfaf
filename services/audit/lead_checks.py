"""The fold of a lead's entries: each event is judged by what the log has said of the lead before, and then added to it.

Beside guarantee 1, which is `sale_checks`, it holds listing and close (2), windows, and what is given back (4). What
the entry means for outsiders and for the ledger is kept in the lead's state, to be held against what they were told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from services.audit.auction_checks import AuctionChecks
from services.audit.findings import At, Findings, Markets
from services.audit.lead_state import Happened, LeadState, Listed, Sale
from services.audit.ledger_checks import Due, Ledger, Tally, credit_dues, dues_of, fee_dues, subject_of
from services.audit.limit_checks import Limits
from services.audit.log_entries import Entries, EntryFields, Pattern, Sales
from services.audit.rules import Rule
from services.audit.sale_checks import SaleChecks
from services.audit.told_records import others_from_ms, pinged
from services.contract.codec import Codec
from services.contract.entries import CauseKind, EventBody
from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    DispositionReported,
    Draw,
    Event,
    LeadUpgraded,
    LimitReached,
    MoneyMoved,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    ReturnApproved,
    ReturnRefusal,
    ReturnRefused,
    ReturnRequested,
    StageStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
    WithdrawalNoted,
)
from services.contract.ids import account_id_of, sale_id_of
from services.contract.limits import WHOLE_RETURN, fee_draws, money_draws, return_draws
from services.contract.market import PerLead, ShareOfRevenue

_BEFORE_LISTING: Final = frozenset({WithdrawalNoted, CommandRefused, MoneyMoved})
_AFTER_CLOSE: Final = frozenset(
    {
        BidVoided, CommandRefused, DeliveryFailed, DispositionReported, LimitReached, ReturnApproved, ReturnRefused,
        ReturnRequested,
    }
)  # fmt: skip
"""What may follow the close of a lead: nothing that sells, asks or waits."""

_WAITING: Final = (WindowKind.WAIT, WindowKind.RETRY)
_UNDEFINED: Final = Listed("", "", None, 0, {}, 0, (), 0, 0, False, 0, None)


class Folded:
    """What an entry has come to, event by event."""

    __slots__ = ("closed_auction", "earned", "next_try_ms", "outcome", "sold", "told", "upgraded")

    def __init__(self) -> None:
        self.sold: list[Sale] = []
        self.told: list[Any] = []
        self.outcome: str | None = None
        self.upgraded = False
        self.next_try_ms: int | None = None
        self.closed_auction: AuctionClosed | None = None


class LeadChecks:
    """Judges entries, each with the state of its lead. Counts `leads`, `sales`, `auctions`."""

    def __init__(
        self,
        findings: Findings,
        markets: Markets,
        entries: Entries,
        limits: Limits,
        ledger: Ledger,
        codec: Codec,
    ) -> None:
        """Put draws into `limits` and transfers that are due into `ledger`."""
        self.leads = 0
        self.sales = 0
        self.auctions = 0
        self.listed = Tally()
        self._findings = findings
        self._markets = markets
        self._limits = limits
        self._ledger = ledger
        self._codec = codec
        self._listed_readers = entries.listed
        self._closed_readers = entries.closed
        self._sold_readers = entries.sold
        self._closes: dict[tuple[int, bytes], tuple[Any, ...]] = {}
        self.remembered = Sales(entries.sold, lambda pattern: limits.count((pattern,)))
        self.alike: list[Pattern] | None = None
        """The sales of the last entry; None where more is needed to judge another like it than ids and times."""
        self._entries = entries
        self._sale_checks = SaleChecks(findings, markets)
        self._auction_checks = AuctionChecks(findings, markets)
        self._judges: dict[type, Callable[[At, LeadState, Any], None]] = {
            StageStarted: self._stage,
            WindowClosed: self._close_window,
            OfferMade: self._offer,
            OfferRejected: self._offer_ended,
            OfferExpired: self._offer_ended,
            OfferWithdrawn: self._offer_ended,
            BidPlaced: self._answer,
            BidDeclined: self._answer,
            BidVoided: self._void,
            ReturnRequested: self._ask_return,
            ReturnRefused: self._refuse_return,
            DispositionReported: self._dispose,
            MoneyMoved: self._move_money,
        }
        self._judges_of_entries: dict[type, Callable[[At, LeadState, Folded, Any], None]] = {
            WindowOpened: self._open_window,
            AuctionOpened: self._open_auction,
            AuctionClosed: self._close_auction,
            LeadUpgraded: self._upgrade,
            ReturnApproved: self._approve_return,
            DeliveryFailed: self._fail_delivery,
        }

    def fold(self, at: At, value: bytes, start: int, state: LeadState) -> Happened | None:
        """Judge an entry, whose events begin at `start`, and add it to its lead; give what outsiders are told of it.

        Raises `NotReadable`, ValueError or LookupError for an event that can't be read.
        """
        folded = Folded()
        others: list[Event] = []
        before = self._findings.total
        self.alike = []
        for schema_id, body in self._entries.events(value, start):
            if schema_id in self._sold_readers:
                self._sell(at, state, folded, schema_id, body)
            elif schema_id in self._closed_readers:
                self._close(at, state, folded, schema_id, body)
            elif schema_id in self._listed_readers:
                self._list(at, state, folded, Listed._make(self._listed_readers[schema_id](body, 0)))
            else:
                event: Event = self._codec.decode_body(EventBody(schema_id=schema_id, body=body))
                others.append(event)
                self._other(at, state, folded, event)
        if others or self._findings.total != before:
            self.alike = None
        if folded.closed_auction is not None:
            self._auction_checks.decided(at, state, folded.closed_auction, folded.sold)
        pings = pinged(at.lead_id, at.partition, at.seq, at.decided_at_ms, others) if others else ()
        if not (folded.told or pings):
            return None
        happened = Happened(
            at.offset,
            at.decided_at_ms,
            tuple(folded.told),
            tuple([sale.terms.sale_number for sale in folded.sold]),
            folded.outcome,
            len(state.sales),
            folded.upgraded,
            folded.next_try_ms,
            pings,
        )
        state.happened[at.seq] = happened
        if folded.next_try_ms is not None:
            for sale in folded.sold:
                sale.told_from_ms = others_from_ms(sale.terms, happened)
        return happened

    def _list(self, at: At, state: LeadState, folded: Folded, listed: Listed) -> None:
        if state.listed is not None:
            assert state.place is not None
            before = self._findings.entry(at.partition, *state.place)
            self._findings.broken_at(at, Rule.LISTED_ONCE, "listed again", before)
            return
        self.leads += 1
        self.listed.add(subject_of(at.lead_id), 1)
        state.listed, state.place = listed, (at.seq, at.offset)
        state.stage, state.stage_from_ms = 0, at.decided_at_ms
        if listed.payout_cents:
            folded.told.append("earned")
        self._check_listing(at, listed)
        if listed.payout_cents and not listed.is_test:
            source, currency = listed.source_id, listed.currency or ""
            path = ("payout", f"payouts:{source}", f"source:{source}", listed.payout_cents, currency)
            self._ledger.due((Due(*path, "", at.lead_id, at.seq, at.offset, at.decided_at_ms),))

    def _check_listing(self, at: At, listed: Listed) -> None:
        market = self._markets.version(listed.market_version)
        lead_type = None if market is None else market.lead_types.get(listed.lead_type)
        if market is None or lead_type is None or listed.market_version > at.market_version:
            what = f"accepted as {listed.lead_type} under market {listed.market_version}, which has none such"
            self._broken(at, Rule.SOLD_BY_ITS_PLAN, what)
            return
        if not listed.fields.keys() <= set(lead_type.ping):
            self._broken(
                at, Rule.PINGS_SHOW_DECLARED_FIELDS, f"a {lead_type.name} lead is listed with other fields"
            )
        source = market.sources.get(listed.source_id)
        most = 1
        if listed.plan is not None:
            plan = self._markets.plan(listed.market_version, listed.lead_type, listed.plan)
            if plan is None:
                self._broken(
                    at, Rule.SOLD_BY_ITS_PLAN, f"{listed.lead_type} leads have no plan {listed.plan}"
                )
                return
            most = plan.sales_max
        if source is not None and source.sales_max is not None:
            most = min(most, source.sales_max)
        if listed.sales_max > most:
            self._broken(
                at, Rule.NO_MORE_THAN_SALES_MAX, f"listed for {listed.sales_max} buyers of at most {most}"
            )
        paid = None if source is None else source.paid
        agreed = (
            paid.by.cents if paid is not None and isinstance(paid.by, PerLead) and not listed.is_test else 0
        )
        if listed.payout_cents != agreed or (agreed and listed.currency != market.currency):
            what = f"the source earns {listed.payout_cents} by the lead, agreed are {agreed}"
            self._broken(at, Rule.SOURCE_EARNS_AS_AGREED, what)

    def _sell(self, at: At, state: LeadState, folded: Folded, schema_id: int, body: bytes) -> None:
        listed = state.listed
        if listed is None:
            self._broken(at, Rule.NOTHING_BEFORE_THE_LISTING, "a sale of a lead that is not listed")
            return
        event = self.remembered.read(schema_id, body, at.lead_id, at.decided_at_ms, listed.created_at_ms)
        pattern = event.pattern
        terms = pattern.terms
        is_judged_for_all = self._sale_checks.judge(at, state, listed, event)
        if terms.offer_number is not None:
            state.offer = None
        sale = Sale(terms, at.decided_at_ms, at.seq, at.offset)
        state.sales.append(sale)
        folded.sold.append(sale)
        folded.told.append(len(state.sales))
        self.sales += 1
        self._limits.sold(at, pattern)
        if not is_judged_for_all:
            self.alike = None
        elif self.alike is not None:
            self.alike.append(pattern)
        if pattern.weight is None:
            self._weigh(pattern)
        ledger = self._ledger
        if pattern.weight:
            ledger.dues.add(subject_of(event.sale_id), pattern.weight)
        ledger.sales.add(subject_of(at.lead_id), pattern.row_weight)

    def _weigh(self, pattern: Pattern) -> None:
        pattern.weight, pattern.row_weight = self._ledger.weight_of_sale(pattern.terms)

    def _close(self, at: At, state: LeadState, folded: Folded, schema_id: int, body: bytes) -> None:
        values = self._closes.get((schema_id, body))
        if values is None:
            values = self._closed_readers[schema_id](body, 0)
            if len(self._closes) > 20_000:
                self._closes.clear()
            self._closes[schema_id, body] = values
        outcome, source_id, lead_type, plan, holders, is_test = values
        if state.close is not None:
            before = self._findings.entry(at.partition, *state.close[:2])
            self._findings.broken_at(at, Rule.CLOSED_ONCE, "closed again", before)
            return
        listed = state.listed
        if listed is None:
            self._broken(at, Rule.NOTHING_BEFORE_THE_LISTING, "a close of a lead that is not listed")
            return
        told = (source_id, lead_type, plan, is_test)
        if told != (listed.source_id, listed.lead_type, listed.plan, listed.is_test) or holders != tuple(
            [sale.terms.buyer_id for sale in state.sales]
        ):
            self._broken(at, Rule.TERMS_ARE_TRUE, "the close tells of another lead, or of other holders")
        if state.auction is not None and folded.closed_auction is None:
            self._broken(
                at, Rule.AUCTION_CLOSED_ONCE, f"auction {state.auction[0]} is open, and the lead is closed"
            )
        if state.offer is not None:
            self._broken(
                at, Rule.NOTHING_AFTER_THE_CLOSE, f"offer {state.offer[0]} is open, and the lead is closed"
            )
        state.close = (at.seq, at.offset, at.decided_at_ms, outcome)
        state.windows = None
        folded.outcome = outcome
        folded.told.append("closed")

    def _other(self, at: At, state: LeadState, folded: Folded, event: Event) -> None:
        kind = type(event)
        if state.listed is None and kind not in _BEFORE_LISTING:
            self._broken(at, Rule.NOTHING_BEFORE_THE_LISTING, f"{kind.__name__} of a lead that is not listed")
            return
        if state.close is not None and kind not in _AFTER_CLOSE:
            where = self._findings.entry(at.partition, *state.close[:2])
            what = f"{kind.__name__} after the close"
            self._findings.broken_at(at, Rule.NOTHING_AFTER_THE_CLOSE, what, where)
        if kind in self._judges:
            self._judges[kind](at, state, event)
        elif kind in self._judges_of_entries:
            self._judges_of_entries[kind](at, state, folded, event)

    def _stage(self, at: At, state: LeadState, event: StageStarted) -> None:
        if event.stage != state.stage + 1:
            self._broken(at, Rule.SOLD_BY_ITS_PLAN, f"stage {event.stage} follows stage {state.stage}")
        state.stage, state.stage_from_ms = event.stage, at.decided_at_ms

    def _open_window(self, at: At, state: LeadState, folded: Folded, event: WindowOpened) -> None:
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
        listed = state.listed or _UNDEFINED
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

    def _close_window(self, at: At, state: LeadState, event: WindowClosed) -> None:
        window = None if state.windows is None else state.windows.pop(event.window_number, None)
        if window is None:
            self._broken(at, Rule.WINDOW_LASTS, f"window {event.window_number} is closed and was not open")
            return
        kind, due_at_ms = window
        may_end_early = kind == WindowKind.ACCEPTANCE and at.cause != CauseKind.TIMER
        if at.decided_at_ms < due_at_ms and not may_end_early:
            self._broken(at, Rule.WINDOW_LASTS, f"{kind} ends at {at.decided_at_ms}, due at {due_at_ms}")

    def _offer(self, at: At, state: LeadState, event: OfferMade) -> None:
        self._auction_checks.offered(at, state, state.listed or _UNDEFINED, event)

    def _offer_ended(
        self, at: At, state: LeadState, event: OfferRejected | OfferExpired | OfferWithdrawn
    ) -> None:
        self._auction_checks.offer_ended(at, state, event)

    def _open_auction(self, at: At, state: LeadState, folded: Folded, event: AuctionOpened) -> None:
        if folded.closed_auction is not None:
            self._auction_checks.decided(at, state, folded.closed_auction, folded.sold)
            folded.closed_auction = None
        self.auctions += 1
        self._auction_checks.opened(at, state, state.listed or _UNDEFINED, event)

    def _close_auction(self, at: At, state: LeadState, folded: Folded, event: AuctionClosed) -> None:
        if folded.closed_auction is not None:
            self._broken(at, Rule.AUCTION_CLOSED_ONCE, "two auctions are closed at once")
        folded.closed_auction = event
        self._auction_checks.closed(at, state, event)

    def _answer(self, at: At, state: LeadState, event: BidPlaced | BidDeclined) -> None:
        self._auction_checks.answered(at, state, event)

    def _void(self, at: At, state: LeadState, event: BidVoided) -> None:
        self._auction_checks.voided(at, state, event)

    def _upgrade(self, at: At, state: LeadState, folded: Folded, event: LeadUpgraded) -> None:
        sale = self._sale(at, state, event)
        if sale is None:
            return
        terms, listed = sale.terms, state.listed or _UNDEFINED
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
        agreed = self._sale_checks.share_cents(listed, event.fee_cents)
        if event.payout_cents != agreed:
            what = f"the source earns {event.payout_cents} by the upgrade, agreed are {agreed}"
            self._broken(at, Rule.SOURCE_EARNS_AS_AGREED, what)
        self._check_fee_draws(at, event)
        self._ledger.upgraded(at.lead_id, terms)
        place = (at.seq, at.offset, at.decided_at_ms)
        sale.fee = (event.fee_cents, event.payout_cents, _plain(event.draws), *place)
        state.upgraded = folded.upgraded = True
        folded.told.append("upgraded")
        self._limits.draw(at, _plain(event.draws))
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
        if sorted(_plain(event.draws)) != sorted(() if event.is_test else _plain(demanded)):
            self._broken(at, Rule.DRAWS_ARE_COMPLETE, f"the upgrade draws on {_plain(event.draws)}")

    def _ask_return(self, at: At, state: LeadState, event: ReturnRequested) -> None:
        sale = self._sale(at, state, event)
        if sale is not None:
            sale.return_pending = True

    def _refuse_return(self, at: At, state: LeadState, event: ReturnRefused) -> None:
        sale = self._sale(at, state, event)
        if sale is not None:
            if not sale.return_pending:
                self._broken(at, Rule.BACK_NO_MORE_THAN_CAME, "a return is refused that nobody asked for")
            sale.return_pending = False
            sale.refused = sale.refused or event.reason is ReturnRefusal.OPERATOR

    def _approve_return(self, at: At, state: LeadState, folded: Folded, event: ReturnApproved) -> None:
        sale = self._sale(at, state, event)
        if sale is None:
            return
        listed = state.listed or _UNDEFINED
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

    def _fail_delivery(self, at: At, state: LeadState, folded: Folded, event: DeliveryFailed) -> None:
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
        true = (paid_cents, back_cents, terms.currency, (state.listed or _UNDEFINED).is_test)
        if told != true:
            what = f"given back are {told[:2]} of {true[:2]} (to the buyer, from the source)"
            self._broken(at, Rule.BACK_NO_MORE_THAN_CAME, what)

    def _check_restored(
        self, at: At, state: LeadState, sale: Sale, event: ReturnApproved | DeliveryFailed
    ) -> None:
        """Hold the draws against those of the sale, given back, and against the quota that a return uses."""
        taken = (*sale.terms.draws, *(sale.fee[2] if sale.fee is not None else ()))
        back = [] if sale.returned else [(counter, -amount, 0) for counter, amount, _ in taken if amount]
        drawn = list(_plain(event.draws))
        quota = [draw for draw in drawn if draw[1] > 0]
        if sorted(draw for draw in drawn if draw[1] <= 0) != sorted(back):
            self._broken(at, Rule.DRAWS_ARE_COMPLETE, f"given back to limits are {drawn}, drawn were {taken}")
        listed = state.listed or _UNDEFINED
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
        self._limits.draw(at, _plain(event.draws))
        if not (state.listed or _UNDEFINED).is_test:
            self._ledger.due(
                credit_dues(at.lead_id, (state.listed or _UNDEFINED).source_id, sale, since_seq=at.seq)
            )

    def _dispose(self, at: At, state: LeadState, event: DispositionReported) -> None:
        if not 1 <= event.sale_number <= len(state.sales) or (
            state.sales[event.sale_number - 1].terms.buyer_id != event.buyer_id
        ):
            self._broken(at, Rule.TERMS_ARE_TRUE, f"{event.buyer_id} reports on a sale that is not its own")

    def _move_money(self, at: At, state: LeadState, event: MoneyMoved) -> None:
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
        draws = _plain(event.draws)
        if draws != _plain(money_draws(event.buyer_id, event.amount_cents)):
            self._broken(at, Rule.DRAWS_ARE_COMPLETE, f"a move of {event.amount_cents} grants {draws}")
        place = (at.seq, at.offset, at.decided_at_ms)
        moved = (event.buyer_id, str(event.kind), event.reference, event.amount_cents, event.currency, *place)
        state.moves = [*moves, moved]
        self._limits.draw(at, draws)
        self._ledger.due(due for due in dues_of(at.lead_id, state) if due.seq == at.seq)

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


def entry_at(partition: int, offset: int, entry: EntryFields) -> At:
    """Name an entry that was read."""
    seq, _, (cause, _), market_version, lead_id, decided_at_ms, _start = entry
    return At(partition, seq, offset, cause, market_version, lead_id, decided_at_ms)


def _plain(draws: tuple[Draw, ...]) -> tuple[tuple[str, int, int], ...]:
    return tuple((draw.counter, draw.amount, draw.granted) for draw in draws)
