"""Reads the topics as they stand, from offset to offset, by a consumer of no group.

It must not know what a record means. Every span has an end, which was there when the span was made, so a reading ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import OFFSET_END, Consumer, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from services.bus.kafka import Connection, record_of
from services.bus.ports import BusFailed, Record, TopicPartition

BATCH_MAX: Final = 10_000
SILENT_FOR_AT_MOST_S: Final = 30.0
ANSWER_S: Final = 10.0
_POLL_S: Final = 0.1


class Extent(NamedTuple):
    """What a partition has: the first offset that is there still, and the one that comes next."""

    low: int
    high: int


class Reading:
    """The topics of one cluster. Not to be used by two threads."""

    def __init__(self, connection: Connection, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Connect in the background; the first question finds out whether Kafka answers."""
        self._monotonic_s = monotonic_s
        self._connection = connection
        self._admin = AdminClient(connection.librdkafka(client_id="gavel-audit"))
        self._consumer = Consumer(
            connection.librdkafka(
                client_id="gavel-audit",
                group_id="none",  # required by the client; nothing is subscribed or committed
                enable_auto_commit=False,
                enable_partition_eof=True,
                auto_offset_reset="error",
                isolation_level="read_committed",
                fetch_wait_max_ms=20,
                queued_max_messages_kbytes=65_536,
            )
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def topics(self) -> Mapping[str, int]:
        """List the topics there are, with their partition counts; raise `BusFailed` where Kafka does not answer."""
        try:
            found = self._admin.list_topics(timeout=ANSWER_S).topics
        except KafkaException as error:
            raise BusFailed(f"the list of topics: {error}") from error
        return {name: len(topic.partitions) for name, topic in found.items() if topic.error is None}

    def extents(self, wheres: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """Look up what each partition has now; raise `BusFailed`."""
        lows = self._offsets(wheres, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # the client's own gap
        highs = self._offsets(wheres, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {where: Extent(lows[where], highs[where]) for where in wheres}

    def starts_after(
        self, wheres: Collection[TopicPartition], at_ms: int
    ) -> Mapping[TopicPartition, int | None]:
        """Find the first offset whose record is later than `at_ms`; None where none is. Raise `BusFailed`."""
        if not wheres:
            return {}
        asked = [KafkaTopicPartition(where.topic, where.partition, at_ms + 1) for where in wheres]
        try:
            answers = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
        except KafkaException as error:
            raise BusFailed(f"offsets by time: {error}") from error
        found: dict[TopicPartition, int | None] = {}
        for answer in answers:
            if answer.error is not None:
                raise BusFailed(f"{answer.topic} partition {answer.partition}: {answer.error}")
            is_none = answer.offset in (OFFSET_END, -1)
            found[TopicPartition(answer.topic, answer.partition)] = None if is_none else answer.offset
        return found

    def committed(self, group: str, wheres: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Look up how far a group is; -1001 where it has never been. Raise `BusFailed`."""
        if not wheres:
            return {}
        consumer = Consumer(
            self._connection.librdkafka(client_id="gavel-audit", group_id=group, enable_auto_commit=False)
        )
        try:
            found = consumer.committed([KafkaTopicPartition(*where) for where in wheres], timeout=ANSWER_S)
        except KafkaException as error:
            raise BusFailed(f"the positions of {group}: {error}") from error
        finally:
            consumer.close()
        return {TopicPartition(at.topic, at.partition): at.offset for at in found}

    def read(self, spans: Mapping[TopicPartition, range]) -> Iterator[Sequence[Record]]:
        """Read these offsets, in batches, in order within each partition.

        Raise `Cut` where offsets of a span are not there any more, `BusFailed` where Kafka does not answer.
        """
        left = {where: span for where, span in spans.items() if span}
        if not left:
            return
        try:
            self._consumer.assign(
                [
                    KafkaTopicPartition(where.topic, where.partition, span.start)
                    for where, span in left.items()
                ]
            )
            yield from self._batches(left)
        except KafkaException as error:
            raise BusFailed(f"reading: {error}") from error
        finally:
            self._consumer.unassign()

    def _batches(self, left: dict[TopicPartition, range]) -> Iterator[Sequence[Record]]:
        heard_at_s = self._monotonic_s()
        while left:
            records: list[Record] = []
            done: list[TopicPartition] = []
            for message in self._consumer.consume(BATCH_MAX, _POLL_S):
                error = message.error()
                where = TopicPartition(message.topic() or "", message.partition() or 0)
                span = left.get(where)
                if error is not None:
                    heard_at_s = self._monotonic_s()
                    if span is not None and _is_end(error, where):
                        done.append(where)
                    continue
                if span is None:
                    continue
                record = record_of(message)
                if record.offset < span.stop:
                    records.append(record)
                if record.offset >= span.stop - 1:
                    done.append(where)
                    del left[where]
            self._stop(done, left)
            if records:
                heard_at_s = self._monotonic_s()
                yield records
            elif self._monotonic_s() - heard_at_s > SILENT_FOR_AT_MOST_S:
                raise BusFailed(f"Kafka has sent nothing for {SILENT_FOR_AT_MOST_S:.0f} s")

    def _stop(self, done: Iterable[TopicPartition], left: dict[TopicPartition, range]) -> None:
        """Read these no further. At a partition's end there may be offsets that hold no record."""
        ended = [KafkaTopicPartition(*where) for where in dict.fromkeys(done)]
        if ended:
            self._consumer.incremental_unassign(ended)
        for where in done:
            left.pop(where, None)

    def _offsets(self, wheres: Collection[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        if not wheres:
            return {}
        asked = {KafkaTopicPartition(*where): spec for where in wheres}
        futures = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_S
        )
        try:
            return {
                TopicPartition(where.topic, where.partition): future.result().offset
                for where, future in futures.items()
            }
        except KafkaException as error:
            raise BusFailed(f"offsets: {error}") from error


class Cut(Exception):
    """Records that were to be read are not there: the topic was cut, or its records were kept long enough."""

    def __init__(self, where: TopicPartition) -> None:
        super().__init__(f"{where.topic} partition {where.partition} has lost records while it was read")
        self.where = where


def _is_end(error: KafkaError, where: TopicPartition) -> bool:
    """Tell the end of a partition from what went wrong."""
    if error.code() == KafkaError._PARTITION_EOF:
        return True
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise Cut(where)
    raise BusFailed(f"{where.topic} partition {where.partition}: {error.str()}")
