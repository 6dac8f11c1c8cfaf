"""Ctrl-C, SIGTERM and SIGHUP, as one: the first ends the demo, and no second one disturbs the end.

It ends nothing itself: it raises KeyboardInterrupt where the demo stands, and whoever started something stops it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruptions:
    """The signals that end the demo. Only the main thread may make one."""

    def __init__(self) -> None:
        """Take over the signals."""
        self._is_deferring = False
        self._has_come = False
        self._before: dict[signal.Signals, Any] = {each: signal.signal(each, self._come) for each in SIGNALS}

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let what must not be cut in two be done first: a process that is started and not yet on our list."""
        self._is_deferring = True
        try:
            yield
        finally:
            self._is_deferring = False
        if self._has_come:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Let no signal disturb what follows, the orderly end."""
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    def give_back(self) -> None:
        """Let the signals mean what they meant before."""
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _come(self, _number: int, _frame: FrameType | None) -> None:
        self.hold()
        self._has_come = True
        if not self._is_deferring:
            raise KeyboardInterrupt
