"""What `registry` announces. It only announces: the truth is in the database."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketApplied:
    """A new version of the market is in force."""

    version: int
    applied_at_ms: int
