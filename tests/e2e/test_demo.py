"""The demo sells, checks and cleans up; it can fail, and whatever ends it leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from deploy.local.stack import Stack, environment
from services.bus.kafka import Connection
from services.cli.outsiders import Outbox, read
from services.contract.topics import Topics

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ENDS_WITHIN_S = 200.0
STOPS_WITHIN_S = 60.0


@dataclass(slots=True)
class Demo:
    """A demo under way, as another process."""

    process: subprocess.Popen[str]
    data: Path

    def workers(self) -> list[psutil.Process]:
        """Find the processes of its steps."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if any("services." in part for part in child.cmdline())]
        except psutil.Error:
            return []

    def namespace(self) -> str:
        """Read which namespace its workers were given."""
        return str(self.wait_for(self.workers)[0].environ()["GAVEL_NAMESPACE"])

    def wait_for(self, found: Callable[[], Any]) -> Any:
        """Ask until the answer is something, as long as the demo runs."""
        deadline_s = time.monotonic() + ENDS_WITHIN_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            if answer := found():
                return answer
            time.sleep(0.05)  # a look at the process table costs as much
        raise AssertionError(f"the demo ended meanwhile: {self.process.communicate()}")

    def end(self, within_s: float = ENDS_WITHIN_S) -> tuple[int, str, str]:
        """Wait for its end; give exit code, answer and everything else."""
        out, err = self.process.communicate(timeout=within_s)
        return self.process.returncode, out, err


