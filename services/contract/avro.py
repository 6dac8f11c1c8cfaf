"""Avro encoders and decoders of our record types, each compiled from its schema once a process.

The bytes are those that fastavro writes and reads (tests compare them) in a fraction of its time: a schema becomes the
source of one Python function, in which nothing is left to look up. Only what the schemas of this contract use is known
here (no floats, no union but with null, no recursion); anything else is a `NotImplementedError` when compiling.
Nothing here knows frames, schema ids or versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

from services.contract.avro_source import ENDS, MORE, ReadingSource, Source
from services.contract.records import thawed_twin

REMEMBERED_MAX: Final = 8_192
"""So many encodings of each kind are remembered; then all are forgotten."""

REMEMBERED_SIZE_MAX: Final = 32
"""Longer encodings are not remembered: they seldom come again, as with ids (36 characters)."""

_BITS: Final = {"int": 32, "long": 64}
_END: Final = b"\x00"


def compile_encoder(schema: Any, record_type: type) -> Callable[[Any], bytes]:
    """Make the function that encodes a `record_type` by `schema`, as JSON or as fastavro parsed it.

    It raises ValueError, TypeError, KeyError or AttributeError for a value that the schema has no place for.
    """
    encoder = _Encoder()
    pieces = ", ".join(encoder.pieces(schema, "record"))
    source = f"def encode(record):\n    return join(({pieces},))"
    encode: Callable[[Any], bytes] = encoder.compiled(source, f"Avro of {record_type.__name__}")["encode"]
    return encode


def compile_decoder(schema: Any, record_type: type) -> Callable[[bytes, int], Any]:
    """Make the function that decodes a `record_type` from the bytes that begin at an index and end where `data` does.

    It raises ValueError (also as UnicodeDecodeError), KeyError or IndexError for anything but exactly one such record.
    """
    decoder = _Decoder()
    record = decoder.read(schema, record_type)
    lines = [
        *decoder.lines,
        ENDS,
        f"return {record}",
    ]
    source = "def decode(data, at):\n    " + "\n    ".join(lines)
    decode: Callable[[bytes, int], Any] = decoder.compiled(source, f"Avro of {record_type.__name__}")[
        "decode"
    ]
    return decode


def varint(number: int, bits: int = 64) -> bytes:
    """Encode an integer as Avro does, zigzag and in groups of 7 bits; raise ValueError if `bits` do not hold it."""
    rest = number << 1 if number >= 0 else ~(number << 1)
    if rest >> bits:
        raise ValueError(f"a number of more than {bits} bits")
    encoded = bytearray()
    while rest >= MORE:
        encoded.append(rest & 0x7F | MORE)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


class _Encodings(dict[Any, bytes]):
    """The encodings of one kind of value: looked up where remembered, else made."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, value: Any) -> bytes:
        encoded = self._encode(value)
        if len(encoded) <= REMEMBERED_SIZE_MAX:
            if len(self) >= REMEMBERED_MAX:
                self.clear()
            self[value] = encoded
        return encoded


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _ENCODINGS["long"][len(encoded)] + encoded


