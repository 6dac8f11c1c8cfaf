"""Makes the topics that `schemas/topics` declares, and announces on `registry` which market is in force.

It creates and compares, and never alters or deletes a topic: what differs is for an operator to settle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

from services.bus.kafka import Connection, LogProducer
from services.bus.ports import BusFailed, Message
from services.contract.announcements import MarketApplied
from services.contract.codec import codec
from services.contract.topics import TopicDeclaration, Topics, declarations

REPLICAS = 3
"""Copies of each partition, or as many as there are brokers."""

_AT_ONCE = 500
_ALREADY_EXISTS = 36
_UNKNOWN_TOPIC = 3
_ANSWER_MS = 30_000
_REACHED_WITHIN_S = 10.0


class HasOutsiders(Protocol):
    """Whoever names sources and buyers, as a market does."""

    @property
    def sources(self) -> Collection[str]:
        """The ids of sources."""

    @property
    def buyers(self) -> Collection[str]:
        """The ids of buyers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTopic:
    """A topic as it is declared, for this market and this many brokers."""

    name: str
    partitions: int
    replicas: int
    config: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTopic:
    """A topic as the cluster has it; `config` holds at least the settings that were asked for."""

    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting of an existing topic that is not as declared. Gavel works on; the operator decides."""

    topic: str
    setting: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}, declared is {self.wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedTopics:
    """What `create_topics` did: the topics it made, how many were there, and what is not as declared."""

    created: tuple[str, ...]
    present: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedTopics:
    """What is declared, and what is there: what is missing, and what is otherwise, in words."""

    wanted: tuple[WantedTopic, ...]
    found: Mapping[str, FoundTopic]
    missing: tuple[str, ...]
    differences: tuple[str, ...]


def wanted_topics(topics: Topics, market: HasOutsiders | None, *, brokers: int) -> tuple[WantedTopic, ...]:
    """List every topic of a market, those for dead letters included, ordered by name."""
    found = [
        wanted
        for declaration in declarations()
        for name in _names(declaration, topics, market)
        for wanted in _wanted(declaration, name, topics, brokers)
    ]
    return tuple(sorted(found, key=lambda wanted: wanted.name))


def _names(declaration: TopicDeclaration, topics: Topics, market: HasOutsiders | None) -> list[str]:
    name = topics.namespace + declaration.name
    if "<id>" not in name:
        return [name]
    if market is None:
        return []
    ids = market.sources if declaration.name.startswith("sources.") else market.buyers
    return [name.replace("<id>", id) for id in ids]


def _wanted(declaration: TopicDeclaration, name: str, topics: Topics, brokers: int) -> Iterator[WantedTopic]:
    """A topic's dead letters are kept as long as the topic's records, in the same partitions."""
    replicas = min(REPLICAS, brokers)
    config = dict(declaration.config) | ({"min.insync.replicas": "2"} if replicas == REPLICAS else {})
    names = [name, topics.dead_letters(name)] if declaration.dead_letters else [name]
    for each in names:
        yield WantedTopic(
            name=each,
            partitions=declaration.partitions,
            replicas=replicas,
            config=tuple(sorted(config.items())),
        )


def differences(wanted: WantedTopic, found: FoundTopic) -> tuple[Difference, ...]:
    """Compare a topic with its declaration; raise `BusFailed` where it can't be used as it is.

    Partitions that were added can't be taken away again, and nobody of ours writes to them or reads them.
    """
    if found.partitions < wanted.partitions:
        raise BusFailed(
            f"{wanted.name} has {found.partitions} partitions, and {wanted.partitions} are declared, by which a "
            "record's place is computed. Was it made by hand? Add the missing ones with Kafka's own tools. Was the "
            "declaration changed? Change it back: the count is fixed for good"
        )
    pairs = [("partitions", str(found.partitions), str(wanted.partitions))]
    pairs += [("replication", str(found.replicas), str(wanted.replicas))]
    pairs += [(name, found.config.get(name, "unknown"), value) for name, value in wanted.config]
    return tuple(
        Difference(topic=wanted.name, setting=setting, found=is_now, wanted=should_be)
        for setting, is_now, should_be in pairs
        if is_now != should_be
    )


def create_topics(
    connection: Connection, topics: Topics, market: HasOutsiders | None = None
) -> CreatedTopics:
    """Create what is missing of a market's topics and compare what is there; again and again with one effect.

    Raise `BusFailed` when Kafka doesn't answer or refuses, or a topic has fewer partitions than declared.
    """
    with administrator(connection) as admin:
        wanted = wanted_topics(topics, market, brokers=_brokers(admin))
        found = _found(admin, wanted)
        differing = _compare(wanted, found)
        missing = [topic for topic in wanted if topic.name not in found]
        created = {name for part in _parts(missing) for name in _create(admin, part)}
        # A topic may have been there without being seen yet, or be somebody else's doing just now.
        others = [topic for topic in missing if topic.name not in created]
        differing += _compare(others, _found(admin, others))
    return CreatedTopics(
        created=tuple(topic.name for topic in missing if topic.name in created),
        present=len(wanted) - len(created),
        differences=tuple(differing),
    )


def compare_topics(connection: Connection, topics: Topics, market: HasOutsiders | None) -> ComparedTopics:
    """Compare a market's topics with their declarations, and change nothing; raise `BusFailed`."""
    with administrator(connection) as admin:
        wanted = wanted_topics(topics, market, brokers=_brokers(admin))
        found = _found(admin, wanted)
    return ComparedTopics(
        wanted=wanted,
        found=found,
        missing=tuple(topic.name for topic in wanted if topic.name not in found),
        differences=tuple(
            line for topic in wanted if topic.name in found for line in _lines(topic, found[topic.name])
        ),
    )


