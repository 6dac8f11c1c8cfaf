"""Every topic is declared in `schemas/topics`: who writes and reads it, what is in it, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from services.bus.migrations import STEPS
from services.cli.retention import forgotten_after_ms
from services.contract.codec import SCHEMAS
from services.contract.topics import TopicDeclaration, Topics, declarations
from tests.support.records import DELIVERED_TYPES, EVENT_TYPES, RECORD_TYPES

OUTSIDERS = {"the source", "the buyer"}
READERS = {*STEPS, *OUTSIDERS, "gavel", "anyone inside", "every step"}
TAKES_OVER = {"leads.log"}  # where the writer reads what it wrote last
WRITERS = {*STEPS, *OUTSIDERS, "gavel"}
PARTITIONED_BY_LEAD = {"leads.qualified", "leads.commands", "leads.timers", "leads.log", "leads.events"}
KEYS = {"any", "none", "lead_id"}
FIELDS = {
    "name", "partitions", "key", "records", "producer", "consumers", "personal_data", "dead_letters", "config"
}  # fmt: skip
DAY_MS = 86_400_000

BY_NAME = {topic.name: topic for topic in declarations()}
each = pytest.mark.parametrize("topic", declarations(), ids=lambda topic: topic.name)


def _raw() -> dict[str, dict[str, Any]]:
    return {path.name: yaml.safe_load(path.read_text()) for path in (SCHEMAS / "topics").iterdir()}


def test_files_are_called_like_their_topics_and_have_every_field() -> None:
    for name, row in _raw().items():
        assert name == row["name"].replace("<id>", "id") + ".yaml"
        assert row.keys() == FIELDS, name


def test_every_topic_of_the_code_is_declared_and_every_declared_one_in_the_code() -> None:
    topics = Topics()
    named = {
        topics.qualified,
        topics.commands,
        topics.timers,
        topics.log,
        topics.events,
        topics.registry,
        topics.source_leads("<id>"),
        topics.source_receipts("<id>"),
        topics.buyer_pings("<id>"),
        topics.buyer_answers("<id>"),
        topics.buyer_leads("<id>"),
    }
    assert named == BY_NAME.keys()


@each
def test_records_are_types_of_the_contract_or_json_for_outsiders(topic: TopicDeclaration) -> None:
    delivered = {kind.__name__ for kind in DELIVERED_TYPES}
    inside = {kind.__name__ for kind in RECORD_TYPES} - delivered
    outside = topic.name.startswith(("sources.", "buyers."))
    assert topic.records
    for record in topic.records:
        if outside and record.startswith("json:"):
            assert (SCHEMAS / "json" / f"{record.removeprefix('json:')}.schema.json").exists()
        else:
            assert record in (delivered if outside else inside)


def test_avro_with_contact_details_goes_to_its_buyer_alone() -> None:
    delivered = {kind.__name__ for kind in DELIVERED_TYPES}
    assert [name for name, topic in BY_NAME.items() if delivered & {*topic.records}] == ["buyers.<id>.leads"]


@each
def test_producer_and_consumers_are_steps_or_outsiders(topic: TopicDeclaration) -> None:
    assert set(topic.producer.split(" and ")) <= WRITERS
    assert topic.consumers
    assert set(topic.consumers) <= READERS
    assert topic.producer not in topic.consumers or topic.name in TAKES_OVER


@each
def test_personal_data_is_said(topic: TopicDeclaration) -> None:
    assert topic.personal_data
    if topic.name.startswith(("leads.", "registry")):
        assert topic.personal_data.startswith("none")


@each
def test_retention_is_said_and_personal_data_is_kept_for_days_only(topic: TopicDeclaration) -> None:
    retention_ms = int(dict(topic.config)["retention.ms"])
    assert retention_ms == -1 or retention_ms >= DAY_MS
    if not topic.personal_data.startswith("none"):
        assert DAY_MS <= retention_ms <= 30 * DAY_MS


@each
def test_outsiders_topics_declare_segments_of_a_day_at_most(topic: TopicDeclaration) -> None:
    """A record goes with its segment, and by the broker's default one takes records for 7 days."""
    if "<id>" in topic.name:
        assert int(dict(topic.config)["segment.ms"]) <= DAY_MS


@each
def test_the_date_of_an_erasure_is_behind_every_topic_of_outsiders(topic: TopicDeclaration) -> None:
    config = dict(topic.config)
    if "<id>" in topic.name:
        assert forgotten_after_ms() > int(config["retention.ms"]) + int(config["segment.ms"])


def test_log_alone_is_kept_for_good() -> None:
    assert {name for name, topic in BY_NAME.items() if ("retention.ms", "-1") in topic.config} == {
        "leads.log"
    }


def test_router_alone_writes_the_log() -> None:
    assert BY_NAME["leads.log"].producer == "router"


def test_topics_of_leads_have_one_partition_count_and_key() -> None:
    inner = {name: topic for name, topic in BY_NAME.items() if name.startswith("leads.")}
    assert inner.keys() == PARTITIONED_BY_LEAD
    assert len({topic.partitions for topic in inner.values()}) == 1
    assert {topic.key for topic in inner.values()} == {"lead_id"}


@each
def test_keys_partitions_and_replication_are_sound(topic: TopicDeclaration) -> None:
    assert topic.key in KEYS
    assert 1 <= topic.partitions <= 100
    assert int(dict(topic.config)["min.insync.replicas"]) >= 1


def test_outsiders_topics_carry_the_time_of_append_where_deadlines_are_held_against_it() -> None:
    stamped = {
        name for name, topic in BY_NAME.items() if ("message.timestamp.type", "LogAppendTime") in topic.config
    }
    assert stamped == {"sources.<id>.leads", "buyers.<id>.answers"}


def test_dead_letters_are_for_what_outsiders_write_alone() -> None:
    assert {name for name, topic in BY_NAME.items() if topic.dead_letters} == {
        name for name, topic in BY_NAME.items() if set(topic.producer.split(" and ")) & OUTSIDERS
    }


def test_feed_declares_every_event() -> None:
    assert set(BY_NAME["leads.events"].records) == {kind.__name__ for kind in EVENT_TYPES}


def test_every_type_travels_on_some_topic() -> None:
    """Events travel inside entries as well; nothing is declared that goes nowhere."""
    travelling = {record for topic in BY_NAME.values() for record in topic.records}
    assert {kind.__name__ for kind in RECORD_TYPES} <= travelling


@pytest.mark.parametrize("namespace", ["", "t-1."])
def test_owner_of_an_outsiders_topic_is_read_from_its_name(namespace: str) -> None:
    topics = Topics(namespace)
    assert topics.owner_of(topics.source_leads("sunform")) == ("sources", "sunform", "leads")
    assert topics.owner_of(topics.buyer_answers("rooftop-coop")) == ("buyers", "rooftop-coop", "answers")
    assert topics.owner_of(topics.log) is None
    assert topics.owner_of(topics.dead_letters(topics.source_leads("sunform"))) is None


def test_owner_of_a_topic_of_another_namespace_is_nobody() -> None:
    assert Topics("t-1.").owner_of("sources.sunform.leads") is None
    assert Topics("t-1.").owner_of("t-2.sources.sunform.leads") is None
    assert Topics("").owner_of("t-1.sources.sunform.leads") is None
