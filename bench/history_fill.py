"""Fills a database with history: leads that were sold long ago, and leads that are still open.

The rows are what the steps themselves have written for one lead, with ids and times changed, made inside the database.
Rows go in by order of the id, into index pages that are left a third empty: so they stand in a table that has grown
lead by lead.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
from psycopg import sql

from services.bus.migrations import migrate
from services.market.cli import apply_files
from services.market.reading import open_files
from services.router.store import initialise

BYTES_A_LEAD = 5_200
"""What a closed lead takes on disk in all tables and indexes; in the archive, or open, it takes less."""

_SPARE = 1.1
_BESIDE_BYTES = 6_000_000_000
"""The WAL, which PostgreSQL keeps below 4 GB here, and what is sorted on disk."""

_SPREAD_MS = 60 * 86_400_000
_LOGGED = 500_000
_GROWN_FILLFACTOR = 70
_STEPS = ("router", "intake", "vault", "billing", "resale")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How many leads to make. Of those that were closed, the first ones stand in the archive."""

    open: int
    closed: int
    archived: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the steps have written for one lead."""

    lead_id: str
    state: bytes
    record: bytes
    details: tuple[Any, ...]
    consent: tuple[Any, ...]
    value: bytes

    def states(self) -> Mapping[str, str]:
        """Give the state with no, one and all sales, and that of a lead that is open, as JSON."""
        whole = orjson.loads(self.state)
        one = [sale for sale in whole["sales"] if sale["number"] == 1]
        versions = {
            "none": {**whole, "sales": [], "outcome": "unsold"},
            "one": {**whole, "sales": one, "outcome": "partly_sold"},
            "all": whole,
            "open": {**whole, "sales": one, "outcome": None},
        }
        return {name: orjson.dumps(state).decode() for name, state in versions.items()}


def lack_of_room(amount: Amount) -> str | None:
    """Say what is missing where temporary files go; None where the tables have room."""
    needed = (amount.open + amount.closed) * BYTES_A_LEAD * _SPARE + _BESIDE_BYTES
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return None
    return (
        f"The tables need about {needed / 1e9:.0f} GB, and {folder} has {free / 1e9:.0f} GB left: "
        "take fewer leads (--open, --closed) or another folder (TMPDIR)."
    )


def set_up(database: str, market: str, partitions: int) -> None:
    """Make an empty database what `gavel setup` and `gavel market apply` make of it, without Kafka."""
    from pathlib import Path

    migrate(database)
    with psycopg.connect(database, autocommit=True) as connection:
        initialise(connection, partitions)
    apply_files(
        database, open_files([Path(market)]), dry_run=False, base_version=None, announce=lambda _market: None
    )


def sample_of(database: str, lead_id: str) -> Sample:
    """Read what stands in the tables about one lead."""
    with psycopg.connect(database) as connection:

        def one(query: str) -> tuple[Any, ...]:
            row = connection.execute(query.encode(), [lead_id]).fetchone()
            assert row is not None, f"nothing about the sample lead: {query}"
            return tuple(row)

        sealed = "select key_id, wrapped_key, sealed from vault.{} where lead_id = %s"
        return Sample(
            lead_id=lead_id,
            state=one("select state from router.leads where lead_id = %s")[0],
            record=one("select record from intake.leads where lead_id = %s")[0],
            details=one(sealed.format("leads")),
            consent=one(sealed.format("consents")),
            value=one("select value from router.log where lead_id = %s")[0],
        )


def fill(database: str, amount: Amount, sample: Sample, partitions: int, progress: Progress) -> None:
    """Fill the tables; they must be those of `set_up`."""
    with psycopg.connect(database, autocommit=True) as connection:
        # Rows are right as they are made: checking each foreign key would take longer than all the rest.
        connection.execute("set session_replication_role = replica; set work_mem = '256MB'")
        connection.execute("set maintenance_work_mem = '512MB'; set synchronous_commit = off; set jit = off")
        _set_fillfactor(connection, _GROWN_FILLFACTOR)
        for what, statement, values in _statements(amount, sample, partitions):
            progress(f"Filling: {what} ...")
            connection.execute(statement, values)
        _set_fillfactor(connection, None)
        connection.execute("drop table bench_leads")
        for step in _STEPS:
            _vacuum(connection, step, progress)
        progress("Filling: checkpoint ...")
        connection.execute("checkpoint")


def _statements(
    amount: Amount, sample: Sample, partitions: int
) -> Iterator[tuple[str, sql.Composed, dict[str, Any]]]:
    """Give each statement with its values, in order. `kind`: 0 sold to nobody, 1 to one, 2 and 3 to three, 4 open."""
    states = sample.states()
    values: dict[str, Any] = {
        "open": amount.open,
        "closed": amount.closed,
        "all": amount.open + amount.closed,
        "archived": amount.archived,
        "partitions": partitions,
        "spread_ms": _SPREAD_MS,
        "logged": min(_LOGGED, amount.closed),
        "sample": sample.lead_id,
        **{f"state_{name}": state for name, state in states.items()},
        "record": sample.record,
        "value": sample.value,
        **dict(zip(("key_id", "details_key", "details"), sample.details, strict=True)),
        **dict(zip(("_", "consent_key", "consent"), sample.consent, strict=True)),
    }
    for what, text in _FILL.items():
        yield what, sql.SQL(text).format(), values


def _set_fillfactor(connection: psycopg.Connection, percent: int | None) -> None:
    """Set or reset how full new leaf pages of the primary keys and unique indexes are made."""
    rows = connection.execute(
        "select i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indexrelid "
        "join pg_namespace n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam "
        "where n.nspname = any(%s) and a.amname = 'btree' and c.relkind = 'i' order by 1",
        [list(_STEPS)],
    ).fetchall()
    for (name,) in rows:
        change = f"set (fillfactor = {percent})" if percent else "reset (fillfactor)"
        connection.execute(f"alter index {name} {change}".encode())


def _vacuum(connection: psycopg.Connection, step: str, progress: Progress) -> None:
    rows = connection.execute("select tablename from pg_tables where schemaname = %s order by 1", [step])
    for (table,) in rows.fetchall():
        progress(f"Filling: vacuum {step}.{table} ...")
        connection.execute(sql.SQL("vacuum (freeze, analyze) {}").format(sql.Identifier(step, table)))


_FILL: dict[str, Any] = {
    "ids": """
