"""Runs one process of the control: `python -m bench.row_lock_router CONNECTIONS NUMBER OF_PROCESSES`.

It takes each partition whose number, divided by that of processes, leaves its own.
Each of its threads has a connection, and takes one lead at a time: one transaction with row locks on the caps, and the
deliveries after its commit. Offsets are committed when all deliveries before them are acknowledged, so that a crash
repeats leads, and their sales are found rather than made again.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from bench.command_line import leave_on_sigterm, refuse_failed
from bench.row_lock_router.selling import ORDERS, Lead, Sale, decide, delivery, outcome_of, read_lead
from bench.row_lock_router.topics import PARTITIONS, delivered, submitted

_BATCH_MAX = 500
_WAIT_S = 0.02
_FLUSH_WITHIN_S = 30.0
_ORDER_IDS = [order.id for order in ORDERS]
_ORDERS = {order.buyer_id: order for order in ORDERS}

_LOCK = (
    "select order_id, most - used from row_lock.caps where order_id = any(%s) order by order_id for update"
)
_SOLD = (
    "select sale_number, sale_id::text, buyer_id, price_cents from row_lock.sales where lead_id = %s "
    "order by sale_number for update"
)
# One statement, so that the locks on the caps are held for one round trip and the commit only.
_WRITE = """
with listed as (
    insert into row_lock.leads (lead_id, outcome, closed_at) values (%(lead_id)s, %(outcome)s, now())
), drawn as (
    update row_lock.caps set used = used + 1 where order_id = any(%(orders)s)
)
insert into row_lock.sales (lead_id, sale_number, sale_id, buyer_id, price_cents, sold_at)
select %(lead_id)s, sale_number, sale_id, buyer_id, price_cents, now()
from unnest(%(numbers)s::smallint[], %(sale_ids)s::uuid[], %(buyers)s::text[], %(cents)s::bigint[])
    as sold (sale_number, sale_id, buyer_id, price_cents)
"""


@dataclass(slots=True)
class Seller:
    """Sells leads, on a connection of each thread's own."""

    database: str
    _own: threading.local = field(default_factory=threading.local)

    def sell(self, value: bytes) -> tuple[Lead, list[Sale]]:
        """Decide and commit; give the sales that the lead has then, also those of an earlier attempt."""
        lead, connection = read_lead(value), self._connection()
        try:
            with connection.transaction():
                room = dict(connection.execute(_LOCK, [_ORDER_IDS]).fetchall())
                sales = decide(lead, room)
                connection.execute(_WRITE, _rows(lead, sales))
        except psycopg.errors.UniqueViolation:
            return lead, self._sold(connection, lead)
        return lead, sales

    def _sold(self, connection: psycopg.Connection[Any], lead: Lead) -> list[Sale]:
        rows = connection.execute(_SOLD, [lead.lead_id])
        return [
            Sale(sale_number=number, sale_id=sale_id, order=_ORDERS[buyer], price_cents=cents)
            for number, sale_id, buyer, cents in rows
        ]

    def _connection(self) -> psycopg.Connection[Any]:
        if not hasattr(self._own, "connection"):
            self._own.connection = psycopg.connect(self.database, autocommit=True)
        connection: psycopg.Connection[Any] = self._own.connection
        return connection


def _rows(lead: Lead, sales: Sequence[Sale]) -> dict[str, Any]:
    return {
        "lead_id": lead.lead_id,
        "outcome": outcome_of(sales),
        "orders": [sale.order.id for sale in sales],
        "numbers": [sale.sale_number for sale in sales],
        "sale_ids": [sale.sale_id for sale in sales],
        "buyers": [sale.order.buyer_id for sale in sales],
        "cents": [sale.price_cents for sale in sales],
    }


def run(kafka: str, database: str, namespace: str, *, connections: int, number: int, processes: int) -> None:
    """Take leads until SystemExit; raise what the broker or the database refuses."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "log_level": 3,
            "group.id": f"{namespace}row-lock-router",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
        }
    )
    producer = Producer(
        {"bootstrap.servers": kafka, "log_level": 3, "enable.idempotence": True, "linger.ms": 2}
    )
    topic = submitted(namespace)
    # By hand, as a group would stand still for seconds when its second process comes.
    consumer.assign([TopicPartition(topic, at) for at in range(number, PARTITIONS, processes)])
    with ThreadPoolExecutor(connections) as threads:
        router = Router(
            seller=Seller(database), producer=producer, topics=delivered(namespace), threads=threads
        )
        try:
            while True:
                messages = consumer.consume(_BATCH_MAX, _WAIT_S)
                if messages:
                    router.take(messages)
                    consumer.commit(asynchronous=True)
        finally:
            consumer.close()


@dataclass(slots=True, kw_only=True)
class Router:
    """Takes batches, a lead at a time in each thread."""

    seller: Seller
    producer: Producer
    topics: dict[str, str]
    threads: ThreadPoolExecutor

    def take(self, messages: Sequence[Message]) -> None:
        """Sell and deliver all of them, and return when all deliveries are acknowledged."""
        list(self.threads.map(self._take_one, messages))
        if left := self.producer.flush(_FLUSH_WITHIN_S):
            raise TimeoutError(f"{left} deliveries were not acknowledged in time")

    def _take_one(self, message: Message) -> None:
        if (error := message.error()) is not None:
            raise KafkaException(error)
        value = message.value()
        assert value is not None
        lead, sales = self.seller.sell(value)
        for sale in sales:
            self.producer.produce(
                self.topics[sale.order.buyer_id],
                delivery(lead, sale),
                lead.lead_id,
                on_delivery=refuse_failed,
            )
        self.producer.poll(0)


if __name__ == "__main__":
    leave_on_sigterm()
    run(
        os.environ["GAVEL_KAFKA"],
        os.environ["GAVEL_DATABASE"],
        os.environ["GAVEL_NAMESPACE"],
        connections=int(sys.argv[1]),
        number=int(sys.argv[2]),
        processes=int(sys.argv[3]),
    )
