"""The fold of a lead's entries: each event is judged by what the log has said of the lead before, and then added to it.

Listing and close (2) are here. What else must hold is beside it, rule by rule: `listing_checks`, `sale_checks`,
`window_checks`, `auction_checks`, `aftermath_checks`, `erasure_checks`, `money_checks`. What the entry means for
outsiders and for the ledger is kept in the lead's state, to be held against what they were told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from services.audit.aftermath_checks import AftermathChecks
from services.audit.auction_checks import AuctionChecks
from services.audit.erasure_checks import ErasureChecks
from services.audit.findings import At, Findings, Markets
from services.audit.folded import NOT_LISTED, Folded
from services.audit.lead_state import Happened, LeadState, Listed, Sale
from services.audit.ledger_checks import Due, Ledger, Tally, subject_of
from services.audit.limit_checks import Limits
from services.audit.listing_checks import ListingChecks
from services.audit.log_entries import Entries, EntryFields, Pattern, Sales
from services.audit.money_checks import MoneyChecks
from services.audit.rules import Rule
from services.audit.sale_checks import SaleChecks
from services.audit.told_records import others_from_ms, pinged
from services.audit.window_checks import WindowChecks
from services.contract.codec import Codec
from services.contract.entries import EventBody
from services.contract.events import (
    AuctionClosed,
    AuctionOpened,
    BidDeclined,
    BidPlaced,
    BidVoided,
    CommandRefused,
    DeliveryFailed,
    DispositionReported,
    ErasureAcknowledged,
    Event,
    LeadErased,
    LeadUpgraded,
    LimitReached,
    MoneyMoved,
    OfferExpired,
    OfferMade,
    OfferRejected,
    OfferWithdrawn,
    ReturnApproved,
    ReturnRefused,
    ReturnRequested,
    StageStarted,
    WindowClosed,
    WindowOpened,
    WithdrawalNoted,
)

_BEFORE_LISTING: Final = frozenset({WithdrawalNoted, CommandRefused, MoneyMoved, LeadErased})
_AFTER_CLOSE: Final = frozenset(
    {
        BidVoided, CommandRefused, DeliveryFailed, DispositionReported, LimitReached, ReturnApproved, ReturnRefused,
        ReturnRequested, LeadErased, ErasureAcknowledged,
    }
)  # fmt: skip
"""What may follow the close of a lead: nothing that sells, asks or waits."""


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
        self._listing_checks = ListingChecks(findings, markets)
        self._auction_checks = auctions = AuctionChecks(findings, markets)
        windows, money = WindowChecks(findings, markets), MoneyChecks(findings, markets, limits, ledger)
        erasures = ErasureChecks(findings)
        aftermath = AftermathChecks(findings, markets, limits, ledger, self._sale_checks.share_cents)
        self._judges: dict[type, Callable[[At, LeadState, Any], None]] = {
            StageStarted: windows.stage_started,
            WindowClosed: windows.closed,
            OfferMade: self._offer,
            OfferRejected: auctions.offer_ended,
            OfferExpired: auctions.offer_ended,
            OfferWithdrawn: auctions.offer_ended,
            BidPlaced: auctions.answered,
            BidDeclined: auctions.answered,
            BidVoided: auctions.voided,
            ReturnRequested: aftermath.return_asked,
            ReturnRefused: aftermath.return_refused,
            DispositionReported: aftermath.reported,
            ErasureAcknowledged: erasures.acknowledged,
            MoneyMoved: money.moved,
        }
        self._judges_of_entries: dict[type, Callable[[At, LeadState, Folded, Any], None]] = {
            WindowOpened: windows.opened,
            AuctionOpened: self._open_auction,
            AuctionClosed: self._close_auction,
            LeadUpgraded: aftermath.upgraded,
            ReturnApproved: aftermath.returned,
            DeliveryFailed: aftermath.delivery_failed,
            LeadErased: erasures.erased,
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
        if not (folded.told or pings or folded.erasure):
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
            folded.erasure,
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
        self._listing_checks.judge(at, listed)
        if listed.payout_cents and not listed.is_test:
            source, currency = listed.source_id, listed.currency or ""
            path = ("payout", f"payouts:{source}", f"source:{source}", listed.payout_cents, currency)
            self._ledger.due((Due(*path, "", at.lead_id, at.seq, at.offset, at.decided_at_ms),))

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
        ledger.rows.add(subject_of(at.lead_id), pattern.row_weight)

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
        self._ledger.rows.add(subject_of(at.lead_id), self._ledger.weight_of_close(outcome))
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

    def _offer(self, at: At, state: LeadState, event: OfferMade) -> None:
        self._auction_checks.offered(at, state, state.listed or NOT_LISTED, event)

    def _open_auction(self, at: At, state: LeadState, folded: Folded, event: AuctionOpened) -> None:
        if folded.closed_auction is not None:
            self._auction_checks.decided(at, state, folded.closed_auction, folded.sold)
            folded.closed_auction = None
        self.auctions += 1
        self._auction_checks.opened(at, state, state.listed or NOT_LISTED, event)

    def _close_auction(self, at: At, state: LeadState, folded: Folded, event: AuctionClosed) -> None:
        if folded.closed_auction is not None:
            self._broken(at, Rule.AUCTION_CLOSED_ONCE, "two auctions are closed at once")
        folded.closed_auction = event
        self._auction_checks.closed(at, state, event)

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)


def entry_at(partition: int, offset: int, entry: EntryFields) -> At:
    """Name an entry that was read."""
    seq, _, (cause, _), market_version, lead_id, decided_at_ms, _start = entry
    return At(partition, seq, offset, cause, market_version, lead_id, decided_at_ms)
