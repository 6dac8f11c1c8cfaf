"""Watches the buyers' topics from outside, and notes when each lead had reached the last of its buyers.

It sees keys and headers only, and knows nothing of how a pipeline works.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

_POLL_S = 0.002
_POLL_RECORDS = 500
_JOIN_WITHIN_S = 10.0


class Deliveries:
    """What has been delivered so far, read by a thread of its own."""

    def __init__(
        self,
        kafka: str,
        topics: Sequence[str],
        *,
        is_delivery: Callable[[Message], bool],
        buyers_per_lead: int | None = None,
    ) -> None:
        """Watch one topic a buyer, from its beginning; a lead is complete with `buyers_per_lead` of them, or all."""
        self._bits = {topic: 1 << at for at, topic in enumerate(topics)}
        self._complete = buyers_per_lead or len(topics)
        self._is_delivery = is_delivery
        self._found: dict[bytes, int] = {}
        self._completed_at_s: dict[bytes, float] = {}
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self.repeats = 0
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka,
                "log_level": 2,
                "group.id": "bench-observation",
                "enable.auto.commit": False,
                # A new topic may not have its first offset for an instant: then from the beginning, never the end.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                "fetch.queue.backoff.ms": 1,
            }
        )
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in topics
                for partition in self._partitions(topic)
            ]
        )
        self._thread = threading.Thread(target=self._watch, name="observation", daemon=True)

    def __enter__(self) -> Deliveries:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._stopping.set()
        self._thread.join(_JOIN_WITHIN_S)
        self._consumer.close()

    @property
    def completed(self) -> int:
        """How many leads have reached all their buyers. Raises what ended the watching."""
        if self._error is not None:
            raise self._error
        return len(self._completed_at_s)

    @property
    def delivered(self) -> int:
        """How many deliveries there were, without repeats."""
        return sum(found.bit_count() for found in list(self._found.values()))

    def completed_at_s(self, lead_id: str) -> float | None:
        """Tell when the lead had reached all its buyers, in seconds of the monotonic clock."""
        return self._completed_at_s.get(lead_id.encode())

    def _partitions(self, topic: str) -> list[int]:
        return list(self._consumer.list_topics(topic, timeout=10.0).topics[topic].partitions)

    def _watch(self) -> None:
        try:
            while not self._stopping.is_set():
                messages = self._consumer.consume(_POLL_RECORDS, _POLL_S)
                if messages:
                    self._note(messages, time.monotonic())
        except BaseException as error:  # noqa: BLE001  (handed to the thread that asks for `completed`)
            self._error = error

    def _note(self, messages: Sequence[Message], now_s: float) -> None:
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            if self._is_delivery(message):
                self._note_delivery(message, now_s)

    def _note_delivery(self, message: Message, now_s: float) -> None:
        topic, lead_id = message.topic(), message.key()
        assert topic is not None
        assert isinstance(lead_id, bytes)
        before = self._found.get(lead_id, 0)
        after = before | self._bits[topic]
        if after == before:
            self.repeats += 1
        elif after.bit_count() == self._complete:
            self._completed_at_s[lead_id] = now_s
        self._found[lead_id] = after
