"""Reads chosen fields of an Avro record as plain values, by a function that is compiled from the schema.

An auditor reads millions of entries and needs a few fields of most of their events: whatever is not asked for is
stepped over without being made. Texts (enums too) come as `str`, arrays and records as tuples, maps as dicts. Only what
the contract's schemas use is known here; anything else is a `NotImplementedError` when compiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

Reader: TypeAlias = Callable[[bytes, int], tuple[Any, ...]]
"""Reads the record that begins at an index and ends where the bytes do; raises ValueError, KeyError or IndexError."""

_MORE: Final = 0x80
_NUMBER_BITS: Final = 64


def compile_fields(schema: Any, wanted: Sequence[str], defaults: Mapping[str, Any] | None = None) -> Reader:
    """Make the function that reads the fields `wanted` of a record, in that order.

    A field that this version of the schema does not have yet is `defaults[name]`; KeyError without one.
    """
    writer = _Writer()
    held = writer.read_fields(writer.resolved(schema)["fields"], wanted)
    for name in wanted:
        if name not in held:
            held[name] = repr((defaults or {})[name])
    return writer.compiled(schema["name"], [held[name] for name in wanted], _END)


def compile_head(schema: Any, wanted: Sequence[str], before: str) -> Reader:
    """Make the function that reads the fields `wanted`, which stand before another, and where that one begins."""
    writer = _Writer()
    parts = writer.resolved(schema)["fields"]
    first = next(at for at, part in enumerate(parts) if part["name"] == before)
    held = writer.read_fields(parts[:first], wanted)
    return writer.compiled(schema["name"], [*(held[name] for name in wanted), "at"], "")


def compile_tail(schema: Any, name: str) -> Reader:
    """Make the function that reads a record's last field from where it begins; ValueError if it does not end there."""
    writer = _Writer()
    parts = writer.resolved(schema)["fields"]
    if parts[-1]["name"] != name:
        raise NotImplementedError(f"{name} is not the last field of {schema['name']}")
    held = writer.read_fields(parts[-1:], (name,))
    return writer.compiled(schema["name"], [held[name]], _END)


_END: Final = "if at != len(data): raise ValueError('not as long as it says')"


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) >= _MORE:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    value |= byte << shift
    if value >> _NUMBER_BITS:
        raise ValueError("a number of more than 64 bits")
    return (value >> 1) ^ -(value & 1), at + 1


