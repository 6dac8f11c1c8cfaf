"""The limit: submissions are forwarded to the three buyers' topics as they are, in batches, and nothing is decided.

No pipeline through this broker, with this load and this observation, can be faster. `python -m bench.raw_forward` runs
its one worker; it knows nothing of what a record says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, Message, Producer

from bench.command_line import leave_on_sigterm, refuse_failed
from bench.pipeline import BUYERS, Site
from bench.processes import Worker, stop_all
from bench.servers import create_topics

NAME = "raw forward"
PARTITIONS = 12
_BATCH_MAX = 2_000
_WAIT_S = 0.05
_FLUSH_WITHIN_S = 30.0


class RawForward:
    """One worker that consumes and produces."""

    def __init__(self, site: Site) -> None:
        """Connect to the site; nothing is started or made yet."""
        self._site = site
        self._workers: list[Worker] = []

    @property
    def submit_topic(self) -> str:
        """Where leads are sent."""
        return submitted(self._site.namespace)

    @property
    def delivery_topics(self) -> tuple[str, ...]:
        """Where each buyer reads."""
        return delivered(self._site.namespace)

    @property
    def workers(self) -> Sequence[Worker]:
        """The process that runs."""
        return self._workers

    def prepare(self) -> None:
        """Make the topics."""
        create_topics(self._site.kafka, [self.submit_topic, *self.delivery_topics], partitions=PARTITIONS)

    def start(self) -> None:
        """Start the worker."""
        environment = {"GAVEL_KAFKA": self._site.kafka, "GAVEL_NAMESPACE": self._site.namespace}
        log_file = self._site.folder / "raw-forward.log"
        Worker.start_on(
            self._workers, "forward", ["-m", "bench.raw_forward"], environment=environment, log_file=log_file
        )

    def stop(self) -> None:
        """Stop it."""
        stop_all(self._workers)

    def is_delivery(self, _: Message, /) -> bool:
        """Buyers are sent nothing but leads."""
        return True

    def billed_sales(self) -> None:
        """Nothing is booked."""


def submitted(namespace: str) -> str:
    """Name the topic of submissions."""
    return f"{namespace}raw.submitted"


def delivered(namespace: str) -> tuple[str, ...]:
    """Name the topics of deliveries."""
    return tuple(f"{namespace}raw.delivered.{buyer}" for buyer in BUYERS)


def forward(kafka: str, namespace: str) -> None:
    """Forward until SystemExit; raise `KafkaException` for what the broker refuses."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "log_level": 3,
            "group.id": f"{namespace}raw-forward",
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 1_000,
            "fetch.wait.max.ms": 5,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "log_level": 3,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 500_000,
        }
    )
    consumer.subscribe([submitted(namespace)])
    try:
        while True:
            _forward_batch(consumer.consume(_BATCH_MAX, _WAIT_S), producer, delivered(namespace))
    finally:
        producer.flush(_FLUSH_WITHIN_S)
        consumer.close()


def _forward_batch(messages: Sequence[Message], producer: Producer, topics: Sequence[str]) -> None:
    for message in messages:
        if (error := message.error()) is not None:
            raise KafkaException(error)
        for topic in topics:
            _produce(producer, topic, message)
    producer.poll(0)


def _produce(producer: Producer, topic: str, message: Message) -> None:
    while True:
        try:
            producer.produce(topic, message.value(), message.key(), on_delivery=refuse_failed)
        except BufferError:
            producer.poll(0.1)
        else:
            return


if __name__ == "__main__":
    leave_on_sigterm()
    forward(os.environ["GAVEL_KAFKA"], os.environ["GAVEL_NAMESPACE"])
