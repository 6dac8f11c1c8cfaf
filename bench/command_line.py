"""What the commands of `bench` and `chaos` have in common: numbers as arguments, and an end in order."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from confluent_kafka import KafkaException, Message


def count(text: str) -> int:
    """Read an argument that is a whole number from 1 up."""
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError("expected a number from 1 up")
    return found


def positive(text: str) -> float:
    """Read an argument that is a finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("expected a number above 0")
    return number


def setting(text: str) -> tuple[str, str]:
    """Read an argument that is NAME=VALUE: a setting of PostgreSQL."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError("expected NAME=VALUE, such as shared_buffers=8GB")
    return name, value


def writable_folder(text: str) -> Path:
    """Read an argument that is a folder for results, and make it: better to fail now than when there is something."""
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"can't make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"no permission to write into the folder {folder}")
    return folder


class _Held:
    """An interruption that waits."""

    is_holding = False
    has_come = False


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Hold back an interruption until the end of the block: a process that is started must get on its list first."""
    _Held.is_holding = True
    try:
        yield
    finally:
        _Held.is_holding = False
    if _Held.has_come:
        _Held.has_come = False
        raise KeyboardInterrupt


def end_in_order_on(signals: Sequence[signal.Signals]) -> None:
    """Have these raise KeyboardInterrupt, once: a second one must not interrupt the cleaning up, bounded in time."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        _Held.has_come = _Held.is_holding
        if not _Held.is_holding:
            raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, interrupt)


def leave_on_sigterm() -> None:
    """End this process with success when it is told to stop, its `finally` blocks included."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)


def refuse_failed(error: object, _: Message) -> None:
    """Raise KafkaException for a record that Kafka did not take: an `on_delivery` callback."""
    if error is not None:
        raise KafkaException(error)
