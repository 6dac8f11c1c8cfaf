"""Records inside Gavel as bytes: Avro in the Confluent frame, by the fixed ids of `schemas/registry.yaml`.

The schemas are files; the dataclasses are checked against them by `tests/contract`. An id that is not in the registry
or bytes that do not fit their schema are a `NotReadable`, which on our own topics stops the worker.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import yaml
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from services.contract import announcements, deliveries, entries, events, inputs
from services.contract.avro import compile_decoder, compile_encoder

SCHEMAS = Path(__file__).parents[2] / "schemas"
_FRAME = struct.Struct(">BI")
_FRAME_SIZE = _FRAME.size
_TYPES: Mapping[str, type] = MappingProxyType(
    {
        record_type.__name__: record_type
        for record_type in (
            *get_args(events.Event),
            inputs.QualifiedLead,
            *get_args(inputs.Command),
            inputs.TimerDue,
            entries.Entry,
            announcements.MarketApplied,
            *get_args(deliveries.Delivered),
        )
    }
)


class NotReadable(Exception):
    """Bytes that are no record of ours."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One stored version of one record type."""

    id: int
    type: str
    version: int
    parsed: Any


class Codec:
    """Encodes and decodes every record type of the contract, each with its newest schema."""

    def __init__(self, schemas: tuple[Schema, ...]) -> None:
        """Take all stored versions; the highest of each type is written."""
        self._by_id = {schema.id: schema for schema in schemas}
        self._newest: dict[str, Schema] = {}
        for schema in sorted(schemas, key=lambda schema: schema.version):
            self._newest[schema.type] = schema
        self._id_by_frame = {_FRAME.pack(0, schema.id): schema.id for schema in schemas}
        self._writers: dict[type, tuple[int, bytes, Callable[[Any], bytes]]] = {}
        self._readers: dict[int, Callable[[bytes, int], Any]] = {}
        for name, schema in self._newest.items():
            encode = compile_encoder(schema.parsed, _TYPES[name])
            self._writers[_TYPES[name]] = (schema.id, _FRAME.pack(0, schema.id), encode)
        for schema in schemas:
            self._readers[schema.id] = _reader(schema, self._newest[schema.type], _TYPES[schema.type])

    def encode_body(self, record: Any) -> entries.EventBody:
        """Encode without a frame, as events stand in an entry."""
        schema_id, _, encode = self._writers[type(record)]
        return entries.EventBody(schema_id=schema_id, body=encode(record))

    def encode(self, record: Any) -> bytes:
        """Encode in the Confluent frame: a zero byte, the schema id in 4 bytes, the Avro body."""
        _, frame, encode = self._writers[type(record)]
        return frame + encode(record)

    def decode_body(self, event: entries.EventBody) -> Any:
        """Decode an event of an entry; raise `NotReadable`."""
        return self._decode(event.schema_id, event.body, 0)

    def decode(self, value: bytes | None) -> Any:
        """Decode a framed record; raise `NotReadable`."""
        schema_id = self._id_by_frame.get(value[:_FRAME_SIZE]) if value is not None else None
        if value is None or schema_id is None:
            raise NotReadable(_complaint(value))
        return self._decode(schema_id, value, _FRAME_SIZE)

    def decode_entry(self, value: bytes | None) -> entries.Entry:
        """Decode a record of `leads.log`; raise `NotReadable`, also for a record of another type."""
        entry = self.decode(value)
        if not isinstance(entry, entries.Entry):
            raise NotReadable(f"{type(entry).__name__} where an Entry belongs")
        return entry

    def events_of(self, entry: entries.Entry) -> tuple[events.Event, ...]:
        """Decode all events of an entry, in order."""
        return tuple(self._decode(event.schema_id, event.body, 0) for event in entry.events)

    def ids_of(self, record_type: type) -> frozenset[int]:
        """Give the schema ids of all versions of a type, to tell events apart without decoding them."""
        return frozenset(schema.id for schema in self._by_id.values() if schema.type == record_type.__name__)

    def _decode(self, schema_id: int, data: bytes, start: int) -> Any:
        reader = self._readers.get(schema_id)
        if reader is None:
            raise NotReadable(_unknown(schema_id))
        try:
            return reader(data, start)
        except (EOFError, ValueError, TypeError, LookupError, StopIteration, struct.error) as error:
            raise NotReadable(f"bytes that are no {self._by_id[schema_id].type}: {error}") from error


def framed(event: entries.EventBody) -> bytes:
    """Put an event's body into a Confluent frame of its own, without decoding it."""
    return _frame(event.schema_id) + event.body


@lru_cache(maxsize=256)
def _frame(schema_id: int) -> bytes:
    return _FRAME.pack(0, schema_id)


@lru_cache(maxsize=1)
def codec() -> Codec:
    """Load the codec of all stored schemas, once a process."""
    return Codec(stored_schemas())


@lru_cache(maxsize=1)
def stored_schemas() -> tuple[Schema, ...]:
    """Read `schemas/registry.yaml` and each schema that it names."""
    registry = yaml.safe_load((SCHEMAS / "registry.yaml").read_text())
    return tuple(
        Schema(
            id=row["id"],
            type=row["type"],
            version=row["version"],
            parsed=parse_schema(
                json.loads((SCHEMAS / "avro" / f"{row['type']}.v{row['version']}.avsc").read_text())
            ),
        )
        for row in registry["schemas"]
    )


def _complaint(value: bytes | None) -> str:
    if value is None or len(value) < _FRAME_SIZE:
        return "a record without a Confluent frame"
    magic, schema_id = _FRAME.unpack_from(value)
    return f"a record whose frame begins with {magic}, not 0" if magic else _unknown(schema_id)


def _unknown(schema_id: int) -> str:
    return f"schema id {schema_id} is not in schemas/registry.yaml"


def _reader(written: Schema, newest: Schema, record_type: type) -> Callable[[bytes, int], Any]:
    """Decode the newest version directly; bring an older one to it as Avro's rules of resolution say."""
    decode = compile_decoder(newest.parsed, record_type)
    if written is newest:
        return decode

    def resolve(data: bytes, start: int) -> Any:
        stream, resolved = BytesIO(data), BytesIO()
        stream.seek(start)
        row: Any = schemaless_reader(stream, written.parsed, newest.parsed)
        if stream.tell() != len(data):
            raise ValueError("not as long as it says")
        schemaless_writer(resolved, newest.parsed, row)
        return decode(resolved.getvalue(), 0)

    return resolve
