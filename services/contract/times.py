"""Times, durations and amounts as people write them: UTC in ISO 8601 with milliseconds, money with two decimals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AMOUNT = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,2}))?")


@lru_cache(maxsize=4_096)
def iso_time(at_ms: int) -> str:
    """Write milliseconds since 1970 as `2026-11-22T10:17:23.000Z`.

    Kept, because all records of a batch tell the same few times.
    """
    moment = datetime.fromtimestamp(at_ms // 1_000, tz=UTC)
    return f"{moment.isoformat()[:19]}.{at_ms % 1_000:03d}Z"


def time_in_ms(text: str) -> int:
    """Read what `iso_time` writes into milliseconds since 1970; raise ValueError."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def duration_for_people(milliseconds: int) -> str:
    """Write a duration in the largest unit that divides it: 72 hours, 90 seconds."""
    for unit_ms, name in ((DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute"), (SECOND_MS, "second")):
        if milliseconds % unit_ms == 0:
            count = milliseconds // unit_ms
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{milliseconds} milliseconds"


@lru_cache(maxsize=4_096)
def decimal_amount(cents: int) -> str:
    """Write integer minor units as a decimal of the currency: 9000 is `90.00`.

    Kept, because most prices are those of a list.
    """
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def amount_in_cents(text: str) -> int:
    """Read a decimal of the currency, of at most two decimals, into integer minor units; raise ValueError."""
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError("expected an amount with at most two decimals, as in 90.00")
    cents = int(found[2]) * 100 + int((found[3] or "").ljust(2, "0"))
    return -cents if found[1] else cents
