"""The kinds of faults, where each can strike, and the edges of effects at which they do.

What a fault does to the world is in `world`; here is what it is, how often it is planned, and which effects of which
step it waits for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.bus.memory import Faults

STEPS = ("intake", "router", "resale", "billing", "feed")


class FaultKind(StrEnum):
    """What can go wrong. The comment at each kind in `STRIKES` says what it is in the world outside."""

    CRASH = "crash"
    COMMIT_LOST = "commit_lost"
    COMMIT_UNANSWERED = "commit_unanswered"
    REFUSED = "refused"
    READ_LOST = "read_lost"
    DATABASE_DOWN = "database_down"
    PRODUCE_FAILED = "produce_failed"
    ACK_LOST = "ack_lost"
    TOO_LARGE = "too_large"
    SLOW_RECIPIENT = "slow_recipient"
    PAUSED = "paused"
    INTERLEAVED = "interleaved"
    MARKET_MIDWAY = "market_midway"
    REBALANCE = "rebalance"
    ZOMBIE = "zombie"
    SHUTDOWN = "shutdown"
    NOT_ALIVE = "not_alive"
    POLL_DELAYED = "poll_delayed"
    REDELIVERED = "redelivered"
    GAP = "gap"
    POSITIONS_LOST = "positions_lost"
    CLOCK_STEP = "clock_step"
    CLOCK_LEAP = "clock_leap"
    LOG_TAIL_LOST = "log_tail_lost"
    VAULT_GONE = "vault_gone"
    SENT_TWICE = "sent_twice"
    SENT_LATE = "sent_late"
    SENT_AND_LOST = "sent_and_lost"


class Strike(StrEnum):
    """When a fault strikes: at an edge of an effect, a poll, a record written, at once, or at an outsider's send."""

    EDGE = "edge"
    POLL = "poll"
    PRODUCE = "produce"
    WORLD = "world"
    SEND = "send"


