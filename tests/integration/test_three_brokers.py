"""Three brokers behind doors, on this machine: what is made while one of them is away has its copies all the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from deploy.local import kafka, processes
from deploy.local import stack as local_stack
from deploy.local.folder import Folder
from deploy.local.stack import Stack
from services.bus.administration import administrator, compare_topics, create_topics
from services.bus.kafka import LogProducer
from services.bus.ports import Message
from services.bus.settings import StepSettings
from services.cli.insiders import administration, let_insiders_in

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

WITHIN_S = 60.0
AWAY = 1


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A secured cluster of three, with a folder of its own."""
    data = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("GAVEL_KAFKA", "GAVEL_KAFKA_CONFIG", "GAVEL_KAFKA_USER"):
            environment.delenv(name, raising=False)
        try:
            yield local_stack.up(data, brokers=3, secured=True, seconds=WITHIN_S * 2)
        finally:
            local_stack.down(data)


@pytest.fixture
def settings(stack: Stack) -> StepSettings:
    return StepSettings(
        kafka=stack.kafka, kafka_config=stack.kafka_config, database=stack.database, namespace="t-three."
    )


def until(is_so: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < ends_at_s, "it did not come"
        time.sleep(0.1)


def _brokers(settings: StepSettings) -> int:
    with administrator(administration(settings)) as admin:
        return sum(not broker["is_fenced"] for broker in admin.describe_cluster()["brokers"])


def _copies(settings: StepSettings, kind: str) -> set[int]:
    topics = [topic.name for topic in compare_topics(administration(settings), settings.topics, None).wanted]
    with administrator(administration(settings)) as admin:
        return {
            len(partition[kind])
            for topic in admin.describe_topics(topics)
            for partition in topic["partitions"]
        }


def test_what_is_made_while_a_broker_is_away_has_three_copies_and_is_written(
    stack: Stack, settings: StepSettings
) -> None:
    assert _brokers(settings) == 3
    processes.stop(kafka.server(Folder(stack.data_dir), AWAY))
    until(lambda: _brokers(settings) == 2)
    made = create_topics(administration(settings), settings.topics)
    assert (made.present, made.differences) == (0, ())
    assert (_copies(settings, "replica_nodes"), _copies(settings, "isr_nodes")) == ({3}, {2})
    let_insiders_in(settings)
    router = LogProducer(settings.as_insider("router").connection(), client_id="three")
    router.publish([Message(settings.topics.log, 0, None, b"written by two of three")], timeout_s=WITHIN_S)
    local_stack.up(stack.data_dir, seconds=WITHIN_S * 2)
    until(lambda: _copies(settings, "isr_nodes") == {3})
