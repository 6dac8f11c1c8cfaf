"""Which topics a market has, and what becomes of one that is not as declared."""

from __future__ import annotations

import pytest

from services.bus.administration import FoundTopic, WantedTopic, differences, wanted_topics
from services.bus.ports import BusFailed
from services.contract.market import Buyer, Market, Source
from services.contract.topics import Topics, declarations

MARKET = Market(
    version=1,
    currency="USD",
    timezone="UTC",
    sources={"sunform": Source(id="sunform", lead_types=("solar",))},
    buyers={"acme": Buyer(id="acme", timezone="UTC"), "oak": Buyer(id="oak", timezone="UTC")},
)
LOG = WantedTopic(name="leads.log", partitions=12, replicas=3, config=(("retention.ms", "-1"),))


def wanted(
    market: Market | None = MARKET, *, brokers: int = 1, namespace: str = ""
) -> dict[str, WantedTopic]:
    return {topic.name: topic for topic in wanted_topics(Topics(namespace), market, brokers=brokers)}


def test_every_source_and_buyer_has_its_topics() -> None:
    names = wanted().keys()
    assert {
        "sources.sunform.leads",
        "sources.sunform.receipts",
        "buyers.acme.pings",
        "buyers.oak.leads",
    } <= names
    assert not any("<id>" in name for name in names)


def test_without_a_market_there_are_the_topics_inside_alone() -> None:
    assert wanted(None).keys() == {each.name for each in declarations() if "<id>" not in each.name}


def test_dead_letters_stay_as_long_as_the_records_they_were() -> None:
    topics = wanted()
    with_letters = [each.name for each in declarations() if each.dead_letters]
    assert with_letters == ["buyers.<id>.answers", "sources.<id>.leads"]
    assert topics["sources.sunform.leads.dlq"].config == topics["sources.sunform.leads"].config
    assert topics["sources.sunform.leads.dlq"].partitions == topics["sources.sunform.leads"].partitions
    assert "buyers.acme.leads.dlq" not in topics


@pytest.mark.parametrize(
    ("brokers", "replicas", "in_sync"), [(1, 1, "1"), (2, 2, "1"), (3, 3, "2"), (9, 3, "2")]
)
def test_three_brokers_keep_three_copies_and_acknowledge_two(
    brokers: int, replicas: int, in_sync: str
) -> None:
    for topic in wanted(brokers=brokers).values():
        assert topic.replicas == replicas
        assert dict(topic.config)["min.insync.replicas"] == in_sync


def test_a_namespace_stands_before_every_name() -> None:
    assert all(name.startswith("test.") for name in wanted(namespace="test."))


def test_a_topic_as_declared_has_no_differences() -> None:
    assert differences(LOG, FoundTopic(partitions=12, replicas=3, config={"retention.ms": "-1"})) == ()


def test_another_retention_or_fewer_copies_are_told() -> None:
    found = differences(LOG, FoundTopic(partitions=12, replicas=1, config={"retention.ms": "1000"}))
    assert [str(each) for each in found] == [
        "leads.log: replication is 1, declared is 3",
        "leads.log: retention.ms is 1000, declared is -1",
    ]


def test_partitions_that_were_added_are_told_and_used_no_less_for_it() -> None:
    found = differences(LOG, FoundTopic(partitions=13, replicas=3, config={"retention.ms": "-1"}))
    assert [str(difference) for difference in found] == ["leads.log: partitions is 13, declared is 12"]


def test_too_few_partitions_are_refused_with_what_to_do() -> None:
    with pytest.raises(BusFailed, match=r"has 6 partitions, and 12 are declared.*Add the missing ones"):
        differences(LOG, FoundTopic(partitions=6, replicas=3, config={"retention.ms": "-1"}))
