"""The real stores of intake, router, billing and resale on one database, fed batch by batch without Kafka.

What is timed is what the database does for each step; what the steps compute themselves is made the same way and not
counted, as history doesn't change it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from bench.leads import SOURCE_ID, submission
from services.billing.rows import Postings
from services.billing.step import Billing
from services.billing.store import PostgresLedger
from services.bus.database import connect
from services.bus.log_reader import Move, TakenEntry
from services.bus.ports import Record
from services.contract.codec import codec
from services.contract.entries import Cause, CauseKind, Position
from services.contract.events import Disposition, WindowKind
from services.contract.identity import IdentityKeys
from services.contract.ids import partition_of
from services.contract.inputs import Input, QualifiedLead, ReportDisposition
from services.contract.topics import Topics
from services.intake.admission import Admission
from services.intake.ports import Door
from services.intake.reading import sort
from services.intake.store import PostgresIntakeStore
from services.market.store import load
from services.resale.domain import Changes, Window
from services.resale.store import PostgresWindows
from services.router.batch import Caused
from services.router.bidders import Bidders
from services.router.chain import Chain, Surroundings
from services.router.counters import Counters, Room
from services.router.database import Database
from services.router.markets import IndexedMarkets
from services.router.ports import Mark, PartitionCommit, Snapshot
from services.router.store import PostgresRouterStore
from services.vault.sealing import Vault

PARTITIONS = 12
KEYS = IdentityKeys(b"fingerprint key of the benchmark".ljust(32))
HOLDER = "bench-a"
"""The buyer that holds every lead of the filled tables that was sold at all."""

_TOPICS = Topics()
_VAULT_KEY = bytes(range(32))
_DAY_MS = 86_400_000


@dataclass(slots=True)
class Timings:
    """Seconds of each kind of statement, one value a batch."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Time what happens inside."""
        began_s = time.perf_counter()
        yield
        self.seconds[what].append(time.perf_counter() - began_s)

    def take(self) -> dict[str, list[float]]:
        """Give what was timed so far, and begin again."""
        taken, self.seconds = self.seconds, defaultdict(list)
        return taken


