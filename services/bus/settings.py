"""What a step is told by its environment: one frozen model, made once by the step's `__main__`.

Nothing else in Gavel reads the environment. A message about a setting names its variable and what it is for, and
repeats no value, since some are secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.bus.kafka import Connection, read_properties
from services.contract.access import insider
from services.contract.topics import Topics

PREFIX = "GAVEL_"


class SettingsError(ValueError):
    """The environment does not say what the step needs; the message names each variable."""


class StepSettings(BaseSettings):
    """The settings that all steps have; a step with more derives its own from this."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    kafka: str = Field(
        min_length=1, description="the brokers to begin with, such as localhost:9092 (several with commas)"
    )
    database: str = Field(
        min_length=1,
        repr=False,
        description="the URL of the PostgreSQL database, such as postgresql://localhost/gavel",
    )
    database_users: Path | None = Field(
        default=None,
        description="a folder with a passfile for each of our users at the database, whom `gavel setup` lets log in",
    )
    namespace: str = Field(
        default="",
        pattern=r"^([a-z0-9-]+\.)*$",
        description="put before every topic and group; empty or ending in a dot",
    )
    worker: str = Field(
        default="",
        pattern=r"^[a-z0-9-]*$",
        description="this worker's name in logs and at the broker; by default the step and its process id",
    )
    session_timeout_ms: int = Field(
        default=6_000,
        ge=500,
        le=300_000,
        description="how long the group waits for a silent worker; the broker's group.min.session.timeout.ms allows it",
    )
    batch_max: int = Field(
        default=500, ge=1, le=10_000, description="so many records are handled at once at most"
    )
    batch_wait_ms: int = Field(
        default=30,
        ge=0,
        le=1_000,
        description="how long a step rests at most so that records gather: half of what its last batch took, if less",
    )
    web_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="the port that /metrics, /healthz and /readyz are served on",
    )
    web_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="the address that they are served on; they ask nobody who they are",
    )
    kafka_config: Path | None = Field(
        default=None,
        description="a file of librdkafka properties (key=value), for SASL and TLS, or a folder with one for each user",
    )
    kafka_user: str = Field(
        default="",
        pattern=r"^[a-z0-9.-]*$",
        description="whose file is read where GAVEL_KAFKA_CONFIG is a folder; by default the step's own",
    )
    vault_key_file: Path | None = Field(default=None, description="the file with the vault's master key")
    vault_key: SecretStr | None = Field(
        default=None, description="the vault's master key itself, in base64, where it can't be a file"
    )
    vault_older_key_files: str = Field(
        default="",
        description="files with master keys that still open what they sealed (several with commas)",
    )
    fingerprint_key_file: Path | None = Field(
        default=None, description="the file with the key of fingerprints and payload hashes"
    )

    @field_validator("database")
    @classmethod
    def _is_an_address(cls, database: str) -> str:
        try:
            conninfo_to_dict(database)
        except psycopg.ProgrammingError:
            # libpq's own message may repeat a part of it, and that may be the password.
            raise PydanticCustomError(
                "database", "neither a URL of PostgreSQL nor its keywords and values"
            ) from None
        return database

    @property
    def topics(self) -> Topics:
        """Every topic name in this namespace."""
        return Topics(self.namespace)

    def connection(self) -> Connection:
        """Say how to reach Kafka; raise `SettingsError` for a file that is not one of properties."""
        if self.kafka_config is None:
            return Connection(bootstrap=self.kafka)
        file = self.kafka_config
        if self.users_folder is not None:
            file = user_file(self.users_folder, self.kafka_user)
        try:
            properties = read_properties(file.read_text())
        except (OSError, ValueError) as error:
            raise SettingsError(f"{PREFIX}KAFKA_CONFIG={file}: {error}{_hint(error)}") from None
        return Connection(bootstrap=self.kafka, properties=properties)

    @property
    def users_folder(self) -> Path | None:
        """The folder with a file of properties for each user; None where one file serves everybody."""
        return self.kafka_config if self.kafka_config is not None and self.kafka_config.is_dir() else None

    def as_user(self, user: str) -> Self:
        """Speak to Kafka as another user, whose file is in the folder of users; without a folder, as before."""
        return self.model_copy(update={"kafka_user": user})

    def as_insider(self, who: str) -> Self:
        """Speak to Kafka as a step, the auditor (`audit`) or the operator (`operator`)."""
        return self.as_user(insider(self.topics, who))


def user_file(folder: Path, user: str) -> Path:
    """Name the file of a user's properties."""
    return folder / f"{user}.properties"


def _hint(error: Exception) -> str:
    return (
        ": `gavel setup` makes the files of the steps, `gavel source | buyer add --save` those of outsiders"
        if isinstance(error, FileNotFoundError)
        else ""
    )


S = TypeVar("S", bound=StepSettings)


def read_settings(kind: type[S], *, who: str = "") -> S:
    """Read the environment, once; raise `SettingsError` with a line for each variable.

    `who` speaks to Kafka: a step, `audit` or `operator`, unless the environment names another user.
    """
    try:
        settings = kind()
        return settings if settings.kafka_user or not who else settings.as_insider(who)
    except ValidationError as error:
        lines = [_complaint(kind, found) for found in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from None


def _complaint(kind: type[StepSettings], found: ErrorDetails) -> str:
    name = str(found["loc"][0]) if found["loc"] else ""
    field = kind.model_fields.get(name)
    purpose = field.description if field is not None and field.description else "see docs/operations.md"
    if found["type"] == "missing":
        return f"{PREFIX}{name.upper()} is not set: {purpose}"
    return f"{PREFIX}{name.upper()}: {found['msg']} ({purpose})"