def broker_setting(admin: KafkaAdminClient, name: str) -> str:
    """Look up how the brokers are configured, at one that is there; raise `BusFailed` where they don't say."""
    brokers = admin.describe_cluster()["brokers"]
    broker = next(broker["broker_id"] for broker in brokers if not broker.get("is_fenced"))
    asked = ConfigResource(ConfigResourceType.BROKER, str(broker), {name: None})
    answer = admin.describe_configs([asked], config_filter="all")["broker"][str(broker)]
    if name not in answer:
        raise BusFailed(f"broker {broker} does not say its {name}: may this user describe configurations?")
    return str(answer[name]["value"])


def _brokers(admin: KafkaAdminClient) -> int:
    """Count them, those included that are away, or have not come yet: a topic would have a copy less for good.

    Who is away is still known to the cluster. How many are to come is told by how many copies they make by default.
    """
    known = len(admin.describe_cluster()["brokers"])
    return max(known, int(broker_setting(admin, "default.replication.factor")))


def _lines(wanted: WantedTopic, found: FoundTopic) -> list[str]:
    try:
        return list(map(str, differences(wanted, found)))
    except BusFailed as error:
        return [str(error)]


def _compare(wanted: Iterable[WantedTopic], found: Mapping[str, FoundTopic]) -> list[Difference]:
    return [each for topic in wanted if topic.name in found for each in differences(topic, found[topic.name])]


def announce(connection: Connection, topics: Topics, *, version: int, at_ms: int) -> None:
    """Say on `registry` that a market version is in force; raise `BusFailed` where that can't be written."""
    value = codec().encode(MarketApplied(version=version, applied_at_ms=at_ms))
    producer = LogProducer(connection, client_id="gavel-announce")
    producer.publish([Message(topics.registry, 0, None, value)], timeout_s=_ANSWER_MS / 1_000)


@contextmanager
def administrator(connection: Connection) -> Iterator[KafkaAdminClient]:
    """Connect for what changes the cluster; raise `BusFailed` where it does not answer, or refuses."""
    _require_answer(connection)
    admin = KafkaAdminClient(**connection.kafka_python(), client_id="gavel-admin")
    try:
        yield admin
    except KafkaError as error:
        raise BusFailed(f"Kafka at {connection.bootstrap}: {type(error).__name__}: {error}") from error
    finally:
        admin.close()


def _require_answer(connection: Connection) -> None:
    """See that there is a cluster at all: kafka-python's client takes long to find out, and leaves sockets open."""
    told: list[LibrdkafkaError] = []
    # What is tried again until the deadline is told once, by the error that is raised.
    client = AdminClient({**connection.librdkafka(error_cb=told.append), "log_level": 0})
    try:
        client.list_topics("none", timeout=_REACHED_WITHIN_S)
    except KafkaException as error:
        client.poll(0)
        reasons = [each.str() for each in told if each.code() != LibrdkafkaError._ALL_BROKERS_DOWN]
        why = next(iter(reasons), error.args[0].name())
        raise BusFailed(f"Kafka at {connection.bootstrap} does not answer: {why}") from error


def _create(admin: KafkaAdminClient, wanted: Sequence[WantedTopic]) -> list[str]:
    """Create these topics, and name those that were not there before."""
    asked = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replicas,
            "configs": dict(topic.config),
        }
        for topic in wanted
    }
    answer = admin.create_topics(asked, timeout_ms=_ANSWER_MS, raise_errors=False)
    for topic in answer["topics"]:
        if topic["error_code"] not in (0, _ALREADY_EXISTS):
            raise BusFailed(
                f"{topic['name']} can't be created: {topic['error_message'] or topic['error_code']}"
            )
    admin.wait_for_topics(list(asked), timeout_ms=_ANSWER_MS)
    return [topic["name"] for topic in answer["topics"] if topic["error_code"] == 0]


def _found(admin: KafkaAdminClient, wanted: Sequence[WantedTopic]) -> dict[str, FoundTopic]:
    found: dict[str, FoundTopic] = {}
    for part in _parts(wanted):
        described = admin.describe_topics([topic.name for topic in part])
        present = {topic["name"]: topic for topic in described if _is_there(topic)}
        config = _config(admin, [topic for topic in part if topic.name in present])
        for name, topic in present.items():
            found[name] = FoundTopic(
                partitions=len(topic["partitions"]),
                replicas=min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
                config=config[name],
            )
    return found


def _is_there(topic: Mapping[str, Any]) -> bool:
    if topic["error_code"] in (0, _UNKNOWN_TOPIC):
        return not topic["error_code"]
    raise BusFailed(f"{topic['name']} can't be described: error {topic['error_code']}")


def _config(admin: KafkaAdminClient, wanted: Sequence[WantedTopic]) -> dict[str, dict[str, str]]:
    if not wanted:
        return {}
    asked = [
        ConfigResource(ConfigResourceType.TOPIC, topic.name, {name: None for name, _ in topic.config})
        for topic in wanted
    ]
    answer = admin.describe_configs(asked, config_filter="all")["topic"]
    return {
        name: {key: str(setting["value"]) for key, setting in rows.items()} for name, rows in answer.items()
    }


def _parts(wanted: Sequence[WantedTopic]) -> Iterator[Sequence[WantedTopic]]:
    for start in range(0, len(wanted), _AT_ONCE):
        yield wanted[start : start + _AT_ONCE]
