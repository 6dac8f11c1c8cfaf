"""What outsiders were told, held against the log: each record says what its entry says, to its recipient, always alike.

A record and its entry are compared when both are there, whichever comes first: a record of an entry that was not read
yet waits in its lead's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from services.audit.findings import Findings, Markets
from services.audit.lead_state import (
    LEAD,
    N_BITS,
    NOTICE,
    PING,
    RECEIPT,
    UPGRADED,
    Accepted,
    Happened,
    LeadState,
    Told,
    letters_of,
)
from services.audit.rules import Rule
from services.audit.states import LeadStates
from services.audit.told_headers import INTAKE, ROUTER, are_headers
from services.audit.told_records import (
    contact_in,
    digest_of,
    digest_of_body,
    digest_of_contact,
    is_contact,
    record_body,
)
from services.audit.violations import Where
from services.bus.ports import Record
from services.contract.codec import NotReadable
from services.contract.outside_records import read_body
from services.contract.topics import Topics

_KINDS: Final = {"lead": LEAD, "upgraded": UPGRADED, "notice": NOTICE}
_N_MAX: Final = (1 << N_BITS) - 1
_MAGIC: Final = b"\x00"
_CONTACT: Final = b'"contact"'
_RECEIPT_OF_INTAKE: Final = frozenset({"type", "lead_id", "reference", "at", "happened"})
_SAID_BY_INTAKE: Final = {"accepted": frozenset({"type"}), "declined": frozenset({"type", "reason", "field"})}


class DeliveryChecks:
    """Judges records of outsiders' topics. Counts `deliveries`, repeats included."""

    def __init__(
        self,
        findings: Findings,
        markets: Markets,
        topics: Topics,
        states: LeadStates,
        partition_of: Callable[[str], int],
    ) -> None:
        """Find and keep leads in `states`."""
        self.deliveries = 0
        self._findings = findings
        self._markets = markets
        self._topics = topics
        self._states = states
        self._partition_of = partition_of

    def take(self, record: Record, kind: str, recipient: str) -> None:
        """Judge a record of `buyers.<id>.leads`, `buyers.<id>.pings` or `sources.<id>.receipts`."""
        value = record.value
        if value is None:
            self._broken(Rule.RECORD_IS_READABLE, "a record without a value", record)
            return
        try:
            body: Any = orjson.loads(value) if value[:1] != _MAGIC else read_body(value)
        except (orjson.JSONDecodeError, NotReadable):
            body = None
        if not isinstance(body, dict):
            self._broken(Rule.RECORD_IS_READABLE, "neither JSON nor Avro of ours", record)
            return
        if kind == "receipts" and "log" not in body:
            self._receipt_of_intake(record, recipient, body, value)
            return
        lead_id = body.get("lead_id") or body.get("account_id")
        place = _place(record, body)
        if not isinstance(lead_id, str) or place is None or place[0] != self._partition_of(lead_id):
            self._broken(
                Rule.RECORD_IS_READABLE, "no lead and place in the log that its ce_id names too", record
            )
            return
        told_as = _kind(kind, body)
        if told_as is None:
            self._broken(
                Rule.TOLD_WHAT_IS_LOGGED, "a kind of record that this topic does not have", record, lead_id
            )
            return
        if told_as == LEAD:
            self.deliveries += 1
        elif _has_contact(body, value):
            self._broken(
                Rule.CONTACT_FOR_BUYERS_ALONE, f"contact details beside a {told_as}", record, lead_id
            )
        at = str(body.get("sold_at" if told_as == LEAD else "at"))
        if not are_headers(record.headers, value, source=ROUTER, type=str(body.get("type")), at=at):
            what = f"headers that are not those of a {told_as}"
            self._broken(Rule.TOLD_WHAT_IS_LOGGED, what, record, lead_id)
        self._match(record, lead_id, place[1], place[2], told_as, recipient, body, value)

    def entry_read(self, lead_id: str, seq: int, state: LeadState) -> None:
        """Compare what waited for an entry, now that it was read."""
        waiting, state.waiting = state.waiting or [], None
        for told in waiting:
            if told.seq > seq:
                state.waiting = [*(state.waiting or ()), told]
            else:
                self._compare(lead_id, state, told)

    def _receipt_of_intake(self, record: Record, source_id: str, body: dict[str, Any], value: bytes) -> None:
        """Take note of a lead that was accepted; what was declined concerns nobody else.

        A lead that was declined may be accepted, mended or by another market, and be declined again with other content.
        """
        happened, lead_id = body.get("happened"), body.get("lead_id")
        if not isinstance(happened, list) or not isinstance(lead_id, str):
            self._broken(Rule.RECORD_IS_READABLE, "a receipt that says nothing of any lead", record)
            return
        if _has_contact(body, value):
            what = "contact details in a receipt"
            self._broken(Rule.CONTACT_FOR_BUYERS_ALONE, what, record, lead_id)
        elif not _is_of_intake(body, happened):
            what = "a receipt without an entry that says more than accepted or declined"
            self._broken(Rule.NOTHING_TOLD_WITHOUT_THE_LOG, what, record, lead_id)
        elif not _has_headers_of_intake(record, body, happened[0]["type"], value):
            what = "headers that are not those of a receipt"
            self._broken(Rule.TOLD_WHAT_IS_LOGGED, what, record, lead_id)
        if any(isinstance(item, dict) and item.get("type") == "accepted" for item in happened):
            state = self.state_of(lead_id)
            listed = state.listed
            if listed is not None and listed.source_id != source_id:
                self._broken(Rule.TOLD_TO_ITS_RECIPIENT, "accepted from another source", record, lead_id)
            note_accepted(state, Accepted.RECEIPT, str(_where_is(record)), record.timestamp_ms)

    def state_of(self, lead_id: str) -> LeadState:
        """Find a lead's state, or begin it."""
        return self._states.of(lead_id) or self._states.begin(lead_id, LeadState())

    def _match(
        self,
        record: Record,
        lead_id: str,
        seq: int,
        n: int,
        kind: str,
        recipient: str,
        body: dict[str, Any],
        value: bytes,
    ) -> None:
        state = self.state_of(lead_id)
        digest = digest_of(value)
        seen = state.seen.get(seq << N_BITS | n)
        happened = state.happened.get(seq)
        if (
            seen is not None
            and happened is not None
            and self._is_repeat(state, happened, n, kind, recipient, seen, digest)
        ):
            return
        contact = _contact(lead_id, body) if kind == LEAD else None
        at = (record.topic, record.partition, record.offset)
        told = Told(seq, n, kind, recipient, body, digest, at, record.timestamp_ms, contact)
        if happened is None:
            state.waiting = [*(state.waiting or ()), told]
        else:
            self._compare(lead_id, state, told)

    @staticmethod
    def _is_repeat(
        state: LeadState, happened: Happened, n: int, kind: str, recipient: str, seen: bytes, digest: bytes
    ) -> bool:
        """Tell whether a record is one that was found right before, byte for byte and on the same topic."""
        letters = letters_of(state, happened)
        return seen == digest and n < len(letters) and letters[n][:2] == (kind, recipient)

    def _compare(self, lead_id: str, state: LeadState, told: Told) -> None:
        happened = state.happened.get(told.seq)
        if happened is None:
            self._without_the_log(lead_id, told)
            return
        letters = letters_of(state, happened)
        due = letters[told.n] if told.n < len(letters) else None
        if due is None or due[:2] != (told.kind, told.recipient):
            self._told_wrongly(lead_id, happened, told, *_misplaced(letters, told, due))
            return
        key = told.seq << N_BITS | told.n
        seen = state.seen.get(key)
        if seen is None:
            state.seen[key] = told.digest
        elif seen != told.digest:
            what = f"a {told.kind} came again with other bytes"
            self._told_wrongly(lead_id, happened, told, Rule.REPEATED_ALIKE, what)
        untrue = self._untrue(lead_id, state, happened, told, due[2])
        if untrue is not None:
            self._told_wrongly(lead_id, happened, told, Rule.TOLD_WHAT_IS_LOGGED, untrue)

    def _told_wrongly(self, lead_id: str, happened: Happened, told: Told, rule: Rule, what: str) -> None:
        place = self._findings.entry(self._partition_of(lead_id), told.seq, happened.offset)
        self._findings.broken(rule, what, _where(*told.at), place, lead_id=lead_id)

    def _untrue(
        self, lead_id: str, state: LeadState, happened: Happened, told: Told, about: Any
    ) -> str | None:
        """Say what a record says otherwise than the log."""
        if told.kind == PING:
            return None if digest_of_body(told.body) == about else "a ping says other than the log"
        # It is the lead's, or the record would not have been read so far.
        partition = told.body["log"]["partition"]
        true = record_body(lead_id, partition, told.seq, state, happened, told.kind, about)
        if told.body != true:
            return f"a {told.kind} says otherwise: {', '.join(_different(told.body, true))}"
        if told.kind != LEAD:
            return None
        if told.contact is None:
            return "a delivery without contact details"
        return self._untrue_contact(state, *told.contact)

    def _untrue_contact(self, state: LeadState, digest: bytes, names: tuple[str, ...]) -> str | None:
        """Say how contact details are not those that the lead's type has, or its other buyers got."""
        assert state.listed is not None
        lead_type = self._markets.lead_type(state.listed.market_version, state.listed.lead_type)
        if lead_type is not None and not is_contact(names, lead_type.contact):
            return "a delivery without the contact details of its type"
        if state.contact is None:
            state.contact = digest
        elif state.contact != digest:
            return "a delivery with other contact details than the lead's others"
        return None

    def _without_the_log(self, lead_id: str, told: Told) -> None:
        what = f"a {told.kind} of an entry that tells {told.recipient} nothing"
        self._findings.broken(Rule.NOTHING_TOLD_WITHOUT_THE_LOG, what, _where(*told.at), lead_id=lead_id)

    def without_entry(self, lead_id: str, state: LeadState, before_ms: int | None) -> None:
        """Report what waits for an entry that never came; with `before_ms`, only what was written before."""
        for told in state.waiting or ():
            if before_ms is None or told.timestamp_ms < before_ms:
                self._without_the_log(lead_id, told)

    def _broken(self, rule: Rule, what: str, record: Record, lead_id: str | None = None) -> None:
        self._findings.broken(rule, what, _where_is(record), lead_id=lead_id)


