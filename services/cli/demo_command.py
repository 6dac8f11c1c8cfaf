"""`gavel demo`: the whole of Gavel on this machine, from nothing to tables, and nothing of it left behind.

It wires the demo's parts and waits; what it waits for has a deadline. What the demo finds is judged in `demo_checks`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.asking import place as ask
from services.cli.complaints import WENT_WRONG, Complaint
from services.cli.demo_audit import audit_check
from services.cli.demo_bidders import Posted, receiver
from services.cli.demo_buyers import Buyers
from services.cli.demo_checks import check
from services.cli.demo_evidence import billed, deliveries, finances, gather, staggered_lead
from services.cli.demo_interruptions import Interruptions
from services.cli.demo_leads import SHIPPED
from services.cli.demo_people import people
from services.cli.demo_place import Place, place
from services.cli.demo_report import Report, report_json, say_next, say_report
from services.cli.demo_sources import EXAMPLES, Receipts, Sources, bars, traffic, with_poison
from services.cli.demo_workers import Workers, are_ready
from services.cli.insiders import administration
from services.cli.lead_commands import read_story
from services.cli.market_commands import follow_apply
from services.cli.printing import onlookers, remark, say_json
from services.cli.setup_command import set_up
from services.cli.story import LocalClock
from services.contract.events import MoneyKind
from services.contract.ids import account_id_of
from services.contract.inputs import MoveMoney
from services.contract.market import Market
from services.market.cli import apply_files
from services.market.reading import open_files

if TYPE_CHECKING:
    from rich.progress import Progress

MARKET = EXAMPLES / "market-demo.yaml"
RECEIVER = "127.0.0.1:18099"
"""Where the demo's market posts webhooks to; the port is exchanged for a free one."""

PAID_IN = {"clearview": 240_00}
"""What buyers that pay in advance have paid in before the first lead, in minor units: not enough for all they want."""

LEADS_MAX = 50_000
READY_WITHIN_S = 60.0
CLOSED_WITHIN_S = 150.0
SETTLED_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.2


