"""Erasing on real tables: details go with the mark that says their erasure is out, and with no other."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from services.bus.database import connect
from services.bus.migrations import migrate
from services.router.database import Database
from services.router.ports import AcknowledgedRow, ErasureRow, Mark, Overtaken
from services.router.store import PostgresRouterStore, initialise
from services.vault.sealing import Vault
from tests.support.deciding import NOW_MS
from tests.support.router_tables import LEAD_ID, commit_of, entry_of, head_of

pytestmark = pytest.mark.integration

LATER_MS = NOW_MS + 1_000
ASKED = ErasureRow(LEAD_ID, "a", "revoked", NOW_MS, LATER_MS)
OUT = Mark(partition=0, before_seq=0, after_seq=1, erased=(LEAD_ID,))


@pytest.fixture
def store(database: str) -> Iterator[PostgresRouterStore]:
    migrate(database)
    with psycopg.connect(database, autocommit=True) as admin:
        initialise(admin, 4)
        row = Vault(bytes(32)).seal(LEAD_ID, b"details")
        admin.execute("insert into vault.leads values (%s, %s, %s, %s, %s)", [LEAD_ID, *row, LATER_MS])
    opened = Database(lambda: connect(database, role="gavel_router", application_name="test"))
    yield PostgresRouterStore(opened)
    opened.close()


def _one(url: str, query: str) -> tuple[object, ...] | None:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchone()


def _sealed(url: str) -> bool:
    return _one(url, "select count(*) from vault.leads") == (1,)


def test_details_stay_after_the_commit_and_go_with_the_mark(
    store: PostgresRouterStore, database: str
) -> None:
    store.commit([commit_of(head_of(store), log=[entry_of(1)], erasures=[ASKED])])
    assert _sealed(database), "its entry is not published yet"
    store.move_marks([OUT])
    assert not _sealed(database)


def test_details_go_with_a_mark_that_rides_on_a_commit(store: PostgresRouterStore, database: str) -> None:
    store.commit([commit_of(head_of(store), log=[entry_of(1)], erasures=[ASKED])])
    store.commit([commit_of(head_of(store), mark=OUT, log=[entry_of(2)])])
    assert not _sealed(database)


def test_overtaken_worker_deletes_nothing(store: PostgresRouterStore, database: str) -> None:
    """The planted bug: a deletion outside the mark's transaction would be done all the same."""
    store.commit([commit_of(head_of(store), log=[entry_of(1)], erasures=[ASKED])])
    stale = head_of(store)
    store.commit([commit_of(stale)])
    with pytest.raises(Overtaken):
        store.commit([commit_of(stale, mark=OUT)])
    with pytest.raises(Overtaken):
        store.move_marks([Mark(partition=0, before_seq=5, after_seq=6, erased=(LEAD_ID,))])
    assert _sealed(database)


def test_what_a_holder_said_is_kept_until_it_is_asked_for_more(
    store: PostgresRouterStore, database: str
) -> None:
    asked = "select reason, acknowledged_at_ms, by_operator from router.erasures"
    store.commit([commit_of(head_of(store), erasures=[ASKED])])
    said = AcknowledgedRow(LEAD_ID, "a", LATER_MS, by_operator=True)
    store.commit([commit_of(head_of(store), acknowledged=[said])])
    assert _one(database, asked) == ("revoked", LATER_MS, True)
    store.commit([commit_of(head_of(store), erasures=[ASKED._replace(reason="erased")])])
    assert _one(database, asked) == ("erased", None, None)
