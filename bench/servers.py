"""The servers that a benchmark runs on: a local stack of its own, or the ones that the environment names.

It makes a site for each run (a namespace, a database, a folder) and removes what it made, but for the workers' logs in
`.bench`; it never stops a server that it did not start.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit, urlunsplit

import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg import sql

from bench.pipeline import Site
from bench.processes import family_cpu_s, listener_on, parent_of
from deploy.local import stack

LOGS = Path(__file__).parents[1] / ".bench"
"""Where the workers' logs stay; `make clean` removes them."""

_ADMIN_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Kafka and PostgreSQL, and where they run if that is this machine. `name` sets this benchmark's things apart."""

    name: str
    kafka: str
    database: str
    vault_key_file: Path
    fingerprint_key_file: Path
    folder: Path
    broker_pid: int | None
    postmaster_pid: int | None

    def cpu_s(self) -> Mapping[str, float]:
        """Read the CPU time that each server has used."""
        pids = {"broker": self.broker_pid, "database": self.postmaster_pid}
        return {name: family_cpu_s(pid) for name, pid in pids.items() if pid is not None}

    @contextmanager
    def site(self, number: int) -> Iterator[Site]:
        """Make a site for one run, and remove its topics and its database afterwards; its logs stay."""
        name = f"{self.name}-{number}"
        folder = self.folder / name
        folder.mkdir()
        self._execute("create database {}", name)
        try:
            yield Site(
                kafka=self.kafka,
                database=_with_database(self.database, name),
                namespace=f"{name}.",
                folder=folder,
                vault_key_file=self.vault_key_file,
                fingerprint_key_file=self.fingerprint_key_file,
            )
        finally:
            self._execute("drop database {} with (force)", name)
            delete_topics(self.kafka, f"{name}.")

    def _execute(self, statement: str, name: str) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))


@contextmanager
def servers(progress: Callable[[str], None]) -> Iterator[Servers]:
    """Use the servers that GAVEL_KAFKA and GAVEL_DATABASE name, start those they don't, and stop these at the end."""
    name = f"bench-{os.getpid()}-{int(time.time())}"
    data = Path(tempfile.mkdtemp(prefix="gavel-bench-"))
    folder = LOGS / name
    folder.mkdir(parents=True)
    try:
        running = stack.up(data, progress=progress)
        yield Servers(
            name=name,
            kafka=running.kafka,
            database=running.database,
            vault_key_file=running.vault_key_file,
            fingerprint_key_file=running.fingerprint_key_file,
            folder=folder,
            broker_pid=_broker_pid(running.kafka),
            postmaster_pid=_postmaster_pid(running.database),
        )
    finally:
        stack.down(data, progress=progress)
        shutil.rmtree(data, ignore_errors=True)


def create_topics(
    kafka: str, names: Sequence[str], *, partitions: int, config: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Make topics, and return when they can be used."""
    admin = AdminClient({"bootstrap.servers": kafka})
    topics = [NewTopic(name, partitions, 1, config=dict(config)) for name in names]
    for made in admin.create_topics(topics, operation_timeout=_ADMIN_WITHIN_S).values():
        made.result()
    until_s = time.monotonic() + _ADMIN_WITHIN_S
    while not all(_has_leaders(admin, name, partitions) for name in names):
        if time.monotonic() > until_s:
            raise TimeoutError(f"the topics {', '.join(names)} were made, but have no leaders yet")
        time.sleep(0.05)


def _has_leaders(admin: AdminClient, name: str, partitions: int) -> bool:
    """Tell whether a client would find all partitions; one that does not may look again only minutes later."""
    found = admin.list_topics(name, timeout=_ADMIN_WITHIN_S).topics[name]
    return sum(partition.leader >= 0 for partition in found.partitions.values()) == partitions


def delete_topics(kafka: str, prefix: str) -> None:
    """Delete every topic of a namespace, as far as the broker lets us: on our own stack they all end with it."""
    admin = AdminClient({"bootstrap.servers": kafka})
    with suppress(KafkaException):
        names = [
            name for name in admin.list_topics(timeout=_ADMIN_WITHIN_S).topics if name.startswith(prefix)
        ]
        for deleted in admin.delete_topics(names).values() if names else ():
            deleted.result()


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _broker_pid(kafka: str) -> int | None:
    host, _, port = kafka.split(",")[0].rpartition(":")
    return listener_on(int(port)) if host in {"localhost", "127.0.0.1"} else None


def _postmaster_pid(database: str) -> int | None:
    with psycopg.connect(database) as connection:
        is_here = urlsplit(database).hostname in {None, "", "localhost", "127.0.0.1"}
        return parent_of(connection.info.backend_pid) if is_here else None
