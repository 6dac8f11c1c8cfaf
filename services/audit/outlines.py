"""Kinds of entries that list a lead, sell it or not, and close it: each is told by its bytes without ids and times.

What else the judgement of such an entry depends on is part of its kind: the market's version, the quarter of an hour,
and what the listing says. A kind is learnt from one entry that was judged. It must not judge anything itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

from services.audit.avro_times import six_bytes
from services.audit.layouts import Expected, Layout, layout_of, replaced
from services.audit.log_entries import Entries, Pattern
from services.audit.sale_checks import QUARTER_MS
from services.contract.ids import sale_id_of

OUTLINES_MAX: Final = 50_000
"""So many kinds are known at a time, and so many beginnings of listings."""

_LAYOUTS_MAX: Final = 4
_FIRST_BYTES: Final = 5
_TIMES: Final = 2
_OTHER_LEAD: Final = "00000000-0000-0000-0000-000000000000"


class Outline:
    """What was found about an entry, for all that are like it. `lead`: the number of what their leads have in common.

    All were decided under `market_version`.
    `times`: so many were like it since they were counted, of which `last` was the last: partition, seq, offset.
    """

    __slots__ = (
        "is_due",
        "last",
        "lead",
        "market_version",
        "patterns",
        "payout_weight",
        "row_weight",
        "sales",
        "times",
        "weights",
    )

    def __init__(
        self,
        patterns: Sequence[Pattern],
        *,
        market_version: int,
        lead: int,
        payout_weight: int,
        close_weight: int,
    ) -> None:
        self.patterns = tuple(patterns)
        self.market_version = market_version
        self.sales = len(patterns)
        self.lead = lead
        self.weights = tuple([pattern.weight or 0 for pattern in patterns])
        self.row_weight = close_weight + sum(pattern.row_weight for pattern in patterns)
        self.payout_weight = payout_weight
        self.is_due = payout_weight > 0 or any(self.weights)
        self.times = 0
        self.last: tuple[int, int, int] = (0, 0, 0)


_NONE: Final = (None, (), lambda _: ())


class Judged(NamedTuple):
    """An entry that was judged: its bytes, where its events begin, and what they say of ids and times."""

    value: bytes
    start: int
    lead_id: str
    market_version: int
    decided_at_ms: int
    created_at_ms: int


class Outlines:
    """The kinds that are known."""

    def __init__(self, entries: Entries) -> None:
        """Begin with none."""
        self._entries = entries
        self._layouts: dict[tuple[bytes, int], list[Layout]] = {}
        self._heads: dict[bytes, int] = {}
        self._listings: dict[tuple[Any, ...], int] = {}
        self._numbers = count(1)
        self._outlines: dict[tuple[Any, ...], Outline] = {}

    def find(
        self, value: bytes, start: int, market_version: int, quarter: int
    ) -> tuple[Outline | None, tuple[bytes, ...], Expected]:
        """Find the kind of an entry whose events begin at `start`, its bytes split, and what these must be."""
        for layout in self._layouts.get((value[start : start + _FIRST_BYTES], len(value) - start), ()):
            parts = layout.split(value, start)
            listing = self._heads.get(parts[0]) or self._listing_of(parts[0])
            outline = self._outlines.get((listing, market_version, quarter, parts[2::2]))
            if outline is not None:
                return outline, parts, layout.expected
        return _NONE

    def learn(self, judged: Judged, outline: Outline) -> None:
        """Learn the kind of an entry, unless its ids and times can't be told from the rest of it."""
        marks = _marks(judged.lead_id, judged.decided_at_ms, judged.created_at_ms, len(outline.patterns))
        tail = judged.value[judged.start :]
        layout = None if marks is None else layout_of(tail, marks)
        if marks is None or layout is None or not self._is_right(judged, layout, marks):
            return
        head, created, *_ = parts = layout.split(tail, 0)
        listing = self._listing_of(head)
        if listing is None or created != marks[1]:
            return
        if len(self._outlines) >= OUTLINES_MAX:
            self._outlines.clear()
        quarter = judged.decided_at_ms // QUARTER_MS
        self._outlines[listing, judged.market_version, quarter, parts[2::2]] = outline
        self._lay_out((tail[:_FIRST_BYTES], len(tail)), layout)

    def _listing_of(self, head: bytes) -> int | None:
        """Number what a listing says before its time, without the values of the lead's fields; None: not readable."""
        listing = self._heads.get(head)
        if listing is None:
            try:
                said = self._entries.listing_until_time(head)
            except (ValueError, LookupError):
                said = None
            if said is None:
                return None
            if len(self._heads) >= OUTLINES_MAX:
                self._heads.clear()
                self._listings.clear()
            listing = self._heads[head] = self._listings.setdefault(said, next(self._numbers))
        return listing

    def _lay_out(self, key: tuple[bytes, int], layout: Layout) -> None:
        if len(self._layouts) >= OUTLINES_MAX:
            self._layouts.clear()
        known = self._layouts.setdefault(key, [])
        if all(layout.spans != other.spans for other in known):
            known.insert(0, layout)
            del known[_LAYOUTS_MAX:]

    def _is_right(self, judged: Judged, layout: Layout, marks: Sequence[bytes]) -> bool:
        """Try a layout: other ids and times put into its places must be read there, and change nothing else."""
        value, start, _, _, decided_at_ms, created_at_ms = judged
        others = _marks(_OTHER_LEAD, decided_at_ms ^ 1, created_at_ms ^ 1, len(marks) - _TIMES)
        if others is None or len({*marks, *others}) < 2 * len(marks):
            return False
        put: dict[Any, Any] = {decided_at_ms: decided_at_ms ^ 1, created_at_ms: created_at_ms ^ 1, None: None}
        for mark, other in zip(marks[_TIMES:], others[_TIMES:], strict=True):
            put[mark.decode()] = other.decode()
        twin = value[:start] + replaced(value[start:], layout, others)
        told = [(said, tuple([put.get(mark) for mark in own])) for said, own in self._parted(value, start)]
        return told == list(self._parted(twin, start))

    def _parted(self, value: bytes, start: int) -> Iterator[tuple[Any, ...]]:
        for schema_id, body in self._entries.events(value, start):
            yield self._entries.parted(schema_id, body)


def _marks(lead_id: str, decided_at_ms: int, created_at_ms: int, sales: int) -> tuple[bytes, ...] | None:
    """Give what an entry has of its own, as it stands in its bytes; None where two of them are the same."""
    decided, created = six_bytes(decided_at_ms), six_bytes(created_at_ms)
    if decided is None or created is None or decided == created:
        return None
    return (decided, created, *[sale_id_of(lead_id, number).encode() for number in range(1, sales + 1)])
