"""Gavel as the campaign's subject: its five steps, two workers each, its buyers and its operator."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from chaos import judging
from chaos.buyers import Buyers
from chaos.crew import Command, Crew
from chaos.leads import SOURCES, sent
from chaos.operator_commands import Operator
from chaos.positions import Offsets, Unreachable
from chaos.source import Load, Submission
from chaos.subject import Judgement, Site
from services.bus.settings import StepSettings
from services.cli.asking import partitions_inside
from services.cli.market_commands import follow_apply
from services.cli.setup_command import set_up
from services.contract.ids import lead_id_of
from services.contract.market import Market
from services.contract.topics import declarations
from services.market.cli import apply_files
from services.market.reading import open_files

MARKET = Path(__file__).parent / "market.yaml"
MARKET_IS_FOR_LEADS = 1_500

_CAP = re.compile(r"\b(leads_total|leads_per_hour|leads_per_day|spend_total|credit_limit): (\d+)(\.\d\d)?")
_CONNECT_S = 3
_ENTRIES_A_LEAD = 3
_ANSWER_MS = 3_000
_JOIN_WITHIN_S = 60.0

_POSITIONS = """
select h.partition, h.next_qualified, h.next_command, h.next_timer, h.seq, h.published_seq,
       coalesce(r.seq, 0), coalesce(b.seq, 0), coalesce(f.seq, 0)
from router.heads h
left join resale.positions r using (partition)
left join billing.positions b using (partition)
left join feed.positions f using (partition)
order by h.partition
"""
_COUNTS = """
select (select count(*) from intake.leads), (select count(*) from router.closes),
       (select count(*) from router.undelivered), (select count(*) from router.auctions)
