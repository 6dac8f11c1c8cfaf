"""Reads entries of the log as the auditor needs them: their fields, and their events as plain values or as dataclasses.

Most entries tell of sales that differ from others in nothing but ids and times. Such an event is decoded once, and
known again by its bytes without these (`Sales`). Nothing is judged here but whether bytes can be read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, NamedTuple, TypeAlias

from services.audit.avro_times import six_bytes
from services.audit.fields import Reader, compile_fields, compile_head, compile_tail
from services.audit.lead_state import Listed, Terms
from services.contract.codec import NotReadable, Schema, stored_schemas
from services.contract.entries import Entry
from services.contract.events import LeadClosed, LeadListed, LeadSold
from services.contract.ids import sale_id_of

EntryFields: TypeAlias = tuple[int, bytes, tuple[str, int], int, str, int, int]
"""seq, prev_hash, cause (kind and offset), market_version, lead_id, decided_at_ms, and where the events begin."""

Events: TypeAlias = tuple[tuple[int, bytes], ...]
"""Schema id and body of each event."""

_ENTRY: Final = ("seq", "prev_hash", "cause", "market_version", "lead_id", "decided_at_ms")
_EVENTS: Final = "events"
_CLOSED: Final = ("outcome", "source_id", "lead_type", "plan", "holders", "is_test")
_CREATED_AT: Final = "created_at_ms"
_LISTED_HEAD: Final = ("source_id", "lead_type", "plan", "quality", "fields", "sales_max", "never_to")
_TIMES: Final = ("sale_id", "created_at_ms", "held_since_ms")
_SOLD: Final = (*Terms._fields, *_TIMES)
_FRAME: Final = struct.Struct(">BI")

REMEMBERED_MAX: Final = 20_000

# Six bytes that no number of an event begins with and no text holds: they stand for the two times in a remembered sale.
_NO_TIME: Final = b"\xff\xff\xff\xff\xff"
_DECIDED: Final = b"\xff\xff\xff\xff\xff\xfe"
_CREATED: Final = b"\xff\xff\xff\xff\xff\xfd"
_UUID_SIZE: Final = 36
_AFTER_SALE_ID: Final = 2 + _UUID_SIZE
_BODY_OF_SALE_ID: Final = _UUID_SIZE << 1
_NUMBER_MAX: Final = 63
_MORE: Final = 0x80


class Pattern:
    """A sale's terms, as many sales share them; what was found out about them is kept with them.

    `judged` are the circumstances that they were found right in, `times` counts the sales since their draws were
    summed, all under `market_version`, of which `last` was the last: partition, seq, offset.
    `weight` and `row_weight` are what such a sale adds to the tallies of transfers and of sales.
    """

    __slots__ = (
        "is_remembered",
        "judged",
        "last",
        "market_version",
        "row_weight",
        "terms",
        "times",
        "weight",
    )

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.is_remembered = False
        self.judged: set[tuple[Any, ...]] = set()
        self.times = 0
        self.market_version = 0
        self.last: tuple[int, int, int] = (0, 0, 0)
        self.weight: int | None = None
        self.row_weight = 0


class SoldEvent(NamedTuple):
    """A sale as an entry tells it. `is_named_rightly`: its id is what follows from the lead's and its number."""

    pattern: Pattern
    sale_id: str
    is_named_rightly: bool
    created_at_ms: int
    held_since_ms: int | None


