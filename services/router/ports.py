"""What the router needs of its database, and the rows that a commit consists of.

`store` is the real thing, `memory_store` its twin with the same constraints; one suite of tests runs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from services.contract.entries import GENESIS_HASH
from services.contract.events import Outcome
from services.contract.market import Mode
from services.router.lead import State

FOR_GOOD = 2**63 - 1
"""`closed_until_ms` of a sale that is exclusive for good: no later time is at or after it."""

NEVER_CLOSED = -(2**63)
"""`closed_until_ms` of a shared sale: any time is at or after it."""


NOTHING_TAKEN = -(2**62)
"""`peak` of a draw that takes nothing: it fits whatever is used."""

AS_STORED = -1
"""`most` of a draw on a limit that the market in force says nothing of: the stored one stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A partition's row: all that its next decision must start from (protocol.md, rule 1)."""

    partition: int
    version: int = 0
    next_qualified: int = 0
    next_command: int = 0
    next_timer: int = 0
    seq: int = 0
    hash: bytes = GENESIS_HASH
    decided_at_ms: int = 0
    market_version: int = 0
    published_seq: int = 0
    log_topic_id: str = ""


class LogRow(NamedTuple):
    """A committed entry: its published value is fixed (rule 14)."""

    partition: int
    seq: int
    lead_id: str
    decided_at_ms: int
    value: bytes


class SaleRow(NamedTuple):
    """A sale, under the constraints that are the promises (rule 8)."""

    lead_id: str
    sale_number: int
    buyer_id: str
    order_id: str
    mode: Mode
    sales_max: int
    price_cents: int
    sold_at_ms: int
    closed_until_ms: int


class CloseRow(NamedTuple):
    """A lead's one close."""

    lead_id: str
    outcome: Outcome
    closed_at_ms: int


class AuctionRow(NamedTuple):
    """An open auction, which its partition's owner must close in time (rule 27)."""

    lead_id: str
    partition: int
    auction_number: int
    closes_at_ms: int


class MoneyRow(NamedTuple):
    """A reference that has moved money of an account: it does so once (rule 25)."""

    account_id: str
    reference: str


class ErasureRow(NamedTuple):
    """A holder that was asked to erase a lead, and until when it has to say that it did."""

    lead_id: str
    buyer_id: str
    reason: str
    asked_at_ms: int
    acknowledge_by_ms: int


class AcknowledgedRow(NamedTuple):
    """A holder has erased a lead."""

    lead_id: str
    buyer_id: str
    acknowledged_at_ms: int
    by_operator: bool


class CounterRow(NamedTuple):
    """What is used of a limit of `most + granted`; `shortfall` is by how much that fell below what was used already.

    `most` is what the market said in `market_version`. `told`: its buyer knows that it is used up.
    """

    counter: str
    used: int = 0
    granted: int = 0
    most: int = 0
    shortfall: int = 0
    market_version: int = 0
    told: bool = False


class CounterDraw(NamedTuple):
    """All that a batch draws on one counter.

    `peak`: so much must be free at the start for everything that is taken, in the batch's order, to fit at each step.
    `granted` is the sum of what the limit grew and fell by, `withdrawn` the sum of the falls alone. `tells`: the batch
    tells the buyer that the limit is used up, which nobody else may have done.
    """

    counter: str
    peak: int
    amount: int
    granted: int
    withdrawn: int
    most: int
    ends_at_ms: int | None
    tells: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What a batch draws on counters, in all its partitions, under one market version."""

    market_version: int
    rows: Sequence[CounterDraw] = ()


NO_DRAWS = Draws(market_version=0)


class UndeliveredRow(NamedTuple):
    """A record that its recipient's topic has not acknowledged (rule 17)."""

    partition: int
    seq: int
    n: int
    recipient: str


class Behind(NamedTuple):
    """A recipient that has undelivered records of a partition."""

    partition: int
    recipient: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a partition's entries are published, and what is still to be delivered of them (rule 16).

    `erased`: leads whose erasure is among these entries, so that their rows in the vault go with the mark (rule 26).
    """

    partition: int
    before_seq: int
    after_seq: int
    undelivered: tuple[UndeliveredRow, ...] = ()
    erased: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCommit:
    """All that one batch decided in one partition.

    `upgrades`: leads whose first sale, shared so far, is exclusive from here on. `auctions_ended` goes before
    `auctions_opened`.
    """

    before: Head
    after: Head
    mark: Mark | None
    log: Sequence[LogRow]
    new_leads: Mapping[str, State]
    changed_leads: Mapping[str, State]
    sales: Sequence[SaleRow]
    closes: Sequence[CloseRow]
    upgrades: Sequence[str] = ()
    auctions_opened: Sequence[AuctionRow] = ()
    auctions_ended: Sequence[str] = ()
    money: Sequence[MoneyRow] = ()
    erasures: Sequence[ErasureRow] = ()
    acknowledged: Sequence[AcknowledgedRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a batch is decided on; everything else was read after the heads.

    `counters` are those that were asked for, without locks; `money` holds the references known among those asked for.
    """

    heads: Mapping[int, Head]
    now_ms: int
    market_version: int
    leads: Mapping[str, State]
    counters: Sequence[CounterRow] = ()
    money: frozenset[MoneyRow] = field(default_factory=frozenset)


