"""A real broker that speaks TLS and asks for a password: workers reach it, and trust no other authority's."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local import kafka as local_kafka
from deploy.local import stack as local_stack
from deploy.local.folder import Folder, Remembered
from services.bus.kafka import read_properties
from services.vault.keys import make_key
from tests.support.gateway import free_port
from tests.support.hosting import wait_until
from tests.support.tls import Authority, authority

pytestmark = pytest.mark.timeout(400)

LISTENER = "TLS"
WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker with a listener for TLS, and what commands and workers are told of it."""

    own: Authority
    users: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an operator does."""
        command = [sys.executable, "-m", "services.cli", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )

    def trust(self, authority: Authority) -> None:
        """Let the administrator's file name this authority."""
        file = self.users / "admin.properties"
        told = dict(read_properties(file.read_text()))
        told |= {"security.protocol": "SASL_SSL", "ssl.ca.location": str(authority.certificate)}
        file.write_text("".join(f"{name}={value}\n" for name, value in told.items()))


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secured]:
    """A local stack with one listener more; what is told to clients names that one alone."""
    for name in [name for name in os.environ if name.startswith("GAVEL_")]:
        monkeypatch.delenv(name)
    own, port, data = authority(tmp_path, "own"), free_port(), tmp_path / "data"
    identity = tmp_path / "broker.pem"
    identity.write_bytes(own.key.read_bytes() + own.certificate.read_bytes())
    plain = local_kafka.properties

    def with_tls(folder: Folder, state: Remembered, node: int) -> dict[str, str]:
        told = plain(folder, state, node)
        more = {
            "listeners": f"{LISTENER}://127.0.0.1:{port}",
            "advertised.listeners": f"{LISTENER}://127.0.0.1:{port}",
            "listener.security.protocol.map": f"{LISTENER}:SASL_SSL",
        }
        here = f"listener.name.{LISTENER.lower()}."
        return {
            **told,
            **{name: f"{told[name]},{value}" for name, value in more.items()},
            f"{here}sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{here}scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            f"{here}ssl.keystore.type": "PEM",
            f"{here}ssl.keystore.location": str(identity),
        }

    monkeypatch.setattr(local_kafka, "properties", with_tls)
    try:
        running = local_stack.up(data, secured=True)
        assert running.kafka_config is not None
        # The stack's own file stays as it is: whoever starts and stops it goes by the other listener.
        users = tmp_path / "users"
        users.mkdir(mode=0o700)
        (users / "admin.properties").write_text((running.kafka_config / "admin.properties").read_text())
        make_key(tmp_path / "fingerprint.key")
        environment = {
            **os.environ,
            "GAVEL_KAFKA": f"127.0.0.1:{port}",
            "GAVEL_KAFKA_CONFIG": str(users),
            "GAVEL_DATABASE": running.database,
            "GAVEL_FINGERPRINT_KEY_FILE": str(tmp_path / "fingerprint.key"),
            "GAVEL_DATA": str(tmp_path / "none"),
        }
        yield Secured(own, users, environment)
    finally:
        local_stack.down(data)


def test_a_worker_reaches_a_broker_by_tls_and_a_wrong_authority_is_refused_and_named(
    secured: Secured, tmp_path: Path
) -> None:
    secured.trust(secured.own)
    made = secured.run("setup")
    assert made.returncode == 0, made.stderr
    assert made.stdout
    file = secured.users / "gavel.feed.properties"
    told = dict(read_properties(file.read_text()))
    assert (told["security.protocol"], told["ssl.ca.location"]) == ("SASL_SSL", str(secured.own.certificate))
    _feed_becomes_ready(secured, file, tmp_path / "feed.log")

    secured.trust(authority(tmp_path, "foreign"))
    refused = secured.run("setup")
    assert refused.returncode == 1
    assert "certificate verify failed" in refused.stderr
    assert "Traceback" not in refused.stderr


def _feed_becomes_ready(secured: Secured, file: Path, log: Path) -> None:
    """Run a step as it is run, Faust's client included, until its group knows it and it has read its market."""
    port = free_port()
    environment = {**secured.environment, "GAVEL_KAFKA_CONFIG": str(file), "GAVEL_WEB_PORT": str(port)}
    with log.open("wb") as said:
        worker = subprocess.Popen(
            [sys.executable, "-m", "services.feed"], env=environment, stdout=said, stderr=said
        )
    try:

        def is_ready() -> bool:
            assert worker.poll() is None, log.read_text()[-3_000:]
            return _answers(f"http://127.0.0.1:{port}/readyz")

        wait_until(f"feed is ready; {log}", is_ready, within_s=WITHIN_S)
    finally:
        worker.terminate()
        worker.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False