"""


class Gavel:
    """Workers of intake, router, resale, billing and feed, two each unless told otherwise."""

    name = "Gavel"
    steps = ("intake", "router", "resale", "billing", "feed")
    hit = (*steps, "router", "router")

    def __init__(self, site: Site, *, leads: int, judge: str, workers_a_step: int = 2) -> None:
        """Say where, and which of `judging.JUDGES` will judge; the market's caps are made for so many leads."""
        self.workers_a_step = workers_a_step
        self._judge = judge
        self._site = site
        self._scale = max(leads / MARKET_IS_FOR_LEADS, 1.0)
        self._settings = StepSettings(kafka=site.kafka, database=site.database, namespace=site.namespace)
        self._topics = self.topics = self._settings.topics
        self._offsets = Offsets(site.kafka)
        self._created_at_ms = time.time_ns() // 1_000_000
        self._market: Market | None = None
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._reading = threading.Lock()
        self._over = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._outside: list[Future[None]] = []
        self._buyers: Buyers | None = None
        self._operator: Operator | None = None
        declared = {found.name: found.partitions for found in declarations()}
        self._source_partitions = [
            (self._topics.source_leads(source), partition)
            for source in SOURCES
            for partition in range(declared["sources.<id>.leads"])
        ]
        self._inside = range(partitions_inside())

    def prepare(self) -> None:
        """Make tables, topics and market, as `gavel setup` and `gavel market apply` do."""
        set_up(self._settings)

        def announce(market: Market) -> None:
            follow_apply(market, self._settings)

        files = [replace(file, text=scaled(file.text, self._scale)) for file in open_files([MARKET])]
        applied = apply_files(self._site.database, files, dry_run=False, base_version=None, announce=announce)
        self._market = applied.market

    def command(self, step: str, name: str) -> Command:
        """Start a step as `gavel step run` does."""
        site = self._site
        return Command(
            arguments=("-m", f"services.{step}"),
            environment={
                "GAVEL_KAFKA": site.kafka,
                "GAVEL_DATABASE": site.database,
                "GAVEL_NAMESPACE": site.namespace,
                "GAVEL_WORKER": name,
                "GAVEL_VAULT_KEY_FILE": str(site.vault_key_file),
                "GAVEL_FINGERPRINT_KEY_FILE": str(site.fingerprint_key_file),
                "GAVEL_SESSION_TIMEOUT_MS": str(site.session_timeout_ms),
            },
        )

    def explain(self, log: str) -> str:
        """Find the worker's own words for its end, the first of the last run."""
        for line in reversed(log.splitlines()):
            if (told := _stop_told_in(line)) is not None:
                return told
        return log.splitlines()[-1][:300] if log.strip() else "nothing"

    def read(self) -> tuple[Mapping[str, int], int]:
        """Read intake's positions from its group, the others' from their tables."""
        with self._reading:
            taken = self._offsets.committed(self._topics.group("intake"), self._source_partitions)
            ends = self._offsets.ends(
                [*self._source_partitions, *((self._topics.qualified, at) for at in self._inside)]
            )
            heads = self._rows(_POSITIONS)
        at = {f"intake {_short(topic)}-{partition}": found for (topic, partition), found in taken.items()}
        waiting = sum(ends[where] - taken[where] for where in self._source_partitions)
        for partition, qualified, _, _, seq, published, resale, billing, feed in heads:
            at |= {
                f"router {partition}": qualified,
                f"relay {partition}": published,
                f"resale {partition}": resale,
                f"billing {partition}": billing,
                f"feed {partition}": feed,
            }
            waiting += max(ends[self._topics.qualified, partition] - qualified, 0) + seq - published
            waiting += max(published - billing, 0) // _ENTRIES_A_LEAD
        return at, waiting

    def submission(self, number: int) -> Submission:
        """Write a lead of one of the sources, into the partitions in turn."""
        found = sent(number, self._created_at_ms)
        return Submission(
            topic=self._topics.source_leads(found.source_id),
            partition=number % (len(self._source_partitions) // len(SOURCES)),
            name=f"{found.source_id} {found.reference}",
            key=found.reference.encode(),
            value=found.value,
        )

    def begin(self, load: Load, every_s: float) -> None:
        """Let buyers and operator begin."""
        assert self._market is not None, "prepared before it begins"
        self._buyers = Buyers(
            kafka=self._site.kafka, topics=self._topics, buyers=list(self._market.buyers), over=self._over
        )

        def some_lead(drawn: int) -> str | None:
            if not load.sent:
                return None
            found = sent(drawn % load.sent, self._created_at_ms)
            return lead_id_of(found.source_id, found.reference)

        self._operator = Operator(
            settings=self._settings, some_lead=some_lead, every_s=every_s, over=load.may_end
        )
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="outside")
        self._outside = [self._pool.submit(each.run) for each in (self._buyers, self._operator)]

    def end(self) -> None:
        """Let them end; raise what one failed with."""
        self._over.set()
        if self._operator is not None:
            self._operator.over.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for each in self._outside:
            each.result(_JOIN_WITHIN_S)

    def close(self) -> None:
        """Leave the database."""
        if self._connection is not None:
            self._connection.close()

    def missing(self) -> Sequence[str]:
        """Compare every position with the end of what it is about."""
        for each in self._outside:
            if each.done():
                each.result()
        with self._reading:
            return [*self._unread(), *self._unfinished()]

    def bring_to_rest(self, crew: Crew) -> None:
        """Do nothing: Gavel comes to rest by itself, or the campaign has failed."""
        del crew

    def judge(self, load: Load, *, at_rest: bool) -> Judgement:
        """Ask the auditor, and see that every submission that was acknowledged had its answer."""
        assert self._market is not None, "prepared before it is judged"
        assert self._buyers is not None, "begun before it is judged"
        assert self._operator is not None, "begun before it is judged"
        found = judging.judge(
            self._site,
            self._settings,
            self._market,
            frozenset(load.acknowledged),
            judge=self._judge,
            at_rest=at_rest,
        )
        said = {
            "answers of buyers": self._buyers.answers,
            "answers of buyers that Kafka did not take": self._buyers.answers_lost,
            "records repeated to buyers": self._buyers.repeats,
            "deposits": self._operator.deposits,
            "withdrawals": self._operator.withdrawals,
            "erasures": self._operator.erasures,
        }
        heard = {
            f"records heard by buyers: {kind}": count for kind, count in sorted(self._buyers.heard.items())
        }
        return replace(found, counts={**found.counts, **said, **heard})

    def _unread(self) -> list[str]:
        """Records outside and inside that nobody has taken yet."""
        assert self._market is not None, "prepared before it is asked"
        topics = self._topics
        answers = [(topics.buyer_answers(buyer), 0) for buyer in self._market.buyers]
        outside = [*self._source_partitions, *answers]
        inside = [
            (topic, at) for topic in (topics.qualified, topics.commands, topics.timers) for at in self._inside
        ]
        taken = self._offsets.committed(topics.group("intake"), outside)
        ends = self._offsets.ends([*outside, *inside])
        for partition, qualified, command, timer, *_ in self._rows(_POSITIONS):
            taken |= {
                (topics.qualified, partition): qualified,
                (topics.commands, partition): command,
                (topics.timers, partition): timer,
            }
        lags = {where: ends[where] - taken.get(where, 0) for where in (*outside, *inside)}
        return [
            f"{lag} records of {_short(topic)}-{partition} are not taken"
            for (topic, partition), lag in lags.items()
            if lag > 0
        ]

    def _unfinished(self) -> list[str]:
        """Leads that are open, and entries that not everybody has."""
        found = []
        for partition, _, _, _, seq, published, resale, billing, feed in self._rows(_POSITIONS):
            behind = {"the relay": published, "resale": resale, "billing": billing, "the feed": feed}
            found += [
                f"{step} has {stands} of {seq} entries of partition {partition}"
                for step, stands in behind.items()
                if stands != seq
            ]
        ((accepted, closed, undelivered, auctions),) = self._rows(_COUNTS)
        if accepted > closed:
            found.append(f"{accepted - closed} of {accepted} accepted leads are not closed")
        if undelivered:
            found.append(f"{undelivered} records are undelivered")
        if auctions:
            found.append(f"{auctions} auctions are open")
        if self._buyers is not None and self._buyers.has_more_to_say:
            found.append("buyers have not answered all they will")
        return found

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database, by a connection that is made again where it was lost; raise `Unreachable`."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._site.database,
                    autocommit=True,
                    connect_timeout=_CONNECT_S,
                    options=f"-c statement_timeout={_ANSWER_MS}",
                )
            return self._connection.execute(query.encode()).fetchall()
        except psycopg.OperationalError as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            raise Unreachable(str(error)) from error


def scaled(text: str, scale: float) -> str:
    """Multiply the caps of a market's text, so that they are reached as late in a long campaign as in a short one."""

    return _CAP.sub(lambda found: f"{found[1]}: {round(int(found[2]) * scale)}{found[3] or ''}", text)


def _stop_told_in(line: str) -> str | None:
    """Read a worker's log line, if it is the one that says why it stops."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("event") != "the worker stops":
        return None
    causes, error = [], found.get("error")
    while isinstance(error, dict):
        causes.append(f"{error.get('class')}: {error.get('message', '')}".strip())
        error = error.get("cause")
    return " <- ".join(causes)[:400]


def _short(topic: str) -> str:
    return topic.partition(".")[2]
