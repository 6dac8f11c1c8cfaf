"""`gavel dlq` on real Kafka: what it says, what it hides, and what it sends back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer
from typer.testing import CliRunner, Result

from deploy.local.stack import Stack
from services.bus.dead_letters import dead_letter
from services.bus.dead_letters_cli import MISUSED, app
from services.bus.kafka import LogProducer
from services.bus.ports import Record
from tests.support.hosting import Cluster

CONTENT = "ada@example.com"
AT_MS = 1_790_000_000_000


class Desk:
    """A source's topic with dead letters, and the command line."""

    def __init__(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GAVEL_KAFKA", cluster.kafka)
        monkeypatch.setenv("GAVEL_NAMESPACE", cluster.namespace)
        self.cluster = cluster
        self.topic = cluster.create("sources.sunform.leads", 2)
        self.letters = cluster.create("sources.sunform.leads.dlq", 2)
        cluster.create("buyers.acme.answers.dlq", 1)

    def bury(self, count: int, *, error_class: str = "Undecodable") -> None:
        """Write dead letters, in turn for the two partitions, that hold contact details wherever they can."""
        contents = CONTENT.encode()
        LogProducer(self.cluster.connection).publish(
            [
                dead_letter(
                    Record(
                        self.topic,
                        at % 2,
                        at // 2,
                        contents,
                        b"%d %s" % (at, contents),
                        (("from", contents),),
                        AT_MS,
                    ),
                    topic=self.letters,
                    partitions=2,
                    stage="intake",
                    error_class=error_class,
                    message="not JSON",
                    attempts=1,
                    at_ms=AT_MS,
                )
                for at in range(count)
            ]
        )

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    def answer(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def back(self) -> dict[int, list[str]]:
        """Read what stands in the source's topic, with a client that has no part in this."""
        consumer = KafkaConsumer(
            self.topic,
            bootstrap_servers=self.cluster.kafka,
            auto_offset_reset="earliest",
            consumer_timeout_ms=2_000,
            group_id=None,
        )
        found: dict[int, list[str]] = {}
        for record in consumer:
            found.setdefault(record.partition, []).append(record.value.decode())
        consumer.close()
        return found


@pytest.fixture
def desk(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    cluster = Cluster(stack.kafka, tmp_path)
    yield Desk(cluster, monkeypatch)
    cluster.delete()


def test_lists_counts_and_reasons_of_every_topic_and_no_contents(desk: Desk) -> None:
    desk.bury(5)
    desk.bury(2, error_class="TooLarge")
    assert [
        (row["topic"], row["error_class"], row["letters"], row["redriven"]) for row in desk.answer("list")
    ] == [
        (desk.letters, "TooLarge", 2, 0),
        (desk.letters, "Undecodable", 5, 0),
    ]
    listed = desk.run("list")
    assert "Undecodable" in listed.stdout
    assert CONTENT not in listed.stdout


def test_says_that_there_are_none(desk: Desk) -> None:
    assert desk.run("list").stdout == "no dead letters\n"
    assert desk.answer("list") == []


def test_shows_what_went_wrong_and_reveals_contents_only_when_asked(desk: Desk) -> None:
    desk.bury(3)
    shown = desk.run("show", desk.letters)
    assert shown.stdout.count("not JSON") == 3
    assert CONTENT not in shown.stdout
    [revealed] = desk.answer("show", desk.letters, "--reveal", "--partition", "1")
    assert (revealed["key"], revealed["value"]) == (CONTENT, f"1 {CONTENT}")
    assert revealed["headers"] == {"from": CONTENT}
    assert revealed["from"] == f"{desk.topic} partition 1 offset 0"


def test_redrives_once_and_says_what_went_before(desk: Desk) -> None:
    desk.bury(4)
    assert "4 dead letters would go back" in desk.run("redrive", desk.letters, "--dry-run").stdout
    assert desk.back() == {}
    assert len(desk.answer("redrive", desk.letters)["sent"]) == 4
    again = desk.answer("redrive", desk.letters)
    assert (len(again["sent"]), len(again["sent_before"])) == (0, 4)
    assert desk.back() == {0: [f"0 {CONTENT}", f"2 {CONTENT}"], 1: [f"1 {CONTENT}", f"3 {CONTENT}"]}
    assert desk.answer("list")[0]["redriven"] == 4


def test_redrives_only_what_was_chosen(desk: Desk) -> None:
    desk.bury(6)
    desk.bury(1, error_class="TooLarge")
    assert desk.answer("redrive", desk.letters, "--error", "TooLarge")["sent"] == [
        {"partition": 0, "offset": 3}
    ]
    chosen = desk.answer(
        "redrive", desk.letters, "--partition", "1", "--from", "1", "--to", "2", "--limit", "1"
    )
    assert chosen["sent"] == [{"partition": 1, "offset": 1}]
    assert chosen["more"] is True


@pytest.mark.parametrize("command", ["show", "redrive"])
def test_a_topic_that_holds_no_dead_letters_is_wrongly_asked_for(desk: Desk, command: str) -> None:
    for name in (desk.topic, "nowhere", f"{desk.cluster.namespace}sources.nobody.leads.dlq"):
        result = desk.run(command, name)
        assert result.exit_code == MISUSED
        assert "gavel dlq list" in result.stderr
