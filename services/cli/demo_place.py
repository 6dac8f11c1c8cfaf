"""Where a demo takes place: servers, a database and a namespace that no other run has, and their end.

What runs already is used and left running; what the demo starts, it stops. Nothing of the market is here.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from psycopg import sql

from deploy.local import stack
from services.bus.database import CONNECT_S
from services.bus.kafka import Connection
from services.bus.ports import BusFailed
from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.insiders import administration, forget_users

Progress = Callable[[str], None]
ENVIRONMENT_FILE = "demo.env"
_ANSWER_S = 20.0
_NAMESPACE = re.compile(r"demo-[0-9a-f]{6}\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One demo's place: the environment that finds it, and the folder with its logs."""

    data: Path
    environment: Mapping[str, str]
    settings: StepSettings

    @property
    def logs(self) -> Path:
        """Where workers and servers write their logs."""
        return self.data / "logs"

    def export(self) -> Path:
        """Write a file that a shell can read to be in this place, closed to others: it has a password."""
        path = self.data / ENVIRONMENT_FILE
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(
                f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items()
            )
        return path


@contextmanager
def place(data: Path, progress: Progress) -> Iterator[Place]:
    """Start what is missing, make a database, and undo both at the end; raise `Complaint` or `StackError`."""
    with ExitStack() as ending:
        ending.enter_context(_alone(data))
        before = stack.status(data)
        is_external = any(server.external for server in before)
        was_running = any(server.pids for server in before)
        if not was_running:
            ending.callback(stack.down, data, progress=progress)
        # A folder stays as it was made; a new one has doors.
        servers = stack.up(
            data, secured=None if before[0].external or before[0].address else True, progress=progress
        )
        run = secrets.token_hex(3)
        namespace = f"demo-{run}."
        found = StepSettings(
            kafka=servers.kafka,
            kafka_config=servers.kafka_config,
            database=servers.database,
            namespace=namespace,
        ).as_insider("operator")
        if not is_external:
            sweep(found)
        if was_running:
            ending.callback(progress, f"The servers in {data} were running before, and run on.")
        if is_external or was_running:
            # Where the servers stop with the demo, the next one sweeps: that is the faster end.
            ending.callback(_remove, found, f"gavel_demo_{run}")
        database = _create_database(servers.database, f"gavel_demo_{run}")
        environment = {
            **stack.environment(servers),
            "GAVEL_DATABASE": database,
            "GAVEL_NAMESPACE": namespace,
            "GAVEL_DATA": str(data.absolute()),
            "GAVEL_HTTP_PORT": str(_free_port()),
            "GAVEL_WEBHOOK_NETWORKS": "127.0.0.0/8",
        }
        yield Place(
            data=data.absolute(),
            environment=environment,
            settings=found.model_copy(update={"database": database}),
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def sweep(found: StepSettings) -> None:
    """Remove what demos have left in servers of their own."""
    with _administrator(found.database) as database:
        names = database.execute(
            r"select datname from pg_database where datname like 'gavel\_demo\_%'"
        ).fetchall()
        for (name,) in names:
            _drop(database, name)
    _remove_from_kafka(found, _NAMESPACE)


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Keep another demo out of this folder: each takes what it finds for the last one's remains."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data / "demo.lock").open("w")
    except OSError as error:
        raise Complaint(
            f"The folder {data} can't be written: {error.strerror}.", "Choose another with --data."
        ) from error
    with lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Complaint(
                f"A demo is running in {data} already.", "Choose another folder with --data."
            ) from error
        yield


def _create_database(server: str, name: str) -> str:
    try:
        with _administrator(server) as database:
            database.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise Complaint(
            "The user of GAVEL_DATABASE may not create the demo's database.",
            "Grant it CREATEDB, or unset GAVEL_DATABASE: the demo then starts a PostgreSQL of its own.",
        ) from error
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def _remove(found: StepSettings, name: str) -> None:
    with _administrator(found.database) as database:
        _drop(database, name)
    _remove_from_kafka(found, re.compile(re.escape(found.namespace)))


def _remove_from_kafka(found: StepSettings, namespaces: re.Pattern[str]) -> None:
    _delete_topics(administration(found), namespaces)
    forget_users(found, namespaces.match)


def _drop(database: psycopg.Connection, name: str) -> None:
    database.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _administrator(server: str) -> psycopg.Connection:
    return psycopg.connect(server, autocommit=True, connect_timeout=CONNECT_S, application_name="gavel demo")


def _delete_topics(connection: Connection, namespaces: re.Pattern[str]) -> None:
    admin = AdminClient(connection.librdkafka())
    topics = [name for name in admin.list_topics(timeout=_ANSWER_S).topics if namespaces.match(name)]
    if not topics:
        return
    for name, deleted in admin.delete_topics(topics, operation_timeout=_ANSWER_S).items():
        try:
            deleted.result()
        except KafkaException as error:
            raise BusFailed(f"{name} can't be deleted: {error}") from error
