"""Where the command line finds Kafka, the database and the keys: the environment, else a local stack that runs.

What is found is put into the environment of this process, for every part reads it there; what somebody has set is
never changed. Nothing is started here.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

import psycopg

from services.bus.settings import StepSettings, read_settings
from services.contract.access import Family, Outsider, insider

DATA = "GAVEL_DATA"
OPERATOR = "operator"
_KEY_FILES = {"GAVEL_VAULT_KEY_FILE": "vault.key", "GAVEL_FINGERPRINT_KEY_FILE": "fingerprint.key"}


class KafkaSettings(StepSettings):
    """What a command needs that speaks to Kafka alone."""

    database: str = ""


def adopt_local_stack(environment: MutableMapping[str, str]) -> None:
    """Set what is not set to what a running local stack says of itself."""
    if {"GAVEL_KAFKA", "GAVEL_DATABASE", *_KEY_FILES} <= environment.keys():
        return
    data = Path(environment.get(DATA) or ".gavel")
    if not (data / "stack.json").exists():
        return
    from deploy.local import stack

    servers, config = stack.status(data), stack.kafka_config(data)
    for name, server in zip(("GAVEL_KAFKA", "GAVEL_DATABASE"), servers, strict=True):
        if not server.external and server.answers and server.address:
            environment.setdefault(name, server.address)
    if config is not None and environment.get("GAVEL_KAFKA") == servers[0].address:
        environment.setdefault("GAVEL_KAFKA_CONFIG", str(config))
    for name, file in _KEY_FILES.items():
        key = (data / "secrets" / file).absolute()
        if key.exists() and not (name == "GAVEL_VAULT_KEY_FILE" and "GAVEL_VAULT_KEY" in environment):
            environment.setdefault(name, str(key))


def settings() -> StepSettings:
    """Read what a command needs that speaks to both servers; raise `SettingsError`."""
    return read_settings(StepSettings, who=OPERATOR)


def kafka_settings() -> KafkaSettings:
    """Read what a command needs that speaks to Kafka alone; raise `SettingsError`."""
    return read_settings(KafkaSettings, who=OPERATOR)


def outsider_settings(family: Family, id: str) -> KafkaSettings:
    """Read what a command needs that speaks to Kafka as a source or a buyer would; raise `SettingsError`."""
    found = kafka_settings()
    is_said = found.kafka_user != insider(found.topics, OPERATOR)
    return found if is_said else found.as_user(Outsider(family=family, id=id).user(found.topics))


def connect_as_auditor(url: str) -> psycopg.Connection:
    """Connect with the role that may read everything and change nothing."""
    from services.bus.database import connect

    return connect(url, role="gavel_audit", application_name="gavel", transaction_timeout_ms=0)
