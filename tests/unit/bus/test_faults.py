"""Which answers of Kafka pass, and which end the worker."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from structlog.testing import capture_logs

from services.bus.faults import Warnings, answer_to, judge
from services.bus.memory import VirtualClock
from services.bus.ports import BusFailed, PassingFault


def message(code: int, *, fatal: bool = False) -> KafkaMessage:
    return KafkaMessage(
        topic="leads.log",
        partition=3,
        offset=0,
        key=b"",
        value=b"content",
        error=KafkaError(code, "why", fatal),
    )


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE])
def test_a_position_that_is_missing_twice_ends_the_worker(code: int) -> None:
    warnings = Warnings(VirtualClock().monotonic_s)
    assert judge(message(code), warnings)
    with pytest.raises(BusFailed, match=r"leads\.log partition 3: the position"):
        judge(message(code), warnings)


@pytest.mark.parametrize(
    "code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._BAD_MSG, KafkaError.UNKNOWN]
)
def test_what_nobody_has_named_ends_the_worker(code: int) -> None:
    with pytest.raises(BusFailed, match=r"leads\.log partition 3"):
        judge(message(code), Warnings(VirtualClock().monotonic_s))


def test_what_is_fatal_ends_the_worker_whatever_it_is() -> None:
    with pytest.raises(BusFailed):
        judge(message(KafkaError._TRANSPORT, fatal=True), Warnings(VirtualClock().monotonic_s))


def test_what_passes_is_said_once_a_minute() -> None:
    clock = VirtualClock()
    warnings = Warnings(clock.monotonic_s)
    with capture_logs() as lines:
        for _ in range(130):
            judge(message(KafkaError._TRANSPORT), warnings)
            clock.advance(1_000)
    assert len(lines) == 3
    assert "content" not in json.dumps(lines)


def test_different_faults_are_each_said() -> None:
    warnings = Warnings(VirtualClock().monotonic_s)
    with capture_logs() as lines:
        judge(message(KafkaError._TRANSPORT), warnings)
        judge(message(KafkaError.LEADER_NOT_AVAILABLE), warnings)
    assert len(lines) == 2


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    ],
)
def test_what_a_broker_does_not_know_just_after_its_start_passes(code: int) -> None:
    found = answer_to("the end of leads.log partition 3", KafkaException(KafkaError(code, "why")))
    assert isinstance(found, PassingFault)
    assert str(found).startswith("the end of leads.log partition 3: ")


@pytest.mark.parametrize(
    "error",
    [KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), KafkaError(KafkaError._TRANSPORT, "", fatal=True)],
)
def test_answer_that_no_time_changes_ends_the_worker(error: KafkaError) -> None:
    assert isinstance(answer_to("the end of leads.log partition 3", error), BusFailed)