def _fixed(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes where {size} belong")
    return value


def _block(items: list[bytes]) -> bytes:
    return _ENCODINGS["long"][len(items)] + b"".join(items) + _END


_ENCODINGS: Final[Mapping[str, _Encodings]] = {
    "int": _Encodings(lambda number: varint(number, _BITS["int"])),
    "long": _Encodings(lambda number: varint(number, _BITS["long"])),
    "string": _Encodings(_string),
    "boolean": _Encodings({False: b"\x00", True: b"\x01"}.__getitem__),
}


@dataclass(slots=True)
class _Encoder(Source):
    """Writes the expressions whose bytes, one after the other, encode a value."""

    def __post_init__(self) -> None:
        self.names |= {"join": b"".join, "block": _block, "fixed": _fixed, "long": _ENCODINGS["long"]}

    def pieces(self, schema: Any, value: str) -> list[str]:
        """Write the expressions for the value that the expression `value` yields."""
        schema = self.resolved(schema)
        match schema["type"]:
            case "record":
                each = (self.pieces(part["type"], f"{value}.{part['name']}") for part in schema["fields"])
                return [piece for pieces in each for piece in pieces]
            case "array":
                item = self.fresh()
                return [self._block(value, self.pieces(schema["items"], item), f"{item} in {value}")]
            case "map":
                key, item = self.fresh(), self.fresh()
                pieces = [*self.pieces("string", key), *self.pieces(schema["values"], item)]
                return [self._block(value, pieces, f"{key}, {item} in {value}.items()")]
            case "fixed":
                return [f"fixed({value}, {schema['size']})"]
            case "bytes":
                return [f"long[len({value})]", value]
            case _:
                return [f"{self.named(self._encodings(schema))}[{value}]"]

    def _block(self, value: str, pieces: list[str], each: str) -> str:
        return f"(block([join(({', '.join(pieces)},)) for {each}]) if {value} else {_END!r})"

    def _encodings(self, schema: Any) -> Mapping[Any, bytes]:
        match schema["type"]:
            case "nullable":
                present = self._encodings(self.resolved(schema["of"]))
                return _Encodings(lambda value: b"\x00" if value is None else b"\x02" + present[value])
            case kind if kind in _ENCODINGS:
                return _ENCODINGS[kind]
            case kind:
                raise NotImplementedError(f"no encoder of {kind}")


@dataclass(slots=True)
class _Decoder(ReadingSource):
    """Writes the lines that decode a value, each kind in its own way, into a variable of its own."""

    def __post_init__(self) -> None:
        ReadingSource.__post_init__(self)
        self.names |= {"new": object.__new__}

    def read(self, schema: Any, hint: Any) -> str:
        """Write the lines that decode a value whose Python type is `hint`; name the variable that holds it."""
        schema = self.resolved(schema)
        value = self.fresh()
        match schema["type"]:
            case "record":
                self._record(schema, hint, value)
            case "array":
                self._array(schema["items"], get_args(hint)[0], value)
            case "map":
                self._map(schema["values"], value)
            case "nullable":
                self._nullable(schema["of"], hint, value)
            case "int" | "long":
                self.number(value)
            case "string" if isinstance(hint, type) and issubclass(hint, StrEnum):
                words = self.named({word.value.encode(): word for word in hint})
                size = self.length()
                self.line(f"end = at + {size}; {value} = {words}[data[at:end]]; at = end")
            case "string":
                self.slice(value, self.length(), ".decode()")
            case "bytes":
                self.slice(value, self.length())
            case "fixed":
                self.slice(value, str(schema["size"]))
            case "boolean":
                self.of_byte(value, "booleans")
            case kind:
                raise NotImplementedError(f"no decoder of {kind}")
        return value

    def _record(self, schema: Any, record_type: type, value: str) -> None:
        """Fill a thawed twin and turn it into the frozen record: a tenth of what the constructor takes."""
        hints = get_type_hints(record_type)
        self.line(f"{value} = new({self.named(thawed_twin(record_type))})")
        for part in schema["fields"]:
            held = self.read(part["type"], hints[part["name"]])
            self.line(f"{value}.{part['name']} = {held}")
        self.line(f"{value}.__class__ = {self.named(record_type)}")

    def _nullable(self, schema: Any, hint: Any, value: str) -> None:
        self.of_byte(value, "presence")
        with self.within(f"if {value}:"):
            self.line(f"{value} = {self.read(schema, _present(hint))}")
        self.line(f"else: {value} = None")

    def _array(self, schema: Any, hint: Any, value: str) -> None:
        self.line(f"{value} = []")
        with self.blocks():
            self.line(f"{value}.append({self.read(schema, hint)})")
        self.line(f"{value} = tuple({value})")

    def _map(self, schema: Any, value: str) -> None:
        self.line(f"{value} = {{}}")
        with self.blocks():
            key = self.read("string", str)
            self.line(f"{value}[{key}] = {self.read(schema, str)}")


def _present(hint: Any) -> Any:
    return next(part for part in get_args(hint) if part is not NoneType)
