"""Looks at the database of a deployment: its server, roles, migrations, market and heads. It changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import errors

from services.bus.database import CONNECT_S
from services.bus.migrations import ROLES, find
from services.cli.asking import partitions_inside
from services.cli.doctor_checks import (
    Check,
    Clock,
    LogHead,
    clock_check,
    durability_check,
    heads_check,
    market_check,
    migrations_check,
    publishing_check,
    roles_check,
    server_check,
)
from services.cli.surroundings import connect_as_auditor
from services.contract.market import Market
from services.market import store


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """What was found, and the market in force if there is one to be had."""

    checks: tuple[Check, ...]
    market: Market | None = None
    is_set_up: bool = False


def look_at_database(url: str) -> Database:
    """Look at the server and, where that goes, as the auditor at what stands in it."""
    try:
        server = tuple(_server(url))
        if not all(check.ok for check in server if check.name == "roles"):
            return Database(checks=server)
        with connect_as_auditor(url) as connection:
            return _contents(connection, server)
    except psycopg.OperationalError as error:
        advice = "Is it there, and does GAVEL_DATABASE name it?"
        return Database(checks=(Check(name="database", ok=False, found=str(error).strip(), advice=advice),))


def heads_of(url: str) -> dict[int, LogHead]:
    """Read the heads of all partitions."""
    with connect_as_auditor(url) as connection:
        rows = connection.execute(
            "select partition, seq, hash, published_seq, log_topic_id from router.heads"
        )
        return {row[0]: LogHead(row[1], bytes(row[2]), row[3], row[4]) for row in rows}


def value_in_table(url: str, partition: int, seq: int) -> bytes | None:
    """Read an entry's bytes; None where the table has dropped them."""
    with connect_as_auditor(url) as connection:
        row = connection.execute(
            "select value from router.log where partition = %s and seq = %s", [partition, seq]
        ).fetchone()
    return None if row is None else bytes(row[0])


def _server(url: str) -> Iterator[Check]:
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S) as connection:
        row = connection.execute(
            "select version(), current_setting('server_version_num')::int, current_setting('fsync'), "
            "current_setting('synchronous_commit')"
        ).fetchone()
        assert row is not None, "such a query has one row"
        yield server_check(row[0], row[1])
        yield durability_check(row[2], row[3])
        yield clock_check("the database", _clock(connection))
        rows = connection.execute(
            "select wanted.name from unnest(%s::text[]) as wanted (name) left join pg_roles on rolname = name "
            "where rolname is null or not pg_has_role(current_user, oid, 'set')",
            [list(ROLES)],
        )
        yield roles_check([name for (name,) in rows])


def _clock(connection: psycopg.Connection) -> Clock:
    asked_ms = now_ms()
    row = connection.execute("select floor(extract(epoch from clock_timestamp()) * 1000)::bigint").fetchone()
    assert row is not None, "such a query has one row"
    return Clock(asked_ms, row[0], now_ms())


def _contents(connection: psycopg.Connection, server: tuple[Check, ...]) -> Database:
    migrations = migrations_check(find(), _applied(connection))
    if not migrations.ok:
        return Database(checks=(*server, migrations))
    market = store.load_current(connection)
    heads = [row[0] for row in connection.execute("select partition from router.heads")]
    row = connection.execute(
        "select coalesce(sum(seq - published_seq), 0)::bigint from router.heads"
    ).fetchone()
    assert row is not None, "such a query has one row"
    undelivered = connection.execute("select recipient, count(*) from router.undelivered group by recipient")
    checks = (
        *server,
        migrations,
        market_check(market.version if market else 0),
        heads_check(heads, partitions_inside()),
        publishing_check(row[0], dict(undelivered.fetchall())),
    )
    return Database(checks=checks, market=market, is_set_up=True)


def _applied(connection: psycopg.Connection) -> dict[tuple[str, int], bytes]:
    """Read what was applied: nothing, where the database was never set up."""
    try:
        rows = connection.execute("select step, number, sha256 from gavel.migrations").fetchall()
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.InsufficientPrivilege):
        return {}
    return {(step, number): bytes(digest) for step, number, digest in rows}


def now_ms() -> int:
    """Read this machine's clock."""
    return time.time_ns() // 1_000_000
