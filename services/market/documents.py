"""Reads one YAML file into a tree of text: every scalar stays as it was written, every node keeps its line.

What YAML would read into a scalar (NO as false, 17:30 as 1050, 01234 as 668) never happens, because the
parser's events are taken before its resolver sees them. What the text means is not for here. Everything is
bounded: the size of the file, the nodes of a market with its aliases followed, and how deep they are nested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from services.market.errors import MarketError, Place
from services.market.tree import Entries, Entry, Items, Node, Text

CHARACTERS_MAX = 8 * 1024 * 1024
NODES_MAX = 500_000
DEPTH_MAX = 20

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Path: TypeAlias = tuple[str, ...]
_Sized: TypeAlias = tuple[Node, int]
"""A node, and how many nodes it is when each alias in it is followed."""


@dataclass(frozen=True, slots=True)
class MarketFile:
    """A file as it was given."""

    name: str
    text: str


class Budget:
    """The nodes that a market may still have."""

    def __init__(self, nodes: int) -> None:
        self.nodes = self.left = nodes

    def take(self, nodes: int) -> bool:
        """Take so many, and tell whether they were there."""
        self.left -= nodes
        return self.left >= 0


class _Unreadable(Exception):
    """The rest of this file can't be read."""

    def __init__(self, line: int, path: _Path, value: str, expected: str) -> None:
        self.line, self.path, self.value, self.expected = line, path, value, expected
        super().__init__(expected)


def read_document(file: MarketFile, budget: Budget) -> tuple[Entries | None, tuple[MarketError, ...]]:
    """Read a file's one document, and what is wrong with it; None when it can't be read to its end."""
    reader = _Reader(file, budget)
    root = reader.root()
    return root, tuple(reader.errors)


class _Reader:
    def __init__(self, file: MarketFile, budget: Budget) -> None:
        self.file = file
        self.budget = budget
        self.errors: list[MarketError] = []
        self.anchors: dict[str, _Sized] = {}
        self.line = 0

    def root(self) -> Entries | None:
        try:
            if len(self.file.text) > CHARACTERS_MAX:
                raise _Unreadable(0, (), "", f"expected at most {CHARACTERS_MAX} characters in a file")
            return self._document(iter(yaml.parse(self.file.text, Loader=_LOADER)))
        except _Unreadable as problem:
            self._wrong(problem.line, problem.path, problem.value, problem.expected)
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            line = mark.line + 1 if mark else self.line
            self._wrong(line, (), "", f"expected YAML: {problem.problem or problem.context}")
        except yaml.reader.ReaderError as problem:
            self._wrong(self.line, (), "", f"expected YAML: {problem.reason}")
        return None

    def _wrong(self, line: int, path: _Path, value: str, expected: str) -> None:
        self.errors.append(MarketError(self.file.name, line, ".".join(path), value, expected))

    def _document(self, events: Iterator[yaml.Event]) -> Entries:
        root: Node = Entries({}, Place(self.file.name, 1))
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unreadable(_line(event), (), "---", "expected one document in a file")
                root, _ = self._node(next(events), events, ())
        if isinstance(root, Text) and not root.value:
            return Entries({}, root.place)
        if not isinstance(root, Entries):
            raise _Unreadable(root.place.line, (), "", "expected a mapping, as in market: {...}")
        return root

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: _Path) -> _Sized:
        self.line = _line(event)
        if len(path) > DEPTH_MAX:
            raise _Unreadable(self.line, path, "", f"expected at most {DEPTH_MAX} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent), "the parser's grammar"
        self._take(1, path)
        # A quoted scalar has the tag None too: a tag is there only if somebody wrote one.
        if event.tag is not None:
            raise _Unreadable(self.line, path, event.tag, "expected no tag: each field has its own kind")
        sized = self._content(event, events, path)
        if event.anchor is not None:
            self.anchors[event.anchor] = sized
        return sized

    def _content(
        self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, events: Iterator[yaml.Event], path: _Path
    ) -> _Sized:
        if isinstance(event, yaml.ScalarEvent):
            return Text(event.value, self._place(event)), 1
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(event, events, path)
        return self._entries(event, events, path)

    def _alias(self, event: yaml.AliasEvent, path: _Path) -> _Sized:
        # An alias shares its node, so it costs no memory; what it costs is the walk, which the budget bounds.
        found = self.anchors.get(event.anchor or "")
        if found is None:
            expected = "expected an anchor that is complete above this line"
            raise _Unreadable(self.line, path, f"*{event.anchor}", expected)
        self._take(found[1], path)
        return found

    def _items(self, start: yaml.Event, events: Iterator[yaml.Event], path: _Path) -> _Sized:
        values: list[Node] = []
        size = 1
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            node, nodes = self._node(event, events, (*path, str(len(values) + 1)))
            values.append(node)
            size += nodes
        return Items(tuple(values), self._place(start)), size

    def _entries(self, start: yaml.Event, events: Iterator[yaml.Event], path: _Path) -> _Sized:
        values: dict[str, Entry] = {}
        size = 1
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key, place = self._key(event, path), self._place(event)
            node, nodes = self._node(next(events), events, (*path, key))
            size += 1 + nodes
            if key in values:
                expected = f"expected each key once: it is in line {values[key].place.line} too"
                self._wrong(place.line, (*path, key), "", expected)
            values.setdefault(key, Entry(node, place))
        return Entries(values, self._place(start)), size

    def _key(self, event: yaml.Event, path: _Path) -> str:
        self._take(1, path)
        plain = isinstance(event, yaml.ScalarEvent) and event.tag is None and event.anchor is None
        if not plain or not isinstance(event, yaml.ScalarEvent):
            raise _Unreadable(_line(event), path, "", "expected a plain word as key")
        return str(event.value)

    def _take(self, nodes: int, path: _Path) -> None:
        if not self.budget.take(nodes):
            expected = f"expected at most {self.budget.nodes} values in a market, each alias followed"
            raise _Unreadable(self.line, path, "", expected)

    def _place(self, event: yaml.Event) -> Place:
        return Place(self.file.name, _line(event))


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 0
