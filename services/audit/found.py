"""What an audit has found: each violation once, counted by rule, the first ones kept. It decides nothing.

The same is found again whenever the tables are compared, and after a crash; it counts once.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import orjson

from services.audit.violations import Violation, Where

LISTED_MAX: Final = 20_000
KNOWN_MAX: Final = 200_000
"""So many are known again; beyond that, what is found again counts again."""

_DIGEST_SIZE: Final = 12
_NUMBERS: Final = re.compile(r"[0-9]+")


class Found:
    """Takes violations: its `take` is a `Report`."""

    def __init__(self, on_new: Callable[[Violation], None] = lambda _: None) -> None:
        """`on_new` hears of each violation the first time."""
        self.listed: list[Violation] = []
        self.by_rule: Counter[str] = Counter()
        self.by_guarantee: Counter[int] = Counter()
        self._known: set[bytes] = set()
        self._on_new = on_new

    @property
    def count(self) -> int:
        """How many there are."""
        return self.by_guarantee.total()

    def take(self, violation: Violation) -> None:
        """Take one, unless it is known."""
        digest = _digest(violation)
        if digest in self._known:
            return
        if len(self._known) < KNOWN_MAX:
            self._known.add(digest)
        self.by_rule[str(violation.rule)] += 1
        self.by_guarantee[violation.guarantee] += 1
        if len(self.listed) < LISTED_MAX:
            self.listed.append(violation)
        self._on_new(violation)

    def kept(self) -> bytes:
        """Give everything, to be kept and handed to `resume` later."""
        return orjson.dumps(
            {
                "by_rule": dict(self.by_rule),
                "by_guarantee": {str(number): count for number, count in self.by_guarantee.items()},
                "known": b"".join(sorted(self._known)).hex(),
                "listed": [violation_json(each) for each in self.listed],
            }
        )

    def resume(self, kept: bytes) -> None:
        """Go on from what was kept; nobody hears of it again."""
        told = orjson.loads(kept)
        self.by_rule = Counter(told["by_rule"])
        self.by_guarantee = Counter({int(number): count for number, count in told["by_guarantee"].items()})
        known = bytes.fromhex(told["known"])
        self._known = {known[at : at + _DIGEST_SIZE] for at in range(0, len(known), _DIGEST_SIZE)}
        self.listed = [_violation(each) for each in told["listed"]]


def violation_json(violation: Violation) -> dict[str, Any]:
    """Write a violation for machines."""
    return {
        "guarantee": violation.guarantee,
        "rule": str(violation.rule),
        "lead_id": violation.lead_id,
        "what": violation.what,
        "where": [{"source": where.source, "at": where.at} for where in violation.where],
    }


def _violation(told: dict[str, Any]) -> Violation:
    return Violation(
        guarantee=told["guarantee"],
        rule=told["rule"],
        what=told["what"],
        where=tuple(Where(where["source"], where["at"]) for where in told["where"]),
        lead_id=told["lead_id"],
    )


def _digest(violation: Violation) -> bytes:
    """Name a violation by what it is about; the numbers that it gives may differ from one comparison to the next."""
    said = orjson.dumps(violation_json(violation) | {"what": _NUMBERS.sub("N", violation.what)})
    return hashlib.blake2b(said, digest_size=_DIGEST_SIZE).digest()
