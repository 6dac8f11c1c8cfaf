"""An interruption ends a command in order, whenever it comes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bench.command_line import end_in_order_on, interrupts_wait

NUMBER = signal.SIGUSR1


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    before = signal.getsignal(NUMBER)
    end_in_order_on([NUMBER])
    yield
    signal.signal(NUMBER, before)


def test_an_interruption_ends_what_is_under_way_and_a_second_one_does_nothing() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(NUMBER)
    signal.raise_signal(NUMBER)


def test_an_interruption_waits_until_what_is_started_is_on_its_list() -> None:
    workers: list[str] = []

    def start() -> None:
        with interrupts_wait():
            signal.raise_signal(NUMBER)
            workers.append("started")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert workers == ["started"]


def test_nothing_is_interrupted_where_nobody_interrupts() -> None:
    with interrupts_wait():
        pass
