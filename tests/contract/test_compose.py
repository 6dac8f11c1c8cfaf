"""`docker-compose.yml` against the code: it runs every step, by settings that exist, and tells no secret."""

from __future__ import annotations

import copy
import os
import pkgutil
import re
import stat
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import services
from deploy.docker.runtime_requirements import LOCAL_STACK, needed, runtime_lock
from services.bus.logins import USERS
from services.bus.settings import PREFIX, StepSettings
from services.cli.step_commands import steps
from services.contract.access import INSIDERS
from services.contract.topics import TopicDeclaration, declarations
from tests.support import compose as rules
from tests.support.compose import ENDS, FOLDER, ROOT, composed, secrets_of, workers

SCRIPT = ROOT / "deploy/docker/secrets.sh"
COMPOSE = composed()
AS_OWNER = COMPOSE["services"]["setup"]["environment"]["GAVEL_DATABASE"]
OWN_OF_ROUTER = {"source": "database-router", "target": "pgpass"}
OF_THE_SETUP = {"GAVEL_FIRST_MARKET"}
"""Read by deploy/docker/setup.sh."""

as_in_containers = pytest.mark.skipif(
    os.geteuid() not in (0, 1000),
    reason="secrets are made by root or by user 1000, who reads them in containers",
)


def test_every_step_runs_and_nothing_else_is_called_a_step() -> None:
    assert workers(COMPOSE).keys() == steps().keys()
    assert all(COMPOSE["services"][name] is each for name, each in workers(COMPOSE).items())


def test_every_setting_is_one_of_the_code() -> None:
    named = {
        variable
        for each in COMPOSE["services"].values()
        if "GAVEL_IMAGE" in each["image"]
        for variable in each.get("environment", {})
    }
    assert named - _settings() - OF_THE_SETUP == set()
    assert all(variable in (ROOT / "deploy/docker/setup.sh").read_text() for variable in OF_THE_SETUP)


def _settings() -> set[str]:
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if module.name.endswith((".settings", ".surroundings")):
            import_module(module.name)
    waiting: list[type[StepSettings]] = [StepSettings]
    for model in waiting:
        waiting += model.__subclasses__()
    return {f"{PREFIX}{name.upper()}" for model in waiting for name in model.model_fields}


@pytest.mark.parametrize("step", sorted(steps()))
def test_a_worker_speaks_to_kafka_as_its_own_user_alone(step: str) -> None:
    given = secrets_of(workers(COMPOSE)[step])
    file = workers(COMPOSE)[step]["environment"]["GAVEL_KAFKA_CONFIG"]
    assert COMPOSE["secrets"][given[file]]["file"] == f"{FOLDER}/users/gavel.{step}.properties"
    assert [source for source in given.values() if source.startswith("kafka-")] == [f"kafka-{step}"]


def test_each_is_at_the_database_as_its_own_user_and_setup_alone_as_the_owner() -> None:
    assert rules.wrong_database_users(COMPOSE) == []
    assert rules.wrong_passfiles(COMPOSE) == []
    at_the_database = {
        name for name, each in COMPOSE["services"].items() if "GAVEL_DATABASE" in each.get("environment", {})
    }
    assert at_the_database == {*INSIDERS, "setup"}
    (folder,) = (
        volume
        for volume in COMPOSE["services"]["setup"]["volumes"]
        if volume.startswith(f"{FOLDER}/database:")
    )
    assert COMPOSE["services"]["setup"]["environment"]["GAVEL_DATABASE_USERS"] == folder.split(":")[-2]


def test_a_step_is_asked_for_its_readiness_where_it_serves_it() -> None:
    for step, each in workers(COMPOSE).items():
        assert each["healthcheck"]["test"][3:] == [each["environment"]["GAVEL_WEB_PORT"], "/readyz"], step


def test_prometheus_asks_every_worker_and_the_auditor() -> None:
    mounted = "./deploy/docker/prometheus.yml:/etc/prometheus/prometheus.yml:ro"
    assert mounted in COMPOSE["services"]["prometheus"]["volumes"]
    (job,) = yaml.safe_load((ROOT / "deploy/docker/prometheus.yml").read_text())["scrape_configs"]
    (asked,) = job["dns_sd_configs"]
    served = {**workers(COMPOSE), "audit": COMPOSE["services"]["audit"]}
    assert (sorted(asked["names"]), asked["type"]) == (sorted(served), "A")
    assert {each["environment"]["GAVEL_WEB_PORT"] for each in served.values()} == {str(asked["port"])}


