"""Every metric of the resale timer, in one typed list; no decision reads one."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.resale.domain import DueWindow

_LATE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1_800.0)


class ResaleMetrics:
    """What the timer counts of the windows that it sends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin at zero."""
        sent = Counter(
            "gavel_resale_sent_total",
            "Windows sent because they were due: for the first time, or again.",
            ["again"],
            registry=registry,
        )
        self._first, self._again = sent.labels("no"), sent.labels("yes")
        self._late_seconds = Histogram(
            "gavel_resale_late_seconds",
            "Time from a window being due until it was sent, of the latest one of each look.",
            buckets=_LATE_SECONDS,
            registry=registry,
        )

    def count(self, sent: Sequence[DueWindow], now_ms: int) -> None:
        """Take note of what was sent at one look."""
        due_since_ms = [window.due_at_ms for window in sent if not window.sends]
        self._first.inc(len(due_since_ms))
        self._again.inc(len(sent) - len(due_since_ms))
        if due_since_ms:
            self._late_seconds.observe((now_ms - min(due_since_ms)) / 1_000)
