"""Puts the auditor together, and runs it once or for good. It opens nothing before it is run, and judges nothing.

For good it is crash-only: what fails is begun again from the state file, as after a crash, for a bounded time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from confluent_kafka import KafkaException

from services.audit.auditor import Auditor
from services.audit.found import Found
from services.audit.metrics import AuditMetrics
from services.audit.reading import Reading
from services.audit.rounds import Compared, Ended, NotAtRest, Progress, Rounds, Stop
from services.audit.secrecy import Secrecy
from services.audit.settings import AuditSettings
from services.audit.states import SqliteLeadStates
from services.audit.table_search import search_logs, search_tables
from services.audit.tables import Snapshot, open_audited
from services.audit.topic_search import search_topics
from services.audit.traces import Traces
from services.audit.violations import Violation
from services.bus.ports import BusFailed
from services.contract.market import Market
from services.contract.topics import partitions_declared
from services.market import store

TRY_AGAIN_FOR_S: Final = 600.0
"""So long a round is tried again that Kafka or the database does not let come to its end."""

REST_WITHIN_S: Final = 60.0
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 15.0
_SEARCH_EACH_COMPARISONS: Final = 12
"""A search of tables and undeclared topics takes as long as they are large: by default it comes once an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of an audit. `logs`: a folder of worker logs to search; `canaries`: texts to look for."""

    state: Path
    logs: Path | None = None
    canaries: tuple[str, ...] = ()
    require_rest: bool = False


@dataclass(slots=True, kw_only=True)
class Audit:
    """One audit under way: what it is made of, and what it could not look at."""

    rounds: Rounds
    auditor: Auditor
    found: Found
    secrecy: Secrecy
    comparisons: int = 0
    closed_columns: Sequence[str] = ()
    compared: Compared | None = None


@contextmanager
def opened(
    settings: AuditSettings,
    asked: Asked,
    *,
    stop: Stop,
    progress: Progress,
    on_new: Callable[[Violation], None],
    now_ms: Callable[[], int],
) -> Iterator[Audit]:
    """Take up the audit that the state file has. Raises psycopg.Error, BusFailed, sqlite3.Error."""
    found = Found(on_new)
    traces = Traces(canaries=tuple(canary.encode() for canary in asked.canaries))
    topics = settings.topics

    def market_of(version: int) -> Market:
        with open_audited(settings.database) as connection:
            return store.load(connection, version)

    markets = store.Markets(market_of).get
    states = SqliteLeadStates(asked.state, kept_max=settings.audit_leads_kept)
    reading = Reading(settings.connection())
    try:
        auditor = Auditor(
            markets=markets,
            topics=topics,
            partitions=partitions_declared("leads.log"),
            states=states,
            report=found.take,
        )
        secrecy = Secrecy(markets=markets, topics=topics, traces=traces, report=found.take)

        def search(tables: Snapshot) -> None:
            if audit.comparisons % _SEARCH_EACH_COMPARISONS == 0:
                audit.closed_columns = search_tables(tables.connection, traces, found.take)
                audit.rounds.notes.update(search_topics(reading, topics, secrecy, stop))
                if asked.logs is not None:
                    search_logs(asked.logs, traces, found.take)
            audit.comparisons += 1

        audit = Audit(
            rounds=Rounds(
                reading=reading,
                database=settings.database,
                topics=topics,
                states=states,
                auditor=auditor,
                secrecy=secrecy,
                found=found,
                stop=stop,
                now_ms=now_ms,
                progress=progress,
                on_compared=search,
            ),
            auditor=auditor,
            found=found,
            secrecy=secrecy,
        )
        yield audit
    finally:
        reading.close()
        states.close()


def run_once(audit: Audit, stop: Stop, *, require_rest: bool) -> Compared:
    """Judge everything there is now; raise `NotAtRest` where rest is required and does not come."""
    deadline_s = time.monotonic() + REST_WITHIN_S
    while True:
        try:
            audit.compared = audit.rounds.compare(require_rest=require_rest)
        except NotAtRest:
            if time.monotonic() > deadline_s or stop.wait(1.0):
                raise
        else:
            return audit.compared


def run_for_good(
    settings: AuditSettings,
    asked: Asked,
    *,
    stop: Stop,
    metrics: AuditMetrics,
    say: Callable[[str], None],
    progress: Progress,
    on_new: Callable[[Violation], None],
    on_round: Callable[[Audit], None],
    now_ms: Callable[[], int],
) -> None:
    """Go round after round until `stop`; raise what has failed for longer than it is tried again."""
    failing_since_s: float | None = None
    wait_s = _FIRST_WAIT_S
    while not stop.is_set():
        try:
            with opened(settings, asked, stop=stop, progress=progress, on_new=on_new, now_ms=now_ms) as audit:
                for _ in _rounds(audit, settings, stop):
                    if failing_since_s is not None:
                        say("Kafka and the database answer again.")
                    failing_since_s, wait_s = None, _FIRST_WAIT_S
                    _count(audit, metrics)
                    on_round(audit)
        except Ended:
            return
        except (BusFailed, KafkaException, psycopg.OperationalError, psycopg.InternalError) as error:
            failing_since_s = failing_since_s or time.monotonic()
            if time.monotonic() - failing_since_s > TRY_AGAIN_FOR_S:
                raise
            metrics.tried_again.inc()
            say(f"Tried again in {wait_s:g} s: {str(error).strip()}")
            stop.wait(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _rounds(audit: Audit, settings: AuditSettings, stop: Stop) -> Iterator[None]:
    """Look at the topics each few seconds, and at the tables now and then."""
    compare_at_s = 0.0
    while not stop.is_set():
        if time.monotonic() >= compare_at_s:
            audit.compared = audit.rounds.compare()
            compare_at_s = time.monotonic() + settings.audit_tables_s
        else:
            audit.rounds.catch_up()
        yield
        stop.wait(settings.audit_round_s)


def _count(audit: Audit, metrics: AuditMetrics) -> None:
    metrics.rounds.inc()
    metrics.entries.set(audit.auditor.entries)
    metrics.behind.set(audit.rounds.behind)
    for guarantee in range(1, 8):
        metrics.violations.labels(str(guarantee)).set(audit.found.by_guarantee[guarantee])
    if audit.compared is not None:
        metrics.compared.labels("yes" if audit.compared.at_rest else "no").inc()
        metrics.compared_at.set_to_current_time()
        audit.compared = None
