"""Kafka and PostgreSQL in containers, from the images that `docker-compose.yml` names, for `pytest -m containers`.

Without a Docker daemon, or without the images and a way to pull them, tests are skipped with the reason. Where the
image of testcontainers' own reaper can't be pulled either, set TESTCONTAINERS_RYUK_DISABLED=true.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import docker
import pytest
from docker.errors import DockerException
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.support.compose import composed

PORT = 9092
STARTS_WITHIN_S = 120
_SCRIPT = "/tmp/start-kafka.sh"

BROKER = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": f"CLIENT://:{PORT},INSIDE://localhost:9094,CONTROLLER://localhost:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
}


class ApacheKafkaContainer(DockerContainer):
    """One broker of an image that keeps apache/kafka's contract: KAFKA_* variables, and `/etc/kafka/docker/run`.

    Clients are told the mapped port, which is known only once the container is there: it awaits a script that says so.
    """

    def __init__(self, image: str) -> None:
        """Describe the container; `start` runs it."""
        super().__init__(image)
        self.with_exposed_ports(PORT)
        for name, value in BROKER.items():
            self.with_env(name, value)
        self.with_command(
            ["bash", "-c", f"until [[ -f {_SCRIPT} ]]; do sleep 0.1; done; exec bash {_SCRIPT}"]
        )

    def start(self) -> Self:
        """Start the broker and wait until it answers; raise `TimeoutError` if it doesn't."""
        super().start()
        listeners = f"CLIENT://{self.bootstrap()},INSIDE://localhost:9094"
        self._write(f"export KAFKA_ADVERTISED_LISTENERS={listeners}\nexec /etc/kafka/docker/run\n")
        started = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(STARTS_WITHIN_S)
        started.wait_until_ready(self)
        return self

    def bootstrap(self) -> str:
        """Name the broker for a client."""
        return f"{self.get_container_host_ip()}:{self.get_exposed_port(PORT)}"

    def _write(self, script: str) -> None:
        content = script.encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            file = tarfile.TarInfo(_SCRIPT.removeprefix("/tmp/"))
            file.size, file.mode = len(content), 0o644
            archive.addfile(file, io.BytesIO(content))
        self.get_wrapped_container().put_archive("/tmp", packed.getvalue())


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Run both servers and give the brokers and the database's URL; skip where Docker or an image is not to be had."""
    kafka, postgres = _image("kafka"), _image("postgres")
    _require(kafka, postgres)
    with (
        Network() as network,
        ApacheKafkaContainer(kafka).with_network(network) as broker,
        PostgresContainer(postgres, username="gavel", dbname="gavel", driver=None).with_network(
            network
        ) as database,
    ):
        yield broker.bootstrap(), database.get_connection_url()


def _image(service: str) -> str:
    """Name the image as the compose file does: by its variable, else by the pinned default."""
    variable, _, default = composed()["services"][service]["image"].strip("${}").partition(":-")
    return os.environ.get(variable) or str(default)


def _require(*images: str) -> None:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker daemon answers: {error}")
    try:
        for image in images:
            if not client.images.list(name=image):
                client.images.pull(image)
    except DockerException as error:
        pytest.skip(f"no image {image}, and it can't be pulled: {error}")
    finally:
        client.close()
