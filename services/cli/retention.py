"""Says after how long the topics of sources and buyers have forgotten a record."""

from __future__ import annotations

from collections.abc import Mapping

from services.contract.times import MINUTE_MS
from services.contract.topics import declarations

BROKER_SWEEPS_EACH_MS = 10 * MINUTE_MS
"""The broker looks for old segments every 5 minutes, and deletes their files a minute later; twice that, for safety."""


def forgotten_after_ms() -> int:
    """Say after how long outsiders' topics, as they are declared, have deleted a record."""
    return max(_kept_ms(dict(declared.config)) for declared in declarations() if "<id>" in declared.name)


def _kept_ms(config: Mapping[str, str]) -> int:
    """A record goes with its segment, once the youngest record in it is old enough."""
    return BROKER_SWEEPS_EACH_MS + int(config["retention.ms"]) + int(config["segment.ms"])
