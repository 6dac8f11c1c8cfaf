"""Limits recomputed from what the log's events say they drew: guarantee 3.

Entries of different partitions have no order among each other, so what was used at each moment can't be told from the
log; what is used in the end can, and it must fit into the limit and be what the router's counters say.

Where the market changes a limit, a draw is held to its own version's or to a later one's, whichever a worker has drawn
under before. So what was drawn under a version and all later ones must fit the highest limit that these say: the last
of these draws saw all others of them. What is given back is given back under no earlier version than it was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, pairwise, takewhile
from typing import Any, NamedTuple

from services.audit.findings import At, Findings, Markets
from services.audit.log_entries import Pattern
from services.audit.rules import Rule
from services.audit.violations import Where
from services.contract.limits import ACCOUNT, RETURNS
from services.contract.times import DAY_MS

KEPT_MS = 31 * DAY_MS
"""A counter that the router has no more must be of a period that began at least so long ago."""

VERSIONS_MAX = 16
"""What was drawn on a counter is kept apart by so many versions of the market; older ones are taken together."""

_TABLE = "router.counters"


class Use:
    """What the log says of one counter. `drawn`: what is used of it, by the market's version that drew or gave back."""

    __slots__ = ("drawn", "granted", "last", "up")

    def __init__(self) -> None:
        self.drawn: dict[int, int] = {}
        self.granted = 0
        self.up = 0
        self.last: tuple[int, int, int] = (0, 0, 0)

    @property
    def used(self) -> int:
        """What is used in the end."""
        return sum(self.drawn.values())


class Excess(NamedTuple):
    """More was used under `version` and later ones than the highest limit that any of these says."""

    version: int
    used: int
    most: int


class Limits:
    """Adds up draws, by counter and version."""

    def __init__(self, findings: Findings, markets: Markets) -> None:
        """Begin with nothing drawn."""
        self._findings = findings
        self._markets = markets
        self.uses: dict[str, Use] = {}

    def sold(self, at: At, pattern: Pattern) -> None:
        """Count a sale; what sales of one pattern draw under one version is added up later."""
        if pattern.market_version != at.market_version:
            self.count((pattern,))
            pattern.market_version = at.market_version
        pattern.times += 1
        pattern.last = (at.partition, at.seq, at.offset)
        for counter, _, _ in pattern.terms.draws:
            self._use(counter).last = pattern.last
        if not pattern.is_remembered:
            self.count((pattern,))

    def draw(self, at: At, draws: Iterable[tuple[str, int, int]]) -> None:
        """Add what an event draws."""
        for counter, amount, granted in draws:
            use = self._use(counter)
            use.last = (at.partition, at.seq, at.offset)
            _add(use, amount, granted, at.market_version, 1)

    def count(self, patterns: Iterable[Pattern]) -> None:
        """Add up what the sales of these patterns drew since they were counted last."""
        for pattern in patterns:
            if pattern.times:
                self.sold_alike(pattern, pattern.market_version, pattern.times, pattern.last)
                pattern.times = 0

    def sold_alike(self, pattern: Pattern, version: int, times: int, last: tuple[int, int, int]) -> None:
        """Add what so many sales of a pattern drew under a version, of which `last` was the last."""
        for counter, amount, granted in pattern.terms.draws:
            use = self._use(counter)
            use.last = max(use.last, last)
            _add(use, amount, granted, version, times)

    def take_together(self) -> None:
        """Take old versions together, which demands less of them; to be called when all that was read is counted.

        Before that, what was given back could be taken to an earlier version than what was drawn.
        """
        for counter, use in self.uses.items():
            while len(use.drawn) > VERSIONS_MAX:
                pairs = list(pairwise(sorted(use.drawn)))
                alike = (
                    pair for pair in pairs if self._most(counter, pair[0]) == self._most(counter, pair[1])
                )
                into, version = next(alike, pairs[0])
                use.drawn[into] += use.drawn.pop(version)

    def judge(self) -> None:
        """Hold what is used of each counter against its limit; the log must be read to one point of all partitions."""
        for counter, use in self.uses.items():
            excess = self._excess(counter, use)
            if excess is not None:
                self._findings.broken(
                    Rule.LIMIT_HOLDS,
                    f"{excess.used} used of {excess.most} and {use.up} granted, since market {excess.version}",
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
        return [[name, use.drawn, use.granted, use.up, use.last] for name, use in self.uses.items()]

    def resume(self, kept: Iterable[Any]) -> None:
        """Go on from what was kept."""
        for name, drawn, granted, up, last in kept:
            use = self.uses[name] = Use()
            use.drawn, use.granted, use.up, use.last = drawn, granted, up, tuple(last)

    def _use(self, counter: str) -> Use:
        use = self.uses.get(counter)
        if use is None:
            use = self.uses[counter] = Use()
        return use

    def _excess(self, counter: str, use: Use) -> Excess | None:
        """Find the latest version since which too much is used."""
        used = most = 0
        for version in sorted(use.drawn, reverse=True):
            used += use.drawn[version]
            most = max(most, self._most(counter, version) or 0)
            if used > most + use.up:
                # A version that drew nothing counts too: it may have told that the limit is used up.
                most = max(self._mosts_since(counter, version), default=-1)
                if 0 <= most < used - use.up:
                    return Excess(version, used, most)
        return None

    def _mosts_since(self, counter: str, version: int) -> Iterator[int]:
        versions = takewhile(lambda at: self._markets.version(at) is not None, count(version))
        return (most for at in versions if (most := self._most(counter, at)) is not None)

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


def _add(use: Use, amount: int, granted: int, version: int, times: int) -> None:
    if amount:
        use.drawn[version] = use.drawn.get(version, 0) + amount * times
    use.granted += granted * times
    use.up += max(0, granted) * times


def _is_over(counter: str, now_ms: int) -> bool:
    start = counter.rpartition(":")[2]
    return start.isdigit() and 0 < int(start) < now_ms - KEPT_MS
