"""Lets each step log in at PostgreSQL as its own role, by a password of its own.

Only a setup does this, as the owner of the tables. It draws no password: a folder has a passfile for each user, and a
process is given the one of its own. The server is sent what it checks a password by, never the password, since
statements may stand in its log.
"""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
from psycopg import sql

from services.bus.migrations import LOCK_KEY, LOCK_WAIT_MS, ROLES
from services.contract.access import INSIDERS

USERS = tuple(f"gavel_{who}" for who in INSIDERS)
OPERATOR = "gavel_operator"
_ACTS_AS = (*ROLES, "gavel_finance_reader")
_MAINTAINS = ("router", "intake")
"""The schemas whose tables `gavel data archive` vacuums, and whose indexes it makes again."""

_FIELD = re.compile(r"((?:\\.|[^:\\])*)(?::|$)")


class LoginError(Exception):
    """A user's passfile has no password for it; nothing was changed."""


def let_log_in(database_url: str, folder: Path) -> tuple[str, ...]:
    """Have each user log in by the password of its file and by no other; return the users.

    Safe to repeat, and so a password is changed: sessions that are open stay. The database has had its migrations.
    Raises LoginError, or psycopg.Error; either way all is as it was.
    """
    passwords = {user: _password_of(user, folder / f"{user}.pgpass") for user in USERS}
    with psycopg.connect(database_url, application_name="gavel logins") as connection:
        connection.execute(sql.SQL("set local lock_timeout = {}").format(LOCK_WAIT_MS))
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK_KEY])
        _make_operator(connection)
        for user, password in passwords.items():
            _set_password(connection, user, password)
    return USERS


def _password_of(user: str, file: Path) -> str:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise LoginError(f"{file}: {error.strerror}, and it should have the password of {user}") from None
    for line in lines:
        match _fields(line):
            case [_, _, _, name, password, *_] if name == user and password:
                return password
    raise LoginError(f"{file}: no line host:port:database:{user}:password")


def _fields(line: str) -> list[str]:
    """Take a passfile's line apart as PostgreSQL's clients do."""
    if line.startswith("#"):
        return []
    return [re.sub(r"\\(.)", r"\1", field) for field in _FIELD.findall(line)]


def _make_operator(connection: psycopg.Connection) -> None:
    """Make the user of the commands: it acts as any step, and owns nothing."""
    known = connection.execute("select from pg_roles where rolname = %s", [OPERATOR]).fetchone()
    operator = sql.Identifier(OPERATOR)
    if known is None:
        connection.execute(sql.SQL("create role {}").format(operator))
    connection.execute(sql.SQL("grant {} to {}").format(_listed(_ACTS_AS), operator))
    connection.execute(
        sql.SQL("grant maintain on all tables in schema {} to {}").format(_listed(_MAINTAINS), operator)
    )


def _set_password(connection: psycopg.Connection, user: str, password: str) -> None:
    verifier = connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
    connection.execute(
        sql.SQL("alter role {} login password {}").format(sql.Identifier(user), verifier.decode())
    )


def _listed(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
