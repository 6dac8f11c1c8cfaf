"""Avro encoders and decoders of our record types, each compiled from its schema once a process.

The bytes are those that fastavro writes and reads (tests compare them) in a fraction of its time: a schema becomes the
source of one Python function, in which nothing is left to look up. Only what the schemas of this contract use is known
here (no floats, no union but with null, no recursion); anything else is a `NotImplementedError` when compiling.
Nothing here knows frames, schema ids or versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

from services.contract.records import thawed_twin

REMEMBERED_MAX: Final = 8_192
"""So many encodings of each kind are remembered; then all are forgotten."""

REMEMBERED_SIZE_MAX: Final = 32
"""Longer encodings are not remembered: they seldom come again, as with ids (36 characters)."""

_MORE: Final = 0x80
"""This bit of a varint's byte says that another follows; below it, a byte is a whole number."""

_BITS: Final = {"int": 32, "long": 64}
_END: Final = b"\x00"


def compile_encoder(schema: Any, record_type: type) -> Callable[[Any], bytes]:
    """Make the function that encodes a `record_type` by `schema`, as JSON or as fastavro parsed it.

    It raises ValueError, TypeError, KeyError or AttributeError for a value that the schema has no place for.
    """
    encoder = _Encoder()
    pieces = ", ".join(encoder.pieces(schema, "record"))
    source = f"def encode(record):\n    return join(({pieces},))"
    encode: Callable[[Any], bytes] = encoder.compiled(source, record_type)["encode"]
    return encode


def compile_decoder(schema: Any, record_type: type) -> Callable[[bytes, int], Any]:
    """Make the function that decodes a `record_type` from the bytes that begin at an index and end where `data` does.

    It raises ValueError (also as UnicodeDecodeError), KeyError or IndexError for anything but exactly one such record.
    """
    decoder = _Decoder()
    record = decoder.read(schema, record_type)
    lines = [
        *decoder.lines,
        "if at != len(data): raise ValueError('not as long as it says')",
        f"return {record}",
    ]
    source = "def decode(data, at):\n    " + "\n    ".join(lines)
    decode: Callable[[bytes, int], Any] = decoder.compiled(source, record_type)["decode"]
    return decode


def varint(number: int, bits: int = 64) -> bytes:
    """Encode an integer as Avro does, zigzag and in groups of 7 bits; raise ValueError if `bits` do not hold it."""
    rest = number << 1 if number >= 0 else ~(number << 1)
    if rest >> bits:
        raise ValueError(f"a number of more than {bits} bits")
    encoded = bytearray()
    while rest >= _MORE:
        encoded.append(rest & 0x7F | _MORE)
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


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Decode the varint at `at`, and say where it ends."""
    value = shift = 0
    while (byte := data[at]) >= _MORE:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    value |= byte << shift
    if value >> 64:
        raise ValueError("a number of more than 64 bits")
    return (value >> 1) ^ -(value & 1), at + 1


@dataclass(slots=True)
class _Source:
    """A function in the making: what its names stand for, and the named types that the schema has told so far."""

    names: dict[str, Any] = field(default_factory=dict)
    types: dict[str, Any] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def named(self, value: Any, prefix: str = "of_") -> str:
        """Give the function a name for this value."""
        name = self.fresh(prefix)
        self.names[name] = value
        return name

    def fresh(self, prefix: str = "v") -> str:
        """Give a name that nothing has yet."""
        return f"{prefix}{next(self.numbers)}"

    def resolved(self, schema: Any) -> Any:
        """Give the schema as an object, whether it is one, a type's name or a union with null."""
        if isinstance(schema, list):
            return {"type": "nullable", "of": _not_null(schema)}
        if isinstance(schema, str):
            return self.types.get(schema, {"type": schema})
        if "name" in schema:
            self.types[schema["name"]] = schema
        return schema

    def compiled(self, source: str, record_type: type) -> Mapping[str, Any]:
        """Run the source, and give what it defines."""
        exec(compile(source, f"<Avro of {record_type.__name__}>", "exec"), self.names)
        return self.names


def _not_null(union: list[Any]) -> Any:
    if len(union) != 2 or union[0] != "null":
        raise NotImplementedError(f"a union other than of null and one type: {union}")
    return union[1]


