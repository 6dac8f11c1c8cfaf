"""Real Kafka and PostgreSQL for tests: those that the environment names, else a local stack of the session's own."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from deploy.local import stack
from deploy.local.stack import Stack


@contextmanager
def session_stack(data_dir: Path) -> Iterator[Stack]:
    """Start what the environment doesn't name already, and stop at the end what was started."""
    try:
        yield stack.up(data_dir)
    finally:
        stack.down(data_dir)


@contextmanager
def contained_stack(data_dir: Path) -> Iterator[Stack]:
    """Use Kafka and PostgreSQL in containers of the session's own."""
    from tests.support.containers import servers

    with servers() as (kafka, database), pytest.MonkeyPatch.context() as environment:
        environment.setenv("GAVEL_KAFKA", kafka)
        environment.setenv("GAVEL_DATABASE", database)
        yield stack.up(data_dir)


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """Make an empty database beside the one of the given URL, yield its URL, and drop it with all its sessions."""
    name = f"gavel_test_{uuid.uuid4().hex}"
    _execute(server, sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        if "GAVEL_TEST_KEEP" not in os.environ:
            _execute(server, sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _execute(server: str, statement: sql.Composed) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)
