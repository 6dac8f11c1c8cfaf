"""What a step reads is on the standby's disk, even after the primary ended in the middle of a commit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaits
from pathlib import Path

import psycopg
import pytest

from deploy.local import postgres, processes
from deploy.local import stack as local_stack
from deploy.local.folder import Folder
from deploy.local.stack import Stack
from services.bus.database import Session

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

WITHIN_S = 30.0
WAITS_S = 1.0


@pytest.fixture
def primary(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A database server of this test's own, whose synchronous standby is away."""
    data = tmp_path_factory.mktemp("primary")
    monkeypatch.delenv("GAVEL_DATABASE", raising=False)
    monkeypatch.setenv("GAVEL_KAFKA", stack.kafka)
    try:
        with psycopg.connect(local_stack.up(data).database, autocommit=True) as connection:
            connection.execute("create table told (word text)")
            _await_standby(connection, "nobody")
        yield data
    finally:
        local_stack.down(data)


def _await_standby(connection: psycopg.Connection, name: str) -> None:
    connection.execute(f"alter system set synchronous_standby_names = '{name}'")
    connection.execute("select pg_reload_conf()")


def _said(url: str) -> int:
    session = Session(lambda: psycopg.connect(url, autocommit=True))
    try:
        with session.connection() as connection:
            row = connection.execute("select count(*) from told").fetchone()
        assert row is not None
        return int(row[0])
    finally:
        session.close()


def _crash(data: Path) -> None:
    process = processes.find(postgres.server(Folder(data)))
    assert process is not None
    process.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate shutdown: it is as if it had crashed
    process.wait(WITHIN_S)


def test_a_step_reads_no_commit_that_the_standby_lacks(primary: Path) -> None:
    url = local_stack.up(primary).database
    with ThreadPoolExecutor(2) as pool:
        with psycopg.connect(url, autocommit=True) as watching:
            commit: Future[object] = pool.submit(_tell, url)
            with pytest.raises(StillWaits):
                commit.result(WAITS_S)
            assert watching.execute("select count(*) from told").fetchone() == (0,)
            _crash(primary)
        assert commit.exception(WITHIN_S) is not None, "nobody was told that it is committed"
        assert local_stack.up(primary).database == url
        with psycopg.connect(url, autocommit=True) as anybody:
            assert anybody.execute("select count(*) from told").fetchone() == (1,), "and there it is"
            reading = pool.submit(_said, url)
            with pytest.raises(StillWaits):
                reading.result(WAITS_S)
            _await_standby(anybody, "")
        assert reading.result(WITHIN_S) == 1


def _tell(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("insert into told values ('sold')")
