"""The per-event Faust control of the benchmark as the campaign's subject: what plain Faust keeps of a promise.

Its promises are few: each lead that the brokers acknowledged is delivered once to each of three buyers, always as the
same sale, and each sale is billed once. A delivery that comes twice with the same content counts as a repeat, as with
Gavel. Where it does not come to rest, all its workers are started afresh, as an operator would, before it is judged.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psycopg
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.leads import SOURCE_ID
from bench.leads import submission as lead_of
from bench.per_event_faust.settings import BUYERS, PARTITIONS, Settings
from chaos.crew import Command, Crew, start_all
from chaos.judging import read_all
from chaos.positions import Offsets
from chaos.source import Load, Submission
from chaos.subject import Judgement, Site
from services.contract.ids import lead_id_of

_SCHEMA = Path(__file__).parents[1] / "bench" / "per_event_faust" / "schema.sql"
_ADMIN_WITHIN_S = 30.0


class PerEventFaust:
    """Workers of the control; its intake is right with one worker only, so each step has one."""

    name = "per-event Faust"
    steps = ("intake", "router", "billing")
    hit = (*steps, "router")
    workers_a_step = 1

    def __init__(self, site: Site) -> None:
        """Say where; nothing is made or started yet."""
        self._site = site
        self._settings = Settings(
            kafka=site.kafka,
            database=site.database,
            namespace=site.namespace,
            data_folder=str(site.folder / "faust"),
        )
        self._offsets = Offsets(site.kafka)
        self._created_at_ms = time.time_ns() // 1_000_000
        self._stalled: Sequence[str] = ()
        read = {
            "intake": self._settings.submitted,
            "router": self._settings.accepted,
            "billing": self._settings.decisions,
        }
        self._read = {
            step: [(topic, partition) for partition in range(PARTITIONS)] for step, topic in read.items()
        }

    def prepare(self) -> None:
        """Make topics, with as many copies as Gavel's, and tables."""
        admin = AdminClient({"bootstrap.servers": self._site.kafka})
        copies = 3 if self._site.brokers > 1 else 1
        compacted = {"cleanup.policy": "compact"}
        topics = [
            *(NewTopic(name, PARTITIONS, copies) for name in self._settings.topics()),
            *(NewTopic(name, PARTITIONS, copies, config=compacted) for name in self._settings.changelogs()),
        ]
        for made in admin.create_topics(topics, operation_timeout=_ADMIN_WITHIN_S).values():
            made.result()
        with psycopg.connect(self._site.database, autocommit=True) as connection:
            connection.execute(_SCHEMA.read_bytes())

    def command(self, step: str, name: str) -> Command:
        """Start a worker as the benchmark does; a further one has a data folder of its own."""
        return Command(
            arguments=("-m", "bench.per_event_faust", step),
            environment={
                "GAVEL_KAFKA": self._site.kafka,
                "GAVEL_DATABASE": self._site.database,
                "GAVEL_NAMESPACE": self._site.namespace,
                "BENCH_DATA_FOLDER": f"{self._settings.data_folder}-{name}",
            },
        )

    def explain(self, log: str) -> str:
        """Quote the last error of its log."""
        errors = [line for line in log.splitlines() if "Error" in line or "Exception" in line]
        return (errors or log.splitlines() or ["nothing"])[-1][:300]

    def read(self) -> tuple[Mapping[str, int], int]:
        """Read the groups' positions, which Faust commits every few seconds."""
        at: dict[str, int] = {}
        waiting = 0
        for step, partitions in self._read.items():
            ends = self._offsets.ends(partitions)
            taken = self._offsets.committed(self._settings.app_id(step), partitions)
            at |= {f"{step} {partition}": taken[topic, partition] for topic, partition in partitions}
            waiting += sum(ends[where] - taken[where] for where in partitions)
        return at, waiting

    def submission(self, number: int) -> Submission:
        """Write a lead, all of them valid and different."""
        found = lead_of(number, self._created_at_ms)
        return Submission(
            topic=self._settings.submitted,
            partition=number % PARTITIONS,
            name=found.reference,
            key=None,
            value=found.value,
        )

    def begin(self, load: Load, every_s: float) -> None:
        """Nobody outside takes part."""

    def end(self) -> None:
        """Nobody outside took part."""

    def close(self) -> None:
        """No connection is kept."""

    def missing(self) -> Sequence[str]:
        """Look for records that nobody has taken."""
        found = []
        for step, partitions in self._read.items():
            ends = self._offsets.ends(partitions)
            taken = self._offsets.committed(self._settings.app_id(step), partitions)
            lag = sum(ends[where] - taken[where] for where in partitions)
            if lag:
                found.append(f"{step} has not taken {lag} records")
        return found

    def bring_to_rest(self, crew: Crew) -> None:
        """Start all workers afresh: a consumer that has stalled in silence is not the loss of a lead."""
        self._stalled = self.missing()
        for name in crew.names:
            crew.kill(name)
            crew.dismiss(name)
        start_all(crew, self.steps, self.workers_a_step)

    def judge(self, load: Load, *, at_rest: bool) -> Judgement:
        """Compare what was acknowledged with what was delivered and billed."""
        found = deliveries_of({buyer: self._delivered_to(buyer) for buyer in BUYERS})
        with psycopg.connect(self._site.database, autocommit=True) as connection:
            billed = connection.execute(
                "select lead_id::text, sale_id::text, buyer_id, price_cents from faust_billing.sales"
            ).fetchall()
            unbalanced = connection.execute(
                "select sale_id::text from faust_billing.ledger group by sale_id having sum(amount_cents) <> 0"
            ).fetchall()
        acknowledged = {lead_id_of(SOURCE_ID, reference) for reference in load.acknowledged}
        broken = [
            *broken_promises(acknowledged, found, billed),
            *(("ledger out of balance", f"sale {sale}") for (sale,) in unbalanced),
        ]
        return Judgement(
            judge="chaos/control.py",
            counts={
                "leads acknowledged": len(acknowledged),
                "deliveries": found.records,
                "records repeated to buyers": found.repeats,
                "sales billed": len(billed),
            },
            violations=[f"{rule}: {what}" for rule, what in broken],
            by_rule=Counter(rule for rule, _ in broken),
            details={
                "stalled until all its workers were started afresh": list(self._stalled),
                "at rest": at_rest,
            },
        )

    def _delivered_to(self, buyer_id: str) -> list[Mapping[str, Any]]:
        return [
            orjson.loads(value) for value in read_all(self._site.kafka, self._settings.delivered(buyer_id))
        ]


