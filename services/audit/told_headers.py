"""The headers that a record to an outsider must have: they follow from its body. Pure.

Headers of other names are not Gavel's, but of whatever carries records, and say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from services.contract.cloudevents import AVRO, JSON

Headers = tuple[tuple[str, bytes], ...]

ROUTER: Final = "gavel/router"
INTAKE: Final = "gavel/intake"

_MAGIC: Final = b"\x00"


def are_headers(headers: Headers, value: bytes, *, source: str, type: str, at: str) -> bool:
    """Tell whether a record has these headers behind its `ce_id`; `type` and `at` are those of its body."""
    due = _headers(source, type, at, AVRO if value[:1] == _MAGIC else JSON)
    return headers[1:] == due or _ours(headers)[1:] == due


@lru_cache(maxsize=1_024)
def _headers(source: str, type: str, at: str, content_type: bytes) -> Headers:
    """Write them once for the records of an entry, which have most of them in common."""
    return (
        ("ce_specversion", b"1.0"),
        ("content-type", content_type),
        ("ce_type", f"gavel.{type}.v1".encode()),
        ("ce_source", source.encode()),
        ("ce_time", at.encode()),
    )


def _ours(headers: Sequence[tuple[str, bytes]]) -> Headers:
    return tuple([each for each in headers if each[0].startswith("ce_") or each[0] == "content-type"])
