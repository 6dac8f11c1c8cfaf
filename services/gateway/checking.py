"""Checks what callers send against the schemas that are published for the topics, and names what is wrong.

Whether a lead is one is intake's to judge; what nobody could read is refused here, where the caller still listens.
No message quotes what was sent, nor a name that the caller chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from jsonschema_rs import Draft202012Validator, ValidationError

from services.contract.codec import SCHEMAS

SUBMISSION_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 4 * 1024


class Unfit(Exception):
    """Something that its topic has no place for: `what` is wrong, at `field` where it is a declared one."""

    def __init__(self, what: str, field: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.field = field


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object as it was sent, and its one canonical spelling (sorted keys, no spaces)."""

    body: dict[str, Any]
    canonical: bytes


@lru_cache(maxsize=2)
def published_schema(name: str) -> dict[str, Any]:
    """Read a schema of `schemas/json`."""
    schema: dict[str, Any] = orjson.loads((SCHEMAS / "json" / f"{name}.schema.json").read_bytes())
    return schema


def read_submission(value: bytes) -> Document:
    """Read a lead as a source sends it; raise `Unfit`."""
    return _read("submission", value, SUBMISSION_BYTES_MAX)


def read_answer(value: bytes) -> Document:
    """Read what a buyer answers; raise `Unfit`."""
    return _read("answer", value, ANSWER_BYTES_MAX)


def _read(name: str, value: bytes, bytes_max: int) -> Document:
    if len(value) > bytes_max:
        raise Unfit(f"more than {bytes_max} bytes")
    document = _document(value)
    validator = _validator(name)
    if not validator.is_valid(document.body):
        raise _unfit(next(iter(validator.iter_errors(document.body))))
    return document


def _document(value: bytes) -> Document:
    try:
        body = orjson.loads(value)
        canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONDecodeError:
        raise Unfit("not JSON, or nested too deep") from None
    except orjson.JSONEncodeError:
        raise Unfit("nested too deep") from None
    if not isinstance(body, dict):
        raise Unfit("not a JSON object")
    return Document(body, canonical)


@lru_cache(maxsize=2)
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(published_schema(name), validate_formats=True)


def _unfit(error: ValidationError) -> Unfit:
    """Tell the rule that is broken, and where: only names that the schema itself declares."""
    rule = error.kind.name
    declared = set(published_schema("submission")["properties"]) | {"text", "at", "url", "certificate"}
    path = [str(part) for part in error.instance_path if str(part) in declared]
    return Unfit(f"does not fit the published schema: {rule}", ".".join(path[:2]) or None)