def note_accepted(state: LeadState, by: int, at: str, at_ms: int) -> None:
    """Take note of a record that says that a lead was accepted."""
    if not state.accepted:
        state.accepted_at, state.accepted_at_ms = at, at_ms
    state.accepted |= by


def _place(record: Record, body: dict[str, Any]) -> tuple[int, int, int] | None:
    """Read partition, seq and n, which the record's `ce_id` and its body must agree on."""
    log = body.get("log")
    parts = _ce_id(record).split(b":")
    if not isinstance(log, dict) or len(parts) != 3 or not all(map(bytes.isdigit, parts)):
        return None
    partition, seq, n = map(int, parts)
    return (
        (partition, seq, n)
        if (log.get("partition"), log.get("seq")) == (partition, seq) and n <= _N_MAX
        else None
    )


def _ce_id(record: Record) -> bytes:
    """It stands first, but for what carries records."""
    headers = record.headers
    if headers and headers[0][0] == "ce_id":
        return headers[0][1]
    return next((value for name, value in headers if name == "ce_id"), b"")


def _contact(lead_id: str, body: dict[str, Any]) -> tuple[bytes, tuple[str, ...]] | None:
    """Take out of a delivery what the vault holds, and keep of its contact details what betrays nobody."""
    contact = contact_in(body)
    body.pop("lead", None)
    return None if contact is None else (digest_of_contact(lead_id, contact), tuple(contact))


