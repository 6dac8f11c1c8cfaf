"""How much of each bad day: what the command line may change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Seconds, minutes and counts, each of the day that it names."""

    leads: int = 300
    rate_per_s: float = 60.0
    rests_within_s: float = 300.0
    session_timeout_ms: int = 6_000
    database_away_s: float = 180.0
    disk_full_s: float = 60.0
    disk_mib: int = 256
    overload_minutes: float = 10.0
    overload_factor: float = 2.0
    poison: int = 250
    skew_s: int = 240
