"""Reads chosen fields of an Avro record as plain values, by a function that is compiled from the schema.

An auditor reads millions of entries and needs a few fields of most of their events: whatever is not asked for is
stepped over without being made. Texts (enums too) come as `str`, arrays and records as tuples, maps as dicts. Only what
the contract's schemas use is known here; anything else is a `NotImplementedError` when compiling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.contract.avro_source import ENDS, MORE, ReadingSource

Reader: TypeAlias = Callable[[bytes, int], tuple[Any, ...]]
"""Reads the record that begins at an index and ends where the bytes do; raises ValueError, KeyError or IndexError."""


def compile_fields(schema: Any, wanted: Sequence[str], defaults: Mapping[str, Any] | None = None) -> Reader:
    """Make the function that reads the fields `wanted` of a record, in that order.

    A field that this version of the schema does not have yet is `defaults[name]`; KeyError without one.
    """
    writer = _Writer()
    held = writer.read_fields(writer.resolved(schema)["fields"], wanted)
    for name in wanted:
        if name not in held:
            held[name] = repr((defaults or {})[name])
    return writer.reader(schema["name"], [held[name] for name in wanted], ENDS)


def compile_head(schema: Any, wanted: Sequence[str], before: str) -> Reader:
    """Make the function that reads the fields `wanted`, which stand before another, and where that one begins."""
    writer = _Writer()
    parts = writer.resolved(schema)["fields"]
    first = next(at for at, part in enumerate(parts) if part["name"] == before)
    held = writer.read_fields(parts[:first], wanted)
    return writer.reader(schema["name"], [*(held[name] for name in wanted), "at"], "")


def compile_tail(schema: Any, name: str) -> Reader:
    """Make the function that reads a record's last field from where it begins; ValueError if it does not end there."""
    writer = _Writer()
    parts = writer.resolved(schema)["fields"]
    if parts[-1]["name"] != name:
        raise NotImplementedError(f"{name} is not the last field of {schema['name']}")
    held = writer.read_fields(parts[-1:], (name,))
    return writer.reader(schema["name"], [held[name]], ENDS)


@dataclass(slots=True)
class _Writer(ReadingSource):
    """Writes the lines of a reader."""

    def read_fields(self, parts: Sequence[Any], wanted: Sequence[str]) -> dict[str, str]:
        """Write the lines that read the wanted of these fields, and step over the others; name their variables."""
        return {
            part["name"]: self.read(part["type"]) if part["name"] in wanted else self.step_over(part["type"])
            for part in parts
        }

    def reader(self, name: str, values: Sequence[str], end: str) -> Reader:
        """Make the function that gives these variables' values."""
        source = "def read(data, at):\n    " + "\n    ".join(
            [*self.lines, end, f"return ({', '.join(values)},)"]
        )
        reader: Reader = self.compiled(source, f"fields of {name}")["read"]
        return reader

    def read(self, schema: Any) -> str:
        """Write the lines that read a value; name the variable that holds it."""
        schema, value = self.resolved(schema), self.fresh()
        match schema["type"]:
            case "record":
                parts = "".join(f"{self.read(part['type'])}, " for part in schema["fields"])
                self.line(f"{value} = ({parts})")
            case "array":
                self.line(f"{value} = []")
                with self.blocks():
                    self.line(f"{value}.append({self.read(schema['items'])})")
                self.line(f"{value} = tuple({value})")
            case "map":
                self.line(f"{value} = {{}}")
                with self.blocks():
                    key = self.read("string")
                    self.line(f"{value}[{key}] = {self.read(schema['values'])}")
            case "nullable":
                self.of_byte(value, "presence")
                with self.within(f"if {value}:"):
                    self.line(f"{value} = {self.read(schema['of'])}")
                self.line(f"else: {value} = None")
            case "int" | "long":
                self.number(value)
            case "string" | "enum":
                self.slice(value, self.length(), ".decode()")
            case "bytes":
                self.slice(value, self.length())
            case "fixed":
                self.slice(value, str(schema["size"]))
            case "boolean":
                self.of_byte(value, "booleans")
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
                with self.blocks():
                    self.step_over(schema["items"])
            case "map":
                with self.blocks():
                    self.step_over("string")
                    self.step_over(schema["values"])
            case "nullable":
                present = self.fresh()
                self.of_byte(present, "presence")
                with self.within(f"if {present}:"):
                    self.line("pass")
                    self.step_over(schema["of"])
            case "int" | "long":
                with self.within(f"while data[at] >= {MORE}:"):
                    self.line("at += 1")
                self.line("at += 1")
            case "string" | "bytes":
                self.line(f"at += {self.length()}")
            case "fixed":
                self.line(f"at += {schema['size']}")
            case "boolean":
                self.line("at += 1")
            case kind:
                raise NotImplementedError(f"no way over {kind}")
        return ""
