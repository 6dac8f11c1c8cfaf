"""The doctor on real servers: a deployment that is well, and each problem that can be planted there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from deploy.local.stack import Stack
from services.bus.administration import create_topics, wanted_topics
from services.bus.kafka import LogProducer
from services.bus.ports import Message
from services.bus.settings import StepSettings
from services.cli.doctor_checks import Check
from services.cli.doctor_command import examine
from services.cli.setup_command import set_up
from services.contract.codec import codec
from services.contract.entries import Cause, CauseKind, Entry
from services.contract.topics import Topics
from services.market.store import apply
from services.vault.keys import make_key
from tests.support.deciding import exclusive_stage, market, order, plan
from tests.support.hosting import Cluster

MARKET = market(plan(exclusive_stage(9000), sales_max=1), orders=(order("acme", exclusive=9500),))
NOBODY_WORKS = {f"step {step}" for step in ("intake", "router", "resale", "billing", "feed")}


@dataclass(frozen=True)
class Deployment:
    """Gavel, set up on servers of its own, with no worker at work."""

    settings: StepSettings
    database: str

    @property
    def topics(self) -> Topics:
        return self.settings.topics

    def not_well(self) -> dict[str, Check]:
        """Examine it, and give what is not well, but for the steps that nobody runs here."""
        bad = {check.name: check for check in examine(self.settings) if not check.ok}
        assert bad.keys() >= NOBODY_WORKS
        return {name: check for name, check in bad.items() if name not in NOBODY_WORKS}

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture
def deployment(stack: Stack, database: str, tmp_path: Path) -> Iterator[Deployment]:
    cluster = Cluster(stack.kafka, tmp_path)
    vault, fingerprints = tmp_path / "vault.key", tmp_path / "fingerprint.key"
    assert make_key(vault)
    assert make_key(fingerprints)
    settings = StepSettings(
        kafka=stack.kafka,
        database=database,
        namespace=cluster.namespace,
        vault_key_file=vault,
        vault_key=None,
        vault_older_key_files="",
        fingerprint_key_file=fingerprints,
        kafka_config=None,
    )
    set_up(settings)
    with psycopg.connect(database, autocommit=True) as connection:
        apply(connection, MARKET, 0, files=(), applied_by="tests")
    create_topics(cluster.connection, settings.topics, MARKET)
    yield Deployment(settings, database)
    admin = KafkaAdminClient(bootstrap_servers=stack.kafka)
    admin.delete_topics(
        [topic.name for topic in wanted_topics(settings.topics, MARKET, brokers=1)], raise_errors=False
    )
    admin.close()


def test_what_was_just_set_up_is_well(deployment: Deployment) -> None:
    assert deployment.not_well() == {}


def test_a_key_that_others_can_read_is_found(deployment: Deployment) -> None:
    vault = deployment.settings.vault_key_file
    assert vault is not None
    vault.chmod(0o644)
    assert "others can read" in deployment.not_well()["key of the vault"].found


@pytest.mark.parametrize(
    ("statement", "name", "found"),
    [
        ("delete from gavel.migrations where step = 'feed'", "migrations", "not applied: feed/0001_feed.sql"),
        ("update gavel.migrations set sha256 = sha256('other') where step = 'feed'", "migrations", "changed"),
        ("delete from router.heads where partition = 5", "heads", "missing: 5"),
        (
            "insert into router.undelivered (partition, seq, n, recipient) values (0, 1, 0, 'buyers.acme.leads')",
            "publishing",
            "buyers.acme.leads (1)",
        ),
        (
            "update router.heads set seq = 9, published_seq = 9 where partition = 2",
            "log",
            "partition 2: the topic is empty, entry 9 was published",
        ),
        ("update router.heads set log_topic_id = 'other'", "log", "made again"),
    ],
)
def test_problem_planted_in_the_database_is_found(
    deployment: Deployment, statement: str, name: str, found: str
) -> None:
    deployment.execute(statement)
    bad = deployment.not_well()
    assert found in bad[name].found
    assert bad[name].advice


def test_a_database_without_a_market_is_found(deployment: Deployment) -> None:
    deployment.execute("truncate market.versions cascade")
    assert deployment.not_well()["market"].found == "none is in force"


def test_a_database_that_was_never_set_up_is_told_so(deployment: Deployment) -> None:
    deployment.execute("drop schema gavel cascade")
    bad = deployment.not_well()
    assert bad.keys() == {"migrations"}
    assert "gavel setup" in bad["migrations"].advice


def test_topics_that_are_missing_or_otherwise_are_found(stack: Stack, deployment: Deployment) -> None:
    admin = KafkaAdminClient(bootstrap_servers=stack.kafka)
    admin.delete_topics([deployment.topics.buyer_pings("acme")])
    events = ConfigResource(ConfigResourceType.TOPIC, deployment.topics.events, {"retention.ms": "60000"})
    admin.alter_configs([events])
    admin.close()
    found = deployment.not_well()["topics"].found
    assert f"missing: {deployment.topics.buyer_pings('acme')}" in found
    assert f"{deployment.topics.events}: retention.ms is 60000" in found


def test_a_log_that_knows_more_than_the_database_is_found(deployment: Deployment) -> None:
    entry = Entry(
        seq=4,
        prev_hash=bytes(32),
        cause=Cause(kind=CauseKind.ROUTER, offset=-1),
        market_version=1,
        no_room=(),
        lead_id="3f276050-d4f1-5f5c-bcc4-f72e1c5a5436",
        decided_at_ms=0,
        events=(),
    )
    LogProducer(deployment.settings.connection()).publish(
        [Message(deployment.topics.log, 7, None, codec().encode(entry))], timeout_s=10.0
    )
    found = deployment.not_well()["log"].found
    assert found == "partition 7: the topic ends with entry 4, the database with 0"


def test_servers_that_do_not_answer_are_told_and_nothing_else_of_them(deployment: Deployment) -> None:
    nowhere = deployment.settings.model_copy(
        update={"kafka": "127.0.0.1:1", "database": "postgresql://127.0.0.1:1/none"}
    )
    bad = {check.name: check for check in examine(nowhere) if not check.ok}
    assert bad.keys() == {"database", "Kafka"}
    assert "GAVEL_DATABASE" in bad["database"].advice
    assert "GAVEL_KAFKA" in bad["Kafka"].advice


def test_each_check_is_made_once(deployment: Deployment) -> None:
    names = [check.name for check in examine(deployment.settings)]
    assert len(names) == len(set(names))
    assert {"clock of the database", "clock of Kafka's controller", "brokers", "copies", "roles"} <= set(
        names
    )