create unlogged table bench_leads as
select md5('history ' || n)::uuid as lead_id, n,
    case when n >= %(closed)s then 4 else n %% 4 end as kind,
    (n %% %(partitions)s)::int as partition,
    (extract(epoch from now()) * 1000)::bigint - 3600000
        - case when n >= %(closed)s then 0 else %(spread_ms)s * (%(closed)s - n) / %(closed)s end as at_ms
from generate_series(0, %(all)s - 1) as n order by 1
""",
    "router.leads": """
insert into router.leads (lead_id, partition, state)
select lead_id, partition, convert_to(replace(case kind when 0 then %(state_none)s when 1 then %(state_one)s
    when 4 then %(state_open)s else %(state_all)s end, %(sample)s, lead_id::text), 'UTF8')
from bench_leads where n >= %(archived)s
""",
    "router.archived_leads": """
insert into router.archived_leads (lead_id, partition, outcome, closed_at_ms, sales_max, closed_until_ms, buyer_ids,
                                   order_ids, modes, prices_cents, sold_at_ms, state)
select lead_id, partition, case kind when 0 then 'unsold' when 1 then 'partly_sold' else 'sold_out' end, at_ms,
    case when kind <> 0 then 3 end, case when kind <> 0 then -9223372036854775808 end,
    (array['bench-a', 'bench-b', 'bench-c'])[:sales],
    (array['bench-a/solar', 'bench-b/solar', 'bench-c/solar'])[:sales],
    array_fill('shared'::text, array[sales]), array_fill(4500::bigint, array[sales]), array_fill(at_ms, array[sales]),
    convert_to(replace(case kind when 0 then %(state_none)s when 1 then %(state_one)s else %(state_all)s end,
                       %(sample)s, lead_id::text), 'UTF8')
from bench_leads
cross join lateral (select case kind when 0 then 0 when 1 then 1 else 3 end as sales) as sold
where n < %(archived)s
""",
    "router.closes": """
insert into router.closes (lead_id, outcome, closed_at_ms)
select lead_id, case kind when 0 then 'unsold' when 1 then 'partly_sold' else 'sold_out' end, at_ms
from bench_leads where kind <> 4 and n >= %(archived)s
""",
    "router.sales": """
insert into router.sales (lead_id, sale_number, buyer_id, order_id, mode, sales_max, price_cents, sold_at_ms,
                          closed_until_ms)
select lead_id, k, 'bench-' || chr(96 + k), 'bench-' || chr(96 + k) || '/solar', 'shared', 3, 4500, at_ms,
    -9223372036854775808
