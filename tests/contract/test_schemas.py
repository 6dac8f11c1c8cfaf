"""What is stored under `schemas/`: one source with the code's types, ids for good, evolution both ways, examples.

`schemas/README.md` says how a schema is changed; each of its rules is a test here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import MISSING, fields
from io import BytesIO
from itertools import permutations
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError

from services.contract.codec import SCHEMAS, Codec, Schema, codec, stored_schemas
from services.contract.events import LeadClosed
from tests.support.records import RECORD_TYPES, as_json, newest_version, of_json, raw_schema
from tests.support.schema_checksums import checksum_lines, stored_lines

REGISTRY: list[dict[str, Any]] = yaml.safe_load((SCHEMAS / "registry.yaml").read_text())["schemas"]
LONG_NAMES = re.compile(r"(_ms|_cents|^seq|^offset|version|^amount|^granted)$")
PERSONAL = re.compile(r"@|\+?\d[\d ()-]{7,}\d\b|name|phone|email|street", re.IGNORECASE)

by_type = pytest.mark.parametrize("record_type", RECORD_TYPES, ids=lambda kind: kind.__name__)


# The registry.


def test_every_type_of_the_contract_has_a_schema_and_every_schema_a_type() -> None:
    assert {row["type"] for row in REGISTRY} == {kind.__name__ for kind in RECORD_TYPES}


def test_ids_are_unique_and_fit_the_frame() -> None:
    ids = Counter(row["id"] for row in REGISTRY)
    assert max(ids.values()) == 1
    assert all(0 < schema_id < 2**31 for schema_id in ids)


def test_versions_of_a_type_are_counted_from_1_without_gaps() -> None:
    for name in {row["type"] for row in REGISTRY}:
        versions = sorted(row["version"] for row in REGISTRY if row["type"] == name)
        assert versions == list(range(1, len(versions) + 1))


def test_registry_and_folder_name_the_same_schemas() -> None:
    named = {f"{row['type']}.v{row['version']}.avsc" for row in REGISTRY}
    assert named == {path.name for path in (SCHEMAS / "avro").iterdir()}


def test_no_stored_schema_was_edited_and_no_id_was_reused_or_dropped() -> None:
    stored = stored_lines()
    assert stored == checksum_lines(), (
        "see schemas/README.md: `python -m tests.support.schema_checksums` adds a new one"
    )


# One source with the dataclasses.


@by_type
def test_schema_has_the_fields_of_its_type_in_their_order(record_type: type) -> None:
    schema = raw_schema(record_type.__name__, newest_version(record_type.__name__))
    assert schema["name"] == record_type.__name__
    assert schema["namespace"] == "gavel"
    assert schema["doc"]
    _assert_same(schema, record_type, record_type.__name__)


def _assert_same(schema: Any, hint: Any, where: str) -> None:
    """Hold a schema against a Python type, all the way down."""
    if isinstance(schema, list):
        assert schema[0] == "null", where
        assert NoneType in get_args(hint), where
        _assert_same(schema[1], next(part for part in get_args(hint) if part is not NoneType), where)
        return
    kind = schema if isinstance(schema, str) else schema["type"]
    match kind:
        case "record":
            hints = get_type_hints(hint)
            assert [part["name"] for part in schema["fields"]] == [item.name for item in fields(hint)], where
            for part in schema["fields"]:
                _assert_same(part["type"], hints[part["name"]], f"{where}.{part['name']}")
                assert part.get("default", "none") == _default(part, hint), f"{where}.{part['name']}"
        case "array":
            assert get_origin(hint) is tuple, where
            _assert_same(schema["items"], get_args(hint)[0], where)
        case "map":
            assert get_args(hint) == (str, str), where
            assert schema["values"] == "string", where
        case "string":
            assert isinstance(hint, type), where
            assert issubclass(hint, str), where
        case "int" | "long":
            assert hint is int, where
            assert (kind == "long") == bool(LONG_NAMES.search(where.rpartition(".")[2])), where
        case _:
            assert hint is {"boolean": bool, "bytes": bytes, "fixed": bytes}[kind], where


def _default(part: Any, hint: Any) -> Any:
    """Say what stands for a field that an older version lacks: null where it may be, else the dataclass's own."""
    if isinstance(part["type"], list):
        return None
    own = next(item.default for item in fields(hint) if item.name == part["name"])
    return "none" if own is MISSING else list(own) if isinstance(own, tuple) else own


