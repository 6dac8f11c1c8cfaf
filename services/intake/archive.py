"""Moves leads that were accepted long ago out of the table that every batch writes to.

They are found there as before: a lead sent again is the same lead, and what the log has not listed is emitted again. A
batch is one transaction, over some pages of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from psycopg import Connection, errors

from services.bus.ports import Stopped

LEADS_A_PAGE_MAX = 72
"""So many rows of `intake.leads` fit on a page of 8 KiB: hardly less than 100 bytes each."""

TRIES_MAX = 10

_NOW = "select (extract(epoch from clock_timestamp()) * 1000)::bigint"
_PAGES = "select pg_relation_size('intake.leads') / current_setting('block_size')::bigint"
_COUNT = """
select count(*) from intake.leads l
where l.ctid >= format('(%%s,0)', %s::bigint)::tid and l.ctid < format('(%%s,0)', %s::bigint)::tid
    and l.received_at_ms < %s
"""
_MOVE = "select intake.archive_leads(%s, %s, %s)"
_PASSING = (
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.TransactionTimeout,
    errors.IdleInTransactionSessionTimeout,
)


def archive_received(
    connect: Callable[[], Connection], *, older_than_ms: int, batch: int, dry_run: bool = False
) -> Iterator[tuple[int, int, int]]:
    """Walk through all pages once; after each batch, tell pages done, pages in all, and the leads moved.

    `connect` opens a connection as `gavel_intake`, autocommit on. To stop between two batches is safe, and so is to
    begin again. Raise `Stopped` where not even the leads of one page can be moved.
    """
    connection = connect()
    try:
        now_ms, pages = _one(connection, _NOW), _one(connection, _PAGES)
        statement = _COUNT if dry_run else _MOVE
        at, step, tries = 0, max(1, batch // LEADS_A_PAGE_MAX), 0
        while at < pages:
            to = min(at + step, pages)
            try:
                moved = _one(connection, statement, at, to, now_ms - older_than_ms)
            except _PASSING as fault:
                step, tries = max(1, step // 2), tries + 1
                if tries >= TRIES_MAX:
                    raise Stopped(f"pages {at} to {to} of intake.leads can't be moved: {fault}") from fault
                connection.close()
                connection = connect()
                continue
            at, tries = to, 0
            yield at, pages, moved
    finally:
        connection.close()


def _one(connection: Connection, query: str, *values: int) -> int:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0])
