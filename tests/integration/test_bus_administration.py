"""Topics on real Kafka are what `schemas/topics` declares, and stay so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from kafka.admin import KafkaAdminClient

from deploy.local.stack import Stack
from services.bus.administration import announce, create_topics, wanted_topics
from services.bus.kafka import Connection, last_record
from services.bus.ports import BusFailed, PassingFault
from services.bus.ports import TopicPartition as TopicAt
from services.contract.announcements import MarketApplied
from services.contract.codec import codec
from services.contract.market import Buyer, Market, Source
from services.contract.topics import Topics
from tests.support.hosting import Cluster


def market(*sources: str) -> Market:
    return Market(
        version=1,
        currency="USD",
        timezone="UTC",
        sources={id: Source(id=id, lead_types=()) for id in sources},
        buyers={"acme": Buyer(id="acme", timezone="UTC")},
    )


@pytest.fixture
def cluster(stack: Stack, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(stack.kafka, tmp_path)
    yield cluster
    cluster.topics += [
        topic.name for topic in wanted_topics(Topics(cluster.namespace), market("one", "two"), brokers=1)
    ]
    admin = KafkaAdminClient(bootstrap_servers=cluster.kafka)
    admin.delete_topics(cluster.topics, raise_errors=False)
    admin.close()


@pytest.fixture
def topics(cluster: Cluster) -> Topics:
    return Topics(cluster.namespace)


def test_creates_each_topic_once_as_declared(cluster: Cluster, topics: Topics) -> None:
    first = create_topics(cluster.connection, topics, market("one"))
    brokers = KafkaAdminClient(bootstrap_servers=cluster.kafka)
    wanted = wanted_topics(topics, market("one"), brokers=len(brokers.describe_cluster()["brokers"]))
    brokers.close()
    assert first.created == tuple(topic.name for topic in wanted)
    again = create_topics(cluster.connection, topics, market("one"))
    assert (again.created, again.present, again.differences) == ((), len(wanted), ())


def test_a_new_source_brings_its_topics_and_touches_no_other(cluster: Cluster, topics: Topics) -> None:
    create_topics(cluster.connection, topics, market("one"))
    assert create_topics(cluster.connection, topics, market("one", "two")).created == (
        topics.source_leads("two"),
        topics.dead_letters(topics.source_leads("two")),
        topics.source_receipts("two"),
    )


def test_a_topic_that_differs_is_told_and_left_as_it_is(cluster: Cluster, topics: Topics) -> None:
    cluster.create("registry", 1, retention_ms="1000", min_insync_replicas="1")
    for _ in range(2):
        found = create_topics(cluster.connection, topics)
        assert [(each.topic, each.setting, each.found) for each in found.differences] == [
            (topics.registry, "retention.ms", "1000")
        ]


def test_another_number_of_partitions_is_refused_and_nothing_altered(
    cluster: Cluster, topics: Topics
) -> None:
    cluster.create("leads.log", 3)
    with pytest.raises(BusFailed, match=r"leads\.log has 3 partitions, and 12 are declared"):
        create_topics(cluster.connection, topics)
    assert last_record(cluster.connection, TopicAt(topics.log, 2)) is None
    with pytest.raises(PassingFault, match="_UNKNOWN_PARTITION"):
        last_record(cluster.connection, TopicAt(topics.log, 3))


def test_an_announcement_stands_on_the_registry(cluster: Cluster, topics: Topics) -> None:
    create_topics(cluster.connection, topics)
    announce(cluster.connection, topics, version=7, at_ms=1_790_000_000_000)
    consumer = Consumer({"bootstrap.servers": cluster.kafka, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topics.registry, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert codec().decode(message.value()) == MarketApplied(version=7, applied_at_ms=1_790_000_000_000)


def test_a_cluster_that_does_not_answer_is_named() -> None:
    began_s = time.monotonic()
    with pytest.raises(BusFailed, match=r"127\.0\.0\.1:1 does not answer: .*Connection refused"):
        create_topics(Connection(bootstrap="127.0.0.1:1"), Topics())
    assert time.monotonic() - began_s < 30
