"""Guarantee 6 in topics that nobody declared: searches the last records of each as those of a topic inside.

Such a topic is its operators' own affair, so whatever keeps it from being read, its size included, is no more than a
note. Where Kafka lets the auditor see declared topics alone, there is nothing to search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from services.audit.declared import undeclared
from services.audit.reading import Cut, Reading
from services.audit.rounds import Stop
from services.audit.secrecy import Secrecy
from services.bus.ports import BusFailed, TopicPartition
from services.contract.topics import Topics

RECORDS_MAX: Final = 100_000
"""So many of a topic's records are searched, the last of each partition."""

SEARCH_WITHIN_S: Final = 30.0
"""For so long all of them together."""


def search_topics(
    reading: Reading,
    topics: Topics,
    secrecy: Secrecy,
    stop: Stop,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Mapping[str, str]:
    """Search all topics that are ours by name and declared by nobody; say of each how far that came."""
    there = reading.topics()
    deadline_s = monotonic_s() + SEARCH_WITHIN_S

    def is_over() -> bool:
        return stop.is_set() or monotonic_s() > deadline_s

    return {
        topic: f"{topic} is declared by nobody. {_search(reading, topic, there[topic], secrecy, is_over)}"
        for topic in undeclared(topics, there)
    }


def _search(
    reading: Reading, topic: str, partitions: int, secrecy: Secrecy, is_over: Callable[[], bool]
) -> str:
    """Search one topic; say how much of it was."""
    searched, records_max = 0, RECORDS_MAX // partitions
    try:
        extents = reading.extents([TopicPartition(topic, at) for at in range(partitions)])
        spans = {
            where: range(max(extent.low, extent.high - records_max), extent.high)
            for where, extent in extents.items()
        }
        for records in () if is_over() else reading.read(spans):
            secrecy.take(records)
            searched += len(records)
            if is_over():
                break
    except (BusFailed, Cut) as error:
        return f"It was not searched to its end: {error}"
    of = sum(extent.high - extent.low for extent in extents.values())
    return f"It was searched for contact details: {searched:,} records, of {of:,} at most"
