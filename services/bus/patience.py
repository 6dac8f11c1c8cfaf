"""The one policy for faults that pass: begin again after a pause that grows, say so, and stop when it lasts too long.

It knows no server and no step. What failed was not done, or nobody knows whether it was, and of a step in which that
happened nothing is believed: all its partitions begin again at their stored positions. Nothing waits in the middle of a
call, so a worker that waits stays in its group, answers rebalances and can be stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from services.bus.logging import told
from services.bus.ports import PassingFault, Record, Step, Stopped, Timed, TopicPartition

WAITS_FOR_AT_MOST_S = 75.0
"""A server that restarts is back by then; one that stays away wants somebody."""

LONGEST_PAUSE_S = 1.0
ALARM_AFTER_S = 5.0
_SECOND_PAUSE_S = 0.05

_CALM_AFTER_S = 5.0
"""A step without records that had no fault for so long has none any more."""

_log = structlog.get_logger(__name__)


class Patience:
    """Counts the faults of one worker that come one after the other, and says when to try again."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        """Begin without a fault."""
        self.waits_for: str | None = None
        self._monotonic_s = monotonic_s
        self._faults = 0
        self._began_at_s = 0.0
        self._last_at_s = 0.0
        self._is_alarming = False

    def pause_s(self) -> float:
        """Say for how long nothing is to be tried."""
        if not self._faults:
            return 0.0
        return max(0.0, self._last_at_s + _pause_s(self._faults) - self._monotonic_s())

    def note(self, fault: PassingFault) -> None:
        """Take note of a fault; raise `Stopped` where they have gone on for too long."""
        now_s = self._monotonic_s()
        if not self._faults:
            self._began_at_s = now_s
        self._faults, self._last_at_s = self._faults + 1, now_s
        self.waits_for = str(fault)
        lasts_s = now_s - self._began_at_s
        if lasts_s > WAITS_FOR_AT_MOST_S:
            raise Stopped(
                f"{self._faults} tries in {lasts_s:.0f} s have failed: {fault}. Nothing is lost: see that the database "
                "and Kafka answer (`gavel stack doctor`), then start the worker again"
            ) from fault
        if self._faults == 1:
            _log.warning("a passing fault: beginning again", error=told(fault))
        if lasts_s >= ALARM_AFTER_S and not self._is_alarming:
            self._is_alarming = True
            _log.error("the worker waits for a server", error=told(fault), for_at_most_s=WAITS_FOR_AT_MOST_S)

    def worked(self) -> None:
        """Take note that something was done: no fault is left."""
        if self._is_alarming:
            _log.warning("the worker goes on", after_s=round(self._monotonic_s() - self._began_at_s, 1))
        self._faults, self._is_alarming, self.waits_for = 0, False, None

    def was_calm(self) -> None:
        """Take note that nothing had to be done and nothing failed."""
        if self._faults and self._monotonic_s() - self._last_at_s >= _CALM_AFTER_S:
            self.worked()


class PatientStep:
    """A `Step` around another that begins all its partitions again after a `PassingFault`, when the pause is over.

    Until then none of them is read and the other step is not called: what it knows may be wrong.
    """

    def __init__(
        self, step: Step, *, monotonic_s: Callable[[], float], on_fault: Callable[[], object] = lambda: None
    ) -> None:
        """Stand before `step`; `on_fault` hears of each fault."""
        self._step = step
        self._on_fault = on_fault
        self._patience = Patience(monotonic_s)
        self._owned: set[TopicPartition] = set()
        self._waiting: set[TopicPartition] = set()
        self._has_asked = False
        self._put_off_ms: int | None = None

    @property
    def waits_for(self) -> str | None:
        """Say which fault is waited out: until something was done, or nothing failed for a while."""
        return self._patience.waits_for

    def put_off_ms(self) -> int | None:
        """Give the time of the oldest record that a fault, which is waited out, has kept from being handled."""
        return self._put_off_ms if self.waits_for is not None else None

    def waits(self) -> bool:
        """Tell whether the step is not called now."""
        return bool(self._waiting) or self._patience.pause_s() > 0

    def pause_s(self) -> float:
        """Say for how long nothing is to be tried."""
        return self._patience.pause_s()

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin these partitions; none of them where that must wait."""
        self._owned.update(assigned)
        self._has_asked = False
        if self._patience.pause_s() > 0:
            self._waiting.update(assigned)
            return {}
        try:
            starts = self._step.take_over(assigned)
        except PassingFault as fault:
            self._note(fault)
            return {}
        self._waiting.difference_update(assigned)
        return starts

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Forget the partitions."""
        self._owned.difference_update(revoked)
        self._waiting.difference_update(revoked)
        try:
            self._step.release(revoked)
        except PassingFault as fault:
            self._note(fault)

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Let the step work on a batch, unless it waits."""
        if self.waits():
            return self._due_again()
        try:
            again = self._step.handle(records)
        except PassingFault as fault:
            self._note(fault, records)
            return self._all_again()
        self._patience.worked()
        return again

    def idle(self) -> Collection[TopicPartition]:
        """Let the step do what is due, unless it waits."""
        if self.waits():
            return self._due_again()
        try:
            again = self._step.idle()
        except PassingFault as fault:
            self._note(fault)
            return self._all_again()
        self._patience.was_calm()
        return again

    def due_in_s(self) -> float | None:
        """Say when the pause is over, or the step wants to be called."""
        if self.waits():
            return self._patience.pause_s()
        return self._step.due_in_s() if isinstance(self._step, Timed) else None

    def _due_again(self) -> Collection[TopicPartition]:
        """Name what is to begin again now; in a pause, what was begun before it and must not be read either."""
        if self._patience.pause_s() > 0:
            return tuple(self._owned - self._waiting)
        return self._all_again()

    def _note(self, fault: PassingFault, records: Sequence[Record] = ()) -> None:
        self._on_fault()
        if self.put_off_ms() is None:
            self._put_off_ms = min((record.timestamp_ms for record in records), default=None)
        self._waiting.update(self._owned)
        self._patience.note(fault)

    def _all_again(self) -> Collection[TopicPartition]:
        """Ask for it once: the host may call us again before it comes to that."""
        asked = () if self._has_asked else tuple(self._owned)
        self._has_asked = True
        return asked


def _pause_s(faults: int) -> float:
    """The first fault is no reason to wait: a lost connection, a deadlock; the next ones are, twice as long each."""
    return 0.0 if faults <= 1 else min(LONGEST_PAUSE_S, _SECOND_PAUSE_S * 2.0 ** (faults - 2))