from bench_leads
cross join lateral generate_series(1, case when kind in (1, 4) then 1 when kind = 0 then 0 else 3 end) as k
where n >= %(archived)s
""",
    "router.log": """
insert into router.log (partition, seq, lead_id, decided_at_ms, value)
select n %% %(partitions)s, n / %(partitions)s + 1, md5('history ' || n)::uuid,
    (extract(epoch from now()) * 1000)::bigint - 3600000, %(value)s
from generate_series(0, %(logged)s / %(partitions)s * %(partitions)s - 1) as n
""",
    "router.heads": """
update router.heads set seq = %(logged)s / %(partitions)s, published_seq = %(logged)s / %(partitions)s
""",
    "intake.leads": """
insert into intake.leads (lead_id, source_id, origin_partition, origin_offset, payload_hash, record, received_at_ms)
select lead_id, 'bench-source', 0, n, sha256(lead_id::text::bytea), %(record)s, at_ms from bench_leads
where n >= %(archived)s
""",
    "intake.archived_leads": """
insert into intake.archived_leads (lead_id, source_id, origin_partition, origin_offset, payload_hash, record,
                                   received_at_ms)
select lead_id, 'bench-source', 0, n, sha256(lead_id::text::bytea), %(record)s, at_ms from bench_leads
where n < %(archived)s
""",
    "intake.fingerprints": """
insert into intake.fingerprints (fingerprint, lead_id, received_at_ms, kept_until_ms)
select md5(k || lead_id::text)::uuid, lead_id, at_ms, at_ms + 30 * 86400000::bigint
from bench_leads cross join generate_series(1, 2) as k
where at_ms + 30 * 86400000::bigint > extract(epoch from now()) * 1000 order by 1
""",
    "vault.leads": """
insert into vault.leads (lead_id, key_id, wrapped_key, sealed, kept_until_ms)
select lead_id, %(key_id)s, %(details_key)s, %(details)s, at_ms + 180 * 86400000::bigint from bench_leads
""",
    "vault.consents": """
insert into vault.consents (lead_id, key_id, wrapped_key, sealed, kept_until_ms)
select lead_id, %(key_id)s, %(consent_key)s, %(consent)s, at_ms + 1826 * 86400000::bigint from bench_leads
""",
    "vault.people": """
insert into vault.people (person, lead_id, kept_until_ms)
select md5('person ' || k || lead_id::text)::uuid, lead_id, at_ms + 1826 * 86400000::bigint
from bench_leads cross join generate_series(1, 2) as k order by 1
""",
    "billing.leads": """
insert into billing.leads (lead_id, lead_type, plan, source_id, is_test, listed_at, outcome, closed_at, partition)
select lead_id, 'solar', 'three-shared', 'bench-source', false, to_timestamp(at_ms / 1000.0),
    case kind when 0 then 'unsold' when 1 then 'partly_sold' when 4 then null else 'sold_out' end,
    case when kind <> 4 then to_timestamp(at_ms / 1000.0) end, partition
from bench_leads
""",
    "billing.sales": """
insert into billing.sales (sale_id, lead_id, sale_number, sales_max, mode, price_cents, currency, buyer_id, order_id,
                           source_id, lead_type, plan, stage, sold_at, is_test, partition, seq)
select overlay(lead_id::text placing lpad(k::text, 2, '0') from 35)::uuid, lead_id, k, 3, 'shared', 4500, 'USD',
    'bench-' || chr(96 + k), 'bench-' || chr(96 + k) || '/solar', 'bench-source', 'solar', 'three-shared', 0,
    to_timestamp(at_ms / 1000.0), false, partition, n + 1
from bench_leads
cross join lateral generate_series(1, case when kind in (1, 4) then 1 when kind = 0 then 0 else 3 end) as k
""",
    "billing.transfers": """
insert into billing.transfers (transfer_id, kind, debit_account, credit_account, amount_cents, currency, sale_id,
                               posted_at, partition, seq)
select sale_id, 'sale_charge', 'buyer:' || buyer_id, 'revenue', price_cents, 'USD', sale_id, sold_at, partition, seq
from billing.sales order by sale_id
""",
    "resale.windows": """
insert into resale.windows (lead_id, window_number, partition, kind, due_at_ms, next_send_at_ms)
select lead_id, 1, partition, 'expiry', at_ms + 30 * 86400000::bigint, at_ms + 30 * 86400000::bigint
from bench_leads where kind = 4
""",
}
