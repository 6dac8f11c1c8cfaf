"""What the gateway's step needs of its database and of its postman; each has a twin in memory for tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.bus.ports import Record, TopicPartition
from services.gateway.domain import Outcome, Pointer, Waiting
from services.gateway.statuses import LeadStatus


class Overtaken(Exception):
    """Another worker has moved these positions; nothing was committed."""

    def __init__(self, partitions: Collection[TopicPartition]) -> None:
        super().__init__("another worker has moved on")
        self.partitions = partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A position (the offset to read next; None: the beginning) before and after a batch."""

    before: int | None
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a buyer's webhooks go, and which of its secrets sign: two while it changes over."""

    buyer_id: str
    url: str
    secret_numbers: tuple[int, ...]
    disabled_url: str | None = None

    @property
    def is_disabled(self) -> bool:
        """Tell whether this very URL answered that it is gone."""
        return self.disabled_url == self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Who uses HTTP now: sources with a key in force, buyers with a webhook."""

    sources: tuple[str, ...] = ()
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a round of webhooks has come to: rows that go, rows that wait, rows given up, URLs that are gone."""

    done: Sequence[Pointer]
    later: Sequence[tuple[Waiting, str]]
    given_up: Sequence[tuple[Pointer, str]]
    disabled: Mapping[str, str]


class GatewayStore(Protocol):
    """The tables that the step writes. Each call may raise `PassingFault`."""

    def directory(self, now_ms: int) -> Directory:
        """Read who uses HTTP, of the market in force; nobody before the first."""
        ...

    def positions(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Read how far partitions were handled, and make the rows that compare-and-set needs."""
        ...

    def statuses(self, lead_ids: Collection[str]) -> Mapping[str, LeadStatus]:
        """Read what is known of these leads."""
        ...

    def keep(
        self,
        moves: Mapping[TopicPartition, Move],
        statuses: Collection[LeadStatus],
        waiting: Collection[Waiting],
        now_ms: int,
    ) -> None:
        """In one transaction, move the positions and write what follows; raise `Overtaken` with nothing written."""
        ...

    def next_in(self, topics: Mapping[str, int]) -> Mapping[str, Sequence[Waiting]]:
        """Of each topic give the rows whose turn is next, soonest first, so many at most."""
        ...

    def settle(self, settled: Settled, now_ms: int) -> None:
        """Write what became of webhooks."""
        ...

    def forget(self, now_ms: int, limit: int) -> int:
        """Delete what was kept long enough, about `limit` rows of each kind at most; say how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A webhook to be made now; the record is fetched from Kafka where it is not at hand any more."""

    waiting: Waiting
    endpoint: Endpoint
    record: Record | None


class Postman(Protocol):
    """Makes webhooks, elsewhere; never blocks."""

    def post(self, post: Post) -> None:
        """Begin with one."""
        ...

    def outcomes(self) -> Sequence[Outcome]:
        """Take what has ended since the last call."""
        ...
