"""Reads what a source sent: JSON of a known shape within limits, before any market is asked.

No message here quotes what was sent; pydantic's own messages do, so they never leave this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from services.contract.identity import REFERENCE_MAX
from services.intake.domain import Declined, DeclineReason

SUBMISSION_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100
BUYERS_NAMED_MAX = 100
SALES_MAX_LIMIT = 10

_OPEN = ConfigDict(strict=True, extra="forbid", frozen=True)
Id: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Reference: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=REFERENCE_MAX)]
Time: TypeAlias = Annotated[str, StringConstraints(min_length=10, max_length=40)]
Fields: TypeAlias = Annotated[dict[str, Any], Field(max_length=FIELDS_MAX)]


class Consent(BaseModel):
    """What the prospect agreed to: the text shown, when, on which page, and a third party's certificate of it.

    `buyers`: the ids of those that it named to the prospect; nobody else may have the lead.
    """

    model_config = _OPEN

    text: Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
    at: Time
    url: Annotated[str, StringConstraints(max_length=2_000)] | None = None
    certificate: Annotated[str, StringConstraints(max_length=2_000)] | None = None
    # An empty list would be taken for none at all.
    buyers: Annotated[list[Id], Field(min_length=1, max_length=BUYERS_NAMED_MAX)] | None = None


class Submission(BaseModel):
    """A lead as its source sends it; the fields of contact and details are for the lead type to judge."""

    model_config = _OPEN

    lead_type: Id
    reference: Reference | None = None
    contact: Fields
    details: Fields = Field(default_factory=dict)
    consent: Consent | None = None
    created_at: Time | None = None
    sales_max: Annotated[int, Field(ge=1, le=SALES_MAX_LIMIT)] | None = None
    never_to: Annotated[list[Id], Field(max_length=BUYERS_NAMED_MAX)] = Field(default_factory=list)
    is_test: bool = False


_validated = Submission.__pydantic_validator__.validate_python


class Undecodable(Exception):
    """A record that is no JSON object within the limits; the message says which of these, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object as it was sent, and its one canonical spelling (sorted keys, no spaces)."""

    body: dict[str, Any]
    canonical: bytes


def read_document(value: bytes | None) -> Document:
    """Decode a record's value; raise `Undecodable`."""
    if not value:
        raise Undecodable("an empty record")
    if len(value) > SUBMISSION_BYTES_MAX:
        raise Undecodable(f"a record of more than {SUBMISSION_BYTES_MAX} bytes")
    try:
        body = orjson.loads(value)
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONDecodeError:
        raise Undecodable("not JSON, or nested too deep") from None
    except orjson.JSONEncodeError:
        raise Undecodable("nested too deep") from None
    if not isinstance(body, dict):
        raise Undecodable("not a JSON object")
    return Document(body, canonical)


def read_submission(body: dict[str, Any]) -> Submission | Declined:
    """Check the shape of a submission."""
    try:
        submission: Submission = _validated(body)
        return submission
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        return _declined(first["type"], first["loc"])


def _declined(kind: str, place: tuple[int | str, ...]) -> Declined:
    if kind == "extra_forbidden":
        # The last part is a name that the source chose, which may be anything: only where it stood is told.
        return Declined(reason=DeclineReason.UNKNOWN_FIELD, field=_declared(place[:-1]))
    reason = DeclineReason.MISSING_FIELD if kind == "missing" else DeclineReason.INVALID_FIELD
    return Declined(reason=reason, field=_declared(place))


def _declared(place: tuple[int | str, ...]) -> str | None:
    """Name a place by what the models declare, and leave out what the source may have named."""
    names = [part for part in place[:2] if isinstance(part, str)]
    if names[:1] != ["consent"]:
        names = names[:1]
    return ".".join(names) or None
