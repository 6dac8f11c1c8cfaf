"""All of a step's methods run in one thread, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from services.bus.ports import BusFailed
from services.bus.step_thread import StepThread


@pytest.fixture
def thread() -> Iterator[StepThread]:
    thread = StepThread()
    yield thread
    thread.end()


def test_calls_run_in_one_other_thread_in_order(thread: StepThread) -> None:
    order: list[int] = []
    threads = {thread.submit(threading.get_ident).result(5) for _ in range(3)}
    for number in range(5):
        thread.submit(lambda number=number: order.append(number))  # type: ignore[misc]
    thread.call(lambda: order.append(5))
    assert order == [0, 1, 2, 3, 4, 5]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_raises_what_the_call_raises(thread: StepThread) -> None:
    def fail() -> None:
        raise TimeoutError("of the step's own")

    with pytest.raises(TimeoutError, match="of the step's own"):
        thread.call(fail)


def test_a_step_that_does_not_answer_ends_the_worker(thread: StepThread) -> None:
    release = threading.Event()
    thread.submit(lambda: release.wait(10))
    with pytest.raises(BusFailed, match="did not answer"):
        thread.call(lambda: None, within_s=0.01)
    release.set()
