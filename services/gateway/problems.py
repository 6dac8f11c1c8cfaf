"""What a caller is told when the answer is no: problem details (RFC 9457). No detail quotes what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"
_NAMESPACE = "urn:gavel:problem:"


@dataclass(eq=False)
class Problem(Exception):
    """One no: its name, its status, what to do about it."""

    name: str
    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """Write it as RFC 9457 has it."""
        title = HTTPStatus(self.status).phrase
        told = {"type": _NAMESPACE + self.name, "title": title, "status": self.status, "detail": self.detail}
        return {**told, **self.more}


def unauthorized() -> Problem:
    """Say that there is no key, or a wrong or a revoked one: never which."""
    return Problem(
        "no-key",
        401,
        "Send a key that is in force: Authorization: Bearer <key>.",
        {"WWW-Authenticate": "Bearer"},
    )


def not_yours(kind: str) -> Problem:
    """Say that such a caller has nothing to do here."""
    return Problem("wrong-key", 403, f"This is for keys of a {kind}.")


def too_large(bytes_max: int, more: Mapping[str, Any] | None = None) -> Problem:
    """Say how much is taken."""
    return Problem("too-large", 413, f"At most {bytes_max} bytes are taken.", {}, more or {})


def too_many(wait_s: int) -> Problem:
    """Say when to come again."""
    return Problem("too-many", 429, f"Come again in {wait_s} s.", {"Retry-After": str(wait_s)})


def unavailable(what: str) -> Problem:
    """Say that nothing was promised, and that the same may be sent again."""
    return Problem(
        "unavailable",
        503,
        f"{what} does not answer. Send the same again: a lead sent again is the same lead.",
        {"Retry-After": "1"},
    )


def unfit(what: str, place: str | None) -> Problem:
    """Say what is wrong with a document."""
    return Problem(
        "unfit",
        422,
        f"The body is {what}." if not what.startswith("does") else f"The body {what}.",
        {},
        {} if place is None else {"field": place},
    )
