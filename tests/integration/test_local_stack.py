"""The local stack: what it promises to whoever starts, kills and restarts it."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from deploy.local import kafka, postgres, processes
from deploy.local import stack as local
from deploy.local.cli import app
from deploy.local.folder import Folder
from deploy.local.stack import Stack, StackError


@pytest.fixture(scope="module", autouse=True)
def _no_existing_servers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GAVEL_KAFKA", "GAVEL_DATABASE", "GAVEL_VAULT_KEY_FILE", "GAVEL_FINGERPRINT_KEY_FILE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path is longer than a Unix socket's may be, and has a space."""
    folder = tmp_path_factory.mktemp("stack") / ("deep " * 22).strip() / "data"
    yield folder
    local.down(folder)


@pytest.fixture
def running(data: Path) -> Stack:
    return local.up(data)


def test_second_up_starts_nothing_and_says_so(running: Stack) -> None:
    said: list[str] = []
    again = local.up(running.data_dir, progress=said.append)
    assert again.started == ()
    assert (again.kafka, again.database) == (running.kafka, running.database)
    assert sum("is running already" in message for message in said) == 2


def test_row_and_record_survive_down_and_up_at_the_same_addresses(running: Stack) -> None:
    _write_row(running, "kept")
    _write_record(running, "kept", b"a lead")
    assert set(local.down(running.data_dir)) == {"kafka-1", "postgres"}
    assert not any(server.answers or server.pids for server in local.status(running.data_dir))
    again = local.up(running.data_dir)
    assert set(again.started) == {"kafka-1", "postgres"}
    assert (again.kafka, again.database) == (running.kafka, running.database)
    assert _read_rows(again) == ["kept"]
    assert _read_record(again, "kept") == b"a lead"


def test_up_after_a_kill_starts_both_and_leaves_alone_whoever_has_their_process_ids_by_now(
    running: Stack,
) -> None:
    _write_record(running, "killed", b"acknowledged")
    with subprocess.Popen(["sleep", "600"]) as foreigner:
        try:
            for server in _servers(running.data_dir):
                process = _process(server)
                process.kill()
                process.wait(30)
                server.pid_file.write_text(f"{foreigner.pid}\n")
            lock = running.data_dir / "postgres/data/postmaster.pid"
            lock.write_text("\n".join([str(foreigner.pid), *lock.read_text().splitlines()[1:]]))
            again = local.up(running.data_dir)
            assert foreigner.poll() is None
        finally:
            foreigner.kill()
    assert set(again.started) == {"kafka-1", "postgres"}
    assert _read_record(again, "killed") == b"acknowledged"


def test_down_leaves_alone_a_foreign_process_in_a_stale_pid_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    with subprocess.Popen(["sleep", "600"]) as foreigner:
        try:
            postgres.server(folder).pid_file.write_text(f"{foreigner.pid}\n")
            assert local.down(tmp_path) == ()
            assert foreigner.poll() is None
        finally:
            foreigner.kill()


def test_lost_pid_files_do_not_hide_running_servers(running: Stack) -> None:
    for server in _servers(running.data_dir):
        server.pid_file.unlink()
    assert local.up(running.data_dir).started == ()