def demo(
    data: Annotated[
        Path, typer.Option("--data", help="Folder of the demo's own servers, logs and keys.", file_okay=False)
    ] = Path(".gavel/demo"),
    leads: Annotated[
        int, typer.Option("--leads", min=1, max=LEADS_MAX, help="So many submissions are sent.")
    ] = SHIPPED,
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up at the end, and say what to try next; Ctrl-C ends it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Start everything, sell 2,000 leads, and show what became of them. Ctrl-C ends it all, at any moment.

    Starts Kafka and PostgreSQL in a folder of its own (or uses those of GAVEL_KAFKA and GAVEL_DATABASE, in a database
    and a namespace of its own), runs every step as a worker process, streams leads from examples/leads, answers as the
    buyers would, waits until every accepted lead is closed, and checks the guarantees from outside.
    """
    began_s = time.monotonic()
    interruptions = Interruptions()
    try:
        with ExitStack() as ending:
            shown = ending.enter_context(_shown())
            try:
                there = ending.enter_context(place(data, shown.note))
                workers = ending.enter_context(
                    Workers(environment=there.environment, logs=there.logs, interruptions=interruptions)
                )
                port, posted = ending.enter_context(receiver())
                market = _prepare(there, shown, port)
                shown.note("Starting the workers ...")
                run = ending.enter_context(_running(there, market, workers, posted, leads))
                report = _sell(run, shown, began_s)
                shown.end()
                _tell(report, as_json=as_json)
                if keep:
                    say_next(there, report.story)
                    run.keep_up()
            finally:
                shown.end("Stopping everything ...")
                interruptions.hold()
    finally:
        interruptions.give_back()
    raise typer.Exit(0 if report.is_well else WENT_WRONG)


def _prepare(there: Place, shown: _Shown, webhook_port: int) -> Market:
    """Set up the database and the topics, and apply the example market with its quick windows."""
    if not MARKET.exists():
        raise Complaint(
            f"The demo's market, {MARKET}, is not there.", "Run the demo from a checkout of Gavel."
        )
    shown.note("Setting up the database and the topics ...")
    set_up(there.settings)

    def follow(market: Market) -> None:
        follow_apply(market, there.settings)

    applied = apply_files(
        there.settings.database,
        [
            replace(file, text=file.text.replace(RECEIVER, f"127.0.0.1:{webhook_port}"))
            for file in open_files([MARKET])
        ],
        dry_run=False,
        base_version=None,
        announce=follow,
        note="the demo",
    )
    return applied.market


@dataclass(slots=True)
class _Run:
    """A demo under way: its workers, and the threads that speak for sources and buyers."""

    place: Place
    market: Market
    workers: Workers
    posted: Posted
    sources: Sources
    receipts: Receipts
    buyers: Buyers
    threads: list[Future[None]] = field(default_factory=list)

    def wait(
        self,
        until: Callable[[], bool],
        within_s: float,
        missing: Callable[[], str],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait until something is so; raise `Complaint` if it isn't in time, or if anything has failed meanwhile."""
        deadline_s = time.monotonic() + within_s
        while not until():
            self.require_all()
            look()
            if time.monotonic() > deadline_s:
                raise Complaint(
                    f"The demo did not come to its end within {within_s:.0f} s: {missing()}.",
                    f"The workers' logs are in {self.place.logs}.",
                )
            time.sleep(_LOOK_EVERY_S)
        look()

    def require_all(self) -> None:
        """Raise what a worker or a thread has ended with."""
        self.workers.require_all()
        for thread in self.threads:
            if thread.done():
                thread.result()

    def stop_counting(self) -> None:
        """Let the receipts be what they are now."""
        self.receipts.ending.set()
        self.threads.pop(0).result(SETTLED_WITHIN_S)

    def keep_up(self) -> None:
        """Stay until Ctrl-C."""
        while True:
            self.require_all()
            time.sleep(_LOOK_EVERY_S)


@contextmanager
def _running(there: Place, market: Market, workers: Workers, posted: Posted, leads: int) -> Iterator[_Run]:
    """Start the workers, the buyers and the sources."""
    connection, topics = people(there.settings, market), there.settings.topics
    administrator = administration(there.settings)
    ended, all_told = threading.Event(), threading.Event()
    stream = with_poison(traffic(leads))
    run = _Run(
        place=there,
        market=market,
        workers=workers,
        posted=posted,
        sources=Sources(connection, topics, stream, ended),
        receipts=Receipts(connection, topics, tuple(market.sources), all_told),
        buyers=Buyers(connection, topics, market, ended),
    )
    workers.start()
    with ThreadPoolExecutor(3, thread_name_prefix="demo") as pool:
        try:
            run.threads = [pool.submit(each.run) for each in (run.receipts, run.buyers)]
            run.wait(
                lambda: are_ready(administrator, topics.namespace, workers.all),
                READY_WITHIN_S,
                lambda: "not all workers have joined their groups",
            )
            _pay_in(there)
            run.threads.append(pool.submit(run.sources.run))
            yield run
        finally:
            ended.set()
            all_told.set()


def _pay_in(there: Place) -> None:
    """Book what buyers have paid in; the router has it before the first lead, which must go through intake."""
    for buyer_id, cents in PAID_IN.items():
        ask(
            there.settings,
            MoveMoney(
                lead_id=account_id_of(buyer_id),
                buyer_id=buyer_id,
                kind=MoneyKind.DEPOSIT,
                reference="the demo's advance",
                amount_cents=cents,
                currency="USD",
            ),
        )


def _sell(run: _Run, shown: _Shown, began_s: float) -> Report:
    """Wait until every accepted lead is closed and everything is told, and look at what there is then."""
    sources, receipts, found = run.sources, run.receipts, run.place.settings
    shown.note("Selling ...")
    selling_s = time.monotonic()
    run.wait(
        lambda: receipts.answered >= len(sources.stream) and len(receipts.closes) >= len(receipts.accepted),
        CLOSED_WITHIN_S + len(sources.stream) / 100,
        lambda: _what_is_missing(sources, receipts),
        lambda: shown.show(sources, receipts),
    )
    selling_s = time.monotonic() - selling_s
    shown.note("Waiting for the buyers' last records and for billing ...")
    run.wait(
        lambda: _is_settled(run),
        SETTLED_WITHIN_S,
        lambda: "buyers or billing have not got everything",
    )
    shown.note("Checking the guarantees ...")
    run.stop_counting()
    evidence = gather(found, run.market, receipts, tuple(run.buyers.leads))
    told = staggered_lead(found.database)
    return Report(
        namespace=found.namespace,
        sent=len(sources.stream),
        receipts=receipts,
        finances=finances(found.database),
        story=read_story(found, told, _clock()) if told else None,
        checks=(*check(evidence), audit_check(found, run.place.logs)),
        heard=run.buyers.heard,
        limits=run.buyers.limits,
        posted=run.posted,
        answers=run.buyers.answers,
        selling_s=selling_s,
        total_s=time.monotonic() - began_s,
    )


def _is_settled(run: _Run) -> bool:
    """Tell whether buyers have what was sold and billing has what was closed; a check tells what is wrong if not."""
    leads, sales = billed(run.place.settings.database)
    if leads < len(run.receipts.closes) or sales < len(run.receipts.sold):
        return False
    delivered = {each.sale_id for each in deliveries(tuple(run.buyers.leads), run.place.settings.topics)}
    return len(delivered) >= len(run.receipts.sold)


def _what_is_missing(sources: Sources, receipts: Receipts) -> str:
    unanswered = len(sources.stream) - receipts.answered
    return (
        f"{unanswered:,} of {len(sources.stream):,} submissions have no receipt, and "
        f"{len(receipts.accepted) - len(receipts.closes):,} of {len(receipts.accepted):,} accepted leads are not closed"
    )


def _tell(report: Report, *, as_json: bool) -> None:
    if as_json:
        say_json(report_json(report))
    else:
        say_report(report, _clock())
    for each in report.checks:
        if not each.holds:
            remark(f"BROKEN: {each.guarantee}")


def _clock() -> LocalClock:
    return LocalClock(datetime.now(tz=UTC).astimezone().tzinfo or UTC)


@dataclass(slots=True)
class _Shown:
    """The progress that onlookers see, on a terminal."""

    progress: Progress
    tasks: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Say what happens now."""
        self.progress.console.print(text, style="dim", markup=False)

    def show(self, sources: Sources, receipts: Receipts) -> None:
        """Show how far it has come."""
        for name, done, of in bars(sources, receipts):
            task = self.tasks.get(name)
            if task is None:
                task = self.tasks[name] = self.progress.add_task(name, total=None)
            self.progress.update(task, completed=done, total=of)  # type: ignore[arg-type]  # a TaskID is an int

    def end(self, text: str = "") -> None:
        """Show no more; what was shown stays."""
        self.progress.stop()
        if text:
            self.note(text)


@contextmanager
def _shown() -> Iterator[_Shown]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=onlookers(), refresh_per_second=5) as progress:
        yield _Shown(progress)
