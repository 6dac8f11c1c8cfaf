"""Doors on a real broker that asks everybody who they are: each user tries everything, and gets at what it is meant to.

What is meant is written down here anew, and not taken from where it is derived.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)
from kafka.errors import KafkaError as PythonKafkaError
from kafka.protocol.admin import DescribeClusterRequest

from deploy.local import stack as local_stack
from deploy.local.folder import Folder
from deploy.local.stack import Stack
from services.bus.administration import administrator, compare_topics, create_topics
from services.bus.doors import OUTSIDERS_QUOTA, NoDoors, Quota, open_doors
from services.bus.kafka import Connection, read_properties
from services.bus.ports import BusFailed
from services.bus.settings import StepSettings
from services.cli import admission
from services.cli.complaints import Complaint
from services.cli.doctor_kafka import look_at_kafka
from services.cli.insiders import (
    InsidersMade,
    administration,
    insiders_lack,
    let_insiders_in,
    take_surplus_away,
)
from services.cli.retention import topics_that_keep_longer
from services.contract.access import INSIDERS, Family, Outsider, insider
from tests.support.kafka_matrix import Reached, asking, produced, reached, readable, writable

pytestmark = pytest.mark.timeout(180)

NAMESPACE = "t-doors."
BUYERS = ("acme", "acme2", *(f"buyer-{number}" for number in range(1, 19)))
SOURCES = ("web", "web2", "forms")
WITHIN_S = 10.0

INSIDE = {"leads.qualified", "leads.commands", "leads.timers", "leads.log", "leads.events", "registry"}
EVERYBODY_READS = {"leads.events", "registry"}
READS: Mapping[str, set[str]] = {
    "intake": {"leads.log", "sources.*.leads", "buyers.*.answers"},
    "router": {"leads.qualified", "leads.commands", "leads.timers", "leads.log"},
    "resale": {"leads.log"},
    "billing": {"leads.log"},
    "feed": {"leads.log"},
    "gateway": {"sources.*.receipts", "buyers.*.pings", "buyers.*.leads"},
    "operator": INSIDE | {"sources.*.leads.dlq", "buyers.*.answers.dlq"},
    "audit": INSIDE
    | {"sources.*.leads", "sources.*.leads.dlq", "sources.*.receipts", "buyers.*.answers", "buyers.*.answers.dlq"}
    | {"buyers.*.pings", "buyers.*.leads"},
}  # fmt: skip
WRITES: Mapping[str, set[str]] = {
    "intake": {"leads.qualified", "leads.commands", "sources.*.receipts"}
    | {"sources.*.leads.dlq", "buyers.*.answers.dlq"},
    "router": {"leads.log", "sources.*.receipts", "buyers.*.pings", "buyers.*.leads"},
    "resale": {"leads.timers"},
    "billing": set(),
    "feed": {"leads.events"},
    "gateway": {"sources.*.leads", "buyers.*.answers"},
    "operator": {"leads.commands", "registry", "sources.*.leads", "buyers.*.answers"}
    | {"sources.*.leads.dlq", "buyers.*.answers.dlq"},
    "audit": set(),
}  # fmt: skip


def outsiders() -> list[Outsider]:
    return [
        *(Outsider(family=Family.SOURCES, id=id) for id in SOURCES),
        *(Outsider(family=Family.BUYERS, id=id) for id in BUYERS),
    ]


def of_one(outsider: Outsider) -> set[str]:
    kinds = ("leads", "leads.dlq", "receipts") if outsider.family is Family.SOURCES else (
        "pings", "leads", "answers", "answers.dlq"
    )  # fmt: skip
    return {f"{outsider.family}.{outsider.id}.{kind}" for kind in kinds}


TOPICS = sorted(INSIDE.union(*map(of_one, outsiders())))
GROUPS = sorted(
    {
        *(f"gavel.{who}" for who in INSIDERS),
        *(f"gavel.{who}.worker-1.registry" for who in INSIDERS),
        *(f"{each.family}.{each.id}{end}" for each in outsiders() for end in ("", ".app", "2", "-app")),
        "console",
    }
)
NEW = ("leads.new", "buyers.acme.new", "sources.web.new", "anything")


@dataclass(frozen=True, slots=True)
class Gavel:
    """A Gavel behind doors: how its administrator reaches Kafka, and the passwords of outsiders."""

    settings: StepSettings
    passwords: dict[str, admission.Properties]

    def as_insider(self, who: str) -> Connection:
        return self.settings.as_insider(who).connection()

    def as_outsider(self, outsider: Outsider) -> Connection:
        return self.with_properties(self.passwords[outsider.user(self.settings.topics)])

    def with_properties(self, properties: admission.Properties) -> Connection:
        return Connection(bootstrap=self.settings.kafka, properties=properties)

    def reaches(self, connection: Connection) -> Reached:
        """Let a user try everything, and name what it got at without the namespace."""
        found = reached(
            connection,
            topics=[NAMESPACE + name for name in TOPICS],
            groups=[NAMESPACE + name for name in GROUPS],
            new=[NAMESPACE + name for name in NEW],
        )
        return Reached(
            **{
                name: frozenset(each.removeprefix(NAMESPACE) for each in getattr(found, name))
                for name in Reached.__slots__
            }
        )


@pytest.fixture(scope="module")
def gavel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gavel]:
    """A secured stack of this file's own, with all users, stopped at the end."""
    data = tmp_path_factory.mktemp("secured")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("GAVEL_KAFKA", "GAVEL_KAFKA_CONFIG", "GAVEL_KAFKA_USER"):
            environment.delenv(name, raising=False)
        try:
            running = local_stack.up(data, secured=True)
            settings = StepSettings(
                kafka=running.kafka,
                kafka_config=running.kafka_config,
                database=running.database,
                namespace=NAMESPACE,
            )
            create_topics(administration(settings), settings.topics)
            let_insiders_in(settings, Everyone())
            yield Gavel(settings, dict(admission.admit(settings, outsiders()).properties))
        finally:
            local_stack.down(data)


