"""What a million windows that wait cost: how fast due ones are sent, how late single ones, and what a look costs.

The resale worker runs as it does in a pipeline; the windows are put into its table, where the log would have put them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from bench.amounts import Amounts
from bench.figures import Run, percentile
from bench.gavel import Gavel
from bench.measurement import UnfinishedError
from bench.pipeline import Site
from bench.processes import peak_memory_mib
from bench.stage import Stage
from services.bus.database import connect
from services.contract.topics import Topics
from services.resale.store import PostgresWindows

NAME = "timers"
PARTITIONS = 12
LOOKS = 100
APART_MS = 100
"""How far apart the windows are that fall due one by one."""

_AHEAD_MS = 3_000
"""How long before the first falls due they are put into the table: the worker looks every second at least."""

_STARTS_WITHIN_S = 60.0
_PAUSE_MS = 1_000
_FIRED_WITHIN_S = 60.0
_SENT_AT_ONCE = 250
_DAY_MS = 86_400_000
_FILL = """
insert into resale.windows (lead_id, window_number, partition, kind, due_at_ms, next_send_at_ms)
select gen_random_uuid(), 1, n %% %(partitions)s, 'retry', due_at_ms, due_at_ms
from generate_series(0, %(windows)s - 1) as n,
    lateral (select %(from_ms)s + n::bigint * %(over_ms)s / %(windows)s as due_at_ms) as due
"""


class Sent(threading.Thread):
    """Reads `leads.timers`, and notes when each window came."""

    def __init__(self, site: Site) -> None:
        """Begin with `start`."""
        super().__init__(name="timers", daemon=True)
        self.at_ms: dict[str, float] = {}
        self.ending = threading.Event()
        self._error: Exception | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": site.kafka,
                "log_level": 2,
                "group.id": "bench-timers",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 5,
                "fetch.queue.backoff.ms": 1,
            }
        )
        topic = Topics(site.namespace).timers
        self._consumer.assign([TopicPartition(topic, at, OFFSET_BEGINNING) for at in range(PARTITIONS)])

    def run(self) -> None:
        """Read until the end."""
        try:
            while not self.ending.is_set():
                self._read()
        except Exception as error:  # noqa: BLE001  (raised again by `count`, in the thread that waits)
            self._error = error
        finally:
            self._consumer.close()

    def count(self) -> int:
        """Say how many windows came; raise what ended the reading."""
        if self._error is not None:
            raise self._error
        return len(self.at_ms)

    def _read(self) -> None:
        messages = self._consumer.consume(500, 0.002)
        now_ms = time.time() * 1_000
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            key = message.key()
            self.at_ms.setdefault(key.decode() if isinstance(key, bytes) else str(key), now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The windows that will fall due: when, by lead id."""

    alone_ms: dict[str, int]
    at_once_ms: dict[str, int]


def measure(stage: Stage) -> list[Run]:
    """Measure it."""
    with stage.site() as site:
        gavel = Gavel(site)
        try:
            gavel.prepare()
            return [_measured(site, gavel, stage)]
        finally:
            gavel.stop()


def _measured(site: Site, gavel: Gavel, stage: Stage) -> Run:
    amounts = stage.amounts
    empty_ms = _look_ms(site)
    filled_s = _fill(site, amounts.pending)
    look_ms = _look_ms(site)
    sent = Sent(site)
    sent.start()
    try:
        worker = gavel.add_worker("resale", 1)
        _await_assigned(gavel)
        due = _make_due(site, amounts)
        _await(sent, gavel, len(due.alone_ms) + len(due.at_once_ms))
        memory = {worker.name: peak_memory_mib(worker.pid)}
    finally:
        sent.ending.set()
        sent.join()
    if strangers := sent.at_ms.keys() - due.alone_ms.keys() - due.at_once_ms.keys():
        raise UnfinishedError(f"{len(strangers)} windows were sent that are not due")
    return Run(
        measurement=NAME,
        figures={
            "pending": amounts.pending,
            "look_ms_when_empty": empty_ms,
            "look_ms": look_ms,
            **_firing(due, sent),
        },
        peak_memory_mib=memory,
        notes={"filled_s": filled_s, "due_alone": len(due.alone_ms), "due_at_once": len(due.at_once_ms)},
    )


