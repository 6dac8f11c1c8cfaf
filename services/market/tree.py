"""The text of a market file as a tree that remembers its lines, and the one way to walk it.

Every scalar is text here: what it means is for its field to say. Walking records what is wrong in `Findings`
and goes on with a stand-in, so that one run reports everything. Nothing here knows a key of the market.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, assert_never

from services.contract.fields import FieldError
from services.market.errors import VALUE_MAX, MarketError, Place, did_you_mean, one_of

T = TypeVar("T")
D = TypeVar("D")

_SIGNED_IN = re.compile(r"(?<=://)[^/?#]*@")
"""Who signs in to an address, and with which password: messages end up in the logs of whoever applies a market."""


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar, as written and without its quotes."""

    value: str
    place: Place


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    values: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with what it holds. `place` is the key's."""

    node: Node
    place: Place


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping."""

    values: Mapping[str, Entry]
    place: Place


Node: TypeAlias = Text | Items | Entries


@dataclass(slots=True)
class Findings:
    """What was found wrong so far, and where each path of the market stands."""

    errors: list[MarketError] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class At:
    """A node at a path."""

    node: Node
    path: str
    place: Place
    findings: Findings

    def wrong(self, expected: str) -> None:
        """Record that what stands here is not what was expected."""
        error = MarketError(self.place.file, self.place.line, self.path, flow(self.node), expected)
        self.findings.errors.append(error)

    def child(self, name: str, node: Node, place: Place) -> At:
        """Go one step down."""
        path = f"{self.path}.{name}" if self.path else name
        self.findings.places[path] = place
        return At(node, path, place, self.findings)

    def renamed(self, name: str) -> At:
        """Call this node otherwise than its place in a list."""
        path = f"{self.path.rpartition('.')[0]}.{name}"
        self.findings.places[path] = self.place
        return At(self.node, path, self.place, self.findings)

    def text(self, parse: Callable[[str], T], stand_in: D) -> T | D:
        """Parse the scalar here; when it is none, or doesn't parse, record that and give the stand-in."""
        if not isinstance(self.node, Text):
            self.wrong("expected a single value")
            return stand_in
        try:
            return parse(self.node.value)
        except FieldError as error:
            self.wrong(str(error))
            return stand_in

    def items(self) -> Iterator[At]:
        """Walk the list here; its places count from 1, as people count."""
        if not isinstance(self.node, Items) or not self.node.values:
            self.wrong("expected a list of at least one, as in [a, b]")
            return
        for number, node in enumerate(self.node.values, start=1):
            yield self.child(str(number), node, node.place)

    def texts(self, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Parse a list of scalars, each of which may stand in it once."""
        found: dict[T, None] = {}
        for item in self.items():
            for value in item.text(lambda text: (parse(text),), ()):
                if value in found:
                    item.wrong("expected it only once in this list")
                found[value] = None
        return tuple(found)

    def named(self) -> Iterator[tuple[str, At]]:
        """Walk a mapping whose keys are names that people chose."""
        if not isinstance(self.node, Entries):
            self.wrong("expected a mapping of names")
            return
        for name, entry in self.node.values.items():
            yield name, self.child(name, entry.node, entry.place)

    def keys(self, known: Sequence[str]) -> Keys:
        """Open a mapping with these keys; report each that is unknown."""
        if not isinstance(self.node, Entries):
            self.wrong(f"expected a mapping with the keys {', '.join(known)}")
            return Keys(self, {}, is_mapping=False)
        found = {name: self.child(name, entry.node, entry.place) for name, entry in self.node.values.items()}
        for name, at in found.items():
            if name not in known:
                at.wrong(f"unknown key: {one_of(known)}{did_you_mean(name, known)}")
        return Keys(self, found, is_mapping=True)


@dataclass(frozen=True, slots=True)
class Keys:
    """A mapping with declared keys, each read by its name."""

    at: At
    found: Mapping[str, At]
    is_mapping: bool

    def __contains__(self, key: object) -> bool:
        return key in self.found

    def node(self, key: str) -> At | None:
        """Give what the key holds, or None when it is absent."""
        return self.found.get(key)

    def required_node(self, key: str) -> At | None:
        """Give what the key holds; when it is absent, record that."""
        if key not in self.found and self.is_mapping:
            self.at.wrong(f"expected the key {key}")
        return self.found.get(key)

    def optional(self, key: str, parse: Callable[[str], T], default: D) -> T | D:
        """Parse the scalar that the key holds."""
        at = self.found.get(key)
        return default if at is None else at.text(parse, default)

    def required(self, key: str, parse: Callable[[str], T], stand_in: D) -> T | D:
        """Parse the scalar that the key must hold."""
        at = self.required_node(key)
        return stand_in if at is None else at.text(parse, stand_in)

    def one_of(self, *keys: str) -> str | None:
        """Tell which of these keys is there; when none or several are, record that and give None."""
        present = [key for key in keys if key in self.found]
        if len(present) == 1:
            return present[0]
        if self.is_mapping:
            self.at.wrong(f"expected {' or '.join(keys)}{', and not both' if present else ''}")
        return None


def flow(node: Node, room: int = VALUE_MAX + 1) -> str:
    """Write a node on one line for a message, cut off where the message would cut it."""
    text = ""
    for piece in _pieces(node):
        text += piece
        if len(text) >= room:
            return text[:room]
    return text


def _pieces(node: Node) -> Iterator[str]:
    match node:
        case Text():
            yield _SIGNED_IN.sub("***@", node.value)
        case Items():
            yield "["
            for number, value in enumerate(node.values):
                yield ", " if number else ""
                yield from _pieces(value)
            yield "]"
        case Entries():
            yield "{"
            for number, (key, entry) in enumerate(node.values.items()):
                yield f", {key}: " if number else f"{key}: "
                yield from _pieces(entry.node)
            yield "}"
        case _:
            assert_never(node)
