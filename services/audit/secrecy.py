"""Guarantee 6 in the topics: contact details are with their source and their buyers, and nowhere else. Pure.

It looks for details by how they look and by what they are. Which fields a record may have is the auditor's own affair,
but for `leads.qualified`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import orjson

from services.audit.traces import Traces
from services.audit.violations import Report, Violation, Where
from services.bus.ports import Record
from services.contract.codec import NotReadable, codec
from services.contract.inputs import QualifiedLead
from services.contract.market import Market
from services.contract.outside_records import read_body
from services.contract.topics import Topics

GUARANTEE: Final = 6
_DLQ_SUFFIX: Final = ".dlq"
_ERROR_HEADERS: Final = "dlq.errors."


class SecrecyRule(StrEnum):
    """What can be wrong."""

    NO_DETAILS_IN_TOPICS = "no_details_in_topics"
    NO_DETAILS_IN_TABLES = "no_details_in_tables"
    NO_DETAILS_IN_LOGS = "no_details_in_logs"
    DECLARED_FIELDS_ALONE = "declared_fields_alone"


class Secrecy:
    """Looks at every record inside, and at keys and headers of all. `markets` gives a version of the market."""

    def __init__(
        self, *, markets: Callable[[int], Market], topics: Topics, traces: Traces, report: Report
    ) -> None:
        """Begin."""
        self.records = 0
        self._markets = markets
        self._topics = topics
        self._traces = traces
        self._report = report
        self._inside = {topics.qualified, topics.commands, topics.timers, topics.log, topics.events}
        self._declared: dict[tuple[int, str], frozenset[str]] = {}

    def learn(self, records: Iterable[Record]) -> None:
        """Take the contact details of delivered leads as something to be looked for."""
        for record in records:
            body = _body(record)
            contact = body.get("lead", {}).get("contact") if body.get("type") == "lead" else None
            if isinstance(contact, dict):
                self._traces.know(str(body.get("lead_id")), contact)

    def take(self, records: Sequence[Record]) -> None:
        """Look at records of any topics."""
        self.records += len(records)
        inside = [record for record in records if record.topic in self._inside]
        outside = [record for record in records if record.topic not in self._inside]
        self._look_inside(inside)
        for record in outside:
            self._look_outside(record)

    def _look_inside(self, records: Sequence[Record]) -> None:
        traces, persons = self._traces, self._traces.persons
        with_canaries = self._have_canaries(records)
        for record in records:
            value, key = record.value or b"", record.key or b""
            lead_id = key.decode("ascii", "replace")
            if (
                with_canaries or b"@" in value or b"+" in value or lead_id in persons
            ) and traces.are_in_record(value, lead_id):
                self._found(record, "its value", lead_id)
            if b"@" in key or b"+" in key or record.headers:
                self._look_around(record, lead_id)
            if record.topic == self._topics.qualified:
                self._look_at_fields(record, lead_id)

    def _have_canaries(self, records: Sequence[Record]) -> bool:
        """Look for canaries in all values at once: what is in none of them is told at the speed of memory."""
        canaries = self._traces.canaries
        if not canaries:
            return False
        joined = b"\n".join([(record.value or b"") + b"\n" + (record.key or b"") for record in records])
        return any(canary in joined for canary in canaries)

    def _look_outside(self, record: Record) -> None:
        """An outsider's topic: its buyer's deliveries are where the details belong, all else is not."""
        kind = self._kind_of(record.topic)
        if kind == _DLQ_SUFFIX:
            self._look_around(record, None, only=_ERROR_HEADERS)
            return
        lead_id = (record.key or b"").decode("ascii", "replace")
        self._look_around(record, lead_id)
        if kind == "pings" and self._traces.are_in_record(record.value or b"", lead_id):
            self._found(record, "its value", lead_id)
        if (
            kind == "receipts"
            and self._traces.are_in(record.value or b"", lead_id)
            and self._traces.are_in(_without_reference(record), lead_id)
        ):
            self._found(record, "its value", lead_id)

    def _kind_of(self, topic: str) -> str | None:
        if topic.endswith(_DLQ_SUFFIX):
            return _DLQ_SUFFIX
        owner = self._topics.owner_of(topic)
        return None if owner is None else owner[2]

    def _look_around(self, record: Record, lead_id: str | None, only: str = "") -> None:
        if not only and self._traces.are_in(record.key or b"", lead_id):
            self._found(record, "its key", lead_id)
        for name, value in record.headers:
            if name.startswith(only) and self._traces.are_in(name.encode() + b" " + value, lead_id):
                # A header's name is ours, unless somebody else wrote the record.
                self._found(record, "a header", lead_id)

    def _look_at_fields(self, record: Record, lead_id: str) -> None:
        try:
            shown = codec().decode(record.value)
        except NotReadable:
            return
        if not isinstance(shown, QualifiedLead):
            return
        undeclared = shown.fields.keys() - self._declared_in(shown.market_version, shown.lead_type)
        if undeclared:
            self._report(
                Violation(
                    guarantee=GUARANTEE,
                    rule=SecrecyRule.DECLARED_FIELDS_ALONE,
                    what=f"{len(undeclared)} fields that {shown.lead_type} does not declare for pings",
                    where=(_place(record),),
                    lead_id=lead_id,
                )
            )

    def _declared_in(self, version: int, lead_type: str) -> frozenset[str]:
        """Give what a type declares for pings: nothing, where there is no such version or type."""
        found = self._declared.get((version, lead_type))
        if found is None:
            try:
                declared = self._markets(version).lead_types.get(lead_type)
            except KeyError:
                declared = None
            found = frozenset(declared.ping) if declared is not None else frozenset()
            self._declared[version, lead_type] = found
        return found

    def _found(self, record: Record, part: str, lead_id: str | None) -> None:
        self._report(
            Violation(
                guarantee=GUARANTEE,
                rule=SecrecyRule.NO_DETAILS_IN_TOPICS,
                what=f"contact details in {part}",
                where=(_place(record),),
                lead_id=None if lead_id is None or self._traces.are_in(lead_id.encode()) else lead_id,
            )
        )


def _place(record: Record) -> Where:
    return Where(record.topic, f"partition {record.partition}, offset {record.offset}")


def _body(record: Record) -> dict[str, Any]:
    try:
        return read_body(record.value or b"")
    except NotReadable:
        return {}


def _without_reference(record: Record) -> bytes:
    """Leave out of a receipt what the source itself calls its lead."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return record.value or b""
    if isinstance(body, dict):
        body.pop("reference", None)
    return orjson.dumps(body)
