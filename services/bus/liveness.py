"""Whether this worker may still take itself for the owner of its partitions.

A poll that returns nothing proves nothing: librdkafka polls happily while it is fenced or cut off. What proves
membership is an answer of the group's coordinator, so the proof here is an acknowledged commit of positions: when it
was asked for, the group knew this member, and gives its partitions to no other before a session timeout from then on.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def monotonic_s() -> float:
    """Read the clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


_TURN_AT_MOST_S = 1.0


class Liveness:
    """Says whether the group knew us less than half a session timeout ago (protocol.md, rule 15)."""

    def __init__(self, session_timeout_ms: int, *, clock_s: Callable[[], float] = monotonic_s) -> None:
        """Begin as not alive."""
        self._clock_s = clock_s
        self._lasts_s = session_timeout_ms / 2_000
        self._until_s = float("-inf")

    def alive(self) -> bool:
        """Say whether what needs ownership, such as sending contact details, may be done now."""
        return self._clock_s() < self._until_s

    def prove(self, asked_at_s: float) -> None:
        """Take note that the group knew us at `asked_at_s`."""
        self._until_s = max(self._until_s, asked_at_s + self._lasts_s)

    def lose(self) -> None:
        """Take note that the group has dropped us."""
        self._until_s = float("-inf")


class Silence:
    """Adds up for how long the group has left a worker unanswered that has partitions.

    A client may never find its coordinator again after a broker was away, and say nothing of it. Time in which the
    worker itself stood still does not count: it could not have heard an answer.
    """

    def __init__(self, *, clock_s: Callable[[], float] = monotonic_s) -> None:
        """Begin with none."""
        self._clock_s = clock_s
        self._looked_at_s = clock_s()
        self._lasts_s = 0.0

    def lasts_s(self, *, is_answered: bool) -> float:
        """Take note, at every turn, of whether there was an answer lately, and say for how long there was none."""
        now_s = self._clock_s()
        passed_s, self._looked_at_s = now_s - self._looked_at_s, now_s
        self._lasts_s = 0.0 if is_answered else self._lasts_s + min(passed_s, _TURN_AT_MOST_S)
        return self._lasts_s
