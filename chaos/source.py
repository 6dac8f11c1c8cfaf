"""Sends leads at a steady rate, and less where too many are waiting already; knows which ones the brokers acknowledged.

It is the sources' side: it never gives a lead up while the brokers are away, as a source with a good client would not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from chaos.positions import Watch

_PATIENCE_MS = 600_000
_FLUSH_WITHIN_S = 120.0
_FLUSH_WHEN_BROKEN_OFF_S = 1.0
_PAUSE_S = 0.05
_SLOWER = 4
_QUEUE_MAX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is sent, where to, and the name under which its end is looked for."""

    topic: str
    partition: int
    name: str
    key: bytes | None
    value: bytes


@dataclass(slots=True, kw_only=True)
class Load:
    """The load: at least `leads` submissions, and on at a quarter of the rate until `may_end`."""

    kafka: str
    submission: Callable[[int], Submission]
    leads: int
    rate_per_s: float
    waiting_max: int
    watch: Watch
    may_end: threading.Event
    over: threading.Event
    sent: int = 0
    acknowledged: set[str] = field(default_factory=set)
    acknowledgements: int = 0
    refused: list[str] = field(default_factory=list)
    held_back_s: float = 0.0
    is_done: bool = False
    _at_reading: tuple[int, int] = (-1, 0)

    def run(self) -> None:
        """Send until there are enough and `may_end` is set, or `over`; return when all is acknowledged or refused."""
        producer = Producer(
            {
                "bootstrap.servers": self.kafka,
                "log_level": 0,
                "enable.idempotence": True,
                "message.timeout.ms": _PATIENCE_MS,
                "linger.ms": 5,
                "queue.buffering.max.messages": _QUEUE_MAX,
            }
        )
        due_s = time.monotonic()
        while not self.over.is_set() and (self.sent < self.leads or not self.may_end.is_set()):
            if self._must_wait():
                self.held_back_s += _PAUSE_S
                due_s = time.monotonic() + _PAUSE_S
            elif time.monotonic() >= due_s:
                self._send(producer)
                due_s += (1 if self.sent < self.leads else _SLOWER) / self.rate_per_s
                continue
            producer.poll(min(_PAUSE_S, max(0.0, due_s - time.monotonic())))
        within_s = _FLUSH_WITHIN_S if not self.over.is_set() else _FLUSH_WHEN_BROKEN_OFF_S
        left = producer.flush(within_s)
        if left:
            self.refused.append(f"{left} submissions were not acknowledged within {within_s:.0f} s")
        self.is_done = True

    def _must_wait(self) -> bool:
        """Estimate what is waiting: what the last reading saw, and all that was sent since."""
        watch = self.watch
        number, sent_then = self._at_reading
        if watch.latest is None:
            return self.sent >= self.waiting_max
        if watch.readings != number:
            self._at_reading = (watch.readings, self.sent)
            sent_then = self.sent
        return watch.latest.waiting + self.sent - sent_then >= self.waiting_max

    def _send(self, producer: Producer) -> None:
        submission = self.submission(self.sent)
        name = submission.name

        def note(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self.acknowledged.add(name)
                self.acknowledgements += 1
            else:
                self.refused.append(str(error))

        try:
            producer.produce(
                submission.topic, submission.value, submission.key, submission.partition, on_delivery=note
            )
        except (BufferError, KafkaException):
            producer.poll(_PAUSE_S)
            return
        self.sent += 1
        producer.poll(0)