@dataclass(slots=True)
class _Encoder(_Source):
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
class _Decoder(_Source):
    """Writes the lines that decode a value, each kind in its own way, into a variable of its own."""

    lines: list[str] = field(default_factory=list)
    margin: str = ""

    def __post_init__(self) -> None:
        self.names |= {
            "new": object.__new__,
            "number": _number,
            "small": tuple((byte >> 1) ^ -(byte & 1) for byte in range(_MORE)),
            "booleans": {0: False, 1: True},
            "presence": {0: False, 2: True},
        }

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
                self._number(value)
            case "string" if isinstance(hint, type) and issubclass(hint, StrEnum):
                words = self.named({word.value.encode(): word for word in hint})
                size = self._length()
                self._line(f"end = at + {size}; {value} = {words}[data[at:end]]; at = end")
            case "string":
                self._slice(value, self._length(), ".decode()")
            case "bytes":
                self._slice(value, self._length())
            case "fixed":
                self._slice(value, str(schema["size"]))
            case "boolean":
                self._of_byte(value, "booleans")
            case kind:
                raise NotImplementedError(f"no decoder of {kind}")
        return value

    def _line(self, *lines: str) -> None:
        self.lines += [self.margin + line for line in lines]

    @contextmanager
    def _within(self, head: str) -> Iterator[None]:
        self._line(head)
        self.margin += "    "
        yield
        self.margin = self.margin[:-4]

    def _record(self, schema: Any, record_type: type, value: str) -> None:
        """Fill a thawed twin and turn it into the frozen record: a tenth of what the constructor takes."""
        hints = get_type_hints(record_type)
        self._line(f"{value} = new({self.named(thawed_twin(record_type))})")
        for part in schema["fields"]:
            held = self.read(part["type"], hints[part["name"]])
            self._line(f"{value}.{part['name']} = {held}")
        self._line(f"{value}.__class__ = {self.named(record_type)}")

    def _number(self, value: str) -> None:
        """One byte and two are decoded in place."""
        self._line(
            f"{value} = data[at]",
            f"if {value} < {_MORE}: {value} = small[{value}]; at += 1",
            f"elif (more := data[at + 1]) < {_MORE}:",
            f"    {value} = {value} & 0x7F | more << 7; {value} = ({value} >> 1) ^ -({value} & 1); at += 2",
            f"else: {value}, at = number(data, at)",
        )

    def _length(self) -> str:
        size = self.fresh()
        self._number(size)
        self._line(f"if {size} < 0: raise ValueError('a negative length')")
        return size

    def _slice(self, value: str, size: str, then: str = "") -> None:
        self._line(f"end = at + {size}; {value} = data[at:end]{then}; at = end")

    def _of_byte(self, value: str, table: str) -> None:
        self._line(f"{value} = {table}[data[at]]; at += 1")

    def _nullable(self, schema: Any, hint: Any, value: str) -> None:
        self._of_byte(value, "presence")
        with self._within(f"if {value}:"):
            self._line(f"{value} = {self.read(schema, _present(hint))}")
        self._line(f"else: {value} = None")

    def _array(self, schema: Any, hint: Any, value: str) -> None:
        self._line(f"{value} = []")
        with self._blocks():
            self._line(f"{value}.append({self.read(schema, hint)})")
        self._line(f"{value} = tuple({value})")

    def _map(self, schema: Any, value: str) -> None:
        self._line(f"{value} = {{}}")
        with self._blocks():
            key = self.read("string", str)
            self._line(f"{value}[{key}] = {self.read(schema, str)}")

    @contextmanager
    def _blocks(self) -> Iterator[None]:
        """Write the loops over blocks and their items; a negative count is followed by the block's size in bytes."""
        items, size = self.fresh(), self.fresh()
        with self._within("while data[at]:"):
            self._number(items)
            with self._within(f"if {items} < 0:"):
                self._line(f"{items} = -{items}")
                self._number(size)
            with self._within(f"for _ in range({items}):"):
                yield
        self._line("at += 1")


def _present(hint: Any) -> Any:
    return next(part for part in get_args(hint) if part is not NoneType)
