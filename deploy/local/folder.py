"""The data folder: where everything of one local stack lies, and what is remembered there from one start to the next.

Ports, secrets and the lock are its business; it starts nothing and knows no server.
"""

import base64
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_WAIT_SECONDS = 300.0
FIRST_PORT, PORTS = 20_000, 10_000  # below the range from which systems take ports for outgoing connections
ROTATED_LOG_SUFFIX = ".1"


class StackError(Exception):
    """The local stack can't do what was asked; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What one start leaves for the next: the cluster's id and the ports, a pair for each broker."""

    cluster_id: str
    kafka_ports: tuple[int, ...] = ()
    controller_ports: tuple[int, ...] = ()
    postgres_port: int | None = None
    secured: bool = False


class Folder:
    """The data folder of one local stack, by its absolute path."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).expanduser().absolute()
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.secrets = self.path / "secrets"
        self.postgres = self.path / "postgres"

    def kafka(self, node: int) -> Path:
        """Name the folder of one broker, counted from 1."""
        return self.path / f"kafka-{node}"

    def make(self) -> None:
        """Make the folder, closed to other users: topics and tables in it hold personal data."""
        try:
            for path in (self.path, self.logs, self.run, self.secrets):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"The data folder {self.path} can't be written ({error.strerror}). "
                "Choose another with --data or GAVEL_DATA."
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other start and stop out of this folder meanwhile."""
        with (self.path / "lock").open("w") as file:
            give_up = time.monotonic() + LOCK_WAIT_SECONDS
            while not _try_lock(file.fileno()):
                if time.monotonic() > give_up:
                    raise StackError(f"Another `gavel stack` command is still working on {self.path}.")
                time.sleep(0.1)
            yield

    def remembered(self) -> Remembered:
        """Read what the last start left, or make a new cluster's id."""
        try:
            stored = json.loads((self.path / "stack.json").read_text())
        except FileNotFoundError:
            return Remembered(cluster_id=_cluster_id())
        return Remembered(
            cluster_id=stored["cluster_id"],
            kafka_ports=tuple(stored["kafka_ports"]),
            controller_ports=tuple(stored["controller_ports"]),
            postgres_port=stored["postgres_port"],
            secured=stored.get("secured", False),  # folders of earlier releases don't say
        )

    def remember(self, state: Remembered) -> None:
        """Store the state, whole or not at all."""
        new = self.path / "stack.json.new"
        new.write_text(json.dumps(dataclasses.asdict(state), indent=2) + "\n")
        new.replace(self.path / "stack.json")

    def key(self, name: str) -> Path:
        """Return the file of a key of 32 random bytes, in base64, made on the first call."""
        return self.secret(name, base64.b64encode(secrets.token_bytes(32)).decode())

    def password(self, name: str) -> str:
        """Return a random password, the same at every call."""
        return self.secret(name, secrets.token_urlsafe(24)).read_text().strip()

    def secret(self, name: str, fresh: str) -> Path:
        """Return the file of a secret, closed to others, made with this content on the first call."""
        path = self.secrets / name
        if not path.exists():
            new = path.with_name(path.name + ".new")
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(fresh + "\n")
            new.replace(path)
        return path

    def fresh_log(self, name: str) -> Path:
        """Name the log of a server about to start, setting the one of its last run aside."""
        path = self.log(name)
        if path.exists():
            path.replace(path.with_name(path.name + ROTATED_LOG_SUFFIX))
        return path

    def log(self, name: str) -> Path:
        """Name the log of a server."""
        return self.logs / f"{name}.log"

    def free_port(self, purpose: str, taken: set[int]) -> int:
        """Choose a free port, the same for the same folder and purpose as long as nobody else has it.

        Folders start looking at different places, so that two stacks starting at once don't choose the same.
        """
        start = int.from_bytes(hashlib.sha256(f"{self.path} {purpose}".encode()).digest()[:4])
        for step in range(PORTS):
            port = FIRST_PORT + (start + step) % PORTS
            if port not in taken and port_is_free(port):
                return port
        raise StackError(f"No port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free on 127.0.0.1.")


def port_is_free(port: int) -> bool:
    """Tell whether a server could listen on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _cluster_id() -> str:
    while (text := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        pass  # Kafka's tool would take a leading dash for an option
    return text


def _try_lock(file_number: int) -> bool:
    try:
        fcntl.flock(file_number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