class Everyone:
    """The market of these tests."""

    sources = SOURCES
    buyers = BUYERS


def own(outsider: Outsider) -> Reached:
    """What an outsider is meant to get at."""
    name = f"{outsider.family}.{outsider.id}"
    reads, writes = ({"receipts"}, {"leads"}) if outsider.family is Family.SOURCES else (
        {"pings", "leads"}, {"answers"}
    )  # fmt: skip
    return Reached(
        described=frozenset(f"{name}.{kind}" for kind in reads | writes),
        read=frozenset(f"{name}.{kind}" for kind in reads),
        written=frozenset(f"{name}.{kind}" for kind in writes),
        groups=frozenset({f"{name}.app"}),
        created=frozenset(),
    )


def meant_for(who: str) -> Reached:
    """What an insider is meant to get at."""
    reads = _spelt_out(READS[who] | EVERYBODY_READS)
    writes = _spelt_out(WRITES[who])
    return Reached(
        described=reads | writes,
        read=reads,
        written=writes,
        groups=frozenset({f"gavel.{who}", f"gavel.{who}.worker-1.registry"}),
        created=frozenset(),
    )


def _spelt_out(names: set[str]) -> frozenset[str]:
    family_ids = {"sources": SOURCES, "buyers": BUYERS}
    return frozenset(
        name.replace("*", id) for name in names for id in family_ids.get(name.partition(".*.")[0], ("",))
    )


def until(is_so: Callable[[], bool]) -> float:
    """Wait until it is so, and tell how long that took, in seconds."""
    began_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - began_s < WITHIN_S, "it did not come"
        time.sleep(0.02)
    return time.monotonic() - began_s


@pytest.mark.parametrize("who", INSIDERS)
def test_an_insider_gets_at_what_its_step_needs_and_at_nothing_else(gavel: Gavel, who: str) -> None:
    assert gavel.reaches(gavel.as_insider(who)) == meant_for(who)


def test_twenty_buyers_and_all_sources_get_at_their_own_and_at_nothing_else(gavel: Gavel) -> None:
    assert len(BUYERS) == 20
    differing = [each.id for each in outsiders() if gavel.reaches(gavel.as_outsider(each)) != own(each)]
    assert differing == []


def test_the_matrix_sees_a_bare_prefix_by_which_acme_reads_acme2(gavel: Gavel) -> None:
    acme = Outsider(family=Family.BUYERS, id="acme")
    user = acme.user(gavel.settings.topics)
    with (
        administrator(administration(gavel.settings)) as admin,
        open_doors(administration(gavel.settings)) as doors,
    ):
        planted = ACL(
            f"User:{user}", "*", ACLOperation.READ, ACLPermissionType.ALLOW,
            ResourcePattern(ResourceType.TOPIC, user, ACLResourcePatternType.PREFIXED),
        )  # fmt: skip
        admin.create_acls([planted])
        try:
            until(lambda: "buyers.acme2.leads" in gavel.reaches(gavel.as_outsider(acme)).read)
            assert gavel.reaches(gavel.as_outsider(acme)) != own(acme)
        finally:
            doors.shut_out(user)
            admission.admit(gavel.settings, [acme])
    assert gavel.reaches(gavel.as_outsider(acme)) == own(acme)


