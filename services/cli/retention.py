"""Says after how long the topics of sources and buyers have forgotten a record: as declared, and as they are.

It changes no topic: one that was made by an older release, or altered since, is its operator's to settle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from services.bus.administration import FoundTopic, HasOutsiders, WantedTopic, compare_topics
from services.bus.settings import StepSettings
from services.cli.insiders import administration
from services.contract.times import DAY_MS, MINUTE_MS
from services.contract.topics import DEAD_LETTERS_SUFFIX, Topics, declarations

BROKER_SWEEPS_EACH_MS = 10 * MINUTE_MS
"""The broker looks for old segments every 5 minutes, and deletes their files a minute later; twice that, for safety."""

FOR_GOOD = -1


def forgotten_after_ms() -> int:
    """Say after how long outsiders' topics, as they are declared, have deleted a record."""
    declared = [dict(topic.config) for topic in declarations() if "<id>" in topic.name]
    return int(max(map(_kept_ms, declared)))


def topics_that_keep_longer(found: StepSettings, outsiders: HasOutsiders) -> list[str]:
    """Say which topics of these sources and buyers keep a record longer than declared; raise `BusFailed`."""
    compared = compare_topics(administration(found), found.topics, outsiders)
    told = [
        longer(wanted, compared.found[wanted.name])
        for wanted in compared.wanted
        if wanted.name in compared.found and _is_outsiders(found.topics, wanted.name)
    ]
    return [line for line in told if line]


def longer(wanted: WantedTopic, found: FoundTopic) -> str:
    """Say for how long a topic keeps a record, if that is longer than declared; else nothing."""
    if not found.config:
        return f"{wanted.name} does not say for how long it keeps records"
    is_ms, should_ms = _kept_ms(found.config), _kept_ms(dict(wanted.config))
    if is_ms <= should_ms:
        return ""
    kept = "for good" if math.isinf(is_ms) else f"for up to {_days(is_ms)}"
    return f"{wanted.name} keeps records {kept}, declared are {_days(should_ms)}"


def _kept_ms(config: Mapping[str, str]) -> float:
    """A record goes with its segment, once the youngest record in it is old enough."""
    retention_ms = int(config["retention.ms"])
    if retention_ms == FOR_GOOD:
        return math.inf
    return BROKER_SWEEPS_EACH_MS + retention_ms + int(config["segment.ms"])


def _days(span_ms: float) -> str:
    return f"{span_ms / DAY_MS:.1f} days"


def _is_outsiders(topics: Topics, name: str) -> bool:
    return topics.owner_of(name.removesuffix(DEAD_LETTERS_SUFFIX)) is not None
