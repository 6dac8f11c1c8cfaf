"""Lets the planned faults strike: at edges of effects, at records written or sent, and in the world at large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING

from services.bus.memory import Crash
from services.bus.ports import BusFailed, Message, PassingFault, TopicPartition, Unacknowledged
from services.contract.events import FailureReason
from services.router.faults import StartAgain, TryAgain
from tests.simulation.faults import DATABASE, STRIKES, FaultKind, Strike, may_strike
from tests.simulation.fleet import Fleet, Later, Worker
from tests.simulation.markets import BUYERS, SOURCES
from tests.simulation.world import PARTITIONS, TOPICS, PositionsForgotten, World, refused

if TYPE_CHECKING:
    from tests.simulation.schedule import Fault

DEPTH_MAX = 2
"""So many workers may stand still inside each other's turns."""


class _Armed:
    """A fault whose time has come, and how many chances it still lets pass."""

    __slots__ = ("fault", "left")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.edges


class Striker:
    """See `fleet.Trouble`."""

    def __init__(self, world: World, fleet: Fleet, rng: Random, later: Later) -> None:
        """Nothing is wrong yet."""
        self.fired: Counter[FaultKind] = Counter()
        self._world = world
        self._fleet = fleet
        self._rng = rng
        self._later = later
        self._armed: dict[tuple[Strike, str], list[_Armed]] = {}
        self._depth = 0
        self._down_until_ms = 0
        self._clock_behind_ms = 0
        self._slow_until_ms: dict[str, int] = {}
        self._withheld_until_ms: dict[TopicPartition, int] = {}
        self.too_large: set[tuple[str, str]] = set()
        """The records that no broker takes, by topic and ce_id; a dead letter by partition and offset of its record."""
        self._striking: Mapping[FaultKind, Callable[[Fault], bool]] = {
            FaultKind.DATABASE_DOWN: self._database_down,
            FaultKind.SLOW_RECIPIENT: self._slow_recipient,
            FaultKind.REBALANCE: self._rebalance,
            FaultKind.ZOMBIE: self._zombie,
            FaultKind.SHUTDOWN: self._shutdown,
            FaultKind.NOT_ALIVE: self._not_alive,
            FaultKind.POLL_DELAYED: self._poll_delayed,
            FaultKind.REDELIVERED: self._redelivered,
            FaultKind.CLOCK_STEP: self._clock_step,
            FaultKind.CLOCK_LEAP: self._clock_leap,
            FaultKind.LOG_TAIL_LOST: self._log_tail_lost,
            FaultKind.VAULT_GONE: self._vault_gone,
        }

    def arm(self, fault: Fault) -> None:
        """Let a fault strike, now or at its next chance."""
        strike = STRIKES[fault.kind].strike
        if strike is not Strike.WORLD:
            self._armed.setdefault((strike, fault.step), []).append(_Armed(fault))
        elif self._striking[fault.kind](fault):
            self._count(fault)

    def heal(self) -> None:
        """Let nothing more go wrong, and what is wrong end."""
        self._armed.clear()
        self._down_until_ms = 0
        self._slow_until_ms.clear()
        self._withheld_until_ms.clear()
        self.set_clock(self._clock_behind_ms)
        for worker in self._fleet.everyone():
            worker.not_alive_until_ms = 0

    def is_withheld(self, where: TopicPartition) -> bool:
        """See `Trouble`."""
        until_ms = self._withheld_until_ms.get(where)
        return until_ms is not None and until_ms > self._now_ms

    def skipped(self, worker: Worker, unread: int) -> int:
        """See `Trouble`."""
        armed = self._armed.get((Strike.POLL, worker.step))
        if not armed or unread < 2:
            return 0
        item = armed[0]
        item.left -= 1
        if item.left > 0:
            return 0
        armed.pop(0)
        self._count(item.fault, worker.name)
        return 1 + item.fault.size % (unread - 1)

    @property
    def _now_ms(self) -> int:
        return self._world.clock.now_ms

    def _count(self, fault: Fault, where: str = "") -> None:
        self.fired[fault.kind] += 1
        self._fleet.note(None, f"FAULT {fault.number} {fault.kind} {fault.step} {where}")

    # Edges of effects

    def at_edge(self, worker: Worker, name: str) -> None:
        """See `Trouble`."""
        if self._down_until_ms > self._now_ms and name in DATABASE[worker.step]:
            self._lose_connection(worker, name)
        armed = self._armed.get((Strike.EDGE, worker.step))
        if armed:
            self._strike_at_edge(armed, worker, name)

    def _strike_at_edge(self, armed: list[_Armed], worker: Worker, name: str) -> None:
        for item in armed:
            kind = item.fault.kind
            if not may_strike(kind, worker.step, name):
                continue
            if kind in _NESTING and self._depth >= DEPTH_MAX:
                continue
            item.left -= 1
            if item.left <= 0:
                armed.remove(item)
                self._count(item.fault, f"at {worker.name}, {name}")
                self._strike(item.fault, worker, name)
            return

    def _strike(self, fault: Fault, worker: Worker, name: str) -> None:
        match fault.kind:
            case FaultKind.CRASH:
                raise Crash(name)
            case FaultKind.COMMIT_LOST | FaultKind.COMMIT_UNANSWERED | FaultKind.READ_LOST:
                self._lose_connection(worker, name)
            case FaultKind.REFUSED:
                raise (TryAgain if worker.step == "router" else PassingFault)("simulated: refused")
            case FaultKind.POSITIONS_LOST:
                raise PositionsForgotten
            case FaultKind.MARKET_MIDWAY:
                if self._world.apply_market():
                    self._later(0, "apply market", None)
            case FaultKind.INTERLEAVED:
                self._nested(worker, 1 + fault.size % 6)
            case FaultKind.PAUSED:
                self._pause(worker, fault)
            case _:
                raise AssertionError(f"{fault.kind} does not strike at an edge")

    def _lose_connection(self, worker: Worker, name: str) -> None:
        """Let a worker lose the database."""
        lost = StartAgain if worker.step == "router" else PassingFault
        raise lost(f"simulated: connection lost at {name}")

    def _pause(self, worker: Worker, fault: Fault) -> None:
        """Let a worker stand still on this line, until others have its partitions and have worked."""
        self._fleet.expel(worker, 1 + fault.size % 4)
        self._world.clock.advance((20, 900, 7_000)[fault.size % 3])
        self._nested(worker, 2 + fault.size % 12)

    def _nested(self, worker: Worker, turns: int) -> None:
        self._depth += 1
        try:
            self._fleet.let_others_work(worker, turns)
        finally:
            self._depth -= 1

    # Records that are written

    def at_record(self, worker: Worker, message: Message, *, gives_up: bool) -> Unacknowledged | None:
        """See `Trouble`."""
        if gives_up:
            return self._to_outsider(worker, message)
        kind = self._due_at_record(worker.step, _FOR_GOOD)
        if kind is FaultKind.PRODUCE_FAILED:
            raise BusFailed("simulated: a record was not taken")
        self._world.kafka.append(message)
        if kind is FaultKind.ACK_LOST:
            raise BusFailed("simulated: a record was not acknowledged")
        return None

    def _to_outsider(self, worker: Worker, message: Message) -> Unacknowledged | None:
        name = _name(message)
        if name in self.too_large:
            return refused("too large", FailureReason.RECORD_TOO_LARGE)
        until_ms = self._slow_until_ms.get(message.topic, 0)
        if until_ms > self._now_ms:
            return self._unacknowledged(message, until_ms)
        match self._due_at_record(worker.step, _GIVING_UP):
            case FaultKind.TOO_LARGE:
                self.too_large.add(name)
                return refused("too large", FailureReason.RECORD_TOO_LARGE)
            case FaultKind.PRODUCE_FAILED:
                return refused("simulated: not taken")
            case FaultKind.ACK_LOST:
                self._world.kafka.append(message)
                return refused("simulated: not acknowledged")
            case _:
                self._world.kafka.append(message)
                return None

    def _unacknowledged(self, message: Message, until_ms: int) -> Unacknowledged:
        """Write what a slow recipient's topic is sent now, or late, or never."""
        fate = self._rng.random()
        if fate < 0.3:
            self._world.kafka.append(message)
        elif fate < 0.5:
            self._later(until_ms - self._now_ms, "append", message)
        return refused("simulated: slow")

    def _due_at_record(self, step: str, kinds: frozenset[FaultKind]) -> FaultKind | None:
        armed = self._armed.get((Strike.PRODUCE, step))
        for item in armed or ():
            if item.fault.kind in kinds:
                item.left -= 1
                if item.left <= 0:
                    assert armed is not None
                    armed.remove(item)
                    self._count(item.fault)
                    return item.fault.kind
                return None
        return None

    def send(self, message: Message) -> None:
        """Send an outsider's or operator's record, unless something becomes of it on the way."""
        armed = self._armed.get((Strike.SEND, ""))
        kind = None
        if armed:
            item = armed[0]
            item.left -= 1
            if item.left <= 0:
                armed.pop(0)
                self._count(item.fault, message.topic)
                kind = item.fault.kind
        if kind is FaultKind.SENT_LATE:
            self._later(self._rng.choice((50, 2_000, 70_000)), "append", message)
        elif kind is not FaultKind.SENT_AND_LOST:
            self._world.kafka.append(message)
        elif message.topic.startswith("sources."):
            self._later(3_000, "append", message)  # a source keeps what was not acknowledged
        if kind is FaultKind.SENT_TWICE:
            self._world.kafka.append(message)

    # The world at large: each says whether there was anything to strike at

    def _database_down(self, fault: Fault) -> bool:
        # A restart; or an outage, some of which last longer than a worker waits.
        self._down_until_ms = self._now_ms + fault.size * (100 if fault.size % 5 == 0 else 1)
        return True

    def _slow_recipient(self, fault: Fault) -> bool:
        topics = [TOPICS.buyer_leads(id) for id in BUYERS] + [TOPICS.buyer_pings(id) for id in BUYERS]
        topics += [TOPICS.source_receipts(id) for id in SOURCES]
        self._slow_until_ms[self._rng.choice(topics)] = self._now_ms + fault.size * 20
        return True

    def _member(self, fault: Fault) -> Worker | None:
        members = [worker for worker in self._fleet.members[fault.step] if not worker.busy]
        return self._rng.choice(members) if members else None

    def _rebalance(self, fault: Fault) -> bool:
        self._fleet.rebalance(fault.step, joining=fault.size % 2)
        return True

    def _zombie(self, fault: Fault) -> bool:
        worker = self._member(fault)
        if worker is not None:
            self._fleet.expel(worker, 2 + fault.size % 12)
        return worker is not None

    def _shutdown(self, fault: Fault) -> bool:
        worker = self._member(fault)
        if worker is not None:
            self._fleet.leave(worker)
        return worker is not None

    def _not_alive(self, fault: Fault) -> bool:
        worker = self._member(fault)
        if worker is not None:
            worker.not_alive_until_ms = self._now_ms + fault.size * 2
        return worker is not None

    def _poll_delayed(self, fault: Fault) -> bool:
        worker = self._member(fault)
        if worker is None or not worker.positions:
            return False
        where = self._rng.choice(sorted(worker.positions))
        self._withheld_until_ms[where] = self._now_ms + fault.size * 3
        return True

    def _redelivered(self, fault: Fault) -> bool:
        worker = self._member(fault)
        read = sorted(at for at, offset in worker.positions.items() if offset) if worker else []
        if worker is None or not read:
            return False
        where = self._rng.choice(read)
        worker.positions[where] -= min(worker.positions[where], 1 + fault.size % 20)
        return True

    def _clock_step(self, fault: Fault) -> bool:
        self._world.database_clock.ahead_ms += (fault.size * 50) * (1 if fault.size % 3 else -1)
        return True

    def _clock_leap(self, fault: Fault) -> bool:
        by_ms = (61_000 + fault.size * 200) * (1 if fault.size % 2 else -1)
        self._world.database_clock.ahead_ms += by_ms
        if by_ms < 0:
            self._clock_behind_ms -= by_ms
            self._later(5_000 + fault.size * 10, "set clock", -by_ms)
        return True

    def set_clock(self, by_ms: int) -> None:
        """Let an operator put a clock right that went back too far, as far as that was not done yet."""
        by_ms = min(by_ms, self._clock_behind_ms)
        self._clock_behind_ms -= by_ms
        self._world.database_clock.ahead_ms += by_ms

    def _log_tail_lost(self, fault: Fault) -> bool:
        where = TopicPartition(TOPICS.log, fault.size % PARTITIONS)
        return self._world.kafka.cut(where, 1 + fault.size % 4) > 0

    def _vault_gone(self, fault: Fault) -> bool:
        del fault
        rows = self._world.intake.details
        if not rows:
            return False
        lead_id = next(reversed(rows))
        self._world.vault.erase([lead_id])
        return True


_NESTING = frozenset({FaultKind.PAUSED, FaultKind.INTERLEAVED})
_FOR_GOOD = frozenset({FaultKind.PRODUCE_FAILED, FaultKind.ACK_LOST})
_GIVING_UP = _FOR_GOOD | {FaultKind.TOO_LARGE}


def _name(message: Message) -> tuple[str, str]:
    """Name a record to an outsider, the same each time it is written: a dead letter by the record that it is."""
    headers = dict(message.headers)
    ce_id = headers.get("ce_id")
    if ce_id is None:
        return message.topic, f"{message.partition}:{headers['dlq.errors.offset'].decode()}"
    return message.topic, ce_id.decode()
