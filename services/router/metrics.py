"""Every metric of the router, in one typed list, counted by batch; no decision reads one."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping
from operator import itemgetter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.contract.events import AuctionClosed, AuctionEnd, BidDeclined, BidPlaced, Outcome
from services.contract.market import Mode
from services.router.chain import Chain
from services.router.ports import CloseRow, PartitionCommit, SaleRow

_TIMER_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 60.0, 300.0, 1_800.0)
_CLOSE_SECONDS = (0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)


class RouterMetrics:
    """The router's own metrics, in a registry that its host serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin at zero."""
        self._leads = Counter(
            "gavel_router_leads_total", "Leads listed, which are accepted leads taken up.", registry=registry
        )
        closes = Counter(
            "gavel_router_closes_total", "Leads closed, by outcome.", ["outcome"], registry=registry
        )
        self._closes = {outcome: closes.labels(outcome.value) for outcome in Outcome}
        sales = Counter("gavel_router_sales_total", "Sales, by mode.", ["mode"], registry=registry)
        self._sales = {mode: sales.labels(mode.value) for mode in Mode}
        auctions = Counter(
            "gavel_router_auctions_total", "Auctions decided, by what ended them.", ["end"], registry=registry
        )
        self._auctions = {end: auctions.labels(end.value) for end in AuctionEnd}
        bids = Counter(
            "gavel_router_bids_total",
            "Answers to pings: prices named, and bids declined.",
            ["answer"],
            registry=registry,
        )
        self._bids = {BidPlaced: bids.labels("price"), BidDeclined: bids.labels("declined")}
        self.repeats = Counter(
            "gavel_router_repeats_total",
            "Inputs dropped because they were decided before.",
            registry=registry,
        )
        self.promises_broken = Counter(
            "gavel_router_promises_broken_total",
            "Decisions that the database refused because they would have broken a promise.",
            registry=registry,
        )
        self.recipients_behind = Gauge(
            "gavel_router_recipients_behind",
            "Recipients with records that their topics have not acknowledged, by partition of the log.",
            registry=registry,
        )
        self._limits = Gauge(
            "gavel_router_limit_used_ratio",
            "Used share of a limit of this period, of those used most.",
            ["limit"],
            registry=registry,
        )
        self._timer_late_seconds = Histogram(
            "gavel_router_timer_late_seconds",
            "Time from a window's being due to the decision on it.",
            buckets=_TIMER_SECONDS,
            registry=registry,
        )
        self.breakers = Counter(
            "gavel_router_breakers_total",
            "Changes of the breakers of buyers that don't answer pings.",
            ["change"],
            registry=registry,
        )
        self.limits_short = Counter(
            "gavel_router_limits_short_total",
            "Batches decided again because a limit had less room than was known.",
            registry=registry,
        )
        self.locked_batches = Counter(
            "gavel_router_locked_batches_total",
            "Batches decided under locks, because deciding first had failed repeatedly.",
            registry=registry,
        )
        self._passed_over = Counter(
            "gavel_router_passed_over_total",
            "Times that an order was passed over for a limit, its breaker or its limit of pings.",
            registry=registry,
        )
        self._auction_close_seconds = Histogram(
            "gavel_router_auction_close_seconds",
            "Time from an auction's end to the decision on it.",
            buckets=_CLOSE_SECONDS,
            registry=registry,
        )

    def count(self, commit: PartitionCommit, chain: Chain) -> None:
        """Take note of what was committed of one partition."""
        self._leads.inc(len(commit.new_leads))
        for outcome, closes in Tally(map(_OUTCOME, commit.closes)).items():
            self._closes[outcome].inc(closes)
        for mode, sales in Tally(map(_MODE, commit.sales)).items():
            self._sales[mode].inc(sales)
        self._count_auctions(chain)
        for delay_ms in chain.timer_delays_ms:
            self._timer_late_seconds.observe(delay_ms / 1_000)
        self._passed_over.inc(chain.passed_over)

    def _count_auctions(self, chain: Chain) -> None:
        for delay_ms in chain.close_delays_ms:
            self._auction_close_seconds.observe(delay_ms / 1_000)
        for event in chain.bidding:
            if isinstance(event, AuctionClosed):
                self._auctions[event.reason].inc()
            elif isinstance(event, BidPlaced | BidDeclined):
                self._bids[type(event)].inc()

    def show_limits(self, used: Mapping[str, float]) -> None:
        """Show these limits, with the share of each that is used, and no others."""
        self._limits.clear()
        for limit, share in used.items():
            self._limits.labels(limit).set(share)


_OUTCOME = itemgetter(CloseRow._fields.index("outcome"))
_MODE = itemgetter(SaleRow._fields.index("mode"))