@pytest.mark.parametrize(
    "properties",
    [
        (),
        (("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "SCRAM-SHA-512"),
         ("sasl.username", NAMESPACE + "buyers.acme"), ("sasl.password", "wrong")),
        (("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "SCRAM-SHA-512"),
         ("sasl.username", "nobody"), ("sasl.password", "wrong")),
        (("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "PLAIN"),
         ("sasl.username", "broker"), ("sasl.password", "wrong")),
    ],
    ids=["anonymous", "wrong password", "unknown user", "another mechanism"],
)  # fmt: skip
def test_nobody_gets_in_without_the_password(gavel: Gavel, properties: admission.Properties) -> None:
    admin = AdminClient({**gavel.with_properties(properties).librdkafka(), "log_level": 0})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1.5)


def test_controllers_listener_asks_for_a_password_too(gavel: Gavel, stack: Stack) -> None:
    folder = gavel.settings.users_folder
    assert folder is not None
    assert not _controller_answers(folder.parents[1])
    if "GAVEL_KAFKA" not in os.environ:
        assert _controller_answers(stack.data_dir), "one without a password does, so the question is good"


def test_add_again_makes_what_is_missing_and_shows_no_password(gavel: Gavel) -> None:
    fresh = Outsider(family=Family.BUYERS, id="again")
    first = admission.admit(gavel.settings, [fresh])
    second = admission.admit(gavel.settings, [fresh])
    user = fresh.user(gavel.settings.topics)
    assert (len(first.topics.created), first.quotas, [*first.properties]) == (4, 1, [user])
    assert (second.topics.created, second.grants, second.quotas, second.properties) == ((), 0, 0, {})
    with open_doors(administration(gavel.settings)) as doors:
        doors.shut_out(user)
    assert admission.admit(gavel.settings, [fresh]).grants == 4
    assert readable_by(gavel.with_properties(first.properties[user]), "buyers.again.leads")


def test_commands_show_a_password_once_and_never_log_it(gavel: Gavel, tmp_path: Path) -> None:
    found = gavel.settings
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GAVEL_")},
        "GAVEL_KAFKA": found.kafka,
        "GAVEL_KAFKA_CONFIG": str(found.kafka_config),
        "GAVEL_NAMESPACE": NAMESPACE,
        "GAVEL_DATA": str(tmp_path),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    added = run("buyer", "add", "shown")
    properties = read_properties(added.stdout)
    password = dict(properties)["sasl.password"]
    assert dict(properties)["sasl.username"] == f"{NAMESPACE}buyers.shown"
    assert password not in added.stderr
    assert json.loads(run("buyer", "add", "shown", "--json").stdout)["properties"] is None
    rotated = json.loads(run("buyer", "rotate", "shown", "--json").stdout)["properties"]
    assert rotated["sasl.password"] != password
    revoked = run("buyer", "revoke", "shown")
    assert revoked.returncode == 0
    assert all(
        f"`gavel {left}" in revoked.stderr for left in ("key revoke`", "key list`", "buyer pause shown`")
    )
    assert (run("buyer", "revoke", "shown").returncode, run("buyer", "add", "Bad.").returncode) == (1, 2)
    saved = run("source", "add", "kept", "--save")
    assert (saved.returncode, saved.stdout) == (0, "")
    assert run("source", "receipts", "kept").returncode == 0


def test_add_again_leaves_a_quota_that_an_operator_has_changed(gavel: Gavel) -> None:
    bigger = Outsider(family=Family.SOURCES, id="bigger")
    user = bigger.user(gavel.settings.topics)
    wide = Quota(producer_bytes_per_s=5_000_000, consumer_bytes_per_s=10_000_000, request_percent=80)
    admission.admit(gavel.settings, [bigger])
    with open_doors(administration(gavel.settings)) as doors:
        assert doors.limit(user, wide)
        assert admission.admit(gavel.settings, [bigger]).quotas == 0
        assert doors.quota_of(user) == wide.values()
        doors.limit(user, None)
        assert admission.admit(gavel.settings, [bigger]).quotas == 1
        assert doors.quota_of(user) == OUTSIDERS_QUOTA.values()


def test_after_a_rotation_the_old_password_opens_nothing(gavel: Gavel) -> None:
    turned = Outsider(family=Family.SOURCES, id="turned")
    (old,) = admission.admit(gavel.settings, [turned]).properties.values()
    new = admission.give_another_password(gavel.settings, turned)
    assert old != new
    until(lambda: not _lets_in(gavel.with_properties(old)))
    assert readable_by(gavel.with_properties(new), "sources.turned.receipts")


def test_rotation_of_whom_nobody_has_added_is_refused(gavel: Gavel) -> None:
    with pytest.raises(Complaint, match="There is no user"):
        admission.give_another_password(gavel.settings, Outsider(family=Family.BUYERS, id="never"))
    with pytest.raises(Complaint, match="nothing is granted"):
        admission.shut_out(gavel.settings, Outsider(family=Family.BUYERS, id="never"))


def test_revocation_ends_what_live_connections_may_do_within_ten_seconds(gavel: Gavel) -> None:
    leaving = Outsider(family=Family.BUYERS, id="leaving")
    (properties,) = admission.admit(gavel.settings, [leaving]).properties.values()
    connection = gavel.with_properties(properties)
    leads, answers = (NAMESPACE + f"buyers.leaving.{kind}" for kind in ("leads", "answers"))
    consumer = Consumer(
        connection.librdkafka(group_id=f"{NAMESPACE}buyers.leaving.app", auto_offset_reset="earliest")
    )
    producer = Producer(connection.librdkafka())
    refused: list[int] = []
    consumer.subscribe([leads])

    def write() -> bool:
        producer.produce(
            answers, b"{}", on_delivery=lambda error, _: refused.append(error.code() if error else 0)
        )
        producer.flush(WITHIN_S)
        return bool(refused[-1])

    try:
        with asking(gavel.as_insider("router")) as router:
            writable(router, [leads])
            until(lambda: consumer.poll(0.1) is not None)
            assert not write()
            with asking(connection) as live:
                assert readable(live, [leads]) == [leads]
                began_s = time.monotonic()
                admission.shut_out(gavel.settings, leaving)
                until(write)
                took_s = time.monotonic() - began_s
                assert (readable(live, [leads]), writable(live, [answers])) == ([], [])
            writable(router, [leads])
            until(lambda: _is_refused(consumer.poll(0.1)))
    finally:
        consumer.close()
    assert refused[-1] == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert took_s < WITHIN_S
    assert not _lets_in(connection)


def test_quota_of_a_user_slows_it_down(gavel: Gavel) -> None:
    eager = Outsider(family=Family.SOURCES, id="eager")
    user = eager.user(gavel.settings.topics)
    slow = Quota(producer_bytes_per_s=10_000, consumer_bytes_per_s=10_000, request_percent=50)
    (properties,) = admission.admit(gavel.settings, [eager]).properties.values()
    with open_doors(administration(gavel.settings)) as doors:
        assert doors.quota_of(user) == OUTSIDERS_QUOTA.values()
        doors.limit(user, slow)
        with asking(gavel.with_properties(properties)) as client:
            topic = NAMESPACE + "sources.eager.leads"
            until(lambda: produced(client, [topic], b" " * 100_000).throttle_time_ms > 0)
        doors.limit(user, None)
        assert doors.quota_of(user) == {}


def test_insiders_keep_their_passwords_and_files_when_they_are_let_in_again(gavel: Gavel) -> None:
    folder = gavel.settings.users_folder
    assert folder is not None
    before = {file.name: file.read_text() for file in folder.iterdir()}
    again = let_insiders_in(gavel.settings, Everyone())
    assert again is not None
    assert (again.users, again.grants) == ((), 0)
    assert {file.name: file.read_text() for file in folder.iterdir()} == before
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    lost = folder / f"{insider(gavel.settings.topics, 'feed')}.properties"
    lost.unlink()
    mended = let_insiders_in(gavel.settings, Everyone())
    assert mended is not None
    assert mended.users == (insider(gavel.settings.topics, "feed"),)
    until(lambda: _lets_in(gavel.as_insider("feed")))


def test_what_an_insider_lacks_is_seen_by_the_doctor_and_mended_by_a_setup(gavel: Gavel) -> None:
    lack = insiders_lack(gavel.settings, Everyone())
    assert lack == InsidersMade(users=(), grants=0)
    user = insider(gavel.settings.topics, "resale")
    with open_doors(administration(gavel.settings)) as doors:
        taken = doors.shut_out(user)
        assert insiders_lack(gavel.settings, Everyone()) == InsidersMade(users=(), grants=taken)
        doors.forget_user(user)
        assert insiders_lack(gavel.settings, Everyone()) == InsidersMade(users=(user,), grants=taken)
    assert let_insiders_in(gavel.settings, Everyone()) == InsidersMade(users=(user,), grants=taken)
    assert insiders_lack(gavel.settings, Everyone()) == InsidersMade(users=(), grants=0)
    checks = {check.name: check for check in look_at_kafka(gavel.settings, None, with_log=False)}
    assert checks["access"].ok
    assert checks["brokers"].ok


def test_what_no_declaration_gives_an_insider_any_more_is_taken_away_and_nothing_else(gavel: Gavel) -> None:
    feed = f"User:{insider(gavel.settings.topics, 'feed')}"
    planted = [
        _permission(feed, ACLOperation.WRITE, "leads.log"),
        _permission(feed, ACLOperation.READ, "buyers.acme.leads"),
        _permission(feed, ACLOperation.READ, "buyers.", ACLResourcePatternType.PREFIXED),
    ]
    outsiders_own = _permission(f"User:{NAMESPACE}buyers.acme", ACLOperation.READ, "buyers.acme.extra")
    nobody_of_ours = _permission("User:mirror", ACLOperation.READ, "leads.log")
    with administrator(administration(gavel.settings)) as admin:
        admin.create_acls([*planted, outsiders_own, nobody_of_ours])
        until(lambda: "leads.log" in gavel.reaches(gavel.as_insider("feed")).written)
        found = let_insiders_in(gavel.settings)
        assert found is not None
        assert found.surplus == len(planted), "a setup tells, and takes nothing away: old workers may need it"
        (access,) = (
            check for check in look_at_kafka(gavel.settings, None, with_log=False) if check.name == "access"
        )
        assert (access.ok, access.found) == (False, "3 permissions that nothing declares")
        assert take_surplus_away(gavel.settings) == len(planted)
        assert gavel.reaches(gavel.as_insider("feed")) == meant_for("feed")
        assert insiders_lack(gavel.settings, Everyone()) == InsidersMade(users=(), grants=0)
        assert take_surplus_away(gavel.settings) == 0
        left = admin.delete_acls([outsiders_own, nobody_of_ours])
        assert [len(matching) for _, matching, _ in left] == [1, 1]


def _permission(
    principal: str,
    operation: ACLOperation,
    name: str,
    pattern: ACLResourcePatternType = ACLResourcePatternType.LITERAL,
) -> ACL:
    resource = ResourcePattern(ResourceType.TOPIC, NAMESPACE + name, pattern)
    return ACL(principal, "*", operation, ACLPermissionType.ALLOW, resource)


def test_who_is_no_administrator_is_told_that_brokers_do_not_show_it_their_settings(gavel: Gavel) -> None:
    acme = admission.Outsiders(sources=(), buyers=("acme",))
    assert topics_that_keep_longer(gavel.settings, acme) == []
    with pytest.raises(BusFailed, match="may this user describe configurations"):
        compare_topics(gavel.as_insider("operator"), gavel.settings.topics, acme)


def test_a_kafka_without_access_lists_is_its_operators_business(stack: Stack) -> None:
    plain = StepSettings(kafka=stack.kafka, kafka_config=stack.kafka_config, database=stack.database)
    if stack.kafka_config is not None:
        pytest.skip("the Kafka of these tests has doors")
    assert let_insiders_in(plain) is None
    with pytest.raises(NoDoors, match="no authorizer"):
        admission.admit(plain, [Outsider(family=Family.BUYERS, id="acme")])


def readable_by(connection: Connection, topic: str) -> bool:
    """Tell whether a user can read a topic, as soon as the broker knows it."""
    until(lambda: _lets_in(connection))
    with asking(connection) as client:
        return readable(client, [NAMESPACE + topic]) == [NAMESPACE + topic]


def _lets_in(connection: Connection) -> bool:
    try:
        with asking(connection, within_ms=2_000):
            return True
    except PythonKafkaError:
        return False


def _is_refused(message: Any) -> bool:
    return (
        message is not None
        and message.error() is not None
        and message.error().code()
        in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        )
    )


def _controller_answers(data: Path) -> bool:
    """Ask a controller about its cluster, without saying who asks."""
    asked = DescribeClusterRequest(include_cluster_authorized_operations=False, endpoint_type=2, version=1)
    asked.with_header(correlation_id=1)
    port = Folder(data).remembered().controller_ports[0]
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as connection:
        connection.sendall(asked.encode(header=True, framed=True))
        try:
            return bool(connection.recv(4))
        except ConnectionResetError:
            return False
