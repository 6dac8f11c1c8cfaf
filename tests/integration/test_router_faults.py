"""The router on real PostgreSQL when the database fails it: lost commits, deadlocks, timeouts, ended sessions."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import psycopg
import pytest

from services.bus.database import connect
from services.bus.liveness import monotonic_s
from services.bus.memory import MemoryHost, MemoryProducer
from services.bus.migrations import migrate
from services.bus.ports import TopicPartition
from services.contract.codec import codec
from services.contract.events import LeadListed, LeadSold
from services.market import store as market_store
from services.router.database import Database
from services.router.faults import StartAgain, TryAgain
from services.router.markets import IndexedMarkets
from services.router.ports import Head, Overtaken, PartitionCommit
from services.router.relay import Relay
from services.router.step import Router
from services.router.store import PostgresRouterStore, initialise
from tests.support.deciding import lead, market, order, plan, shared_stage
from tests.support.hosting import wait_until
from tests.support.routing import PARTITIONS, TOPICS, KafkaTail, World, world

pytestmark = pytest.mark.timeout(120)
SHARED = market(
    plan(shared_stage(4500, 4000, 3500)), orders=tuple(order(f"b{n}", shared="list") for n in range(4))
)
NAME = "router-under-test"


@dataclass(slots=True)
class CuttingProxy:
    """Stands between a worker and the database, and cuts the connection at its next commit, as a network does."""

    url: str
    cut: str | None = None
    cuts: int = 0
    _listening: socket.socket = field(init=False)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[0].start()

    @property
    def proxied_url(self) -> str:
        """The database's URL by way of this."""
        parts = urlsplit(self.url)
        login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return parts._replace(netloc=f"{login}127.0.0.1:{self._listening.getsockname()[1]}").geturl()

    def close(self) -> None:
        """Take no more connections, and wait for the end of those there are."""
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listening.close()

    def _accept(self) -> None:
        parts = urlsplit(self.url)
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5432))
                self._threads.append(threading.Thread(target=_Link(self, client, server).run, daemon=True))
                self._threads[-1].start()