class Overtaken(Exception):
    """Another owner has moved these partitions on; nothing was committed."""

    def __init__(self, partitions: Collection[int]) -> None:
        """Name the partitions."""
        self.partitions = frozenset(partitions)
        super().__init__(f"another owner has moved on partitions {sorted(self.partitions)}")


class PromiseBroken(Exception):
    """The database refused a decision that would break a promise; nothing was committed."""

    def __init__(self, lead_id: str, constraint: str) -> None:
        """Name the lead and the constraint that stopped it."""
        self.lead_id = lead_id
        self.constraint = constraint
        super().__init__(f"constraint {constraint} refused the decision for lead {lead_id}")


class LimitsShort(Exception):
    """Limits have less room than the batch takes of them; nothing was committed, and these are their values now."""

    def __init__(self, rows: Sequence[CounterRow]) -> None:
        """Take the counters as they are."""
        self.rows = rows
        super().__init__(f"{len(rows)} limits were drawn on with less room than the batch takes")


class RouterStore(Protocol):
    """The router's tables."""

    def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Read the heads; raise `Stopped` where a partition has no row."""
        ...

    def read(
        self,
        partitions: Collection[int],
        lead_ids: Collection[str],
        *,
        counters: Collection[str] = (),
        money: Collection[MoneyRow] = (),
    ) -> Snapshot:
        """Read the heads, the clock and the market's version, and after them the rest. Raise `StartAgain`."""
        ...

    def counters(self, counters: Collection[str]) -> Sequence[CounterRow]:
        """Read counters without locks; one that is not there has nothing used of it."""
        ...

    def auctions(self, partitions: Collection[int]) -> Sequence[AuctionRow]:
        """Read the open auctions of partitions."""
        ...

    def commit(self, commits: Sequence[PartitionCommit], draws: Draws = NO_DRAWS) -> Sequence[CounterRow]:
        """Commit all or nothing, and return the counters drawn on as they are after it.

        Raise `Overtaken`, which comes before all else, `PromiseBroken`, `LimitsShort`, `TryAgain` or `StartAgain`.
        """
        ...

    def commit_locked(
        self,
        partitions: Collection[int],
        counters: Collection[str],
        decide: Callable[[Sequence[CounterRow]], tuple[Sequence[PartitionCommit], Draws]],
    ) -> Sequence[CounterRow]:
        """Lock heads and then counters, have the batch decided on what these hold, and commit it, in one transaction.

        What `decide` raises rolls back and is raised. Raise as `commit` does.
        """
        ...

    def move_marks(self, marks: Sequence[Mark]) -> None:
        """Move marks in a transaction of their own; raise as `commit` does."""
        ...

    def entries(self, partition: int, *, after_seq: int, limit: int) -> Sequence[LogRow]:
        """Read committed entries in order."""
        ...

    def behind(self, partition: int) -> Collection[str]:
        """Name the recipients that have undelivered records of a partition."""
        ...

    def undelivered(self, behind: Collection[Behind], *, each: int, limit: int) -> Sequence[UndeliveredRow]:
        """Read the first `each` records of each of these, `limit` at most in all, in the order of the log."""
        ...

    def entry_values(self, rows: Collection[UndeliveredRow]) -> Mapping[tuple[int, int], bytes]:
        """Read the entries that these rows belong to, by (partition, seq)."""
        ...

    def delivered(self, rows: Collection[UndeliveredRow]) -> None:
        """Forget rows whose records were acknowledged, or have failed for good."""
        ...

    def adopt_log_topic(self, partition: int, topic_id: str) -> None:
        """Store the id of the log's topic with a head that has none yet (rule 21)."""
        ...

    def drop_old_log_ranges(self) -> Sequence[str]:
        """Drop ranges of the log's table that are published, delivered and 7 days old; return their names."""
        ...

    def drop_old_counters(self) -> int:
        """Drop some of the counters whose period ended long ago; return how many."""
        ...


class VaultReader(Protocol):
    """Reads the sealed part of leads; the router never writes it."""

    def read(self, lead_ids: Collection[str]) -> Mapping[str, bytes]:
        """Open the vault's rows of these leads, as JSON bytes; an erased lead is absent."""
        ...


class LogTail(Protocol):
    """Looks at the end of a partition, of `leads.log` (rule 22) and of `leads.commands`."""

    def topic_id(self) -> str:
        """Read the id that the topic was given when it was made."""
        ...

    def commands_end(self, partition: int) -> int:
        """Read the offset behind the last command that is there now (rule 27)."""
        ...

    def last_value(self, partition: int) -> bytes | None:
        """Read the last record's value; None where the partition is empty."""
        ...
