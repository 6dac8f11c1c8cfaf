"""The campaign's own Kafka and PostgreSQL, which are killed and restarted; what the environment names is never touched.

It starts them by `deploy.local`, which recognises its servers by their mark, so that no other process is ever hit.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql

from chaos import small_disk
from chaos.guard import Guard
from deploy.local import kafka, postgres, processes, stack
from deploy.local.folder import Folder, StackError
from deploy.local.stack import Stack

_ENDS_WITHIN_S = 30.0
_STARTS_WITHIN_S = (
    300.0  # a broker that was killed waits for its own session to end, on a machine with other work
)


@dataclass(slots=True)
class Servers:
    """Running servers in a folder of their own."""

    stack: Stack
    guard: Guard
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def kafka_ports(self) -> frozenset[int]:
        """Where the brokers listen."""
        return frozenset(int(address.rpartition(":")[2]) for address in self.stack.kafka.split(","))

    @property
    def database_port(self) -> int:
        """Where the database listens."""
        port = urlsplit(self.stack.database).port
        assert port is not None, "a local stack's database has a port"
        return port

    def database(self, name: str) -> str:
        """Make a database, and name it for clients."""
        with psycopg.connect(self.stack.database, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return urlsplit(self.stack.database)._replace(path=f"/{name}").geturl()

    def terminate_sessions(self, client_ports: tuple[int, ...]) -> int:
        """Let the database end the sessions of these clients; count them."""
        with psycopg.connect(self.stack.database, autocommit=True) as connection:
            rows = connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where client_port = any(%s)",
                [list(client_ports)],
            ).fetchall()
        return sum(bool(done) for (done,) in rows)

    def kill(self, name: str) -> None:
        """Kill a server as a power cut of its process would: no goodbye, no flush."""
        process = processes.find(self._server(name))
        if process is not None:
            process.kill()
            _await_end(process)

    def stop(self, name: str) -> None:
        """Stop a server in order: SIGTERM for a broker, PostgreSQL's fast shutdown."""
        processes.stop(self._server(name))

    def runs(self, name: str) -> bool:
        """Tell whether a server's process is there."""
        return processes.find(self._server(name)) is not None

    def data_of_broker(self) -> Path:
        """Name the folder of the first broker's log."""
        return Folder(self.stack.data_dir).kafka(1) / "data"

    def start(self) -> None:
        """Start what is not there; raise `StackError` where it does not come back, or not at its address."""
        found = stack.up(self.stack.data_dir, seconds=_STARTS_WITHIN_S)
        if (found.kafka, found.database) != (self.stack.kafka, self.stack.database):
            raise StackError("A server has come back at another address: its port was taken meanwhile.")

    def _server(self, name: str) -> processes.Server:
        folder = Folder(self.stack.data_dir)
        if name == "postgres":
            return postgres.server(folder)
        return kafka.server(folder, int(name.removeprefix("kafka-")))


def _await_end(process: psutil.Process) -> None:
    try:
        process.wait(_ENDS_WITHIN_S)
    except psutil.TimeoutExpired as error:
        raise StackError(f"Process {process.pid} did not end when it was killed.") from error


@contextmanager
def own_servers(
    brokers: Literal[1, 3], logs: Path, progress: Callable[[str], None], *, keep: bool
) -> Iterator[Servers]:
    """Start servers in a new folder; stop them and remove the folder at the end. Their logs are copied to `logs`."""
    data = Path(tempfile.mkdtemp(prefix="gavel-chaos-"))
    try:
        with Guard.over(data) as guard:
            try:
                running = stack.up(data, brokers=brokers, seconds=_STARTS_WITHIN_S, progress=progress)
                yield Servers(running, guard)
            finally:
                stack.down(data, progress=progress)
                small_disk.take_away(Folder(data).kafka(1) / "data")
    finally:
        for log in (data / "logs").glob("*.log*"):
            shutil.copy(log, logs)
        if keep:
            progress(f"The servers' data stays in {data}.")
        else:
            shutil.rmtree(data, ignore_errors=True)
