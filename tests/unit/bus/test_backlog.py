"""What waits for the step is bounded, in order, and handed over as soon as it can be used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.bus.backlog import UNDER_WAY_AT_MOST, Backlog, Batch
from services.bus.ports import Record, TopicPartition

IDLE_EVERY_S = 0.05
EPOCH = 7


def backlog(batch_max: int = 10) -> Backlog:
    """Make one whose step is not due for an idle call yet."""
    made = Backlog(batch_max, idle_every_s=IDLE_EVERY_S)
    assert made.take(EPOCH, 0.0) is not None
    made.begin()
    made.finish()
    return made


def records(count: int, partition: int = 0, first: int = 0) -> list[Record]:
    return [Record("leads", partition, first + index, None, b"", (), 0) for index in range(count)]


def taken(made: Backlog, now_s: float = 0.01) -> Batch:
    batch = made.take(EPOCH, now_s)
    assert batch is not None
    return batch


def finish_all(made: Backlog) -> None:
    for _ in range(made.under_way):
        made.finish()


def test_an_idle_step_gets_a_single_record_at_once() -> None:
    made = backlog()
    made.add(records(1), 0.01)
    assert taken(made).records == records(1)


def test_a_busy_step_gets_no_partial_batch() -> None:
    made = backlog()
    made.add(records(1), 0.01)
    taken(made)
    made.add(records(9), 0.01)
    assert made.take(EPOCH, 0.02) is None


def test_a_busy_step_gets_one_full_batch_to_go_on_with() -> None:
    made = backlog()
    made.add(records(25), 0.01)
    assert [len(taken(made).records), len(taken(made).records)] == [10, 10]
    assert made.take(EPOCH, 0.01) is None
    assert made.under_way == UNDER_WAY_AT_MOST


def test_records_that_come_while_the_step_is_busy_make_one_batch() -> None:
    made = backlog()
    made.add(records(1), 0.01)
    taken(made)
    for offset in range(1, 6):
        made.add(records(1, first=offset), 0.01)
    made.begin()
    made.finish()
    assert taken(made).records == records(5, first=1)


def test_there_is_no_room_when_two_batches_are_under_way_and_one_waits() -> None:
    made = backlog()
    made.add(records(20), 0.01)
    taken(made)
    taken(made)
    made.add(records(9, first=20), 0.01)
    assert made.has_room()
    made.add(records(1, first=29), 0.01)
    assert not made.has_room()
    made.begin()
    made.finish()
    assert made.has_room()


def test_a_step_is_called_when_nothing_came_for_a_while() -> None:
    made = backlog()
    assert made.take(EPOCH, IDLE_EVERY_S - 0.001) is None
    assert taken(made, IDLE_EVERY_S).records == []


def test_a_busy_step_is_not_called_for_idleness() -> None:
    made = backlog()
    taken(made, IDLE_EVERY_S)
    assert made.take(EPOCH, 10 * IDLE_EVERY_S) is None


def test_dropped_partitions_leave_the_others_in_order() -> None:
    made = backlog()
    made.add([*records(2), *records(2, partition=1), *records(1, first=2)], 0.01)
    made.drop([TopicPartition("leads", 0)])
    assert taken(made).records == records(2, partition=1)


def test_a_batch_says_when_its_first_record_was_read() -> None:
    made = backlog()
    made.add(records(1), 0.01)
    made.add(records(1, first=1), 0.02)
    assert taken(made, 0.03).read_at_s == 0.01


def test_a_batch_that_a_free_step_does_not_get_is_swallowed() -> None:
    made = backlog()
    made.add(records(1), 1.0)
    assert made.take(EPOCH, 1.0, free_s=0.5) is not None
    assert made.swallowed_s(3.5) == 3.0
    made.begin()
    assert made.swallowed_s(3.5) == 0.0


def test_a_batch_behind_one_that_takes_long_is_not_swallowed() -> None:
    made = backlog()
    made.add(records(20), 1.0)
    assert made.take(EPOCH, 1.0, free_s=0.5) is not None
    assert made.take(EPOCH, 1.0, free_s=0.5) is not None
    made.begin()
    assert made.swallowed_s(0.5) == 0.0, "however late it is: the step's thread was not free"


@given(st.lists(st.sampled_from(["add 1", "add 7", "take", "finish"]), max_size=60), st.integers(1, 10))
def test_every_record_is_taken_once_and_in_order(moves: list[str], batch_max: int) -> None:
    """Whatever comes between."""
    made = Backlog(batch_max, idle_every_s=IDLE_EVERY_S)
    added: list[Record] = []
    took: list[Record] = []

    def take(now_s: float) -> None:
        batch = made.take(EPOCH, now_s)
        if batch is not None:
            assert len(batch.records) <= batch_max
            took.extend(batch.records)
            made.begin()

    for move in moves:
        match move.split():
            case ["add", count]:
                more = records(int(count), first=len(added))
                made.add(more, 0.0)
                added += more
            case ["take"]:
                take(0.0)
            case _:
                if made.under_way:
                    made.finish()
    finish_all(made)
    for _ in added:
        take(0.0)
        finish_all(made)
    assert took == added


@pytest.mark.parametrize("now_s", [0.0, 0.02, 0.2])
def test_says_how_long_the_step_may_go_without_a_call(now_s: float) -> None:
    assert backlog().idle_due_in_s(now_s) == pytest.approx(max(0.0, IDLE_EVERY_S - now_s))


@pytest.mark.parametrize(
    ("wake_at_s", "due_in_s"), [(None, IDLE_EVERY_S), (0.003, 0.003), (9.0, IDLE_EVERY_S)]
)
def test_step_that_wants_to_be_called_earlier_is_called_then(
    wake_at_s: float | None, due_in_s: float
) -> None:
    made = backlog()
    made.add(records(1), 0.0)
    taken(made, 0.0)
    made.begin()
    made.wake_at(wake_at_s)
    made.finish()
    assert made.idle_due_in_s(0.0) == pytest.approx(due_in_s)
    assert made.take(EPOCH, due_in_s - 0.001) is None
    assert made.take(EPOCH, due_in_s) is not None


def test_busy_step_s_wish_is_known_before_it_is_done() -> None:
    """So that nobody sleeps over the moment at which it is done."""
    made = backlog()
    made.add(records(1), 0.0)
    taken(made, 0.0)
    assert made.wakes_in_s(0.0) is None
    made.wake_at(0.003)
    assert made.wakes_in_s(0.001) == pytest.approx(0.002)
    assert made.wakes_in_s(0.007) == 0.0
    assert made.take(EPOCH, 0.007) is None, "it is busy"


def test_the_oldest_record_counts_until_the_step_is_done_with_it() -> None:
    made = backlog()
    assert made.oldest_ms() is None
    made.add([record._replace(timestamp_ms=5_000) for record in records(10)], 0.01)
    taken(made)
    made.add([record._replace(timestamp_ms=7_000) for record in records(3)], 0.02)
    assert made.oldest_ms() == 5_000
    finish_all(made)
    assert made.oldest_ms() == 7_000
    made.drop([TopicPartition("leads", 0)])
    assert made.oldest_ms() is None


def rested(made: Backlog, until_s: float) -> Backlog:
    """Have it rest."""
    made.rest_until(until_s)
    return made


def test_step_that_rests_gets_what_has_gathered_when_it_has_rested() -> None:
    made = rested(backlog(), 0.03)
    made.add(records(1), 0.01)
    assert made.take(EPOCH, 0.01) is None
    made.add(records(1, first=1), 0.02)
    assert made.rests_for_s(0.02) == pytest.approx(0.01)
    assert made.take(EPOCH, 0.02) is None
    assert taken(made, 0.03).records == records(2)


def test_full_batch_does_not_wait_for_a_rest() -> None:
    made = rested(backlog(), 9.0)
    made.add(records(10), 0.01)
    assert len(taken(made).records) == 10


def test_step_that_wants_to_be_woken_does_not_rest_on() -> None:
    made = rested(backlog(), 9.0)
    made.wake_at(0.02)
    made.add(records(1), 0.01)
    assert made.take(EPOCH, 0.01) is None
    assert taken(made, 0.02).records == records(1)


def test_rest_does_not_put_off_an_idle_call() -> None:
    made = rested(backlog(), 9.0)
    assert made.take(EPOCH, 0.01) is None
    assert taken(made, IDLE_EVERY_S).records == []


def test_idle_call_that_is_due_does_not_end_a_rest() -> None:
    made = rested(backlog(), 1.0)
    made.add(records(1), 0.01)
    assert made.take(EPOCH, 2 * IDLE_EVERY_S) is None
