"""The one thread in which every method of a hosted step is called, and what it and the pump's thread ask of each other.

The pump waits for the step in rebalances; the step may meanwhile ask the pump for something that only the pump's thread
can do, because confluent-kafka makes every other thread wait until a poll, callbacks included, is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, TypeVar

from services.bus.ports import BusFailed

STEP_ANSWERS_WITHIN_S = 80.0
"""How long a rebalance waits for the step, which may be waiting for a broker that restarts to take what must not be
lost; less than the poll interval after which the group gives up on us."""

_LOOK_UP_EVERY_S = 0.1

T = TypeVar("T")


class StepThread:
    """Queues calls of the step's methods and makes them in order."""

    def __init__(self) -> None:
        """Start the thread with its first call."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="step")
        self._errands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = Lock()
        self._queued = 0
        self._free_s = 0.0
        self._free_since_s = time.monotonic()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call. May be called by any thread."""
        with self._lock:
            if self._queued == 0:
                self._free_s += time.monotonic() - self._free_since_s
            self._queued += 1
        future = self._executor.submit(call)
        future.add_done_callback(self._note_done)
        return future

    def free_s(self) -> float:
        """Say for how long there has been no call to make since the start, all in all."""
        with self._lock:
            return self._free_s + (0.0 if self._queued else time.monotonic() - self._free_since_s)

    def call(
        self,
        call: Callable[[], T],
        *,
        within_s: float = STEP_ANSWERS_WITHIN_S,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> T:
        """Wait for a call, behind those queued before it, doing what the step asks for until then.

        Called by the pump's thread, which does `meanwhile` now and then. Raises what the call raises, or `BusFailed`
        when it takes too long.
        """
        future = self.submit(call)
        future.add_done_callback(lambda _: self._errands.put(_nothing))
        ends_at_s = time.monotonic() + within_s
        while not future.done():
            if time.monotonic() >= ends_at_s:
                raise BusFailed(f"the step did not answer within {within_s:.0f} s")
            self._run_errand(min(_LOOK_UP_EVERY_S, within_s))
            meanwhile()
        return future.result()

    def run_errands(self) -> None:
        """Do what the step has asked for. Called by the pump's thread."""
        while not self._errands.empty():
            self._run_errand(0.0)

    def ask(self, call: Callable[[], T], *, within_s: float) -> T:
        """Have the pump's thread make a call, and wait for it. Called by the step, in its own thread."""
        answer: Future[T] = Future()
        self._errands.put(lambda: _answer(answer, call))
        try:
            return answer.result(within_s)
        except TimeoutError:
            raise BusFailed(f"Kafka's client did not answer within {within_s:.0f} s") from None

    def end(self) -> None:
        """Take no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _note_done(self, _: Future[Any]) -> None:
        with self._lock:
            self._queued -= 1
            self._free_since_s = time.monotonic()

    def _run_errand(self, within_s: float) -> None:
        try:
            errand = self._errands.get(timeout=within_s) if within_s else self._errands.get_nowait()
        except Empty:
            return
        errand()


def _answer(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except Exception as error:  # noqa: BLE001  # raised where it was asked for
        answer.set_exception(error)


def _nothing() -> None:
    """Wake who waits."""
