"""A source's side: leads out, with back-pressure, and receipts in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from gavel_client.consuming import consumer_of

IN_FLIGHT_MAX = 1_000
DELIVERY_TIMEOUT_MS = 120_000
LEAD_BYTES_MAX = 64 * 1024
"""What Gavel reads at most. One record over the broker's own limit would end kafka-python's idempotent producer."""

_POLL_MS = 200


class NotSent(Exception):
    """Kafka did not take these leads: send them again, which is safe with the same `reference`."""

    def __init__(self, leads: list[Mapping[str, Any]], error: Exception) -> None:
        """Keep the leads, and the first of the errors."""
        self.leads = leads
        self.error = error
        super().__init__(f"{len(leads)} leads were not taken; the first because of {error!r}")


class LeadSource:
    """Streams leads to `sources.<id>.leads`; for one thread."""

    def __init__(
        self,
        source_id: str,
        *,
        servers: str,
        namespace: str = "",
        in_flight_max: int = IN_FLIGHT_MAX,
        **kafka: Any,
    ) -> None:
        """Connect. `in_flight_max`: so many leads may be unacknowledged before `send` waits."""
        self._topics = f"{namespace}sources.{source_id}"
        self._servers = servers
        self._kafka = kafka
        self._room = threading.Semaphore(in_flight_max)
        self._lock = threading.Lock()
        self._failed: list[tuple[Mapping[str, Any], Exception]] = []
        self._producer = KafkaProducer(
            bootstrap_servers=servers,
            acks="all",
            linger_ms=5,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            **kafka,
        )

    def send(self, lead: Mapping[str, Any]) -> None:
        """Send one lead; wait while too many are on their way.

        Raise `NotSent` for those sent before that failed, or for this one if it is too large.
        """
        self._raise_failed()
        value = json.dumps(lead, separators=(",", ":")).encode()
        if len(value) > LEAD_BYTES_MAX:
            raise NotSent([lead], ValueError(f"{len(value)} bytes where {LEAD_BYTES_MAX} are the most"))
        self._room.acquire()
        try:
            future = self._producer.send(f"{self._topics}.leads", value=value)
        except BaseException as error:
            self._room.release()
            if isinstance(error, KafkaError):
                raise NotSent([lead], error) from error
            raise
        future.add_callback(self._acknowledged)
        future.add_errback(self._refused, lead)

    def flush(self) -> None:
        """Wait until Kafka has taken all; raise `NotSent` with those that it did not."""
        self._producer.flush()
        self._raise_failed()

    def receipts(self, *, quiet_s: float | None = None, group: str | None = None) -> Iterator[dict[str, Any]]:
        """Read receipts from where the group left off, at first from the beginning; end after `quiet_s` without any.

        The group must have given this reader its topic for them to count. A receipt may come twice; its position moves
        when the next one is asked for.
        """
        consumer = consumer_of(
            f"{self._topics}.receipts",
            bootstrap_servers=self._servers,
            group_id=group or f"{self._topics}.receipts.reader",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **self._kafka,
        )
        try:
            last_s = time.monotonic()
            while quiet_s is None or time.monotonic() - last_s < quiet_s:
                found = consumer.poll(timeout_ms=_POLL_MS)
                for records in found.values():
                    for record in records:
                        yield json.loads(record.value)
                    consumer.commit()
                if found or not consumer.assignment():
                    last_s = time.monotonic()
        finally:
            consumer.close()

    def close(self) -> None:
        """Send what is on its way, and disconnect."""
        self._producer.close()

    def __enter__(self) -> LeadSource:
        """Be used in a `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect; nothing that was sent is lost in silence."""
        self.close()
        if kind is None:
            self._raise_failed()

    def _acknowledged(self, _: Any) -> None:
        self._room.release()

    def _refused(self, lead: Mapping[str, Any], error: Exception) -> None:
        with self._lock:
            self._failed.append((lead, error))
        self._room.release()

    def _raise_failed(self) -> None:
        with self._lock:
            failed, self._failed = self._failed, []
        if failed:
            raise NotSent([lead for lead, _ in failed], failed[0][1])
