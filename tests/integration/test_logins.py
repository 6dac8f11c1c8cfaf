"""Each step logs in at a real PostgreSQL as its own user, becomes no other, and reads what it must alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql

from deploy.local.folder import Folder
from deploy.local.stack import Stack
from services.bus.database import connect
from services.bus.logins import OPERATOR, USERS, LoginError, let_log_in
from services.bus.migrations import ROLES, migrate
from tests.support.logins import draw, own_server, url_of, write
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

STEPS = tuple(user for user in USERS if user != OPERATOR)
OWNER = "gavel"
READS_DETAILS = {"gavel_router", OPERATOR}
VERIFIER = "SCRAM-SHA-256$"


@pytest.fixture(scope="module")
def server(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with own_server(stack, tmp_path_factory.mktemp("logins")) as running:
        yield running


@pytest.fixture
def owners(server: Stack) -> Iterator[str]:
    """The URL of a database that had its migrations, as its owner."""
    with fresh_database(server.database) as url:
        migrate(url)
        yield url


@pytest.fixture
def folder(owners: str, tmp_path: Path) -> Path:
    """Every user's passfile, whose passwords are in force."""
    draw(tmp_path / "users", "first")
    assert let_log_in(owners, tmp_path / "users") == USERS
    return tmp_path / "users"


def becomes(url: str) -> set[str]:
    """List whom this user can act as, from where it can fall back on nobody but itself."""
    found = set()
    with psycopg.connect(url, autocommit=True) as connection:
        for role in (OWNER, *ROLES, *USERS, "gavel_finance_reader", "pg_read_all_data"):
            try:
                connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            except errors.InsufficientPrivilege:
                continue
            found.add(role)
            connection.execute("set role none")
    return found


def does(url: str, statement: str) -> bool:
    """Tell whether this user may do this."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set role none")
        try:
            connection.execute(statement.encode())
        except errors.InsufficientPrivilege:
            return False
    return True


@pytest.mark.parametrize("user", STEPS)
def test_a_step_logs_in_as_itself_and_becomes_nobody_else(owners: str, folder: Path, user: str) -> None:
    url = url_of(owners, user, folder)
    with connect(url, role=user, application_name="test") as connection:
        names = connection.execute("select session_user::text, current_user::text").fetchone()
    assert names == (user, user)
    assert becomes(url) == {user}


def test_a_role_too_many_is_seen(owners: str, folder: Path) -> None:
    with psycopg.connect(owners, autocommit=True) as owner:
        owner.execute("grant gavel_router to gavel_feed")
        try:
            assert becomes(url_of(owners, "gavel_feed", folder)) == {"gavel_feed", "gavel_router"}
        finally:
            owner.execute("revoke gavel_router from gavel_feed")


def test_sealed_details_are_read_by_whom_they_are_for(owners: str, folder: Path) -> None:
    query = "select sealed from vault.leads limit 1"
    assert {user for user in USERS if does(url_of(owners, user, folder), query)} == READS_DETAILS
    assert does(owners, query)


@pytest.mark.parametrize(
    "statement",
    [
        "create schema mine",
        "create role mine",
        "drop table router.leads",
        "alter table router.leads disable trigger all",
        "alter role gavel_router password 'mine'",
        "select rolpassword from pg_authid",
        "copy router.leads to program 'true'",
    ],
)
def test_nobody_but_the_owner_does_what_is_the_owners(owners: str, folder: Path, statement: str) -> None:
    others = {user for user in USERS if user != "gavel_router"}
    assert not any(does(url_of(owners, user, folder), statement) for user in others)


def test_the_operator_acts_as_any_step_and_not_as_the_owner(owners: str, folder: Path) -> None:
    url = url_of(owners, OPERATOR, folder)
    assert becomes(url) == {*ROLES, *USERS, "gavel_finance_reader"}
    for table in ("router.leads", "intake.leads"):
        assert does(url, f"reindex table concurrently {table}")
    assert not does(url_of(owners, "gavel_router", folder), "reindex table concurrently router.leads")


def test_another_password_takes_the_place_of_the_first(owners: str, folder: Path) -> None:
    kept = (folder / "gavel_feed.pgpass").read_text()
    with psycopg.connect(url_of(owners, "gavel_feed", folder)) as at_work:
        write(folder, "gavel_feed", "second")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url_of(owners, "gavel_feed", folder))
        let_log_in(owners, folder)
        for user in USERS:
            psycopg.connect(url_of(owners, user, folder)).close()
        assert at_work.execute("select 1").fetchone() == (1,), "who is at work stays"
    (folder / "gavel_feed.pgpass").write_text(kept)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url_of(owners, "gavel_feed", folder))


@pytest.mark.parametrize(
    "content", [None, "", "*:*:*:gavel_router:others\n", "*:*:*:gavel_feed:\n", "*:*:*:gavel_feed\n"]
)
def test_a_file_without_its_users_password_changes_nothing(
    owners: str, folder: Path, tmp_path: Path, content: str | None
) -> None:
    draw(tmp_path / "others", "other")
    file = tmp_path / "others" / "gavel_feed.pgpass"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(LoginError, match="gavel_feed"):
        let_log_in(owners, tmp_path / "others")
    for user in USERS:
        psycopg.connect(url_of(owners, user, folder)).close()


def test_no_password_stands_in_the_servers_log(server: Stack, owners: str, tmp_path: Path) -> None:
    log = Folder(server.data_dir).log("postgres")
    passwords = draw(tmp_path / "logged", "logged")
    with psycopg.connect(owners, autocommit=True) as owner:
        owner.execute(
            sql.SQL("alter database {} set log_statement = 'all'").format(sql.Identifier(owner.info.dbname))
        )
    let_log_in(owners, tmp_path / "logged")
    with psycopg.connect(owners, autocommit=True) as owner:
        owner.execute(f"alter role gavel_feed password '{passwords['gavel_feed']}'")
    told = log.read_text()
    assert told.count(VERIFIER) >= len(USERS), "the log has what was sent"
    assert {user for user in USERS if passwords[user] in told} == {"gavel_feed"}, "the planted one alone"
