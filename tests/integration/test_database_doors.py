"""Each step's role in the database reaches its own schema and no other's, save what is written down here."""

from __future__ import annotations

import psycopg

from services.bus.migrations import ROLES, STEPS, migrate

MARKET = ("market", "versions")
SEALED = {"sealed", "wrapped_key"}

_TABLES = """
select role, n.nspname, c.relname,
       has_table_privilege(role, c.oid, 'select') or has_any_column_privilege(role, c.oid, 'select'),
       has_table_privilege(role, c.oid, 'insert, update, delete, truncate')
           or has_any_column_privilege(role, c.oid, 'insert, update')
from unnest(%s::text[]) as role, pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm') and n.nspname !~ '^(pg_|information_schema)'
      and has_schema_privilege(role, n.oid, 'usage')
"""
_COLUMNS = """
select attname from pg_attribute
where attrelid = 'vault.leads'::regclass and attnum > 0 and not attisdropped
      and has_column_privilege('gavel_audit', attrelid, attnum, 'select')
"""

Place = tuple[str, str]


def reach(database: str) -> tuple[dict[str, set[Place]], dict[str, set[Place]]]:
    """List the tables of other schemas that each step reads, and those that it changes."""
    reads: dict[str, set[Place]] = {step: set() for step in STEPS}
    changes: dict[str, set[Place]] = {step: set() for step in STEPS}
    with psycopg.connect(database) as connection:
        for role, schema, table, may_read, may_change in connection.execute(_TABLES, [list(ROLES)]):
            step = role.removeprefix("gavel_")
            if schema not in (step, "finance"):
                reads[step] |= {(schema, table)} if may_read else set()
                changes[step] |= {(schema, table)} if may_change else set()
    return reads, changes


def test_no_step_reaches_another_steps_tables(database: str) -> None:
    migrate(database)
    reads, changes = reach(database)
    of_all = reads.pop("audit")
    assert changes.pop("audit") == set()
    assert {schema for schema, _ in of_all} >= {*STEPS, "vault"} - {"audit"}
    vault = {("vault", "leads"), ("vault", "consents"), ("vault", "people")}
    assert reads == {step: {MARKET} for step in STEPS if step != "audit"} | {
        "market": set(),
        "vault": set(),
        "intake": {MARKET, ("vault", "suppressed")} | vault,
        "router": {MARKET, ("vault", "leads")},
    }
    assert changes == {step: set() for step in STEPS if step != "audit"} | {
        "intake": vault,
        "router": {("vault", "leads")},
    }


def test_auditor_reads_no_sealed_column(database: str) -> None:
    migrate(database)
    with psycopg.connect(database) as connection:
        columns = {name for (name,) in connection.execute(_COLUMNS)}
    assert columns
    assert not columns & SEALED


def test_a_grant_too_many_is_seen(database: str) -> None:
    migrate(database)
    with psycopg.connect(database) as connection:
        connection.execute("grant usage on schema router to gavel_resale")
        connection.execute("grant select (lead_id) on router.leads to gavel_resale")
    assert ("router", "leads") in reach(database)[0]["resale"]