class _Link:
    """One connection."""

    def __init__(self, proxy: CuttingProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._is_cut_after_answer = False

    def run(self) -> None:
        with self._client, self._server:
            upwards = threading.Thread(target=self._upwards, daemon=True)
            upwards.start()
            self._downwards()
            upwards.join()

    def _upwards(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(65_536):
                if b"router.commit_batch" in data and self._proxy.cut is not None:
                    how, self._proxy.cut = self._proxy.cut, None
                    self._proxy.cuts += 1
                    if how == "before":
                        break
                    self._is_cut_after_answer = True
                self._server.sendall(data)
        self._end()

    def _downwards(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(65_536):
                if self._is_cut_after_answer:
                    break
                self._client.sendall(data)
        self._end()

    def _end(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class Rig:
    """A router whose tables are real and whose Kafka is in memory."""

    url: str
    world: World
    opened: list[Database] = field(default_factory=list)

    def database(self, url: str | None = None) -> Database:
        """Open the database as the router does."""
        self.opened.append(
            Database(lambda: connect(url or self.url, role="gavel_router", application_name=NAME))
        )
        return self.opened[-1]

    def worker(self, url: str | None = None) -> MemoryHost:
        """Start a worker."""
        store, kafka = PostgresRouterStore(self.database(url)), self.world.kafka
        relay = Relay(
            store=store,
            vault=self.world.vault,
            log_producer=MemoryProducer(kafka),
            outside_producer=MemoryProducer(kafka),
            codec=codec(),
            topics=TOPICS,
            alive=lambda: True,
            is_known=lambda _kind, _id: True,
            avro_buyers=lambda _version: (),
        )
        router = Router(
            store=store,
            relay=relay,
            markets=IndexedMarkets(lambda _: SHARED),
            codec=codec(),
            topics=TOPICS,
            log_tail=KafkaTail(kafka),
            monotonic_s=monotonic_s,
        )
        host = MemoryHost(kafka, router)
        host.assign(self.all_partitions)
        return host

    @property
    def all_partitions(self) -> list[TopicPartition]:
        """What the group would assign."""
        return [TopicPartition(TOPICS.qualified, at) for at in range(PARTITIONS)]

    def admin(self) -> psycopg.Connection:
        """Connect beside the router."""
        return psycopg.connect(self.url, autocommit=True)

    def end_sessions(self) -> int:
        """End the router's sessions, as a restart of the database does; return how many there were."""
        with self.admin() as admin:
            query = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = %s"
            row = admin.execute(query, [NAME]).fetchone()
        assert row is not None
        return int(row[0])

    def check(self, count: int) -> None:
        """Each lead is listed once, and the log, the tables and the buyers' topics agree."""
        events = self.world.events()
        assert sorted(Counter(id for id, event in events if isinstance(event, LeadListed)).values()) == (
            [1] * count
        )
        sold = [event.sale_id for _, event in events if isinstance(event, LeadSold)]
        assert len(sold) == len(set(sold)) == 3 * count
        with self.admin() as admin:
            heads = admin.execute("select sum(seq), sum(published_seq) from router.heads").fetchone()
            sales = admin.execute("select count(*) from router.sales").fetchone()
        assert heads == (sum(map(len, self.world.log().values())),) * 2, "each entry is published"
        assert sales == (3 * count,)


@pytest.fixture
def rig(database: str) -> Iterator[Rig]:
    migrate(database)
    with psycopg.connect(database, autocommit=True) as admin:
        initialise(admin, PARTITIONS)
        market_store.apply(admin, SHARED, 0, files=(), applied_by="test")
    made = Rig(database, world(SHARED))
    yield made
    for opened in made.opened:
        opened.close()


@pytest.fixture
def proxy(rig: Rig) -> Iterator[CuttingProxy]:
    made = CuttingProxy(rig.url)
    yield made
    for opened in rig.opened:
        opened.close()
    made.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_lost_commit_is_settled_by_the_database_alone(rig: Rig, proxy: CuttingProxy, cut: str) -> None:
    """Rule 4, both outcomes: the commit never arrived, or its answer never came back."""
    host = rig.worker(proxy.proxied_url)
    rig.world.send(*(lead(f"{cut}-{n}") for n in range(6)))
    proxy.cut = cut
    host.turn()
    assert proxy.cuts == 1
    assert rig.world.kafka.topic(TOPICS.log) == [], "nothing is published from memory"
    host.drain()
    rig.check(6)


def test_router_outlives_a_restart_of_the_database_at_any_call(rig: Rig) -> None:
    host = rig.worker()
    for n in range(3):
        rig.world.send(lead(f"restart-{n}"))
        assert rig.end_sessions() == 1
        host.turn()
        host.turn()
        rig.end_sessions()
        host.assign(rig.all_partitions)
        host.drain()
    rig.check(3)


def _commit_of(*heads: Head) -> list[PartitionCommit]:
    return [
        PartitionCommit(
            before=head,
            after=replace(head, next_qualified=head.next_qualified + 1),
            mark=None,
            log=(),
            new_leads={},
            changed_leads={},
            sales=(),
            closes=(),
        )
        for head in heads
    ]


def _await_waiting(rig: Rig) -> None:
    query = "select from pg_stat_activity where application_name = %s and wait_event_type = 'Lock'"
    with rig.admin() as admin:
        wait_until("the router waits for a lock", lambda: admin.execute(query, [NAME]).fetchone() is not None)


def _while_committing(
    rig: Rig, store: PostgresRouterStore, others: Callable[[], object]
) -> BaseException | None:
    """Commit both partitions in a thread; do what others do once it waits for a lock; return what it raised."""
    heads = store.heads(range(PARTITIONS))
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(store.commit, _commit_of(*(heads[at] for at in range(PARTITIONS))))
        _await_waiting(rig)
        others()
        return done.exception(timeout=10)


def test_deadlock_is_a_passing_fault_that_committed_nothing(rig: Rig) -> None:
    """Rule 5: the other one holds what we want and wants what we hold, and is more patient than we are."""
    store = PostgresRouterStore(rig.database())
    with rig.admin() as other:
        other.execute("set deadlock_timeout = '20s'")
        other.execute("begin")
        other.execute("select from router.heads where partition = 1 for update")
        raised = _while_committing(
            rig,
            store,
            lambda: other.execute("select from router.heads where partition = 0 for update"),
        )
        other.execute("rollback")
    assert isinstance(raised, TryAgain)
    heads = store.heads(range(PARTITIONS))
    assert [head.version for head in heads.values()] == [0] * PARTITIONS
    store.commit(_commit_of(*heads.values()))


def test_owner_that_waited_for_the_one_that_overtook_it_commits_nothing(rig: Rig) -> None:
    """Rule 1: the comparison is made with the row as it is after the wait, not as it was before."""
    store = PostgresRouterStore(rig.database())
    with rig.admin() as other:
        other.execute("begin")
        other.execute("update router.heads set version = version + 1 where partition = 1")
        raised = _while_committing(rig, store, lambda: other.execute("commit"))
    assert isinstance(raised, Overtaken)
    assert raised.partitions == {1}
    assert [head.version for head in store.heads(range(PARTITIONS)).values()] == [0, 1]


def test_worker_paused_inside_a_transaction_holds_no_row_for_long(rig: Rig) -> None:
    """Rule 7: the server ends the session; on waking the worker starts again, on another one."""
    database = rig.database()
    store = PostgresRouterStore(database)

    def pause(connection: psycopg.Connection) -> None:
        with connection.transaction():
            connection.execute("select from router.heads for update")
            with rig.admin() as admin:
                wait_until("its session was ended", lambda: not _sessions(admin), within_s=2.5)
                admin.execute("select from router.heads for update nowait")
            connection.execute("select 1")

    with pytest.raises(StartAgain):
        database.do(pause)
    store.commit(_commit_of(store.heads([0])[0]))


def _sessions(admin: psycopg.Connection) -> list[tuple[object, ...]]:
    return admin.execute("select pid from pg_stat_activity where application_name = %s", [NAME]).fetchall()


def test_statement_that_takes_too_long_is_ended_and_starts_the_partitions_again(rig: Rig) -> None:
    database = rig.database()
    with pytest.raises(StartAgain):
        database.do(lambda connection: connection.execute("select pg_sleep(30)"))
    assert PostgresRouterStore(database).heads([0])[0].version == 0
