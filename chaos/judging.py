"""Judges a campaign's end: the auditor over topics and tables, and the receipts of those who sent.

The auditor is `gavel audit run --once`, as anybody would run it. The checks of `tests/support/checker.py` read
everything into memory and share nothing with it: a second opinion on a campaign that is not too long.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from chaos.leads import CANARY, SOURCES
from chaos.positions import Offsets
from chaos.subject import Judgement, Site
from services.bus.settings import StepSettings
from services.cli.asking import partitions_inside
from services.contract.market import Market

AUDITOR, CHECKER, BOTH = JUDGES = ("auditor", "checker", "both")

_AUDIT_WITHIN_S = 7_200.0
_READ_WITHIN_S = 60.0
_READ_AT_ONCE = 10_000
_READ_POLL_S = 0.2
_SHOWN = 100

_TOTALS = """
select (select count(*) from intake.leads), (select count(*) from router.sales), (select sum(seq) from router.heads),
       (select count(*) from billing.transfers),
       (select count(*) from router.closes where outcome = 'failed')
"""


def judge(
    site: Site,
    settings: StepSettings,
    market: Market,
    acknowledged: frozenset[str],
    *,
    judge: str,
    at_rest: bool,
) -> Judgement:
    """Judge a Gavel; `acknowledged` are submissions by source and reference, `judge` is one of `JUDGES`.

    Where it is `at_rest`, what is missing is lost.
    """
    answered = _answers(site.kafka, settings)
    own = [*unanswered(acknowledged, answered), *_failed_leads(site.database)]
    audited = _audit(site, at_rest=at_rest) if judge != CHECKER else _NOBODY
    checked = _checker(site, settings, market) if judge != AUDITOR else _NOBODY
    found = [*audited.violations, *checked.violations]
    by_rule = Counter(violation.partition(":")[0] for violation in (*own, *found))
    return Judgement(
        judge=" and ".join(each.name for each in (audited, checked) if each.name),
        counts=_totals(site, settings) | _outcomes(answered),
        violations=[*own, *found],
        by_rule=dict(by_rule),
        details=audited.said,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What one judge found: sentences that begin with a rule and a colon, and whatever else it said."""

    name: str = ""
    violations: Sequence[str] = ()
    said: Mapping[str, Any] = field(default_factory=dict)


_NOBODY = _Verdict()


