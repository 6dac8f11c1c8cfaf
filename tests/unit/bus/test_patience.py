"""What passes is waited out: everything begins again, after pauses that grow, and not for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from services.bus.memory import VirtualClock
from services.bus.patience import ALARM_AFTER_S, LONGEST_PAUSE_S, WAITS_FOR_AT_MOST_S, PatientStep
from services.bus.ports import PassingFault, Record, Stopped, TopicPartition

FIRST, SECOND = TopicPartition("leads.log", 0), TopicPartition("leads.log", 1)
RECORD = Record("leads.log", 0, 0, None, b"content", (), 0)


@dataclass
class Inner:
    """A step that is called, and fails while it is told to."""

    fails: bool = False
    began: list[list[TopicPartition]] = field(default_factory=list)
    handled: int = 0
    idled: int = 0

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        self._fail()
        self.began.append(sorted(assigned))
        return dict.fromkeys(assigned, 7)

    def release(self, revoked: Collection[TopicPartition]) -> None:
        del revoked
        self._fail()

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        self._fail()
        self.handled += len(records)
        return ()

    def idle(self) -> Collection[TopicPartition]:
        self._fail()
        self.idled += 1
        return ()

    def _fail(self) -> None:
        if self.fails:
            raise PassingFault("the database does not answer")


@dataclass
class Worker:
    """A patient step and its host's part: what must begin again is begun again."""

    inner: Inner = field(default_factory=Inner)
    clock: VirtualClock = field(default_factory=VirtualClock)
    faults: int = 0

    def __post_init__(self) -> None:
        self.step = PatientStep(self.inner, monotonic_s=self.clock.monotonic_s, on_fault=self._count)
        assert self.step.take_over([FIRST, SECOND]).keys() == {FIRST, SECOND}

    def _count(self) -> None:
        self.faults += 1

    def idles(self) -> None:
        self._again(self.step.idle())

    def handles(self, *times_ms: int) -> None:
        self._again(self.step.handle([RECORD._replace(timestamp_ms=at_ms) for at_ms in times_ms or (0,)]))

    def lasts(self, seconds: float) -> None:
        """Let time pass as the host does, which calls an idle step 20 times a second."""
        ends_at_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < ends_at_s:
            self.idles()
            self.clock.advance(50)

    def _again(self, again: Collection[TopicPartition]) -> None:
        if again:
            self.step.take_over(again)


def test_after_the_first_fault_everything_begins_again_at_once() -> None:
    worker = Worker()
    worker.inner.fails = True
    again = worker.step.handle([RECORD])
    worker.inner.fails = False
    assert set(again) == {FIRST, SECOND}, "nothing that the step knows is believed"
    assert worker.step.take_over(again) == {FIRST: 7, SECOND: 7}
    worker.handles()
    assert worker.inner.handled == 1
    assert worker.step.waits_for is None


def test_until_it_has_begun_again_the_step_is_not_called() -> None:
    worker = Worker()
    worker.inner.fails = True
    worker.step.handle([RECORD])
    worker.inner.fails = False
    assert worker.step.handle([RECORD]) == worker.step.idle() == (), "it is asked for once"
    assert (worker.inner.handled, worker.inner.idled) == (0, 0)


def test_release_that_fails_lets_what_is_left_begin_again() -> None:
    worker = Worker()
    worker.inner.fails = True
    worker.step.release([SECOND])
    worker.inner.fails = False
    worker.idles()
    assert worker.inner.began[-1] == [FIRST]


@pytest.mark.parametrize("away_s", [1, 20, 60])
def test_server_that_is_away_for_up_to_a_minute_is_waited_for(away_s: int) -> None:
    worker = Worker()
    worker.inner.fails = True
    worker.lasts(away_s)
    assert worker.step.waits_for == "the database does not answer"
    assert worker.faults <= 6 + away_s / LONGEST_PAUSE_S, "it is not asked again and again without a pause"
    worker.inner.fails = False
    worker.lasts(2 * LONGEST_PAUSE_S)
    assert worker.inner.began[-1] == [FIRST, SECOND]
    worker.handles()
    assert worker.inner.handled == 1
    assert worker.step.waits_for is None


def test_server_that_stays_away_stops_the_worker_and_it_says_what_and_what_to_do() -> None:
    worker = Worker()
    worker.inner.fails = True
    with pytest.raises(Stopped, match=r"7\d s have failed: the database does not answer.*gavel stack doctor"):
        worker.lasts(WAITS_FOR_AT_MOST_S + 2)


def test_fault_after_each_beginning_is_one_that_does_not_pass() -> None:
    """A full disk: reading works, writing does not. That a partition could begin is no end of it."""
    worker = Worker()

    def lasts() -> None:
        while True:
            worker.inner.fails = True
            again = worker.step.handle([RECORD])
            worker.inner.fails = False
            worker.step.take_over(again)
            worker.clock.advance(1_000)

    with pytest.raises(Stopped):
        lasts()


def test_faults_with_work_or_calm_between_them_don_t_add_up() -> None:
    worker = Worker()
    for _ in range(1_000):
        worker.inner.fails = True
        worker.idles()
        worker.inner.fails = False
        worker.lasts(6)
    assert worker.step.waits_for is None


def test_partition_that_is_assigned_in_a_pause_waits_too() -> None:
    worker, third = Worker(), TopicPartition("leads.log", 2)
    worker.inner.fails = True
    worker.idles()
    worker.idles()
    worker.inner.fails = False
    assert worker.step.pause_s() > 0
    assert worker.step.take_over([third]) == {}
    worker.lasts(1)
    assert worker.inner.began[-1] == [FIRST, SECOND, third]


def test_partition_that_can_t_begin_makes_all_wait() -> None:
    worker, third = Worker(), TopicPartition("leads.log", 2)
    worker.inner.fails = True
    assert worker.step.take_over([third]) == {}
    worker.inner.fails = False
    assert set(worker.step.handle([RECORD])) == {FIRST, SECOND, third}
    assert worker.inner.handled == 0


def test_wait_that_lasts_is_an_alarm_and_its_end_is_said() -> None:
    worker = Worker()
    worker.inner.fails = True
    with capture_logs() as lines:
        worker.lasts(ALARM_AFTER_S - 2)
        assert [line["log_level"] for line in lines] == ["warning"], "said once"
        worker.lasts(20)
        worker.inner.fails = False
        worker.lasts(1)
        worker.handles()
    assert [line["event"] for line in lines[1:]] == ["the worker waits for a server", "the worker goes on"]
    assert lines[1]["log_level"] == "error"


def test_what_a_fault_puts_off_is_as_old_as_its_oldest_record_until_the_fault_is_over() -> None:
    worker = Worker()
    assert worker.step.put_off_ms() is None
    worker.inner.fails = True
    worker.handles(9_000, 4_000)
    worker.lasts(2.0)
    assert worker.step.put_off_ms() == 4_000
    worker.inner.fails = False
    worker.lasts(2.0)
    worker.handles()
    assert worker.step.put_off_ms() is None


def test_a_fault_without_records_puts_off_nothing_that_an_earlier_one_did() -> None:
    worker = Worker()
    worker.inner.fails = True
    worker.handles(4_000)
    worker.inner.fails = False
    worker.lasts(0.2)
    worker.handles()
    worker.inner.fails = True
    worker.idles()
    assert worker.step.waits_for is not None
    assert worker.step.put_off_ms() is None
