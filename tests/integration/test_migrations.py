"""Migrations and connections on a real PostgreSQL: each file is applied once, and nothing waits for ever."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors, sql

from deploy.local.stack import Stack
from services.bus import migrations
from services.bus.database import connect
from services.bus.migrations import ROLES, MigrationError, find, migrate
from tests.support.stack import fresh_database


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two steps with a migration each."""
    write(
        tmp_path, "oak", "0001_oak.sql", "create schema oak; create table oak.trees (id bigint primary key);"
    )
    write(
        tmp_path, "elm", "0001_elm.sql", "create schema elm; create table elm.trees (id bigint primary key);"
    )
    return tmp_path


@pytest.fixture
def role_names(stack: Stack) -> Iterator[tuple[str, ...]]:
    """Names of roles that no other test knows, dropped afterwards."""
    names = tuple(f"gavel_test_{uuid.uuid4().hex[:12]}" for _ in range(5))
    yield names
    with psycopg.connect(stack.database, autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))


def write(folder: Path, step: str, name: str, content: str) -> None:
    path = folder / step / "migrations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def one(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def applied_count(url: str) -> object:
    return one(url, "select count(*) from gavel.migrations")


def test_applies_each_file_once_by_step_and_number(database: str, files: Path) -> None:
    write(files, "elm", "0002_more.sql", "create table elm.leaves (id bigint);")
    assert migrate(database, files) == ["elm/0001_elm.sql", "elm/0002_more.sql", "oak/0001_oak.sql"]
    assert migrate(database, files) == []
    write(files, "elm", "0003_most.sql", "create table elm.roots (id bigint);")
    assert migrate(database, files) == ["elm/0003_most.sql"]


def test_the_files_of_this_release_apply_to_an_empty_database(database: str) -> None:
    assert migrate(database) == [file.label for file in find()]
    assert migrate(database) == []


def test_two_at_once_apply_each_file_once(database: str, files: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda _: migrate(database, files), range(8)))
    assert sorted(label for labels in lists for label in labels) == ["elm/0001_elm.sql", "oak/0001_oak.sql"]


def test_two_databases_of_one_server_may_make_the_roles_at_once(
    stack: Stack, files: Path, role_names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "ROLES", (*ROLES, *role_names))
    with fresh_database(stack.database) as first, fresh_database(stack.database) as second:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: migrate((first, second)[number % 2], files), range(8)))
        assert applied_count(first) == applied_count(second) == 2
        for name in role_names:
            assert one(first, f"select rolcanlogin from pg_roles where rolname = '{name}'") is False


def test_a_role_that_another_database_makes_in_the_same_moment_is_good_enough(
    stack: Stack, database: str, files: Path, role_names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "ROLES", (*ROLES, role_names[0]))
    with psycopg.connect(stack.database) as other, ThreadPoolExecutor(1) as pool:
        # Not committed yet: ours doesn't see it, tries to make it too, and waits for what becomes of it.
        other.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role_names[0])))
        ours = pool.submit(migrate, database, files)
        wait_until_one_waits(stack.database, "gavel migrations", urlsplit(database).path.removeprefix("/"))
        other.commit()
        assert len(ours.result()) == 2


def wait_until_one_waits(url: str, application: str, database: str) -> None:
    waiting = "select 1 from pg_stat_activity where application_name = %s and datname = %s and wait_event_type = 'Lock'"
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(1_000):
            if connection.execute(waiting.encode(), [application, database]).fetchone() is not None:
                return
            connection.execute("select pg_sleep(0.01)")
    raise AssertionError("nobody waits")


def test_an_owner_without_superuser_rights_migrates_and_acts_as_the_steps(
    stack: Stack, files: Path, role_names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, *steps = role_names
    with fresh_database(stack.database) as database:
        # As a superuser first, because the record of migrations is readable by gavel_audit, which must exist.
        migrate(database, files / "none")
    monkeypatch.setattr(migrations, "ROLES", tuple(steps))
    with fresh_database(stack.database) as database:
        name = urlsplit(database).path.removeprefix("/")
        with psycopg.connect(stack.database, autocommit=True) as connection:
            statements = (
                sql.SQL("create role {0} login createrole password 'owner'"),
                sql.SQL("alter database {1} owner to {0}"),
            )
            for statement in statements:
                connection.execute(statement.format(sql.Identifier(owner), sql.Identifier(name)))
        parts = urlsplit(database)
        url = parts._replace(netloc=f"{owner}:owner@{parts.hostname}:{parts.port}").geturl()
        assert len(migrate(url, files)) == 2
        assert migrate(url, files) == []
        with connect(url, role=steps[0], application_name="test") as connection:
            row = connection.execute("select current_user").fetchone()
            assert row == (steps[0],)
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("select * from oak.trees")
    with psycopg.connect(stack.database, autocommit=True) as connection:
        # Its grants to itself name the owner as grantor, so the steps go first.
        for step in steps:
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(step)))


