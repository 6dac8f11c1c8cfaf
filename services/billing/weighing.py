"""Adds up all accounts from time to time, for people to see that debits equal credits.

Nothing depends on it: it reads the totals that `record` keeps, and the auditor compares these with the log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from services.billing.metrics import BillingMetrics
from services.billing.step import Ledger
from services.bus.log_reader import LogFold, Move, TakenEntry
from services.contract.entries import Position

WEIGHS_EACH_S = 60.0


class WeighableLedger(Ledger, Protocol):
    """A ledger that can be added up. Each call may raise `PassingFault`."""

    def imbalance_cents(self) -> Mapping[str, int]:
        """Sum debits less credits of all accounts, in minor units, by currency."""
        ...


class WeighedFold:
    """A `LogFold` around billing's that adds up the ledger when nothing else is to be done, once a minute."""

    def __init__(
        self,
        fold: LogFold,
        ledger: WeighableLedger,
        metrics: BillingMetrics,
        *,
        monotonic_s: Callable[[], float],
    ) -> None:
        """Weigh `ledger`, which `fold` writes, at the first chance."""
        self._fold = fold
        self._ledger = ledger
        self._metrics = metrics
        self._monotonic_s = monotonic_s
        self._weighs_at_s = monotonic_s()

    def positions(self, partitions: Collection[int]) -> Mapping[int, Position]:
        """Read the stored positions."""
        return self._fold.positions(partitions)

    def apply(self, taken: Sequence[TakenEntry], moves: Mapping[int, Move]) -> None:
        """Fold."""
        self._fold.apply(taken, moves)

    def idle(self) -> None:
        """Weigh when it is time."""
        self._fold.idle()
        now_s = self._monotonic_s()
        if now_s < self._weighs_at_s:
            return
        self._weighs_at_s = now_s + WEIGHS_EACH_S
        for currency, cents in self._ledger.imbalance_cents().items():
            self._metrics.imbalance_cents.labels(currency).set(cents)
        self._metrics.weighed_at.set_to_current_time()
