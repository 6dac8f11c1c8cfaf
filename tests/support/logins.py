"""A database server of the test's own, whose users log in by passwords: those of others are never touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.local import stack as local_stack
from deploy.local.stack import Stack
from services.bus.logins import USERS


@contextmanager
def own_server(stack: Stack, data: Path) -> Iterator[Stack]:
    """Start a PostgreSQL beside the Kafka that is there, and stop it at the end."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("GAVEL_DATABASE", raising=False)
        environment.setenv("GAVEL_KAFKA", stack.kafka)
        try:
            yield local_stack.up(data)
        finally:
            local_stack.down(data)


def draw(folder: Path, generation: str) -> dict[str, str]:
    """Write a passfile for each user; a generation has passwords of its own."""
    folder.mkdir(exist_ok=True)
    return {user: write(folder, user, f"{generation}-{user}:\\") for user in USERS}


def write(folder: Path, user: str, password: str) -> str:
    """Write one user's passfile, closed to others as PostgreSQL's clients demand, and return the password."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    file = folder / f"{user}.pgpass"
    file.touch(0o600)
    file.write_text(f"# the only one\n*:*:*:{user}:{escaped}\n")
    return password


def url_of(owners: str, user: str, folder: Path) -> str:
    """Name the database as a container does: the user in the URL, its password in its file."""
    found = urlsplit(owners)
    place = f"{user}@{found.hostname}:{found.port}"
    return found._replace(netloc=place, query=f"passfile={folder / user}.pgpass").geturl()