def test_refuses_a_file_that_was_changed_after_it_was_applied(database: str, files: Path) -> None:
    migrate(database, files)
    write(files, "oak", "0001_oak.sql", "create schema oak; -- and something else")
    write(files, "elm", "0002_more.sql", "create table elm.leaves (id bigint);")
    with pytest.raises(MigrationError, match=r"oak/0001_oak\.sql was changed"):
        migrate(database, files)
    assert applied_count(database) == 2, "nothing else was applied either"


def test_refuses_a_file_that_comes_before_one_that_was_applied(database: str, files: Path) -> None:
    write(files, "elm", "0003_more.sql", "create table elm.leaves (id bigint);")
    migrate(database, files)
    write(files, "elm", "0002_late.sql", "create table elm.roots (id bigint);")
    with pytest.raises(MigrationError, match=r"elm/0002_late\.sql comes too late: .* number 3 of elm"):
        migrate(database, files)


def test_a_failing_file_leaves_nothing_of_itself_and_keeps_what_came_before(
    database: str, files: Path
) -> None:
    write(
        files, "oak", "0001_oak.sql", "create schema oak; create table oak.trees (id bigint); select 1 / 0;"
    )
    with pytest.raises(errors.DivisionByZero):
        migrate(database, files)
    assert one(database, "select to_regnamespace('oak')") is None
    assert applied_count(database) == 1
    write(files, "oak", "0001_oak.sql", "create schema oak;")
    assert migrate(database, files) == ["oak/0001_oak.sql"]


def test_a_file_that_sets_a_role_for_itself_is_recorded_all_the_same(database: str, files: Path) -> None:
    write(files, "elm", "0002_role.sql", "set local role gavel_audit; set local search_path to nowhere;")
    assert "elm/0002_role.sql" in migrate(database, files)
    assert applied_count(database) == 3


@pytest.mark.parametrize("name", ["1_short.sql", "0002-dash.sql", "notes.sql"])
def test_refuses_a_file_without_a_number(database: str, files: Path, name: str) -> None:
    write(files, "elm", name, "select 1;")
    with pytest.raises(MigrationError, match=r"expected a name as in 0001_orders\.sql"):
        migrate(database, files)


def test_refuses_two_files_of_one_number(database: str, files: Path) -> None:
    write(files, "elm", "0001_other.sql", "select 1;")
    with pytest.raises(MigrationError, match="two files have one number"):
        migrate(database, files)


def test_a_connection_has_its_role_and_its_limits_whatever_the_url_says(database: str) -> None:
    migrate(database)
    url = f"{database}?options=-c%20lock_timeout%3D7777%20-c%20work_mem%3D5MB"
    with connect(url, role="gavel_router", application_name="router-1", lock_timeout_ms=500) as connection:
        settings = {
            "role": "gavel_router",
            "application_name": "router-1",
            "transaction_timeout": "3s",
            "idle_in_transaction_session_timeout": "1s",
            "lock_timeout": "500ms",
            "TimeZone": "UTC",
            "work_mem": "5MB",
        }
        for name, value in settings.items():
            assert connection.execute("select current_setting(%s)", [name]).fetchone() == (value,), name


def test_a_worker_asleep_in_a_transaction_loses_it(database: str) -> None:
    migrate(database)
    with connect(
        database, role="gavel_router", application_name="test", idle_in_transaction_timeout_ms=50
    ) as sleeper:
        sleeper.execute("begin")
        wait_until_gone(database, sleeper.info.backend_pid)
        with pytest.raises((errors.IdleInTransactionSessionTimeout, psycopg.OperationalError)):
            sleeper.execute("commit")
        assert sleeper.broken


def wait_until_gone(url: str, backend: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(1_000):
            still_there = "select pg_sleep(0.01) from pg_stat_activity where pid = %s"
            if connection.execute(still_there, [backend]).fetchone() is None:
                return
    raise AssertionError("the session is still there")


def test_a_transaction_that_takes_too_long_is_ended(database: str) -> None:
    migrate(database)
    with connect(
        database, role="gavel_router", application_name="test", transaction_timeout_ms=50
    ) as connection:
        with pytest.raises(errors.TransactionTimeout):
            connection.execute("select pg_sleep(20)")
        assert connection.broken


@pytest.mark.parametrize("role", ["gavel_router -c lock_timeout=0", "", "Gavel", "a'b", "x" * 64])
def test_a_role_is_a_name_and_nothing_else(role: str) -> None:
    with pytest.raises(ValueError, match="not the name of a role"):
        connect("postgresql://nowhere", role=role, application_name="test")


def test_a_role_that_does_not_exist_is_refused(database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="gavel_nobody"):
        connect(database, role="gavel_nobody", application_name="test")
