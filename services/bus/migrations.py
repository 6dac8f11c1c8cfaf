"""Brings a database to what this release expects: the SQL files of every step, each exactly once.

It knows no table of any step, only its own record of what was applied. Files are
`services/<step>/migrations/<number>_<what>.sql`; each runs in a transaction of its own, makes its schema itself and
grants the roles of the steps what they need and no more, so that a step can't change its own history. A file that was
applied never changes: what follows from it is a further file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psycopg
from psycopg import errors, sql

STEPS = ("audit", "billing", "feed", "gateway", "intake", "market", "resale", "router", "vault")
"""Whoever has a role and migrations: the steps, the market's operators, and those that see to people's rights."""

ROLES = tuple(f"gavel_{step}" for step in STEPS)

SERVICES = Path(__file__).parents[1]
LOCK_KEY = 0x6761_7665_6C00  # "gavel", any number that no other program locks
LOCK_WAIT_MS = 60_000
ATTEMPTS = 10

_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")

_RECORD = """
create schema if not exists gavel;
create table if not exists gavel.migrations (
    step       text        not null,
    number     integer     not null,
    sha256     bytea       not null check (octet_length(sha256) = 32),
    applied_at timestamptz not null default now(),
    primary key (step, number)
);
comment on table gavel.migrations is 'Which migration files this database has had, and what they said.';
grant usage on schema gavel to gavel_audit;
grant select on gavel.migrations to gavel_audit;
"""


class MigrationError(Exception):
    """The files and the database don't fit each other; nothing more was applied."""


@dataclass(frozen=True, slots=True, order=True)
class Migration:
    """One file."""

    step: str
    number: int
    name: str
    content: bytes

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.step}/{self.name}"

    @property
    def sha256(self) -> bytes:
        """What the database remembers of it."""
        return hashlib.sha256(self.content).digest()


def migrate(database_url: str, services: Path = SERVICES) -> list[str]:
    """Apply what this database has not had, and list it, as in `router/0001_router.sql`.

    Two at once are safe: the second waits for the first. Raises MigrationError, or psycopg.Error if a file fails.
    """
    files = find(services)
    with psycopg.connect(database_url, autocommit=True, application_name="gavel migrations") as connection:
        connection.execute(sql.SQL("set lock_timeout = {}").format(LOCK_WAIT_MS))
        connection.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
        for role in ROLES:
            _ensure_role(connection, role)
        connection.execute(_RECORD)
        pending = _pending(files, _applied(connection))
        for file in pending:
            _apply(connection, file)
    return [file.label for file in pending]


def find(services: Path = SERVICES) -> tuple[Migration, ...]:
    """List all files in the order in which they are applied: by step, then by number."""
    found = sorted(_migration(path) for path in services.glob("*/migrations/*.sql"))
    for before, after in pairwise(found):
        if (before.step, before.number) == (after.step, after.number):
            raise MigrationError(f"two files have one number: {before.label} and {after.label}")
    return tuple(found)


def _migration(path: Path) -> Migration:
    named = _FILE.fullmatch(path.name)
    if named is None:
        raise MigrationError(f"expected a name as in 0001_orders.sql: {path}")
    return Migration(path.parts[-3], int(named[1]), path.name, path.read_bytes())


def _applied(connection: psycopg.Connection) -> dict[tuple[str, int], bytes]:
    rows = connection.execute("select step, number, sha256 from gavel.migrations")
    return {(step, number): bytes(digest) for step, number, digest in rows}


def _pending(files: Sequence[Migration], applied: dict[tuple[str, int], bytes]) -> list[Migration]:
    """Choose what is left to apply. Raises MigrationError, before anything is, if history was rewritten."""
    pending = [file for file in files if (file.step, file.number) not in applied]
    for file in files:
        known = applied.get((file.step, file.number))
        if known is not None and known != file.sha256:
            raise MigrationError(
                f"{file.label} was changed after this database had it: put the change in a new file"
            )
    for file in pending:
        last = max((number for step, number in applied if step == file.step), default=0)
        if file.number < last:
            raise MigrationError(
                f"{file.label} comes too late: this database is at number {last} of {file.step}"
            )
    return pending


def _apply(connection: psycopg.Connection, file: Migration) -> None:
    with connection.transaction():
        connection.execute(file.content)
        # A file may have set the role or the search path for itself.
        connection.execute("reset role; reset search_path")
        connection.execute(
            "insert into gavel.migrations (step, number, sha256) values (%s, %s, %s)",
            [file.step, file.number, file.sha256],
        )


def _ensure_role(connection: psycopg.Connection, role: str) -> None:
    """Make a step's role, and let the connecting user act as it.

    Roles belong to the server and the lock to one database, so another database's migration may be at the same role
    in the same moment: it is enough that somebody makes it.
    """
    create = sql.SQL("create role {} nologin").format(sql.Identifier(role))
    grant = sql.SQL("grant {} to current_user").format(sql.Identifier(role))
    for attempt in range(ATTEMPTS):
        try:
            if not _is_true(connection, "select exists (select from pg_roles where rolname = %s)", role):
                connection.execute(create)
            if not _is_true(connection, "select pg_has_role(current_user, %s, 'set')", role):
                connection.execute(grant)
            return
        except (errors.DuplicateObject, errors.UniqueViolation, errors.InternalError_):
            # The last of these is "tuple concurrently updated", which has no class of its own.
            if attempt == ATTEMPTS - 1:
                raise


def _is_true(connection: psycopg.Connection, query: str, role: str) -> bool:
    row = connection.execute(query.encode(), [role]).fetchone()
    return row is not None and bool(row[0])
