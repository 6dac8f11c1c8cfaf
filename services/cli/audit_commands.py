"""`gavel audit`: judges every guarantee from the topics and the database alone, once or for good.

It changes nothing but its own state file. What it finds is said by where it stands; contact details are never shown.
"""

from __future__ import annotations

import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated

import psycopg
import typer
from confluent_kafka import KafkaException
from kafka.errors import KafkaError

from services.audit.app import Asked, Audit, opened, run_for_good, run_once
from services.audit.found import violation_json
from services.audit.metrics import AuditMetrics
from services.audit.rounds import Ended, NotAtRest
from services.audit.settings import AuditSettings
from services.audit.violations import Violation, Where
from services.billing.kafka_log import KafkaLog
from services.billing.rebuild import REBUILT, Rebuild, RebuildRunning, Verdict, drop_tables, only_one
from services.billing.store import ROLE as BILLING
from services.bus.database import connect
from services.bus.ports import BusFailed, PassingFault, Stopped
from services.bus.settings import SettingsError, read_settings
from services.cli.audit_telling import Told, line_of, remarks_of, say_told, told_json
from services.cli.complaints import INTERRUPTED, MISUSED, WENT_WRONG, Complaint, complaint_about
from services.cli.printing import onlookers, remark, say, say_json, say_json_line
from services.contract.codec import NotReadable, codec

app = typer.Typer(help="The auditor.", no_args_is_help=True)

LEDGER_GUARANTEE = 4
LEDGER_RULE = "ledger_rebuilt_identical"
_REBUILD_TRANSACTION_MS = 3_600_000
_CAN_T_READ = (
    BusFailed,
    PassingFault,
    Stopped,
    SettingsError,
    KafkaException,
    KafkaError,
    psycopg.Error,
    sqlite3.Error,
    OSError,
)


@app.callback()
def about() -> None:
    """Judge every guarantee from the topics and the database alone."""


@app.command(
    epilog="Exit codes: 0 every guarantee holds, 1 violations were found, 2 something can't be read. "
    "Example: gavel audit run --once --json"
)
def run(
    once: Annotated[
        bool, typer.Option("--once", help="Judge all there is now, and end; else go on until it is stopped.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Answer in JSON; without --once a line for each violation.")
    ] = False,
    at_rest: Annotated[
        bool,
        typer.Option(
            "--at-rest",
            help="With --once: wait up to 60 s until nothing is under way, so that what is missing is lost.",
        ),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild/--no-rebuild",
            help="With --once: make the ledger again, and compare. Nothing else sees a changed row of billing.",
        ),
    ] = True,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", help="Keep what was judged in this file, and go on from there.", dir_okay=False
        ),
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(
            "--logs",
            help="Search the files of this folder, too.",
            exists=True,
            file_okay=False,
            readable=True,
        ),
    ] = None,
    canary: Annotated[
        list[str] | None,
        typer.Option("--canary", help="A text that stands nowhere but in contact details; may be repeated."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port", min=1, max=65_535, help="Serve Prometheus metrics there, on GAVEL_WEB_HOST."
        ),
    ] = None,
) -> None:
    """Judge every guarantee from the topics and the database alone, and say where each violation is seen."""
    if at_rest and not once:
        raise Complaint("--at-rest is for --once.", exit_code=MISUSED)
    if canary and not all(canary):
        raise Complaint("A canary is a text, not nothing.", exit_code=MISUSED)
    try:
        with ExitStack() as ending:
            found = read_settings(AuditSettings, who="audit")
            path = state or Path(ending.enter_context(tempfile.TemporaryDirectory())) / "audit.sqlite"
            asked = Asked(state=path, logs=logs, canaries=tuple(canary or ()), require_rest=at_rest)
            stop = ending.enter_context(_stopped_by_signals())
            metrics = _metrics(found.web_host, metrics_port or found.web_port)
            shown = ending.enter_context(_shown())
            if once:
                holds = _once(found, asked, stop, shown, rebuild=rebuild, as_json=as_json)
            else:
                holds = _for_good(found, asked, stop, shown, metrics, as_json=as_json)
    except Ended:
        raise typer.Exit(INTERRUPTED) from None
    except NotAtRest as error:
        raise Complaint(
            f"Not at rest: {error}.", "Without --at-rest what is under way has its grace.", exit_code=MISUSED
        ) from None
    except RebuildRunning as error:
        raise Complaint(str(error), "Or leave it out: --no-rebuild.", exit_code=MISUSED) from error
    except _CAN_T_READ as error:
        raise _unread(error) from error
    raise typer.Exit(0 if holds else WENT_WRONG)


def audited(
    found: AuditSettings, asked: Asked, stop: threading.Event, shown: Shown, *, rebuild: bool
) -> Told:
    """Judge everything once; the ledger is made again besides, if `rebuild`."""
    began_s = time.monotonic()
    with opened(found, asked, stop=stop, progress=shown.show, on_new=lambda _: None, now_ms=_now_ms) as audit:
        before = audit.auditor.entries
        run_once(audit, stop, require_rest=asked.require_rest)
        reading_s = time.monotonic() - began_s
        rebuilt = _rebuild(found, audit, shown) if rebuild else None
        audit.rounds.commit()
    return Told(
        audit=audit,
        reading_s=reading_s,
        total_s=time.monotonic() - began_s,
        entries_read=audit.auditor.entries - before,
        rebuilt=rebuilt,
        remarks=tuple(remarks_of(audit)),
    )


