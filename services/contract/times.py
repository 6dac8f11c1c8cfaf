"""Times and amounts as people write them: UTC in ISO 8601 with milliseconds, money with its two decimals."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@lru_cache(maxsize=4_096)
def iso_time(at_ms: int) -> str:
    """Write milliseconds since 1970 as `2026-11-22T10:17:23.000Z`.

    Kept, because all records of a batch tell the same few times.
    """
    moment = datetime.fromtimestamp(at_ms // 1_000, tz=UTC)
    return f"{moment.isoformat()[:19]}.{at_ms % 1_000:03d}Z"


def decimal_amount(cents: int) -> str:
    """Write integer minor units as a decimal of the currency: 9000 is `90.00`."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"