class _Writer:
    """Writes the lines of a reader."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._types: dict[str, Any] = {}
        self._names = 0
        self._margin = ""

    def resolved(self, schema: Any) -> Any:
        """Give a schema as an object, whether it is one, a type's name or a union with null."""
        if isinstance(schema, list):
            if len(schema) != 2 or schema[0] != "null":
                raise NotImplementedError(f"a union other than of null and one type: {schema}")
            return {"type": "nullable", "of": schema[1]}
        if isinstance(schema, str):
            return self._types.get(schema, {"type": schema})
        if "name" in schema:
            self._types[schema["name"]] = schema
        return schema

    def read_fields(self, parts: Sequence[Any], wanted: Sequence[str]) -> dict[str, str]:
        """Write the lines that read the wanted of these fields, and step over the others; name their variables."""
        return {
            part["name"]: self.read(part["type"]) if part["name"] in wanted else self.step_over(part["type"])
            for part in parts
        }

    def compiled(self, name: str, values: Sequence[str], end: str) -> Reader:
        """Make the function that gives these variables' values."""
        lines = [*self.lines, end, f"return ({', '.join(values)},)"]
        names: dict[str, Any] = {
            "number": _number,
            "presence": {0: False, 2: True},
            "booleans": {0: False, 1: True},
        }
        source = "def read(data, at):\n    " + "\n    ".join(lines)
        exec(compile(source, f"<fields of {name}>", "exec"), names)
        reader: Reader = names["read"]
        return reader

    def read(self, schema: Any) -> str:
        """Write the lines that read a value; name the variable that holds it."""
        schema, value = self.resolved(schema), self._fresh()
        match schema["type"]:
            case "record":
                parts = "".join(f"{self.read(part['type'])}, " for part in schema["fields"])
                self._line(f"{value} = ({parts})")
            case "array":
                self._line(f"{value} = []")
                with self._items():
                    self._line(f"{value}.append({self.read(schema['items'])})")
                self._line(f"{value} = tuple({value})")
            case "map":
                self._line(f"{value} = {{}}")
                with self._items():
                    key = self.read("string")
                    self._line(f"{value}[{key}] = {self.read(schema['values'])}")
            case "nullable":
                self._line(f"{value} = presence[data[at]]; at += 1")
                with self._within(f"if {value}:"):
                    self._line(f"{value} = {self.read(schema['of'])}")
                self._line(f"else: {value} = None")
            case "int" | "long":
                self._number(value)
            case "string" | "enum":
                self._slice(value, self._length(), ".decode()")
            case "bytes":
                self._slice(value, self._length())
            case "fixed":
                self._slice(value, str(schema["size"]))
            case "boolean":
                self._line(f"{value} = booleans[data[at]]; at += 1")
            case kind:
                raise NotImplementedError(f"no reader of {kind}")
        return value

    def step_over(self, schema: Any) -> str:
        """Write the lines that step over a value that nobody asked for."""
        schema = self.resolved(schema)
        match schema["type"]:
            case "record":
                for part in schema["fields"]:
                    self.step_over(part["type"])
            case "array":
                with self._items():
                    self.step_over(schema["items"])
            case "map":
                with self._items():
                    self.step_over("string")
                    self.step_over(schema["values"])
            case "nullable":
                present = self._fresh()
                self._line(f"{present} = presence[data[at]]; at += 1")
                with self._within(f"if {present}:"):
                    self._line("pass")
                    self.step_over(schema["of"])
            case "int" | "long":
                with self._within(f"while data[at] >= {_MORE}:"):
                    self._line("at += 1")
                self._line("at += 1")
            case "string" | "bytes":
                self._line(f"at += {self._length()}")
            case "fixed":
                self._line(f"at += {schema['size']}")
            case "boolean":
                self._line("at += 1")
            case kind:
                raise NotImplementedError(f"no way over {kind}")
        return ""

    def _fresh(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def _line(self, *lines: str) -> None:
        self.lines += [self._margin + line for line in lines]

    @contextmanager
    def _within(self, head: str) -> Iterator[None]:
        self._line(head)
        self._margin += "    "
        yield
        self._margin = self._margin[:-4]

    def _number(self, value: str) -> None:
        self._line(
            f"{value} = data[at]",
            f"if {value} < {_MORE}: {value} = ({value} >> 1) ^ -({value} & 1); at += 1",
            f"elif (more := data[at + 1]) < {_MORE}:",
            f"    {value} = {value} & 0x7F | more << 7; {value} = ({value} >> 1) ^ -({value} & 1); at += 2",
            f"else: {value}, at = number(data, at)",
        )

    def _length(self) -> str:
        size = self._fresh()
        self._number(size)
        self._line(f"if {size} < 0: raise ValueError('a negative length')")
        return size

    def _slice(self, value: str, size: str, then: str = "") -> None:
        self._line(f"end = at + {size}; {value} = data[at:end]{then}; at = end")

    @contextmanager
    def _items(self) -> Iterator[None]:
        """Write the loops over blocks and their items; a negative count is followed by the block's size in bytes."""
        items, size = self._fresh(), self._fresh()
        with self._within("while data[at]:"):
            self._number(items)
            with self._within(f"if {items} < 0:"):
                self._line(f"{items} = -{items}")
                self._number(size)
            with self._within(f"for _ in range({items}):"):
                yield
        self._line("at += 1")