def _kind(topic_kind: str, body: dict[str, Any]) -> str | None:
    if topic_kind == "leads":
        return _KINDS.get(str(body.get("type")))
    if topic_kind == "receipts":
        return RECEIPT if body.get("type") == "receipt" else None
    return PING


def _has_contact(body: dict[str, Any], value: bytes) -> bool:
    """Tell whether a record that is no delivery has what only one has; a field of a ping may be called so too."""
    return "lead" in body or (_CONTACT in value and _is_contact_in(body))


def _is_contact_in(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_contact_in, value))
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("contact"), dict) or any(map(_is_contact_in, value.values()))


def _is_of_intake(body: dict[str, Any], happened: list[Any]) -> bool:
    """Tell whether a receipt says no more than intake does: one word for a submission, and why it was declined."""
    if len(happened) != 1 or not isinstance(happened[0], dict):
        return False
    said: dict[str, Any] = happened[0]
    declared = _SAID_BY_INTAKE.get(str(said.get("type")))
    texts = [text for name, text in body.items() if name != "happened"]
    return (
        declared is not None
        and said.keys() <= declared
        and body.keys() <= _RECEIPT_OF_INTAKE
        and all(isinstance(text, str) for text in (*texts, *said.values()))
    )


def _has_headers_of_intake(record: Record, body: dict[str, Any], said: str, value: bytes) -> bool:
    is_named = _ce_id(record).endswith(f":{said}".encode())
    at = str(body.get("at"))
    return is_named and are_headers(record.headers, value, source=INTAKE, type=RECEIPT, at=at)


def _misplaced(
    letters: Sequence[tuple[str, str, Any]], told: Told, due: tuple[str, str, Any] | None
) -> tuple[Rule, str]:
    """Say what is wrong with a record that is not the one of its number among those of its entry."""
    is_anothers = due is not None and due[0] == told.kind
    if not is_anothers and any(letter[:2] == (told.kind, told.recipient) for letter in letters):
        return Rule.TOLD_WHAT_IS_LOGGED, "a number among its entry's records that is another's"
    if any(letter[0] == told.kind for letter in letters):
        return Rule.TOLD_TO_ITS_RECIPIENT, f"a {told.kind} on the topic of {told.recipient}, whose it is not"
    return Rule.NOTHING_TOLD_WITHOUT_THE_LOG, f"a {told.kind} that does not follow from its entry"


def _different(said: dict[str, Any], true: dict[str, Any]) -> list[str]:
    """Name the keys in which two bodies differ; those of terms by their own names."""
    names = []
    for name in sorted(said.keys() | true.keys()):
        one, two = said.get(name), true.get(name)
        if one != two or (name in said) != (name in true):
            is_nested = name == "terms" and isinstance(one, dict) and isinstance(two, dict)
            names += _different(one, two) if is_nested else [name]  # type: ignore[arg-type]  # both are, then
    return names


def _where(topic: str, partition: int, offset: int) -> Where:
    return Where(topic, f"{partition} (offset {offset})")


def _where_is(record: Record) -> Where:
    return _where(record.topic, record.partition, record.offset)
