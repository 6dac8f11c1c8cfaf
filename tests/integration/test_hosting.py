"""A hosted step on real Kafka: nothing is lost or handled twice, and whatever goes wrong ends the process."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.stack import Stack
from services.bus.administration import announce
from services.contract.topics import Topics
from tests.support.hosting import PARTITIONS, Cluster, Worker, wait_until

pytestmark = pytest.mark.timeout(400)
ALL = set(range(PARTITIONS))


@pytest.fixture
def cluster(stack: Stack, tmp_path: Path) -> Iterator[Cluster]:
    """A namespace with the registry that each worker needs."""
    cluster = Cluster(stack.kafka, tmp_path)
    cluster.create("registry", 1)
    yield cluster
    cluster.delete()


@pytest.fixture
def leads(cluster: Cluster) -> str:
    return cluster.create("leads.qualified")


def wait_seen(cluster: Cluster, topic: str, count: int) -> None:
    wait_until(f"{count} records of {topic}", lambda: cluster.seen_count(topic) >= count)


def assert_each_once_in_order(cluster: Cluster, topic: str, count: int) -> None:
    assert cluster.seen(topic) == {at: list(range(count // PARTITIONS)) for at in ALL}


def test_two_workers_share_the_partitions_and_nothing_is_lost(cluster: Cluster, leads: str) -> None:
    """A joins, B joins, A leaves, while records come in all the time."""
    commands = cluster.create("leads.commands")
    read = {"topics": [leads], "partners": [commands]}
    with cluster.worker(**read) as first:
        cluster.fill(leads, 400)
        wait_seen(cluster, leads, 400)
        with cluster.worker(**read) as second:
            cluster.fill(leads, 400)
            cluster.fill(commands, 400)
            wait_until("both own some", lambda: bool(first.owned() and second.owned()))
            wait_until("all is owned", lambda: first.owned() | second.owned() == ALL)
            assert len(first.owned()) == len(second.owned()) == PARTITIONS // 2
            cluster.fill(leads, 400)
            first.signal(signal.SIGTERM)
            assert first.exit_code() == 0
            wait_until("the other owns all", lambda: second.owned() == ALL)
            cluster.fill(commands, 400)
            wait_seen(cluster, leads, 1_200)
            wait_seen(cluster, commands, 800)
    assert_each_once_in_order(cluster, leads, 1_200)
    assert_each_once_in_order(cluster, commands, 800)


def test_partner_topics_go_with_their_partition(cluster: Cluster, leads: str) -> None:
    commands, timers = cluster.create("leads.commands"), cluster.create("leads.timers")
    read = {"topics": [leads], "partners": [commands, timers]}
    with cluster.worker(**read) as first, cluster.worker(**read) as second:
        wait_until("both own half", lambda: len(first.owned()) == len(second.owned()) == PARTITIONS // 2)
        cluster.fill(timers, 40)
        wait_seen(cluster, timers, 40)
        assert first.owned() | second.owned() == ALL
    for event in first.events("take_over") + second.events("take_over"):
        numbers = {number for _, number in event["partitions"]}
        assert {tuple(where) for where, _ in event["starts"]} == {
            (topic, number) for topic in (leads, commands, timers) for number in numbers
        }


def test_a_paused_worker_is_replaced_and_its_old_records_are_void(cluster: Cluster, leads: str) -> None:
    """Paused past its session timeout with records in hand, it must begin again from the stored positions."""
    with cluster.worker(topics=[leads], slow_s=0.2, GAVEL_BATCH_MAX="5") as paused:
        wait_until("it owns all", lambda: paused.owned() == ALL)
        cluster.fill(leads, 200)
        wait_until("it has begun", lambda: len(paused.events("handled")) >= 2)
        paused.signal(signal.SIGSTOP)
        with cluster.worker(topics=[leads]) as other:
            wait_until("the other owns all", lambda: other.owned() == ALL)
            wait_seen(cluster, leads, 190)
            paused.signal(signal.SIGCONT)
            wait_until("it notices", lambda: bool(paused.events("release")))
            wait_until("it is given some again", lambda: len(paused.events("take_over")) > 1)
            cluster.fill(leads, 200)
            wait_seen(cluster, leads, 400)
            assert any(line["event"] == "lost" for line in paused.log())
    assert_each_once_in_order(cluster, leads, 400)


def test_a_paused_worker_does_not_take_itself_for_alive_when_it_wakes(cluster: Cluster, leads: str) -> None:
    with cluster.worker(topics=[leads]) as worker:
        wait_until("it is stopped while it is alive", lambda: is_stopped_alive(worker))
        before = len(alive(worker))
        with cluster.worker(topics=[leads]) as other:
            wait_until("the other owns all", lambda: other.owned() == ALL)
            worker.signal(signal.SIGCONT)
            wait_until("it notices", lambda: len(alive(worker)) > before)
            assert alive(worker)[before] == "not alive"
            wait_until("it is given some again", lambda: len(worker.events("take_over")) > 1)
            wait_until("and is alive again", lambda: alive(worker)[-1] == "alive")
            events = [event["event"] for event in worker.events("alive", "not alive", "release", "take_over")]
            assert events.index("release") < len(events) - 1 - events[::-1].index("alive")


def is_stopped_alive(worker: Worker) -> bool:
    """Stop it when it is alive; let it go on where it was not at that moment, as a starved worker now and then."""
    if alive(worker)[-1:] != ["alive"]:
        return False
    worker.signal(signal.SIGSTOP)
    if alive(worker)[-1] == "alive":
        return True
    worker.signal(signal.SIGCONT)
    return False


def alive(worker: Worker) -> list[str]:
    return [event["event"] for event in worker.events("alive", "not alive")]


def test_a_killed_worker_is_replaced_and_its_records_are_handled_again(cluster: Cluster, leads: str) -> None:
    with cluster.worker(topics=[leads], slow_s=0.1, GAVEL_BATCH_MAX="10") as killed:
        cluster.fill(leads, 400)
        wait_until("it has begun", lambda: len(killed.events("handled")) >= 3)
        killed.signal(signal.SIGKILL)
        killed.exit_code()
    with cluster.worker(topics=[leads]):
        wait_seen(cluster, leads, 400)
    assert_each_once_in_order(cluster, leads, 400)


def test_a_step_that_asks_for_it_begins_again_at_its_position(cluster: Cluster, leads: str) -> None:
    """Somebody moves the stored position back: the step finds that its batch does not follow, and asks."""
    with cluster.worker(topics=[leads]) as worker:
        cluster.fill(leads, 400)
        wait_seen(cluster, leads, 400)
        (cluster.folder / "store" / f"{leads}-0.next").write_text("50")
        cluster.fill(leads, 40)
        wait_seen(cluster, leads, 440 + 50)
        assert any([leads, 0] in event["again"] for event in worker.events("handled"))
        assert worker.events("take_over")[-1]["partitions"] == [[leads, 0]]
    seen = cluster.seen(leads)
    assert seen[0] == [*range(100), *range(50, 110)]
    assert seen[1] == list(range(110))


@pytest.mark.parametrize("fault", ["raise", "stop"])
def test_a_step_that_raises_ends_the_process_with_exit_code_1(
    cluster: Cluster, leads: str, fault: str
) -> None:
    with cluster.worker(topics=[leads], positions="group", fault=fault) as worker:
        cluster.fill(leads, 40)
        assert worker.exit_code() == 1
        stops = [line for line in worker.log() if line["event"] == "the worker stops"]
        assert [line["error"]["class"].rpartition(".")[2] for line in stops] == [
            "ValueError" if fault == "raise" else "Stopped"
        ]
        assert "content" not in worker.err.read_text()
    taken = cluster.seen_count(leads)
    with cluster.worker(topics=[leads], positions="group") as again:
        assert again.exit_code is not None
        wait_seen(cluster, leads, taken + 40)


@pytest.mark.parametrize("fault", ["swallow", "unsubscribe", "cancel agent", "cancel feed"])
def test_a_worker_never_lives_on_in_silence(cluster: Cluster, leads: str, fault: str) -> None:
    """Each of these makes Faust drop batches without a word."""
    with cluster.worker(topics=[leads], fault=fault) as worker:
        cluster.fill(leads, 40)
        assert worker.exit_code() == 1
        assert any(line["event"] == "the worker stops" for line in worker.log())


def test_clearing_fausts_queues_loses_no_batch(cluster: Cluster, leads: str) -> None:
    """Which is what Faust does in a rebalance of its own consumer."""
    with cluster.worker(topics=[leads], fault="clear", slow_s=0.01, GAVEL_BATCH_MAX="5"):
        cluster.fill(leads, 400)
        wait_seen(cluster, leads, 400)
    assert_each_once_in_order(cluster, leads, 400)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_leaves_the_group_and_exits_with_0(
    cluster: Cluster, leads: str, number: signal.Signals
) -> None:
    with cluster.worker(topics=[leads], GAVEL_SESSION_TIMEOUT_MS="30000") as worker:
        wait_until("it owns all", lambda: worker.owned() == ALL)
        worker.signal(number)
        assert worker.exit_code(within_s=15) == 0
        assert worker.owned() == set()
    with cluster.worker(topics=[leads]) as other:
        wait_until("the other need not wait for a timeout", lambda: other.owned() == ALL, within_s=15)


def test_a_worker_that_cannot_stop_in_order_stops_all_the_same(cluster: Cluster, leads: str) -> None:
    with cluster.worker(topics=[leads], fault="hang") as worker:
        cluster.fill(leads, 40)
        wait_until("it hangs", lambda: bool(worker.events("handled")))
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 1


def test_a_busy_step_pauses_reading_and_keeps_its_place_in_the_group(cluster: Cluster, leads: str) -> None:
    port = free_port()
    with cluster.worker(
        topics=[leads], slow_s=0.6, GAVEL_BATCH_MAX="20", GAVEL_BATCH_WAIT_MS="0", GAVEL_WEB_PORT=str(port)
    ) as worker:
        cluster.fill(leads, 2_000)
        wait_until("it paused", lambda: metric(port, "gavel_bus_pauses_total") >= 2)
        wait_until("it went on", lambda: len(worker.events("handled")) >= 8)
        assert max(event["records"] for event in worker.events("handled")) == 20
        assert worker.events("release") == []
        assert len(worker.events("take_over")) == 1
        assert metric(port, "gavel_bus_records_total") >= 140
        assert metric(port, "gavel_bus_alive") == 1
        assert json.loads(get(port, "/healthz"))["batches_under_way"] <= 2


def metric(port: int, name: str) -> float:
    try:
        page = get(port, "/metrics")
    except OSError:
        return -1.0
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name + "{"))


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_health_is_progress_and_a_stuck_worker_is_not_healthy(cluster: Cluster, leads: str) -> None:
    port = free_port()
    with cluster.worker(topics=[leads], GAVEL_WEB_PORT=str(port)) as worker:
        wait_until("it owns all", lambda: worker.owned() == ALL)
        cluster.fill(leads, 40)
        wait_seen(cluster, leads, 40)
        wait_until(
            "its positions are told",
            lambda: json.loads(get(port, "/healthz"))["positions"].get(f"{leads}-0") == 10,
        )
        for address in addresses_of_this_machine():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), timeout=2)


def test_worker_that_waits_for_a_server_is_healthy_and_not_ready_and_says_for_which(
    cluster: Cluster, leads: str
) -> None:
    port = free_port()
    with cluster.worker(
        topics=[leads], fault="pass", fault_after=10, GAVEL_WEB_PORT=str(port), GAVEL_BATCH_MAX="5"
    ) as worker:
        wait_until("it is ready", lambda: status(port, "/readyz") == 200)
        cluster.fill(leads, 400)
        wait_until("it says so where Prometheus looks", lambda: metric(port, "gavel_bus_waits") == 1.0)
        wait_until("it is not ready", lambda: status(port, "/readyz") == 503)
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(port, "/readyz")
        assert json.loads(refused.value.read())["waits_for"] == "the database does not answer"
        assert status(port, "/healthz") == 200
        lag_s = metric(port, "gavel_bus_lag_seconds")
        wait_until("its lag grows", lambda: metric(port, "gavel_bus_lag_seconds") > lag_s >= 0.0)
        assert worker.process.poll() is None


def status(port: int, path: str) -> int | None:
    try:
        get(port, path)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
    return 200


def test_the_web_serves_its_pages_and_none_of_fausts(cluster: Cluster, leads: str) -> None:
    port = free_port()
    with cluster.worker(topics=[leads], GAVEL_WEB_PORT=str(port)) as worker:
        wait_until("it owns all", lambda: worker.owned() == ALL)
        assert get(port, "/metrics").startswith("# HELP gavel_bus_")
        for path in ("/table/", "/router/", "/graph/", "/stats/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(port, path)


def addresses_of_this_machine() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        address = str(probe.getsockname()[0])
    return [] if address.startswith("127.") else [address]


def test_positions_are_committed_when_the_step_asks(cluster: Cluster, leads: str) -> None:
    with cluster.worker(topics=[leads], positions="group") as first:
        cluster.fill(leads, 400)
        wait_seen(cluster, leads, 400)
        first.signal(signal.SIGTERM)
        assert first.exit_code() == 0
    with cluster.worker(topics=[leads], positions="group") as second:
        wait_until("it owns all", lambda: second.owned() == ALL)
        assert second.events("take_over")[0]["starts"] == [[[leads, at], 100] for at in sorted(ALL)]
        cluster.fill(leads, 40)
        wait_seen(cluster, leads, 440)
    assert_each_once_in_order(cluster, leads, 440)


def test_no_committed_position_means_the_beginning_only_when_the_step_says_so(
    cluster: Cluster, leads: str
) -> None:
    cluster.fill(leads, 40)
    with cluster.worker(topics=[leads], positions="group") as worker:
        wait_seen(cluster, leads, 40)
        assert worker.events("take_over")[0]["starts"] == [[[leads, at], None] for at in sorted(ALL)]
    assert_each_once_in_order(cluster, leads, 40)


def test_a_position_that_the_topic_does_not_have_ends_the_worker(cluster: Cluster, leads: str) -> None:
    """There is no reset: somebody has deleted records, or made the topic again."""
    cluster.fill(leads, 40)
    with cluster.worker(topics=[leads], start_at=999) as worker:
        assert worker.exit_code() == 1
        [stop] = [line for line in worker.log() if line["event"] == "the worker stops"]
        assert "the position to read from is not in the topic any more" in stop["error"]["message"]


def test_a_missing_topic_ends_the_worker_and_is_named(cluster: Cluster) -> None:
    with cluster.worker(topics=[cluster.namespace + "nowhere"]) as worker:
        assert worker.exit_code() == 1
        [stop] = [line for line in worker.log() if line["event"] == "the worker stops"]
        assert f"{cluster.namespace}nowhere" in stop["error"]["message"]
        assert "gavel market apply" in stop["error"]["message"]


def test_a_missing_registry_ends_the_worker(stack: Stack, tmp_path: Path) -> None:
    """It would never hear of a new market, and Faust would wait in silence."""
    cluster = Cluster(stack.kafka, tmp_path)
    leads = cluster.create("leads.qualified")
    with cluster.worker(topics=[leads]) as worker:
        assert worker.exit_code() == 1
        [stop] = [line for line in worker.log() if line["event"] == "the worker stops"]
        assert f"{cluster.namespace}registry" in stop["error"]["message"]
    cluster.delete()


def test_a_cluster_that_does_not_answer_ends_the_worker(cluster: Cluster, leads: str) -> None:
    with cluster.worker(topics=[leads], GAVEL_KAFKA="127.0.0.1:1") as worker:
        assert worker.exit_code() == 1


def test_an_announcement_is_heard_by_every_worker_and_brings_new_topics(cluster: Cluster, leads: str) -> None:
    subscribed = cluster.folder / "topics"
    subscribed.write_text(leads)
    read = {"topics_file": str(subscribed)}
    with cluster.worker(**read) as first, cluster.worker(**read) as second:
        wait_until("both own some", lambda: bool(first.owned() and second.owned()))
        new = cluster.create("leads.commands")
        subscribed.write_text(f"{leads} {new}")
        version = 1

        def heard() -> bool:
            # Faust's consumer begins at the end of the registry, which is not when its worker begins to poll.
            nonlocal version
            version += 1
            announce(cluster.connection, Topics(cluster.namespace), version=version, at_ms=1)
            return bool(first.events("announced") and second.events("announced"))

        wait_until("both heard", heard)
        cluster.fill(new, 40)
        wait_seen(cluster, new, 40)


def test_a_lone_record_is_not_kept_back_for_a_batch(cluster: Cluster, leads: str) -> None:
    with cluster.worker(topics=[leads], GAVEL_BATCH_MAX="10000") as worker:
        wait_until("it owns all", lambda: worker.owned() == ALL)
        for count in range(1, 6):
            began_s = time.monotonic()
            cluster.fill(leads, 1)
            wait_until("it is handled", lambda count=count: len(worker.events("handled")) >= count)  # type: ignore[misc]
            assert worker.events("handled")[-1]["at_s"] - began_s < 2.0
