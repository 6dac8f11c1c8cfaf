"""The command line from an empty database to a lead's end: apply, send, offer, answer, tell, withdraw, verify."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from deploy.local.stack import Stack, environment
from services.bus.kafka import Connection
from services.bus.settings import StepSettings
from services.cli.complaints import Complaint
from services.cli.demo_interruptions import Interruptions
from services.cli.demo_workers import Workers, are_ready
from services.cli.lead_commands import read_story
from services.cli.outsiders import read
from services.cli.story import LocalClock
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

WAIT_S = 60.0
MARKET = """
market: {currency: USD, timezone: America/New_York}
lead_types:
  roofing:
    contact: [first_name, email, phone]
    details: {state: us_state}
    ping: [state]
    contact_kept: 180d
    returns: {within: 7d, reasons: [duplicate], approve: operator}
    plans:
      - name: staggered
        sales_max: 2
        stages:
          - {sell: exclusive, price: 70.00, accept_within: 10m, exclusive_for: 72h}
          - {sell: shared, price: 30.00}
  solar:
    contact: [first_name, email, phone]
    details: {state: us_state}
    ping: [state]
    contact_kept: 180d
    plans:
      - {name: once, stages: [{sell: exclusive, price: 50.00}]}
sources:
  web: {lead_types: [roofing, solar]}
buyers:
  oak:
    timezone: America/Chicago
    orders: {alone: {lead_type: roofing, takes: {exclusive: list}}}
  elm:
    timezone: America/Chicago
    orders: {shared: {lead_type: roofing, takes: {shared: list}}}
  ash:
    timezone: America/Chicago
    account: {prepaid: true}
    orders:
      sunny: {lead_type: solar, takes: {exclusive: list}, caps: {leads_per_day: 2}}
      rainy: {lead_type: solar, where: {state: WA}, takes: {exclusive: list}}
