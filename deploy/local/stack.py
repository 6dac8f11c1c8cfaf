"""The local stack as a whole: starts and stops real Kafka and PostgreSQL in one data folder, and tells how they are.

An existing server always wins: what `GAVEL_KAFKA` or `GAVEL_DATABASE` names is used and never started, stopped or
changed. Topics, schemas and roles are made by those who own them, not here.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.local import kafka, plan, postgres, processes, security
from deploy.local.doctor import Check, examine
from deploy.local.folder import Folder, Remembered, StackError
from deploy.local.processes import Patience

__all__ = [
    "Check",
    "ServerStatus",
    "Stack",
    "StackError",
    "default_data_dir",
    "doctor",
    "down",
    "environment",
    "kafka_config",
    "status",
    "up",
]

START_SECONDS = 90.0
Progress = Callable[[str], None]
Started = tuple[str, tuple[str, ...]]  # address, and the names of the servers started for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running stack: how clients reach it, and which servers this call had to start.

    `kafka_config` is the folder of Kafka users' files, or None where this Kafka asks nobody who they are.
    """

    kafka: str
    database: str
    data_dir: Path
    vault_key_file: Path
    fingerprint_key_file: Path
    kafka_config: Path | None = None
    started: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """How one server is: `pids` are empty when it isn't ours to run."""

    name: Literal["kafka", "postgres"]
    address: str | None
    external: bool
    answers: bool
    pids: tuple[int, ...] = ()
    logs: tuple[Path, ...] = ()


def default_data_dir() -> Path:
    """Name the data folder where nobody says otherwise: `GAVEL_DATA`, or `.gavel` in the current folder."""
    return Path(os.environ.get("GAVEL_DATA") or ".gavel")


def up(
    data_dir: Path | str,
    *,
    kafka_port: int | None = None,
    postgres_port: int | None = None,
    brokers: Literal[1, 3] | None = None,
    secured: bool | None = None,
    seconds: float = START_SECONDS,
    progress: Progress = lambda _message: None,
) -> Stack:
    """Start what is missing of the stack and return when all of it answers.

    A second call finds it running. Ports not given are those of the last start while they are free, else free ones;
    three brokers take three ports from `kafka_port` on. `brokers` not given is what the folder was made with, at first
    1; so is `secured`, at first no. `seconds` is the deadline for each server, downloads not counted. Raises
    `StackError` with the end of the server's log; what has been started by then keeps running, and the next call goes
    on from there.
    """
    folder = Folder(data_dir)
    folder.make()
    with folder.locked():
        state = folder.remembered()
        if not os.environ.get("GAVEL_KAFKA"):
            state = plan.kafka_ports(
                folder, plan.security(folder, state, secured), kafka_port, brokers, progress
            )
        if not os.environ.get("GAVEL_DATABASE"):
            state = plan.postgres_port(folder, state, postgres_port, progress)
        folder.remember(state)
        patience = Patience(seconds=seconds, ended=threading.Event())
        (database, started), (cluster, nodes_started) = _both(
            patience,
            lambda: _start_postgres(folder, state, patience, progress),
            lambda: _start_kafka(folder, state, patience, progress),
        )
        return Stack(
            kafka=cluster,
            kafka_config=_kafka_config(folder, state),
            database=database,
            data_dir=folder.path,
            vault_key_file=_key_file(folder, "vault"),
            fingerprint_key_file=_key_file(folder, "fingerprint"),
            started=started + nodes_started,
        )


def down(data_dir: Path | str, *, progress: Progress = lambda _message: None) -> tuple[str, ...]:
    """Stop the servers of this data folder in order, keep their data, and name those that were running."""
    folder = Folder(data_dir)
    if not folder.path.exists():
        return ()
    with folder.locked():
        servers = [postgres.server(folder), *kafka.nodes(folder, folder.remembered())]
        with ThreadPoolExecutor(len(servers)) as pool:
            stopped = [
                server.name
                for server, ran in zip(servers, pool.map(processes.stop, servers), strict=True)
                if ran
            ]
    for name in stopped:
        progress(f"Stopped {name}.")
    return tuple(stopped)


def status(data_dir: Path | str) -> tuple[ServerStatus, ServerStatus]:
    """Tell how Kafka and PostgreSQL are, without changing anything."""
    folder = Folder(data_dir)
    return _kafka_status(folder), _postgres_status(folder)


def environment(stack: Stack) -> dict[str, str]:
    """Say what child processes need in their environment to find the stack and its secrets."""
    config = {"GAVEL_KAFKA_CONFIG": str(stack.kafka_config)} if stack.kafka_config else {}
    return {
        "GAVEL_KAFKA": stack.kafka,
        **config,
        "GAVEL_DATABASE": stack.database,
        "GAVEL_VAULT_KEY_FILE": str(stack.vault_key_file),
        "GAVEL_FINGERPRINT_KEY_FILE": str(stack.fingerprint_key_file),
    }


def doctor(data_dir: Path | str) -> tuple[Check, ...]:
    """Look for everything that may keep the stack from working, and say what to do about each."""
    folder = Folder(data_dir)
    cluster, database = status(data_dir)
    return examine(folder, cluster.address, database.address, kafka_config(data_dir))


