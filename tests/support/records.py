"""Arbitrary records of every type of the contract, within what their schemas have room for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from functools import lru_cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from hypothesis import strategies as st

from services.contract import announcements, deliveries, entries, events, inputs
from services.contract.codec import SCHEMAS, codec, stored_schemas

EVENT_TYPES: tuple[type, ...] = get_args(events.Event)
INPUT_TYPES: tuple[type, ...] = (inputs.QualifiedLead, *get_args(inputs.Command), inputs.TimerDue)
DELIVERED_TYPES: tuple[type, ...] = get_args(deliveries.Delivered)
RECORD_TYPES: tuple[type, ...] = (
    *EVENT_TYPES,
    *INPUT_TYPES,
    entries.Entry,
    announcements.MarketApplied,
    *DELIVERED_TYPES,
)


def raw_schema(type_name: str, version: int) -> Any:
    """Read a stored schema as it is in its file."""
    return json.loads((SCHEMAS / "avro" / f"{type_name}.v{version}.avsc").read_text())


def newest_version(type_name: str) -> int:
    """Say which version of a type is written."""
    return max(schema.version for schema in stored_schemas() if schema.type == type_name)


@lru_cache
def records(record_type: type) -> st.SearchStrategy[Any]:
    """Draw records of a type."""
    name = record_type.__name__
    if record_type is entries.Entry:
        return _entries()
    return _values(raw_schema(name, newest_version(name)), record_type)


def any_record() -> st.SearchStrategy[Any]:
    """Draw records of any type."""
    return st.sampled_from(RECORD_TYPES).flatmap(records)


def any_event() -> st.SearchStrategy[Any]:
    """Draw events."""
    return st.sampled_from(EVENT_TYPES).flatmap(records)


def _entries() -> st.SearchStrategy[entries.Entry]:
    """Draw entries whose events can be read."""
    schema = raw_schema("Entry", newest_version("Entry"))
    parts = _fields(schema, entries.Entry)
    bodies = st.lists(any_event().map(codec().encode_body), max_size=4).map(tuple)
    return st.builds(entries.Entry, **{**parts, "events": bodies})


def _fields(schema: Any, record_type: type) -> dict[str, st.SearchStrategy[Any]]:
    hints = get_type_hints(record_type)
    return {part["name"]: _values(part["type"], hints[part["name"]]) for part in schema["fields"]}


def _values(schema: Any, hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(schema, list):
        return st.none() | _values(schema[1], _present(hint))
    match schema if isinstance(schema, str) else schema["type"]:
        case "record":
            return st.builds(hint, **_fields(schema, hint))
        case "array":
            return st.lists(_values(schema["items"], get_args(hint)[0]), max_size=4).map(tuple)
        case "map":
            return st.dictionaries(st.text(max_size=20), _values(schema["values"], str), max_size=4)
        case "string" if issubclass(hint, StrEnum):
            return st.sampled_from(list(hint))
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
        case kind:
            return _PRIMITIVES[kind]


_PRIMITIVES: Mapping[str, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=300),
    "string": st.text(max_size=100),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-200, 200),
}


def as_json(record: Any) -> dict[str, Any]:
    """Write a record as an example: bytes as hexadecimal digits, the rest as JSON has it."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(record), default=bytes.hex))
    return plain


def of_json(record_type: type, example: Mapping[str, Any]) -> Any:
    """Read an example."""
    name = record_type.__name__
    return _of_json(raw_schema(name, newest_version(name)), record_type, example)


def _of_json(schema: Any, hint: Any, value: Any) -> Any:
    if isinstance(schema, list):
        return None if value is None else _of_json(schema[1], _present(hint), value)
    match schema if isinstance(schema, str) else schema["type"]:
        case "record":
            hints = get_type_hints(hint)
            parts = {part["name"]: part["type"] for part in schema["fields"]}
            return hint(**{part: _of_json(parts[part], hints[part], value[part]) for part in value})
        case "array":
            return tuple(_of_json(schema["items"], get_args(hint)[0], item) for item in value)
        case "string":
            return hint(value)
        case "fixed" | "bytes":
            return bytes.fromhex(value)
        case _:
            return value


def _present(hint: Any) -> Any:
    return next(part for part in get_args(hint) if part is not NoneType)
