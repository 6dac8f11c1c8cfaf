"""An interruption ends a command in order, whenever it comes, and an argument that is none is refused."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.command_line import end_in_order_on, interrupts_wait, setting, writable_folder

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


def test_a_setting_has_a_name_and_a_value() -> None:
    assert setting("search_path=a=b") == ("search_path", "a=b")


@pytest.mark.parametrize("text", ["", "shared_buffers", "=8GB", "shared_buffers="])
def test_half_a_setting_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="NAME=VALUE"):
        setting(text)


def test_a_folder_for_results_is_made_at_once(tmp_path: Path) -> None:
    assert writable_folder(str(tmp_path / "a" / "b")).is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(argparse.ArgumentTypeError, match="can't make the folder"):
        writable_folder(str(tmp_path / "file" / "results"))