def _both(patience: Patience, *starts: Callable[[], Started]) -> list[Started]:
    """Run the starts side by side; the first failure, or Ctrl-C, calls off the waiting for the others."""
    with ThreadPoolExecutor(len(starts)) as pool:
        try:
            futures = [pool.submit(start) for start in starts]
            for future in as_completed(futures):
                future.result()
        finally:
            patience.ended.set()
    return [future.result() for future in futures]


def _start_kafka(folder: Folder, state: Remembered, patience: Patience, progress: Progress) -> Started:
    if external := os.environ.get("GAVEL_KAFKA"):
        if kafka.metadata(external, security.external_config(), patience.seconds) is None:
            raise StackError(
                f"GAVEL_KAFKA names {external}, where no Kafka answers (with what GAVEL_KAFKA_CONFIG says). "
                "Unset it to start one here."
            )
        progress(f"Kafka is the one of GAVEL_KAFKA, {external}.")
        return external, ()
    if state.secured:
        security.make_administrator(folder)
    nodes = kafka.nodes(folder, state)
    started = _answering(
        "Kafka",
        kafka.bootstrap(state),
        nodes,
        lambda absent: kafka.start(folder, state, [nodes.index(node) + 1 for node in absent], progress),
        lambda: kafka.cluster_answers(folder, state),
        patience,
        progress,
    )
    return kafka.bootstrap(state), started


def _start_postgres(folder: Folder, state: Remembered, patience: Patience, progress: Progress) -> Started:
    if external := os.environ.get("GAVEL_DATABASE"):
        if not postgres.is_there(external):
            raise StackError(
                "GAVEL_DATABASE names a database that doesn't answer. Unset it to start one here."
            )
        progress("PostgreSQL is the one of GAVEL_DATABASE.")
        return external, ()
    port = state.postgres_port
    assert port is not None, "the plan has given it a port"
    started = _answering(
        "PostgreSQL",
        f"127.0.0.1:{port}",
        [postgres.server(folder)],
        lambda _absent: postgres.start(folder, port, progress),
        lambda: postgres.answers(folder, port),
        patience,
        progress,
    )
    return postgres.url(folder, port), started


def _answering(
    what: str,
    address: str,
    servers: list[processes.Server],
    start: Callable[[list[processes.Server]], None],
    answers: Callable[[], bool],
    patience: Patience,
    progress: Progress,
) -> tuple[str, ...]:
    """Start those of the servers that don't run, wait until all answer, and name those started."""
    absent = [server for server in servers if processes.find(server) is None]
    if absent:
        progress(f"Starting {what} ...")
        start(absent)
    try:
        for server in servers:
            processes.await_answer(server, answers, patience)
    except processes.ServerEndedError:
        if absent:
            raise
        # It was on its way out when it was found, killed or stopped by somebody else.
        return _answering(what, address, servers, start, answers, patience, progress)
    progress(f"{what} {'answers' if absent else 'is running already'} at {address}.")
    return tuple(server.name for server in absent)


def _key_file(folder: Folder, name: str) -> Path:
    """Make the key on the first start, unless the environment names another: what is sealed stays readable."""
    elsewhere = os.environ.get(f"GAVEL_{name.upper()}_KEY_FILE")
    return Path(elsewhere).absolute() if elsewhere else folder.key(f"{name}.key")


def _kafka_config(folder: Folder, state: Remembered) -> Path | None:
    return security.external_config() if os.environ.get("GAVEL_KAFKA") else kafka.config(folder, state)


def kafka_config(data_dir: Path | str) -> Path | None:
    """Name what `GAVEL_KAFKA_CONFIG` is to name for this stack's Kafka; None where it asks nobody who they are."""
    folder = Folder(data_dir)
    return _kafka_config(folder, folder.remembered())


def _kafka_status(folder: Folder) -> ServerStatus:
    if external := os.environ.get("GAVEL_KAFKA"):
        answers = kafka.metadata(external, security.external_config()) is not None
        return ServerStatus(name="kafka", address=external, external=True, answers=answers)
    state = folder.remembered()
    nodes = kafka.nodes(folder, state)
    return ServerStatus(
        name="kafka",
        address=kafka.bootstrap(state) or None,
        external=False,
        answers=bool(nodes) and kafka.cluster_answers(folder, state),
        pids=_pids(nodes),
        logs=tuple(node.log_file for node in nodes),
    )


def _postgres_status(folder: Folder) -> ServerStatus:
    if external := os.environ.get("GAVEL_DATABASE"):
        answers = postgres.is_there(external)
        return ServerStatus(name="postgres", address=external, external=True, answers=answers)
    port, server = folder.remembered().postgres_port, postgres.server(folder)
    address = postgres.url(folder, port) if port else None
    return ServerStatus(
        name="postgres",
        address=address,
        external=False,
        answers=address is not None and postgres.is_there(address),
        pids=_pids([server]),
        logs=(server.log_file,),
    )


def _pids(servers: list[processes.Server]) -> tuple[int, ...]:
    return tuple(process.pid for server in servers if (process := processes.find(server)))