class Entries:
    """Reads records of the log."""

    def __init__(self, schemas: tuple[Schema, ...] | None = None) -> None:
        """Compile the readers of all stored versions of the types that are read in part."""
        schemas = schemas or stored_schemas()
        stored = [schema for schema in schemas if schema.type == Entry.__name__]
        self.frame = _frame(max(stored, key=lambda schema: schema.version))
        self._heads = {_frame(schema): compile_head(schema.parsed, _ENTRY, _EVENTS) for schema in stored}
        self._events = {_frame(schema): compile_tail(schema.parsed, _EVENTS) for schema in stored}
        self.listed: Mapping[int, Reader] = _readers(schemas, LeadListed, Listed._fields)
        self.closed: Mapping[int, Reader] = _readers(schemas, LeadClosed, _CLOSED)
        self.sold: Mapping[int, Reader] = _readers(schemas, LeadSold, _SOLD)
        self._listed_heads = {
            schema.id: compile_head(schema.parsed, _LISTED_HEAD, _CREATED_AT)
            for schema in schemas
            if schema.type == LeadListed.__name__
        }

    def read(self, value: bytes | None) -> EntryFields:
        """Read a record's value; raise `NotReadable`."""
        reader = None if value is None else self._heads.get(value[: _FRAME.size])
        if reader is None or value is None:
            raise NotReadable("no entry")
        try:
            entry: Any = reader(value, _FRAME.size)
        except (ValueError, LookupError) as error:
            raise NotReadable(f"bytes that are no entry: {error}") from error
        return entry  # type: ignore[no-any-return]  # as its schema and `_ENTRY` say

    def events(self, value: bytes, start: int) -> Events:
        """Read the events of an entry, which begin at `start`; raises ValueError, LookupError."""
        events: Events = self._events[value[: _FRAME.size]](value, start)[0]
        return events

    def listing_until_time(self, head: bytes) -> tuple[Any, ...] | None:
        """Read the events of an entry as far as the time in the listing that they begin with; the bytes end there.

        Gives how many events there are, the listing's schema and how many bytes of it are to come, and what it says,
        only the names of the lead's fields. None: not such bytes. Raises ValueError, LookupError.
        """
        first = _first_event(head)
        reader = None if first is None else self._listed_heads.get(first[0])
        if first is None or reader is None:
            return None
        schema_id, body_at, end = first
        source_id, lead_type, plan, quality, fields, sales_max, never_to, at = reader(head, body_at)
        said = (source_id, lead_type, plan, quality, tuple(fields), sales_max, never_to)
        return (head[0], schema_id, end - at, *said) if at == len(head) else None

    def parted(self, schema_id: int, body: bytes) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Read a listing, a sale or a close: what it says but for ids and times, and these. Of others, the bytes."""
        if schema_id in self.sold:
            values = self.sold[schema_id](body, 0)
            return values[: len(Terms._fields)], values[len(Terms._fields) :]
        if schema_id in self.listed:
            listed = Listed._make(self.listed[schema_id](body, 0))
            return listed._replace(created_at_ms=0), (listed.created_at_ms,)
        if schema_id in self.closed:
            return self.closed[schema_id](body, 0), ()
        return (schema_id, body), ()


class Sales:
    """Reads the sales of entries, each kind of sale once."""

    def __init__(self, readers: Mapping[int, Reader], forget: Callable[[Pattern], None]) -> None:
        """Read with these, by schema id. `forget` is told of each pattern that is not remembered any longer."""
        self._readers = readers
        self._forget = forget
        self._known: dict[tuple[int, int, bytes], tuple[Pattern, bool]] = {}

    def patterns(self) -> list[Pattern]:
        """Give all patterns that are remembered."""
        return [pattern for pattern, _ in self._known.values()]

    def find(
        self, schema_id: int, body: bytes, lead_id: str, decided: bytes, created: bytes
    ) -> tuple[Pattern, bool, str] | None:
        """Find a sale among those remembered: its pattern, whether somebody held the lead before, and its id.

        `decided` and `created` are the bytes of the two times that it must have (`six_bytes`); they must differ.
        """
        number = body[0] >> 1
        sale_id = sale_id_of(lead_id, number)
        if (
            body[1] != _BODY_OF_SALE_ID
            or body[2:_AFTER_SALE_ID] != sale_id.encode()
            or _NO_TIME in body
            or number > _NUMBER_MAX
        ):
            return None
        known = self._known.get(
            (schema_id, number, body[_AFTER_SALE_ID:].replace(decided, _DECIDED).replace(created, _CREATED))
        )
        return None if known is None else (*known, sale_id)

    def read(
        self, schema_id: int, body: bytes, lead_id: str, decided_at_ms: int, created_at_ms: int
    ) -> SoldEvent:
        """Read a sale of a lead that its entry decided, and the log has listed as created, at these times.

        Raises ValueError, LookupError.
        """
        decided, created = six_bytes(decided_at_ms), six_bytes(created_at_ms)
        if decided is None or created is None or decided == created:
            return self._event(self._readers[schema_id](body, 0), lead_id)
        known = self.find(schema_id, body, lead_id, decided, created)
        if known is None:
            return self._learn(schema_id, body, lead_id, decided_at_ms, created_at_ms)
        pattern, is_held, sale_id = known
        return SoldEvent(pattern, sale_id, True, created_at_ms, decided_at_ms if is_held else None)

    @staticmethod
    def _event(values: tuple[Any, ...], lead_id: str) -> SoldEvent:
        terms = Terms._make(values[: len(Terms._fields)])
        sale_id, created_at_ms, held_since_ms = values[len(Terms._fields) :]
        is_named_rightly = sale_id == sale_id_of(lead_id, terms.sale_number)
        return SoldEvent(Pattern(terms), sale_id, is_named_rightly, created_at_ms, held_since_ms)

    def _learn(
        self, schema_id: int, body: bytes, lead_id: str, decided_at_ms: int, created_at_ms: int
    ) -> SoldEvent:
        """Read a sale in full, and remember it if its two times alone tell it from the next of its kind.

        That is tried: other times put in their places must be read there, and change nothing else.
        """
        event = self._event(self._readers[schema_id](body, 0), lead_id)
        times = (six_bytes(decided_at_ms), six_bytes(created_at_ms))
        others = (six_bytes(decided_at_ms ^ 1), six_bytes(created_at_ms ^ 1))
        if None in (*times, *others) or decided_at_ms ^ 1 == created_at_ms or not event.is_named_rightly:
            return event
        is_held = event.held_since_ms == decided_at_ms
        if event.created_at_ms != created_at_ms or not (is_held or event.held_since_ms is None):
            return event
        rest = body[_AFTER_SALE_ID:].replace(times[0] or b"", _DECIDED).replace(times[1] or b"", _CREATED)
        twin = rest.replace(_DECIDED, others[0] or b"").replace(_CREATED, others[1] or b"")
        other = self._event(self._readers[schema_id](body[:_AFTER_SALE_ID] + twin, 0), lead_id)
        held = decided_at_ms ^ 1 if is_held else None
        told = (other.pattern.terms, other.created_at_ms, other.held_since_ms)
        if _NO_TIME not in body and told == (event.pattern.terms, created_at_ms ^ 1, held):
            if len(self._known) >= REMEMBERED_MAX:
                self.forget()
            event.pattern.is_remembered = True
            self._known[schema_id, body[0] >> 1, rest] = (event.pattern, is_held)
        return event

    def forget(self) -> None:
        """Forget all that is remembered."""
        for pattern, _ in self._known.values():
            pattern.is_remembered = False
            self._forget(pattern)
        self._known.clear()


def _first_event(events: bytes) -> tuple[int, int, int] | None:
    """Find the first of an entry's events: its schema id, where its body begins and ends; None: not where it mostly is.

    An array's block begins with its length (below 64 here: one byte), an event with two numbers of at most two bytes.
    """
    if not 0 < events[0] < _MORE or events[0] & 1:
        return None
    schema_id, at = _small(events, 1)
    size, at = _small(events, at)
    return (schema_id, at, at + size) if schema_id > 0 and size > 0 else None


def _small(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of one byte or two; 0 for any other."""
    first = data[at]
    if first < _MORE:
        return (0 if first & 1 else first >> 1), at + 1
    second = data[at + 1]
    if second >= _MORE or first & 1:
        return 0, at + 2
    return (first & 0x7F | second << 7) >> 1, at + 2


def _frame(schema: Schema) -> bytes:
    return _FRAME.pack(0, schema.id)


def _readers(schemas: tuple[Schema, ...], record_type: type, wanted: tuple[str, ...]) -> dict[int, Reader]:
    defaults = _defaults(record_type)
    return {
        schema.id: compile_fields(schema.parsed, wanted, defaults)
        for schema in schemas
        if schema.type == record_type.__name__
    }


def _defaults(record_type: type) -> dict[str, Any]:
    return {part.name: part.default for part in fields(record_type) if part.default is not MISSING}
