"""Reads records from Kafka again, for webhooks whose record is not in memory any more, as after a take-over.

What waits for one buyer mostly stands side by side, so a reading takes what follows with it, and the next ones are at
hand. It is asked from many threads and reads for one at a time.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from services.bus.kafka import Connection, record_of
from services.bus.ports import BusFailed, Record
from services.gateway.domain import Pointer

FETCHED_WITHIN_S = 5.0
READ_AT_ONCE = 100
AT_HAND_MAX = 2_000
_GONE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})


class KafkaFetcher:
    """One consumer, which one thread at a time uses."""

    def __init__(self, connection: Connection, *, client_id: str) -> None:
        """Take how to connect; it connects with the first record that is asked for."""
        self._properties = connection.librdkafka(
            client_id=client_id,
            group_id="none",  # required by the client; nothing is subscribed or committed
            enable_auto_commit=False,
            auto_offset_reset="error",
            # A request that waits for what is not there yet would hold up the next reading, of another place.
            fetch_wait_max_ms=5,
            fetch_queue_backoff_ms=1,
        )
        self._consumer: Consumer | None = None
        self._at_hand: OrderedDict[Pointer, Record] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, pointer: Pointer) -> Record | None:
        """Read one record; None where it is not in the topic any more. Raise `BusFailed` if Kafka does not answer."""
        with self._lock:
            if pointer not in self._at_hand:
                self._read_from(pointer)
            return self._at_hand.pop(pointer, None)

    def _read_from(self, pointer: Pointer) -> None:
        consumer = self._consumer = self._consumer or Consumer(self._properties)
        consumer.assign([TopicPartition(pointer.topic, pointer.partition, pointer.position)])
        try:
            self._keep(consumer, pointer)
        except KafkaException as error:
            raise BusFailed(f"{pointer.topic}: {error}") from error
        finally:
            consumer.unassign()

    def _keep(self, consumer: Consumer, pointer: Pointer) -> None:
        """Wait for the first record, and take what came with it."""
        ends_at_s = time.monotonic() + FETCHED_WITHIN_S
        while time.monotonic() < ends_at_s:
            first = consumer.poll(0.2)
            if first is None:
                continue
            error = first.error()
            if error is not None:
                if error.code() in _GONE:
                    return
                continue
            for message in (first, *consumer.consume(READ_AT_ONCE, 0.01)):
                if message.error() is None:
                    record = record_of(message)
                    self._at_hand[Pointer(record.topic, record.partition, record.offset)] = record
            while len(self._at_hand) > AT_HAND_MAX:
                self._at_hand.popitem(last=False)
            return
        raise BusFailed(f"{pointer.topic}: a record was not there within {FETCHED_WITHIN_S:.0f} s")
