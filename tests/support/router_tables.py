"""The router's tables, real and in memory, as one subject of a suite; and rows to commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from services.bus.database import connect
from services.bus.memory import VirtualClock
from services.bus.migrations import migrate
from services.contract.ids import lead_id_of
from services.contract.market import Mode
from services.router.database import Database
from services.router.memory_store import MemoryRouterStore, MemoryRouterTables
from services.router.ports import (
    FOR_GOOD,
    NEVER_CLOSED,
    Head,
    LogRow,
    PartitionCommit,
    RouterStore,
    SaleRow,
)
from services.router.store import PostgresRouterStore, initialise
from tests.support.deciding import NOW_MS

LEAD_ID = lead_id_of("sunform", "store")


@dataclass
class Subject:
    """A store, and how to take one of its constraints away."""

    store: RouterStore
    drop: Callable[[str], None]
    another: Callable[[], RouterStore]


def memory_subject() -> Subject:
    """Make the tables in memory."""
    tables = MemoryRouterTables(heads={partition: Head(partition=partition) for partition in range(4)})

    def drop(constraint: str) -> None:
        tables.without |= {constraint}

    clock = VirtualClock()
    return Subject(
        MemoryRouterStore(tables, clock, lambda: 1), drop, lambda: MemoryRouterStore(tables, clock, lambda: 1)
    )


def postgres_subject(url: str, opened: list[Database]) -> Subject:
    """Make the tables in an empty database; whoever asks closes what was `opened`."""
    migrate(url)
    with psycopg.connect(url, autocommit=True) as admin:
        initialise(admin, 4)

    def drop(constraint: str) -> None:
        with psycopg.connect(url, autocommit=True) as admin:
            tables = {"one_close_per_lead": "closes", "listed_once": "leads", "one_entry_per_seq": "log"}
            tables |= {"one_auction_per_lead": "auctions", "one_move_per_reference": "money"}
            tables |= {"never_over_the_limit": "counters"}
            table = tables.get(constraint, "sales")
            admin.execute(f"alter table router.{table} drop constraint {constraint} cascade")

    def open_store() -> RouterStore:
        opened.append(Database(lambda: connect(url, role="gavel_router", application_name="test")))
        return PostgresRouterStore(opened[-1])

    return Subject(open_store(), drop, open_store)


def commit_of(head: Head, **rows: Any) -> PartitionCommit:
    """A commit on a head, of these rows."""
    values: dict[str, Any] = {
        "mark": None,
        "log": (),
        "new_leads": {},
        "changed_leads": {},
        "sales": (),
        "closes": (),
        **rows,
    }
    after = values.pop(
        "after", replace(head, seq=head.seq + len(values["log"]), next_qualified=head.next_qualified + 1)
    )
    return PartitionCommit(before=head, after=after, **values)


def sale_of(number: int = 1, buyer: str = "a", mode: Mode = Mode.SHARED, **changes: Any) -> SaleRow:
    """A sale of the one lead."""
    row = SaleRow(
        lead_id=LEAD_ID,
        sale_number=number,
        buyer_id=buyer,
        order_id=f"{buyer}/all",
        mode=mode,
        sales_max=2,
        price_cents=4000,
        sold_at_ms=NOW_MS,
        closed_until_ms=NEVER_CLOSED if mode is Mode.SHARED else FOR_GOOD,
    )
    return row._replace(**changes)


def head_of(store: RouterStore, partition: int = 0) -> Head:
    """The head as it is."""
    return store.heads([partition])[partition]


def entry_of(seq: int, partition: int = 0) -> LogRow:
    """An entry of the one lead."""
    return LogRow(partition, seq, LEAD_ID, NOW_MS, f"entry {seq}".encode())
