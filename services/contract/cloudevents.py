"""Headers of the records that outsiders read: the CloudEvents 1.0 Kafka binding, binary mode, no personal data."""

from __future__ import annotations

from functools import lru_cache

from services.contract.times import iso_time

_FIXED = (("ce_specversion", b"1.0"), ("content-type", b"application/json"))


def outsider_headers(*, id: str, type: str, source: str, at_ms: int) -> tuple[tuple[str, bytes], ...]:
    """Build the headers of one record; `id` is the same each time that the same record is sent again."""
    return (("ce_id", id.encode()), *_alike(type, source, at_ms))


@lru_cache(maxsize=1_024)
def _alike(type: str, source: str, at_ms: int) -> tuple[tuple[str, bytes], ...]:
    """Build what all records of one type in a batch have in common."""
    return (
        *_FIXED,
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", iso_time(at_ms).encode()),
    )