class Steps:
    """All steps on one database; not safe for two at once."""

    def __init__(self, database: str) -> None:
        """Connect as each step does."""
        self.timings = Timings()
        self._offset = 0
        self._windows_open: list[str] = []
        self._intake_store = _TimedIntake(
            lambda: connect(database, role="gavel_intake", application_name="bench"), self.timings
        )
        self._admission = Admission(self._intake_store, codec(), Vault(_VAULT_KEY), KEYS)
        self._router_database = Database(
            lambda: connect(database, role="gavel_router", application_name="bench")
        )
        self._router = PostgresRouterStore(self._router_database)
        self._market_connection = connect(database, role="gavel_router", application_name="bench")
        self._markets = IndexedMarkets(lambda version: load(self._market_connection, version))
        self._counters = Counters()
        self._ledger = _TimedLedger(
            lambda: connect(database, role="gavel_billing", application_name="bench"), self.timings
        )
        self._billing = Billing(self._ledger, codec())
        self._positions = dict(self._billing.positions(range(PARTITIONS)))
        self._resale_connection = connect(database, role="gavel_resale", application_name="bench")
        self._windows = PostgresWindows(lambda: self._resale_connection)
        self._window_positions = dict(self._windows.positions(range(PARTITIONS)))

    def cpu_s(self) -> float:
        """Read the CPU time that the server's sessions of these steps have used."""
        return sum(_cpu_s(connection.info.backend_pid) for connection in self._connections())

    def _connections(self) -> Sequence[psycopg.Connection]:
        sessions = (self._intake_store._session, self._router_database._session, self._ledger._session)
        return [*(session.opened() for session in sessions), self._resale_connection]

    def close(self) -> None:
        """Close all connections."""
        self._intake_store.close()
        self._router_database.close()
        self._ledger.close()
        self._market_connection.close()
        self._resale_connection.close()

    def sell(self, count: int, first_number: int) -> list[str]:
        """Take so many new leads through all steps; return their ids."""
        leads = self._admit(count, first_number)
        commits = self._decide("router: new leads", leads)
        self._bill(commits)
        lead_ids = [lead.lead_id for lead in leads]
        self._time_windows(lead_ids)
        return lead_ids

    def report(self, lead_ids: Sequence[str], disposition: Disposition) -> None:
        """Let the holder of old leads report on each: a command that changes its row."""
        reports = [
            ReportDisposition(lead_id=lead_id, buyer_id=HOLDER, disposition=disposition)
            for lead_id in lead_ids
        ]
        self._decide("router: old leads", reports)

    def _admit(self, count: int, first_number: int) -> list[QualifiedLead]:
        topic = _TOPICS.source_leads(SOURCE_ID)
        now_ms = int(time.time() * 1_000)
        records = [
            Record(
                topic=topic,
                partition=0,
                offset=first_number + at,
                key=None,
                value=submission(first_number + at, now_ms).value,
                headers=(),
                timestamp_ms=now_ms,
            )
            for at in range(count)
        ]
        submitted = sort(records, {}, _TOPICS, KEYS).submitted
        admitted = self._admission.admit(submitted)
        assert len(admitted.records) == count, "each of the benchmark's leads is new"
        decoded = [codec().decode(record) for record in admitted.records.values()]
        return [lead for lead in decoded if isinstance(lead, QualifiedLead)]

    def _decide(self, what: str, subjects: Sequence[Input]) -> list[PartitionCommit]:
        by_partition: dict[int, list[Input]] = defaultdict(list)
        for subject in subjects:
            by_partition[partition_of(subject.lead_id, PARTITIONS)].append(subject)
        with self.timings.of(f"{what}, read"):
            snapshot = self._router.read(sorted(by_partition), [subject.lead_id for subject in subjects])
        room = Room(self._counters, self._markets.market(snapshot.market_version))
        commits = [
            self._commit_of(snapshot, room, partition, batch)
            for partition, batch in sorted(by_partition.items())
        ]
        draws = room.draws()
        with self.timings.of(f"{what}, commit"):
            self._counters.learn(self._router.commit(commits, draws), time.monotonic())
        marks = [
            Mark(partition=commit.after.partition, before_seq=commit.before.seq, after_seq=commit.after.seq)
            for commit in commits
        ]
        with self.timings.of(f"{what}, mark"):
            self._router.move_marks(marks)
        return commits

    def _commit_of(
        self, snapshot: Snapshot, room: Room, partition: int, batch: Sequence[Input]
    ) -> PartitionCommit:
        head = snapshot.heads[partition]
        market = self._markets.market(snapshot.market_version)
        chain = Chain(
            head,
            Surroundings(
                snapshot=snapshot,
                markets=self._markets,
                codec=codec(),
                failed=frozenset(),
                room=room,
                invitations=Bidders().invitations(
                    market, owned=PARTITIONS, partitions=PARTITIONS, now_s=time.monotonic()
                ),
            ),
        )
        for subject in batch:
            self._offset += 1
            chain.add(Caused(Cause(kind=CauseKind.QUALIFIED, offset=self._offset), subject))
        after = replace(
            head,
            seq=chain.seq,
            hash=chain.hash,
            decided_at_ms=chain.now_ms,
            market_version=snapshot.market_version,
        )
        return chain.commit(after, None)

    def _bill(self, commits: Iterable[PartitionCommit]) -> None:
        taken: list[TakenEntry] = []
        moves: dict[int, Move] = {}
        for commit in commits:
            partition, before = commit.before.partition, self._positions[commit.before.partition]
            entries = [codec().decode_entry(row.value) for row in commit.log]
            taken += [TakenEntry(partition, entry) for entry in entries]
            after = Position(
                offset=before.offset + len(entries), seq=before.seq + len(entries), hash=commit.after.hash
            )
            moves[partition] = Move(before, after)
            self._positions[partition] = after
        self._billing.apply(taken, moves)

    def _time_windows(self, lead_ids: Sequence[str]) -> None:
        """Open a window of each lead, look at what is due, and end those of the batch before."""
        due_at_ms = int(time.time() * 1_000) + 30 * _DAY_MS
        changes = Changes()
        for lead_id in lead_ids:
            changes.open_window(
                Window(
                    partition=partition_of(lead_id, PARTITIONS),
                    lead_id=lead_id,
                    window_number=1,
                    kind=WindowKind.EXPIRY,
                    due_at_ms=due_at_ms,
                )
            )
        changes.ended.update(self._windows_open)
        self._windows_open = list(lead_ids)
        moves = {}
        for partition, before in self._window_positions.items():
            after = Position(offset=before.offset + 1, seq=before.seq + 1, hash=before.hash)
            moves[partition] = Move(before, after)
            self._window_positions[partition] = after
        with self.timings.of("resale: windows"):
            self._windows.apply(changes, moves)
        with self.timings.of("resale: look"):
            self._windows.due(range(PARTITIONS), at_most=1_000)


def _cpu_s(pid: int) -> float:
    """Read a process's CPU time, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class _TimedIntake(PostgresIntakeStore):
    """Intake's store; a transaction is timed from its beginning to its commit."""

    def __init__(self, connection: Callable[[], psycopg.Connection], timings: Timings) -> None:
        super().__init__(connection)
        self._timings = timings

    @contextmanager
    def open(self) -> Iterator[Door]:
        with self._timings.of("intake: new leads"), super().open() as door:
            yield door


class _TimedLedger(PostgresLedger):
    """Billing's store; what is timed is the transaction."""

    def __init__(self, connection: Callable[[], psycopg.Connection], timings: Timings) -> None:
        super().__init__(connection)
        self._timings = timings

    def record(self, rows: Postings, moves: Mapping[int, Move]) -> None:
        with self._timings.of("billing: new leads"):
            super().record(rows, moves)
