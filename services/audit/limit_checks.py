"""Limits recomputed from what the log's events say they drew: guarantee 3.

Entries of different partitions have no order among each other, so what was used at each moment can't be told from the
log; what is used in the end can, and it must fit into the limit and be what the router's counters say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.audit.findings import At, Findings, Markets
from services.audit.log_entries import Pattern
from services.audit.rules import Rule
from services.audit.violations import Where
from services.contract.limits import ACCOUNT, RETURNS
from services.contract.times import DAY_MS

KEPT_MS = 31 * DAY_MS
"""A counter that the router has no more must be of a period that began at least so long ago."""

_TABLE = "router.counters"


class Use:
    """What the log says of one counter. `most`: the highest limit that any version said when it was drawn on."""

    __slots__ = ("granted", "last", "most", "up", "used")

    def __init__(self) -> None:
        self.used = 0
        self.granted = 0
        self.up = 0
        self.most: int | None = None
        self.last: tuple[int, int, int] = (0, 0, 0)


class Limits:
    """Adds up draws. `counters` is what it must keep."""

    def __init__(self, findings: Findings, markets: Markets) -> None:
        """Begin with nothing drawn."""
        self._findings = findings
        self._markets = markets
        self.uses: dict[str, Use] = {}
        self._seen: set[tuple[str, int]] = set()

    def sold(self, at: At, pattern: Pattern) -> None:
        """Count a sale; what sales of one pattern draw is added up later."""
        pattern.times += 1
        pattern.last = (at.partition, at.seq, at.offset)
        for counter, _, _ in pattern.terms.draws:
            self._note(counter, at)
        if not pattern.is_remembered:
            self.count((pattern,))

    def draw(self, at: At, draws: Iterable[tuple[str, int, int]]) -> None:
        """Add what an event draws."""
        for counter, amount, granted in draws:
            self._note(counter, at)
            self._add(counter, amount, granted, 1)

    def count(self, patterns: Iterable[Pattern]) -> None:
        """Add up what the sales of these patterns drew since they were counted last."""
        for pattern in patterns:
            if pattern.times:
                for counter, amount, granted in pattern.terms.draws:
                    self._add(counter, amount, granted, pattern.times)
                    self.uses[counter].last = max(self.uses[counter].last, pattern.last)
                pattern.times = 0

    def judge(self) -> None:
        """Hold what is used of each counter against its limit."""
        for counter, use in self.uses.items():
            if use.most is not None and use.used > use.most + use.up:
                self._findings.broken(
                    Rule.LIMIT_HOLDS,
                    f"{use.used} used of {use.most} and {use.up} granted",
                    Where("limit", counter),
                    self._findings.entry(*use.last),
                )

    def compare(self, counters: Mapping[str, tuple[int, int]], now_ms: int) -> None:
        """Hold the router's counters against the log, which must be read to the same point."""
        for counter in sorted(self.uses.keys() | counters.keys()):
            use = self.uses.get(counter)
            logged = (0, 0) if use is None else (use.used, use.granted)
            kept = counters.get(counter)
            if kept is None and (logged == (0, 0) or _is_over(counter, now_ms)):
                continue
            if (kept or (0, 0)) != logged:
                places = () if use is None else (self._findings.entry(*use.last),)
                self._findings.broken(
                    Rule.COUNTER_IS_THE_LOG,
                    f"used and granted: the log says {logged}, the router {kept}",
                    Where(_TABLE, counter),
                    *places,
                )

    def kept(self) -> list[Any]:
        """Give what must be kept, as plain values."""
        return [[name, use.used, use.granted, use.up, use.most, use.last] for name, use in self.uses.items()]

    def resume(self, kept: Iterable[Any]) -> None:
        """Go on from what was kept."""
        for name, used, granted, up, most, last in kept:
            use = self.uses[name] = Use()
            use.used, use.granted, use.up, use.most, use.last = used, granted, up, most, tuple(last)

    def _add(self, counter: str, amount: int, granted: int, times: int) -> None:
        use = self.uses[counter]
        use.used += amount * times
        use.granted += granted * times
        use.up += max(0, granted) * times

    def _note(self, counter: str, at: At) -> None:
        """Learn a counter's limit in each version that it is drawn on under."""
        use = self.uses.get(counter)
        if use is None:
            use = self.uses[counter] = Use()
        use.last = (at.partition, at.seq, at.offset)
        key = (counter, at.market_version)
        if key not in self._seen:
            if len(self._seen) > 1_000_000:
                self._seen.clear()
            self._seen.add(key)
            most = self._most(counter, at.market_version)
            if most is not None:
                use.most = most if use.most is None else max(use.most, most)

    def _most(self, counter: str, version: int) -> int | None:
        """Say what a version of the market allows; None: it knows no such limit."""
        kind, _, rest = counter.partition(":")
        market = self._markets.version(version)
        if market is None:
            return None
        if kind == RETURNS:
            return 0
        if kind == ACCOUNT:
            buyer = market.buyers.get(rest)
            return None if buyer is None or buyer.account is None else buyer.account.credit_limit_cents
        order_id, _, after = rest.partition(":")
        order = self._markets.order(version, order_id)
        cap_name = after.partition(":")[0]
        caps = () if order is None else order.caps
        return next((cap.most for cap in caps if cap.name == cap_name), None)


def _is_over(counter: str, now_ms: int) -> bool:
    start = counter.rpartition(":")[2]
    return start.isdigit() and 0 < int(start) < now_ms - KEPT_MS
