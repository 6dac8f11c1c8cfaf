"""The log as a rebuild reads it: from Kafka, from offset to offset, by a consumer without a group.

It must not decide which records are entries to be taken: `LogReader` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from services.bus.kafka import Connection, record_of
from services.bus.ports import BusFailed, Record, Stopped

BATCH_MAX = 2_000
SILENT_FOR_AT_MOST_S = 30.0
_ANSWER_S = 10.0
_POLL_S = 0.5


class KafkaLog:
    """The topic `leads.log`."""

    def __init__(
        self, connection: Connection, topic: str, *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Connect when `read` begins."""
        self._connection = connection
        self._topic = topic
        self._monotonic_s = monotonic_s

    def read(self, spans: Mapping[int, range]) -> Iterator[Sequence[Record]]:
        """Read these offsets of these partitions, batch by batch.

        Raise `Stopped` where the topic does not have them, `BusFailed` where Kafka does not answer.
        """
        if not spans:
            return
        consumer = Consumer(
            self._connection.librdkafka(
                client_id="gavel-billing-rebuild",
                group_id="none",  # required by the client; nothing is subscribed or committed
                enable_auto_commit=False,
                auto_offset_reset="error",
                queued_max_messages_kbytes=16_384,
            )
        )
        try:
            self._check(consumer, spans)
            consumer.assign([KafkaTopicPartition(self._topic, at, span.start) for at, span in spans.items()])
            yield from self._batches(consumer, dict(spans))
        except KafkaException as error:
            raise BusFailed(f"{self._topic}: {error}") from error
        finally:
            consumer.close()

    def _check(self, consumer: Consumer, spans: Mapping[int, range]) -> None:
        for at, span in spans.items():
            low, high = consumer.get_watermark_offsets(
                KafkaTopicPartition(self._topic, at), timeout=_ANSWER_S
            )
            if low > span.start or high < span.stop:
                raise Stopped(
                    f"{self._topic} partition {at} has the offsets {low} to {high - 1}, but the ledger was made of "
                    f"{span.start} to {span.stop - 1}: the topic was cut or created again"
                )

    def _batches(self, consumer: Consumer, spans: dict[int, range]) -> Iterator[Sequence[Record]]:
        heard_at_s = self._monotonic_s()
        while spans:
            messages = consumer.consume(BATCH_MAX, _POLL_S)
            records = []
            for message in messages:
                error = message.error()
                if error is not None:
                    raise BusFailed(f"{self._topic}: {error.str()}")
                record = record_of(message)
                span = spans.get(record.partition)
                if span is not None and record.offset < span.stop:
                    records.append(record)
                    if record.offset == span.stop - 1:
                        del spans[record.partition]
                        consumer.incremental_unassign([KafkaTopicPartition(self._topic, record.partition)])
            if records:
                heard_at_s = self._monotonic_s()
                yield records
            elif self._monotonic_s() - heard_at_s > SILENT_FOR_AT_MOST_S:
                raise BusFailed(f"{self._topic}: Kafka has sent nothing for {SILENT_FOR_AT_MOST_S:.0f} s")