def test_servers_listen_on_the_loopback_alone(running: Stack) -> None:
    listening = {
        connection.laddr.ip
        for server in _servers(running.data_dir)
        for connection in _process(server).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_ctrl_c_at_the_terminal_does_not_reach_the_servers(running: Stack) -> None:
    for server in _servers(running.data_dir):
        assert os.getsid(_process(server).pid) != os.getsid(0)


def test_doctor_finds_a_running_stack_well(running: Stack) -> None:
    assert [check for check in local.doctor(running.data_dir) if not check.ok] == []


def test_status_and_doctor_check_existing_servers(
    running: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAVEL_KAFKA", running.kafka)
    monkeypatch.setenv("GAVEL_DATABASE", running.database)
    assert all(server.answers and server.external for server in local.status(tmp_path))
    assert {"Kafka's settings", "PostgreSQL's settings"} <= {
        check.name for check in local.doctor(tmp_path) if check.ok
    }


def test_up_starts_only_what_is_missing(
    running: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAVEL_KAFKA", running.kafka)
    try:
        other = local.up(tmp_path)
        assert other.started == ("postgres",)
        assert other.kafka == running.kafka
        assert other.database != running.database
    finally:
        assert local.down(tmp_path) == ("postgres",)
    assert local.status(running.data_dir)[0].answers, "an existing server is not ours to stop"


def test_existing_server_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAVEL_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GAVEL_DATABASE", "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StackError, match=r"GAVEL_(KAFKA|DATABASE) names"):
        local.up(tmp_path, seconds=2)


@pytest.mark.parametrize("option", ["--kafka-port", "--postgres-port"])
def test_taken_port_is_a_clear_error(option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["up", "--data", str(tmp_path), option, port])
    assert result.exit_code == 1
    assert f"Port {port}, asked for with {option}, is taken" in result.stderr
    assert local.down(tmp_path) == ()


def test_server_that_ends_while_starting_is_quoted(
    running: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAVEL_KAFKA", running.kafka)
    monkeypatch.setitem(postgres.SETTINGS, "max_connections", "many")
    with pytest.raises(StackError, match=r'postgres ended while starting(.|\n)*max_connections(.|\n)*"many"'):
        local.up(tmp_path)


def test_deadline_is_kept_and_the_next_up_goes_on(running: Stack) -> None:
    local.down(running.data_dir)
    with pytest.raises(StackError, match=r"kafka-1 didn't answer within 1 s\. Its log is .*kafka-1\.log"):
        local.up(running.data_dir, seconds=1)
    assert "kafka-1" not in local.up(running.data_dir).started


def test_interrupted_first_up_is_completed_by_the_next(tmp_path: Path) -> None:
    # What a shell starts in the background ignores interrupts, and so do its children: these tests, and this program.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from deploy.local import stack; stack.up(sys.argv[1], progress=lambda m: print(m, flush=1))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as first:
            assert first.stdout is not None
            while "Making PostgreSQL's data" not in first.stdout.readline():
                pass
            first.send_signal(signal.SIGINT)
            first.wait(30)
        assert first.returncode != 0
        assert all(server.answers for server in _status_after_up(tmp_path))
    finally:
        local.down(tmp_path)


def test_secrets_are_made_once_and_for_the_owner_only(running: Stack) -> None:
    files = [running.vault_key_file, running.fingerprint_key_file]
    before = [path.read_text() for path in files]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    assert before[0] != before[1]
    local.up(running.data_dir)
    assert [path.read_text() for path in files] == before
    assert local.environment(running) == {
        "GAVEL_KAFKA": running.kafka,
        "GAVEL_DATABASE": running.database,
        "GAVEL_VAULT_KEY_FILE": str(files[0]),
        "GAVEL_FINGERPRINT_KEY_FILE": str(files[1]),
    }


def test_commands_answer_machines_in_json_and_people_without_the_password(running: Stack) -> None:
    folder = str(running.data_dir)
    up = CliRunner().invoke(app, ["up", "--data", folder, "--json"])
    assert json.loads(up.stdout)["environment"] == local.environment(running)
    password = Folder(folder).password("postgres.password")
    people = CliRunner().invoke(app, ["status", "--data", folder])
    assert people.exit_code == 0
    assert password not in people.stdout
    assert ":***@" in people.stdout


def test_status_of_a_folder_never_used_is_not_well_and_makes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--data", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "not started yet" in result.stdout
    assert not (tmp_path / "none").exists()


def _servers(data: Path) -> list[processes.Server]:
    folder = Folder(data)
    return [kafka.server(folder, 1), postgres.server(folder)]


def _process(server: processes.Server) -> psutil.Process:
    process = processes.find(server)
    assert process is not None
    return process


def _status_after_up(data: Path) -> tuple[local.ServerStatus, ...]:
    local.up(data)
    return local.status(data)


def _write_row(stack: Stack, text: str) -> None:
    with psycopg.connect(stack.database) as connection:
        connection.execute("create table survivors (text text)")
        connection.execute("insert into survivors values (%s)", [text])


def _read_rows(stack: Stack) -> list[str]:
    with psycopg.connect(stack.database) as connection:
        return [text for (text,) in connection.execute("select text from survivors")]


def _write_record(stack: Stack, topic: str, value: bytes) -> None:
    admin = AdminClient({"bootstrap.servers": stack.kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": stack.kafka, "acks": "all"})
    producer.produce(topic, value, partition=0, on_delivery=lambda error, _message: failures.append(error))
    producer.flush(10)
    assert failures == [None]


def _read_record(stack: Stack, topic: str) -> bytes | None:
    consumer = Consumer(
        {
            "bootstrap.servers": stack.kafka,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    try:
        message = consumer.poll(20)
        return None if message is None else message.value()
    finally:
        consumer.close()
