"""What the auditor reports: a broken promise, and where in the record it is proved. No contact details, ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Where(NamedTuple):
    """A place in the evidence: a record of a topic, or a row of a table (`at` is its key then)."""

    source: str
    at: str

    def __str__(self) -> str:
        """Write it as an operator would look it up."""
        return f"{self.source} {self.at}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that is broken: which guarantee of docs/guarantees.md, by which rule, about which lead, seen where."""

    guarantee: int
    rule: str
    what: str
    where: tuple[Where, ...]
    lead_id: str | None = None


Report: TypeAlias = Callable[[Violation], None]
