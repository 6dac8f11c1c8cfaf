"""How contact details look: patterns of addresses and numbers, the details of some real leads, and given texts.

Pure. What was found is never said or kept, only whether something was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

from services.contract.codec import NotReadable, codec
from services.contract.entries import Entry

PERSONS_MAX: Final = 2_000
"""So many leads' details are looked for in what is said about them."""

# Both begin with a literal, which the engine finds at the speed of memory; what stands before it is looked at after.
_ADDRESS: Final = re.compile(rb"@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}(?![A-Za-z0-9])")
_NUMBER: Final = re.compile(rb"\+[1-9][0-9]{7,14}(?![0-9])")
_BEFORE_AT: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'")
_DAY: Final = re.compile(rb"(?:[^0-9A-Za-z\x80-\xff]*[0-9]){8}")
_MAGIC: Final = b"\x00"

_DETAIL_MIN: Final = 8
_NAME_MIN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What a lead's contact details are: `details` betray it each alone, `names` (two at least) all together."""

    details: tuple[bytes, ...]
    names: tuple[bytes, ...]

    def is_in(self, text: bytes) -> bool:
        """Tell whether a text betrays this person."""
        if any(detail in text for detail in self.details):
            return True
        return len(self.names) > 1 and all(name in text for name in self.names)


def person_of(contact: Mapping[str, Any]) -> Person:
    """Make of contact details what is looked for; words too short or too plain to tell anybody are left out."""
    details: list[bytes] = []
    names: list[bytes] = []
    for name, value in contact.items():
        text = str(value)
        if "@" in text or any(letter.isdigit() for letter in text):
            details.append(text.encode())
            digits = "".join(letter for letter in text if letter.isdigit())
            if text.startswith("+"):
                details.append(digits.encode())
        elif "name" in name and len(text) >= _NAME_MIN:
            names.append(text.encode())
    return Person(details=tuple(each for each in details if len(each) >= _DETAIL_MIN), names=tuple(names))


@dataclass(slots=True, kw_only=True)
class Traces:
    """All that is looked for. `canaries`: texts that stand nowhere but in contact details."""

    canaries: tuple[bytes, ...] = ()
    persons: dict[str, Person] = field(default_factory=dict)

    def know(self, lead_id: str, contact: Mapping[str, Any]) -> None:
        """Look for this lead's details from now on, in place of those of the lead known longest."""
        self.persons.pop(lead_id, None)
        self.persons[lead_id] = person_of(contact)
        if len(self.persons) > PERSONS_MAX:
            del self.persons[next(iter(self.persons))]

    def are_in(self, text: bytes, lead_id: str | None = None) -> bool:
        """Tell whether a text, said about this lead, holds contact details."""
        if has_pattern(text) or any(canary in text for canary in self.canaries):
            return True
        person = None if lead_id is None else self.persons.get(lead_id)
        return person is not None and person.is_in(text)

    def are_in_record(self, value: bytes, lead_id: str | None = None) -> bool:
        """Tell the same of a record's value; bytes of an Avro record that only look so by chance don't count."""
        return self.are_in(value, lead_id) and any(self.are_in(text, lead_id) for text in texts_of(value))

    def of_anybody(self) -> Callable[[bytes], bool]:
        """Make what tells whether a text holds a detail of any lead known now, be the text about whomever.

        It takes a text's time and not the leads': only where a detail's first bytes stand is the rest looked at. What
        has an address's or a number's pattern is left out, as that is seen without being known, and days, as rows
        name theirs. A number ends where its digits do, or the digits of a time would hold some.
        """
        by_beginning: dict[bytes, set[bytes]] = {}
        for detail in {each for person in self.persons.values() for each in person.details}:
            if not has_pattern(detail) and not _may_be_a_day(detail):
                by_beginning.setdefault(detail[:_DETAIL_MIN], set()).add(detail)
        if not by_beginning:
            return lambda _: False
        firsts = b"".join(re.escape(bytes((first,))) for first in {each[0] for each in by_beginning})
        beginnings = re.compile(rb"(?<![0-9])(?=([%b].{%d}))" % (firsts, _DETAIL_MIN - 1), re.DOTALL)

        def holds(text: bytes) -> bool:
            return any(
                text.startswith(detail, at.start()) and not _goes_on(text, at.start() + len(detail))
                for at in beginnings.finditer(text)
                for detail in by_beginning.get(at[1], ())
            )

        return holds


def _may_be_a_day(detail: bytes) -> bool:
    return _DAY.fullmatch(detail) is not None


def _goes_on(text: bytes, end: int) -> bool:
    """Tell whether a digit follows on another."""
    return text[end - 1 : end].isdigit() and text[end : end + 1].isdigit()


def has_pattern(text: bytes) -> bool:
    """Tell whether an e-mail address or a telephone number (E.164) stands in a text."""
    if b"@" in text and any(
        found.start() and text[found.start() - 1] in _BEFORE_AT for found in _ADDRESS.finditer(text)
    ):
        return True
    return b"+" in text and _NUMBER.search(text) is not None


def texts_of(value: bytes) -> Iterable[bytes]:
    """Give the texts of a record in Avro, all in one; of another, and of one that can't be read, its bytes."""
    if value[:1] != _MAGIC:
        return (value,)
    try:
        record = codec().decode(value)
        events = codec().events_of(record) if isinstance(record, Entry) else ()
    except NotReadable:
        return (value,)
    return ("\n".join(_texts_in((record, events))).encode(),)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name)
            yield from _texts_in(each)
    elif isinstance(value, tuple | list | set | frozenset):
        for each in value:
            yield from _texts_in(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _texts_in(getattr(value, each.name))
