"""What is wrong with a market file, told for a person to mend it: where, what is there, what was expected.

Nothing here decides what is wrong, and nothing here prints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

VALUE_MAX = 80
"""So many characters of a value are repeated in a message."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class MarketError:
    """One reason why a market is refused. `expected` is a phrase that ends the sentence."""

    file: str
    line: int
    path: str
    value: str
    expected: str

    def __str__(self) -> str:
        return _sentence(self.file, self.line, self.path, self.value, self.expected)


@dataclass(frozen=True, slots=True)
class MarketWarning:
    """Something that a market may say, though hardly anybody means it."""

    file: str
    line: int
    path: str
    value: str
    reason: str

    def __str__(self) -> str:
        return _sentence(self.file, self.line, self.path, self.value, self.reason)


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that an entry breaks, before anyone knows its file and line.

    `needs` names a further entry whose reading must have succeeded for the rule to say anything.
    """

    path: str
    value: str
    reason: str
    needs: str = ""


class MarketRefused(ValueError):
    """A market with errors, all of them."""

    def __init__(self, errors: Iterable[MarketError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: (error.file, error.line)))
        super().__init__("\n".join(map(str, self.errors)))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End a sentence about an unknown word with the known one that looks most like it, if any does."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def one_of(known: Iterable[str]) -> str:
    """List what may stand here, in a stable order."""
    words = sorted(known)
    shown = ", ".join(words[:20]) + (", ..." if len(words) > 20 else "")
    return f"expected one of {shown}" if words else "expected nothing: there is none"


def _sentence(file: str, line: int, path: str, value: str, what: str) -> str:
    shown = value if len(value) <= VALUE_MAX else value[:VALUE_MAX] + "..."
    where = f"{file}:{line}: " if line else f"{file}: "
    return where + (f"{path}: " if path else "") + (f"'{shown}': " if shown else "") + what
