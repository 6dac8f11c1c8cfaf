"""Splits a stream of newline-delimited JSON into numbered lines, whatever the pieces it comes in.

A line is bounded: of one that is too long only its number is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Line(NamedTuple):
    """A line that is not blank, counted from 1; no content: it was too long."""

    number: int
    content: bytes | None


@dataclass(slots=True)
class LineSplitter:
    """Takes pieces, gives whole lines."""

    longest: int
    number: int = 0
    _rest: bytearray = field(default_factory=bytearray)
    _too_long: bool = False

    def feed(self, piece: bytes) -> Iterator[Line]:
        """Take a piece; give the lines that it completes."""
        *complete, rest = piece.split(b"\n")
        for part in complete:
            self._keep(part)
            yield from self._finish()
        self._keep(rest)

    def end(self) -> Iterator[Line]:
        """Give the last line, if it has no newline."""
        if self._rest or self._too_long:
            yield from self._finish()

    def _keep(self, part: bytes) -> None:
        if self._too_long or len(self._rest) + len(part) > self.longest + 1:
            self._too_long = True
            self._rest.clear()
        else:
            self._rest += part

    def _finish(self) -> Iterator[Line]:
        self.number += 1
        content = bytes(self._rest).strip(b" \t\r")
        too_long = self._too_long or len(content) > self.longest
        self._rest.clear()
        self._too_long = False
        if too_long:
            yield Line(self.number, None)
        elif content:
            yield Line(self.number, content)