def masked(target: str, topic: str) -> list[list[str] | None]:
    """List what the look at the topics takes out of a topic's keys or values: these fields, or None for all."""
    (cluster,) = yaml.safe_load((ROOT / "deploy/docker/kafka-ui.yml").read_text())["kafka"]["clusters"]
    assert cluster["readOnly"] is True
    name = topic.replace("<id>", "acme")
    return [
        each.get("fields")
        for each in cluster["masking"]
        if re.fullmatch(each.get(f"topic{target}Pattern", ""), name)
    ]


@pytest.mark.parametrize("topic", declarations(), ids=lambda topic: topic.name)
def test_the_look_at_the_topics_shows_no_personal_data(topic: TopicDeclaration) -> None:
    if "reference" in topic.personal_data:
        assert masked("Values", topic.name) == [["reference"]]
    elif not topic.personal_data.startswith("none"):
        assert masked("Values", topic.name) in ([None], [["contact", "details"]])


@pytest.mark.parametrize("topic", declarations(), ids=lambda topic: topic.name)
def test_the_look_at_the_topics_shows_nothing_that_outsiders_chose(topic: TopicDeclaration) -> None:
    letters = [f"{topic.name}.dlq"] if topic.dead_letters else []
    for name in [topic.name, *letters] if topic.key == "any" else letters:
        assert masked("Keys", name) == masked("Values", name) == [None]


def test_kafka_keeps_the_promises_that_the_local_stack_keeps() -> None:
    told = (ROOT / "deploy/local/kafka.py").read_text() + (ROOT / "deploy/local/security.py").read_text()
    broker = COMPOSE["services"]["kafka"]["environment"]
    for name in (
        "auto.create.topics.enable",
        "unclean.leader.election.enable",
        "allow.everyone.if.no.acl.found",
        "authorizer.class.name",
    ):
        value = broker["KAFKA_" + name.replace(".", "_").upper()]
        assert f'"{name}": "{value}"' in told
    assert "PLAINTEXT" not in re.split(r"[:,]", broker["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"])
    assert broker["KAFKA_LISTENER_NAME_OUTSIDE_SASL_ENABLED_MECHANISMS"] == "SCRAM-SHA-512"


def test_every_image_is_a_variable_with_a_pinned_default() -> None:
    assert rules.unpinned_images(COMPOSE) == []
    recipe = (ROOT / "Dockerfile").read_text()
    base = COMPOSE["services"]["setup"]["build"]["args"]["PYTHON_IMAGE"]
    pinned = re.findall(r"^ARG PYTHON_IMAGE=(\S+:3\.11\.\d+\S*)$", recipe, re.MULTILINE)
    assert [base] == [f"${{PYTHON_IMAGE:-{image}}}" for image in pinned]
    assert set(re.findall(r"^FROM (\S+)", recipe, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


def test_no_secret_is_told_and_every_file_of_one_is_given() -> None:
    assert rules.told_secrets(COMPOSE) == []
    assert rules.missing_files(COMPOSE) == []


def test_every_container_is_bounded_watched_and_may_do_little() -> None:
    assert list(rules.loose_containers(COMPOSE)) == []


def _plant(path: str, value: Any) -> dict[str, Any]:
    """Change one place of the file, named `service key` or `service key variable`."""
    changed = copy.deepcopy(COMPOSE)
    *way, last = path.split()
    place = changed["services"]
    for key in way:
        place[key] = copy.copy(place[key])
        place = place[key]
    place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("router image", "gavel:0.1.0", rules.unpinned_images),
        ("kafka image", "${KAFKA_IMAGE:-apache/kafka:latest}", rules.unpinned_images),
        ("postgres environment POSTGRES_PASSWORD", "hunter2", rules.told_secrets),
        ("feed environment GAVEL_DATABASE", "postgresql://gavel:hunter2@postgres/gavel", rules.told_secrets),
        ("kafka environment KAFKA_OPTS", 'required username="admin" password="hunter2"', rules.told_secrets),
        ("intake secrets", ["pgpass"], rules.missing_files),
        ("feed secrets", ["pgpass", "nobodys"], rules.missing_files),
        ("feed environment GAVEL_DATABASE", AS_OWNER, rules.wrong_database_users),
        (
            "feed environment GAVEL_DATABASE",
            AS_OWNER.replace("gavel@", "gavel_router@"),
            rules.wrong_database_users,
        ),
        ("feed secrets", ["pgpass"], rules.wrong_database_users),
        ("feed secrets", [OWN_OF_ROUTER, "kafka-feed"], rules.wrong_database_users),
        ("operator secrets", ["database-operator", "postgres.password"], rules.wrong_database_users),
        ("kafka-ui secrets", ["pgpass"], rules.wrong_database_users),
        ("operator volumes", [f"{FOLDER}:/run/all"], rules.wrong_database_users),
        ("feed volumes", [f"{FOLDER}/database:/run/database"], rules.wrong_database_users),
        ("billing mem_limit", None, rules.loose_containers),
        ("billing user", "0:0", rules.loose_containers),
        ("billing read_only", False, rules.loose_containers),
        ("billing healthcheck", None, rules.loose_containers),
        ("kafka cap_add", ["NET_ADMIN"], rules.loose_containers),
    ],
)
def test_a_planted_fault_is_seen(path: str, value: Any, rule: Callable[[Any], Any]) -> None:
    assert list(rule(_plant(path, value)))


