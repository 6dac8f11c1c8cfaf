"""How fast the whole auditor reads and judges real topics: Kafka, secrecy, state file and all, but for the tables.

Writes a log of the usual kind, with what outsiders are told of it, into topics of its own on a running Kafka, reads it
twice as `gavel audit run` does (the second time from a new state, with a warm broker), and deletes the topics. Run:
`GAVEL_KAFKA=... python -m bench.audit_reading --entries 200000`.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from bench.audit_speed import PARTITIONS, Log, market
from services.audit.auditor import Auditor
from services.audit.found import Found
from services.audit.reading import Reading
from services.audit.rounds import Rounds
from services.audit.secrecy import Secrecy
from services.audit.states import SqliteLeadStates
from services.audit.traces import Traces
from services.bus.administration import create_topics
from services.bus.kafka import Connection
from services.bus.ports import Record
from services.contract.topics import Topics

WRITTEN_AT_ONCE = 10_000
READINGS = 2


def main() -> int:
    """Measure, and say what was reached."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--entries", type=int, default=200_000)
    asked.add_argument("--log-only", action="store_true", help="write nothing of what outsiders are told")
    arguments = asked.parse_args()
    connection = Connection(bootstrap=os.environ["GAVEL_KAFKA"])
    topics = Topics(f"audit-{os.getpid()}.")
    try:
        create_topics(connection, topics, market())
        _write(connection, topics, arguments.entries, told=not arguments.log_only)
        violations = [_read(connection, topics) for _ in range(READINGS)]
    finally:
        _delete(connection, topics)
    return 1 if any(violations) else 0


def _write(connection: Connection, topics: Topics, entries: int, *, told: bool) -> None:
    producer = Producer(connection.librdkafka(linger_ms=20, queue_buffering_max_messages=200_000))
    log = Log()
    for first in range(0, entries, WRITTEN_AT_ONCE):
        inside, outside = log.write(first, min(WRITTEN_AT_ONCE, entries - first), told=told)
        _append(producer, topics, [*inside, *outside])


def _append(producer: Producer, topics: Topics, records: Iterable[Record]) -> None:
    # Dated as of now, or what is told would be deleted for its age while it is read.
    for topic, partition, _, key, value, headers, _ in records:
        producer.produce(topics.namespace + topic, value, key, partition, headers=[*headers])
        producer.poll(0)
    producer.flush()


def _read(connection: Connection, topics: Topics) -> int:
    """Read everything into a new state; return how many violations there are, of which there must be none."""
    found = Found()
    reading = Reading(connection)
    with tempfile.TemporaryDirectory() as folder:
        states = SqliteLeadStates(Path(folder) / "states")
        markets = {1: market()}.__getitem__
        auditor = Auditor(
            markets=markets, topics=topics, partitions=PARTITIONS, states=states, report=found.take
        )
        secrecy = Secrecy(markets=markets, topics=topics, traces=Traces(), report=found.take)
        rounds = Rounds(
            reading=reading,
            database="",  # the tables are not compared here
            topics=topics,
            states=states,
            auditor=auditor,
            secrecy=secrecy,
            found=found,
            stop=threading.Event(),
            now_ms=lambda: time.time_ns() // 1_000_000,
        )
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        rounds.catch_up()
        spent_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        states.close()
    reading.close()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    sys.stdout.write(
        f"{auditor.entries:,} entries, {secrecy.records:,} records in {spent_s:.1f} s, {cpu_s:.1f} s of CPU: "
        f"{auditor.entries / spent_s:,.0f} entries/s, {auditor.entries / cpu_s:,.0f} entries/s of CPU, "
        f"{secrecy.records / cpu_s:,.0f} records/s of CPU; at most {peak_mib:,.0f} MiB; "
        f"{found.count} violations\n"
    )
    return found.count


def _delete(connection: Connection, topics: Topics) -> None:
    admin = AdminClient(connection.librdkafka())
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(topics.namespace)]
    if names:
        for done in admin.delete_topics(names).values():
            done.result(timeout=30)


if __name__ == "__main__":
    sys.exit(main())
