"""Headers of the records that outsiders read: the CloudEvents 1.0 Kafka binding, binary mode, no personal data."""

from __future__ import annotations

from functools import lru_cache

from services.contract.times import iso_time

JSON = b"application/json"
AVRO = b"application/avro"


def outsider_headers(
    *, id: str, type: str, source: str, at_ms: int, content_type: bytes = JSON
) -> tuple[tuple[str, bytes], ...]:
    """Build the headers of one record; `id` is the same each time that the same record is sent again."""
    return (("ce_id", id.encode()), *_alike(type, source, at_ms, content_type))


@lru_cache(maxsize=1_024)
def _alike(type: str, source: str, at_ms: int, content_type: bytes) -> tuple[tuple[str, bytes], ...]:
    """Build what all records of one type in a batch have in common."""
    return (
        ("ce_specversion", b"1.0"),
        ("content-type", content_type),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", iso_time(at_ms).encode()),
    )
