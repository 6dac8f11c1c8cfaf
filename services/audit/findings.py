"""Where checks put what they find, and what they ask of the market: the two things that all of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from services.audit.rules import RULES, Rule
from services.audit.violations import Report, Violation, Where
from services.contract.market import LeadType, Market, Order, Plan
from services.contract.topics import Topics


class At(NamedTuple):
    """An entry that is being judged: its place, and under what it was decided."""

    partition: int
    seq: int
    offset: int
    cause: str
    market_version: int
    lead_id: str
    decided_at_ms: int


class Findings:
    """Reports what is broken, and counts it by rule."""

    def __init__(self, report: Report, topics: Topics) -> None:
        """Report to `report`; `topics` names the log."""
        self.violations: Counter[str] = Counter()
        self.total = 0
        self._report = report
        self._log = topics.log

    def broken(self, rule: Rule, what: str, *where: Where, lead_id: str | None = None) -> None:
        """Report that a rule is broken, and where that is seen."""
        self.violations[rule] += 1
        self.total += 1
        guarantee = RULES[rule].guarantee
        self._report(Violation(guarantee=guarantee, rule=rule, what=what, where=where, lead_id=lead_id))

    def broken_at(self, at: At, rule: Rule, what: str, *where: Where) -> None:
        """Report that an entry breaks a rule."""
        self.broken(rule, what, self.entry(at.partition, at.seq, at.offset), *where, lead_id=at.lead_id)

    def entry(self, partition: int, seq: int, offset: int) -> Where:
        """Name the place of an entry."""
        return Where(self._log, f"{partition}:{seq} (offset {offset})")


class Markets:
    """The market's versions, as far as they are there, each indexed once."""

    def __init__(self, read: Callable[[int], Market]) -> None:
        """Read versions with `read`, which raises LookupError for one that there is not."""
        self._read = read
        self._versions: dict[int, Market] = {}
        self._orders: dict[int, Mapping[str, Order]] = {}
        self._plans: dict[tuple[int, str, str], Plan | None] = {}

    def version(self, version: int) -> Market | None:
        """Find a version; None where there is none."""
        found = self._versions.get(version)
        if found is None:
            try:
                found = self._versions[version] = self._read(version)
            except LookupError:
                return None
        return found

    def order(self, version: int, order_id: str) -> Order | None:
        """Find an order in a version."""
        orders = self._orders.get(version)
        if orders is None:
            market = self.version(version)
            buyers = () if market is None else market.buyers.values()
            orders = self._orders[version] = {order.id: order for buyer in buyers for order in buyer.orders}
        return orders.get(order_id)

    def lead_type(self, version: int, name: str) -> LeadType | None:
        """Find a lead type in a version."""
        market = self.version(version)
        return None if market is None else market.lead_types.get(name)

    def plan(self, version: int, lead_type: str, name: str) -> Plan | None:
        """Find a plan in a version."""
        key = (version, lead_type, name)
        if key not in self._plans:
            found = self.lead_type(version, lead_type)
            plans = () if found is None else found.plans
            self._plans[key] = next((plan for plan in plans if plan.name == name), None)
        return self._plans[key]
