"""Looks at the Kafka of a deployment: its brokers, topics, access, groups, the end of the log. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from kafka.admin import KafkaAdminClient

from services.bus import ports
from services.bus.administration import WantedTopic, administrator, broker_setting, compare_topics
from services.bus.kafka import Connection, last_record, topic_id
from services.bus.ports import BusFailed, PassingFault
from services.bus.settings import StepSettings
from services.cli.doctor_checks import (
    Check,
    Clock,
    Group,
    LogTail,
    access_check,
    brokers_check,
    clock_check,
    disk_check,
    group_check,
    log_check,
    replicas_check,
    topics_check,
)
from services.cli.doctor_database import heads_of, now_ms, value_in_table
from services.cli.insiders import administration, insiders_lack
from services.contract.codec import codec
from services.contract.entries import hash_of
from services.contract.market import Market
from services.contract.topics import Topics

AT_WORK = ("intake", "router", "resale", "billing", "feed")
"""The steps that every deployment runs; without a gateway, all but HTTP works."""

P = ParamSpec("P")

ANSWER_S = 10.0
_NOT_ALLOWED = (
    "Does it answer, and may this user look at it? GAVEL_KAFKA and GAVEL_KAFKA_CONFIG say where and who."
)


def look_at_kafka(found: StepSettings, market: Market | None, *, with_log: bool) -> Iterator[Check]:
    """Look at everything; what can't be looked at is a problem of its own."""
    connection = administration(found)
    try:
        with administrator(connection):
            pass
    except BusFailed as error:
        yield Check(name="Kafka", ok=False, found=str(error), advice=_NOT_ALLOWED)
        return
    yield from _tried("brokers", _cluster, connection)
    yield from _tried("topics", _topics, connection, found.topics, market)
    yield from _tried("access", _access, found, market)
    for step in AT_WORK:
        yield from _tried(f"step {step}", _group, connection, found.topics, step)
    if with_log:
        yield from _tried("log", _log, found)


def _tried(
    name: str, look: Callable[P, Iterable[Check]], *args: P.args, **named: P.kwargs
) -> Sequence[Check]:
    try:
        return tuple(look(*args, **named))
    except (BusFailed, PassingFault, KafkaException) as error:
        return (Check(name=name, ok=False, found=str(error), advice=_NOT_ALLOWED),)


def _cluster(connection: Connection) -> Iterator[Check]:
    with administrator(connection) as admin:
        brokers = len(admin.describe_cluster()["brokers"])
        yield brokers_check(brokers, broker_setting(admin, "auto.create.topics.enable"))
        yield clock_check("Kafka's controller", _controllers_clock(admin))
        for answer in admin.describe_log_dirs(topic_partitions={}):
            for disk in answer["log_dirs"]:
                yield disk_check(f"broker {answer['broker']}", disk["total_bytes"], disk["usable_bytes"])


def _controllers_clock(admin: KafkaAdminClient) -> Clock:
    """Read it where the quorum's leader says of itself, by its own clock, that it is up to date (KIP-836)."""
    asked_ms = now_ms()
    (quorum,) = admin.describe_metadata_quorum()["topics"][0]["partitions"]
    answered_ms = now_ms()
    (said_ms,) = (
        voter["last_caught_up_timestamp"]
        for voter in quorum["current_voters"]
        if voter["replica_id"] == quorum["leader_id"]
    )
    return Clock(asked_ms, said_ms, answered_ms)


def _topics(connection: Connection, topics: Topics, market: Market | None) -> Iterator[Check]:
    compared = compare_topics(connection, topics, market)
    yield topics_check(len(compared.wanted), compared.missing, compared.differences)
    yield replicas_check(_lagging(connection, compared.wanted))


def _lagging(connection: Connection, wanted: Iterable[WantedTopic]) -> list[str]:
    known = AdminClient(connection.librdkafka()).list_topics(timeout=ANSWER_S).topics
    return [
        f"{topic.name} {number}"
        for topic in wanted
        if topic.name in known
        for number, partition in sorted(known[topic.name].partitions.items())
        if partition.leader < 0 or len(partition.isrs) < len(partition.replicas)
    ]


def _access(found: StepSettings, market: Market | None) -> Iterator[Check]:
    lack = insiders_lack(found, market)
    if lack is not None:
        yield access_check(lack.users, lack.grants, lack.surplus)


def _group(connection: Connection, topics: Topics, step: str) -> Iterator[Check]:
    client, group = AdminClient(connection.librdkafka()), topics.group(step)
    described = client.describe_consumer_groups([group], request_timeout=ANSWER_S)[group].result()
    asked = client.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group)], request_timeout=ANSWER_S
    )
    positions = asked[group].result().topic_partitions or []
    yield group_check(step, Group(len(described.members), _lag(client, positions)))


def _lag(client: AdminClient, positions: Sequence[TopicPartition]) -> int:
    known = [at for at in positions if at.offset >= 0]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # theirs has no types
    ends = client.list_offsets(
        {TopicPartition(at.topic, at.partition): latest for at in known}, request_timeout=ANSWER_S
    )
    ended = {(at.topic, at.partition): end.result().offset for at, end in ends.items()}
    return sum(max(0, ended[at.topic, at.partition] - at.offset) for at in known)


def _log(found: StepSettings) -> Iterator[Check]:
    """Read heads, then the log's ends, then heads again: what is at work in between is no difference."""
    reader = found.as_insider("audit").connection() if found.users_folder else found.connection()
    before = heads_of(found.database)
    tails = {at: _tail(found, reader, at) for at in sorted(before)}
    after = heads_of(found.database)
    id = topic_id(reader, found.topics.log)
    checks = [log_check(at, before[at], after[at], tails[at], id) for at in tails]
    problems = [check for check in checks if check is not None]
    yield from problems
    if not problems:
        entries = sum(head.seq for head in after.values())
        yield Check(
            name="log",
            ok=True,
            found=f"its end is the database's in {len(after)} partitions, {entries:,} entries",
        )


def _tail(found: StepSettings, reader: Connection, partition: int) -> LogTail | None:
    record = last_record(reader, ports.TopicPartition(found.topics.log, partition))
    if record is None or record.value is None:
        return None
    seq = codec().decode_entry(record.value).seq
    stored = value_in_table(found.database, partition, seq)
    return LogTail(seq, hash_of(record.value), None if stored is None else hash_of(stored))
