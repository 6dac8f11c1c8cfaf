"""Where ids and times stand in bytes that are alike but for these: such bytes are taken apart by one call.

It must not know what the bytes mean. That a layout is right, only whoever reads them can tell.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final, TypeAlias

_FEW: Final = 2


Expected: TypeAlias = Callable[[Sequence[bytes]], tuple[bytes, ...]]
"""Makes of all marks' values, in their order, those that must stand in a layout's places, as they stand there."""


class Layout:
    """The places of some marks. `split` gives in turn what stands before a mark, the mark, and so on to the end."""

    __slots__ = ("expected", "spans", "split")

    def __init__(self, spans: Sequence[tuple[int, int, int]], size: int) -> None:
        """Make the layout of `size` bytes, with the first byte, the end and the mark's number of each place."""
        self.spans = spans
        parts, before = [], 0
        for start, end, _ in spans:
            parts += [f"{start - before}s", f"{end - start}s"]
            before = end
        self.split: Callable[[bytes, int], tuple[bytes, ...]] = struct.Struct(
            "".join([*parts, f"{size - before}s"])
        ).unpack_from
        self.expected: Expected = _picked([mark for *_, mark in spans])


def layout_of(data: bytes, marks: Sequence[bytes]) -> Layout | None:
    """Find all places of these marks; None where two of them overlap."""
    spans = sorted(span for number, mark in enumerate(marks) for span in _spans(data, mark, number))
    if any(end > start for (_, end, _), (start, _, _) in pairwise(spans)):
        return None
    return Layout(spans, len(data))


def replaced(data: bytes, layout: Layout, marks: Sequence[bytes]) -> bytes:
    """Put other marks of the same sizes into all places."""
    parts: list[bytes] = list(layout.split(data, 0))
    parts[1::2] = layout.expected(marks)
    return b"".join(parts)


def _spans(data: bytes, mark: bytes, number: int) -> Iterator[tuple[int, int, int]]:
    at = data.find(mark)
    while at >= 0:
        yield at, at + len(mark), number
        at = data.find(mark, at + len(mark))


def _picked(numbers: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Give what picks these in this order, always as a tuple."""
    if len(numbers) < _FEW:
        return lambda values: tuple(values[number] for number in numbers)
    return itemgetter(*numbers)
