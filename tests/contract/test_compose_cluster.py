"""The profile `cluster` of `docker-compose.yml`, with its variables: three brokers, a standby, two workers of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from services.cli.step_commands import steps
from tests.support.compose import ROOT, workers

PLAIN = (ROOT / "docker-compose.yml").read_text()
BROKERS = ("kafka", "kafka-2", "kafka-3")
DATABASES = ("postgres", "postgres-2")
IN_SYNC = ("MIN_ISR", "MIN_INSYNC_REPLICAS")
_VARIABLE = re.compile(r"\$\{([A-Z_0-9]+):-([^}]*)\}")


def variables() -> dict[str, str]:
    """Read the file of variables as compose does."""
    lines = (ROOT / "deploy/docker/cluster.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def clustered(values: Mapping[str, str]) -> dict[str, Any]:
    """Read the compose file with these variables, and the defaults of the others."""
    text = _VARIABLE.sub(lambda found: values.get(found[1], found[2]), PLAIN)
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def setting(services: Mapping[str, Any], name: str) -> set[str]:
    """Collect what the brokers are told."""
    return {str(services[broker]["environment"][name]) for broker in BROKERS}


def wrong_with(services: Mapping[str, Any]) -> list[str]:
    """Name what three brokers and two databases would not agree on."""
    brokers = {name: services[name]["environment"] for name in BROKERS}
    voters = ",".join(f"{told['KAFKA_NODE_ID']}@{name}:9093" for name, told in brokers.items())
    servers = ",".join(f"{name}:9092" for name in BROKERS)
    copies = {name for told in brokers.values() for name in told if name.endswith("REPLICATION_FACTOR")}
    in_sync = {name for told in brokers.values() for name in told if name.endswith(IN_SYNC)}
    partner = {name: services[name]["environment"]["GAVEL_POSTGRES_PARTNER"] for name in DATABASES}
    kept = {
        "other voters": setting(services, "KAFKA_CONTROLLER_QUORUM_VOTERS") == {voters},
        "the same number": len({told["KAFKA_NODE_ID"] for told in brokers.values()}) == len(BROKERS),
        "shared data": len({services[name]["volumes"][0] for name in (*BROKERS, *partner)}) == 5,
        "fewer copies": bool(copies) and all(setting(services, name) == {"3"} for name in copies),
        "fewer in sync": bool(in_sync) and all(setting(services, name) == {"2"} for name in in_sync),
        "other brokers": all(each["environment"]["GAVEL_KAFKA"] == servers for each in _clients(services)),
        "partners": partner == {"postgres": "postgres-2", "postgres-2": "postgres"},
        "one database": all("@postgres:5432,postgres-2:5432/" in each["environment"]["GAVEL_DATABASE"]
                            and "target_session_attrs=read-write" in each["environment"]["GAVEL_DATABASE"]
                            for each in _clients(services)),
        "one worker": all(each["scale"] == 2 for each in workers({"services": services}).values()),
    }  # fmt: skip
    return [lack for lack, is_kept in kept.items() if not is_kept]


def _clients(services: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in services.values() if "GAVEL_DATABASE" in each.get("environment", {})]


def test_with_its_variables_everything_agrees_on_three_brokers_and_two_databases() -> None:
    assert wrong_with(clustered(variables())) == []


def test_without_them_it_is_one_machine_with_one_of_each() -> None:
    services = clustered({})
    assert {name for name, each in services.items() if each.get("profiles") == ["cluster"]} == {
        "kafka-2", "kafka-3", "postgres-2",
    }  # fmt: skip
    assert services["kafka"]["environment"]["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka:9093"
    assert services["postgres"]["environment"]["GAVEL_POSTGRES_PARTNER"] is None
    assert {each["scale"] for each in workers({"services": services}).values()} == {1}
    assert wrong_with(services) != []


def test_every_variable_of_the_file_is_one_of_compose_or_read_there() -> None:
    read = {name for name, _ in _VARIABLE.findall(PLAIN)}
    assert {name for name in variables() if not name.startswith("COMPOSE_")} <= read
    assert variables()["COMPOSE_PROFILES"] == "cluster"


def test_http_has_a_port_for_each_worker_of_the_gateway() -> None:
    first, last = map(int, variables()["GAVEL_HTTP_PORT"].split("-"))
    assert last - first + 1 == int(variables()["GAVEL_WORKERS"])
    assert "gateway" in steps()


def test_the_auditor_whose_state_is_one_file_is_one() -> None:
    assert clustered(variables())["audit"]["scale"] == 1


@pytest.mark.parametrize(
    ("variable", "value", "wrong"),
    [
        ("GAVEL_KAFKA_VOTERS", "1@kafka:9093,2@kafka-2:9093", "other voters"),
        ("GAVEL_KAFKA_COPIES", "2", "fewer copies"),
        ("GAVEL_KAFKA_IN_SYNC", "1", "fewer in sync"),
        ("GAVEL_KAFKA_SERVERS", "kafka:9092", "other brokers"),
        ("GAVEL_POSTGRES_SERVERS", "postgres:5432", "one database"),
        ("GAVEL_POSTGRES_PARTNER", "", "partners"),
        ("GAVEL_WORKERS", "1", "one worker"),
    ],
)
def test_a_planted_disagreement_is_seen(variable: str, value: str, wrong: str) -> None:
    assert wrong_with(clustered({**variables(), variable: value})) == [wrong]
