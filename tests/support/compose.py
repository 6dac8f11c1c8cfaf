"""The compose file as a whole, and what is wrong with one: the rules that it must keep, each with its complaints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SECRETS = "/run/secrets/"
FOLDER = "${GAVEL_SECRETS:-./.gavel/compose}"
ENDS = frozenset({"setup", "operator"})
"""Services that end by themselves: nothing asks for their health."""

OWNERS = {
    "setup": {"pgpass"},
    "postgres": {"pgpass", "postgres.password"},
    "postgres-2": {"pgpass", "postgres.password"},
}
"""Who is given the secrets of the database's owner: its servers, and what makes the tables."""

FOLDERS = {"setup": {"/users", "/database"}, "operator": {"/users"}}
"""Who is given whole folders of secrets."""

WRITES_TO_ITS_IMAGE = frozenset({"kafka", "kafka-2", "kafka-3"})
_IMAGE = re.compile(r"\$\{[A-Z_]+_IMAGE:-[a-z0-9/-]+:[a-z0-9.-]*[0-9][a-z0-9.-]*\}")
_SECRETIVE = re.compile(r"PASSWORD|SECRET|TOKEN|KEY|JAAS|CREDENTIAL", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_VALUE_OF_SECRET = re.compile(r"(?i)password\s*[=:]\s*[\"']?\w")

Compose = Mapping[str, Any]


def composed() -> dict[str, Any]:
    """Read the compose file, merges and anchors resolved, variables as they are written."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def workers(compose: Compose) -> dict[str, Mapping[str, Any]]:
    """Find the services that run a step, by the step's name."""
    commands = {name: service.get("command") for name, service in compose["services"].items()}
    return {
        command[2]: compose["services"][name]
        for name, command in commands.items()
        if isinstance(command, list) and command[:2] == ["step", "run"]
    }


def secrets_of(service: Mapping[str, Any]) -> dict[str, str]:
    """List a service's secrets: where each is found, and which it is."""
    pairs = [
        (secret["target"], secret["source"]) if isinstance(secret, dict) else (secret, secret)
        for secret in service.get("secrets", ())
    ]
    return {target if target.startswith("/") else SECRETS + target: source for target, source in pairs}


def unpinned_images(compose: Compose) -> list[str]:
    """Name services whose image is no variable with a numbered version as its default."""
    return [name for name, each in compose["services"].items() if not _IMAGE.fullmatch(each["image"])]


def told_secrets(compose: Compose) -> list[str]:
    """Name what in the file is a secret, or may hold one."""
    return [
        f"{name}: {variable}"
        for name, each in compose["services"].items()
        for variable, value in each.get("environment", {}).items()
        if not _is_harmless(variable, str(value))
    ]


def _is_harmless(variable: str, value: str) -> bool:
    if _PASSWORD_IN_URL.search(value) or _VALUE_OF_SECRET.search(value):
        return False
    return not _SECRETIVE.search(variable) or value.startswith(SECRETS)


def loose_containers(compose: Compose) -> Iterator[str]:
    """Name what a service lacks of a container that is bounded, watched and may do little."""
    for name, each in compose["services"].items():
        yield from (f"{name}: {lack}" for lack in _lacks(name, each))


def _lacks(name: str, service: Mapping[str, Any]) -> Iterable[str]:
    kept = {
        "no limit of memory": bool(service.get("mem_limit")),
        "no limit of processors": bool(service.get("cpus")),
        "no restart policy": bool(service.get("restart")),
        "no health check": name in ENDS or bool(service.get("healthcheck")),
        "may be root": re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service.get("user"))) is not None,
        "capabilities": service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
        "new privileges": "no-new-privileges:true" in service.get("security_opt", ()),
        "a file system to write to": name in WRITES_TO_ITS_IMAGE or service.get("read_only") is True,
    }
    return (lack for lack, is_kept in kept.items() if not is_kept)


def missing_files(compose: Compose) -> list[str]:
    """Name files in settings that the service is given no secret for, and secrets that nothing declares."""
    found = []
    for name, each in compose["services"].items():
        given = secrets_of(each)
        values = re.findall(rf"{SECRETS}[\w.-]+", " ".join(map(str, each.get("environment", {}).values())))
        found += [f"{name}: {file}" for file in values if file not in given]
        found += [f"{name}: {source}" for source in given.values() if source not in compose["secrets"]]
    return found


def wrong_database_users(compose: Compose) -> list[str]:
    """Name services that are not at the database as their own user alone, and those that have another's secret."""
    return [
        f"{name}: {wrong}"
        for name, each in compose["services"].items()
        for wrong in (*_wrong_secrets(name, each), *_wrong_user(name, each))
    ]


def _wrong_secrets(name: str, service: Mapping[str, Any]) -> Iterator[str]:
    own = OWNERS.get(
        name, {f"database-{name}"} if "GAVEL_DATABASE" in service.get("environment", {}) else set()
    )
    of_database = {
        source
        for source in secrets_of(service).values()
        if source in OWNERS["postgres"] or source.startswith("database-")
    }
    if of_database != own:
        yield f"has the secrets {sorted(of_database)} of the database, not {sorted(own)}"
    mounted = {
        volume.removeprefix(FOLDER).split(":")[0]
        for volume in service.get("volumes", ())
        if volume.startswith(FOLDER)
    }
    if mounted != FOLDERS.get(name, set()):
        yield f"is given the folders {sorted(mounted)}"


def _wrong_user(name: str, service: Mapping[str, Any]) -> Iterator[str]:
    url = service.get("environment", {}).get("GAVEL_DATABASE")
    if url is None:
        return
    own = "gavel" if name in OWNERS else f"gavel_{name}"
    if not url.startswith(f"postgresql://{own}@"):
        yield f"is not {own} in its URL"
    if not url.endswith(f"&passfile={SECRETS}pgpass") or SECRETS + "pgpass" not in secrets_of(service):
        yield "has no passfile"


def wrong_passfiles(compose: Compose) -> list[str]:
    """Name secrets of the database's users that are another's file."""
    return [
        name
        for name, secret in compose["secrets"].items()
        if name.startswith("database-")
        and secret["file"] != f"{FOLDER}/database/gavel_{name.removeprefix('database-')}.pgpass"
    ]