def _audit(site: Site, *, at_rest: bool) -> _Verdict:
    """Run the auditor as a process; what it says on standard output in JSON is kept whole."""
    environment = {
        **os.environ,
        "GAVEL_KAFKA": site.kafka,
        "GAVEL_DATABASE": site.database,
        "GAVEL_NAMESPACE": site.namespace,
    }
    rest = ["--at-rest"] if at_rest else []
    command = ["audit", "run", "--once", *rest, "--json", "--logs", str(site.folder), "--canary", CANARY]
    ran = subprocess.run(
        [sys.executable, "-m", "services.cli", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_AUDIT_WITHIN_S,
        check=False,
    )
    name = "gavel " + " ".join(command[:3])
    try:
        told = json.loads(ran.stdout)
    except ValueError:
        told_nothing = f"auditor: it ended with {ran.returncode} and told nothing: {ran.stderr[-1_000:]}"
        return _Verdict(name=name, violations=[told_nothing])
    found = [_sentence(violation) for violation in told.get("violations", ())]
    more = int(told.get("violations_found", len(found))) - len(found)
    found += [f"more: {more} further violations are not listed"] if more > 0 else []
    if ran.returncode != 0 and not found:
        found = [f"auditor: it ended with {ran.returncode}: {ran.stderr[-1_000:]}"]
    said = {key: value for key, value in told.items() if key != "violations"}
    return _Verdict(name=name, violations=found, said=said)


def _sentence(violation: Mapping[str, Any]) -> str:
    where = ", ".join(str(place) for place in violation.get("where", ()))
    return f"{violation.get('rule')}: {violation.get('what')} ({where})"


def _checker(site: Site, settings: StepSettings, market: Market) -> _Verdict:
    checker = importlib.import_module("tests.support.checker")
    found = [
        f"checker: {each}" for each in checker.violations(site.kafka, settings.topics, market, site.database)
    ]
    evidence = checker.gather(site.kafka, settings.topics, market)
    leaks = checker.leaks(evidence, site.database, site.folder, [CANARY.encode()])
    found += [f"leak: {each}" for each in leaks]
    return _Verdict(name="tests/support/checker.py", violations=found)


def _answers(kafka: str, settings: StepSettings) -> dict[str, Counter[str]]:
    """Count what intake answered about each submission, by source and reference."""
    answers: dict[str, Counter[str]] = {}
    for source_id in SOURCES:
        for value in read_all(kafka, settings.topics.source_receipts(source_id)):
            receipt = orjson.loads(value)
            if "reference" not in receipt:
                continue  # from the router, about a lead that was accepted before
            said = answers.setdefault(f"{source_id} {receipt['reference']}", Counter())
            for item in receipt["happened"]:
                said[item["type"] if item["type"] != "declined" else f"declined: {item['reason']}"] += 1
    return answers


def unanswered(acknowledged: Iterable[str], answers: Mapping[str, Counter[str]]) -> list[str]:
    """Name the submissions that the brokers acknowledged, and that no receipt ever answered."""
    return [
        f"receipts: submission {name} was acknowledged and never answered"
        for name in sorted(acknowledged)
        if name not in answers
    ]


def _outcomes(answers: Mapping[str, Counter[str]]) -> dict[str, int]:
    found: Counter[str] = Counter(said for each in answers.values() for said in each)
    repeats = sum(max(each["accepted"] - 1, 0) for each in answers.values())
    return {**{f"answered {said}": count for said, count in sorted(found.items())}, "accepted again": repeats}


def _failed_leads(database: str) -> list[str]:
    """Leads that a constraint has closed: no promise is broken by that, and yet a decision was wrong."""
    with psycopg.connect(database, autocommit=True) as connection:
        rows = connection.execute(
            "select lead_id::text from router.closes where outcome = 'failed' limit %s", [_SHOWN]
        ).fetchall()
    return [f"outcome: lead {lead_id} was closed as failed" for (lead_id,) in rows]


def _totals(site: Site, settings: StepSettings) -> dict[str, int]:
    with psycopg.connect(site.database, autocommit=True) as connection:
        row = connection.execute(_TOTALS).fetchone()
    assert row is not None, "such a query has one row"
    names = ("leads accepted", "sales", "log entries", "ledger transfers", "leads failed")
    found = dict(zip(names, (int(count or 0) for count in row), strict=True))
    log = [(settings.topics.log, at) for at in range(partitions_inside())]
    published = sum(Offsets(site.kafka).ends(log).values())
    return {**found, "log records published again": published - found["log entries"]}


def read_all(kafka: str, topic: str) -> Sequence[bytes]:
    """Read the values of a topic from its beginning to its present end; raise `KafkaException`."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "log_level": 3,
            "group.id": "chaos-judge",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=_READ_WITHIN_S).topics[topic].partitions
        ends = {
            at: consumer.get_watermark_offsets(TopicPartition(topic, at), timeout=_READ_WITHIN_S)[1]
            for at in partitions
        }
        values: list[bytes] = []
        for at, end in ends.items():
            consumer.assign([TopicPartition(topic, at, OFFSET_BEGINNING)])
            values += _read_to(consumer, end)
        return values
    finally:
        consumer.close()


def _read_to(consumer: Consumer, end: int) -> list[bytes]:
    values: list[bytes] = []
    next_offset = 0
    ends_at_s = time.monotonic() + _READ_WITHIN_S
    while next_offset < end:
        messages = consumer.consume(_READ_AT_ONCE, _READ_POLL_S)
        if messages:
            ends_at_s = time.monotonic() + _READ_WITHIN_S
        elif time.monotonic() > ends_at_s:
            raise KafkaException("a topic could not be read to its end")
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            next_offset = (message.offset() or 0) + 1
            if next_offset <= end:
                values.append(message.value() or b"")
    return values
