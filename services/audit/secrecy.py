"""Guarantee 6 in the topics: contact details are with their source and their buyers, and nowhere else. Pure.

It looks for details by how they look and by what they are. Which fields a record may have is the auditor's own affair,
but for `leads.qualified`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import orjson

from services.audit.declared import declaration_of
from services.audit.told_records import contact_in
from services.audit.traces import Traces
from services.audit.violations import Report, Violation, Where
from services.bus.ports import Record
from services.contract.codec import NotReadable, codec
from services.contract.inputs import QualifiedLead
from services.contract.market import Market
from services.contract.outside_records import read_body
from services.contract.topics import DEAD_LETTERS_SUFFIX, Topics

GUARANTEE: Final = 6
_ERROR_HEADERS: Final = "dlq.errors."
_DEAD_LETTERS: Final = "dead letters"
_MAGIC: Final = b"\x00"
_ID_SIZE: Final = 36


class SecrecyRule(StrEnum):
    """What can be wrong."""

    NO_DETAILS_IN_TOPICS = "no_details_in_topics"
    NO_DETAILS_IN_TABLES = "no_details_in_tables"
    NO_DETAILS_IN_LOGS = "no_details_in_logs"
    DECLARED_FIELDS_ALONE = "declared_fields_alone"
    KEYS_ARE_IDS = "keys_are_ids"


class Secrecy:
    """Looks at every record inside, and at keys and headers of all. `markets` gives a version of the market.

    What no declaration knows is looked at as what is inside.
    """

    def __init__(
        self, *, markets: Callable[[int], Market], topics: Topics, traces: Traces, report: Report
    ) -> None:
        """Begin."""
        self.records = 0
        self._markets = markets
        self._topics = topics
        self._traces = traces
        self._report = report
        self._keyed_inside = {topics.qualified, topics.commands, topics.timers, topics.events}
        self._inside = {*self._keyed_inside, topics.log, topics.registry}
        self._kinds: dict[str, str | None] = {}
        self._declared: dict[tuple[int, str], frozenset[str]] = {}

    def learn(self, records: Iterable[Record]) -> None:
        """Take the contact details of delivered leads as something to be looked for."""
        for record in records:
            body = _body(record)
            contact = contact_in(body)
            if contact is not None:
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
            # The log's keys are held against its entries elsewhere.
            if record.topic in self._keyed_inside and not _is_id(lead_id):
                self._keyed_otherwise(record, None)
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
        if kind == _DEAD_LETTERS:
            self._look_at_letter(record)
            return
        lead_id = self._lead_told_of(record) if kind is not None else _about(record) or _key(record)
        self._look_around(record, lead_id)
        if kind in ("pings", None) and self._traces.are_in_record(record.value or b"", lead_id):
            self._found(record, "its value", lead_id)
        if (
            kind == "receipts"
            and self._traces.are_in(record.value or b"", lead_id)
            and self._traces.are_in(_without_reference(record), lead_id)
        ):
            self._found(record, "its value", lead_id)

    def _look_at_letter(self, record: Record) -> None:
        """A dead letter is what its outsider sent, be it a delivery. What intake did not put there can't be one."""
        self._look_around(record, None, only=_ERROR_HEADERS)
        is_letter = any(name.startswith(_ERROR_HEADERS) for name, _ in record.headers)
        if not is_letter and _is_delivery(record):
            self._found(record, "a delivery among dead letters", _about(record))

    def _lead_told_of(self, record: Record) -> str:
        """Name the lead or account of a record, which its key must be; where it can't be read, as the key says."""
        named = _key(record)
        if b'"lead_id":"%b"' % (record.key or b"") in (record.value or b""):
            return named
        about = _about(record)
        if about is None or about == named:
            return named
        self._keyed_otherwise(record, about)
        return about

    def _kind_of(self, topic: str) -> str | None:
        """Tell what is on a topic of outsiders; None where no declaration knows it."""
        if topic not in self._kinds:
            declared = declaration_of(self._topics, topic)
            if declared is None:
                self._kinds[topic] = None
            elif topic.endswith(DEAD_LETTERS_SUFFIX):
                self._kinds[topic] = _DEAD_LETTERS
            else:
                self._kinds[topic] = declared.name.rpartition(".")[2]
        return self._kinds[topic]

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
            what = f"{len(undeclared)} fields that {shown.lead_type} does not declare for pings"
            self._broken(SecrecyRule.DECLARED_FIELDS_ALONE, what, record, lead_id)

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
        self._broken(SecrecyRule.NO_DETAILS_IN_TOPICS, f"contact details in {part}", record, lead_id)

    def _keyed_otherwise(self, record: Record, lead_id: str | None) -> None:
        what = "a key that is not the id of the lead or account that the record is about"
        self._broken(SecrecyRule.KEYS_ARE_IDS, what, record, lead_id)

    def _broken(self, rule: SecrecyRule, what: str, record: Record, lead_id: str | None) -> None:
        """Report a violation, and no key that may be anything."""
        self._report(
            Violation(
                guarantee=GUARANTEE,
                rule=rule,
                what=what,
                where=(_place(record),),
                lead_id=lead_id if lead_id is not None and _is_id(lead_id) else None,
            )
        )


def _place(record: Record) -> Where:
    return Where(record.topic, f"partition {record.partition}, offset {record.offset}")


def _key(record: Record) -> str:
    return (record.key or b"").decode("ascii", "replace")


def _body(record: Record) -> dict[str, Any]:
    try:
        return read_body(record.value or b"")
    except (NotReadable, RecursionError):
        return {}


def _about(record: Record) -> str | None:
    """Name the lead or account that a record for outsiders says it is about; None where that can't be read."""
    value = record.value or b""
    if value[:1] != _MAGIC:
        body = _body(record)
        about = body.get("lead_id") or body.get("account_id")
    else:
        try:
            about = getattr(codec().decode(value), "lead_id", None)
        except NotReadable:
            about = None
    return about if isinstance(about, str) else None


def _is_delivery(record: Record) -> bool:
    """Tell whether the router has written this for a buyer: it names its place in the log, and has the details."""
    body = _body(record)
    return "log" in body and contact_in(body) is not None


def _is_id(text: str) -> bool:
    """Tell whether a text has the form of a lead's or an account's id, which no detail of anybody has."""
    return len(text) == _ID_SIZE and text[8:24:5] == "----"


def _without_reference(record: Record) -> bytes:
    """Leave out of a receipt what the source itself calls its lead."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return record.value or b""
    if isinstance(body, dict):
        body.pop("reference", None)
    return orjson.dumps(body)
