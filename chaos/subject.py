"""What the campaign asks of what it puts under faults; the two that exist are in `gavel` and `control`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chaos.crew import Command, Crew
from chaos.source import Load, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a campaign takes place: servers, a namespace and a database of its own, keys, and a folder for logs."""

    kafka: str
    database: str
    namespace: str
    folder: Path
    brokers: int
    vault_key_file: Path
    fingerprint_key_file: Path
    session_timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was found at the end: by whom it was judged, how much there was, and every broken promise."""

    judge: str
    counts: Mapping[str, int]
    violations: Sequence[str]
    by_rule: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


class Subject(Protocol):
    """A system of several steps that takes submissions, delivers leads and bills them."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def steps(self) -> Sequence[str]:
        """Its steps, each a process."""
        ...

    @property
    def hit(self) -> Sequence[str]:
        """The steps as faults are dealt to them: one that stands here twice is hit twice as often."""
        ...

    @property
    def workers_a_step(self) -> int:
        """How many processes of each step are usual."""
        ...

    def prepare(self) -> None:
        """Make topics and tables."""
        ...

    def command(self, step: str, name: str) -> Command:
        """Say how a worker is started."""
        ...

    def explain(self, log: str) -> str:
        """Say from the end of a worker's log why it ended."""
        ...

    def read(self) -> tuple[Mapping[str, int], int]:
        """Read every step's positions, and how many records wait; raise `positions.Unreachable`."""
        ...

    def submission(self, number: int) -> Submission:
        """Write a submission."""
        ...

    def begin(self, load: Load, every_s: float) -> None:
        """Let those outside who take part begin, buyers and an operator who asks something `every_s` seconds."""
        ...

    def end(self) -> None:
        """Let them end; raise what one of them failed with."""
        ...

    def close(self) -> None:
        """Hang up, once nobody asks any more."""
        ...

    def missing(self) -> Sequence[str]:
        """Say what is not done yet, nothing once all is at rest; raise `positions.Unreachable`."""
        ...

    def bring_to_rest(self, crew: Crew) -> None:
        """Do what an operator would where it does not come to rest by itself, if anything."""
        ...

    def judge(self, load: Load, *, at_rest: bool) -> Judgement:
        """Check what was promised; what is missing is lost where all is at rest."""
        ...
