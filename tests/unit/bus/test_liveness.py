"""A worker takes itself for alive only as long as the group has lately known it."""

from __future__ import annotations

from services.bus.liveness import Liveness, Silence
from services.bus.memory import VirtualClock

SESSION_TIMEOUT_MS = 6_000


def liveness() -> tuple[Liveness, VirtualClock]:
    clock = VirtualClock()
    return Liveness(SESSION_TIMEOUT_MS, clock_s=clock.monotonic_s), clock


def test_is_not_alive_before_the_first_proof() -> None:
    assert not liveness()[0].alive()


def test_is_alive_for_half_the_session_timeout_since_the_proof_was_asked_for() -> None:
    worker, clock = liveness()
    asked_at_s = clock.monotonic_s()
    clock.advance(1_000)
    worker.prove(asked_at_s)
    clock.advance(1_999)
    assert worker.alive()
    clock.advance(1)
    assert not worker.alive()


def test_an_old_proof_that_arrives_late_does_not_shorten_a_newer_one() -> None:
    worker, clock = liveness()
    old_s = clock.monotonic_s()
    clock.advance(1_000)
    worker.prove(clock.monotonic_s())
    worker.prove(old_s)
    clock.advance(2_999)
    assert worker.alive()


def test_a_proof_that_took_longer_than_it_lasts_proves_nothing() -> None:
    worker, clock = liveness()
    asked_at_s = clock.monotonic_s()
    clock.advance(3_000)
    worker.prove(asked_at_s)
    assert not worker.alive()


def test_is_not_alive_once_the_group_dropped_it() -> None:
    worker, clock = liveness()
    worker.prove(clock.monotonic_s())
    worker.lose()
    assert not worker.alive()


def test_silence_of_the_group_adds_up_until_it_answers() -> None:
    clock = VirtualClock()
    silence = Silence(clock_s=clock.monotonic_s)
    assert silence.lasts_s(is_answered=True) == 0
    for seconds in (1, 2, 3):
        clock.advance(1_000)
        assert silence.lasts_s(is_answered=False) == seconds
    clock.advance(1_000)
    assert silence.lasts_s(is_answered=True) == 0
    clock.advance(500)
    assert silence.lasts_s(is_answered=False) == 0.5


def test_time_in_which_the_worker_stood_still_is_no_silence_of_the_group() -> None:
    clock = VirtualClock()
    silence = Silence(clock_s=clock.monotonic_s)
    clock.advance(600_000)
    assert silence.lasts_s(is_answered=False) == 1