"""


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs `gavel` with a Gavel's environment."""

    environment: dict[str, str]
    folder: Path

    def gavel(self, *arguments: str, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "services.cli", *arguments],
            env={**os.environ, **self.environment, **more},
            input=given,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )

    def answer(self, *arguments: str, given: str = "", **more: str) -> Any:
        """Run a command that must succeed, and read its JSON."""
        done = self.gavel(*arguments, "--json", given=given, **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def send(self, reference: str, lead_type: str = "roofing") -> None:
        """Send a lead."""
        contact = {"first_name": "Ada", "email": f"{reference}@example.org", "phone": "212-555-0123"}
        lead = {
            "lead_type": lead_type,
            "reference": reference,
            "contact": contact,
            "details": {"state": "NY"},
        }
        assert self.answer("source", "send", "web", "-", given=json.dumps(lead) + "\n")["sent"] == 1

    def settings(self) -> StepSettings:
        """What this process needs to look by itself, which is faster than a command."""
        return StepSettings(
            kafka=self.environment["GAVEL_KAFKA"],
            database=self.environment["GAVEL_DATABASE"],
            namespace=self.environment["GAVEL_NAMESPACE"],
        )

    def receipts(self) -> list[dict[str, Any]]:
        """Read what the source was told."""
        found = self.settings()
        topic = found.topics.source_receipts("web")
        return [json.loads(record.value) for batch in read(found.connection(), [topic]) for record in batch]

    def accepted(self, reference: str, lead_type: str = "roofing") -> str:
        """Send a lead, and give its id once it is accepted."""
        self.send(reference, lead_type)
        told = self.told_of(reference)
        assert told["happened"] == [{"type": "accepted"}]
        return str(told["lead_id"])

    def told_of(self, reference: str) -> dict[str, Any]:
        """Wait for the first that the source is told of a lead."""
        told = wait_for(lambda: [each for each in self.receipts() if each.get("reference") == reference])
        found: dict[str, Any] = told[0]
        return found

    def kinds(self, lead_id: str) -> list[str]:
        """Read a lead's story, as far as it goes."""
        try:
            return [line.kind for line in read_story(self.settings(), lead_id, LocalClock(UTC)).lines]
        except Complaint:
            return []


def wait_for(found: Callable[[], Any]) -> Any:
    """Ask until the answer is something."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        if answer := found():
            return answer
    raise AssertionError(f"nothing came within {WAIT_S:.0f} s")


@pytest.fixture(scope="module")
def shell(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An empty database, no topics, and the market's file."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "market.yaml").write_text(MARKET)
    namespace = f"t-cli-{os.getpid()}-{time.time_ns() % 10**9}."
    with fresh_database(stack.database) as database:
        yield Shell({**environment(stack), "GAVEL_DATABASE": database, "GAVEL_NAMESPACE": namespace}, folder)
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    topics = [name for name in admin.list_topics(timeout=10.0).topics if name.startswith(namespace)]
    for deleted in admin.delete_topics(topics).values():
        deleted.result()


@pytest.fixture(scope="module")
def running(shell: Shell) -> Iterator[Shell]:
    """The market applied on the empty database, and a worker of every step."""
    dry = shell.gavel("market", "apply", str(shell.folder / "market.yaml"), "--dry-run")
    assert dry.returncode == 1
    assert "The database is not set up" in dry.stderr
    applied = shell.gavel("market", "apply", str(shell.folder / "market.yaml"), "--json")
    assert applied.returncode == 0, applied.stderr
    assert "The database was empty: set it up first" in applied.stderr
    assert json.loads(applied.stdout)["version"] == 1
    interruptions = Interruptions()
    try:
        with Workers(
            environment=shell.environment, logs=shell.folder, interruptions=interruptions
        ) as workers:
            workers.start([["intake"], ["router"], ["resale", "billing", "feed"]])
            connection = Connection(bootstrap=shell.environment["GAVEL_KAFKA"])
            namespace = shell.environment["GAVEL_NAMESPACE"]
            wait_for(lambda: are_ready(connection, namespace, workers.all))
            yield shell
            workers.require_all()
    finally:
        interruptions.give_back()


def test_a_second_setup_and_a_second_apply_change_nothing(running: Shell) -> None:
    setup = running.answer("setup")
    assert (setup["migrations"], setup["topics"]["created"], setup["topics"]["differences"]) == ([], [], [])
    again = running.gavel("market", "apply", str(running.folder / "market.yaml"))
    assert "no change: version 1" in again.stdout


def test_a_buyer_takes_its_offer_and_the_story_tells_it(running: Shell) -> None:
    lead_id = running.accepted("taken")
    wait_for(lambda: "OfferMade" in running.kinds(lead_id))
    answered = running.answer("buyer", "answer", "oak", "accept", lead_id)
    assert answered["sent"] == {"type": "accept_offer", "lead_id": lead_id, "offer_number": 1}
    wait_for(lambda: "LeadSold" in running.kinds(lead_id))

    lines = running.gavel("buyer", "listen", "oak", "--from-beginning", "--limit", "1", "--json").stdout
    delivery = json.loads(lines)
    assert delivery["lead"]["contact"]["email"] == "taken@example.org"
    told = running.gavel("lead", "show", lead_id, "--timezone", "America/New_York")
    assert "told from the database (router.log)" in told.stdout
    assert f"Its trace is {lead_id.replace('-', '')}." in told.stdout
    for words in (
        "Listed:",
        "Offered to oak",
        "Sold to oak",
        "Nobody else may get it before",
        "oak gets the lead",
    ):
        assert words in told.stdout
    assert "@example.org" not in told.stdout


def test_a_lead_is_told_from_the_topic_where_the_database_does_not_answer(running: Shell) -> None:
    lead_id = running.accepted("from-the-topic")
    wait_for(lambda: "OfferMade" in running.kinds(lead_id))
    there = running.answer("lead", "show", lead_id)
    story = running.answer("lead", "show", lead_id, GAVEL_DATABASE="postgresql://127.0.0.1:1/nothing")
    assert story["read_from"].startswith("the topic")
    assert story["lines"] == there["lines"]


def test_a_withdrawn_lead_is_closed_and_its_source_told(running: Shell) -> None:
    lead_id = running.accepted("withdrawn")
    wait_for(lambda: "OfferMade" in running.kinds(lead_id))
    assert running.answer("lead", "withdraw", lead_id)["reason"] == "operator"
    wait_for(lambda: "LeadClosed" in running.kinds(lead_id))
    happened = wait_for(
        lambda: [
            item
            for receipt in running.receipts()
            if receipt["lead_id"] == lead_id
            for item in receipt["happened"]
            if item["type"] == "closed"
        ]
    )
    assert happened[0]["outcome"] == "withdrawn"


def test_an_unknown_lead_is_told_with_what_to_do(running: Shell) -> None:
    unknown = "00000000-0000-5000-8000-000000000000"
    shown, withdrawn = running.gavel("lead", "show", unknown), running.gavel("lead", "withdraw", unknown)
    assert (shown.returncode, withdrawn.returncode) == (1, 1)
    assert "gavel source receipts" in shown.stderr
    assert "--early" in withdrawn.stderr


def test_an_unknown_source_is_told_with_what_to_do(running: Shell) -> None:
    done = running.gavel("source", "send", "nobody", "-", given="{}\n")
    assert done.returncode == 1
    assert "There is no topic" in done.stderr
    assert "gavel market apply" in done.stderr


def test_a_file_with_a_line_that_is_no_json_is_not_sent_at_all(running: Shell) -> None:
    file = running.folder / "broken.jsonl"
    file.write_text('{"lead_type": "roofing"}\nnot json\n')
    done = running.gavel("source", "send", "web", str(file))
    assert done.returncode == 1
    assert f"{file}, line 2: not JSON" in done.stderr
    assert "Nothing was sent" in done.stderr


def test_raw_lines_are_sent_as_they_are_and_become_dead_letters(running: Shell) -> None:
    assert running.answer("source", "send", "web", "-", "--raw", given="not json\n")["sent"] == 1
    listed = wait_for(lambda: running.gavel("dlq", "list").stdout)
    assert "sources.web.leads" in listed


def test_entries_published_again_are_repeats_to_every_reader(running: Shell) -> None:
    lead_id = running.accepted("again")
    wait_for(lambda: "OfferMade" in running.kinds(lead_id))
    partition = str(running.answer("lead", "show", lead_id)["partition"])
    before = running.answer("log", "verify")
    assert before["whole"]

    dry = running.answer("log", "republish", "--partition", partition, "--from", "1", "--dry-run")
    done = running.answer("log", "republish", "--partition", partition, "--from", "1")
    assert dry["entries"] == done["entries"] >= 1

    after = running.answer("log", "verify")
    assert after["whole"]
    assert after["partitions"][int(partition)]["repeats"] == done["entries"]
    assert after["entries"] >= before["entries"]


def test_what_was_never_published_cannot_be_published_again(running: Shell) -> None:
    done = running.gavel("log", "republish", "--partition", "0", "--from", "1000000")
    assert done.returncode == 1
    assert "is published up to entry" in done.stderr


# An account, an order's limits, and why.


def why(shell: Shell, lead_id: str, buyer_id: str, order_id: str) -> list[str]:
    """Say what decided about an order, attempt by attempt."""
    told = shell.answer("lead", "show", lead_id, "--why", buyer_id)
    attempts = [answer for answer in told["answers"] if answer["kind"] == "attempt"]
    return [
        order["decisive"] for attempt in attempts for order in attempt["orders"] if order["order"] == order_id
    ]


def test_a_deposit_is_booked_once_and_may_be_spent_to_the_last_cent(running: Shell) -> None:
    unsold = running.accepted("before-the-deposit", "solar")
    wait_for(lambda: "LeadClosed" in running.kinds(unsold))
    assert why(running, unsold, "ash", "ash/sunny") == ["no_room"]
    assert why(running, unsold, "ash", "ash/rainy") == ["filter"]

    booked = running.answer("billing", "deposit", "ash", "60.00", "--reference", "bank-1")
    assert (booked["booked_before"], booked["account"]["room"]) == (False, "60.00")
    again = running.answer("billing", "deposit", "ash", "60.00", "--reference", "bank-1")
    assert (again["booked_before"], again["account"], again["booked_at"]) == (
        True,
        booked["account"],
        booked["booked_at"],
    )
    corrected = running.answer("billing", "adjust", "ash", "-10.00", "--reference", "slip-1")
    assert corrected["account"]["balance"] == "50.00"

    sold = running.accepted("after-the-deposit", "solar")
    wait_for(lambda: "LeadSold" in running.kinds(sold))
    assert why(running, sold, "ash", "ash/sunny") == ["sold"]
    shown = running.answer("order", "show", "ash/sunny")
    assert shown["account"]["room"] == "0.00"
    assert [(cap["cap"], cap["used"], cap["most"]) for cap in shown["caps"]] == [("leads_per_day", 1, 2)]
    assert shown["hindrances"] == ["its buyer's account is used up"]
    assert "leads_per_day" in running.gavel("order", "show", "ash/sunny").stdout


def test_a_reference_that_is_booked_otherwise_already_is_told_with_what_it_booked(running: Shell) -> None:
    running.answer("billing", "deposit", "ash", "0.01", "--reference", "bank-2")
    other = running.gavel("billing", "deposit", "ash", "70.00", "--reference", "bank-2")
    assert other.returncode == 1
    assert "is booked already, as another deposit: 0.01 USD" in other.stderr
    unknown = running.gavel("billing", "deposit", "asch", "1.00", "--reference", "x")
    assert (unknown.returncode, "did you mean ash?" in unknown.stderr) == (1, True)


def test_every_decision_about_a_lead_is_executed_again_and_is_identical(running: Shell) -> None:
    lead_id = running.accepted("replayed")
    wait_for(lambda: "OfferMade" in running.kinds(lead_id))
    running.answer("buyer", "answer", "oak", "accept", lead_id)
    wait_for(lambda: "LeadSold" in running.kinds(lead_id))
    answer = running.answer("lead", "replay", lead_id)
    assert answer["identical"]
    assert [entry["verdict"] for entry in answer["entries"]] == ["identical"] * len(answer["entries"])
    assert {entry["cause"] for entry in answer["entries"]} == {"qualified", "command"}
    assert why(running, lead_id, "oak", "oak/alone") == ["offered"]
    assert why(running, lead_id, "elm", "elm/shared") == ["mode"]
    stranger = running.gavel("lead", "show", lead_id, "--why", "ash")
    assert (stranger.returncode, "had no order for roofing" in stranger.stdout) == (0, True)


# Returns, and pausing.


def test_a_return_waits_for_an_operator_who_approves_it_once(running: Shell) -> None:
    lead_id = running.accepted("returned")
    wait_for(lambda: "OfferMade" in running.kinds(lead_id))
    running.answer("buyer", "answer", "oak", "accept", lead_id)
    wait_for(lambda: "LeadSold" in running.kinds(lead_id))
    nothing = running.gavel("return", "approve", lead_id, "1")
    assert (nothing.returncode, "has not asked" in nothing.stderr) == (1, True)

    running.answer("buyer", "answer", "oak", "return", lead_id, "--reason", "duplicate")
    pending = wait_for(
        lambda: [each for each in running.answer("return", "list")["returns"] if each["lead_id"] == lead_id]
    )
    assert [(each["sale_number"], each["buyer"], each["reason"]) for each in pending] == [
        (1, "oak", "duplicate")
    ]
    approved = running.answer("return", "approve", lead_id, "1")
    assert (approved["decision"], approved["refund"]) == ("approved", "70.00")
    again = running.gavel("return", "refuse", lead_id, "1")
    assert (again.returncode, "credited already" in again.stderr) == (1, True)
    decided = wait_for(
        lambda: [
            each
            for each in running.answer("return", "list", "--which", "approved")["returns"]
            if each["lead_id"] == lead_id
        ]
    )
    assert decided[0]["refund"] == "70.00"


def test_a_paused_source_sends_in_vain_until_it_is_resumed(running: Shell) -> None:
    dry = running.answer("source", "pause", "web", "--dry-run")
    assert [change["path"] for change in dry["changes"]] == ["sources.web.paused"]
    paused = running.gavel("source", "pause", "web")
    assert f"version {dry['version']} is in force" in paused.stdout
    assert "does not say `paused: yes`" in paused.stderr
    assert "no change" in running.gavel("source", "pause", "web").stdout

    numbers = iter(range(1_000))

    def declined() -> list[dict[str, Any]]:
        reference = f"while-paused-{next(numbers)}"
        running.send(reference)
        return [item for item in running.told_of(reference)["happened"] if item["type"] == "declined"]

    assert wait_for(declined)[0]["reason"] == "source_paused"
    resumed = running.answer("source", "resume", "web")
    assert resumed["version"] == dry["version"] + 1


def test_a_paused_order_buys_nothing_until_it_is_resumed(running: Shell) -> None:
    running.answer("order", "pause", "oak/alone")
    lead_id = running.accepted("while-the-order-sleeps")
    wait_for(lambda: "LeadClosed" in running.kinds(lead_id) or "LeadSold" in running.kinds(lead_id))
    assert why(running, lead_id, "oak", "oak/alone")[0] == "paused"
    assert running.answer("order", "show", "oak/alone")["hindrances"] == ["it is paused"]
    running.answer("order", "resume", "oak/alone")
    assert running.answer("order", "show", "oak/alone")["buys_now"]