Names = Mapping[str, frozenset[str]]
"""By step, the names of the edges that a fault waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Striking:
    """How a kind of fault strikes, how often it is planned, and up to how many chances it lets pass."""

    strike: Strike
    weight: float
    edges_max: int = 1
    names: Names | None = None


COMMITS: Names = {
    "intake": frozenset({"commit"}),
    "router": frozenset({"commit", "lock", "mark"}),
}
COMMITTED: Names = {
    "intake": frozenset({"committed"}),
    "router": frozenset({"committed", "marked"}),
    "billing": frozenset({"ledger committed"}),
    "resale": frozenset({"windows committed", "sends marked"}),
    "feed": frozenset({"feed moved"}),
}
REFUSABLE: Names = {
    "intake": frozenset({"begin"}),
    "router": frozenset({"commit", "lock", "mark", "read", "forget delivered"}),
}
READS: Names = {"router": frozenset({"read", "between reads", "heads", "auctions"})}
DATABASE: Names = {
    "intake": COMMITS["intake"] | {"begin"},
    "router": COMMITS["router"] | {"read", "heads", "auctions", "forget delivered"},
    "billing": frozenset({"ledger positions", "ledger begin", "ledger commit"}),
    "resale": frozenset({"positions of windows", "look at windows", "commit of windows", "mark of sends"}),
    "feed": frozenset({"positions of the feed", "move of the feed"}),
}
"""What fails while the database is down."""

LOCKED: Names = {
    "intake": frozenset({"commit"}),
    "router": frozenset({"mark"}),
    "billing": frozenset({"ledger begin", "ledger rows", "ledger commit"}),
}
"""Inside a transaction, whose locks keep others waiting: nobody else may act there."""

_WRITERS = frozenset({"intake", "router", "resale", "feed"})

STRIKES: Mapping[FaultKind, Striking] = {
    # The process is killed between any two effects.
    FaultKind.CRASH: Striking(strike=Strike.EDGE, weight=8, edges_max=40),
    # The connection is lost in COMMIT, and nothing was committed.
    FaultKind.COMMIT_LOST: Striking(strike=Strike.EDGE, weight=3, edges_max=4, names=COMMITS),
    # The connection is lost in COMMIT, and all was committed.
    FaultKind.COMMIT_UNANSWERED: Striking(strike=Strike.EDGE, weight=4, edges_max=4, names=COMMITTED),
    # A deadlock, a lock timeout.
    FaultKind.REFUSED: Striking(strike=Strike.EDGE, weight=2, edges_max=4, names=REFUSABLE),
    # The connection is lost while reading.
    FaultKind.READ_LOST: Striking(strike=Strike.EDGE, weight=1, edges_max=4, names=READS),
    # The database is restarted: everything that asks it fails for a while.
    FaultKind.DATABASE_DOWN: Striking(strike=Strike.WORLD, weight=1),
    # A broker takes a part of a batch and refuses the rest; or the unacknowledged tail of a partition is lost with it.
    FaultKind.PRODUCE_FAILED: Striking(strike=Strike.PRODUCE, weight=3, edges_max=12),
    # A record is written, and the writer told that it was not, or told nothing.
    FaultKind.ACK_LOST: Striking(strike=Strike.PRODUCE, weight=4, edges_max=12),
    # A broker will never take this record.
    FaultKind.TOO_LARGE: Striking(strike=Strike.PRODUCE, weight=1.5, edges_max=8),
    # A recipient's topic acknowledges nothing for a while; some of it is written all the same, at once or late.
    FaultKind.SLOW_RECIPIENT: Striking(strike=Strike.WORLD, weight=3),
    # A worker stands still on any line until others have its partitions, works on, and is told then.
    FaultKind.PAUSED: Striking(strike=Strike.EDGE, weight=5, edges_max=30),
    # Other workers work on between any two effects of this one.
    FaultKind.INTERLEAVED: Striking(strike=Strike.EDGE, weight=4, edges_max=20),
    # A new version of the market is applied between any two effects.
    FaultKind.MARKET_MIDWAY: Striking(strike=Strike.EDGE, weight=2, edges_max=20),
    # A worker joins, or leaves without a word, and the partitions change hands.
    FaultKind.REBALANCE: Striking(strike=Strike.WORLD, weight=3),
    # Others have a worker's partitions, and it does not know for some turns.
    FaultKind.ZOMBIE: Striking(strike=Strike.WORLD, weight=4),
    # SIGTERM: a worker leaves in order.
    FaultKind.SHUTDOWN: Striking(strike=Strike.WORLD, weight=2),
    # A worker is not sure to be a member of its group for a while.
    FaultKind.NOT_ALIVE: Striking(strike=Strike.WORLD, weight=2),
    # A partition's records are not fetched for a while, those of others are.
    FaultKind.POLL_DELAYED: Striking(strike=Strike.WORLD, weight=3),
    # A worker is handed records again that it has had.
    FaultKind.REDELIVERED: Striking(strike=Strike.WORLD, weight=3),
    # A worker is handed records with some before them missing.
    FaultKind.GAP: Striking(strike=Strike.POLL, weight=2, edges_max=3),
    # The group forgets the last positions that intake committed.
    FaultKind.POSITIONS_LOST: Striking(
        strike=Strike.EDGE, weight=1, edges_max=4, names={"intake": frozenset({"positions"})}
    ),
    # The database's clock is put right within the limit.
    FaultKind.CLOCK_STEP: Striking(strike=Strike.WORLD, weight=2),
    # The database's clock goes wrong by more than the limit: workers must stop.
    FaultKind.CLOCK_LEAP: Striking(strike=Strike.WORLD, weight=1),
    # Brokers lose what they have acknowledged, against every setting: readers must stop, and an operator mend it.
    FaultKind.LOG_TAIL_LOST: Striking(strike=Strike.WORLD, weight=0.7),
    # A lead's sealed row is gone before its delivery.
    FaultKind.VAULT_GONE: Striking(strike=Strike.WORLD, weight=1),
    # An outsider's or operator's record is appended twice.
    FaultKind.SENT_TWICE: Striking(strike=Strike.SEND, weight=3, edges_max=3),
    # It is appended late, behind what was sent after it.
    FaultKind.SENT_LATE: Striking(strike=Strike.SEND, weight=2, edges_max=3),
    # It is lost before it was acknowledged, and not sent again.
    FaultKind.SENT_AND_LOST: Striking(strike=Strike.SEND, weight=1.5, edges_max=3),
}


def steps_of(kind: FaultKind) -> Sequence[str]:
    """Name the steps that a kind of fault can strike, those where most happens more often."""
    striking = STRIKES[kind]
    every = ("intake", "router", "router", "router", "resale", "billing", "feed")
    match kind:
        case FaultKind.TOO_LARGE:
            return ("intake", "router", "router")
        case FaultKind.MARKET_MIDWAY:
            return ("intake", "router")
        case FaultKind.NOT_ALIVE:
            return ("router",)
        case FaultKind.GAP:
            return ("router", "router", "resale", "billing", "feed")
        case _:
            pass
    if striking.names is not None:
        return [step for step in every if step in striking.names]
    if striking.strike is Strike.PRODUCE:
        return [step for step in every if step in _WRITERS]
    if striking.strike is Strike.SEND or kind in _OF_NO_STEP:
        return ("",)
    return every


_OF_NO_STEP = frozenset(
    {
        FaultKind.DATABASE_DOWN,
        FaultKind.SLOW_RECIPIENT,
        FaultKind.CLOCK_STEP,
        FaultKind.CLOCK_LEAP,
        FaultKind.LOG_TAIL_LOST,
        FaultKind.VAULT_GONE,
    }
)


def may_strike(kind: FaultKind, step: str, name: str) -> bool:
    """Tell whether a fault of this kind can strike at this edge."""
    if kind in _LETS_OTHERS_ACT and name in LOCKED.get(step, ()):
        return False
    names = STRIKES[kind].names
    return names is None or name in names.get(step, ())


_LETS_OTHERS_ACT = frozenset({FaultKind.PAUSED, FaultKind.INTERLEAVED, FaultKind.MARKET_MIDWAY})


class Struck(Protocol):
    """Whoever is to know that a worker passes an edge."""

    def pass_edge(self, name: str) -> None:
        """Do what is to happen at this edge: return, raise, or let others act before."""
        ...


class Edges(Faults):
    """The edges of one worker's effects, announced to the world."""

    def __init__(self, struck: Struck) -> None:
        """Announce to `struck`."""
        super().__init__()
        self._pass = struck.pass_edge

    def edge(self, name: str) -> None:
        """See `Faults`."""
        self._pass(name)
