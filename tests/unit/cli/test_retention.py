"""A topic that keeps records longer than declared is told, and no other."""

from __future__ import annotations

import pytest

from services.bus.administration import FoundTopic, WantedTopic
from services.cli.retention import forgotten_after_ms, longer
from services.contract.times import DAY_MS

LEADS = WantedTopic(
    name="buyers.acme.leads",
    partitions=1,
    replicas=1,
    config=(("retention.ms", str(7 * DAY_MS)), ("segment.ms", str(DAY_MS))),
)


def found(*, retention_ms: int = 7 * DAY_MS, segment_ms: int = DAY_MS) -> FoundTopic:
    config = {"retention.ms": str(retention_ms), "segment.ms": str(segment_ms)}
    return FoundTopic(partitions=1, replicas=1, config=config)


@pytest.mark.parametrize(
    "topic",
    [
        found(),
        found(retention_ms=6 * DAY_MS),
        found(segment_ms=DAY_MS // 2),
        found(retention_ms=2 * DAY_MS, segment_ms=6 * DAY_MS),
    ],
)
def test_a_topic_that_keeps_records_as_long_as_declared_or_shorter_is_not_told(topic: FoundTopic) -> None:
    assert longer(LEADS, topic) == ""


@pytest.mark.parametrize(
    ("topic", "kept"),
    [
        (found(segment_ms=7 * DAY_MS), "for up to 14.0 days"),
        (found(retention_ms=30 * DAY_MS), "for up to 31.0 days"),
        (found(retention_ms=7 * DAY_MS + 1), "for up to 8.0 days"),
        (found(retention_ms=-1), "for good"),
    ],
)
def test_a_topic_that_keeps_records_longer_is_told_with_how_long(topic: FoundTopic, kept: str) -> None:
    assert longer(LEADS, topic) == f"buyers.acme.leads keeps records {kept}, declared are 8.0 days"


def test_a_topic_that_does_not_say_is_told() -> None:
    silent = FoundTopic(partitions=1, replicas=1, config={})
    assert longer(LEADS, silent) == "buyers.acme.leads does not say for how long it keeps records"


def test_outsiders_topics_as_declared_have_forgotten_after_eight_days() -> None:
    assert 8 * DAY_MS < forgotten_after_ms() < 9 * DAY_MS
