"""Opens market files and makes one tree of them; what the text in it means is for `parsing`.

Several files are one market: each holds some entries of `market`, `lead_types`, `sources` and `buyers`, and
none holds an entry that another has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.market.documents import CHARACTERS_MAX, NODES_MAX, Budget, MarketFile, read_document
from services.market.errors import MarketError, MarketRefused, Place
from services.market.tree import Entries, Entry, Node

FILES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Tree:
    """All files as one mapping, and what is wrong in them; `root` is None if a file is broken off."""

    root: Entries | None
    errors: tuple[MarketError, ...]


def open_files(paths: Sequence[Path]) -> tuple[MarketFile, ...]:
    """Read files from the disk. Raises MarketRefused: missing, too large, not UTF-8."""
    if len(paths) > FILES_MAX:
        error = MarketError(str(paths[0]), 0, "", str(len(paths)), f"expected at most {FILES_MAX} files")
        raise MarketRefused([error])
    opened = [_open(path) for path in paths]
    errors = [item for item in opened if isinstance(item, MarketError)]
    if errors:
        raise MarketRefused(errors)
    return tuple(item for item in opened if isinstance(item, MarketFile))


def read(files: Sequence[MarketFile], nodes_max: int = NODES_MAX) -> Tree:
    """Read all files into one tree of at most so many nodes, each alias followed."""
    budget = Budget(nodes_max)
    documents = [read_document(file, budget) for file in files]
    errors = [error for _, wrong in documents for error in wrong]
    roots = [root for root, _ in documents if root is not None]
    if len(roots) < len(files):
        return Tree(None, tuple(errors))
    return Tree(_merged(roots, errors), tuple(errors))


def _open(path: Path) -> MarketFile | MarketError:
    try:
        with path.open("rb") as file:
            content = file.read(CHARACTERS_MAX + 1)
        text = content.decode("utf-8")
    except OSError as error:
        return MarketError(str(path), 0, "", "", f"expected a file that can be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return MarketError(str(path), 0, "", "", f"expected UTF-8, which byte {error.start} is not")
    if len(content) > CHARACTERS_MAX:
        return MarketError(str(path), 0, "", "", f"expected at most {CHARACTERS_MAX} bytes in a file")
    return MarketFile(str(path), text)


def _merged(roots: Sequence[Entries], errors: list[MarketError]) -> Entries:
    sections: dict[str, Entry] = {}
    for root in roots:
        for name, entry in root.values.items():
            first = sections.setdefault(name, entry)
            if first is not entry:
                sections[name] = Entry(_section(name, first, entry, errors), first.place)
    return Entries(sections, roots[0].place if roots else Place("", 0))


def _section(name: str, first: Entry, second: Entry, errors: list[MarketError]) -> Node:
    if not isinstance(first.node, Entries) or not isinstance(second.node, Entries):
        errors.append(_twice(name, first, second))
        return first.node
    values = dict(first.node.values)
    for key, entry in second.node.values.items():
        if values.setdefault(key, entry) is not entry:
            errors.append(_twice(f"{name}.{key}", values[key], entry))
    return Entries(values, first.node.place)


def _twice(path: str, first: Entry, second: Entry) -> MarketError:
    expected = f"expected each entry once: it is in {first.place.file}, line {first.place.line}, too"
    return MarketError(second.place.file, second.place.line, path, "", expected)
