"""The OpenAPI document: what the routes take and answer, with the schemas that are published for the topics."""

from __future__ import annotations

from typing import Any

from services.gateway.checking import published_schema

PROBLEM = "application/problem+json"
_COMPONENTS = "#/components/schemas/"

DESCRIPTION = """\
Leads in, answers in, webhooks out, for those who don't speak Kafka. What is answered 202 is on the sender's topic.

Webhooks are signed as Standard Webhooks 1.0 has it. Every no is a problem document (RFC 9457).
"""


def components() -> dict[str, Any]:
    """Describe what is sent and answered, and how callers say who they are."""
    return {
        "schemas": {**_published("Submission", "submission"), **_published("Answer", "answer"), **_OWN},
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }


def _published(name: str, stored: str) -> dict[str, Any]:
    """Take a published schema over, its definitions beside it."""
    schema = {key: value for key, value in published_schema(stored).items() if not key.startswith("$")}
    definitions = published_schema(stored).get("$defs", {})
    found = {f"{name}.{key}": value for key, value in definitions.items()}
    return {each: _moved(value, name) for each, value in {name: schema, **found}.items()}


def _moved(value: Any, name: str) -> Any:
    match value:
        case {"$ref": str(there)}:
            return {"$ref": there.replace("#/$defs/", f"{_COMPONENTS}{name}.")}
        case dict():
            return {key: _moved(each, name) for key, each in value.items()}
        case list():
            return [_moved(each, name) for each in value]
        case _:
            return value


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


_UUID = {"type": "string", "format": "uuid"}
_AMOUNT = {"type": ["string", "null"], "description": "A decimal of the currency."}
_OWN: dict[str, Any] = {
    "Taken": _object(["lead_id"], lead_id=_UUID),
    "Line": _object(
        ["line"],
        line={"type": "integer", "minimum": 1},
        lead_id=_UUID,
        problem={"$ref": f"{_COMPONENTS}Problem"},
    ),
    "AnswerTaken": _object(["type", "lead_id"], type={"type": "string"}, lead_id=_UUID),
    "Status": _object(
        ["lead_id", "state", "sales", "happened"],
        lead_id=_UUID,
        state={"enum": ["declined", "accepted", "sold", "closed"]},
        reason={"type": ["string", "null"], "description": "Why it was declined."},
        field={"type": ["string", "null"], "description": "Which field was wrong."},
        sales={"type": "integer", "minimum": 0},
        outcome={"type": ["string", "null"], "description": "How its selling ended."},
        payout=_AMOUNT,
        currency={"type": ["string", "null"]},
        happened={"type": "array", "items": {"type": "object", "required": ["type"]}},
    ),
    "Problem": _object(
        ["type", "title", "status", "detail"],
        type={"type": "string"},
        title={"type": "string"},
        status={"type": "integer"},
        detail={"type": "string"},
    ),
}


def reference(name: str) -> dict[str, Any]:
    """Point to a component."""
    return {"$ref": _COMPONENTS + name}


def answered(description: str, name: str, media_type: str = "application/json") -> dict[str, Any]:
    """Describe a reply."""
    return {"description": description, "content": {media_type: {"schema": reference(name)}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the noes of a route."""
    return {status: answered(_NOES[status], "Problem", PROBLEM) for status in statuses}


_NOES = {
    400: "No Idempotency-Key.",
    401: "No key that is in force.",
    403: "A key of the other kind.",
    404: "Not there.",
    408: "Nothing came for too long.",
    409: "In progress.",
    413: "Too large.",
    415: "A media type that is not taken.",
    422: "Unfit, or an Idempotency-Key used for another body.",
    429: "Too many; Retry-After says when to come again.",
    503: "Kafka or the database does not answer; send the same again.",
}

SEND_LEADS: dict[str, Any] = {
    "security": [{"key": []}],
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Required for a single lead; streams need none.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[!#-~]+$"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": reference("Submission")},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    },
}
SEND_ANSWER: dict[str, Any] = {
    "security": [{"key": []}],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": reference("Answer")}},
    },
}
READ_STATUS: dict[str, Any] = {
    "security": [{"key": []}],
    "parameters": [{"name": "lead_id", "in": "path", "required": True, "schema": _UUID}],
}
