"""The resale timer as a process on real Kafka and PostgreSQL: never early, nothing lost to kill -9."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from services.bus.migrations import migrate
from services.contract.codec import codec
from services.contract.events import Event, WindowClosed, WindowKind, WindowOpened
from services.contract.ids import lead_id_of
from tests.support.log_workers import LogOnKafka, Written

SENT_WITHIN_MS = 2_000
"""Far more than it takes (20 ms on a quiet machine): tests share theirs."""


@pytest.fixture
def log(stack: Stack, database: str, tmp_path: Path) -> Iterator[LogOnKafka]:
    migrate(database)
    opened = LogOnKafka(stack, database, tmp_path)
    yield opened
    opened.close()


def _lead(number: int) -> str:
    return lead_id_of("sunform", str(number))


def _opened(number: int, due_at_ms: int) -> tuple[Event, ...]:
    return (WindowOpened(window_number=number, kind=WindowKind.EXCLUSIVITY, due_at_ms=due_at_ms),)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _sent(records: list[Written]) -> dict[str, int]:
    """Say when each lead's window was first sent."""
    times: dict[str, int] = {}
    for record in records:
        due = codec().decode(record.value)
        assert due.lead_id == record.key
        times.setdefault(due.lead_id, record.timestamp_ms)
    return times


def test_sends_each_window_when_due_and_none_that_was_closed(log: LogOnKafka) -> None:
    now_ms = _now_ms()
    dues = {_lead(number): now_ms + 8_000 + 53 * number for number in range(40)}
    log.append(*((lead_id, _opened(1, due_at_ms)) for lead_id, due_at_ms in dues.items()))
    log.append((_lead(7), (WindowClosed(window_number=1),)))
    del dues[_lead(7)]
    with log.worker("resale"):
        records = log.read_until(log.topics.timers, lambda found: _sent(found).keys() >= dues.keys())
    sent = _sent(records)
    late_ms = sorted(sent[lead_id] - due_at_ms for lead_id, due_at_ms in dues.items())
    assert sent.keys() == dues.keys()
    assert late_ms[0] >= 0
    assert late_ms[-1] < SENT_WITHIN_MS
    assert len(records) == len(dues)
    assert all(record.partition == log.partition_of(record.key) for record in records)


def test_kill_9_again_and_again_loses_no_window_and_sends_none_early(log: LogOnKafka) -> None:
    now_ms = _now_ms()
    dues = {_lead(number): now_ms + 3_000 + 20 * number for number in range(300)}
    log.append(*((lead_id, _opened(1, due_at_ms)) for lead_id, due_at_ms in dues.items()))
    for share in (50, 150, 300):
        with log.worker("resale"):
            records = log.read_until(
                log.topics.timers,
                lambda found, share=share: len(_sent(found)) >= share,  # type: ignore[misc]
            )
    sent = _sent(records)
    assert sent.keys() == dues.keys()
    assert all(sent[lead_id] >= due_at_ms for lead_id, due_at_ms in dues.items())