@as_in_containers
def test_the_script_makes_every_secret_once_and_closed_to_others(tmp_path: Path) -> None:
    made = _made_secrets(tmp_path)
    named = {secret["file"].removeprefix(f"{FOLDER}/") for secret in COMPOSE["secrets"].values()}
    assert named <= made.keys()
    assert {f"users/gavel.{who}.properties" for who in INSIDERS} | {"users/admin.properties"} == {
        name for name in made if name.startswith("users/")
    }
    assert {f"database/{user}.pgpass" for user in USERS} == {
        name for name in made if name.startswith("database/")
    }
    passwords = {made[f"database/{user}.pgpass"].removeprefix(f"*:5432:*:{user}:") for user in USERS}
    assert len(passwords) == len(USERS)
    assert all(re.fullmatch(r"[\w-]{40,}\n", password) for password in passwords)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in made} == {0o600}
    assert _made_secrets(tmp_path) == made
    (tmp_path / "pgpass").unlink()
    assert _made_secrets(tmp_path) == made  # what is lost of it follows from the rest
    (tmp_path / "database/gavel_feed.pgpass").unlink()
    renewed = {name for name, content in _made_secrets(tmp_path).items() if content != made[name]}
    assert renewed == {"database/gavel_feed.pgpass"}


def _made_secrets(folder: Path) -> dict[str, str]:
    subprocess.run(["sh", SCRIPT, folder], check=True, capture_output=True)
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_ends_by_itself_is_there() -> None:
    assert COMPOSE["services"].keys() >= ENDS


def test_the_image_has_what_the_code_needs_and_nothing_of_development() -> None:
    chosen = _packages(
        runtime_lock((ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.lock").read_text())
    )
    assert {"faust-streaming", "confluent-kafka", "psycopg-binary", "orjson", "aiokafka"} <= chosen
    assert chosen & {"pytest", "mypy", "ruff", "uv", "hypothesis", "testcontainers", *LOCAL_STACK} == set()


def test_needs_are_followed_over_any_number_of_steps() -> None:
    asked_by = {"a": {"root"}, "b": {"a", "dev"}, "c": {"b"}, "d": {"dev"}}
    assert needed({"root"}, asked_by) == {"root", "a", "b", "c"}


def test_a_lock_that_lacks_a_dependency_is_an_error() -> None:
    with pytest.raises(ValueError, match="lacks missing"):
        runtime_lock('[project]\ndependencies = ["missing>=1"]', "other==1 \\\n    --hash=sha256:00\n")


def _packages(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9][\w.-]*)==", lock, re.MULTILINE))
