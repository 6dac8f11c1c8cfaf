"""Tries what a user may do at a real broker: one request for all topics, and one for each group.

Kafka answers for each topic of a request by itself, so a row of the matrix costs some milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.protocol.consumer import FetchRequest, HeartbeatRequest
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import ProduceRequest
from kafka.record import MemoryRecordsBuilder

from services.bus.kafka import Connection

DENIED = frozenset({29, 30, 31})  # a topic, a group, the cluster
_UNKNOWN_TOPIC = 3
_BY_NAME = 12  # the last version of fetching and producing that names topics; later ones have ids
_ANSWER_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What a user got at, of all that it tried."""

    described: frozenset[str]
    read: frozenset[str]
    written: frozenset[str]
    groups: frozenset[str]
    created: frozenset[str]


@contextmanager
def asking(connection: Connection, *, within_ms: int = _ANSWER_MS) -> Iterator[KafkaAdminClient]:
    """Connect; raise what kafka-python does where the broker does not let one in."""
    client = KafkaAdminClient(**connection.kafka_python(), bootstrap_timeout_ms=within_ms)
    try:
        yield client
    finally:
        client.close()


def reached(
    connection: Connection, *, topics: Sequence[str], groups: Sequence[str], new: Sequence[str]
) -> Reached:
    """Describe, read and write each topic, be in each group, create each new topic."""
    with asking(connection) as client:
        return Reached(
            described=frozenset(described(client, topics)),
            read=frozenset(readable(client, topics)),
            written=frozenset(writable(client, topics)),
            groups=frozenset(group for group in groups if _may_be_in(client, group)),
            created=frozenset(_created(client, new)),
        )


def described(client: KafkaAdminClient, topics: Sequence[str]) -> list[str]:
    """Ask for each topic's partitions."""
    asked = MetadataRequest(topics=[_named(name) for name in topics], allow_auto_topic_creation=True)
    return _let((topic.name, topic.error_code) for topic in _send(client, asked).topics)


def readable(client: KafkaAdminClient, topics: Sequence[str]) -> list[str]:
    """Fetch from each topic."""
    asked = FetchRequest(
        replica_id=-1,
        max_wait_ms=0,
        min_bytes=0,
        max_bytes=1_000_000,
        isolation_level=0,
        session_id=0,
        session_epoch=-1,
        topics=[
            FetchRequest.FetchTopic(
                topic=name,
                partitions=[
                    FetchRequest.FetchTopic.FetchPartition(
                        partition=0, fetch_offset=0, partition_max_bytes=1_000
                    )
                ],
            )
            for name in topics
        ],
        max_version=_BY_NAME,
    )
    answer = _send(client, asked)
    return _let((row.topic, row.partitions[0].error_code) for row in answer.responses)


def writable(client: KafkaAdminClient, topics: Sequence[str], value: bytes = b"{}") -> list[str]:
    """Produce a record to each topic."""
    return _let(
        (row.name, row.partition_responses[0].error_code) for row in produced(client, topics, value).responses
    )


def produced(client: KafkaAdminClient, topics: Sequence[str], value: bytes) -> Any:
    """Produce a record to each topic, and give the broker's answer."""
    return _send(
        client,
        ProduceRequest(
            transactional_id=None,
            acks=-1,
            timeout_ms=_ANSWER_MS,
            topic_data=[
                ProduceRequest.TopicProduceData(
                    name=name,
                    partition_data=[
                        ProduceRequest.TopicProduceData.PartitionProduceData(index=0, records=_records(value))
                    ],
                )
                for name in topics
            ],
            max_version=_BY_NAME,
        ),
    )


def _named(name: str) -> Any:
    return MetadataRequest.MetadataRequestTopic(name=name)


def _may_be_in(client: KafkaAdminClient, group: str) -> bool:
    """Speak as a member of a group, which Kafka doesn't know, once it has found that one may."""
    asked = HeartbeatRequest(group_id=group, generation_id=1, member_id="nobody", group_instance_id=None)
    return _send(client, asked).error_code not in DENIED


def _created(client: KafkaAdminClient, names: Sequence[str]) -> list[str]:
    asked = {name: {"num_partitions": 1, "replication_factor": 1} for name in names}
    answer = client.create_topics(asked, validate_only=True, raise_errors=False)
    return _let((row["name"], row["error_code"]) for row in answer["topics"])


def _let(rows: Any) -> list[str]:
    """Keep what was not refused; to be told that a topic is unknown says nothing of it to who may not see it."""
    found = list(rows)
    strange = [row for row in found if row[1] and row[1] not in DENIED and row[1] != _UNKNOWN_TOPIC]
    assert not strange, f"neither allowed nor denied: {strange}"
    return [name for name, code in found if not code]


def _records(value: bytes) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=len(value) + 1_000)
    builder.append(timestamp=None, key=None, value=value)
    builder.close()
    return bytes(builder.buffer())


def _send(client: KafkaAdminClient, request: Any) -> Any:
    manager = client._manager
    return manager.run(manager.send, request)