@dataclass(slots=True)
class Deliveries:
    """What buyers have: by lead and buyer, each different sale that it was told of."""

    sales: dict[tuple[str, str], set[tuple[str, int, str]]] = field(default_factory=dict)
    records: int = 0
    repeats: int = 0


def deliveries_of(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> Deliveries:
    """Fold the buyers' topics; a record like one before is a repeat."""
    found = Deliveries()
    for buyer_id, bodies in records.items():
        for body in bodies:
            told = (str(body["sale_id"]), int(body["sale_number"]), str(body["price"]))
            known = found.sales.setdefault((str(body["lead_id"]), buyer_id), set())
            found.records += 1
            found.repeats += told in known
            known.add(told)
    return found


def broken_promises(
    acknowledged: set[str], found: Deliveries, billed: Sequence[tuple[Any, ...]]
) -> list[tuple[str, str]]:
    """List what was promised and not kept: a rule's name, and what it is about."""
    broken = []
    for lead_id in sorted(acknowledged):
        had = [buyer for buyer in BUYERS if (lead_id, buyer) in found.sales]
        if not had:
            broken.append(("lead lost", f"lead {lead_id} was acknowledged and reached nobody"))
        elif len(had) < len(BUYERS):
            broken.append(("delivery lost", f"lead {lead_id} reached {', '.join(had)} only"))
    for (lead_id, buyer), told in found.sales.items():
        if len(told) > 1:
            broken.append(("delivered as different sales", f"lead {lead_id} to {buyer}: {sorted(told)}"))
    sold = {(lead_id, buyer) for lead_id, buyer in found.sales}
    charged = Counter((lead_id, buyer) for lead_id, _, buyer, _ in billed)
    broken += [
        ("delivered and not billed", f"lead {lead} to {buyer}")
        for lead, buyer in sorted(sold - charged.keys())
    ]
    broken += [
        ("billed and not delivered", f"lead {lead} to {buyer}")
        for lead, buyer in sorted(charged.keys() - sold)
    ]
    broken += [
        ("billed twice", f"lead {lead} to {buyer}") for (lead, buyer), times in charged.items() if times > 1
    ]
    return broken
