"""The feed as a process on real Kafka and PostgreSQL: every event in order, whatever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from services.bus.migrations import migrate
from services.contract.codec import codec
from services.contract.events import Event, StageStarted, WindowClosed
from tests.support.log_workers import LogOnKafka, Written

LEADS = 20
ENTRIES = 2_000


@pytest.fixture
def log(stack: Stack, database: str, tmp_path: Path) -> Iterator[LogOnKafka]:
    migrate(database)
    opened = LogOnKafka(stack, database, tmp_path)
    yield opened
    opened.close()


def _entry(number: int) -> tuple[str, tuple[Event, ...]]:
    return f"lead-{number % LEADS}", (StageStarted(stage=number), WindowClosed(window_number=number))


def _first_times(records: list[Written]) -> dict[str, list[Event]]:
    """List each lead's events in the order in which each was first published."""
    found: dict[str, dict[Event, None]] = {}
    for record in records:
        found.setdefault(record.key, {})[codec().decode(record.value)] = None
    return {lead_id: list(events) for lead_id, events in found.items()}


def test_kill_9_skips_no_event_and_keeps_their_order(log: LogOnKafka) -> None:
    entries = [_entry(number) for number in range(ENTRIES)]
    for part in (entries[: ENTRIES // 2], entries[ENTRIES // 2 :]):
        log.append(*part)
        with log.worker("feed"):
            records = log.read_until(
                log.topics.events,
                lambda found, last=part[-1][1][-1]: last in map(_event, found),  # type: ignore[misc]
            )
    with log.worker("feed"):
        records = log.read_until(
            log.topics.events, lambda found: len({record.value for record in found}) == 2 * ENTRIES
        )
    expected: dict[str, list[Event]] = {}
    for lead_id, events in entries:
        expected.setdefault(lead_id, []).extend(events)
    assert _first_times(records) == expected
    assert {record.timestamp_ms for record in records} == {1_790_000_000_000}
    assert all(record.partition == log.partition_of(record.key) for record in records)


def _event(record: Written) -> Event:
    event: Event = codec().decode(record.value)
    return event
