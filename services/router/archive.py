"""Moves closed leads past their last window out of the tables that every commit writes to.

A batch is one transaction, over some pages of the table of closes; whoever changes a lead at that moment keeps it. What
is archived is read, and comes back when it changes (`store`): nothing is decided here, and no promise ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from psycopg import errors
from psycopg.rows import TupleRow

from services.bus.arrays import adapt, uuids
from services.bus.ports import Stopped
from services.contract.market import Returns
from services.router.database import PgConnection
from services.router.last_windows import last_moment_ms
from services.router.lead import Lead, State
from services.router.state_bytes import state_of

CLOSES_A_PAGE_MAX = 136
"""So many rows of `router.closes` fit on a page of 8 KiB."""

TRIES_MAX = 10

_NOW = "select (extract(epoch from clock_timestamp()) * 1000)::bigint"
_PAGES = "select pg_relation_size('router.closes') / current_setting('block_size')::bigint"
_CLOSED = """
select l.lead_id::text, c.closed_at_ms, l.state
from router.closes c join router.leads l using (lead_id)
where c.ctid >= %s::tid and c.ctid < %s::tid and c.closed_at_ms < %s
order by l.lead_id
"""
_CLOSED_AND_LOCKED = f"{_CLOSED} for update of l skip locked"
_MOVE = "select router.archive_leads(%s)"
_PASSING = (
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.SerializationFailure,
    errors.QueryCanceled,
)


class ClosedLead(NamedTuple):
    """A closed lead, as its row has it."""

    lead_id: str
    closed_at_ms: int
    state: State


class Moved(NamedTuple):
    """Closed leads of a batch: how many were old enough to be looked at, and how many of them went."""

    looked_at: int
    archived: int


Choose = Callable[[Sequence[ClosedLead]], Collection[str]]
"""Names the leads that may go."""

ReturnsOf = Callable[[Lead], Returns | None]
"""Gives the terms of returns that a lead was accepted under."""


class TooMuchAtOnce(Exception):
    """The batch took longer than a transaction may, or met a lock; nothing of it was moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What goes: closed at least so long ago; and how much at once, at most."""

    older_than_ms: int
    batch: int
    dry_run: bool = False


class Archive(Protocol):
    """The tables of closed leads, walked by page."""

    def now_ms(self) -> int:
        """Read the clock by which the router decides."""
        ...

    def pages(self) -> int:
        """Count the pages there are now."""
        ...

    def look(self, pages: range, closed_before_ms: int) -> Sequence[ClosedLead]:
        """Read the closed leads of these pages, without locks."""
        ...

    def move(self, pages: range, closed_before_ms: int, choose: Choose) -> Moved:
        """Lock the closed leads of these pages that nobody else has locked, and move those chosen, or nothing.

        Raise `TooMuchAtOnce`.
        """
        ...


def archive_closed(
    archive: Archive, returns_of: ReturnsOf, limits: Limits
) -> Iterator[tuple[int, int, Moved]]:
    """Walk through all pages once; after each batch, tell pages done, pages in all, and what was moved.

    To stop between two batches is safe, and so is to begin again. Raise `Stopped` where not even the leads of one page
    can be moved.
    """
    now_ms, pages = archive.now_ms(), archive.pages()
    closed_before_ms = now_ms - limits.older_than_ms

    def choose(leads: Sequence[ClosedLead]) -> list[str]:
        return [lead.lead_id for lead in leads if _is_over(lead, returns_of, now_ms)]

    at, step, tries = 0, max(1, limits.batch // CLOSES_A_PAGE_MAX), 0
    while at < pages:
        batch = range(at, min(at + step, pages))
        if limits.dry_run:
            found = archive.look(batch, closed_before_ms)
            moved = Moved(len(found), len(choose(found)))
        else:
            try:
                moved = archive.move(batch, closed_before_ms, choose)
            except TooMuchAtOnce as fault:
                step, tries = max(1, step // 2), tries + 1
                if tries >= TRIES_MAX:
                    raise Stopped(
                        f"pages {at} to {batch.stop} of router.closes can't be moved: {fault}"
                    ) from fault
                continue
        at, tries = batch.stop, 0
        yield at, pages, moved


def _is_over(lead: ClosedLead, returns_of: ReturnsOf, now_ms: int) -> bool:
    returns = returns_of(lead.state) if isinstance(lead.state, Lead) else None
    moment_ms = last_moment_ms(lead.state, returns, lead.closed_at_ms)
    return moment_ms is not None and moment_ms < now_ms


class PostgresArchive:
    """An `Archive` in PostgreSQL, with the router's role and its timeouts: a paused one holds no lead for long."""

    def __init__(self, connect: Callable[[], PgConnection]) -> None:
        """Take how to connect as `gavel_router`, autocommit on."""
        self._connect = connect
        self._connection: PgConnection | None = None

    def now_ms(self) -> int:
        """See `Archive`."""
        return self._one(_NOW)

    def pages(self) -> int:
        """See `Archive`."""
        return self._one(_PAGES)

    def look(self, pages: range, closed_before_ms: int) -> Sequence[ClosedLead]:
        """See `Archive`."""
        return _closed_leads(self._connected().execute(_CLOSED, [*_bounds(pages), closed_before_ms]))

    def move(self, pages: range, closed_before_ms: int, choose: Choose) -> Moved:
        """See `Archive`."""
        connection = self._connected()
        try:
            with connection.transaction():
                asked = [*_bounds(pages), closed_before_ms]
                leads = _closed_leads(connection.execute(_CLOSED_AND_LOCKED, asked))
                chosen = choose(leads)
                moved = connection.execute(_MOVE, [uuids(chosen)]).fetchone() if chosen else None
        except _PASSING as fault:
            raise TooMuchAtOnce(str(fault)) from fault
        except (errors.TransactionTimeout, errors.IdleInTransactionSessionTimeout) as fault:
            self.close()
            raise TooMuchAtOnce(str(fault)) from fault
        return Moved(len(leads), moved[0] if moved else 0)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _one(self, query: str) -> int:
        row = self._connected().execute(query.encode()).fetchone()
        assert row is not None, "a select without from has a row"
        return int(row[0])

    def _connected(self) -> PgConnection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            adapt(self._connection)
            # A batch is found by page and by key; what a table's size was when it was planned must not matter.
            self._connection.execute("set enable_seqscan = off; set jit = off")
        return self._connection


def _bounds(pages: range) -> tuple[str, str]:
    """Write pages as the places of their rows."""
    return f"({pages.start},0)", f"({pages.stop},0)"


def _closed_leads(rows: Iterable[TupleRow]) -> list[ClosedLead]:
    return [
        ClosedLead(lead_id, closed_at_ms, state_of(bytes(state))) for lead_id, closed_at_ms, state in rows
    ]