def _firing(due: Due, sent: Sent) -> dict[str, float]:
    late_ms = sorted(sent.at_ms[lead] - at_ms for lead, at_ms in due.alone_ms.items())
    if late_ms[0] < 0:
        raise UnfinishedError(f"a window was sent {-late_ms[0]:.0f} ms before it was due")
    last_ms = max(sent.at_ms[lead] for lead in due.at_once_ms)
    return {
        "late_p50_ms": percentile(late_ms, 50),
        "late_p99_ms": percentile(late_ms, 99),
        "fired_per_s": 1_000 * len(due.at_once_ms) / (last_ms - min(due.at_once_ms.values())),
    }


def _look_ms(site: Site) -> float:
    """Take the median time of a look at what is due in all partitions, when nothing is."""
    with connect(site.database, role="gavel_resale", application_name="bench") as connection:
        windows = PostgresWindows(lambda: connection)
        took_ms = []
        for _ in range(LOOKS):
            start_s = time.monotonic()
            windows.due(range(PARTITIONS), at_most=_SENT_AT_ONCE)
            took_ms.append(1_000 * (time.monotonic() - start_s))
    return median(took_ms)


def _fill(site: Site, pending: int) -> float:
    """Put windows into the table that fall due between one day and thirty from now; give the seconds."""
    start_s = time.monotonic()
    with psycopg.connect(site.database, autocommit=True) as connection:
        given = {"partitions": PARTITIONS, "windows": pending, "over_ms": 29 * _DAY_MS}
        connection.execute(_FILL, {**given, "from_ms": _now_ms() + _DAY_MS})
        connection.execute("vacuum (analyze) resale.windows")
    return time.monotonic() - start_s


def _make_due(site: Site, amounts: Amounts) -> Due:
    """Put windows into the table that fall due one by one, soon, and then many at once."""
    first_ms = _now_ms() + _AHEAD_MS
    alone_over_ms = amounts.due_alone * APART_MS
    at_once_ms = first_ms + alone_over_ms + _PAUSE_MS
    with psycopg.connect(site.database, autocommit=True) as connection:
        return Due(
            alone_ms=_insert(connection, amounts.due_alone, first_ms, alone_over_ms),
            at_once_ms=_insert(connection, amounts.due_at_once, at_once_ms, 0),
        )


def _insert(connection: psycopg.Connection[Any], windows: int, from_ms: int, over_ms: int) -> dict[str, int]:
    given = {"partitions": PARTITIONS, "windows": windows, "over_ms": over_ms, "from_ms": from_ms}
    rows: Sequence[tuple[str, int]] = connection.execute(
        _FILL + "returning lead_id::text, due_at_ms", given
    ).fetchall()
    return dict(rows)


def _await(sent: Sent, gavel: Gavel, windows: int) -> None:
    until_s = time.monotonic() + _FIRED_WITHIN_S
    while sent.count() < windows:
        for worker in gavel.workers:
            worker.check()
        if time.monotonic() > until_s:
            raise UnfinishedError(f"only {sent.count()} of {windows} due windows were sent in time")
        time.sleep(0.05)


def _await_assigned(gavel: Gavel) -> None:
    until_s = time.monotonic() + _STARTS_WITHIN_S
    while not gavel.is_shared("resale"):
        for worker in gavel.workers:
            worker.check()
        if time.monotonic() > until_s:
            raise UnfinishedError(f"the resale worker was assigned nothing within {_STARTS_WITHIN_S:.0f} s")
        time.sleep(0.05)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