def test_comparison_notices_a_planted_difference() -> None:
    """The test above is one: each of these differences is found."""
    schema = raw_schema("LeadClosed", 1)
    swapped, renamed, missing, retyped, narrowed = (deepcopy(schema) for _ in range(5))
    swapped["fields"][1], swapped["fields"][2] = swapped["fields"][2], swapped["fields"][1]
    renamed["fields"][1]["name"] = "origin"
    del missing["fields"][5]
    retyped["fields"][5]["type"] = "int"
    narrowed["fields"][3]["type"] = "string"
    for changed in (swapped, renamed, missing, retyped, narrowed):
        with pytest.raises(AssertionError):
            _assert_same(changed, LeadClosed, "LeadClosed")


# Evolution: what any version wrote, any other reads.


def complaints(writer: Any, reader: Any) -> list[str]:
    """Write records of one schema that show every branch and length that it has; read them with another."""
    written, read = parse_schema(deepcopy(writer)), parse_schema(deepcopy(reader))
    found = []
    for row in covering(writer):
        stream = BytesIO()
        schemaless_writer(stream, written, row)
        stream.seek(0)
        try:
            schemaless_reader(stream, written, read)
        except (SchemaResolutionError, ValueError, TypeError, KeyError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def covering(schema: Any) -> Iterator[Any]:
    """Give values of a schema in which each variant of each part occurs."""
    named: dict[str, Any] = {}

    def variants(part: Any) -> list[Any]:
        if isinstance(part, list):
            return [value for branch in part for value in variants(branch)]
        if isinstance(part, str):
            return _SAMPLES[part] if part in _SAMPLES else variants(named[part])
        if "name" in part:
            named[part["name"]] = part
        match part["type"]:
            case "record":
                columns = {item["name"]: variants(item["type"]) for item in part["fields"]}
                rows = max((len(column) for column in columns.values()), default=1)
                return [
                    {name: column[at % len(column)] for name, column in columns.items()} for at in range(rows)
                ]
            case "array":
                return [[], variants(part["items"])]
            case "map":
                return [{}, {"key": variants(part["values"])[0]}]
            case "fixed":
                return [bytes(part["size"])]
            case kind:
                return variants(kind)

    yield from variants(schema)


_SAMPLES: dict[str, list[Any]] = {
    "null": [None],
    "boolean": [True, False],
    "int": [0, -(2**31)],
    "long": [2**31, -(2**63)],
    "string": ["", "text"],
    "bytes": [b"", b"bytes"],
}


def evolution(schemas: Sequence[Any]) -> list[str]:
    """Tell what breaks between any two versions of a type, in either direction."""
    return [found for writer, reader in permutations(schemas, 2) for found in complaints(writer, reader)]


@by_type
def test_every_version_reads_what_every_version_wrote(record_type: type) -> None:
    name = record_type.__name__
    versions = [raw_schema(name, version) for version in range(1, newest_version(name) + 1)]
    assert complaints(versions[-1], versions[-1]) == []
    assert evolution(versions) == []


def _changed(change: str) -> Any:
    """Plant a second version of LeadClosed."""
    schema = raw_schema("LeadClosed", 1)
    parts = schema["fields"]
    plan = parts[3]
    match change:
        case "field without a default":
            parts.append({"name": "closed_by", "type": "string"})
        case "field dropped":
            parts.pop()
        case "field renamed":
            parts[1]["name"] = "origin"
        case "type changed":
            parts[1]["type"] = "long"
        case "null no longer allowed":
            plan["type"] = "string"
            del plan["default"]
        case "null newly allowed":
            parts[1] |= {"type": ["null", "string"], "default": None}
        case "int widened":
            parts[5] = {"name": "is_test", "type": "int"}
        case "field with a default":
            parts.append({"name": "closed_by", "type": ["null", "string"], "default": None})
        case "field with a default dropped":
            parts.remove(plan)
        case "doc and order of fields":
            schema["doc"] = "Told otherwise."
            parts.reverse()
    return schema


@pytest.mark.parametrize(
    "change",
    [
        "field without a default",
        "field dropped",
        "field renamed",
        "type changed",
        "null no longer allowed",
        "null newly allowed",
        "int widened",
    ],
)
def test_planted_incompatible_version_is_found(change: str) -> None:
    assert evolution([raw_schema("LeadClosed", 1), _changed(change)])


@pytest.mark.parametrize(
    "change", ["field with a default", "field with a default dropped", "doc and order of fields"]
)
def test_planted_compatible_version_passes(change: str) -> None:
    assert evolution([raw_schema("LeadClosed", 1), _changed(change)]) == []


def test_incompatibility_with_a_version_before_the_last_is_found() -> None:
    """Transitive: 3 is compatible with 2 and not with 1."""
    first = raw_schema("LeadClosed", 1)
    second, third = deepcopy(first), deepcopy(first)
    added = {"name": "closed_by", "type": ["null", "string"], "default": None}
    second["fields"].append(added)
    third["fields"].append(added | {"type": ["null", "long"]})
    assert evolution([first, second]) == []
    assert evolution([first, third]) == []
    assert evolution([first, second, third])


def test_codec_brings_what_older_versions_wrote_to_the_newest() -> None:
    """An older LeadClosed without `is_test` is read by a release whose newest version has it, with its default."""
    newest = raw_schema("LeadClosed", 1)
    newest["fields"][5]["default"] = False
    older = deepcopy(newest)
    del older["fields"][5]
    others = tuple(schema for schema in stored_schemas() if schema.type != "LeadClosed")
    both = (
        Schema(id=21, type="LeadClosed", version=1, parsed=parse_schema(older)),
        Schema(id=121, type="LeadClosed", version=2, parsed=parse_schema(newest)),
    )
    evolved = Codec((*others, *both))
    closed = of_json(LeadClosed, _example("LeadClosed"))
    value = evolved.encode(closed)
    assert value[:5] == b"\x00\x00\x00\x00\x79"
    assert evolved.decode(value) == closed
    written_before = b"\x00\x00\x00\x00\x15" + value[5:-1]
    assert evolved.decode(written_before) == closed
    assert evolved.ids_of(LeadClosed) == {21, 121}


# Examples.


def _example(name: str) -> Any:
    return json.loads((SCHEMAS / "examples" / f"{name}.json").read_text())


def test_every_type_has_an_example_and_every_example_a_type() -> None:
    names = {path.stem for path in (SCHEMAS / "examples").iterdir()}
    assert names == {kind.__name__ for kind in RECORD_TYPES}


@by_type
def test_example_is_encoded_and_decoded_to_itself(record_type: type) -> None:
    example = _example(record_type.__name__)
    record = of_json(record_type, example)
    assert codec().decode(codec().encode(record)) == record
    assert as_json(record) == example


def test_events_in_the_example_of_an_entry_can_be_read() -> None:
    [entry_type] = (kind for kind in RECORD_TYPES if kind.__name__ == "Entry")
    entry = of_json(entry_type, _example("Entry"))
    assert [type(event).__name__ for event in codec().events_of(entry)] == [
        "WindowClosed",
        "StageStarted",
        "LeadSold",
    ]


@by_type
def test_example_holds_no_personal_data(record_type: type) -> None:
    assert not [text for text in _texts(_example(record_type.__name__)) if PERSONAL.search(text)]


@pytest.mark.parametrize("text", ["ada@example.com", "+1 602 555 0100", "first_name", "Email"])
def test_planted_personal_data_is_found(text: str) -> None:
    assert PERSONAL.search(text)


def _texts(value: Any) -> Iterator[str]:
    """Give every text in an example that is not an id, a hash, or the name of a counter, which ends in a time."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            if key not in {"lead_id", "sale_id", "prev_hash", "body", "counter"}:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
