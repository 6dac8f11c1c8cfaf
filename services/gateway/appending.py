"""Appends records to the topics of sources and buyers for many requests at once, and tells each when its own are safe.

One producer for the process; a record counts once the broker has acknowledged it. What is not acknowledged in time may
still arrive: whoever sent it sends it again, and both are the same lead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from services.bus.kafka import Connection
from services.bus.ports import BusFailed, Message

ACKNOWLEDGED_WITHIN_S = 5.0
_POLL_S = 0.1
_ENDS_WITHIN_S = ACKNOWLEDGED_WITHIN_S + 1.0
_QUEUED_MAX = 20_000


@dataclass(slots=True)
class _Batch:
    """Messages of one request on their way; `errors` stays None at an index whose message was acknowledged."""

    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    left: int
    errors: list[str | None]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, index: int, error: KafkaError | None, _message: KafkaMessage | None = None) -> None:
        """Take note of one message; called by the producer's thread, or where it was not even queued."""
        if error is not None:
            self.errors[index] = error.name()
        with self.lock:
            self.left -= 1
            is_last = self.left == 0
        if is_last:
            self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Appender:
    """The producer, and the thread that hears its acknowledgements."""

    def __init__(
        self, connection: Connection, *, client_id: str, within_s: float = ACKNOWLEDGED_WITHIN_S
    ) -> None:
        """Connect in the background."""
        self._fatal: KafkaError | None = None
        self._ending = threading.Event()
        self._producer = Producer(
            connection.librdkafka(
                client_id=client_id,
                # Idempotent, so that the client's own retries repeat no bid.
                enable_idempotence=True,
                acks="all",
                message_timeout_ms=int(within_s * 1_000),
                topic_metadata_propagation_max_ms=0,
                linger_ms=2,
                queue_buffering_max_messages=_QUEUED_MAX,
                socket_nagle_disable=True,
                error_cb=self._on_error,
            )
        )
        self._thread = threading.Thread(target=self._poll, name="acknowledgements", daemon=True)
        self._thread.start()

    async def append(self, messages: Sequence[Message]) -> Sequence[str | None]:
        """Append all, and wait; give for each what went wrong, None where it is safe. Raise `BusFailed` for good."""
        if self._fatal is not None:
            raise BusFailed(f"Kafka's client has given up: {self._fatal.name()}")
        if not messages:
            return ()
        loop = asyncio.get_running_loop()
        batch = _Batch(
            loop=loop, done=loop.create_future(), left=len(messages), errors=[None] * len(messages)
        )
        for index, message in enumerate(messages):
            self._produce(batch, index, message)
        await batch.done
        return batch.errors

    def reachable(self, timeout_s: float) -> bool:
        """Ask the brokers for a sign of life; blocks for `timeout_s` at most."""
        try:
            return bool(self._producer.list_topics("", timeout=timeout_s).brokers)
        except KafkaException:
            return False

    def end(self) -> None:
        """Wait for what is under way, and stop listening."""
        self._producer.flush(_ENDS_WITHIN_S)
        self._ending.set()
        self._thread.join(_ENDS_WITHIN_S)

    def _produce(self, batch: _Batch, index: int, message: Message) -> None:
        try:
            self._producer.produce(
                message.topic, message.value, message.key, message.partition, partial(_noted, batch, index)
            )
        except BufferError:
            batch.note(index, KafkaError(KafkaError._QUEUE_FULL))
        except KafkaException as error:
            batch.note(index, error.args[0])

    def _poll(self) -> None:
        while not self._ending.is_set():
            self._producer.poll(_POLL_S)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error


def _noted(batch: _Batch, index: int, error: KafkaError | None, message: KafkaMessage) -> None:
    batch.note(index, error, message)
