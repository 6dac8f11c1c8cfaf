"""How contact details are told from what only looks so."""

from __future__ import annotations

import json

import pytest

from services.audit.traces import PERSONS_MAX, Traces, has_pattern, person_of, texts_of
from services.contract.codec import SCHEMAS, codec
from services.contract.entries import Entry
from tests.support.records import of_json


@pytest.mark.parametrize(
    "text",
    [
        b"write to ann@example.com",
        b'{"email":"a.b+c@mail.example.co.uk"}',
        b"\x00\x10ann@example.com\x02",
        b"+12122000017",
        b'"phone":"+4930123456"',
    ],
)
def test_an_address_or_a_number_is_seen_wherever_it_stands(text: bytes) -> None:
    assert has_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        b"gavel@localhost",
        b" @example.com",
        b"2026-11-22T16:00:00+00:00",
        b"1+2",
        b"+0123456789",
        b"+12345678901234567890",
        b"mailto: ann at example.com",
        b"",
    ],
)
def test_what_is_neither_is_not_seen(text: bytes) -> None:
    assert not has_pattern(text)


def test_bytes_that_only_look_so_by_chance_are_not_counted() -> None:
    """The hash of an entry's predecessor is 32 bytes of chance, which once in a million may look like an address."""
    entry = of_json(Entry, json.loads((SCHEMAS / "examples" / "Entry.json").read_text()))
    chance = Entry(**{
        **{name: getattr(entry, name) for name in Entry.__slots__},
        "prev_hash": b"a@example.com".ljust(32, b"\x00"),
    })  # fmt: skip
    value = codec().encode(chance)
    assert has_pattern(value)
    assert not Traces().are_in_record(value)


def test_a_text_of_an_avro_record_is_counted() -> None:
    entry = of_json(Entry, json.loads((SCHEMAS / "examples" / "Entry.json").read_text()))
    leaking = Entry(**{
        **{name: getattr(entry, name) for name in Entry.__slots__},
        "no_room": ("ann@example.com",),
    })  # fmt: skip
    assert Traces().are_in_record(codec().encode(leaking))


def test_a_record_that_cannot_be_read_is_searched_as_it_is() -> None:
    value = b"\x00\xff\xff\xff\xff ann@example.com"
    assert list(texts_of(value)) == [value]
    assert Traces().are_in_record(value)


CONTACT = {
    "first_name": "Maria",
    "last_name": "Lindqvist",
    "phone": "+12122000017",
    "street": "12 Oak Street",
    "zip": "10001",
}


@pytest.mark.parametrize("text", [b"12122000017", b"at 12 Oak Street", b"Lindqvist, Maria"])
def test_a_known_lead_s_details_are_seen_in_what_is_said_about_it(text: bytes) -> None:
    traces = Traces()
    traces.know("lead", CONTACT)
    assert traces.are_in(text, "lead")
    assert not traces.are_in(text, "another lead")


@pytest.mark.parametrize("text", [b"Maria", b"10001", b"Oak Street"])
def test_a_word_that_tells_nobody_is_not_counted(text: bytes) -> None:
    traces = Traces()
    traces.know("lead", CONTACT)
    assert not traces.are_in(text, "lead")


def test_a_canary_is_seen_anywhere() -> None:
    assert Traces(canaries=(b"canary",)).are_in(b"a canary-17 sings")


def test_only_so_many_leads_are_known_the_latest_of_them() -> None:
    traces = Traces()
    for number in range(PERSONS_MAX + 10):
        traces.know(str(number), CONTACT)
    assert len(traces.persons) == PERSONS_MAX
    assert "0" not in traces.persons
    assert str(PERSONS_MAX + 9) in traces.persons


PLAIN = {
    "phone": "+12122000017",
    "street": "12 Oak Street",
    "night": "(212) 200-0017",
    "date": "1980-01-02",
    "email": "ann@example.com",
}


@pytest.mark.parametrize(
    "text",
    [
        b"12122000017",
        b"call 12122000017!",
        b'{"to":"12 Oak Street"}',
        b"\xff12 Oak Street9",
        b"by night (212) 200-0017",
    ],
)
def test_a_detail_of_anybody_is_seen_wherever_it_stands(text: bytes) -> None:
    traces = Traces()
    for number in range(50):
        traces.know(str(number), PLAIN | {"phone": f"+121220000{number}"})
    assert traces.of_anybody()(text)


@pytest.mark.parametrize(
    "text",
    [b"1212200001799", b"9912122000017", b"112 Oak Street", b"1980-01-02", b"12 Oak Lane", b"12 Oak", b""],
)
def test_digits_that_go_on_and_days_are_of_nobody(text: bytes) -> None:
    traces = Traces()
    assert not traces.of_anybody()(text)
    traces.know("lead", PLAIN)
    assert not traces.of_anybody()(text)


def test_names_count_together_only() -> None:
    assert person_of(CONTACT).names == (b"Maria", b"Lindqvist")
    assert not person_of({"first_name": "Maria"}).is_in(b"Maria")
