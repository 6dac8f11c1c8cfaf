"""The source of a function that reads or writes Avro, while it is written: lines, names, and its schema's types.

Only how bytes are laid out is known here; what is made of them is in `avro`, and in whoever reads a few fields alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

MORE: Final = 0x80
"""This bit of a varint's byte says that another follows; below it, a byte is a whole number."""

ENDS: Final = "if at != len(data): raise ValueError('not as long as it says')"
"""The line that refuses a record with anything behind it."""

_NUMBER_BITS: Final = 64


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Decode the varint at `at`, and say where it ends."""
    value = shift = 0
    while (byte := data[at]) >= MORE:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    value |= byte << shift
    if value >> _NUMBER_BITS:
        raise ValueError(f"a number of more than {_NUMBER_BITS} bits")
    return (value >> 1) ^ -(value & 1), at + 1


@dataclass(slots=True)
class Source:
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

    def compiled(self, source: str, name: str) -> Mapping[str, Any]:
        """Run the source, which errors will name so, and give what it defines."""
        exec(compile(source, f"<{name}>", "exec"), self.names)
        return self.names


def _not_null(union: list[Any]) -> Any:
    if len(union) != 2 or union[0] != "null":
        raise NotImplementedError(f"a union other than of null and one type: {union}")
    return union[1]


@dataclass(slots=True)
class ReadingSource(Source):
    """The lines of a function that reads from the bytes `data` at the index `at`, and moves `at` on."""

    lines: list[str] = field(default_factory=list)
    margin: str = ""

    def __post_init__(self) -> None:
        """Name what the lines here make use of."""
        self.names |= {
            "number": _number,
            "small": tuple((byte >> 1) ^ -(byte & 1) for byte in range(MORE)),
            "booleans": {0: False, 1: True},
            "presence": {0: False, 2: True},
        }

    def line(self, *lines: str) -> None:
        """Write lines, as far in as the heads around them say."""
        self.lines += [self.margin + line for line in lines]

    @contextmanager
    def within(self, head: str) -> Iterator[None]:
        """Write a head; what is written meanwhile is within it."""
        self.line(head)
        self.margin += "    "
        yield
        self.margin = self.margin[:-4]

    def number(self, value: str) -> None:
        """Read a whole number into a variable; one byte and two are decoded in place."""
        self.line(
            f"{value} = data[at]",
            f"if {value} < {MORE}: {value} = small[{value}]; at += 1",
            f"elif (more := data[at + 1]) < {MORE}:",
            f"    {value} = {value} & 0x7F | more << 7; {value} = ({value} >> 1) ^ -({value} & 1); at += 2",
            f"else: {value}, at = number(data, at)",
        )

    def length(self) -> str:
        """Read a length, and name its variable."""
        size = self.fresh()
        self.number(size)
        self.line(f"if {size} < 0: raise ValueError('a negative length')")
        return size

    def slice(self, value: str, size: str, then: str = "") -> None:
        """Read so many bytes into a variable, and turn them into what they stand for."""
        self.line(f"end = at + {size}; {value} = data[at:end]{then}; at = end")

    def of_byte(self, value: str, table: str) -> None:
        """Read a byte by a table of what each stands for."""
        self.line(f"{value} = {table}[data[at]]; at += 1")

    @contextmanager
    def blocks(self) -> Iterator[None]:
        """Write the loops over blocks and their items; a negative count is followed by the block's size in bytes."""
        items, size = self.fresh(), self.fresh()
        with self.within("while data[at]:"):
            self.number(items)
            with self.within(f"if {items} < 0:"):
                self.line(f"{items} = -{items}")
                self.number(size)
            with self.within(f"for _ in range({items}):"):
                yield
        self.line("at += 1")