@pytest.fixture
def start(stack: Stack, tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start demos that use the servers there are; what a test leaves running is ended."""
    started: list[Demo] = []

    def demo(*arguments: str, servers: bool = True) -> Demo:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GAVEL_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "demo", "--data", str(tmp_path / "demo"), *arguments],
            env={**kept, **(environment(stack) if servers else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Demo(process, tmp_path / "demo"))
        return started[-1]

    yield demo
    for each in started:
        if each.process.poll() is None:
            each.process.send_signal(signal.SIGTERM)
            each.process.communicate(timeout=STOPS_WITHIN_S)


def left_behind(stack: Stack, namespace: str) -> list[str]:
    """Find topics and databases of a namespace."""
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    topics = [name for name in admin.list_topics(timeout=10.0).topics if name.startswith(namespace)]
    database = f"gavel_demo_{namespace.removeprefix('demo-').removesuffix('.')}"
    with psycopg.connect(stack.database) as connection:
        rows = connection.execute("select datname from pg_database where datname = %s", [database])
        return [*topics, *(name for (name,) in rows)]


def test_the_demo_sells_checks_its_guarantees_and_cleans_up(stack: Stack, start: Callable[..., Demo]) -> None:
    code, out, err = start("--leads", "150", "--json").end()
    assert (code, err) == (0, "")
    report = json.loads(out)
    leads = report["leads"]
    assert leads["sent"] == 153
    assert leads["undecodable"] == 3
    assert leads["accepted"] + leads["sent_again"] + sum(leads["declined"].values()) == 150
    assert sum(leads["closed"].values()) == leads["accepted"]
    assert all(check["holds"] for check in report["checks"])
    assert sum(plan["leads_accepted"] for plan in report["plans"]) == leads["accepted"]
    assert sum(buyer["leads"] for buyer in report["buyers"]) == sum(plan["sales"] for plan in report["plans"])
    kinds = [line["kind"] for line in report["story"]["lines"]]
    assert (kinds[0], kinds.count("LeadClosed")) == ("LeadListed", 1)
    assert left_behind(stack, report["namespace"]) == []


def test_the_demo_tells_people_in_tables_and_keeps_up_until_ctrl_c(
    stack: Stack, start: Callable[..., Demo]
) -> None:
    demo = start("--leads", "40", "--keep")
    namespace = demo.namespace()
    exported = demo.wait_for(
        lambda: (demo.data / "demo.env").exists() and (demo.data / "demo.env").read_text()
    )
    assert f"GAVEL_NAMESPACE={namespace}" in exported
    demo.process.send_signal(signal.SIGINT)
    code, out, _ = demo.end(STOPS_WITHIN_S)
    assert code == 130
    for words in (
        "How the leads closed",
        "What each plan brought",
        "What each buyer bought",
        "whole story",
        "holds",
    ):
        assert words in out
    assert "gavel lead show" in out
    assert left_behind(stack, namespace) == []


def test_a_lead_that_got_to_one_buyer_too_many_makes_the_demo_fail(
    stack: Stack, start: Callable[..., Demo]
) -> None:
    demo = start("--leads", "60", "--json")
    topics = Topics(demo.namespace())
    forge_a_second_holder(Connection(bootstrap=stack.kafka), topics)
    code, out, err = demo.end()
    assert code == 1
    broken = [check["guarantee"] for check in json.loads(out)["checks"] if not check["holds"]]
    assert any("exclusive" in guarantee for guarantee in broken)
    assert "BROKEN" in err


def forge_a_second_holder(connection: Connection, topics: Topics) -> None:
    """Deliver a buyer's exclusive lead to another buyer, too, as the worst of routers might."""
    for batch in read(connection, [topics.buyer_leads("harbor")], follow=True):
        for record in batch:
            body = json.loads(record.value)
            if body["type"] == "lead" and body["terms"]["mode"] == "exclusive":
                body["terms"] |= {"sale_number": 2, "sales_max": 2}
                body["sale_id"] = "00000000-0000-5000-8000-000000000000"
                with Outbox(connection, [topics.buyer_leads("oak")]) as outbox:
                    outbox.send(topics.buyer_leads("oak"), json.dumps(body).encode())
                return


def test_a_worker_that_dies_is_named_with_its_log(stack: Stack, start: Callable[..., Demo]) -> None:
    demo = start("--leads", "60")
    namespace = demo.namespace()
    log = demo.data / "logs" / "billing.log"
    demo.wait_for(lambda: log.exists() and "assigned" in log.read_text())
    (billing,) = [worker for worker in demo.workers() if "services.billing" in worker.cmdline()]
    billing.kill()
    code, out, err = demo.end(STOPS_WITHIN_S)
    assert (code, out) == (1, "")
    assert "The worker billing has ended, with exit code -9" in err
    assert f"{log}, ends:" in err
    assert left_behind(stack, namespace) == []


def test_ctrl_c_while_selling_ends_everything(stack: Stack, start: Callable[..., Demo]) -> None:
    demo = start("--leads", "60")
    namespace = demo.namespace()
    log = demo.data / "logs" / "router-1.log"
    demo.wait_for(lambda: log.exists() and "assigned" in log.read_text())
    workers = demo.workers()
    for _ in range(3):  # nobody presses it only once
        demo.process.send_signal(signal.SIGINT)
    code, _, err = demo.end(STOPS_WITHIN_S)
    assert code == 130
    assert "Traceback" not in err
    assert not any(worker.is_running() for worker in workers)
    assert left_behind(stack, namespace) == []


def test_ctrl_c_while_workers_start_leaves_none(start: Callable[..., Demo]) -> None:
    demo = start("--leads", "60")
    workers = demo.wait_for(demo.workers)
    demo.process.send_signal(signal.SIGINT)
    code, _, err = demo.end(STOPS_WITHIN_S)
    assert (code, "Traceback" in err) == (130, False)
    assert not any(worker.is_running() for worker in workers)
    assert workers_of(demo.data) == []


def test_ctrl_c_while_the_servers_start_stops_them(start: Callable[..., Demo]) -> None:
    demo = start(servers=False)
    demo.wait_for(lambda: servers_of(demo.data))
    demo.process.send_signal(signal.SIGINT)
    code, _, err = demo.end(STOPS_WITHIN_S)
    assert (code, "Traceback" in err) == (130, False)
    assert servers_of(demo.data) == []


def test_the_demo_sells_behind_doors_on_servers_of_its_own(start: Callable[..., Demo]) -> None:
    demo = start("--leads", "60", "--json", servers=False)
    worker = demo.wait_for(demo.workers)[0]
    folder = Path(worker.environ()["GAVEL_KAFKA_CONFIG"])
    assert (folder / "admin.properties").stat().st_mode & 0o777 == 0o600
    code, out, err = demo.end()
    assert (code, err) == (0, "")
    assert all(check["holds"] for check in json.loads(out)["checks"])
    assert servers_of(demo.data) == []
    properties = (demo.data / "kafka-1" / "server.properties").read_text()
    assert "allow.everyone.if.no.acl.found=false" in properties


def test_a_second_demo_in_the_same_folder_is_refused(start: Callable[..., Demo]) -> None:
    first = start("--leads", "40")
    first.wait_for(first.workers)
    code, _, err = start("--leads", "40").end(STOPS_WITHIN_S)
    assert code == 1
    assert "A demo is running in" in err
    first.process.send_signal(signal.SIGTERM)
    assert first.end(STOPS_WITHIN_S)[0] == 130


def servers_of(data: Path) -> list[int]:
    """Find servers whose command line names the folder."""
    return _processes(lambda parts: any("gavel.server=" in part and str(data) in part for part in parts))


def workers_of(data: Path) -> list[int]:
    """Find workers whose environment names the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GAVEL_DATA") == str(data) and "services.cli" not in process.cmdline():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _processes(wanted: Callable[[list[str]], bool]) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if wanted(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
