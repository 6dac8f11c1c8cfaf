"""Every event and input is told to people: `docs/events.md` has a line for each, checked against its docstring."""

from __future__ import annotations

import inspect
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.codec import codec
from tests.support.records import (
    DELIVERED_TYPES,
    EVENT_TYPES,
    INPUT_TYPES,
    RECORD_TYPES,
    any_record,
    records,
)

DOCS = Path(__file__).parents[2] / "docs" / "events.md"
MONEY = re.compile(r"price|amount|fee|cost")

by_type = pytest.mark.parametrize("record_type", RECORD_TYPES, ids=lambda kind: kind.__name__)


def line_of(record_type: type) -> str:
    """Write the line of a type: its name and example, its schema's ids, its docstring's first paragraph."""
    name = record_type.__name__
    first = " ".join((inspect.getdoc(record_type) or "").split("\n\n")[0].split())
    ids = ", ".join(str(schema_id) for schema_id in sorted(codec().ids_of(record_type)))
    return f"| [`{name}`](../schemas/examples/{name}.json) | {ids} | {first} |"


@pytest.mark.parametrize("record_type", [*EVENT_TYPES, *INPUT_TYPES], ids=lambda kind: kind.__name__)
def test_docs_tell_of_every_event_and_input_what_its_docstring_says(record_type: type) -> None:
    assert line_of(record_type) in DOCS.read_text().splitlines(), (
        f"docs/events.md needs: {line_of(record_type)}"
    )


def test_docs_tell_of_nothing_else() -> None:
    told = re.findall(r"^\| \[`(\w+)`\]", DOCS.read_text(), re.MULTILINE)
    assert sorted(told) == sorted(kind.__name__ for kind in (*EVENT_TYPES, *INPUT_TYPES))


@by_type
def test_records_are_frozen_slotted_and_made_by_keyword(record_type: type) -> None:
    assert is_dataclass(record_type)
    assert record_type.__slots__ == tuple(item.name for item in fields(record_type))  # type: ignore[attr-defined]
    assert all(item.kw_only for item in fields(record_type))
    with pytest.raises(TypeError):
        record_type(*(None for _ in fields(record_type)))


@given(record=any_record())
def test_records_do_not_change(record: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(record)[0].name, None)


@by_type
def test_events_hold_amounts_and_times_as_integers_with_their_unit_in_the_name(record_type: type) -> None:
    for name, hint in get_type_hints(record_type).items():
        assert "float" not in str(hint), name
        if MONEY.search(name):
            assert name.endswith("_cents"), name
        if name.endswith(("_at", "_until", "_since", "_from", "_by", "_for")):
            raise AssertionError(f"{name} does not say its unit")


def has_place_for_contact_details(record_type: type) -> bool:
    """Look at the names of a record's fields, all the way down."""
    for name, hint in get_type_hints(record_type).items():
        if re.search(r"phone|email|first_name|last_name|street|contact", name):
            return True
        if is_dataclass(hint) and has_place_for_contact_details(hint):  # type: ignore[arg-type]  # it is a class
            return True
    return False


def test_delivered_lead_alone_has_a_field_for_contact_details() -> None:
    """Whatever travels inside the house has none; this one goes to its buyer's topic, and nowhere else."""
    assert [kind for kind in RECORD_TYPES if has_place_for_contact_details(kind)] == [DELIVERED_TYPES[0]]


@by_type
def test_round_trip(record_type: type) -> None:
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        record = data.draw(records(record_type))
        value = codec().encode(record)
        assert codec().decode(value) == record
        assert codec().encode(codec().decode(value)) == value

    check()


@pytest.mark.parametrize("change", ["docstring", "id"])
def test_line_that_says_something_else_than_the_code_is_found(change: str) -> None:
    line = line_of(EVENT_TYPES[0])
    planted = (
        line.replace(" by none", " for free") if change == "docstring" else line.replace("| 10, ", "| 11, ")
    )
    assert planted != line
    assert planted not in DOCS.read_text().splitlines()
