"""Sends leads: all at once, or each at its scheduled time whatever becomes of the others (an open loop)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, Message, Producer

from bench.leads import Submission

_FLUSH_WITHIN_S = 60.0
_MAX_UNSENT = 100_000


class LoadError(Exception):
    """Leads could not be sent, so that nothing measured counts."""


class Load:
    """A source's producer."""

    def __init__(self, kafka: str, topic: str) -> None:
        """Connect to a topic of submissions."""
        self._topic = topic
        self._failed: list[str] = []
        self.late_s = 0.0
        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "log_level": 2,
                "enable.idempotence": True,
                "queue.buffering.max.messages": _MAX_UNSENT,
            }
        )

    def burst(self, submissions: Sequence[Submission]) -> None:
        """Send all, as fast as they go."""
        for submission in submissions:
            self._send(submission)
        self._flush()

    def open_loop(self, submissions: Sequence[Submission], rate_per_s: float) -> list[float]:
        """Send at a fixed rate; return when each was to be sent, in seconds of the monotonic clock.

        `late_s` tells afterwards how far the sending itself fell behind at most.
        """
        self.late_s = 0.0
        start_s = time.monotonic() + 0.1
        scheduled_s = [start_s + number / rate_per_s for number in range(len(submissions))]
        for submission, at_s in zip(submissions, scheduled_s, strict=True):
            self.late_s = max(self.late_s, self._await(at_s))
            self._send(submission)
        self._flush()
        return scheduled_s

    def _await(self, at_s: float) -> float:
        """Wait until then, and tell how long ago that was when we woke up."""
        while (left_s := at_s - time.monotonic()) > 0:
            time.sleep(left_s)
        return -left_s

    def _send(self, submission: Submission) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic, submission.value, submission.reference.encode(), on_delivery=self._note
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _flush(self) -> None:
        unsent = self._producer.flush(_FLUSH_WITHIN_S)
        if unsent or self._failed:
            raise LoadError(
                f"{unsent} leads were not sent in time, {len(self._failed)} failed: {self._failed[:1]}"
            )

    def _note(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(str(error))
