"""The schemas as a Schema Registry shows them, so that kcat and Java decode our topics. Read-only, from the files.

A subject is a topic's name and `-value`. Its versions are the schemas of the records of that topic, by their fixed
ids: where a topic has records of several types, it has a version for each version of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.contract.codec import SCHEMAS, Schema, stored_schemas
from services.contract.topics import TopicDeclaration, Topics, declarations

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
LATEST = "latest"
_SUFFIX = "-value"
_ID = "<id>"


class NotThere(Exception):
    """What a Schema Registry says of what it doesn't have: its error code, and its words."""

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status, which the code begins with."""
        return self.error_code // 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSchema:
    """A stored schema, as the text of its file."""

    id: int
    text: str


class SchemaRegistry:
    """All schemas by id, and those of each topic."""

    def __init__(
        self, topics: Topics, schemas: Sequence[Schema], declared: Sequence[TopicDeclaration]
    ) -> None:
        """Take what is stored and declared."""
        self._by_id = {schema.id: RegisteredSchema(id=schema.id, text=_text(schema)) for schema in schemas}
        self._topics = topics
        self._ids: dict[str, list[int]] = {}
        for topic in declared:
            ids = sorted(schema.id for schema in schemas if schema.type in topic.records)
            if ids:
                self._ids[topic.name] = ids

    def subjects(self) -> list[str]:
        """List the subjects of our own topics."""
        return sorted(f"{self._topics.namespace}{name}{_SUFFIX}" for name in self._ids if _ID not in name)

    def schema(self, schema_id: str) -> dict[str, Any]:
        """Give a schema by its id; raise `NotThere`."""
        found = self._by_id.get(int(schema_id)) if schema_id.isdecimal() and len(schema_id) < 10 else None
        if found is None:
            raise NotThere(40403, "Schema not found")
        return {"schema": found.text}

    def versions(self, subject: str) -> list[int]:
        """Number the versions of a subject; raise `NotThere`."""
        return list(range(1, len(self._ids_of(subject)) + 1))

    def version(self, subject: str, version: str) -> dict[str, Any]:
        """Give one version of a subject, or the latest; raise `NotThere`."""
        ids = self._ids_of(subject)
        number = len(ids) if version in (LATEST, "-1") else _number(version)
        if not 1 <= number <= len(ids):
            raise NotThere(40402, "Version not found")
        schema_id = ids[number - 1]
        return {"subject": subject, "version": number, "id": schema_id, **self.schema(str(schema_id))}

    def _ids_of(self, subject: str) -> Sequence[int]:
        topic = subject.removesuffix(_SUFFIX)
        owner = self._topics.owner_of(topic)
        name = f"{owner[0]}.{_ID}.{owner[2]}" if owner else topic.removeprefix(self._topics.namespace)
        ids = self._ids.get(name)
        if ids is None or not subject.endswith(_SUFFIX) or not topic.startswith(self._topics.namespace):
            raise NotThere(40401, "Subject not found")
        return ids


def open_registry(topics: Topics) -> SchemaRegistry:
    """Read the stored schemas and declared topics."""
    return SchemaRegistry(topics, stored_schemas(), declarations())


def _number(version: str) -> int:
    if not version.isdecimal() or len(version) > 9:
        raise NotThere(42202, "The specified version is not a valid version id")
    return int(version)


def _text(schema: Schema) -> str:
    """Write the file's schema in one line: what fastavro parsed has marks of its own in it."""
    stored: Mapping[str, Any] = json.loads(
        (SCHEMAS / "avro" / f"{schema.type}.v{schema.version}.avsc").read_text()
    )
    return json.dumps(stored, separators=(",", ":"))
