"""The row-lock router as a `Pipeline`: some processes of `bench.row_lock_router`, each with some connections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg
from confluent_kafka import Message

from bench.pipeline import Site
from bench.processes import Worker, stop_all
from bench.row_lock_router.selling import ORDERS
from bench.row_lock_router.topics import PARTITIONS, delivered, submitted
from bench.servers import create_topics

NAME = "row-lock router"
CAP = 1_000_000
_SCHEMA = Path(__file__).parent / "row_lock_router" / "schema.sql"


class Shape(NamedTuple):
    """So many processes, each with so many connections."""

    processes: int
    connections: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.connections} connections"


SHAPES = (Shape(2, 4), Shape(2, 8), Shape(1, 4), Shape(1, 8))
"""4 to 16 connections; which of them is best on this machine is tried out."""


def _arguments(number: int, shape: Shape) -> list[str]:
    numbers = (shape.connections, number - 1, shape.processes)
    return ["-m", "bench.row_lock_router", *map(str, numbers)]


class RowLock:
    """The processes of one shape."""

    def __init__(self, site: Site, shape: Shape) -> None:
        """Connect to the site; nothing is started or made yet."""
        self._site = site
        self._shape = shape
        self._workers: list[Worker] = []
        self._connection: psycopg.Connection[tuple[int]] = psycopg.connect(site.database, autocommit=True)

    @property
    def submit_topic(self) -> str:
        """Where leads are sent."""
        return submitted(self._site.namespace)

    @property
    def delivery_topics(self) -> tuple[str, ...]:
        """Where each buyer reads."""
        return tuple(delivered(self._site.namespace).values())

    @property
    def workers(self) -> Sequence[Worker]:
        """The processes that run."""
        return self._workers

    def prepare(self) -> None:
        """Make topics and tables, and a cap for each order, as Gavel's market has one."""
        create_topics(self._site.kafka, [self.submit_topic, *self.delivery_topics], partitions=PARTITIONS)
        self._connection.execute(_SCHEMA.read_bytes())
        caps = [(order.id, CAP) for order in ORDERS]
        with self._connection.cursor() as cursor:
            cursor.executemany("insert into row_lock.caps (order_id, most) values (%s, %s)", caps)

    def start(self) -> None:
        """Start the processes."""
        site = self._site
        environment = {
            "GAVEL_KAFKA": site.kafka,
            "GAVEL_DATABASE": site.database,
            "GAVEL_NAMESPACE": site.namespace,
        }
        for number in range(1, self._shape.processes + 1):
            Worker.start_on(
                self._workers,
                f"router-{number}",
                _arguments(number, self._shape),
                environment=environment,
                log_file=site.folder / f"row-lock-{number}.log",
            )

    def stop(self) -> None:
        """Stop them."""
        stop_all(self._workers)
        self._connection.close()

    def is_delivery(self, _: Message, /) -> bool:
        """Buyers are sent nothing but leads."""
        return True

    def billed_sales(self) -> int:
        """Count the rows of sales: this control bills nothing, but each sale must have been committed once."""
        row = self._connection.execute("select count(*) from row_lock.sales").fetchone()
        return row[0] if row else 0
