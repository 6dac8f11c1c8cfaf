"""All of a step's methods run in one thread, one after the other."""

from __future__ import annotations

import threading
import time
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


def test_is_not_free_while_a_call_is_under_way_or_queued(thread: StepThread) -> None:
    may_end = [threading.Event(), threading.Event()]
    first, second = (thread.submit(lambda gate=gate: gate.wait(5)) for gate in may_end)  # type: ignore[misc]
    free_s = thread.free_s()
    may_end[0].set()
    assert first.result(5)
    assert thread.free_s() == free_s, "another one is queued"
    may_end[1].set()
    assert second.result(5)
    until_it_is_freer(thread, free_s)


def test_a_call_now_and_then_does_not_make_it_forget_how_long_it_was_free(thread: StepThread) -> None:
    """The subscribed topics are asked for again and again."""
    free_s = thread.free_s()
    until_it_is_freer(thread, free_s)
    before_s = thread.free_s()
    assert thread.submit(lambda: True).result(5)
    assert thread.free_s() >= before_s > free_s


def until_it_is_freer(thread: StepThread, than_s: float) -> None:
    ends_at_s = time.monotonic() + 5
    while thread.free_s() <= than_s:
        assert time.monotonic() < ends_at_s


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


def test_the_step_can_ask_the_waiting_thread_for_something(thread: StepThread) -> None:
    """Kafka's client answers only to the thread that polls, which waits for the step."""
    asked_in = thread.call(lambda: thread.ask(threading.get_ident, within_s=5))
    assert asked_in == threading.get_ident()


def test_what_the_step_asks_for_while_nobody_waits_is_done_at_the_next_turn(thread: StepThread) -> None:
    answer = thread.submit(lambda: thread.ask(lambda: "done", within_s=5))
    ends_at_s = time.monotonic() + 5
    while not answer.done() and time.monotonic() < ends_at_s:
        thread.run_errands()
    assert answer.result(0) == "done"


def test_what_was_asked_for_raises_where_it_was_asked(thread: StepThread) -> None:
    def fail() -> None:
        raise KeyError("no such position")

    with pytest.raises(KeyError):
        thread.call(lambda: thread.ask(fail, within_s=5))


def test_who_waits_for_the_step_is_called_meanwhile(thread: StepThread) -> None:
    release, calls = threading.Event(), []

    def meanwhile() -> None:
        calls.append(1)
        if len(calls) >= 3:
            release.set()

    assert thread.call(lambda: release.wait(10), meanwhile=meanwhile)


def test_nobody_answering_the_step_ends_the_worker(thread: StepThread) -> None:
    with pytest.raises(BusFailed, match="did not answer"):
        thread.submit(lambda: thread.ask(lambda: None, within_s=0.01)).result(5)