def _once(
    found: AuditSettings, asked: Asked, stop: threading.Event, shown: Shown, *, rebuild: bool, as_json: bool
) -> bool:
    told = audited(found, asked, stop, shown, rebuild=rebuild)
    shown.end()
    if as_json:
        say_json(told_json(told))
    else:
        say_told(told)
    return told.holds


def _for_good(
    found: AuditSettings,
    asked: Asked,
    stop: threading.Event,
    shown: Shown,
    metrics: AuditMetrics,
    *,
    as_json: bool,
) -> bool:
    counted = {"violations": 0}

    def on_new(violation: Violation) -> None:
        if as_json:
            say_json_line(violation_json(violation))
        else:
            say(line_of(violation))

    def on_round(audit: Audit) -> None:
        counted["violations"] = audit.found.count
        shown.note(f"{audit.auditor.entries:,} entries, {audit.found.count:,} violations")

    remark("Auditing until it is stopped (Ctrl-C, SIGTERM).")
    run_for_good(
        found,
        asked,
        stop=stop,
        metrics=metrics,
        say=remark,
        progress=shown.show,
        on_new=on_new,
        on_round=on_round,
        now_ms=_now_ms,
    )
    return counted["violations"] == 0


def _rebuild(found: AuditSettings, audit: Audit, shown: Shown) -> int:
    """Make the ledger again as billing itself does, and take each difference as a violation."""
    shown.note("Making the ledger again ...")
    topic = found.topics.log
    with (
        connect(
            found.database,
            role=BILLING,
            application_name="gavel audit",
            transaction_timeout_ms=_REBUILD_TRANSACTION_MS,
            idle_in_transaction_timeout_ms=_REBUILD_TRANSACTION_MS,
        ) as connection,
        only_one(connection),
    ):
        rebuilt = Rebuild(connection, KafkaLog(found.connection(), topic), codec(), topic=topic)
        try:
            entries = rebuilt.make(shown.show)
            for what, rows in _differences(rebuilt.compare(shown.show)):
                audit.found.take(_ledger_violation(what, rows))
        except (Stopped, NotReadable) as error:
            audit.found.take(_ledger_violation(f"it can't be made again: {error}"))
            entries = 0
        finally:
            drop_tables(connection, REBUILT)
    return entries


def _differences(verdict: Verdict) -> Iterator[tuple[str, Sequence[Where]]]:
    """Say what differs, and the first rows that do; a changed row is in both ledgers and named once."""
    for table in verdict.tables:
        if table.only_in_ledger or table.only_in_rebuilt:
            name = f"billing.{table.table}"
            what = (
                f"{name}: {table.only_in_ledger:,} rows only in the ledger, "
                f"{table.only_in_rebuilt:,} only in the one made again"
            )
            yield what, [Where(name, key) for key in dict.fromkeys(row.key for row in table.differences)]
    for total in verdict.totals:
        if not total.agrees:
            yield f"the totals in {total.currency} differ", ()
    for discrepancy in verdict.discrepancies:
        yield discrepancy, ()


def _ledger_violation(what: str, rows: Sequence[Where] = ()) -> Violation:
    return Violation(
        guarantee=LEDGER_GUARANTEE,
        rule=LEDGER_RULE,
        what=what,
        where=tuple(rows) or (Where("billing", "`gavel billing rebuild --verify` tells more"),),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _metrics(host: str, port: int | None) -> AuditMetrics:
    from prometheus_client import CollectorRegistry, start_http_server

    metrics = AuditMetrics(CollectorRegistry())
    if port is not None:
        try:
            start_http_server(port, addr=host, registry=metrics.registry)
        except OSError as error:
            raise Complaint(
                f"{host} port {port} can't be listened on: {error.strerror}.", exit_code=MISUSED
            ) from error
    return metrics


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Have the first SIGTERM or Ctrl-C end what goes on in order; the second ends it at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unread(error: Exception) -> Complaint:
    """Say what can't be read, with the exit code of that."""
    if isinstance(error, sqlite3.Error):
        return Complaint(
            f"The state file can't be used: {error}.",
            "Does another audit use it? Each has a file of its own, and begins anew without one.",
            exit_code=MISUSED,
        )
    told = complaint_about(error)
    if told is None:
        return Complaint(f"Something can't be read: {error}", exit_code=MISUSED)
    return Complaint(told.what, told.advice, exit_code=MISUSED)


@dataclass(slots=True)
class Shown:
    """The progress that onlookers see, on a terminal."""

    update: Callable[[int, int], None]
    note: Callable[[str], None]
    end: Callable[[], None] = field(default=lambda: None)

    def show(self, done: int, total: int) -> None:
        """Show how far it is."""
        self.update(done, total)


@contextmanager
def _shown() -> Iterator[Shown]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=onlookers(), transient=True, refresh_per_second=5) as progress:
        task = progress.add_task("Reading", total=None)
        yield Shown(
            update=lambda done, total: progress.update(task, completed=done, total=total),
            note=lambda text: progress.update(task, description=text),
            end=progress.stop,
        )
