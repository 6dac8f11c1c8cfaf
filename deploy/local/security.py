"""Who the brokers let in, where a stack is secured: passwords by SCRAM-SHA-512, and access lists for every topic.

Makes two users: `admin`, for administration alone, and `broker`, which the nodes are to each other. All others are made
by those who know what they may do.
"""

import os
from pathlib import Path

from deploy.local.folder import Folder, StackError

ADMIN, BROKER = "admin", "broker"
MECHANISM = "SCRAM-SHA-512"
REAUTHENTICATED_AFTER_MS = 3_600_000
"""A connection made with a password that was changed since lives no longer.

Faust's client can't identify itself anew: it is cut off then, connects again, and logs that as errors.
"""

_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"


def users_folder(folder: Folder) -> Path:
    """Name the folder with a file of librdkafka properties for each user; it is what `GAVEL_KAFKA_CONFIG` may name."""
    return folder.secrets / "kafka"


def make_administrator(folder: Folder) -> None:
    """Write the administrator's file, if it isn't there."""
    users_folder(folder).mkdir(mode=0o700, exist_ok=True)
    lines = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": MECHANISM,
        "sasl.username": ADMIN,
        "sasl.password": _password(folder, ADMIN),
    }
    folder.secret(f"kafka/{ADMIN}.properties", "\n".join(f"{name}={value}" for name, value in lines.items()))


def client(config: Path | None) -> dict[str, str]:
    """Read how the administrator's client connects, from a file or from its file in a folder; None is without."""
    if config is None:
        return {}
    file = config / f"{ADMIN}.properties" if config.is_dir() else config
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except OSError as error:
        raise StackError(f"GAVEL_KAFKA_CONFIG: {file} can't be read ({error.strerror}).") from error
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def external_config() -> Path | None:
    """Name what `GAVEL_KAFKA_CONFIG` does."""
    named = os.environ.get("GAVEL_KAFKA_CONFIG")
    return Path(named) if named else None


def first_users(folder: Folder) -> list[str]:
    """Say, as arguments of Kafka's formatting, who is there before anybody can connect."""
    users = (f"[name={user},password={_password(folder, user)}]" for user in (ADMIN, BROKER))
    return [argument for user in users for argument in ("--add-scram", f"{MECHANISM}={user}")]


def properties(folder: Folder) -> dict[str, str]:
    """Say how a node asks everybody who they are, the other nodes included, and allows nothing that isn't granted."""
    password = _password(folder, BROKER)
    controller = f'{_PLAIN} required username="{BROKER}" password="{password}" user_{BROKER}="{password}";'
    return {
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        "listener.name.client.sasl.enabled.mechanisms": MECHANISM,
        "listener.name.client.scram-sha-512.sasl.jaas.config": (
            f'{_SCRAM} required username="{BROKER}" password="{password}";'
        ),
        # Controllers know no SCRAM users before they have a quorum. A listener without passwords would make whoever
        # reaches it as mighty as a broker.
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": controller,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:{ADMIN};User:{BROKER}",
        "connections.max.reauth.ms": str(REAUTHENTICATED_AFTER_MS),
    }


def _password(folder: Folder, user: str) -> str:
    return folder.password(f"kafka-{user}.password")
