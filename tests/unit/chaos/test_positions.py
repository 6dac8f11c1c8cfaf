"""All has recovered when every step has gone on in every partition, and not before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pytest

from chaos.positions import Offsets, Reading, Unreachable, Watch, await_progress


class SteppedWatch(Watch):
    """A watch without a thread, which reads once whenever somebody waits for a reading."""

    def next_after(self, moment_s: float, within_s: float) -> Reading | None:
        """Read, and give what was read."""
        self._look()
        return super().next_after(moment_s, min(within_s, 0.01))


def watch_of(script: Sequence[Mapping[str, int] | None]) -> Watch:
    """Watch positions that are read as the script says, its last line for ever; None: nothing can be read."""
    lines = list(script)

    def read() -> tuple[Mapping[str, int], int]:
        line = lines.pop(0) if len(lines) > 1 else lines[0]
        if line is None:
            raise Unreachable("the server is away")
        return line, 0

    return SteppedWatch(read)


def test_recovered_when_every_position_has_moved() -> None:
    watch = watch_of([{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 2, "b": 2}])
    assert await_progress(watch, 0.0, 5.0).seconds is not None
    assert watch.readings == 3


def test_one_partition_that_stands_still_is_no_recovery_and_is_named() -> None:
    watch = watch_of([{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 1}])
    found = await_progress(watch, 0.0, 0.1)
    assert found.seconds is None
    assert found.standing == ("b",)


def test_progress_counts_from_the_first_reading_after_the_fault() -> None:
    watch = watch_of([{"a": 1}, {"a": 5}])
    assert watch.next_after(0.0, 5.0) is not None
    found = await_progress(watch, time.monotonic(), 0.1)
    assert found.seconds is None, "what had happened by the first reading is no progress after it"


def test_servers_that_stay_away_are_no_recovery_and_it_is_said_why() -> None:
    found = await_progress(watch_of([None]), 0.0, 0.1)
    assert found.seconds is None
    assert found.standing == ("nothing can be read: the server is away",)


def test_client_that_got_no_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.positions._ANSWER_S", 0.01)
    offsets = Offsets("127.0.0.1:1")
    first = offsets._consumer("steps")
    with pytest.raises(Unreachable, match="steps: "):
        offsets.committed("steps", [("leads", 0)])
    assert offsets._consumer("steps") is not first


def test_defect_of_the_reading_is_raised_and_not_waited_out() -> None:
    def read() -> tuple[Mapping[str, int], int]:
        raise KeyError("a defect")

    watch = Watch(read)
    with pytest.raises(KeyError):
        watch.run()
    with pytest.raises(RuntimeError, match="has failed"):
        watch.next_after(0.0, 5.0)
